"""Before-images: rows as they were, with everything that goes with them, and how they are put back.

A record is one row removed (``row``) or some columns changed (``set``); an item's image is the list of
its records, its own row first, so that putting them back in order satisfies foreign keys.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from bulkops.errors import ItemRefused
from bulkops.resources.schema import ForeignKey, Table, quote
from bulkops.resources.table.filters import Condition
from bulkops.shapes import whole

#: Rows that one item may take along; beyond, only a final delete can.
MAX_ROWS: Final = 100_000
_CHUNK: Final = 300
_COMPRESS_FROM: Final = 256


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One row: ``values`` are what it held (for ``set`` before, with ``after`` what it was given)."""

    kind: Literal["row", "set"]
    table: str
    key: list[Any]
    columns: list[str]
    values: list[Any]
    after: list[Any] | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(whole(list[Record]))


def encode(records: list[Record]) -> bytes:
    """Pack an item's records; larger ones are compressed."""
    packed = _encoder.encode(records)
    if len(packed) < _COMPRESS_FROM:
        return b"\0" + packed
    return b"\1" + zlib.compress(packed, 1)


def decode(image: bytes) -> list[Record]:
    """Unpack what `encode` packed."""
    packed = zlib.decompress(image[1:]) if image[:1] == b"\1" else image[1:]
    return _decoder.decode(packed)


class Shape(msgspec.Struct, frozen=True):
    """What of a table's rows has to be kept: every stored column, and the rowid where nothing else is it."""

    table: Table
    columns: list[str]
    identity: list[str]

    @property
    def select(self) -> str:
        return ", ".join(f"t.{quote(name)}" for name in self.columns)

    def record(self, row: Sequence[Any]) -> Record:
        """Build the record of a row selected as ``select``."""
        values = [_keep(value) for value in row]
        key = [values[self.columns.index(name)] for name in self.identity]
        return Record("row", self.table.name, key, self.columns, values)


def shape_of(table: Table) -> Shape:
    """Say what to keep of a table's rows."""
    columns = [column.name for column in table.columns if not column.generated]
    if table.rowid is not None and table.integer_key is None:
        return Shape(table, [table.rowid, *columns], [table.rowid])
    identity = [table.integer_key] if table.integer_key else list(table.primary_key)
    return Shape(table, columns, identity)


def _keep(value: Any) -> Any:
    # Invalid UTF-8 comes in as lone surrogates (see `tolerant_text`), which no encoder takes.
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"raw": value.encode("utf-8", "surrogateescape")}
    return value


def _give(value: Any) -> Any:
    return value["raw"] if isinstance(value, dict) else value


def tolerant_text(raw: bytes) -> str:
    """Decode a TEXT value; bytes that are no UTF-8 survive as lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def is_undecodable(error: sqlite3.OperationalError) -> bool:
    """Say whether an error is about a text that is no UTF-8; the driver gives it no code."""
    return "decode" in str(error)


def fetch(
    connection: sqlite3.Connection, sql: str, parameters: dict[str, Any] | Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Read all rows; text that is no UTF-8 is read once more in a way that keeps its bytes."""
    return fetch_named(connection, sql, parameters)[1]


def fetch_named(
    connection: sqlite3.Connection, sql: str, parameters: dict[str, Any] | Sequence[Any]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Read all rows as `fetch` does, and the names of their columns."""
    try:
        return _read(connection, sql, parameters)
    except sqlite3.OperationalError as error:
        if not is_undecodable(error):
            raise
    connection.text_factory = tolerant_text
    try:
        return _read(connection, sql, parameters)
    finally:
        connection.text_factory = str


def _read(
    connection: sqlite3.Connection, sql: str, parameters: dict[str, Any] | Sequence[Any]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    cursor = connection.execute(sql, parameters)
    return [column[0] for column in cursor.description], cursor.fetchall()


class Closure:
    """Collects the rows of other tables that go or change when the given rows are deleted.

    ``images`` holds an item's records in the order in which they can be put back.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        tables: dict[str, Table],
        own: list[tuple[int, Record]],
        *,
        keep_own: bool,
        max_rows: int = MAX_ROWS,
    ) -> None:
        """Begin with the items' own rows; ``keep_own`` when they are deleted themselves."""
        self.images: dict[int, list[Record]] = {item: [record] if keep_own else [] for item, record in own}
        self._connection = connection
        self._tables = tables
        self._own = own
        self._max_rows = max_rows
        self._seen = {(record.table, _identity(record.key)) for _, record in own}
        self._count = 0

    def cascade(self, level: list[tuple[int, Record]] | None = None) -> None:
        """Follow ON DELETE CASCADE, SET NULL and SET DEFAULT from the items' own rows, level by level.

        Raises:
            ItemRefused: more rows than can be kept.
        """
        level = self._own if level is None else level
        while level:
            following: list[tuple[int, Record]] = []
            for name in dict.fromkeys(record.table for _, record in level):
                rows = [(item, record) for item, record in level if record.table == name]
                for link in self._tables[name].referenced_by:
                    if link.on_delete in ("CASCADE", "SET NULL", "SET DEFAULT"):
                        following += self._along(link, rows)
            level = following

    def take_children(self, link: ForeignKey, *, cascade: bool) -> None:
        """Add the rows of a declared child table, and what cascades from them.

        Raises:
            ItemRefused: more rows than can be kept.
        """
        found = self._along(msgspec.structs.replace(link, on_delete="CASCADE"), self._own)
        if cascade:
            self.cascade(found)

    def _along(self, link: ForeignKey, rows: list[tuple[int, Record]]) -> list[tuple[int, Record]]:
        owners = _owners(link, rows)
        shape = shape_of(self._tables[link.table])
        further: list[tuple[int, Record]] = []
        for reference, row in _referencing(self._connection, shape, link, list(owners)):
            item = owners[reference]
            record = shape.record(row)
            mark = (record.table, _identity(record.key))
            if mark in self._seen:
                continue
            self._count_row()
            if link.on_delete == "CASCADE":
                self._seen.add(mark)
                self.images[item].append(record)
                further.append((item, record))
            else:
                self.images[item].append(self._changed(record, link, self._tables[link.table]))
        return further

    def _changed(self, record: Record, link: ForeignKey, table: Table) -> Record:
        held = dict(zip(record.columns, record.values, strict=True))
        default = link.on_delete == "SET DEFAULT"
        after = [self._default(table.column(name).default) if default else None for name in link.columns]
        key = shape_of(table)
        return Record(
            "set", record.table, [held[name] for name in key.identity], list(link.columns),
            [held[name] for name in link.columns], after,
        )  # fmt: skip

    def _default(self, sql: str | None) -> Any:
        """Return what a column gets that is set to its default, which SQLite keeps as an expression."""
        if sql is None:
            return None
        try:
            return self._connection.execute(f"SELECT {sql}").fetchone()[0]
        except sqlite3.OperationalError:
            # A word in double quotes is a text there, and here the name of a column.
            return sql.strip().strip('"')

    def _count_row(self) -> None:
        self._count += 1
        if self._count > self._max_rows:
            raise ItemRefused(
                "failed",
                "CONSTRAINT",
                f"takes more than {self._max_rows:,} rows of other tables along; only a final delete can",
            )


def _owners(link: ForeignKey, rows: list[tuple[int, Record]]) -> dict[tuple[Any, ...], int]:
    owners: dict[tuple[Any, ...], int] = {}
    for item, record in rows:
        held = dict(zip(record.columns, record.values, strict=True))
        values = _identity([held.get(name) for name in link.parent_columns])
        if None not in values:
            owners.setdefault(values, item)
    return owners


def _identity(key: list[Any]) -> tuple[Any, ...]:
    return tuple(value["raw"] if isinstance(value, dict) else value for value in key)


def _referencing(
    connection: sqlite3.Connection, shape: Shape, link: ForeignKey, wanted: list[tuple[Any, ...]]
) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Read the rows of the child table that refer to any of ``wanted``, each with whom it refers to."""
    width = len(link.columns)
    found: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
    for start in range(0, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        sql = referencing_sql(shape, link, len(chunk))
        parameters = [value for values in chunk for value in values]
        found += [(row[:width], row[width:]) for row in fetch(connection, sql, parameters)]
    return found


def referencing_sql(shape: Shape, link: ForeignKey, wanted: int) -> str:
    """Return the query of the rows that refer to any of so many wanted ones, whose keys it binds by place."""
    columns = [f"t.{quote(name)}" for name in link.columns]
    width = len(columns)
    left = columns[0] if width == 1 else f"({', '.join(columns)})"
    mark = "(" + ", ".join("?" * width) + ")"
    # Joined with the wanted values, so that '1' in the child finds 1 in the parent as the foreign key does.
    wanted_columns = ", ".join(f"w.column{index + 1}" for index in range(width))
    right = wanted_columns if width == 1 else f"({wanted_columns})"
    return (
        f"SELECT {wanted_columns}, {shape.select} FROM (VALUES {', '.join([mark] * wanted)}) AS w"
        f" JOIN {quote(link.table)} AS t ON {left} = {right}"
    )


def put_back(connection: sqlite3.Connection, tables: dict[str, Table], records: list[Record]) -> None:
    """Put an item's records back, in order.

    Raises:
        sqlite3.IntegrityError: something stands in the place of a row.
        ItemRefused: (``CONFLICT``) a table or column is gone by now.
    """
    for record in records:
        table = tables.get(record.table)
        if table is None:
            raise ItemRefused("skipped", "CONFLICT", f"table {record.table!r} is not there any more")
        if record.kind == "row":
            _insert(connection, table, record)
        else:
            _set_back(connection, table, record)


def check_parents(connection: sqlite3.Connection, tables: dict[str, Table], records: list[Record]) -> None:
    """Look for the rows that records just put back refer to by keys which SQLite checks at COMMIT only.

    Raises:
        ItemRefused: (``CONSTRAINT``) one is not there; COMMIT would fail and name nobody.
    """
    for record in records:
        held = dict(zip(record.columns, record.values, strict=True))
        for link in tables[record.table].foreign_keys:
            values = [_give(held.get(name)) for name in link.columns]
            if not link.deferred or not link.parent_columns or None in values:
                continue
            match = " AND ".join(f"t.{quote(name)} = ?" for name in link.parent_columns)
            sql = f"SELECT 1 FROM {quote(link.parent)} AS t WHERE {match}"
            if connection.execute(sql, values).fetchone() is None:
                raise ItemRefused("failed", "CONSTRAINT", f"the row of {link.parent!r} it refers to is gone")


def _insert(connection: sqlite3.Connection, table: Table, record: Record) -> None:
    known = {column.name for column in table.columns} | ({table.rowid} if table.rowid else set())
    gone = [name for name in record.columns if name not in known]
    if gone:
        raise ItemRefused(
            "skipped", "CONFLICT", f"column {gone[0]!r} of {table.name!r} is not there any more"
        )
    marks = ", ".join(_mark(value) for value in record.values)
    names = ", ".join(quote(name) for name in record.columns)
    connection.execute(
        f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})",
        [_give(value) for value in record.values],
    )


def _mark(value: Any) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, dict) else "?"


def holding(values: dict[str, Any]) -> Condition:
    """Return the condition of a row ``t`` that holds these values, as records keep them; true without any."""
    tests = [
        f"t.{quote(name)} IS {f'CAST(:held{index} AS TEXT)' if isinstance(value, dict) else f':held{index}'}"
        for index, (name, value) in enumerate(values.items())
    ]
    held = {f"held{index}": _give(value) for index, value in enumerate(values.values())}
    return Condition(" AND ".join(tests) or "1", held)


def stands(connection: sqlite3.Connection, table: Table, record: Record) -> bool:
    """Say whether there is a row under a record's key."""
    key = holding(dict(zip(shape_of(table).identity, record.key, strict=True)))
    return bool(fetch(connection, f"SELECT 1 FROM {quote(table.name)} AS t WHERE {key.sql}", key.params))


def _set_back(connection: sqlite3.Connection, table: Table, record: Record) -> None:
    identity = shape_of(table).identity
    assign = ", ".join(
        f"{quote(name)} = {_mark(value)}" for name, value in zip(record.columns, record.values, strict=True)
    )
    where = " AND ".join(
        [f"{quote(name)} IS ?" for name in identity] + [f"{quote(n)} IS ?" for n in record.columns]
    )
    parameters = [*record.values, *record.key, *(record.after or [])]
    connection.execute(
        f"UPDATE {quote(table.name)} SET {assign} WHERE {where}", [_give(value) for value in parameters]
    )
