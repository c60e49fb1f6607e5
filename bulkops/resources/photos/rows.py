"""The table that mirrors the project folders: its columns, and the statements that read and change its rows.

The columns of a photo have fixed names; the key and all others are the application's. A row is changed only
while it holds what was seen in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bulkops.effects import Id
from bulkops.errors import ConfigError
from bulkops.ids import new_id
from bulkops.resources.photos.deeds import Deed
from bulkops.resources.photos.names import Kind
from bulkops.resources.schema import Table, quote
from bulkops.resources.table.filters import Condition
from bulkops.resources.table.images import Record, fetch, shape_of
from bulkops.resources.table.keys import Key, encode_ids, hashable

#: The columns that say whether a photo's file is to be kept, and whether it is there.
KEEP: Final = {Kind.JPG: "keep_jpg", Kind.RAW: "keep_raw"}
AVAILABLE: Final = {Kind.JPG: "jpg_available", Kind.RAW: "raw_available"}
PROJECT: Final = "project"
#: What the column with a photo's name without ending may be called.
BASES: Final = ("base", "name")
_FALSE: Final = frozenset({"", "0", "false", "no"})


class Photo(msgspec.Struct, frozen=True, kw_only=True):
    """A row: ``held`` is what its flags hold as they are, ``record`` all of it."""

    id: Id
    project: object
    base: object
    held: dict[str, Any]
    record: Record

    def keeps(self, kind: Kind) -> bool:
        return is_set(self.held[KEEP[kind]])

    def has(self, kind: Kind) -> bool:
        return is_set(self.held[AVAILABLE[kind]])


def is_set(value: Any) -> bool:
    """Read a flag as SQLite and people write it."""
    return value not in _FALSE if isinstance(value, str) else bool(value)


def is_on(name: str) -> Condition:
    """Return the condition of rows whose flag is set."""
    return Condition(f"(t.{quote(name)} <> 0)", {})


def is_off(name: str) -> Condition:
    """Return the condition of rows whose flag is not set."""
    return Condition(f"(t.{quote(name)} IS NULL OR t.{quote(name)} = 0)", {})


class Mirror:
    """The table, as a mirror of folders."""

    def __init__(self, resource: str, table: Table, key: Key) -> None:
        """Find the columns.

        Raises:
            ConfigError: one is missing, or the key is none that a new row can be given.
        """
        self.table = table
        self.key = key
        self.base = _columns(f"resources.{resource}.table", table)
        if (why := explain_key(key.names, self.base)) is not None:
            raise ConfigError(f"resources.{resource}.id", why)
        self._shape = shape_of(table)
        self._flags = [*KEEP.values(), *AVAILABLE.values()]
        self._name = quote(table.name)
        head = [PROJECT, self.base, *self._flags]
        columns = ", ".join([key.select, *(f"t.{quote(name)}" for name in head), self._shape.select])
        self._select = f"SELECT {columns} FROM {self._name} AS t"

    def read(self, connection: sqlite3.Connection, ids: Sequence[Id], fit: Condition) -> dict[Any, Photo]:
        """Read the rows of these ids that fit, by `hashable` id."""
        sql = f"{self._select} WHERE {self.key.match} AND {fit.sql}"
        rows = fetch(connection, sql, {**fit.params, "ids": encode_ids(list(ids))})
        return {hashable(photo.id): photo for photo in map(self._photo, rows)}

    def named(
        self, connection: sqlite3.Connection, project: str, bases: Sequence[str] | None = None
    ) -> list[Photo]:
        """Read a project's rows, only those of the bases when there are any given."""
        among = (
            f" AND t.{quote(self.base)} IN (SELECT value FROM json_each(:bases))" if bases is not None else ""
        )
        sql = f"{self._select} WHERE t.{quote(PROJECT)} = :project{among}"
        bases_json = msgspec.json.encode(list(bases or [])).decode()
        return [self._photo(row) for row in fetch(connection, sql, {"project": project, "bases": bases_json})]

    def bases(self, connection: sqlite3.Connection, project: str) -> set[object]:
        """Return the bases that a project's rows name."""
        sql = f"SELECT t.{quote(self.base)} FROM {self._name} AS t WHERE t.{quote(PROJECT)} = :project"
        return {row[0] for row in fetch(connection, sql, {"project": project})}

    def _photo(self, row: tuple[Any, ...]) -> Photo:
        project, base, *rest = row[len(self.key.names) :]
        held = dict(zip(self._flags, rest, strict=False))
        record = self._shape.record(tuple(rest[len(self._flags) :]))
        return Photo(id=self.key.native(row), project=project, base=base, held=held, record=record)

    def row_of(self, deed: Deed) -> Id:
        """Return the id of the row that a deed changes; its item may be a photo that was named otherwise."""
        if deed.record is None:
            return deed.item
        held = dict(zip(deed.record.columns, deed.record.values, strict=True))
        return self.key.native(tuple(held[name] for name in self.key.names))

    def in_project(self, project: str) -> Condition:
        """Return the condition of a project's rows."""
        return Condition(f"t.{quote(PROJECT)} = :project", {"project": project})

    def among(self, bases: Sequence[str]) -> Condition:
        """Return the condition of rows with one of these bases."""
        return Condition(
            f"t.{quote(self.base)} IN (SELECT value FROM json_each(:bases))",
            {"bases": msgspec.json.encode(list(bases)).decode()},
        )

    def change(
        self,
        connection: sqlite3.Connection,
        item: Id,
        was: dict[str, Any],
        to: dict[str, Any],
        fit: Condition,
    ) -> bool:
        """Give a row that fits new values, while it holds the old ones; say whether it was there."""
        assign = ", ".join(f"{quote(name)} = :to{index}" for index, name in enumerate(to))
        held = [f"t.{quote(name)} IS :was{index}" for index, name in enumerate(was)]
        where = " AND ".join([self.key.match, *held, fit.sql])
        params = {
            **fit.params,
            **{f"to{index}": value for index, value in enumerate(to.values())},
            **{f"was{index}": value for index, value in enumerate(was.values())},
            "ids": encode_ids([item]),
        }
        return (
            connection.execute(f"UPDATE {self._name} AS t SET {assign} WHERE {where}", params).rowcount == 1
        )

    def holds(self, connection: sqlite3.Connection, item: Id, values: dict[str, Any]) -> bool:
        """Say whether a row is there and holds these values."""
        held = [f"t.{quote(name)} IS :held{index}" for index, name in enumerate(values)]
        params = {f"held{index}": value for index, value in enumerate(values.values())}
        sql = f"SELECT 1 FROM {self._name} AS t WHERE {' AND '.join([self.key.match, *held])}"
        return connection.execute(sql, {**params, "ids": encode_ids([item])}).fetchone() is not None

    def add(self, connection: sqlite3.Connection, project: str, base: str, flags: dict[str, Any]) -> None:
        """Insert a photo's row, unless there is one."""
        values: dict[str, Any] = {PROJECT: project, self.base: base, **flags}
        if self.key.single and self.key.names[0] != self.table.integer_key:
            values[self.key.names[0]] = new_id()
        names = ", ".join(quote(name) for name in values)
        marks = ", ".join(f":add{index}" for index in range(len(values)))
        sql = (
            f"INSERT INTO {self._name} ({names}) SELECT {marks} WHERE NOT EXISTS (SELECT 1 FROM {self._name} AS t"
            f" WHERE t.{quote(PROJECT)} = :add0 AND t.{quote(self.base)} = :add1)"
        )
        connection.execute(sql, {f"add{index}": value for index, value in enumerate(values.values())})


def explain_key(names: Sequence[str], base: str) -> str | None:
    """Say why a key is none that photos can have, ``None`` when it is."""
    if len(names) == 1 or sorted(names) == sorted((PROJECT, base)):
        return None
    return f'a photo is known by one id column, or by "{PROJECT}" and "{base}"'


def _columns(where: str, table: Table) -> str:
    known = {column.name for column in table.columns}
    wanted = [PROJECT, *KEEP.values(), *AVAILABLE.values()]
    missing = [name for name in wanted if name not in known]
    base = next((name for name in BASES if name in known), None)
    if base is None:
        missing.insert(1, " or ".join(BASES))
    if missing or base is None:
        raise ConfigError(where, f"table {table.name!r} has no column {', '.join(missing)}; photos need it")
    return base
