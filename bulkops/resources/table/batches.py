"""Batches of an action on a table: planned, done in one transaction, explained after a crash.

What comes in: the items to act on; what goes out: a `Plan` that may have to be durable first, then a
`BatchResult` in which every item that is not named succeeded. A row is touched only if, inside the
transaction that touches it, it is still the tenant's, still matches the frozen filter and is still fit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import Halt, Transient
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.schema import quote
from bulkops.resources.table import ledger
from bulkops.resources.table.bound import (
    Bound,
    Destroyed,
    Moved,
    OneByOne,
    SchemaWatch,
    Seen,
    begin,
    conflict,
    failed,
    take_turn,
    untouched,
    without,
)
from bulkops.resources.table.reading import Reader, announced, printed
from bulkops.resources.table.work import MAX_DEPTH, Work

_ANOTHER: Final = "another row has its id, or it was changed, since the process ended; it is left alone"


class TableBatches:
    """Batches of one action; the runner plans, announces, applies and accounts for them in turn."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._schema = SchemaWatch(bound)
        self._reader = Reader(bound, self._schema)
        self._holds_nulls: bool | None = None

    async def begin(self, fence: Fence, turn: Turn) -> Ahead | None:
        """Make ready for the batch after ``fence.batch``; tell when the ledger has it already."""
        return await begin(self._bound, fence, turn)

    async def plan(
        self, todo: Todo, _: dict[int, Image] | None = None, __: Sequence[ItemException] = ()
    ) -> Plan:
        """Read what the batch will take.

        Raises:
            Halt: the target cannot be read, or its schema changed.
        """
        looks_first = not self._bound.ledger or self._reader.keeps_images or self._reader.has_files
        if not todo.ids or (not looks_first and not await self._flag_holds_nulls()):
            return Plan(announce=False, state=Seen(version=None, todo=todo))
        return await self._bound.target.plan(lambda connection: self._reader.look(connection, todo))

    async def _flag_holds_nulls(self) -> bool:
        """Find out, once a job, whether a live row's flag holds anything but its usual value, as NULL for 0."""
        if self._holds_nulls is None:
            table = self._bound.table
            tests = [
                f"EXISTS (SELECT 1 FROM {quote(table.name)} AS t WHERE t.{quote(name)} IS NULL)"
                if table.column(name).affinity != "text"
                else f"EXISTS (SELECT 1 FROM {quote(table.name)} AS t WHERE coalesce(t.{quote(name)}, '')"
                " IN ('', 'false', 'no'))"
                for name, prior in self._bound.act.prior.items()
                if prior is not None
                and not (table.column(name).notnull and table.column(name).affinity != "text")
            ]
            sql = f"SELECT {' OR '.join(tests)}"
            self._holds_nulls = bool(tests) and bool(
                await self._bound.target.plan(lambda connection: connection.execute(sql).fetchone()[0])
            )
        return self._holds_nulls

    async def apply(self, plan: Plan, _: Todo, fence: Fence, turn: Turn) -> BatchResult:
        """Do the batch in one transaction; bad rows fail alone.

        Raises:
            Halt: the job cannot go on now; ``untouched`` unless COMMIT failed and nobody knows how.
        """
        seen = plan.state
        assert isinstance(seen, Seen)
        try:
            return await self._attempt(plan.exceptions, seen, fence, turn)
        except Moved:
            raise untouched(
                Transient("TARGET_LOCKED", "rows of the batch changed while it was prepared")
            ) from None
        except ledger.FencedError as error:
            raise untouched(
                Halt("NEEDS_REVIEW", f"{error}; was the application's database restored?")
            ) from error

    async def _attempt(self, known: list[ItemException], seen: Seen, fence: Fence, turn: Turn) -> BatchResult:
        doomed: dict[int, str] = {}
        one_by_one, depth = False, 0
        for _ in range(len(seen.todo.ids) + 3):
            work = Work(
                self._bound, self._reader, self._schema, seen, fence=fence, known=known, doomed=doomed,
                one_by_one=one_by_one, start_depth=depth, atomic=turn.atomic,
            )  # fmt: skip
            try:
                (exceptions, cascaded), hold_s = await take_turn(self._bound, work.run, turn)
            except (OneByOne, sqlite3.IntegrityError):
                # COMMIT may fail for rows that those which failed before it hold on to: told apart next time.
                fresh = {p: message for p, message in work.failed.items() if p not in doomed}
                if one_by_one and not fresh:
                    break
                one_by_one = True
                doomed |= fresh
            except Destroyed as error:
                one_by_one, depth = True, MAX_DEPTH + 1
                if error.position is not None:
                    doomed[error.position] = error.message
            else:
                return BatchResult(exceptions=exceptions, hold_s=hold_s, cascaded=cascaded)
        return await self._give_up(known, seen, fence, turn)

    async def _give_up(self, known: list[ItemException], seen: Seen, fence: Fence, turn: Turn) -> BatchResult:
        """Fail the whole batch: its constraints name no row; the ledger goes on all the same."""
        message = "the constraints fail at commit and name no row"
        exceptions = known + [
            failed(position, item, message)
            for position, item in zip(seen.todo.positions, seen.todo.ids, strict=True)
        ]
        if self._bound.ledger:
            await take_turn(
                self._bound, lambda connection: ledger.advance(connection, fence, exceptions), turn
            )
        return BatchResult(exceptions=exceptions, whole_failed=True)

    async def recover(
        self, todo: Todo, data: bytes, fence: Fence, turn: Turn, _: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Find out what became of an announced batch; ``None`` when nothing of it happened.

        With a ledger the answer is exact. Without one, rows that are no longer fit were taken by this
        batch (or, in the crash window only, by somebody else: promised no finer); the rest is done now.
        A row that stands under a deleted one's id, and is another, is not touched.

        Raises:
            Halt: (``NEEDS_REVIEW``) the ledger does not match what was already accounted for.
        """
        if self._bound.ledger:
            return await recover_from_ledger(self._bound, fence)
        known = announced(data)
        taken = without(todo, {each.position for each in known})
        same, others = await self._still_there(taken, printed(data))
        if len(same) == len(taken.ids):
            return None
        if others and len(same) + len(others) == len(taken.ids):
            # None is gone: nobody can say whether they were changed, or taken and their ids given to new ones.
            known += [
                conflict(position, item, _ANOTHER)
                for position, item in zip(taken.positions, taken.ids, strict=True)
                if position in others
            ]
        rest = without(taken, set(taken.positions) - same)
        if not rest.ids:
            return BatchResult(exceptions=known)
        # The batch did happen: what is left failed in it. Asking again tells the reason.
        again = await self._attempt([], Seen(version=None, todo=rest), fence, turn)
        return msgspec.structs.replace(again, exceptions=known + again.exceptions)

    async def _still_there(self, taken: Todo, prints: list[int] | None) -> tuple[set[int], set[int]]:
        """Return the positions of rows that stand as they did, and of those where another stands by now."""
        reader = self._reader
        if prints is None:
            rows = await self._bound.target.plan(lambda connection: reader.fit_rows(connection, taken))
            return set(rows), set()
        then = dict(zip(taken.positions, prints, strict=True))
        now = await self._bound.target.plan(lambda connection: reader.prints(connection, taken))
        same = {position for position, mark in now.items() if mark == then[position]}
        return same, set(now) - same


async def recover_from_ledger(bound: Bound, fence: Fence) -> BatchResult | None:
    """Read from the job's ledger row whether batch ``fence.batch`` was committed, and with what outcome.

    Raises:
        Halt: (``NEEDS_REVIEW``) the ledger is neither at this batch nor at the one before.
    """
    entry = await bound.target.plan(lambda connection: ledger.read(connection, fence.job))
    if entry is not None and entry.batch == fence.batch:
        return BatchResult(exceptions=entry.exceptions)
    if (0 if entry is None else entry.batch) != fence.batch - 1:
        raise Halt(
            "NEEDS_REVIEW",
            "the ledger in the application's database does not match this job; was a copy restored?",
        )
    return None
