"""Rows of a table, written into a job's file: exports, and the archives that go with a status.

What comes in: the items of a batch and a `Pen`; what goes out: their records, in the manifest's order, read in
short read transactions, so that an export is no snapshot: each row is as it was when its batch was written.
Nothing is ever held but two pieces of a batch.
"""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from collections.abc import Awaitable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

import anyio.to_thread
import msgspec

from bulkops.effects import BatchResult, Fence, Id, Image, ItemException, Plan, Todo
from bulkops.ids import wire_id
from bulkops.resources.contract import Ahead, Pen, Turn
from bulkops.resources.schema import Table, quote
from bulkops.resources.table.batches import TableBatches
from bulkops.resources.table.bound import Bound, SchemaWatch, conflict
from bulkops.resources.table.encoding import (
    OddError,
    csv_bytes,
    csv_cell,
    csv_line,
    json_line,
    line_sql,
    register,
    stored,
)
from bulkops.resources.table.filters import Condition
from bulkops.resources.table.images import tolerant_text
from bulkops.resources.table.keys import encode_ids, hashable
from bulkops.resources.table.layouts import Layout
from bulkops.resources.table.reading import child_match
from bulkops.resources.target import DeadlineError
from bulkops.settings import ChildSettings

T = TypeVar("T")

#: A piece of a batch is cut in two when its records are longer than this.
_MAX_PIECE: Final = 16 << 20
#: A row that is longer alone is refused.
_MAX_ROW: Final = 256 << 20
#: A piece has no more rows than this.
_PIECE_ROWS: Final = 10_000
#: So many lines SQLite hands over in a block: few enough that its copies are made in warm memory.
_AT_ONCE: Final = 500
_BOM: Final = b"\xef\xbb\xbf"


class Block(msgspec.Struct, frozen=True):
    """Lines of rows, joined; a text is as SQLite wrote it and still has to be encoded."""

    lines: str | bytes
    rows: int


class Records(msgspec.Struct, frozen=True):
    """The lines of a piece's rows, in order, and its items that have none, with the reason."""

    blocks: list[Block]
    exceptions: list[ItemException]

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)


class LongError(Exception):
    """A piece's records are too long to be held at once."""


class Recorder:
    """Writes rows of one bound action into a pen."""

    def __init__(self, bound: Bound, layout: Layout, scope: Condition) -> None:
        """Take which rows may be written: ``scope``."""
        self._bound = bound
        self._layout = layout
        self._scope = scope
        self._schema = SchemaWatch(bound)
        self._names = _detail_names(bound.table, layout.children)
        #: What stands between the lines of a block.
        self._joint = {"csv": b"", "json": b",\n"}.get(layout.format, b"\n")

    async def write(self, pen: Pen, todo: Todo) -> list[ItemException]:
        """Append the records of a batch; return the items that have none."""
        exceptions: list[ItemException] = []
        pieces = _pieces(todo)
        records = await self._next(pieces)
        while records is not None:
            exceptions += records.exceptions
            append = anyio.to_thread.run_sync(self._append, pen, records)
            # The next piece is read while this one goes into the file.
            records = await _beside(append, self._next(pieces))
        return exceptions

    async def _next(self, pieces: list[Todo]) -> Records | None:
        """Read the last of the pieces, cut down until it fits; ``None`` when none is left."""
        while pieces:
            piece = pieces.pop()
            try:
                return await self._bound.target.read(partial(self._read, piece=piece))
            except (LongError, DeadlineError):
                if len(piece.ids) == 1:
                    return Records([], [_refused(piece, "it takes too long to read")])
                pieces += _halves(piece)
        return None

    def _append(self, pen: Pen, records: Records) -> None:
        self._begin(pen)
        if self._layout.format == "ndjson.gz" and records.blocks:
            # Members one after another are one gzip file (RFC 1952, 2.2), and can be cut between them.
            text = b"\n".join(self._encoded(block) for block in records.blocks) + b"\n"
            pen.write(gzip.compress(text, compresslevel=6, mtime=0), records.rows)
            return
        # Block after block, never one large text: its memory would be new, and cost more than what is in it.
        for block in records.blocks:
            if self._layout.format == "json" and pen.rows:
                pen.write(b",\n", 0)
            pen.write(self._encoded(block), block.rows)
            if self._layout.format == "ndjson":
                pen.write(b"\n", 0)

    def _encoded(self, block: Block) -> bytes:
        if isinstance(block.lines, bytes):
            return block.lines
        return (
            csv_bytes(block.lines, self._layout.writing) if self._layout.writing.csv else block.lines.encode()
        )

    def _begin(self, pen: Pen) -> None:
        if pen.position():
            return
        if self._layout.format == "json":
            pen.write(b"[\n", 0)
        elif self._layout.format == "csv":
            names = [column.name for column in stored(self._bound.table)] + self._names
            pen.write((_BOM if self._layout.bom else b"") + csv_line(names, self._layout.writing), 0)

    async def close(self, pen: Pen) -> None:
        """Append what ends the file; without any row all that it needs."""
        await anyio.to_thread.run_sync(self._end, pen)

    def _end(self, pen: Pen) -> None:
        self._begin(pen)
        if self._layout.format == "json":
            pen.write(b"\n]\n" if pen.rows else b"]\n", 0)
        elif self._layout.format == "ndjson.gz" and not pen.position():
            pen.write(gzip.compress(b"", mtime=0), 0)

    # --- in the thread of a reader -------------------------------------------------------------------

    def _read(self, connection: sqlite3.Connection, piece: Todo) -> Records:
        self._schema.check(connection)
        if not self._layout.children:
            try:
                blocks = self._fast(connection, piece)
            except (OddError, UnicodeError):
                blocks = None
            except (sqlite3.OperationalError, sqlite3.DataError) as error:
                if not _is_odd(error):
                    raise
                blocks = None
            if blocks is not None:
                return Records(blocks, [])
        return self._slow(connection, piece)

    def _fast(self, connection: sqlite3.Connection, piece: Todo) -> list[Block] | None:
        """Let SQLite write the lines; ``None`` when an item is not there."""
        register(connection, self._layout.writing)
        blocks: list[Block] = []
        size = 0
        for at in range(0, len(piece.ids), _AT_ONCE):
            ids = piece.ids[at : at + _AT_ONCE]
            text, rows = self._lines(connection, ids, alone=len(piece.ids) == 1)
            if rows != len(ids):
                return None
            size += len(text)
            if size > _MAX_PIECE and len(piece.ids) > 1:
                raise LongError
            # Only escapes can be odd: that is found out here, where the rows can still be read in another way.
            odd = self._layout.writing.csv and "\\" in text
            blocks.append(Block(csv_bytes(text, self._layout.writing) if odd else text, rows))
        return blocks

    def _lines(self, connection: sqlite3.Connection, ids: Sequence[Id], *, alone: bool) -> tuple[str, int]:
        """Return the lines of rows as one text, and how many they are; a text too long is not even made."""
        sql, params = self._lines_query(ids)
        usual = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(usual, _MAX_ROW if alone else _MAX_PIECE))
        try:
            text, rows = connection.execute(sql, params).fetchone()
        except (sqlite3.OperationalError, sqlite3.DataError) as error:
            if "too big" in str(error) and not alone:
                raise LongError from error
            raise
        finally:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, usual)
        return text or "", rows

    def _lines_query(self, ids: Sequence[Id]) -> tuple[str, dict[str, Any]]:
        """Select the lines of rows in the order of their ids, joined; a run of numbers by its ends."""
        bound = self._bound
        line = line_sql(bound.table, self._layout.writing)
        table = quote(bound.table.name)
        separator = "',' || char(10)" if self._layout.format == "json" else "char(10)"
        joined = f"SELECT group_concat(line, {separator}), count(*) FROM"
        if _is_run(ids) and bound.key.names == [bound.table.integer_key]:
            where = f"{bound.key.select} BETWEEN :first AND :last AND {self._scope.sql} ORDER BY {bound.key.select}"
            params = {"first": ids[0], "last": ids[-1]}
            return (
                f"{joined} (SELECT {line} AS line FROM {table} AS t WHERE {where})",
                params | self._scope.params,
            )
        # CROSS JOIN keeps the order of the ids.
        rows = f"json_each(:ids) AS j CROSS JOIN {table} AS t WHERE {_joined(bound)} AND {self._scope.sql}"
        params = {"ids": encode_ids(list(ids))}
        return f"{joined} (SELECT {line} AS line FROM {rows})", params | self._scope.params

    def _slow(self, connection: sqlite3.Connection, piece: Todo) -> Records:
        """Read values and write them here: with details, where items are gone, where values are odd."""
        connection.text_factory = tolerant_text
        try:
            rows = dict(self._rows(connection, piece.ids))
            details = [self._details(connection, child, piece.ids) for child in self._layout.children]
        finally:
            connection.text_factory = str
        data: list[bytes] = []
        exceptions: list[ItemException] = []
        size = 0
        for index, item in enumerate(piece.ids):
            values = rows.pop(hashable(item), None)
            if values is None:
                exceptions.append(conflict(piece.positions[index], item))
                continue
            data.append(self._encode(values, [found.pop(hashable(item), []) for found in details]))
            size += len(data[-1])
            if size > _MAX_PIECE and len(piece.ids) > 1:
                raise LongError
        if size > _MAX_ROW:
            return Records([], [_refused(piece, "it is too long for an export")])
        return Records([Block(self._joint.join(data), len(data))] if data else [], exceptions)

    def _rows(self, connection: sqlite3.Connection, ids: Sequence[Id]) -> Iterator[tuple[Any, Sequence[Any]]]:
        bound = self._bound
        columns = ", ".join(f"t.{quote(column.name)}" for column in stored(bound.table))
        sql = (
            f"SELECT {bound.key.select}, {columns} FROM {quote(bound.table.name)} AS t"
            f" WHERE {bound.key.match} AND {self._scope.sql}"
        )
        width, size = len(bound.key.names), 0
        for row in connection.execute(sql, self._scope.params | {"ids": encode_ids(list(ids))}):
            size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
            if size > _MAX_PIECE and len(ids) > 1:
                raise LongError
            yield hashable(bound.key.native(row)), row[width:]

    def _details(
        self, connection: sqlite3.Connection, child: ChildSettings, ids: Sequence[Id]
    ) -> dict[Any, list[bytes]]:
        """Return the encoded rows of a child table, by item, in the order of the child's key."""
        bound = self._bound
        table = bound.tables[child.table]
        columns = stored(table)
        link = ", ".join(f"t.{quote(name)}" for name in bound.child_link(child).columns)
        order = table.rowid or ", ".join(quote(name) for name in table.primary_key)
        sql = (
            f"SELECT {link}, {', '.join(f't.{quote(column.name)}' for column in columns)}"
            f" FROM {quote(table.name)} AS t WHERE {child_match(bound, child)} ORDER BY {order}"
        )
        width, size = len(bound.key.names), 0
        found: dict[Any, list[bytes]] = {}
        for row in connection.execute(sql, {"ids": encode_ids(list(ids))}):
            line = json_line(columns, row[width:], self._layout.writing)
            size += len(line)
            if size > _MAX_PIECE and len(ids) > 1:
                raise LongError
            key = row[0] if width == 1 else tuple(row[:width])
            found.setdefault(key, []).append(line)
        return found

    def _encode(self, values: Sequence[Any], details: list[list[bytes]]) -> bytes:
        writing = self._layout.writing
        if not writing.csv:
            line = json_line(stored(self._bound.table), values, writing)
            nested = [
                msgspec.json.encode(name) + b":[" + b",".join(rows) + b"]"
                for name, rows in zip(self._names, details, strict=True)
            ]
            return line[:-1] + b"," + b",".join(nested) + b"}" if nested else line
        line = csv_line(values, writing)
        nested = [csv_cell((b"[" + b",".join(rows) + b"]").decode(), writing).encode() for rows in details]
        return line[:-2] + b"," + b",".join(nested) + b"\r\n" if nested else line


def _detail_names(table: Table, children: list[ChildSettings]) -> list[str]:
    """Name what holds the children's rows: their table, and more where a column or a child is called so."""
    taken = {column.name for column in table.columns}
    names = []
    for child in children:
        name = child.table
        while name in taken:
            name += "_rows"
        taken.add(name)
        names.append(name)
    return names


def _joined(bound: Bound) -> str:
    """Return the condition that a row ``t`` is the one that ``j`` names."""
    columns = [f"t.{quote(name)}" for name in bound.key.names]
    if len(columns) > 1:
        parts = [f"{name} = json_extract(j.value, '$[{index}]')" for index, name in enumerate(columns)]
        return " AND ".join(parts)
    # A NOCASE or RTRIM key would take rows for others that are not the same.
    return f"{columns[0]} = j.value AND {columns[0]} COLLATE BINARY = j.value"


async def _beside(first: Awaitable[None], second: Awaitable[T]) -> T:
    """Wait for both, whatever becomes of either; return what the second does.

    Raises:
        Exception: what the first raised, else what the second did.
    """
    done, result = await asyncio.gather(first, second, return_exceptions=True)
    for each in (done, result):
        if isinstance(each, BaseException):
            raise each
    return cast("T", result)


def _is_run(ids: Sequence[Id]) -> bool:
    first, last = ids[0], ids[-1]
    if not (isinstance(first, int) and isinstance(last, int)) or last - first != len(ids) - 1:
        return False
    return list(ids) == list(range(first, last + 1))


def _is_odd(error: sqlite3.Error) -> bool:
    """Say whether the values of a row, not the file, are what SQLite's line stumbled over."""
    text = str(error)
    return "decode" in text or "JSON" in text or "too big" in text or "user-defined function" in text


def _pieces(todo: Todo) -> list[Todo]:
    """Cut a batch in pieces, the first one last: it is taken first."""
    starts = range(0, len(todo.ids), _PIECE_ROWS)
    return [
        Todo(todo.positions[at : at + _PIECE_ROWS], todo.ids[at : at + _PIECE_ROWS])
        for at in reversed(starts)
    ]


def _halves(piece: Todo) -> list[Todo]:
    """Cut a piece in two, the first half last: it is taken next."""
    middle = len(piece.ids) // 2
    return [
        Todo(piece.positions[middle:], piece.ids[middle:]),
        Todo(piece.positions[:middle], piece.ids[:middle]),
    ]


def _refused(piece: Todo, message: str) -> ItemException:
    return ItemException(piece.positions[0], wire_id(piece.ids[0]), "failed", "CONSTRAINT", message)


class ExportBatches:
    """Batches that do nothing but write rows into the job's file."""

    def __init__(self, bound: Bound, layout: Layout) -> None:
        self._recorder = Recorder(bound, layout, bound.fit)

    async def begin(self, _: Fence, __: Turn) -> Ahead | None:
        return None

    async def plan(
        self, _: Todo, __: dict[int, Image] | None = None, ___: Sequence[ItemException] = ()
    ) -> Plan:
        return Plan(announce=False)

    async def apply(self, _: Plan, __: Todo, ___: Fence, ____: Turn) -> BatchResult:
        return BatchResult()

    async def recover(
        self, _: Todo, __: bytes, ___: Fence, ____: Turn, _____: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Say that nothing happened: what was written and not accounted for is cut off already."""
        return None

    async def write(self, pen: Pen, todo: Todo) -> list[ItemException]:
        return await self._recorder.write(pen, todo)

    async def close(self, pen: Pen) -> None:
        await self._recorder.close(pen)


class ArchiveBatches(TableBatches):
    """Batches that set the archived status, then write the rows as they stand from then on, children and all."""

    def __init__(self, bound: Bound, layout: Layout) -> None:
        super().__init__(bound)
        # The rows are archived by now, so not fit for it any more: that they are the tenant's must do.
        self._recorder = Recorder(bound, layout, bound.tenant)

    async def write(self, pen: Pen, todo: Todo) -> list[ItemException]:
        return await self._recorder.write(pen, todo)

    async def close(self, pen: Pen) -> None:
        await self._recorder.close(pen)
