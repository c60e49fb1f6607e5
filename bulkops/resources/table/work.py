"""A batch inside its transaction: all rows at once, or cut up until the bad ones stand alone.

A row that a constraint, a trigger or its own content spoils fails alone; the rest of the batch goes on.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from bulkops.effects import Fence, Id, ItemException, Todo, all_or_nothing
from bulkops.ids import wire_id
from bulkops.resources.schema import ForeignKey, quote
from bulkops.resources.table import ledger
from bulkops.resources.table.bound import (
    Bound,
    Destroyed,
    Moved,
    OneByOne,
    SchemaWatch,
    Seen,
    conflict,
    failed,
    is_row_error,
    without,
)
from bulkops.resources.table.images import fetch
from bulkops.resources.table.keys import encode_ids, hashable
from bulkops.resources.table.reading import Reader, Rows, child_match
from bulkops.resources.target import data_version
from bulkops.settings import ChildSettings

#: A batch that meets a bad row is cut into this many parts, twice; what still fails goes row by row.
_PARTS: Final = 8
MAX_DEPTH: Final = 2


class Work:
    """One try at a batch, inside its transaction."""

    def __init__(
        self,
        bound: Bound,
        reader: Reader,
        schema: SchemaWatch,
        seen: Seen,
        *,
        fence: Fence,
        known: list[ItemException],
        doomed: dict[int, str],
        one_by_one: bool,
        start_depth: int,
        atomic: bool,
    ) -> None:
        self._bound = bound
        self._reader = reader
        self._schema = schema
        self._known = known
        self._seen = seen
        self._fence = fence
        self._doomed = doomed
        self._one_by_one = one_by_one
        self._start_depth = start_depth
        self._atomic = atomic
        self._params = self._bound.fit.params | {
            f"to{i}": v for i, v in enumerate(self._bound.act.assign.values())
        }
        self._direct = 0
        #: Items that failed in this try, by position: a COMMIT that fails is tried again without them.
        self.failed: dict[int, str] = {}
        self._effect = _effect_sql(bound)
        self._child_effects = [_child_sql(bound, child) for child in bound.act.children]

    def run(self, connection: sqlite3.Connection) -> tuple[list[ItemException], int]:
        """Do the work; return the exceptions and how many rows of other tables went along."""
        self._schema.check(connection)
        self._check_images(connection)
        before = connection.total_changes
        found = self._each(connection) if self._one_by_one else self._all(connection)
        cascaded = connection.total_changes - before - self._direct
        exceptions = self._known + found
        if self._atomic and exceptions:
            raise all_or_nothing(exceptions)
        if self._bound.ledger:
            ledger.advance(connection, self._fence, exceptions)
        return exceptions, max(0, cascaded)

    def _check_images(self, connection: sqlite3.Connection) -> None:
        """Compare images and files with the rows, if anybody wrote the file since they were looked at."""
        seen = self._seen
        if seen.version is None or seen.version == (data_version(connection), self._bound.target.turns):
            return
        rows = self._reader.fit_rows(connection, seen.todo)
        fresh, refused = self._reader.images_for(connection, rows)
        now = {image.position: image.image for image in fresh}
        then = {image.position: image.image for image in seen.images if image.position in rows}
        if refused or now != then or self._names_other_files(connection, rows):
            raise Moved

    def _names_other_files(self, connection: sqlite3.Connection, rows: Rows) -> bool:
        """Say whether a row, or what goes with it, names other files by now: those would be nobody's."""
        if not self._reader.has_files:
            return False
        now = self._reader.named_files(connection, rows)
        return sorted(now) != sorted(each for each in self._seen.files if each[0] in rows)

    def _all(self, connection: sqlite3.Connection) -> list[ItemException]:
        ids = self._seen.todo.ids
        if not ids:
            return []
        try:
            changed = self._take(connection, ids)
        except sqlite3.Error as error:
            if is_row_error(error):
                raise OneByOne from error
            raise
        if changed != len(ids) or not connection.in_transaction:
            raise OneByOne
        return []

    def _take(self, connection: sqlite3.Connection, ids: list[Id]) -> int:
        parameters = {**self._params, "ids": encode_ids(ids)}
        for sql in self._child_effects:
            connection.execute(sql, {"ids": parameters["ids"]})
        changed = connection.execute(self._effect, parameters).rowcount
        self._direct += changed
        return changed

    def _each(self, connection: sqlite3.Connection) -> list[ItemException]:
        todo = self._seen.todo
        fit = self._reader.fit_rows(connection, todo)
        found = [
            conflict(position, item)
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position not in fit
        ]
        found += [
            failed(position, fit[position][0], message)
            for position, message in self._doomed.items()
            if position in fit
        ]
        good = without(todo, {each.position for each in found})
        blocked = _deferred_blockers(connection, self._bound, good.ids)
        found += [
            failed(position, item, "FOREIGN KEY constraint failed (deferred)")
            for position, item in zip(good.positions, good.ids, strict=True)
            if hashable(item) in blocked
        ]
        good = without(good, {each.position for each in found})
        self._divide(connection, good, self._start_depth, found)
        if self._refers_to_itself:
            found = self._again(connection, todo, good, found)
        self.failed = {each.position: each.message for each in found if each.outcome == "failed"}
        return found

    @property
    def _refers_to_itself(self) -> bool:
        name = self._bound.table.name
        return any(link.table == name for link in self._bound.table.referenced_by)

    def _again(
        self, connection: sqlite3.Connection, todo: Todo, good: Todo, found: list[ItemException]
    ) -> list[ItemException]:
        """Try rows that failed once more while others succeed: what referred to them may be gone by now."""
        while True:
            tried = set(good.positions)
            pending = {each.position for each in found if each.outcome == "failed" and each.position in tried}
            if not pending:
                return found
            again: list[ItemException] = []
            rest = without(todo, set(todo.positions) - pending)
            self._divide(connection, rest, MAX_DEPTH + 1, again)
            found = [each for each in found if each.position not in pending] + again
            if len(again) == len(pending):
                return found

    def _divide(
        self, connection: sqlite3.Connection, todo: Todo, depth: int, found: list[ItemException]
    ) -> None:
        if not todo.ids:
            return
        # Beyond the last depth nothing is tried together: one row of these makes SQLite roll back everything.
        if depth <= MAX_DEPTH or len(todo.ids) == 1:
            trouble = self._try(connection, todo)
            if trouble is None:
                return
            if len(todo.ids) == 1:
                outcome, code, message = trouble
                found.append(ItemException(todo.positions[0], wire_id(todo.ids[0]), outcome, code, message))
                return
        size = 1 if depth >= MAX_DEPTH else max(1, -(-len(todo.ids) // _PARTS))
        for start in range(0, len(todo.ids), size):
            end = start + size
            part = Todo(todo.positions[start:end], todo.ids[start:end], todo.origins[start:end])
            self._divide(connection, part, depth + 1, found)

    def _try(self, connection: sqlite3.Connection, todo: Todo) -> tuple[str, str, str] | None:
        connection.execute("SAVEPOINT part")
        direct = self._direct
        try:
            changed = self._take(connection, todo.ids)
            if changed < len(todo.ids) and self._went_along(connection, todo.ids):
                changed = len(todo.ids)
            message = "" if changed == len(todo.ids) else "a trigger kept it"
        except sqlite3.Error as error:
            if not is_row_error(error):
                raise
            message = str(error)
            changed = -1
        if not connection.in_transaction:
            raise Destroyed(todo.positions[0] if len(todo.ids) == 1 else None, message)
        if changed == len(todo.ids):
            connection.execute("RELEASE part")
            return None
        connection.execute("ROLLBACK TO part")
        connection.execute("RELEASE part")
        self._direct = direct
        return ("failed", "CONSTRAINT", message) if changed == -1 else ("skipped", "CONFLICT", message)

    def _went_along(self, connection: sqlite3.Connection, ids: list[Id]) -> bool:
        """Say whether none of the rows is left: they were fit when this try began, so they went with others of it."""
        if not self._bound.act.deletes or not connection.in_transaction:
            return False
        sql = f"SELECT count(*) FROM {quote(self._bound.table.name)} AS t WHERE {self._bound.key.match}"
        return bool(connection.execute(sql, {"ids": encode_ids(ids)}).fetchone()[0] == 0)


def statements(bound: Bound) -> list[tuple[ChildSettings | None, str]]:
    """Return what a batch runs, in order, for those who want to know: each child's statement, then the row's."""
    child_sql = _child_rows_sql if bound.act.reads else _child_sql
    return [*((child, child_sql(bound, child)) for child in bound.act.children), (None, _effect_sql(bound))]


def _effect_sql(bound: Bound) -> str:
    table = quote(bound.table.name)
    fit = bound.fit
    if bound.act.reads:
        return f"SELECT t.* FROM {table} AS t WHERE {bound.key.match} AND {fit.sql}"
    if bound.act.deletes:
        return f"DELETE FROM {table} AS t WHERE {bound.key.match} AND {fit.sql}"
    assign = ", ".join(f"{quote(name)} = :to{index}" for index, name in enumerate(bound.act.assign))
    return f"UPDATE {table} AS t SET {assign} WHERE {bound.key.match} AND {fit.sql}"


def _child_rows_sql(bound: Bound, child: ChildSettings) -> str:
    return f"SELECT t.* FROM {quote(child.table)} AS t WHERE {child_match(bound, child)}"


def _child_sql(bound: Bound, child: ChildSettings) -> str:
    return f"DELETE FROM {quote(child.table)} AS t WHERE {child_match(bound, child)}"


def _deferred_blockers(connection: sqlite3.Connection, bound: Bound, ids: list[Id]) -> set[Any]:
    """Find items that deferred foreign keys still point at: COMMIT would fail and name none of them.

    Rows that go in the same batch do not count, unless something holds on to them in turn.
    """
    if not bound.act.deletes or not bound.foreign_keys:
        return set()
    declared = {(child.table, bound.child_link(child).columns) for child in bound.act.children}
    links = [
        link
        for link in bound.table.referenced_by
        if link.deferred
        and link.on_delete not in ("CASCADE", "SET NULL", "SET DEFAULT")
        and (link.table, link.columns) not in declared
    ]
    blocked: set[Any] = set()
    while links:
        going = [item for item in ids if hashable(item) not in blocked]
        fresh = set().union(*(_held(connection, bound, link, going) for link in links))
        if not fresh:
            break
        blocked |= fresh
    return blocked


def _held(connection: sqlite3.Connection, bound: Bound, link: ForeignKey, ids: list[Id]) -> set[Any]:
    """Find the items that rows of the linked table point at, but for rows that go themselves."""
    joined = " AND ".join(
        f"c.{quote(child)} = t.{quote(parent)}"
        for child, parent in zip(link.columns, link.parent_columns, strict=True)
    )
    if link.table == bound.table.name:
        joined += f" AND NOT ({bound.key.match_as('c')})"
    sql = (
        f"SELECT {bound.key.select} FROM {quote(bound.table.name)} AS t"
        f" WHERE {bound.key.match} AND EXISTS (SELECT 1 FROM {quote(link.table)} AS c WHERE {joined})"
    )
    rows = fetch(connection, sql, {"ids": encode_ids(ids)})
    return {hashable(bound.key.native(row)) for row in rows}
