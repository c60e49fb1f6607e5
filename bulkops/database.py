"""The one opener of SQLite connections, and the thread each of them lives in.

What comes in: a path and how strict to be; what goes out: a connection whose durability, limits and
transaction mode are set and read back. A unit of work is **one function** that runs in the
connection's thread; cancelling whoever waits for it never abandons it half-way.
Nothing here may know a table, ours or theirs.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiosqlite

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5000
_THREAD_ENDS_S: Final = 1.0
#: Errors after which a connection is not to be trusted any more.
_UNTRUSTED: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_CANTOPEN,
    }
)


#: What brings an SQLite of its own into the process.
_OTHER_LIBRARIES: Final = ("apsw", "pysqlite3", "sqlcipher3", "pysqlcipher3")


def other_library() -> str | None:
    """Name a second SQLite library in this process, ``None`` without one.

    Two that open the same file drop each other's locks when they close it: commits are lost without an error.
    """
    return next((name for name in _OTHER_LIBRARIES if sys.modules.get(name, sqlite3) is not sqlite3), None)


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code of an error, 0 when the driver gave none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_untrusted(error: sqlite3.Error) -> bool:
    """Say whether the connection that raised this must be closed and its outcome re-read."""
    return primary_code(error) in _UNTRUSTED


def open_connection(
    path: Path,
    *,
    readonly: bool = False,
    create: bool = False,
    foreign_keys: bool = True,
    autocheckpoint: bool = True,
    busy_timeout_ms: int = BUSY_TIMEOUT_MS,
) -> sqlite3.Connection:
    """Open ``path`` in autocommit mode with every safety setting made explicitly and read back.

    The application's ``journal_mode`` is never changed here.

    Raises:
        sqlite3.Error: the file cannot be opened (it is never created unless ``create``).
        RuntimeError: a setting did not hold.

    """
    mode = "ro" if readonly else "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        _apply_settings(
            connection, readonly=readonly, foreign_keys=foreign_keys, busy_timeout_ms=busy_timeout_ms
        )
        if readonly or not autocheckpoint:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _apply_settings(
    connection: sqlite3.Connection, *, readonly: bool, foreign_keys: bool, busy_timeout_ms: int
) -> None:
    wanted = {
        "busy_timeout": busy_timeout_ms,
        "synchronous": 2,
        "temp_store": 2,
        "mmap_size": 0,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "foreign_keys": int(foreign_keys),
        "query_only": int(readonly),
    }
    if sys.platform == "darwin":
        wanted |= {"fullfsync": 1, "checkpoint_fullfsync": 1}
    for name, value in wanted.items():
        connection.execute(f"PRAGMA {name} = {value}")
        row = connection.execute(f"PRAGMA {name}").fetchone()
        if row is not None and row[0] != value:
            raise RuntimeError(f"PRAGMA {name} is {row[0]}, wanted {value}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DDL, False)


def open_scratch() -> sqlite3.Connection:
    """Open a private database that lives in a temporary file and is gone with its connection."""
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = 1", "cache_size = -4096"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return ``(device, inode)`` by path, never opening the file; ``None`` when it is not there.

    Opening a database file outside SQLite drops its locks on close.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def begin_immediate(
    connection: sqlite3.Connection, *, deadline_s: float, stop: Callable[[], bool] = lambda: False
) -> None:
    """Begin a write transaction; wait for other writers in short turns so that ``stop`` is heard.

    Raises:
        sqlite3.OperationalError: (SQLITE_BUSY) the deadline passed, or ``stop()`` became true.

    """
    until = time.monotonic() + deadline_s
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if stop() or time.monotonic() >= until:
                raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Leave whatever transaction is open; an error while doing so changes nothing."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            return


class Database:
    """A connection in a thread of its own; ``run`` hands it one function at a time, in order."""

    def __init__(self, opener: Callable[[], sqlite3.Connection]) -> None:
        self._opener = opener
        self._connection: aiosqlite.Connection | None = None
        self._closed = False
        self._opening = asyncio.Lock()

    @classmethod
    async def open(cls, opener: Callable[[], sqlite3.Connection]) -> Database:
        """Open through ``opener``, called in the new thread.

        Raises:
            sqlite3.Error: whatever the opener raises; no thread is left behind.

        """
        database = cls(opener)
        await database._connect()
        return database

    async def _connect(self) -> aiosqlite.Connection:
        connection = aiosqlite.Connection(self._opener, 64)
        try:
            self._connection = await connection
        except BaseException:
            # Its thread is told to end but not waited for, and would still knock at a loop that may be closed.
            connection._thread.join(_THREAD_ENDS_S)  # noqa: SLF001  aiosqlite has no public way
            raise
        return self._connection

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work(connection)`` in the thread and return what it returns.

        Cancelled while waiting, this still waits for ``work`` to end, honours nothing of it, and only
        then raises: no write lock leaks and no two tasks meet inside a transaction.

        Raises:
            Exception: what ``work`` raises, or the opener where a `reopen` failed before.
            ValueError: the database is closed.

        """
        connection = self._connection
        if connection is None:
            async with self._opening:  # somebody is just at it, or failed before
                if self._closed:
                    raise ValueError("the database is closed")
                connection = self._connection or await self._connect()
        return await _finish(asyncio.ensure_future(_execute(connection, work)))

    async def reopen(self) -> None:
        """Replace the connection after an error that makes its state unknown.

        Raises:
            sqlite3.Error: it cannot be opened now; the next `run` tries again.

        """
        async with self._opening:
            await self._disconnect()
            if not self._closed:
                await self._connect()

    async def close(self) -> None:
        """Close the connection and end its thread; closing twice is fine."""
        self._closed = True
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _finish(asyncio.ensure_future(connection.close()))


async def _execute(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    # aiosqlite has no public way to run a whole function in its thread; a test holds this one line.
    raw: Any = connection
    result: T = await raw._execute(lambda: work(raw._conn))  # noqa: SLF001  aiosqlite has no public way
    return result


async def _finish(future: asyncio.Future[T]) -> T:
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            if future.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001, S110  raised again below, from the future itself
            pass
    if cancelled is not None:
        future.exception()
        raise cancelled
    return future.result()
