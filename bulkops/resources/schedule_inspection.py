"""What would keep the schedules of a configuration from starting their jobs, held against the real tables.

What comes in: settings without errors; what goes out: findings as `inspect` makes them. A server refuses to start
for these; here all of them are told at once. Resources of host classes are not looked at, and nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from bulkops.errors import Halt, Refusal, did_you_mean
from bulkops.places import KeyPath
from bulkops.resources.contract import Query, Resource
from bulkops.resources.explanation import Look, look_at
from bulkops.resources.findings import Remark, error, warning
from bulkops.resources.inspection import Finding, found
from bulkops.settings import ScheduleSettings, Settings


async def inspect_schedules(settings: Settings) -> list[Finding]:
    """Hold each schedule against what it acts on; empty when there is nothing to say.

    Raises:
        ConfigError: a resource does not fit its table, or a database or folder cannot be read.

    """
    remarks: list[Remark] = []
    for name, schedule in settings.schedules.items():
        resource = await _look(settings, schedule.resource)
        if resource is not None:
            remarks += [remark async for remark in _inspect(("schedules", name), schedule, resource)]
    return found(settings, remarks)


async def _look(settings: Settings, name: str) -> Resource | None:
    resource = settings.resources[name]
    root, where = settings.path(resource.root or ""), f"resources.{name}.root"
    if resource.kind == "folder":
        from bulkops.resources.folder.resource import FolderResource  # late, as all kinds but tables
        from bulkops.resources.folder.storage import FolderStorage

        # Nothing is moved: it needs no trash, and none is made.
        return FolderResource(name, resource, FolderStorage(name, root, root, frozenset), _nothing)
    if resource.kind == "photos":
        from bulkops.resources.photos.projects import Projects
        from bulkops.resources.photos.resource import PhotosResource

        projects = Projects.open(where, root, frozenset)
        photos = PhotosResource(name, resource, Look(settings, resource), projects, trash_days=0)
        await photos.open()
        return photos
    if resource.kind == "table":
        table = look_at(settings, name)
        await table.open()
        return table
    return None


async def _nothing(_: Sequence[bytes]) -> set[bytes]:
    return set()


async def _inspect(path: KeyPath, schedule: ScheduleSettings, resource: Resource) -> AsyncIterator[Remark]:
    known = resource.action_names()
    if schedule.action not in known:
        hint = did_you_mean(schedule.action, known) or f"; it has {', '.join(known)}"
        said = f"{resource.name} has no action {schedule.action!r}{hint}"
        if resource.kind == "table":
            yield warning((*path, "action"), f"{said} (or a host application declares it)")
        else:
            yield error((*path, "action"), said)
        return
    if schedule.tenant is not None and not (resource.tenanted or resource.settings.shared):
        yield error((*path, "tenant"), f"items of {resource.name} belong to no tenant")
    for key in ("ids", "exclude_ids"):
        for wire in getattr(schedule, key) or []:
            try:
                resource.parse_id(wire)
            except ValueError as fault:
                yield error((*path, key), f"{wire!r}: {fault}")
    word = resource.action_settings(schedule.action).confirm
    if word != schedule.confirm and word is not None:
        yield error((*path, "confirm"), f'{schedule.action} wants its word: confirm = "{word}"')
    query = Query(
        action=schedule.action, options=schedule.options, tenant=schedule.tenant, atomic=schedule.atomic
    )
    try:
        await resource.check(query)
        await resource.freeze_filter(schedule.filter or {}, time.time_ns() // 1_000_000)
    except Refusal as refused:
        yield error((*path, *_key_of(refused)), refused.detail)
    except Halt as halt:
        yield error(path, halt.message)


def _key_of(refused: Refusal) -> KeyPath:
    """Turn the pointer of a refusal into keys of the file, as far as there are any."""
    pointer: str = (refused.extra.get("errors") or [{"pointer": ""}])[0]["pointer"]
    return tuple(pointer.split("/")[1:])
