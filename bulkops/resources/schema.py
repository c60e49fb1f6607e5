"""What an application's tables look like, asked of SQLite itself.

What comes in: an open connection and a name; what goes out: frozen values with every name in its real
spelling. It only reads, it never guesses at a name (a near miss is a `LookupError` with a suggestion), and
no name reaches a statement unquoted. Callers who need one consistent picture read inside a transaction.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from bulkops.errors import did_you_mean

Kind = Literal["table", "view", "virtual"]
Affinity = Literal["integer", "text", "blob", "real", "numeric"]
Collation = Literal["BINARY", "NOCASE", "RTRIM", "OTHER"]

_ROWID_NAMES: Final = ("rowid", "_rowid_", "oid")
_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
#: A name may hold whatever is not ASCII; what it may not hold is written down, because that compiles in no time.
_TOKEN: Final = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]"""
    r"""|[^\x00-@\[-^`{-\x7f][^\x00-#%-/:-@\[-^`{-\x7f]*|\s+|.""",
    re.DOTALL,
)


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column; ``pk`` is its place in the primary key from 1, 0 outside; ``default`` is SQL text."""

    name: str
    declared: str
    affinity: Affinity
    notnull: bool
    default: str | None
    generated: bool
    pk: int


class ForeignKey(msgspec.Struct, frozen=True, kw_only=True):
    """``table.columns`` names a row of ``parent`` by ``parent_columns``.

    ``parent_columns`` is empty when the parent does not exist. ``on_delete`` is SQLite's word, such as
    ``CASCADE`` or ``NO ACTION``.
    """

    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str
    deferred: bool


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """``event`` is ``DELETE``, ``INSERT``, ``UPDATE``; ``timing`` is ``BEFORE``, ``AFTER``, ``INSTEAD OF``."""

    name: str
    event: str
    timing: str
    sql: str


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """``columns`` holds ``None`` where an expression stands; ``collations`` go with them.

    ``origin`` is ``c`` for CREATE INDEX, ``u`` for UNIQUE, ``pk`` for PRIMARY KEY.
    """

    name: str
    columns: tuple[str | None, ...]
    unique: bool
    partial: bool
    collations: tuple[str, ...]
    origin: str


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table, view or virtual table.

    ``rowid`` is a name that reaches the row's number: ``None`` for WITHOUT ROWID, views, virtual tables and
    where columns shadow all three names. ``integer_key`` is the column that *is* that number.
    """

    name: str
    kind: Kind
    strict: bool
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    rowid: str | None
    integer_key: str | None
    without_rowid: bool
    triggers: tuple[Trigger, ...]
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]
    referenced_by: tuple[ForeignKey, ...]

    def column(self, name: str) -> Column:
        """Return the column of exactly this name.

        Raises:
            LookupError: there is none; the message suggests a near one.

        """
        for column in self.columns:
            if column.name == name:
                return column
        known = [column.name for column in self.columns]
        raise LookupError(f'table "{self.name}" has no column "{name}"{did_you_mean(name, known)}')

    def index_on(self, *columns: str) -> Index | None:
        """Return a full index that begins with these columns in this order, ``None`` without one."""
        wanted = len(columns)
        for index in self.indexes:
            if not index.partial and index.columns[:wanted] == columns:
                return index
        return None


class _Entry(msgspec.Struct, frozen=True):
    """A line of PRAGMA table_list."""

    name: str
    kind: Kind
    without_rowid: bool
    strict: bool


def quote(name: str) -> str:
    """Write an identifier so that SQLite reads it as nothing else.

    Always write it behind an alias (``t."name"``): alone, a misspelled one is a string literal.

    Raises:
        ValueError: the name holds a NUL or is not encodable.

    """
    if "\0" in name:
        raise ValueError(f"the name {name!r} holds a NUL")
    name.encode()
    return '"' + name.replace('"', '""') + '"'


def fold(name: str) -> str:
    """Fold a name as SQLite compares names: ASCII letters only."""
    return name.translate(_ASCII_LOWER)


def affinity_of(declared: str, *, strict: bool = False) -> Affinity:
    """Return a column's affinity from its declared type (sqlite.org/datatype3.html section 3.1)."""
    upper = declared.upper()
    if "INT" in upper:
        return "integer"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if "BLOB" in upper or not upper or (strict and upper == "ANY"):
        return "blob"
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "real"
    return "numeric"


def read_table(connection: sqlite3.Connection, name: str) -> Table:
    """Read one table of the main database, by its exact name.

    Raises:
        LookupError: there is none (SQLite's own and shadow tables do not count); suggests a near one.
        sqlite3.Error: the schema cannot be read.

    """
    entries = _list_entries(connection)
    if name not in entries:
        raise LookupError(f'there is no table "{name}"{did_you_mean(name, list(entries))}')
    links = _read_all_links(connection, entries)
    return _build_table(connection, entries[name], links, _read_triggers(connection))


def read_tables(connection: sqlite3.Connection) -> dict[str, Table]:
    """Read every table, view and virtual table of the main database by name; empty for an empty one.

    SQLite's own tables and shadow tables are left out.

    Raises:
        sqlite3.Error: the schema cannot be read.

    """
    entries = _list_entries(connection)
    links = _read_all_links(connection, entries)
    triggers = _read_triggers(connection)
    return {name: _build_table(connection, entry, links, triggers) for name, entry in entries.items()}


def read_collation(connection: sqlite3.Connection, table: str, column: str) -> Collation:
    """Find out how a column compares texts, by comparing two (no pragma tells).

    Raises:
        sqlite3.OperationalError: the connection lacks the column's collation.

    """
    # UNION keeps the sub-query whole, so that x bears the column's own collation.
    row = connection.execute(
        f"SELECT x = 'A', x = 'a ', x = 'b', x < 'b' FROM "
        f"(SELECT t.{quote(column)} AS x FROM main.{quote(table)} AS t WHERE 0 UNION SELECT 'a')"
    ).fetchone()
    answers: dict[tuple[Any, ...], Collation] = {
        (0, 0, 0, 1): "BINARY",
        (1, 0, 0, 1): "NOCASE",
        (0, 1, 0, 1): "RTRIM",
    }
    return answers.get(tuple(row), "OTHER")


def _pragma(connection: sqlite3.Connection, name: str, argument: str | None = None) -> list[Any]:
    # The pragma statement, not pragma_x(): a table of theirs may be called pragma_x and stand before it.
    suffix = "" if argument is None else f"({quote(argument)})"
    return connection.execute(f"PRAGMA main.{name}{suffix}").fetchall()


def _list_entries(connection: sqlite3.Connection) -> dict[str, _Entry]:
    entries = {}
    listed = sorted(_pragma(connection, "table_list"), key=lambda row: row[1])
    for _, name, kind, _, without_rowid, strict in listed:
        if kind != "shadow" and not fold(name).startswith("sqlite_") and _is_utf8(name):
            entries[name] = _Entry(name, kind, bool(without_rowid), bool(strict))
    return entries


def _is_utf8(name: str) -> bool:
    # A text_factory that lets bad bytes pass as surrogates reads names that no statement can say.
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _build_table(
    connection: sqlite3.Connection,
    entry: _Entry,
    links: list[ForeignKey],
    triggers: list[tuple[str, Trigger]],
) -> Table:
    columns = _read_columns(connection, entry)
    indexes = _read_indexes(connection, entry)
    key = tuple(column.name for column in sorted(columns, key=lambda c: c.pk) if column.pk)
    return Table(
        name=entry.name,
        kind=entry.kind,
        strict=entry.strict,
        columns=columns,
        primary_key=key,
        rowid=_find_rowid(entry, columns),
        integer_key=_find_integer_key(entry, columns, indexes),
        without_rowid=entry.without_rowid,
        triggers=tuple(trigger for table, trigger in triggers if fold(table) == fold(entry.name)),
        indexes=indexes,
        foreign_keys=tuple(link for link in links if link.table == entry.name),
        referenced_by=tuple(link for link in links if fold(link.parent) == fold(entry.name)),
    )


def _read_columns(connection: sqlite3.Connection, entry: _Entry) -> tuple[Column, ...]:
    try:
        rows = _pragma(connection, "table_xinfo", entry.name)
    except sqlite3.OperationalError as error:
        # A view of what is gone, or a module we lack: such a thing has no columns for us, and no job.
        if entry.kind == "table" or error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return ()
    return tuple(_column_from_row(row, strict=entry.strict) for row in rows if row[6] != 1)


def _column_from_row(row: Any, *, strict: bool) -> Column:
    _, name, declared, notnull, default, pk, hidden = row
    return Column(
        name=name,
        declared=declared or "",
        affinity=affinity_of(declared or "", strict=strict),
        notnull=bool(notnull),
        default=default,
        generated=hidden in {2, 3},
        pk=pk,
    )


def _read_indexes(connection: sqlite3.Connection, entry: _Entry) -> tuple[Index, ...]:
    if entry.kind != "table":
        return ()
    return tuple(
        _index_from_rows(row, _pragma(connection, "index_xinfo", row[1]))
        for row in _pragma(connection, "index_list", entry.name)
        if _is_utf8(row[1])
    )


def _index_from_rows(row: Any, parts: list[Any]) -> Index:
    keys = [part for part in parts if part[5]]
    return Index(
        name=row[1],
        columns=tuple(part[2] for part in keys),
        unique=bool(row[2]),
        partial=bool(row[4]),
        collations=tuple(part[4] for part in keys),
        origin=row[3],
    )


def _find_rowid(entry: _Entry, columns: tuple[Column, ...]) -> str | None:
    if entry.kind != "table" or entry.without_rowid:
        return None
    taken = {fold(column.name) for column in columns}
    return next((name for name in _ROWID_NAMES if name not in taken), None)


def _find_integer_key(entry: _Entry, columns: tuple[Column, ...], indexes: tuple[Index, ...]) -> str | None:
    keys = [column for column in columns if column.pk]
    if entry.kind != "table" or entry.without_rowid or len(keys) != 1:
        return None
    # INTEGER PRIMARY KEY DESC is an ordinary column with an index of its own (sqlite.org/lang_createtable).
    has_index = any(index.origin == "pk" for index in indexes)
    return keys[0].name if keys[0].declared.upper() == "INTEGER" and not has_index else None


def _read_all_links(connection: sqlite3.Connection, entries: dict[str, _Entry]) -> list[ForeignKey]:
    """Read every foreign key of the database, parents and columns in their real spelling."""
    tables = {fold(name): entry for name, entry in entries.items() if entry.kind == "table"}
    links = []
    for entry in tables.values():
        rows = _pragma(connection, "foreign_key_list", entry.name)
        deferred = _read_deferred(connection, entry.name) if rows else []
        links += [
            _link_from_rows(connection, entry.name, group, deferred, tables) for group in _group_rows(rows)
        ]
    return links


def _group_rows(rows: list[Any]) -> list[list[Any]]:
    groups: dict[int, list[Any]] = {}
    for row in sorted(rows, key=lambda r: (r[0], r[1])):
        groups.setdefault(row[0], []).append(row)
    return list(groups.values())


def _link_from_rows(
    connection: sqlite3.Connection,
    table: str,
    rows: list[Any],
    deferred: list[bool],
    tables: dict[str, _Entry],
) -> ForeignKey:
    number, _, parent, _, _, _, on_delete, _ = rows[0]
    entry = tables.get(fold(parent))
    named = [row[4] for row in rows if row[4] is not None]
    return ForeignKey(
        table=table,
        columns=tuple(row[3] for row in rows),
        parent=entry.name if entry else parent,
        parent_columns=_resolve_parent_columns(connection, entry, named) if entry else (),
        on_delete=on_delete.upper(),
        # Keys are numbered from the last one declared; a text that cannot be read counts as deferred,
        # which only makes callers look at COMMIT too.
        deferred=deferred[-1 - number] if number < len(deferred) else True,
    )


def _resolve_parent_columns(
    connection: sqlite3.Connection, parent: _Entry, named: list[str]
) -> tuple[str, ...]:
    columns = _read_columns(connection, parent)
    if not named:
        return tuple(column.name for column in sorted(columns, key=lambda c: c.pk) if column.pk)
    real = {fold(column.name): column.name for column in columns}
    return tuple(real.get(fold(name), name) for name in named)


_TABLE_SQL = "SELECT m.sql FROM main.sqlite_master AS m WHERE m.type = 'table' AND m.name = :name"


def _read_deferred(connection: sqlite3.Connection, table: str) -> list[bool]:
    """Say for each foreign key, in the order declared, whether it is INITIALLY DEFERRED (no pragma tells)."""
    row = connection.execute(_TABLE_SQL, {"name": table}).fetchone()
    found: list[bool] = []
    clause: list[str] = []
    for word in _tokens(row[0] if row and row[0] else ""):
        if word == "REFERENCES":
            found.append(False)
            clause = []
        elif found:
            clause.append(word)
            if clause[-3:] == ["DEFERRABLE", "INITIALLY", "DEFERRED"]:
                found[-1] = clause[-4:-3] != ["NOT"]
    return found


def _tokens(sql: str) -> Iterator[str]:
    """Yield the tokens of a statement: bare words in upper case, quoted ones as they are, no comments."""
    for token in _TOKEN.findall(sql):
        if token.isspace() or token.startswith(("--", "/*")):
            continue
        yield token.upper()


_TRIGGERS = (
    "SELECT m.tbl_name, m.name, m.sql FROM main.sqlite_master AS m WHERE m.type = 'trigger' ORDER BY m.rowid"
)


def _read_triggers(connection: sqlite3.Connection) -> list[tuple[str, Trigger]]:
    found = []
    for table, name, sql in connection.execute(_TRIGGERS).fetchall():
        timing, event = _read_moment(sql)
        found.append((table, Trigger(name=name, event=event, timing=timing, sql=sql)))
    return found


def _read_moment(sql: str) -> tuple[str, str]:
    # SQLite keeps the text as CREATE TRIGGER <name> …: the moment begins at the fourth token.
    words = list(_tokens(sql))[3:6]
    if words[:1] == ["INSTEAD"]:
        return "INSTEAD OF", words[2]
    if words[:1] in (["BEFORE"], ["AFTER"]):
        return words[0], words[1]
    return "BEFORE", words[0] if words else ""
