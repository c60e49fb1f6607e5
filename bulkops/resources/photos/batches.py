"""Batches on photos: decided, announced, done in the table first and then on disk, and done again after a crash.

The table goes first, in one transaction and only where a row still is what was seen; files follow. A file that
cannot be moved takes its row back. One batch at a time works in a project, so that nobody sees a folder and a
table that do not belong together.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import Halt, JobFailed, Transient
from bulkops.ids import wire_id
from bulkops.resources import verdicts
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.photos import deeds, pictures
from bulkops.resources.photos.deciding import Deciding
from bulkops.resources.photos.deeds import Decided, Deed, Verdict
from bulkops.resources.photos.ground import Ground
from bulkops.resources.photos.projects import DERIVATIVES, Projects
from bulkops.resources.table.bound import (
    Bound,
    Destroyed,
    SchemaWatch,
    conflict,
    failed,
    is_row_error,
    take_turn,
)
from bulkops.resources.table.filters import Condition
from bulkops.resources.target import translate
from bulkops.resources.verdicts import Result

#: Pictures that are made at a time, in all jobs together.
MAX_PICTURES: Final = 2
#: A batch that is not about rows holds no lock: it may take so many times longer than one that does.
_PATIENCE: Final = 20
_ANY: Final = Condition("1", {})
_GOOD: Final = frozenset(
    {verdicts.Verdict.TRASHED, verdicts.Verdict.PURGED, verdicts.Verdict.RESTORED, verdicts.Verdict.MISSING}
)


class PhotoBatches:
    """Batches of one action on photos; the runner plans, announces, applies and accounts for them."""

    def __init__(self, ground: Ground, bound: Bound, deciding: Deciding) -> None:
        self._ground = ground
        self._bound = bound
        self._deciding = deciding
        self._schema = SchemaWatch(bound)

    async def begin(self, _fence: Fence, _turn: Turn) -> Ahead | None:
        """Make nothing ready: the application's database holds no ledger of ours for photos."""
        return None

    async def plan(
        self, todo: Todo, _kept: dict[int, Image] | None = None, _stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Look at rows and folders, and decide what becomes of each item.

        Raises:
            Halt: the table or the disk cannot be read now.
        """
        decided = await self._deciding.decide(todo.positions, todo.ids)
        return Plan(
            announce=bool(decided.deeds),
            data=deeds.encode(decided),
            images=[image_of(deed) for deed in decided.deeds] if self._undoable else [],
            exceptions=decided.exceptions,
            state=decided,
        )

    @property
    def _undoable(self) -> bool:
        return not self._bound.act.final

    async def apply(self, plan: Plan, _: Todo, __: Fence, turn: Turn) -> BatchResult:
        """Do what was decided; what cannot be done fails alone.

        Raises:
            Halt: the target cannot be written now; ``untouched`` when nothing was done.
            JobFailed: (``PILLOW_MISSING``) no picture can be made here.
        """
        decided = plan.state
        assert isinstance(decided, Decided)
        return await self._do(decided, turn, again=False)

    async def recover(
        self, _todo: Todo, data: bytes, _fence: Fence, turn: Turn, _kept: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Do an announced batch once more: what is done already is seen to be.

        Raises:
            Halt: as `apply`.
        """
        return await self._do(deeds.decode(data), turn, again=True) if data else None

    async def _do(self, decided: Decided, turn: Turn, *, again: bool) -> BatchResult:
        began = time.monotonic()
        async with self._ground.turns.of(decided.projects):
            found, hold_s = await self._write(decided.deeds, turn, again=again)
            troubles = await self._on_disk(without(decided.deeds, found))
            if troubles:
                await self._take_back([deed for deed in decided.deeds if deed.position in troubles], turn)
        found += [
            verdict.on(deed.position, deed.item)
            for deed in decided.deeds
            if (verdict := troubles.get(deed.position)) is not None
        ]
        if not any(deed.writes for deed in decided.deeds):
            hold_s = (time.monotonic() - began) / _PATIENCE
        whole = bool(decided.deeds) and sum(each.code == "IO_ERROR" for each in found) == len(decided.deeds)
        return BatchResult(exceptions=decided.exceptions + found, hold_s=hold_s, whole_failed=whole)

    async def _write(
        self, all_deeds: list[Deed], turn: Turn, *, again: bool
    ) -> tuple[list[ItemException], float]:
        """Change the table for all deeds in one transaction; return whom it was not done for."""
        wanted = [deed for deed in all_deeds if deed.writes]
        doomed: list[ItemException] = []
        while wanted:
            work = partial(self._change, wanted=without(wanted, doomed), again=again)
            try:
                found, hold_s = await take_turn(self._bound, work, turn)
                return doomed + found, hold_s
            except Destroyed as error:
                (deed,) = [deed for deed in wanted if deed.position == error.position]
                doomed.append(failed(deed.position, deed.item, error.message))
            except sqlite3.IntegrityError as error:
                # At COMMIT: it names no row.
                return [failed(deed.position, deed.item, str(error)) for deed in wanted], 0.0
        return doomed, 0.0

    def _change(
        self, connection: sqlite3.Connection, *, wanted: list[Deed], again: bool
    ) -> list[ItemException]:
        self._schema.check(connection)
        found: list[ItemException] = []
        for deed in wanted:
            try:
                if not self._change_one(connection, deed, again=again):
                    found.append(conflict(deed.position, deed.item))
            except sqlite3.Error as error:
                if not is_row_error(error):
                    raise
                if not connection.in_transaction:
                    raise Destroyed(deed.position, str(error)) from error
                found.append(failed(deed.position, deed.item, str(error)))
        return found

    def _change_one(self, connection: sqlite3.Connection, deed: Deed, *, again: bool) -> bool:
        mirror = self._ground.mirror
        if deed.add:
            mirror.add(connection, deed.project, deed.base, deed.add)
            return True
        row = mirror.row_of(deed)
        if mirror.change(connection, row, deed.was, deed.to, self._bound.fit):
            return True
        return again and mirror.holds(connection, row, deed.to)

    async def _on_disk(self, left: list[Deed]) -> dict[int, Verdict]:
        """Do the part that is files; return what went wrong, by position."""
        troubles: dict[int, Verdict] = {}
        for project in sorted({deed.project for deed in left if deed.files or deed.purge or deed.drop}):
            here = [deed for deed in left if deed.project == project]
            troubles |= await anyio.to_thread.run_sync(self._in_project, project, here)
        await self._make_pictures([deed for deed in left if deed.picture is not None], troubles)
        return troubles

    def _in_project(self, project: str, here: list[Deed]) -> dict[int, Verdict]:
        projects = self._ground.projects
        moved = [(deed.position, file.entry(project)) for deed in here for file in deed.files]
        troubles = judged(moved, projects.move(project, [entry for _, entry in moved])) if moved else {}
        purged = [(deed.position, deed.purge.entry(project)) for deed in here if deed.purge is not None]
        if purged:
            troubles |= judged(purged, projects.purge(project, [entry for _, entry in purged]))
        if troubles:
            _give_back(projects, project, [deed for deed in here if deed.position in troubles])
        dropped = [deed.base for deed in here if deed.drop and deed.position not in troubles]
        try:
            projects.drop_derivatives(project, dropped)
        except OSError as error:
            raise Transient("IO_ERROR", f"derivatives cannot be removed now: {error.strerror}") from error
        return troubles

    async def _make_pictures(self, wanted: list[Deed], troubles: dict[int, Verdict]) -> None:
        missing: list[str] = []

        async def make(deed: Deed) -> None:
            try:
                await anyio.to_thread.run_sync(
                    make_pictures, self._ground.projects, deed, limiter=self._ground.makers
                )
            except pictures.PictureError as error:
                troubles[deed.position] = Verdict("failed", "CORRUPT", f"{deed.picture}: {error}")
            except pictures.PillowMissing as error:
                missing.append(str(error))
            except OSError as error:
                troubles[deed.position] = verdict_of(verdicts.judge(error), deed.picture or "")

        async with anyio.create_task_group() as group:
            for deed in wanted:
                group.start_soon(make, deed)
        if missing:
            raise JobFailed("PILLOW_MISSING", missing[0])

    async def _take_back(self, stuck: list[Deed], turn: Turn) -> None:
        """Let the rows say again that files are there which could not be moved."""
        back = [deed for deed in stuck if deed.to]
        if not back:
            return
        mirror = self._ground.mirror

        def work(connection: sqlite3.Connection) -> None:
            for deed in back:
                was = {name: deed.was[name] for name in deed.to}
                mirror.change(connection, mirror.row_of(deed), deed.to, was, _ANY)

        try:
            await take_turn(self._bound, work, turn)
        except Halt as error:
            error.untouched = False
            raise
        except sqlite3.Error as error:
            raise translate(error, self._ground.target.path) from error


def without(all_deeds: list[Deed], found: Sequence[ItemException]) -> list[Deed]:
    """Return the deeds of the items that are not among the exceptions."""
    gone = {each.position for each in found}
    return [deed for deed in all_deeds if deed.position not in gone]


def judged(entries: Sequence[tuple[int, verdicts.Entry]], results: Sequence[Result]) -> dict[int, Verdict]:
    """Sort out what went wrong, by position; a file that is missing is as good as moved."""
    return {
        position: verdict_of(
            result, entry.path.decode(errors="replace").rpartition("/")[2] or entry.trash.decode()
        )
        for (position, entry), result in zip(entries, results, strict=True)
        if result.verdict not in _GOOD
    }


def verdict_of(result: Result, name: str) -> Verdict:
    """Say what a mover's verdict means for an item."""
    if result.verdict is verdicts.Verdict.MISSING:
        return Verdict("skipped", "NOT_FOUND", f"{name} is not there")
    if result.verdict is verdicts.Verdict.SUPERSEDED:
        return Verdict("failed", "SUPERSEDED", f"{name}: {result.reason}")
    if result.verdict is verdicts.Verdict.CONFLICT:
        return Verdict("skipped", "CONFLICT", f"{name}: {result.reason}")
    code = "IO_ERROR" if result.verdict is verdicts.Verdict.RETRY else "REFUSED_PATH"
    return Verdict("failed", code, f"{name}: {result.reason}")


def _give_back(projects: Projects, project: str, here: list[Deed]) -> None:
    """Put back those files of a photo that did move, when another one of it could not."""
    entries = [file.entry(project) for deed in here for file in deed.files]
    if entries:
        projects.restore(project, entries)


def make_pictures(projects: Projects, deed: Deed) -> None:
    """Make a photo's derivatives, in a thread.

    Raises:
        PictureError, PillowMissing: as `pictures.make`.
        OSError: the disk balks.
    """
    assert deed.picture is not None
    with projects.opened_file(deed.project, deed.picture) as (file, time_ns):
        made = pictures.make(file, DERIVATIVES)
    for folder, picture in made.items():
        projects.write_derivative(deed.project, folder, deed.base, picture, time_ns)


def image_of(deed: Deed) -> Image:
    """Write the image that an undo needs: the deed itself, with the row as it was."""
    label = f"{deed.project}/{deed.base}"
    return Image(deed.position, wire_id(deed.item), label, bool(deed.files), deeds.encode(deed))
