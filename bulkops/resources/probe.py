"""Bounded questions to an application's database: each is answered, or says that there was no time.

What comes in: the path of a database never seen before; what goes out: a read-only connection, and small
answers about what its columns hold. It never writes, never holds a read transaction longer than one
question, and never reads a big table to its end: the application may be at work on it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bulkops.database import open_connection, primary_code, roll_back
from bulkops.errors import ConfigError
from bulkops.resources.schema import Table, quote, read_tables

DEADLINE_S: Final = 2.0
_SAMPLE: Final = 10_000
_MAX_WORDS: Final = 50
_MAX_BROKEN: Final = 1000
_PROGRESS_STEPS: Final = 20_000
_SENTENCES: Final = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database, or it is encrypted",
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; may this user read it and its folder?",
    sqlite3.SQLITE_PERM: "cannot be opened: permission denied",
}


@contextmanager
def reading(database: Path, *, foreign_keys: bool = True) -> Iterator[sqlite3.Connection]:
    """Open a database for reading, texts decoded so that a byte that is no UTF-8 survives.

    Without ``foreign_keys`` statements are explained as they run where those are off.

    Raises:
        ConfigError: (naming the path) it is not there, empty, no database, or cannot be read.

    """
    _check_file(database)
    try:
        connection = open_connection(database, readonly=True, foreign_keys=foreign_keys)
    except sqlite3.Error as error:
        raise explain(database, error) from error
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        connection.execute("SELECT count(*) FROM main.sqlite_master").fetchone()
        yield connection
    except sqlite3.Error as error:
        raise explain(database, error) from error
    finally:
        connection.close()


def _check_file(database: Path) -> None:
    # By path only: opening the file outside SQLite would drop its locks.
    try:
        size = os.stat(database).st_size
    except OSError as error:
        raise ConfigError(str(database), f"cannot be found: {error.strerror}") from error
    if database.is_dir():
        raise ConfigError(str(database), "is a folder; an SQLite database is a file")
    if size == 0:
        raise ConfigError(str(database), "is empty: no application has made its tables in it yet")


def explain(database: Path, error: sqlite3.Error) -> ConfigError:
    """Say what an SQLite error means to whoever named the file."""
    sentence = _SENTENCES.get(primary_code(error))
    return ConfigError(str(database), sentence or f"cannot be read: {error}")


def read_schema(connection: sqlite3.Connection) -> dict[str, Table]:
    """Read all tables in one read transaction; those with names that are no UTF-8 are left out."""
    connection.execute("BEGIN")
    try:
        tables = read_tables(connection)
    finally:
        roll_back(connection)
    return {name: table for name, table in tables.items() if _is_unicode(table)}


def _is_unicode(table: Table) -> bool:
    return all(
        not "\ud800" <= character <= "\udfff"
        for name in (table.name, *(column.name for column in table.columns))
        for character in name
    )


def ask(
    connection: sqlite3.Connection,
    sql: str,
    parameters: Sequence[Any] = (),
    *,
    deadline_s: float = DEADLINE_S,
) -> list[Any] | None:
    """Run one query to its end; ``None`` when that takes longer than ``deadline_s``.

    Raises:
        sqlite3.Error: any other error.

    """
    until = time.monotonic() + deadline_s
    connection.set_progress_handler(lambda: time.monotonic() > until, _PROGRESS_STEPS)
    try:
        return connection.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def has_null(connection: sqlite3.Connection, table: Table, column: str) -> bool | None:
    """Say whether any row holds NULL in a column."""
    rows = ask(
        connection,
        f"SELECT 1 FROM main.{quote(table.name)} AS t WHERE t.{quote(column)} IS NULL LIMIT 1",
    )
    return None if rows is None else bool(rows)


def value_kinds(connection: sqlite3.Connection, table: Table, column: str) -> frozenset[str] | None:
    """Name the storage classes of a column, NULL aside, as far as its first rows and both its ends tell.

    Numbers sort before texts before blobs, so two ends of two kinds are a mixture (datatype3, 4.1).
    """
    source, name = f"main.{quote(table.name)} AS t", f"t.{quote(column)}"
    rows = ask(
        connection,
        f"SELECT typeof(x.v) FROM (SELECT {name} AS v FROM {source} LIMIT {_SAMPLE}) AS x"
        f" UNION SELECT typeof(x.v) FROM (SELECT min({name}) AS v FROM {source}) AS x"
        f" UNION SELECT typeof(x.v) FROM (SELECT max({name}) AS v FROM {source}) AS x",
    )
    return None if rows is None else frozenset(row[0] for row in rows) - {"null"}


def some_words(connection: sqlite3.Connection, table: Table, column: str) -> list[str] | None:
    """List distinct texts of a column among its first and last rows, at most fifty, sorted."""
    source, name = f"main.{quote(table.name)} AS t", f"t.{quote(column)} AS v"
    parts = [f"SELECT * FROM (SELECT {name} FROM {source} LIMIT {_SAMPLE})"]
    if table.rowid is not None:
        parts.append(
            f"SELECT * FROM (SELECT {name} FROM {source} ORDER BY t.{table.rowid} DESC LIMIT {_SAMPLE})"
        )
    either = " UNION ".join(parts)
    rows = ask(
        connection,
        f"SELECT DISTINCT x.v FROM ({either}) AS x WHERE typeof(x.v) = 'text' ORDER BY 1 LIMIT {_MAX_WORDS}",
    )
    return None if rows is None else [row[0] for row in rows]


def count_broken_links(connection: sqlite3.Connection, table: str) -> int | None:
    """Count rows of a table whose foreign key names nothing, up to a thousand.

    Raises:
        sqlite3.Error: the foreign keys do not fit their parents at all.

    """
    until = time.monotonic() + DEADLINE_S
    connection.set_progress_handler(lambda: time.monotonic() > until, _PROGRESS_STEPS)
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA main.foreign_key_check({quote(table)})")
        return len(cursor.fetchmany(_MAX_BROKEN))
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        cursor.close()
        connection.set_progress_handler(None, 0)


def try_statement(connection: sqlite3.Connection, sql: str) -> str | None:
    """Have SQLite prepare a statement without running it; return its complaint, ``None`` when it has none.

    Functions, collations and modules that triggers, indexes or checks use, and this connection lacks, show
    here.

    Raises:
        sqlite3.Error: it is not the statement's fault.

    """
    try:
        connection.execute(f"EXPLAIN {sql}").close()
    except sqlite3.OperationalError as error:
        if not is_about_schema(error):
            raise
        return str(error)
    return None


def is_about_schema(error: sqlite3.Error) -> bool:
    """Say whether an error means that SQLite cannot make sense of a table or statement."""
    return primary_code(error) == sqlite3.SQLITE_ERROR


def delete_sql(table: Table) -> str:
    """Write the statement that shows what a delete needs; to be prepared, never run."""
    return f"DELETE FROM main.{quote(table.name)}"


def insert_sql(table: Table) -> str:
    """Write the statement that shows what putting a row back needs; to be prepared, never run."""
    plain = [quote(column.name) for column in table.columns if not column.generated]
    values = ", ".join(["NULL"] * len(plain))
    return f"INSERT INTO main.{quote(table.name)} ({', '.join(plain)}) VALUES ({values})"
