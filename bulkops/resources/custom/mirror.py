"""Items held in a table in memory for a moment, so that one set of rules says what matches and what is fit.

What comes in: items of the author's; what goes out: those that a query means, judged exactly as rows of a
table are. A mirror lives in the thread it was made in and is forgotten with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from bulkops.batch import Item
from bulkops.resources.custom.declaration import AFFINITIES
from bulkops.resources.schema import Table, quote, read_table
from bulkops.resources.table.filters import Condition
from bulkops.resources.table.keys import Key

_TABLE: Final = "items"
_ID: Final = "id"


class Shape:
    """The columns of a resource as a table has them; the first is the item's id."""

    def __init__(self, columns: Mapping[str, type]) -> None:
        self.columns = {name: kind for name, kind in columns.items() if name.casefold() != _ID}
        typed = ", ".join(f"{quote(name)} {AFFINITIES[kind]}" for name, kind in self.columns.items())
        self.create = f"CREATE TABLE {_TABLE} ({_ID} TEXT PRIMARY KEY NOT NULL{', ' if typed else ''}{typed})"
        marks = ", ".join("?" * (1 + len(self.columns)))
        self.insert = f"INSERT OR REPLACE INTO {_TABLE} VALUES ({marks})"
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(self.create)
            self.table: Table = read_table(connection, _TABLE)
        self.key = Key(self.table, [_ID])


class Mirror:
    """A table in memory of one shape; close it where it was made."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.items: dict[str, Item] = {}
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute(shape.create)

    def close(self) -> None:
        self.connection.close()

    def load(self, items: Iterable[Item]) -> None:
        """Take items in; one that comes twice is there once."""
        fresh = {item.id: item for item in items}
        self.items |= fresh
        names = list(self._shape.columns)
        self.connection.executemany(
            self._shape.insert,
            [(item.id, *(_cell(item.row.get(name)) for name in names)) for item in fresh.values()],
        )

    def keep(self, condition: Condition) -> int:
        """Forget the items of which a condition is not true; return how many are left."""
        sql = f"DELETE FROM {_TABLE} AS t WHERE NOT coalesce(({condition.sql}), 0) RETURNING {_ID}"
        for (gone,) in self.connection.execute(sql, condition.params).fetchall():
            del self.items[gone]
        return len(self.items)

    def clear(self) -> None:
        self.items = {}
        self.connection.execute(f"DELETE FROM {_TABLE}")


def _cell(value: Any) -> Any:
    """Write a value as a column holds it: instants as RFC 3339 in UTC, what SQLite does not know as text."""
    if value is None or isinstance(value, float | bytes):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, datetime):
        at = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return str(value).encode("utf-8", "replace").decode()
