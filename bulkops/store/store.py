"""Our database, opened: one connection that does all writes and checkpoints, a few that read.

What comes in: functions that take a `Tx` or a read connection; what goes out: their results, and after
each commit a `Commit` for whoever listens. The store knows neither listeners nor workers.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import anyio

from bulkops.database import (
    Database,
    file_identity,
    is_untrusted,
    open_connection,
    primary_code,
    roll_back,
)
from bulkops.errors import StartRefused
from bulkops.handles import sync_folder
from bulkops.store import meta, migrations
from bulkops.store.instance import InstanceLock, Marker, read_marker, write_marker
from bulkops.store.transaction import Commit, Tx
from bulkops.timing import Clock

T = TypeVar("T")

_READERS: Final = 3
#: Up to this size the start reads the whole file to see that it is sound; `doctor` does so at any size.
_MAX_CHECKED_BYTES: Final = 32 * 1024 * 1024
_log = logging.getLogger("bulkops.store")


class Store:
    """Runs writers one after another and readers side by side; made by `open_store`."""

    def __init__(self, path: Path, writer: Database, readers: list[Database], clock: Clock) -> None:
        self.path = path
        self.clock = clock
        self.instance = ""
        self.epoch = ""
        self.generation = 0
        self.restored = False
        self.on_commit: list[Callable[[Commit], None]] = []
        self._writer = writer
        self._all_readers = readers
        self._free = list(readers)
        self._vacancy = anyio.Semaphore(len(readers))
        self._identity = file_identity(path)

    def check_place(self) -> None:
        """See that the file that is open still stands at its path: whatever else is written would be lost.

        Raises:
            sqlite3.OperationalError: it was replaced or removed.
        """
        if file_identity(self.path) != self._identity:
            raise sqlite3.OperationalError(
                f"{self.path} was replaced or removed under the running server; put it back, or restart"
            )

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run ``work`` in one durable transaction, then ring; an exception of it leaves nothing behind.

        Raises:
            Exception: what ``work`` raises; `sqlite3.Error` when the disk does.
        """
        done: list[Commit] = []

        def unit(connection: sqlite3.Connection) -> T:
            tx = Tx(connection, self.clock.now_ms())
            self.check_place()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(tx)
                connection.execute("COMMIT")
            except BaseException:
                roll_back(connection)
                raise
            done.append(tx.commit())
            return result

        try:
            return await self._writer.run(unit)
        except sqlite3.Error as error:
            if is_untrusted(error):
                # Cannot it be opened now, the next write tries again; what went wrong is told all the same.
                with suppress(sqlite3.Error):
                    await self._writer.reopen()
            raise
        finally:
            # Also when the caller was cancelled meanwhile: the commit stands, so its bells ring.
            for commit in done:
                for listener in self.on_commit:
                    listener(commit)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a read-only connection, inside one read transaction."""

        def unit(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                roll_back(connection)

        async with self._vacancy:
            reader = self._free.pop()
            try:
                return await reader.run(unit)
            finally:
                self._free.append(reader)

    async def backup(self, target: Path) -> None:
        """Copy the database to ``target``, consistent while jobs run.

        Raises:
            FileExistsError: there is something at ``target``; it stays as it is.
        """
        await copy_database(self.path, target, self.clock.now_ms())

    async def check(self) -> list[str]:
        """Run SQLite's quick integrity check; an empty list means sound."""
        rows = await self.read(lambda connection: connection.execute("PRAGMA quick_check(20)").fetchall())
        return [row[0] for row in rows if row[0] != "ok"]

    async def close(self) -> None:
        """Close every connection and end their threads."""
        for database in (*self._all_readers, self._writer):
            await database.close()


async def copy_database(path: Path, target: Path, now_ms: int) -> None:
    """Copy the database at ``path`` to the new file ``target``, whether or not an instance runs on it.

    Raises:
        FileExistsError: there is something at ``target``; it stays as it is.
        sqlite3.Error: the database cannot be read, or the copy not be written.
    """
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(fd)

    def copy(connection: sqlite3.Connection) -> None:
        copy_to = sqlite3.connect(target, isolation_level=None)
        try:
            connection.backup(copy_to)
            copy_to.execute(meta.WRITE, {"key": "backup_ms", "value": str(now_ms)})
        finally:
            copy_to.close()

    reader = await Database.open(lambda: open_connection(path, readonly=True))
    try:
        await reader.run(copy)
    finally:
        await reader.close()


def prepare_data_dir(data_dir: Path) -> None:
    """Make the data directory, ours alone (0700)."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):
        os.chmod(data_dir, 0o700)


async def open_store(path: Path, data_dir: Path, clock: Clock, lock: InstanceLock) -> Store:
    """Take the lock, check that the database is ours and whole, bring it up to date, start a generation.

    Raises:
        StartRefused: another instance runs, or the database is missing, empty, foreign, newer or damaged.
            The file is left as it is.
    """
    prepare_data_dir(data_dir)
    lock.acquire()
    try:
        lock.acquire_database(path)
        marker = read_marker(data_dir)
        newborn = _refuse_bad_file(path, marker)
        return await _open(path, data_dir, clock, marker, newborn=newborn)
    except BaseException:
        lock.release()
        raise


def _refuse_bad_file(path: Path, marker: Marker | None) -> bool:
    if file_identity(path) is None:
        if marker is not None:
            raise StartRefused(
                "db_corrupt",
                f"{path} is missing although this data directory knows it; restore it from a backup, "
                "or remove the data directory to begin anew",
            )
        return True
    if path.stat().st_size == 0:
        raise StartRefused("db_corrupt", f"{path} is empty (0 bytes); restore it, or remove it to begin anew")
    return False


async def _open(path: Path, data_dir: Path, clock: Clock, marker: Marker | None, *, newborn: bool) -> Store:
    try:
        if newborn:
            await _give_birth(path, clock)
        writer = await Database.open(lambda: open_connection(path))
    except sqlite3.Error as error:
        raise _refused(path, error) from error
    readers: list[Database] = []
    try:
        state = await writer.run(lambda connection: _bring_up(connection, path))
        while len(readers) < _READERS:
            readers.append(await Database.open(lambda: open_connection(path, readonly=True)))
        store = Store(path, writer, readers, clock)
        await _start_generation(store, data_dir, marker, state)
        return store
    except BaseException as error:
        for database in (*readers, writer):
            await database.close()
        if isinstance(error, sqlite3.Error):
            raise _refused(path, error) from error
        raise


def _refused(path: Path, error: sqlite3.Error) -> StartRefused:
    busy = primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    if busy:
        return StartRefused("db_locked", f"{path}: {error}; end the other process that has it open")
    return StartRefused("db_corrupt", f"{path}: {error}; put a backup in its place")


async def _give_birth(path: Path, clock: Clock) -> None:
    # Built beside its place and renamed: a crash leaves no half-made database that the next start refuses.
    path.parent.mkdir(parents=True, exist_ok=True)
    nursery = path.with_name(f"{path.name}.new")
    nursery.unlink(missing_ok=True)
    os.close(os.open(nursery, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def lay(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrations.create(connection, meta.first_values(clock.now_ms()))

    database = await Database.open(lambda: open_connection(nursery))
    try:
        await database.run(lay)
    finally:
        await database.close()
    os.replace(nursery, path)
    sync_folder(path.parent)


def _bring_up(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != migrations.APPLICATION_ID:
        raise StartRefused(
            "db_corrupt",
            f"{path} is not a database of bulkops (application_id {application_id}); [server] database names ours",
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= version <= migrations.VERSION:
        raise StartRefused(
            "db_corrupt",
            f"{path} has schema version {version}; this bulkops knows up to {migrations.VERSION}, use a newer one",
        )
    if path.stat().st_size <= _MAX_CHECKED_BYTES:
        trouble = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if trouble != "ok":
            raise StartRefused("db_corrupt", f"{path} is damaged: {trouble}")
    connection.execute("PRAGMA journal_mode = WAL")
    migrations.migrate(connection)
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


async def _start_generation(
    store: Store, data_dir: Path, marker: Marker | None, state: dict[str, str]
) -> None:
    generation = int(state["generation"])
    if marker is not None and marker.instance != state["instance"]:
        raise StartRefused(
            "db_corrupt", f"{store.path} belongs to another instance than {data_dir}; restore the right one"
        )
    # A smaller generation than the marker's, or the stamp that backups bear: somebody put a copy back.
    # Remembered in the database until whoever takes the jobs over has paused them all.
    store.restored = (
        "backup_ms" in state
        or meta.REVIEW in state
        or (marker is not None and generation < marker.generation)
    )
    store.instance = state["instance"]
    store.generation = max(generation, marker.generation if marker else 0) + 1
    store.epoch = meta.new_epoch() if store.restored else state["epoch"]

    def begin(tx: Tx) -> None:
        meta.write(tx, "generation", str(store.generation))
        meta.write(tx, "epoch", store.epoch)
        meta.erase(tx, "backup_ms")
        if store.restored:
            meta.write(tx, meta.REVIEW, str(tx.now_ms))

    # The database first: a crash in between leaves it ahead of the marker, which is harmless.
    await store.write(begin)
    write_marker(data_dir, Marker(store.instance, store.generation))
