"""An action bound to its table, and the small things that planning, acting and undoing share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from bulkops.database import primary_code
from bulkops.effects import Fence, Id, Image, ItemException, Todo
from bulkops.errors import Halt, Transient
from bulkops.ids import wire_id
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.schema import ForeignKey, Table, quote, read_tables
from bulkops.resources.storage import LocalStorage
from bulkops.resources.table import ledger
from bulkops.resources.table.actions import Act
from bulkops.resources.table.filters import Condition, both, unindexed
from bulkops.resources.table.keys import Key
from bulkops.resources.target import CommitUnknownError, Target, translate
from bulkops.settings import ChildSettings

T = TypeVar("T")

CONFLICT: Final = "it is gone, or changed since it was selected"
_ROW_ERRORS: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
)


def is_row_error(error: sqlite3.Error) -> bool:
    """Say whether an error is the row's fault; every other class is the file's.

    So is a name that a statement or a trigger does not find (any more): it would fail every row.
    """
    code = primary_code(error)
    unknown_name = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such ")
    return code in _ROW_ERRORS and not unknown_name


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """An action bound to its table, tenant and frozen filter: all that a batch needs to know."""

    resource: str
    target: Target
    tables: dict[str, Table]
    table: Table
    key: Key
    act: Act
    scope: Condition
    tenant: Condition
    label: str | None
    own_file: str | None
    storages: dict[str, LocalStorage]
    ledger: bool
    foreign_keys: bool

    @property
    def fit(self) -> Condition:
        return unindexed(both(self.scope, self.act.fit()))

    def as_left(self) -> Condition:
        """Return the condition of rows that an update left and nobody changed since."""
        left = [
            Condition(f"t.{quote(name)} IS :left{index}", {f"left{index}": value})
            for index, (name, value) in enumerate(self.act.assign.items())
        ]
        return unindexed(both(self.tenant, *left))

    def child_link(self, child: ChildSettings) -> ForeignKey:
        """Describe a declared child as the foreign key it is, or could be."""
        columns = [child.key] if isinstance(child.key, str) else child.key
        return ForeignKey(
            table=child.table, columns=tuple(columns), parent=self.table.name,
            parent_columns=tuple(self.key.names), on_delete="CASCADE", deferred=False,
        )  # fmt: skip


class SchemaWatch:
    """Notices when the application's schema changes under a running job."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._version: int | None = None

    def check(self, connection: sqlite3.Connection) -> None:
        """Compare the tables a job needs with what they were; other changes are taken in.

        Raises:
            Halt: (``SCHEMA_CHANGED``) a needed table is gone or has other columns.
        """
        version = connection.execute("PRAGMA schema_version").fetchone()[0]
        if version == self._version:
            return
        tables = read_tables(connection)
        needed = [self._bound.table.name, *(child.table for child in self._bound.act.children)]
        for name in needed:
            if name not in tables or _outline(tables[name]) != _outline(self._bound.tables[name]):
                raise Halt("SCHEMA_CHANGED", f"table {name!r} is not as it was when the server started")
        self._bound.tables.clear()
        self._bound.tables.update(tables)
        self._version = version


def _outline(table: Table) -> Any:
    return [(column.name, column.affinity, column.pk) for column in table.columns]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What planning read: the version it is true of, the items taken, their images, the files they name."""

    version: tuple[int, int] | None
    todo: Todo
    images: list[Image] = []
    files: list[tuple[int, str, bytes]] = []


class OneByOne(Exception):
    """The whole batch at once did not work; its rows have to be told apart."""


class Destroyed(Exception):
    """A row made SQLite roll back the whole transaction (RAISE(ROLLBACK) in a trigger)."""

    def __init__(self, position: int | None, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


class Moved(Exception):
    """Rows changed between planning and acting: the images are stale."""


def conflict(position: int, item: Id, message: str = CONFLICT) -> ItemException:
    """Say that an item was left alone because it is not what was selected any more."""
    return ItemException(position, wire_id(item), "skipped", "CONFLICT", message)


def failed(position: int, item: Id, message: str) -> ItemException:
    """Say that a rule of the application's database refused an item."""
    return ItemException(position, wire_id(item), "failed", "CONSTRAINT", message)


def untouched(halt: Halt) -> Halt:
    """Say of a reason to stop that nothing of the batch was done."""
    halt.untouched = True
    return halt


async def take_turn(bound: Bound, work: Callable[[sqlite3.Connection], T], turn: Turn) -> tuple[T, float]:
    """Run ``work`` in the next turn of the target's lane; return its result and the hold in seconds.

    Raises:
        sqlite3.IntegrityError: a constraint; nothing was done.
        Halt: the target cannot be written now; ``untouched`` unless COMMIT failed and nobody knows how.
    """
    try:
        return await bound.target.turn(
            work,
            foreign_keys=bound.foreign_keys,
            gap=turn.gap,
            stop=turn.stop,
            commit_guard=turn.commit_guard,
            items=turn.items,
        )
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise untouched(translate(error, bound.target.path)) from error
    except CommitUnknownError as error:
        raise Transient("IO_ERROR", f"the commit failed, perhaps: {error}") from error
    except Halt as error:
        error.untouched = True
        raise


async def begin(bound: Bound, fence: Fence, turn: Turn) -> Ahead | None:
    """Make the job's ledger row, if it has one, this generation's; tell when it is a batch ahead of ``fence``.

    Raises:
        Halt: (``NEEDS_REVIEW``) the ledger is behind, missing or further ahead, and nobody has looked at that yet.
    """
    if not bound.ledger:
        return None
    entry = await bound.target.plan(lambda connection: ledger.read(connection, fence.job))
    if entry is None and fence.batch == 0:
        return None
    if entry is None or entry.batch not in (fence.batch, fence.batch + 1):
        if turn.reviewed:
            await take_turn(bound, lambda connection: ledger.adopt(connection, fence), turn)
            return None
        raise Halt(
            "NEEDS_REVIEW",
            "the ledger in the application's database does not match this job; was a copy restored?",
        )
    if entry.generation < fence.generation:
        await take_turn(bound, lambda connection: ledger.take_over(connection, fence), turn)
    return Ahead(entry.cursor, entry.exceptions) if entry.batch == fence.batch + 1 else None


def without(todo: Todo, positions: set[int]) -> Todo:
    if not positions:
        return todo
    kept = [index for index, position in enumerate(todo.positions) if position not in positions]
    return Todo(
        [todo.positions[index] for index in kept],
        [todo.ids[index] for index in kept],
        [todo.origins[index] for index in kept] if todo.origins else (),
    )
