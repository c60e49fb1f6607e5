"""Putting back what a job took from a table: item by item, with conflicts reported.

Items without an image were only updated, and what they held before is implied by the action; items with
one get their rows and values back exactly, rowids too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bulkops.effects import BatchResult, Fence, Id, Image, ItemException, Plan, Todo
from bulkops.errors import Halt, ItemRefused
from bulkops.ids import wire_id
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.schema import quote
from bulkops.resources.table import images, ledger
from bulkops.resources.table.batches import recover_from_ledger
from bulkops.resources.table.bound import (
    Bound,
    Destroyed,
    SchemaWatch,
    begin,
    conflict,
    failed,
    is_row_error,
    take_turn,
    untouched,
    without,
)
from bulkops.resources.table.filters import Condition, both
from bulkops.resources.table.images import Record, fetch
from bulkops.resources.table.keys import encode_ids, hashable
from bulkops.resources.table.reading import announce, announced

_STANDS: Final = "something stands in its place"
_CHANGED: Final = "it was changed since"


class _Task(msgspec.Struct, frozen=True):
    """What planning found: the items to put back, and their images by position."""

    todo: Todo
    images: dict[int, list[Record]]


class TableUndo:
    """Batches that undo the action of ``bound``; used by the runner like `TableBatches`."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._schema = SchemaWatch(bound)
        #: Rows of one batch may refer to each other, also by way of what went along with them.
        self.together = bound.act.deletes and bound.foreign_keys and bool(bound.table.referenced_by)

    async def begin(self, fence: Fence, turn: Turn) -> Ahead | None:
        """Make ready for the batch after ``fence.batch``; tell when the ledger has it already."""
        return await begin(self._bound, fence, turn)

    async def plan(
        self, todo: Todo, kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Look at what stands where the items were; ``kept`` are their images, ``stuck`` cannot return.

        Raises:
            Halt: the target cannot be read, or its schema changed.
        """
        records = {position: images.decode(image.image) for position, image in (kept or {}).items()}
        lost = [*stuck, *self._lost(todo, records)]
        task = _Task(without(todo, {each.position for each in lost}), records)
        if not task.todo.ids:
            return Plan(announce=False, exceptions=lost, state=task)
        undone = await self._bound.target.plan(
            lambda connection: self._settled(connection, task.todo, records)
        )
        exceptions = lost + [
            conflict(position, item, _STANDS if self._bound.act.deletes else _CHANGED)
            for position, item in zip(task.todo.positions, task.todo.ids, strict=True)
            if position in undone
        ]
        rest = without(task.todo, undone)
        return Plan(
            announce=not self._bound.ledger,
            data=announce(exceptions),
            exceptions=exceptions,
            state=_Task(rest, records),
        )

    def _lost(self, todo: Todo, records: dict[int, list[Record]]) -> list[ItemException]:
        """Find items that were deleted and whose image is gone: purged meanwhile."""
        if not self._bound.act.deletes:
            return []
        return [
            conflict(position, item, "it is not in the trash any more")
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position not in records
        ]

    def _already(self, connection: sqlite3.Connection, todo: Todo) -> set[int]:
        """Return the positions of items that are not as the job left them any more."""
        self._schema.check(connection)
        bound = self._bound
        left = Condition("1", {}) if bound.act.deletes else bound.as_left()
        sql = (
            f"SELECT {bound.key.select} FROM {quote(bound.table.name)} AS t"
            f" WHERE {bound.key.match} AND {left.sql}"
        )
        rows = fetch(connection, sql, {**left.params, "ids": encode_ids(todo.ids)})
        found = {hashable(bound.key.native(row)) for row in rows}
        return {
            position
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if (hashable(item) in found) == bound.act.deletes
        }

    def _judge_after(
        self, connection: sqlite3.Connection, todo: Todo, records: dict[int, list[Record]]
    ) -> tuple[set[int], set[int]]:
        """Return the positions of items that are as they are put back, and of those that are something else."""
        settled = without(todo, set(todo.positions) - self._settled(connection, todo, records))
        back = {
            position
            for position, item in zip(settled.positions, settled.ids, strict=True)
            if self._is_back(connection, item, records.get(position, []))
        }
        return back, set(settled.positions) - back

    def _is_back(self, connection: sqlite3.Connection, item: Id, records: list[Record]) -> bool:
        """Say whether an item's own row holds what it held; where triggers may change that, whether there is one."""
        bound = self._bound
        held, _ = _parts(bound, records)
        altered = bound.act.deletes and any(each.event == "INSERT" for each in bound.table.triggers)
        return _holds(connection, bound, item, {} if altered else bound.act.prior | held)

    def _settled(
        self, connection: sqlite3.Connection, todo: Todo, records: dict[int, list[Record]]
    ) -> set[int]:
        """Return the positions of items that are not as the job left them, and of which nothing else is missing."""
        moved = self._already(connection, todo)
        if self._bound.act.deletes:
            return moved
        return {
            position
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position in moved and not self._lacks_others(connection, item, records.get(position, []))
        }

    def _lacks_others(self, connection: sqlite3.Connection, item: Id, records: list[Record]) -> bool:
        """Say whether a row was brought back in another way, but not the rows that went along with it."""
        _, others = _parts(self._bound, records)
        along = next((each for each in others if each.kind == "row"), None)
        if along is None or not self._is_back(connection, item, records):
            return False
        table = self._bound.tables.get(along.table)
        return table is None or not images.stands(connection, table, along)

    async def apply(self, plan: Plan, _: Todo, fence: Fence, turn: Turn) -> BatchResult:
        """Put the items back in one transaction; those that cannot be are reported.

        Raises:
            Halt: the job cannot go on now; ``untouched`` unless COMMIT failed and nobody knows how.
        """
        task = plan.state
        assert isinstance(task, _Task)
        try:
            return await self._attempt(plan.exceptions, task, fence, turn)
        except ledger.FencedError as error:
            raise untouched(
                Halt("NEEDS_REVIEW", f"{error}; was the application's database restored?")
            ) from error

    async def _attempt(
        self, known: list[ItemException], task: _Task, fence: Fence, turn: Turn
    ) -> BatchResult:
        doomed: dict[int, str] = {}
        one_by_one = False
        deferred = True
        for _ in range(len(task.todo.ids) + 3):
            work = _Work(
                self._bound,
                self._schema,
                task,
                fence,
                known,
                doomed=doomed,
                one_by_one=one_by_one,
                deferred=deferred,
            )
            try:
                exceptions, hold_s = await take_turn(self._bound, work.run, turn)
            except sqlite3.IntegrityError:
                if not deferred:
                    break
                deferred = False
            except Destroyed as error:
                one_by_one = True
                if error.position is not None:
                    doomed[error.position] = error.message
            else:
                return BatchResult(exceptions=exceptions, hold_s=hold_s)
        raise Halt("NEEDS_REVIEW", "the constraints fail at commit and name no row")

    async def recover(
        self, todo: Todo, data: bytes, fence: Fence, turn: Turn, kept: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Find out what became of an announced batch; ``None`` when nothing of it happened.

        Raises:
            Halt: (``NEEDS_REVIEW``) the ledger does not match what was already accounted for.
        """
        if self._bound.ledger:
            return await recover_from_ledger(self._bound, fence)
        known = announced(data)
        asked = without(todo, {each.position for each in known})
        records = {position: images.decode(image.image) for position, image in (kept or {}).items()}
        undone, others = await self._bound.target.plan(
            lambda connection: self._judge_after(connection, asked, records)
        )
        if not undone:
            return None
        # Its image stays: who stands there now, or changed it, came in between.
        known += [
            conflict(position, item, _STANDS if self._bound.act.deletes else _CHANGED)
            for position, item in zip(asked.positions, asked.ids, strict=True)
            if position in others
        ]
        rest = without(asked, undone | others)
        if not rest.ids:
            return BatchResult(exceptions=known)
        again = await self._attempt([], _Task(rest, records), fence, turn)
        return msgspec.structs.replace(again, exceptions=known + again.exceptions)


class _Work:
    """One try at putting a batch back, inside its transaction."""

    def __init__(
        self,
        bound: Bound,
        schema: SchemaWatch,
        task: _Task,
        fence: Fence,
        known: list[ItemException],
        *,
        doomed: dict[int, str],
        one_by_one: bool,
        deferred: bool,
    ) -> None:
        self._bound = bound
        self._schema = schema
        self._task = task
        self._fence = fence
        self._known = known
        self._doomed = doomed
        self._one_by_one = one_by_one
        self._deferred = deferred

    def run(self, connection: sqlite3.Connection) -> list[ItemException]:
        """Put back all that can be; return the exceptions."""
        self._schema.check(connection)
        if self._deferred:
            # Rows may refer to each other in any order; the second try finds out which one fails.
            connection.execute("PRAGMA defer_foreign_keys = ON")
        todo = self._task.todo
        found = [
            failed(position, item, self._doomed[position])
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position in self._doomed
        ]
        todo = without(todo, set(self._doomed))
        plain = without(todo, set(self._task.images))
        found += self._update_all(connection, plain)
        found += self._each(connection, without(todo, set(plain.positions)))
        exceptions = self._known + found
        if self._bound.ledger:
            ledger.advance(connection, self._fence, exceptions)
        return exceptions

    def _update_all(self, connection: sqlite3.Connection, todo: Todo) -> list[ItemException]:
        if not todo.ids:
            return []
        if self._one_by_one:
            return self._each(connection, todo)
        connection.execute("SAVEPOINT plain")
        try:
            changed = self._update(connection, todo.ids, self._bound.act.prior)
        except sqlite3.Error as error:
            if not is_row_error(error):
                raise
            if not connection.in_transaction:
                raise Destroyed(None, str(error)) from error
            connection.execute("ROLLBACK TO plain")
            connection.execute("RELEASE plain")
            return self._each(connection, todo)
        connection.execute("RELEASE plain")
        if changed == len(todo.ids):
            return []
        # The statement put back all it could; whoever does not hold the old values now is a conflict.
        held = self._holding_prior(connection, todo)
        return [
            conflict(position, item, _CHANGED)
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if hashable(item) not in held
        ]

    def _update(self, connection: sqlite3.Connection, ids: list[Id], values: dict[str, Any]) -> int:
        bound = self._bound
        left = bound.as_left()
        assign = ", ".join(f"{quote(name)} = :prior{index}" for index, name in enumerate(values))
        sql = f"UPDATE {quote(bound.table.name)} AS t SET {assign} WHERE {bound.key.match} AND {left.sql}"
        parameters = {f"prior{index}": value for index, value in enumerate(values.values())}
        return connection.execute(sql, {**left.params, **parameters, "ids": encode_ids(ids)}).rowcount

    def _holding_prior(self, connection: sqlite3.Connection, todo: Todo) -> set[Any]:
        bound = self._bound
        test = " AND ".join(f"t.{quote(name)} IS :prior{i}" for i, name in enumerate(bound.act.prior))
        sql = f"SELECT {bound.key.select} FROM {quote(bound.table.name)} AS t WHERE {bound.key.match} AND {test}"
        parameters = {f"prior{index}": value for index, value in enumerate(bound.act.prior.values())}
        rows = fetch(connection, sql, {**parameters, "ids": encode_ids(todo.ids)})
        return {hashable(bound.key.native(row)) for row in rows}

    def _each(self, connection: sqlite3.Connection, todo: Todo) -> list[ItemException]:
        """Put items back one by one; while some succeed, those that failed are tried once more."""
        pending = list(zip(todo.positions, todo.ids, strict=True))
        found: list[ItemException] = []
        while pending:
            again: list[tuple[int, Id]] = []
            for position, item in pending:
                trouble = self._try(connection, position, item)
                if trouble is not None and trouble.outcome == "failed" and not self._deferred:
                    again.append((position, item))
                    found.append(trouble)
                elif trouble is not None:
                    found.append(trouble)
            if not again or len(again) == len(pending):
                return found
            positions = {position for position, _ in again}
            found = [each for each in found if each.position not in positions]
            pending = again
        return found

    def _try(self, connection: sqlite3.Connection, position: int, item: Id) -> ItemException | None:
        connection.execute("SAVEPOINT item")
        try:
            self._put_back(connection, position, item)
        except sqlite3.Error as error:
            if not is_row_error(error):
                raise
            if not connection.in_transaction:
                raise Destroyed(position, str(error)) from error
            trouble = _judge(error, position, item)
        except ItemRefused as error:
            trouble = ItemException(position, wire_id(item), error.outcome, error.code, error.message)
        else:
            connection.execute("RELEASE item")
            return None
        connection.execute("ROLLBACK TO item")
        connection.execute("RELEASE item")
        return trouble

    def _put_back(self, connection: sqlite3.Connection, position: int, item: Id) -> None:
        records = self._task.images.get(position, [])
        if not self._bound.act.deletes:
            held, records = _parts(self._bound, records)
            wanted = self._bound.act.prior | held
            # Who brought the row back in another way did not bring what went along with it.
            if self._update(connection, [item], wanted) != 1 and not (
                records and _holds(connection, self._bound, item, wanted)
            ):
                raise ItemRefused("skipped", "CONFLICT", _CHANGED)
        images.put_back(connection, self._bound.tables, records)
        if not self._deferred and self._bound.foreign_keys:
            images.check_parents(connection, self._bound.tables, records)


def _parts(bound: Bound, records: list[Record]) -> tuple[dict[str, Any], list[Record]]:
    """Take an item's records apart: what its own row held of what the action changed, and the records of others."""
    kind = "row" if bound.act.deletes else "set"
    own = [each for each in records if each.kind == kind and each.table == bound.table.name][:1]
    held = dict(zip(own[0].columns, own[0].values, strict=True)) if own else {}
    return held, [each for each in records if each not in own]


def _holds(connection: sqlite3.Connection, bound: Bound, item: Id, values: dict[str, Any]) -> bool:
    """Say whether the item's row is there, is the tenant's, and holds these values."""
    test = both(bound.tenant, images.holding(values))
    sql = f"SELECT 1 FROM {quote(bound.table.name)} AS t WHERE {bound.key.match} AND {test.sql}"
    return bool(fetch(connection, sql, {**test.params, "ids": encode_ids([item])}))


def _judge(error: sqlite3.Error, position: int, item: Id) -> ItemException:
    name = getattr(error, "sqlite_errorname", "")
    if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"):
        return conflict(position, item, f"{_STANDS}: {error}")
    return failed(position, item, str(error))
