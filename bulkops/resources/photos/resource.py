"""Photo projects as a resource: a table of photos, the folders that it mirrors, and what is done to both.

Which items a job has is found out when it is made: from the table, from the folders, or from what one says and the
other does not. It is a table as far as browsing, filters and counts go; what acts on its rows stands here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import anyio
import msgspec

from bulkops.effects import Id
from bulkops.errors import Halt, invalid_field
from bulkops.ids import wire_id
from bulkops.models import Caution, Impact
from bulkops.resources.contract import Batches, Completed, FollowUp, Found, Query, Tally
from bulkops.resources.photos import names, tasks
from bulkops.resources.photos.batches import MAX_PICTURES, PhotoBatches
from bulkops.resources.photos.chores import CHORES, Chore, Over
from bulkops.resources.photos.cleaning import CleaningBatches
from bulkops.resources.photos.deciding import Deciding, in_thread
from bulkops.resources.photos.deeds import Deed
from bulkops.resources.photos.ground import Ground, Turns
from bulkops.resources.photos.names import Kind
from bulkops.resources.photos.projects import Projects
from bulkops.resources.photos.rows import AVAILABLE, KEEP, Mirror, is_off, is_on
from bulkops.resources.photos.undo import PhotoUndo
from bulkops.resources.table.actions import Act, Unfit, negate
from bulkops.resources.table.filters import Condition, both
from bulkops.resources.table.keys import hashable
from bulkops.resources.table.resource import TableResource
from bulkops.resources.table.undo import TableUndo
from bulkops.resources.target import Target
from bulkops.settings import ActionSettings, ResourceSettings

_CHUNK: Final = 1000
_MAX_FILES: Final = 10_000
_MAX_DAYS: Final = 36_500
#: What a preview of a removal looks at, to count files and bytes.
_MAX_COUNTED: Final = 1000
_NOTHING: Final = "nothing is to be done to it"


class PhotosResource(TableResource):
    """The `Resource` of ``kind = "photos"``; usable once `open` has read the schema."""

    kind = "photos"

    def __init__(
        self, name: str, settings: ResourceSettings, target: Target, projects: Projects, *, trash_days: int
    ) -> None:
        super().__init__(name, settings, target, {})
        self._projects = projects
        # A day longer than an undo can be asked for: a file must not go before its way back does.
        self._days = float(trash_days + 1)
        self._turns = Turns()
        self._makers = anyio.CapacityLimiter(MAX_PICTURES)
        self._mirror: Mirror | None = None

    async def open(self) -> None:
        """Read the schema and find the columns of a photo.

        Raises:
            ConfigError: a column is not there, or cannot be what it is configured as.
            Halt: the database cannot be opened.
        """
        stale = self._stale or self._mirror is None
        await super().open()
        if stale:
            self._mirror = Mirror(self.name, self.table, self.key)

    @property
    def mirror(self) -> Mirror:
        """Return the table as a mirror; only after `open`."""
        assert self._mirror is not None
        return self._mirror

    @property
    def _ground(self) -> Ground:
        return Ground(self.mirror, self._projects, self.target, self._turns, self._makers)

    # --- what may be asked of it ---------------------------------------------------------------------

    def action_names(self) -> list[str]:
        return list(CHORES)

    def action_settings(self, action: str) -> ActionSettings:
        """Return what the file says of the action, and what is so where the file does not say."""
        settings = super().action_settings(action)
        chore = CHORES.get(action)
        if chore is None:
            return settings
        return msgspec.structs.replace(
            settings,
            roles=chore.roles if settings.roles is None else settings.roles,
            batch_size=chore.batch_size if settings.batch_size is None else settings.batch_size,
        )

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:
        return CHORES[action].options

    def is_final(self, action: str, options: dict[str, Any]) -> bool:  # noqa: ARG002  the contract's
        chore = CHORES.get(action)
        return chore is None or chore.final

    def task_types(self) -> dict[str, str]:
        return tasks.TYPES

    def project_of(self, options: dict[str, Any]) -> str | None:
        project = options.get("project")
        return project if isinstance(project, str) else None

    def follow_ups(self, done: Completed) -> list[FollowUp]:
        return tasks.follow_ups(done)

    def parse_id(self, wire: str | int) -> Id:
        """Read an id: a row's, or ``project/base`` for photos that may have none."""
        if self.key.single or "/" not in str(wire):  # in the parts of a key of two it is encoded
            try:
                return super().parse_id(wire)
            except ValueError:
                if "/" not in str(wire):
                    raise
        names.parse_reference(str(wire))
        return str(wire)

    async def check(self, query: Query) -> None:
        """Refuse options that the action does not take.

        Raises:
            Refusal: 422 naming the option.
        """
        schemas = CHORES[query.action].options
        for option, value in query.options.items():
            if option not in schemas:
                known = ", ".join(schemas)
                raise invalid_field(
                    f"/options/{option}", f"{query.action} has no such option; it has: {known}"
                )
            why = _explain_option(option, value)
            if why is not None:
                raise invalid_field(f"/options/{option}", why)
        if "files" in query.options and "project" not in query.options:
            raise invalid_field("/options/files", "files are a project's: name it")
        if query.atomic:
            raise invalid_field("/atomic", "files cannot be moved all or none")

    # --- which items ---------------------------------------------------------------------------------

    async def act(self, query: Query) -> Act:
        """Bind the query's action: which rows it may touch at all.

        Raises:
            Halt: (``CONFIG_CHANGED``) there is no such action any more.
        """
        chore = CHORES.get(query.action)
        if chore is None:
            raise Halt("CONFIG_CHANGED", f"{self.name} has no action {query.action!r} any more")
        visible, states = Condition("1", {}), []
        project = self.project_of(query.options)
        if project is not None:
            visible = self.mirror.in_project(project)
            states = [Unfit("INELIGIBLE", "it belongs to another project", negate(visible))]
        needs = self._needs(query)
        if needs is not None:
            states.append(Unfit("ALREADY_DONE", _NOTHING, negate(needs)))
            visible = both(visible, needs)
        hides = query.action == "manifest_cleaning"
        return Act(name=query.action, final=chore.final, hides=hides, visible=visible, states=states)

    def _needs(self, query: Query) -> Condition | None:
        """Return the condition of rows that the action may have something to do to, as far as rows tell."""
        if query.action == "file_removal":
            return _any(*(both(is_on(AVAILABLE[kind]), is_off(KEEP[kind])) for kind in Kind))
        if query.action == "revert":
            return _any(
                *(both(is_on(AVAILABLE[kind]), is_off(KEEP[kind])) for kind in Kind),
                *(both(is_off(AVAILABLE[kind]), is_on(KEEP[kind])) for kind in Kind),
            )
        if query.action == "generate_derivatives":
            there = is_on(AVAILABLE[Kind.JPG])
            files = query.options.get("files")
            return there if files is None else both(there, self.mirror.among(names.bases_of(files)))
        return None

    async def select(self, query: Query, limit: int) -> list[Found]:
        """Return the first items that need it; for ids every one asked for, each with why not."""
        chore = CHORES[query.action]
        if query.ids is not None:
            return await self._named(query, chore)
        found: list[Found] = []
        async with aclosing(self.manifest(query)) as lists:
            async for some in lists:
                found += some
                if len(found) >= limit:
                    break
        return found[:limit]

    async def _named(self, query: Query, chore: Chore) -> list[Found]:
        excluded = set(map(hashable, query.exclude))
        ids = [item for item in query.ids or [] if hashable(item) not in excluded]
        if chore.over is not Over.ROWS:
            return await self._judged(query, [Found(item) for item in ids], keep_all=True)
        rows_query = msgspec.structs.replace(query, ids=[item for item in ids if self._is_key(item)])
        found = {hashable(each.id): each for each in await super().select(rows_query, len(ids))}
        missing = Found("", "NOT_FOUND", "there is no such item")
        asked = [found.get(hashable(item), msgspec.structs.replace(missing, id=item)) for item in ids]
        return await self._judged(query, asked, keep_all=True) if chore.looks else asked

    def _is_key(self, item: Id) -> bool:
        try:
            return super().parse_id(wire_id(item)) == item
        except ValueError:
            return False

    async def tally(self, query: Query, deadline_s: float) -> Tally:
        """Count what needs it; unknown when the folders take too long to look through."""
        if CHORES[query.action].over is Over.ROWS and not CHORES[query.action].looks:
            return await super().tally(query, deadline_s)
        with anyio.move_on_after(deadline_s):
            found = await self._named(query, CHORES[query.action]) if query.ids is not None else []
            if query.ids is None:
                async with aclosing(self.manifest(query)) as lists:
                    found = [each async for some in lists for each in some]
            return Tally(len(found), sum(each.code is None for each in found))
        return Tally(None, None)

    async def manifest(self, query: Query) -> AsyncGenerator[list[Found], None]:
        """Walk all items that need it, in lists."""
        chore = CHORES[query.action]
        lists = super().manifest(query) if chore.over is Over.ROWS else self._references(query, chore)
        async with aclosing(lists) as walked:
            async for some in walked:
                kept = await self._judged(query, some, keep_all=False) if chore.looks else some
                if kept:
                    yield kept

    async def _references(self, query: Query, chore: Chore) -> AsyncGenerator[list[Found], None]:
        """Walk what has no row of its own, project by project."""
        if query.filter:
            raise invalid_field("/filter", f"{query.action} is not about rows: use all, or ids")
        excluded = set(map(hashable, query.exclude))
        project = self.project_of(query.options)
        projects = [project] if project is not None else await in_thread(self._projects.all)
        for each in projects:
            found = [name for name in await self._within(each, query, chore) if name not in excluded]
            for first in range(0, len(found), _CHUNK):
                yield [Found(name) for name in found[first : first + _CHUNK]]

    async def _within(self, project: str, query: Query, chore: Chore) -> list[str]:
        if chore.over is Over.TRASH:
            trashed = await in_thread(self._projects.trash, project)
            return [names.reference(project, f".trash/{file.name}") for file in trashed]
        files = query.options.get("files")
        listing = await in_thread(self._projects.listing, project)
        bases = sorted(listing.photos) if files is None else names.bases_of(files)
        if query.action == "folder_check" or query.options.get("new_only"):
            known = await self.target.read(lambda connection: self.mirror.bases(connection, project))
            bases = [base for base in bases if base not in known]
        return [names.reference(project, base) for base in bases]

    async def _judged(self, query: Query, asked: list[Found], *, keep_all: bool) -> list[Found]:
        """Ask each item's chore; what is done already is left out, or (``keep_all``) said to be.

        What was asked for by name stays: a file that never came is told.
        """
        fit = [each.id for each in asked if each.code is None]
        verdicts = dict(
            zip(
                map(hashable, fit),
                await self._deciding(query, reading=True).judge(range(len(fit)), fit),
                strict=True,
            )
        )
        named = keep_all or "files" in query.options
        kept: list[Found] = []
        for each in asked:
            verdict = None if each.code is not None else verdicts[hashable(each.id)]
            if verdict is None or isinstance(verdict, Deed) or verdict.outcome == "failed":
                kept.append(each)
            elif named:
                kept.append(Found(each.id, verdict.code, verdict.message))
        return kept

    def _deciding(self, query: Query, *, reading: bool, fit: Condition | None = None) -> Deciding:
        days = float(query.options.get("days", self._days))
        read = self.target.read if reading else self.target.plan
        return Deciding(self._ground, query, fit or Condition("1", {}), read, days=days)

    # --- what a preview shows ------------------------------------------------------------------------

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:
        """Count the files that a removal takes, and their bytes, where they are not too many."""
        final = [Caution("FINAL", "this cannot be undone")] if CHORES[query.action].final else []
        if query.action not in ("file_removal", "trash_maintenance"):
            return Impact({}, 0, 0), final
        with anyio.move_on_after(deadline_s):
            found = [each.id for each in await self.select(query, _MAX_COUNTED + 1) if each.code is None]
            if len(found) <= _MAX_COUNTED:
                verdicts = await self._deciding(query, reading=True).judge(range(len(found)), found)
                taken = [deed for deed in verdicts if isinstance(deed, Deed)]
                files = [
                    file for deed in taken for file in [*deed.files, *([deed.purge] if deed.purge else [])]
                ]
                return Impact({}, len(files), sum(file.mine[2] for file in files)), final
        return Impact({}, None, None), [
            *final,
            Caution("IMPACT_PARTIAL", "counting all files would take too long"),
        ]

    async def sample(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """Return the first rows, or the first photos that have none."""
        found = [each.id for each in await self.select(query, limit) if each.code is None]
        if CHORES[query.action].over is Over.ROWS:
            return await super().sample(msgspec.structs.replace(query, ids=found, filter={}), limit)
        parts = [names.parse_reference(str(item)) for item in found]
        return [{"project": project, self.mirror.base: base} for project, base in parts]

    # --- acting --------------------------------------------------------------------------------------

    async def batches(self, query: Query, *, undo: bool) -> Batches:
        bound = await self.bind(query)
        if query.action == "manifest_cleaning":
            if undo:
                return TableUndo(bound)
            return CleaningBatches(bound, self._ground, self._deciding(query, reading=False, fit=bound.fit))
        if undo:
            return PhotoUndo(self._ground, bound)
        return PhotoBatches(self._ground, bound, self._deciding(query, reading=False, fit=bound.fit))


def _any(*conditions: Condition) -> Condition:
    params = {name: value for condition in conditions for name, value in condition.params.items()}
    return Condition(" OR ".join(f"({condition.sql})" for condition in conditions), params)


def _explain_option(option: str, value: Any) -> str | None:
    """Say what is wrong with an option's value, ``None`` when nothing is."""
    if option == "project":
        why = names.explain(value)
        return None if why is None else f"the name of a project's folder is needed: {why}"
    if option == "files":
        if not isinstance(value, list) or not 1 <= len(value) <= _MAX_FILES:
            return f"a list of 1 to {_MAX_FILES:,} names of files is needed"
        odd = next((why for name in value if (why := names.explain(name)) is not None), None)
        return None if odd is None else f"names of files in the project's folder are needed: {odd}"
    if option == "days":
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MAX_DAYS
        return None if good else f"a number from 0 to {_MAX_DAYS:,} is needed"
    return None if isinstance(value, bool) else "true or false is needed"
