"""Putting back what a job took from photos: files out of the trash first, then what their rows held.

A photo comes back whole or not at all: where a file of it cannot, or its row is not as the job left it, those that
did come back go into the trash again, and the item is a conflict.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

import anyio.to_thread
import msgspec

from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import Halt, ItemRefused
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.photos import deeds
from bulkops.resources.photos.batches import verdict_of, without
from bulkops.resources.photos.deciding import in_thread
from bulkops.resources.photos.deeds import Decided, Deed, Verdict
from bulkops.resources.photos.ground import Ground
from bulkops.resources.photos.projects import Projects
from bulkops.resources.table import images
from bulkops.resources.table.bound import Bound, Destroyed, SchemaWatch, failed, is_row_error, take_turn
from bulkops.resources.table.filters import Condition
from bulkops.resources.verdicts import Verdict as Moved

_ANY: Final = Condition("1", {})
_LOST: Final = Verdict("skipped", "CONFLICT", "it is not in the trash any more")
_GONE: Final = Verdict("skipped", "CONFLICT", "its file is gone for good")
_OCCUPIED: Final = Verdict("skipped", "CONFLICT", "another file stands where its file was")
_CHANGED: Final = Verdict("skipped", "CONFLICT", "its row was changed since")


class PhotoUndo:
    """Batches that undo an action; used by the runner like `PhotoBatches`."""

    def __init__(self, ground: Ground, bound: Bound) -> None:
        self._ground = ground
        self._bound = bound
        self._schema = SchemaWatch(bound)

    async def begin(self, _fence: Fence, _turn: Turn) -> Ahead | None:
        """Make nothing ready: the application's database holds no ledger of ours for photos."""
        return None

    async def plan(
        self, todo: Todo, kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Look at what stands where the photos were; ``kept`` are their images.

        Raises:
            Halt: the disk cannot be read now.
        """
        wanted = {
            position: msgspec.structs.replace(deeds.decode_deed(image.image), position=position)
            for position, image in (kept or {}).items()
        }
        blocked = await in_thread(_blocked, self._ground.projects, list(wanted.values()))
        exceptions = [
            *stuck,
            *(_LOST.on(p, item) for p, item in zip(todo.positions, todo.ids, strict=True) if p not in wanted),
            *(verdict.on(position, wanted[position].item) for position, verdict in blocked.items()),
        ]
        decided = Decided(without(list(wanted.values()), exceptions), exceptions)
        return Plan(
            announce=bool(decided.deeds), data=deeds.encode(decided), exceptions=exceptions, state=decided
        )

    async def apply(self, plan: Plan, _: Todo, __: Fence, turn: Turn) -> BatchResult:
        """Put the photos back; those that cannot be are reported.

        Raises:
            Halt: the target cannot be written now; the batch may be half done.
        """
        decided = plan.state
        assert isinstance(decided, Decided)
        return await self._do(decided, turn)

    async def recover(
        self, _todo: Todo, data: bytes, _fence: Fence, turn: Turn, _kept: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Put an announced batch back once more: what is back already is seen to be.

        Raises:
            Halt: as `apply`.
        """
        return await self._do(deeds.decode(data), turn) if data else None

    async def _do(self, decided: Decided, turn: Turn) -> BatchResult:
        async with self._ground.turns.of(decided.projects):
            found = await anyio.to_thread.run_sync(_restore, self._ground.projects, decided.deeds)
            left = without(decided.deeds, found)
            hold_s = 0.0
            if left:
                refused, hold_s = await self._write(left, turn)
                gone = {each.position for each in refused}
                await anyio.to_thread.run_sync(
                    _trash_again, self._ground.projects, [deed for deed in left if deed.position in gone]
                )
                found += refused
        return BatchResult(exceptions=decided.exceptions + found, hold_s=hold_s)

    async def _write(self, left: list[Deed], turn: Turn) -> tuple[list[ItemException], float]:
        doomed: list[ItemException] = []
        while True:
            try:
                found, hold_s = await take_turn(
                    self._bound, partial(self._change, wanted=without(left, doomed)), turn
                )
                return doomed + found, hold_s
            except Destroyed as error:
                (deed,) = [deed for deed in left if deed.position == error.position]
                doomed.append(failed(deed.position, deed.item, error.message))
            except sqlite3.IntegrityError as error:
                return [failed(deed.position, deed.item, str(error)) for deed in left], 0.0
            except Halt as error:
                # Files are back already: the batch is not untouched, whatever became of the rows.
                error.untouched = False
                raise

    def _change(self, connection: sqlite3.Connection, *, wanted: list[Deed]) -> list[ItemException]:
        self._schema.check(connection)
        found: list[ItemException] = []
        for deed in wanted:
            try:
                if not self._change_one(connection, deed):
                    found.append(_CHANGED.on(deed.position, deed.item))
            except ItemRefused as error:
                found.append(Verdict(error.outcome, error.code, str(error)).on(deed.position, deed.item))
            except sqlite3.IntegrityError:
                message = "something stands in its row's place"
                found.append(Verdict("skipped", "CONFLICT", message).on(deed.position, deed.item))
            except sqlite3.Error as error:
                if not is_row_error(error):
                    raise
                if not connection.in_transaction:
                    raise Destroyed(deed.position, str(error)) from error
                found.append(failed(deed.position, deed.item, str(error)))
        return found

    def _change_one(self, connection: sqlite3.Connection, deed: Deed) -> bool:
        mirror = self._ground.mirror
        row = mirror.row_of(deed)
        before = {name: deed.was[name] for name in deed.to}
        if mirror.change(connection, row, deed.to, before, _ANY) or mirror.holds(connection, row, before):
            return True
        if deed.record is None or mirror.holds(connection, row, {}):
            return False
        images.put_back(connection, self._bound.tables, [deed.record])
        return True


def _blocked(projects: Projects, wanted: list[Deed]) -> dict[int, Verdict]:
    """Find photos whose files cannot come back: they are not in the trash, or something stands there."""
    found: dict[int, Verdict] = {}
    for name in {deed.project for deed in wanted if deed.files}:
        here = [deed for deed in wanted if deed.project == name]
        trashed = {file.name for file in projects.trash(name)}
        listing = projects.listing(name)
        if not listing.there:
            found |= {deed.position: _GONE for deed in here}
            continue
        seen = projects.identify(name, [file.name for deed in here for file in deed.files])
        for deed in here:
            if any(file.trash not in trashed for file in deed.files):
                found[deed.position] = _GONE
            elif any(seen[file.name] is not None for file in deed.files):
                found[deed.position] = _OCCUPIED
    return found


def _restore(projects: Projects, wanted: list[Deed]) -> list[ItemException]:
    troubles: dict[int, Verdict] = {}
    for name in sorted({deed.project for deed in wanted}):
        files = [(deed, file) for deed in wanted if deed.project == name for file in deed.files]
        results = projects.restore(name, [file.entry(name) for _, file in files]) if files else []
        for (deed, file), result in zip(files, results, strict=True):
            if result.verdict is Moved.MISSING:
                troubles[deed.position] = _GONE
            elif result.verdict is not Moved.RESTORED:
                troubles[deed.position] = verdict_of(result, file.name)
    stuck = [deed for deed in wanted if deed.position in troubles]
    _trash_again(projects, stuck)
    return [troubles[deed.position].on(deed.position, deed.item) for deed in stuck]


def _trash_again(projects: Projects, stuck: list[Deed]) -> None:
    for name in sorted({deed.project for deed in stuck}):
        files = [file for deed in stuck if deed.project == name for file in deed.files]
        if files:
            projects.move(name, [file.entry(name) for file in files])
