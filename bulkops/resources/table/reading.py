"""What a batch will take, read before anything is touched: rows, before-images, files.

Everything is read in one transaction, with the version of the file it is true of.
"""

from __future__ import annotations

import marshal
import sqlite3
import zlib
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

import msgspec

from bulkops.effects import FileTaken, Id, Image, ItemException, Plan, Todo
from bulkops.errors import ItemRefused
from bulkops.ids import wire_id
from bulkops.resources.paths import Identity, Refused
from bulkops.resources.schema import quote
from bulkops.resources.table import images
from bulkops.resources.table.bound import Bound, SchemaWatch, Seen, conflict, without
from bulkops.resources.table.images import fetch
from bulkops.resources.table.keys import encode_ids, hashable
from bulkops.resources.target import data_version
from bulkops.settings import ChildSettings
from bulkops.shapes import whole

#: Rows by manifest position: the id, and the values selected as the table's shape.
Rows = dict[int, tuple[Id, Sequence[Any]]]
#: A file that goes with an item: the item's position, the storage, the path.
NamedFile = tuple[int, str, bytes]
#: As much of a long value goes into a row's print.
_PRINTED: Final = 64
#: Of the oldest format, which every Python writes alike.
_MARSHAL: Final = 2


class Announcement(msgspec.Struct, frozen=True):
    """What recovery needs to know of a batch: who was not to be touched, and of rows to be deleted their prints.

    ``prints`` are those of the items that were, in their order.
    """

    untouched: list[ItemException]
    prints: list[int]


class Reader:
    """Reads for one bound action; its methods run in the thread of the target's write connection."""

    def __init__(self, bound: Bound, schema: SchemaWatch) -> None:
        self._bound = bound
        self._schema = schema

    @property
    def keeps_images(self) -> bool:
        """Say whether every item of this action leaves an image."""
        act = self._bound.act
        return act.reversible and bool(act.deletes or act.remember or act.children)

    @property
    def has_files(self) -> bool:
        """Say whether files go with the items."""
        act = self._bound.act
        own = self._bound.own_file is not None and act.hides
        return own or any(child.file for child in act.children)

    def look(self, connection: sqlite3.Connection, todo: Todo) -> Plan:
        connection.execute("BEGIN")
        try:
            self._schema.check(connection)
            version = (data_version(connection), self._bound.target.turns)
            return self._read_rows(connection, todo, version)
        finally:
            connection.execute("ROLLBACK")

    def _read_rows(self, connection: sqlite3.Connection, todo: Todo, version: tuple[int, int]) -> Plan:
        if self._is_unremarkable(connection, todo):
            return Plan(announce=True, data=announce([]), state=Seen(version=None, todo=todo))
        if self._told_apart and not self.keeps_images and not self.has_files:
            prints = self.prints(connection, todo)
            if len(prints) == len(todo.ids):
                return Plan(announce=True, data=announce([], prints), state=Seen(version=None, todo=todo))
        rows = self.fit_rows(connection, todo)
        unfit = [
            conflict(position, item)
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position not in rows
        ]
        kept, refused = self.images_for(connection, rows)
        named = self.named_files(connection, {p: rows[p] for p in rows if p not in refused})
        files, refused_paths = self._identified(named)
        bad = refused | refused_paths
        exceptions = unfit + [
            ItemException(p, wire_id(rows[p][0]), error.outcome, error.code, error.message)
            for p, error in bad.items()
        ]
        taken = without(todo, {each.position for each in exceptions})
        shown = [image for image in kept if image.position not in bad]
        told_apart = self.prints(connection, taken) if self._told_apart else None
        return Plan(
            announce=True,
            data=announce(exceptions, told_apart),
            images=shown,
            files=files,
            exceptions=exceptions,
            state=Seen(
                version=None if self._bound.act.final and not self.has_files else version,
                todo=taken,
                images=shown,
                files=[each for each in named if each[0] not in bad],
            ),
        )

    @property
    def _told_apart(self) -> bool:
        """Say whether recovery has to know a row again: one that is made after a delete may get its id."""
        return self._bound.act.deletes and not self._bound.ledger

    def prints(self, connection: sqlite3.Connection, todo: Todo) -> dict[int, int]:
        """Take the print of each row that is fit, by position: a row that was changed or made anew has another."""
        bound = self._bound
        shape = images.shape_of(bound.table)
        columns = [
            f"substr(t.{quote(name)}, 1, {_PRINTED})"
            if name not in shape.identity and bound.table.column(name).affinity in ("text", "blob")
            else f"t.{quote(name)}"
            for name in shape.columns
        ]
        fit, width = bound.fit, len(bound.key.names)
        sql = (
            f"SELECT {bound.key.select}, {', '.join(columns)} FROM {quote(bound.table.name)} AS t"
            f" WHERE {bound.key.match} AND {fit.sql}"
        )
        rows = fetch(connection, sql, {**fit.params, "ids": encode_ids(todo.ids)})
        # Without a line of Python for each row: it is on the way of every delete that keeps no ledger.
        marks = map(zlib.crc32, map(marshal.dumps, rows, repeat(_MARSHAL)))
        if width == 1 and [row[0] for row in rows] == todo.ids:
            return dict(zip(todo.positions, marks, strict=True))
        places = {hashable(item): position for position, item in zip(todo.positions, todo.ids, strict=True)}
        found = zip((places.get(hashable(bound.key.native(row))) for row in rows), marks, strict=True)
        return {position: mark for position, mark in found if position is not None}

    def _is_unremarkable(self, connection: sqlite3.Connection, todo: Todo) -> bool:
        """Say whether every row is fit and nothing of it has to be remembered: the fast way."""
        if self.keeps_images or self.has_files or self._told_apart:
            return False
        fit = self._bound.fit
        sql = f"SELECT count(*) FROM {quote(self._bound.table.name)} AS t WHERE {self._bound.key.match} AND {fit.sql}"
        # Undo gives back what a live row usually holds; a row that holds something else needs an image.
        prior = self._bound.act.prior
        usual = "".join(f" AND t.{quote(name)} IS :prior{index}" for index, name in enumerate(prior))
        held = {f"prior{index}": value for index, value in enumerate(prior.values())}
        parameters = {**fit.params, **held, "ids": encode_ids(todo.ids)}
        found = connection.execute(sql + usual, parameters).fetchone()[0]
        return bool(found == len(todo.ids))

    def fit_rows(self, connection: sqlite3.Connection, todo: Todo) -> Rows:
        bound = self._bound
        shape = images.shape_of(bound.table)
        fit = bound.fit
        sql = (
            f"SELECT {bound.key.select}, {shape.select} FROM {quote(bound.table.name)} AS t"
            f" WHERE {bound.key.match} AND {fit.sql}"
        )
        places = {hashable(item): position for position, item in zip(todo.positions, todo.ids, strict=True)}
        width = len(bound.key.names)
        found: Rows = {}
        for row in fetch(connection, sql, {**fit.params, "ids": encode_ids(todo.ids)}):
            item = bound.key.native(row)
            position = places.get(hashable(item))
            if position is not None:
                found[position] = (item, row[width:])
        return dict(sorted(found.items()))

    def images_for(
        self, connection: sqlite3.Connection, rows: Rows
    ) -> tuple[list[Image], dict[int, ItemRefused]]:
        """Build the items' images; too large together, they are built one by one: one item pays alone."""
        if not self._bound.act.reversible:
            return [], {}
        try:
            return self._images_of(connection, rows), {}
        except ItemRefused:
            kept: list[Image] = []
            refused: dict[int, ItemRefused] = {}
            for position, row in rows.items():
                try:
                    kept += self._images_of(connection, {position: row})
                except ItemRefused as error:
                    refused[position] = error
            return kept, refused

    def _images_of(self, connection: sqlite3.Connection, rows: Rows) -> list[Image]:
        bound = self._bound
        shape = images.shape_of(bound.table)
        own = [(position, shape.record(values)) for position, (_, values) in rows.items()]
        closure = images.Closure(connection, bound.tables, own, keep_own=bound.act.deletes)
        for child in bound.act.children:
            closure.take_children(bound.child_link(child), cascade=bound.foreign_keys)
        if bound.act.deletes and bound.foreign_keys:
            closure.cascade()
        for position, record in own:
            changed = self._changed(shape, record)
            if changed is not None:
                closure.images[position].insert(0, changed)
        return [
            Image(
                position,
                wire_id(rows[position][0]),
                self._label_of(shape, record, rows[position][0]),
                bound.act.hides,
                images.encode(closure.images[position]),
            )
            for position, record in own
            if closure.images[position]
        ]

    def _changed(self, shape: images.Shape, record: images.Record) -> images.Record | None:
        """Note what an update will overwrite, unless undo knows it anyway."""
        act = self._bound.act
        if act.deletes:
            return None
        held = dict(zip(shape.columns, record.values, strict=True))
        columns = [
            name for name in act.assign
            if name in act.remember or (name in act.prior and held[name] != act.prior[name])
        ]  # fmt: skip
        if not columns:
            return None
        before = [held[name] for name in columns]
        after = [act.assign[name] for name in columns]
        return images.Record("set", self._bound.table.name, record.key, columns, before, after)

    def _label_of(self, shape: images.Shape, record: images.Record, item: Id) -> str:
        name = self._bound.label
        if name is None or name not in shape.columns:
            return wire_id(item)
        value = record.values[shape.columns.index(name)]
        return wire_id(item) if value is None or isinstance(value, (dict, bytes)) else str(value)[:200]

    def named_files(self, connection: sqlite3.Connection, rows: Rows) -> list[NamedFile]:
        """Find the files that go with the rows."""
        bound = self._bound
        named: list[NamedFile] = []
        if bound.own_file is not None and bound.act.hides:
            column = f"t.{quote(bound.own_file)}"
            named += self._named_by(connection, rows, bound.resource, _paths_sql(bound, column))
        for child in bound.act.children:
            if child.file is not None:
                storage = f"{bound.resource}.{child.table}"
                named += self._named_by(connection, rows, storage, _child_paths_sql(bound, child))
        return named

    def _named_by(
        self, connection: sqlite3.Connection, rows: Rows, storage: str, sql: str
    ) -> list[NamedFile]:
        places = {hashable(item): position for position, (item, _) in rows.items()}
        width = len(self._bound.key.names)
        parameters = {"ids": encode_ids([item for item, _ in rows.values()])}
        found = []
        for row in fetch(connection, sql, parameters):
            position = places.get(hashable(self._bound.key.native(row)))
            if position is not None and row[width]:
                found.append((position, storage, bytes(row[width])))
        return found

    def _identified(self, named: list[NamedFile]) -> tuple[list[FileTaken], dict[int, ItemRefused]]:
        """Take down the identity each file has now; odd paths refuse the item."""
        refused: dict[int, ItemRefused] = {}
        files: list[FileTaken] = []
        for storage in dict.fromkeys(name for _, name, _ in named):
            mine = [(position, path) for position, name, path in named if name == storage]
            for (position, path), seen in zip(
                mine, self._identify(storage, [path for _, path in mine]), strict=True
            ):
                if isinstance(seen, Refused):
                    refused[position] = ItemRefused(
                        "failed", "REFUSED_PATH", f"its file's path is refused: {seen.code}"
                    )
                    continue
                identity = None if seen is None else (seen.dev, seen.ino, seen.size, seen.mtime_ns)
                files.append(FileTaken(position, storage, path, identity, self._bound.act.final))
        return [each for each in files if each.position not in refused], refused

    def _identify(self, storage: str, paths: list[bytes]) -> Sequence[Identity | Refused | None]:
        local = self._bound.storages.get(storage)
        return [None] * len(paths) if local is None else local.identify_many(paths)


def announce(untouched: list[ItemException], prints: dict[int, int] | None = None) -> bytes:
    """Write what recovery needs to know: the items that were not to be touched, and the prints of the others."""
    if prints is None:
        return msgspec.msgpack.encode(untouched)
    return msgspec.msgpack.encode(Announcement(untouched, [prints[position] for position in sorted(prints)]))


def announce_also(data: bytes, untouched: list[ItemException]) -> bytes:
    """Add items that are not to be touched either; nothing was announced of them."""
    found = _read(data)
    if isinstance(found, Announcement):
        return msgspec.msgpack.encode(Announcement(untouched + found.untouched, found.prints))
    return announce(untouched + found)


def announced(data: bytes) -> list[ItemException]:
    """Read the items that were not to be touched out of what `announce` wrote."""
    found = _read(data)
    return found.untouched if isinstance(found, Announcement) else found


def printed(data: bytes) -> list[int] | None:
    """Read the prints of the items that were, ``None`` when none were taken."""
    found = _read(data)
    return found.prints if isinstance(found, Announcement) else None


def _read(data: bytes) -> list[ItemException] | Announcement:
    if not data:
        return []
    found: list[ItemException] | Announcement
    found = msgspec.msgpack.decode(data, type=whole(list[ItemException] | Announcement))
    return found


def child_match(bound: Bound, child: ChildSettings) -> str:
    """Return the condition of the rows of a child table ``t`` that belong to the ids."""
    columns = [f"t.{quote(name)}" for name in bound.child_link(child).columns]
    if len(columns) == 1:
        return f"{columns[0]} IN (SELECT value FROM json_each(:ids))"
    parts = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(len(columns)))
    return f"({', '.join(columns)}) IN (SELECT {parts} FROM json_each(:ids))"


def _paths_sql(bound: Bound, column: str) -> str:
    return (
        f"SELECT {bound.key.select}, CAST({column} AS BLOB) FROM {quote(bound.table.name)} AS t"
        f" WHERE {bound.key.match}"
    )


def _child_paths_sql(bound: Bound, child: ChildSettings) -> str:
    columns = ", ".join(f"t.{quote(name)}" for name in bound.child_link(child).columns)
    assert child.file is not None
    return (
        f"SELECT {columns}, CAST(t.{quote(child.file)} AS BLOB) FROM {quote(child.table)} AS t"
        f" WHERE {child_match(bound, child)}"
    )
