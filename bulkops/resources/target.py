"""An application's database file: one write connection whose turns are taken in a lane, a few readers.

What comes in: functions to run on a connection; what goes out: their results, or a `Halt` that says why
the file cannot be worked on now. It never changes the file's journal mode, and never opens the file but
through SQLite.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import anyio

from bulkops.database import (
    Database,
    begin_immediate,
    file_identity,
    is_untrusted,
    open_connection,
    primary_code,
    roll_back,
)
from bulkops.errors import Halt, Transient
from bulkops.resources.lane import Lane

T = TypeVar("T")

READ_DEADLINE_S: Final = 2.0
_LOCK_WAIT_S: Final = 5.0
_READERS: Final = 2
_SHORT_GAP_S: Final = 0.005
_HOLD_S: Final = 0.025
#: While others write the file too: their patience comes in steps, and a step missed is a turn missed.
_POLITE_HOLD_S: Final = 0.01
_FOREIGN_MEMORY_S: Final = 5.0
_CHECKPOINT_EVERY_S: Final = 0.4
#: So much of a WAL may wait for a reader who holds on to an old moment; beyond, the disk would fill up.
_MAX_WAL_BYTES: Final = 64 * 1024 * 1024
_PROGRESS_STEPS: Final = 20_000


class CommitUnknownError(Exception):
    """COMMIT raised something that does not say whether it happened; only the file knows."""


class DeadlineError(Transient):
    """A read took longer than it may."""

    def __init__(self) -> None:
        super().__init__("IO_ERROR", "reading the database took too long")


def translate(error: sqlite3.Error, path: Path) -> Halt:
    """Say what an SQLite error means for a job: worth trying again, or a reason to pause."""
    code = primary_code(error)
    name = f"{path.name}: {error}"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Transient("TARGET_LOCKED", f"{path.name} is locked by another process")
    if code == sqlite3.SQLITE_FULL:
        return Transient("DISK_FULL", name)
    if code == sqlite3.SQLITE_NOTADB:
        return Halt("TARGET_REPLACED", name)
    if code == sqlite3.SQLITE_CANTOPEN and file_identity(path) is None:
        return Halt("TARGET_REPLACED", f"{path.name} is not there")
    if code in (sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR):
        return Halt("SCHEMA_CHANGED", name)
    return Transient("IO_ERROR", name)


class _Reader:
    """A connection that reads, and the file it has open."""

    def __init__(self, database: Database, identity: tuple[int, int] | None) -> None:
        self.database = database
        self._identity = identity

    @classmethod
    async def open(cls, path: Path) -> _Reader:
        identity = file_identity(path)
        return cls(await Database.open(lambda: open_connection(path, readonly=True)), identity)

    async def follow(self, path: Path) -> None:
        """Open what stands at the path, when that is another file by now."""
        standing = file_identity(path)
        if standing not in (None, self._identity):
            await self.database.reopen()
            self._identity = standing


class Target:
    """One database file; opened on first use, all its write turns taken one after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = False
        #: Counts our own write turns: with SQLite's data_version it tells whether anything changed.
        self.turns = 0
        self._identity: tuple[int, int] | None = None
        self._accepted = False
        self._writer: Database | None = None
        self._readers: list[_Reader] = []
        self._free: list[_Reader] = []
        self._vacancy = anyio.Semaphore(_READERS)
        self._opening = asyncio.Lock()
        self._lane = Lane()
        self._open_until = 0.0
        self._data_version = -1
        self._checkpointed = 0.0
        self._wal_bytes = 0
        self._foreign_seen = float("-inf")
        self._doubtful = False

    @property
    def foreign_writer(self) -> bool:
        """Say whether another process wrote the file within the last seconds."""
        return time.monotonic() - self._foreign_seen < _FOREIGN_MEMORY_S

    async def open(self) -> None:
        """Open the connections unless they are.

        Raises:
            Halt: the file is not there, or cannot be opened.
        """
        async with self._opening:
            if self._writer is not None:
                return
            try:
                writer = await Database.open(
                    lambda: open_connection(self.path, autocheckpoint=False, busy_timeout_ms=100)
                )
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            try:
                while len(self._readers) < _READERS:
                    reader = await _Reader.open(self.path)
                    self._readers.append(reader)
                    self._free.append(reader)
                self.wal = await writer.run(_journal_mode) == "wal"
            except sqlite3.Error as error:
                await writer.close()
                raise translate(error, self.path) from error
            # The first file stays the one that is meant, also when its connection had to be opened again.
            self._identity = self._identity or file_identity(self.path)
            self._writer = writer

    async def close(self) -> None:
        """Close every connection; one that was never opened is fine."""
        for reader in self._readers:
            await reader.database.close()
        if self._writer is not None:
            await self._writer.close()
        self._readers, self._free, self._writer = [], [], None

    def accept_replacement(self) -> None:
        """Let the next turn take the file that stands at the path by then; until then it stays with the first."""
        self._accepted = True

    async def read(
        self, work: Callable[[sqlite3.Connection], T], *, deadline_s: float = READ_DEADLINE_S
    ) -> T:
        """Run ``work`` on a reader inside one read transaction, of the file that stands at the path now.

        Raises:
            DeadlineError: it took longer than ``deadline_s``.
            Halt: the file cannot be read now.
        """
        await self.open()

        def unit(connection: sqlite3.Connection) -> T:
            until = time.monotonic() + deadline_s
            connection.set_progress_handler(lambda: time.monotonic() > until, _PROGRESS_STEPS)
            try:
                connection.execute("BEGIN")
                return work(connection)
            finally:
                connection.set_progress_handler(None, 0)
                roll_back(connection)

        async with self._vacancy:
            reader = self._free.pop()
            try:
                await reader.follow(self.path)
                return await reader.database.run(unit)
            except sqlite3.Error as error:
                if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                    raise DeadlineError from error
                raise translate(error, self.path) from error
            finally:
                self._free.append(reader)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Database]:
        """Open a connection with a read transaction that lasts: for freezing a manifest."""
        await self.open()
        database = await Database.open(lambda: open_connection(self.path, readonly=True))
        try:
            await database.run(lambda connection: connection.execute("BEGIN").close())
            yield database
        finally:
            await database.run(roll_back)
            await database.close()

    async def plan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read on the write connection, outside any transaction, so that its data_version counts.

        Raises:
            Halt: the file cannot be read now.
        """
        await self.open()
        writer = self._writer
        assert writer is not None
        try:
            if self._doubtful:
                await writer.run(_overwrite_doubtful_commit)
                self._doubtful = False
            return await writer.run(work)
        except sqlite3.Error as error:
            await self._after_error(error)
            raise translate(error, self.path) from error

    async def turn(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        foreign_keys: bool,
        gap: Callable[[float], float],
        stop: Callable[[], bool],
        commit_guard: Callable[[], bool] = lambda: True,
        items: int = 0,
    ) -> tuple[T, float]:
        """Take a turn in the lane: BEGIN IMMEDIATE, ``work``, COMMIT; return its result and the hold.

        A turn for few ``items`` comes before one for many.

        ``gap(hold_s)`` says how long the file is left alone afterwards. ``commit_guard`` is asked last,
        inside the transaction; false rolls back.

        Raises:
            sqlite3.IntegrityError: a constraint, from the work or from COMMIT; nothing was done.
            sqlite3.Error: any other error of the work; nothing was done.
            CommitUnknownError: COMMIT failed in a way that does not say whether it happened.
            Halt: the file is locked, replaced, full or broken; nothing was done.
        """
        await self.open()
        async with self._lane.turn(items):
            await self._leave_gap()
            # Another job's trouble may have closed the connection meanwhile.
            await self.open()
            writer = self._writer
            assert writer is not None
            await self._check_same_file()
            try:
                result, hold_s = await writer.run(
                    lambda connection: self._turn(
                        connection, work, foreign_keys=foreign_keys, stop=stop, commit_guard=commit_guard
                    )
                )
            except sqlite3.Error as error:
                await self._after_error(error)
                raise
            except CommitUnknownError:
                self._doubtful = self.wal
                with suppress(Halt):  # whether it opens again or not: the commit is what matters
                    await self._reopen()
                raise
            finally:
                self.turns += 1
            self._open_until = time.monotonic() + gap(hold_s)
            return result, hold_s

    def _turn(
        self,
        connection: sqlite3.Connection,
        work: Callable[[sqlite3.Connection], T],
        *,
        foreign_keys: bool,
        stop: Callable[[], bool],
        commit_guard: Callable[[], bool],
    ) -> tuple[T, float]:
        if self._wal_bytes > _MAX_WAL_BYTES:
            self._wait_for_readers(connection)
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        begin_immediate(connection, deadline_s=_LOCK_WAIT_S, stop=stop)
        began = time.monotonic()
        self._notice_foreign_commits(connection)
        try:
            result = work(connection)
            if not commit_guard():
                raise Halt("USER", "the batch was withdrawn before its commit")
        except BaseException:
            roll_back(connection)
            raise
        self._commit(connection)
        hold_s = time.monotonic() - began
        self._checkpoint(connection)
        return result, hold_s

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            roll_back(connection)
            raise
        except sqlite3.Error as error:
            roll_back(connection)
            if primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            raise CommitUnknownError(str(error)) from error

    def _notice_foreign_commits(self, connection: sqlite3.Connection) -> None:
        version = data_version(connection)
        if self._data_version not in (-1, version):
            self._foreign_seen = time.monotonic()
        self._data_version = version

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Move the WAL into the file between turns, where no write lock is held."""
        now = time.monotonic()
        # What we leave in the WAL, the next commit of an application with SQLite's defaults has to move.
        every_s = 0.0 if self.foreign_writer else _CHECKPOINT_EVERY_S
        if self.wal and now - self._checkpointed >= every_s:
            self._checkpointed = now
            # The batch is durable: trouble here is the next checkpoint's, never the batch's.
            with suppress(sqlite3.Error):
                self._move_wal(connection)

    def _move_wal(self, connection: sqlite3.Connection) -> None:
        """Move into the file what no reader stands in the way of, and note how much is left."""
        _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        self._wal_bytes = max(0, pages - moved) * size

    def _wait_for_readers(self, connection: sqlite3.Connection) -> None:
        self._move_wal(connection)
        if self._wal_bytes > _MAX_WAL_BYTES:
            megabytes = self._wal_bytes // 1_000_000
            raise Transient(
                "TARGET_LOCKED",
                f"somebody has been reading {self.path.name} all along, and {megabytes} MB of its WAL wait for that",
            )

    async def _leave_gap(self) -> None:
        wait_s = self._open_until - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _check_same_file(self) -> None:
        standing = file_identity(self.path)
        if standing != self._identity:
            if standing is None or not self._accepted:
                raise Halt("TARGET_REPLACED", f"{self.path.name} was replaced or removed while jobs ran")
            await self._reopen()
            self._identity = standing
        self._accepted = False

    async def _after_error(self, error: sqlite3.Error) -> None:
        if is_untrusted(error):
            await self._reopen()

    async def _reopen(self) -> None:
        if self._writer is not None:
            # A new connection counts its data_version anew: what was noted before must not match by chance.
            self._data_version = -1
            self.turns += 1
            try:
                await self._writer.reopen()
                self.wal = await self._writer.run(_journal_mode) == "wal"
            except sqlite3.Error as error:
                # The next turn opens it again; readers may be in use and stay.
                self._writer = None
                raise translate(error, self.path) from error

    def auto_hold(self) -> float:
        """Say how long a turn may take: 25 ms, less while somebody else writes."""
        return _POLITE_HOLD_S if self.foreign_writer else _HOLD_S

    def auto_gap(self, hold_s: float) -> float:
        """Say how long to leave the file alone: shortly while nobody else writes, else as long as the hold."""
        return max(hold_s, _SHORT_GAP_S) if self.foreign_writer else _SHORT_GAP_S


def _overwrite_doubtful_commit(connection: sqlite3.Connection) -> None:
    """Make what can be read now final, after a COMMIT to a WAL whose sync failed.

    Its frames are in the file and not in the index: a later crash would bring them to life. Any commit
    overwrites them; this one writes the application's own version number again.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {int(version)}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        roll_back(connection)
        raise


def data_version(connection: sqlite3.Connection) -> int:
    """Return SQLite's counter of other connections' commits."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
