"""What well-typed settings still must not say: bounds, names, words and what does not go together.

What comes in: the values of `settings`; what goes out: mistakes, each the path of a key and a sentence about it,
the first of which stops the start. No file is read and no database is looked at here.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from bulkops.errors import did_you_mean
from bulkops.operations import MAINTENANCE, PRIORITY_MAX, RANGES, ROLES, parse_rate
from bulkops.places import KeyPath
from bulkops.settings import (
    ActionSettings,
    ChildSettings,
    ResourceSettings,
    ScheduleSettings,
    ServerSettings,
    Settings,
    StatusSettings,
    as_tuple,
)
from bulkops.slots import check_cron, check_zone, parse_every

#: What is wrong, and where.
Mistake = tuple[KeyPath, str]

_KINDS: Final = ("table", "folder", "photos")
_MAX_NAME: Final = 100
_MAX_DAYS: Final = 36_500
_MONTH_S: Final = 30 * 86_400
#: Names that stand where an action's name would stand in a URL.
_RESERVED_ACTIONS: Final = frozenset({"info", "items", "validate"})
_CLASS: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@?#*A-Z]+")
_HOST: Final = re.compile(r"[^/\s@?#*]+")
_WEBHOOK_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)


def is_origin(text: str) -> bool:
    """Say whether a text is an origin as browsers write it, the exact and only form."""
    return _ORIGIN.fullmatch(text) is not None


def explain_segment(name: str) -> str | None:
    """Say why a name cannot be one segment of a URL, ``None`` when it can."""
    if not name:
        return "is empty"
    if len(name) > _MAX_NAME:
        return f"is longer than {_MAX_NAME} characters"
    if "/" in name or "\\" in name or name in {".", ".."}:
        return "cannot stand in a URL: no slashes, and neither . nor .."
    if name != name.strip() or any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in name):
        return "has invisible characters, or blanks around it"
    return None


def in_server(server: ServerSettings) -> Iterator[tuple[str, str]]:
    """Yield what `[server]` must not say: names of fields, each with a sentence."""
    bounds = {
        "port": (0, 65_535),
        "workers": (1, 64),
        "queue_max": (1, 1_000_000),
        "trash_days": (0, _MAX_DAYS),
        "keep_jobs_days": (1, _MAX_DAYS),
        "keep_events_days": (1, _MAX_DAYS),
        "max_artifacts": (1, 1_000_000),
        "max_artifact_mb": (1, 1_000_000_000),
    }
    yield from _check_bounds(server, bounds)
    for name in ("database", "data_dir", "host"):
        yield from ((name, message) for message in _check_text(getattr(server, name)))
    if not _HOST.fullmatch(server.host):
        yield "host", f"{server.host!r} is no name or address to listen on"
    for host in server.allowed_hosts:
        if not _HOST.fullmatch(host):
            yield "allowed_hosts", f"{host!r} is no host name: no scheme, path or wildcard"
    for origin in server.allowed_origins:
        if not is_origin(origin):
            yield "allowed_origins", f"{origin!r} is no origin such as https://app.example:8443"
    for host in server.webhook_hosts:
        if not _is_webhook_host(host):
            yield "webhook_hosts", f"{host!r} is no host such as hooks.example, 10.0.0.5:8080 or [fd00::1]"


def _is_webhook_host(text: str) -> bool:
    found = _WEBHOOK_HOST.fullmatch(text)
    if found is None or not 1 <= int((found[2] or ":1")[1:]) <= 65_535:
        return False
    try:
        return not text.startswith("[") or bool(ipaddress.IPv6Address(found[1][1:-1]))
    except ValueError:
        return False


def in_resources(settings: Settings) -> Iterator[Mistake]:
    """Yield the mistakes of all resources, those of their names and those that need the rest of the file."""
    own = os.path.abspath(settings.database)
    for name, resource in settings.resources.items():
        path: KeyPath = ("resources", name)
        if why := explain_segment(name):
            yield path, f"the name {why}"
        if name == MAINTENANCE:
            yield path, "the name is taken by the house's own chores"
        for key, message in in_resource(resource):
            yield (*path, *key), message
        if resource.database is not None and os.path.abspath(settings.path(resource.database)) == own:
            yield (*path, "database"), "is bulkops' own database; name the application's"


def in_resource(resource: ResourceSettings) -> Iterator[Mistake]:
    """Yield the mistakes of one resource by itself; paths begin below it."""
    yield from _check_kind(resource)
    yield from _check_names(resource)
    yield from _check_columns(resource)
    if resource.shared and resource.tenant is not None:
        yield ("shared",), "is for resources without a tenant column"
    yield from _check_file(resource, ())
    for place, child in enumerate(resource.children):
        yield from _check_child(resource, child, ("children", place))
    for name, action in resource.actions.items():
        yield from (((*("actions", name), *key), message) for key, message in in_action(name, action))


_NEEDED: Final = {
    "table": ("database", "table", "id"),
    "folder": ("root",),
    "photos": ("database", "table", "root"),
}
_USELESS: Final = {
    "table": (),
    "folder": (
        *("database", "table", "id", "tenant", "label", "soft_delete", "status", "search", "set"),
        *("protect", "file", "storage", "children"),
    ),
    "photos": ("tenant", "soft_delete", "status", "set", "protect", "file", "storage", "children"),
}
#: What a resource made in Python has no use for.
_USELESS_IN_PYTHON: Final = (
    *("database", "table", "id", "soft_delete", "set", "file", "root", "storage", "children"),
)


def _check_kind(resource: ResourceSettings) -> Iterator[Mistake]:
    kind = resource.kind
    if kind not in _KINDS and not _CLASS.fullmatch(kind):
        hint = did_you_mean(kind, _KINDS)
        yield ("kind",), f"{kind!r} is no kind: table, folder, photos or a class package.module:Name{hint}"
    for name in _NEEDED.get(kind, ()):
        if not getattr(resource, name):
            yield (), f'a resource of kind "{kind}" needs {name!r}'
    if kind in _KINDS and resource.settings:
        yield ("settings",), "are for a resource that is a Python class"
    if kind not in _KINDS and resource.ledger == "app":
        yield ("ledger",), f'a resource of kind "{kind}" has no database to keep one in'
    status = resource.status
    if kind not in _KINDS and status is not None and (status.closed or status.archived):
        yield ("status",), f'a resource of kind "{kind}" has no actions of ours that would set it'
    if kind == "photos" and resource.ledger == "app":
        yield ("ledger",), 'a resource of kind "photos" keeps no ledger in the database'
    for name in _USELESS.get(kind, _USELESS_IN_PYTHON):
        # A setting that would be ignored is refused: somebody believes in the protection it spells.
        if getattr(resource, name):
            yield (name,), f'a resource of kind "{kind}" knows no {name!r}'


def _check_names(resource: ResourceSettings) -> Iterator[Mistake]:
    for name in ("database", "root", "storage"):
        yield from (((name,), message) for message in _check_text(getattr(resource, name)))
    for name in ("table", "tenant", "label", "soft_delete", "file"):
        yield from (((name,), message) for message in _check_identifier(getattr(resource, name)))
    for name in ("id", "search", "set"):
        yield from (((name,), message) for message in _check_list(getattr(resource, name)))
    for name, value in resource.protect.items():
        yield from ((("protect",), message) for message in _check_identifier(name))
        if not isinstance(value, str | int | float):
            yield ("protect", name), "expected a text, a number, true or false"
    if resource.status is not None:
        yield from _check_status(resource.status)


def _check_status(status: StatusSettings) -> Iterator[Mistake]:
    yield from ((("status", "column"), message) for message in _check_identifier(status.column))
    for name in ("closed", "archived"):
        yield from ((("status", name), message) for message in _check_text(getattr(status, name)))
    for name, word in (("closed", status.closed), ("archived", status.archived)):
        if word in status.busy:
            yield ("status", "busy"), f"{word!r} is the {name} word too"


def _check_columns(resource: ResourceSettings) -> Iterator[Mistake]:
    """Keep columns that say what a row is and whose it is out of the reach of actions."""
    key = as_tuple(resource.id or ())
    fixed = {**dict.fromkeys(key, "the key"), **({resource.tenant: "the tenant"} if resource.tenant else {})}
    for column in resource.set:
        if column in fixed:
            yield ("set",), f"{column!r} is {fixed[column]}, which no action may change"
        if column == resource.soft_delete:
            yield ("set",), f"{column!r} is soft_delete; the delete and restore actions change it"
    if resource.soft_delete in fixed:
        yield ("soft_delete",), f"{resource.soft_delete!r} is {fixed[resource.soft_delete]}"
    if resource.status is not None and resource.status.column in fixed:
        yield ("status", "column"), f"{resource.status.column!r} is {fixed[resource.status.column]}"


def _check_file(section: ResourceSettings | ChildSettings, path: KeyPath) -> Iterator[Mistake]:
    if section.file is not None and section.root is None and section.storage is None:
        yield (*path, "file"), "needs 'root', the folder its names are under, or 'storage'"
    if section.storage is not None and not _CLASS.fullmatch(section.storage):
        yield (*path, "storage"), 'expected a Python class "package.module:Name"'
    if section.file is None and section.storage is not None:
        yield (*path, "storage"), "needs 'file', the column that names what is stored"


def _check_child(resource: ResourceSettings, child: ChildSettings, path: KeyPath) -> Iterator[Mistake]:
    for name in ("root", "storage"):
        yield from (((*path, name), message) for message in _check_text(getattr(child, name)))
    for name in ("table", "file"):
        yield from (((*path, name), message) for message in _check_identifier(getattr(child, name)))
    yield from (((*path, "key"), message) for message in _check_list(child.key))
    wanted, given = len(as_tuple(resource.id or ())), len(as_tuple(child.key))
    if wanted and wanted != given:
        yield (*path, "key"), f"names {given} columns, the resource's id has {wanted}"
    yield from _check_file(child, path)
    if child.file is None and child.root is not None:
        yield (*path, "root"), "needs 'file', the column that names a file under it"


def in_action(name: str, action: ActionSettings) -> Iterator[Mistake]:
    """Yield the mistakes of one action and of its name; paths begin below it."""
    if why := explain_segment(name):
        yield (), f"the name {why}"
    if name in _RESERVED_ACTIONS:
        yield (), "the name is taken by a route"
    for role in action.roles or ():
        if role not in ROLES:
            yield ("roles",), f"{role!r} is no role{did_you_mean(role, ROLES)}"
    yield from ((("confirm",), message) for message in _check_confirm(action.confirm))
    if action.rate is not None:
        try:
            parse_rate(action.rate)
        except ValueError as error:
            yield ("rate",), str(error)
    yield from (((key,), message) for key, message in _check_bounds(action, _ACTION_BOUNDS))


_ACTION_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "batch_size": (1, 100_000),
    "throttle_ms": (0, 600_000),
    "max_runtime_s": (1, _MONTH_S),
    "max_batch_failures": (1, 1_000_000),
    "auto_resume_s": (0, _MONTH_S),
    "max_items": (1, 1_000_000_000),
    "expires_h": (0.01, 24 * _MAX_DAYS),
}


_SCHEDULE_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "priority": (0, PRIORITY_MAX),
    **{name: bounds for name, bounds in RANGES.items() if name != "expected_count"},
}


def in_schedules(settings: Settings) -> Iterator[Mistake]:
    """Yield the mistakes of all schedules; what they start is judged at the start."""
    for name, schedule in settings.schedules.items():
        path: KeyPath = ("schedules", name)
        if why := explain_segment(name):
            yield path, f"the name {why}"
        if name.startswith(MAINTENANCE):
            yield path, f"names that begin with {MAINTENANCE!r} are taken by the house's own chores"
        if schedule.resource not in settings.resources:
            hint = did_you_mean(schedule.resource, settings.resources)
            yield (*path, "resource"), f"there is no resource {schedule.resource!r}{hint}"
        yield from (((*path, key), message) for key, message in _check_times(schedule))
        yield from (((*path, key), message) for key, message in _check_bounds(schedule, _SCHEDULE_BOUNDS))
        given = [key for key in ("ids", "filter", "all") if getattr(schedule, key)]
        if len(given) != 1:
            yield (*path, *given[1:2]), "select items in one way: ids, filter or all = true"


def _check_times(schedule: ScheduleSettings) -> Iterator[tuple[str, str]]:
    if (schedule.cron is None) == (schedule.every is None):
        yield "cron", 'exactly one of cron ("0 3 * * *") and every ("6h") is needed'
    for key, text, check in (
        ("timezone", schedule.timezone, check_zone),
        ("cron", schedule.cron, lambda line: check_cron(line, time.time_ns() // 1_000_000)),
        ("every", schedule.every, parse_every),
    ):
        try:
            if text is not None:
                check(text)
        except ValueError as error:
            yield key, str(error)


def _check_confirm(word: str | None) -> Iterator[str]:
    yield from _check_text(word)
    if word is not None and (word != word.strip() or len(word) > _MAX_NAME):
        yield f"has blanks around it, or more than {_MAX_NAME} characters"


def _check_bounds(
    section: msgspec.Struct, bounds: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, str]]:
    for name, (low, high) in bounds.items():
        value = getattr(section, name)
        # "not within" and not "below or above": nan is neither.
        if value is not None and not low <= value <= high:
            yield name, f"{value} is not within {low} and {high}"


def _check_text(text: str | None) -> Iterator[str]:
    if text is None:
        return
    if not text.strip():
        yield "is empty"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        yield f"{text!r} holds a control character"


def _check_identifier(name: str | None) -> Iterator[str]:
    """Let pass what SQLite lets a name be: anything but nothing, a NUL, a lone surrogate."""
    if name is None:
        return
    if not name:
        yield "is empty"
    if any(character == "\0" or unicodedata.category(character) == "Cs" for character in name):
        yield f"{name!r} can be no name"


def _check_list(names: str | list[str] | None) -> Iterator[str]:
    if names is None:
        return
    known: set[str] = set()
    for name in as_tuple(names):
        yield from _check_identifier(name)
        if name in known:
            yield f"names {name!r} twice"
        known.add(name)
