"""Our database, opened: what it refuses to start on, what a commit rings, what a copy that was put back does."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from bulkops.errors import StartRefused
from bulkops.store import meta, migrations
from bulkops.store.instance import InstanceLock
from bulkops.store.store import open_store
from bulkops.store.transaction import Commit, Tx
from tests.conftest import HandClock
from tests.store_house import a_job, opened_store, put, stored


async def refused(folder: Path, clock: HandClock) -> str:
    """Try to open; return the code of the refusal. The file stays, byte for byte."""
    path = folder / "bulkops.db"
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StartRefused) as raised:
        async with opened_store(folder, clock):
            pytest.fail("it opened")
    assert (path.read_bytes() if path.exists() else None) == before
    # The lock is free again.
    lock = InstanceLock(folder)
    lock.acquire()
    lock.release()
    return raised.value.code


async def born(folder: Path, clock: HandClock) -> None:
    async with opened_store(folder, clock) as store:
        await stored(store, a_job())


async def test_a_missing_database_is_made_once_and_never_again(tmp_path: Path, clock: HandClock) -> None:
    await born(tmp_path, clock)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"bulkops.db{suffix}").unlink(missing_ok=True)
    assert await refused(tmp_path, clock) == "db_corrupt"


async def test_an_empty_database_is_refused(tmp_path: Path, clock: HandClock) -> None:
    await born(tmp_path, clock)
    (tmp_path / "bulkops.db").write_bytes(b"")
    assert await refused(tmp_path, clock) == "db_corrupt"


@pytest.mark.parametrize(
    "content", [b"garbage, and nothing else " * 400, b"SQLite format 3\x00" + b"\xff" * 9000]
)
async def test_a_file_that_is_no_database_is_refused(
    tmp_path: Path, clock: HandClock, content: bytes
) -> None:
    (tmp_path / "bulkops.db").write_bytes(content)
    assert await refused(tmp_path, clock) == "db_corrupt"


async def test_a_truncated_database_is_refused(tmp_path: Path, clock: HandClock) -> None:
    await born(tmp_path, clock)
    path = tmp_path / "bulkops.db"
    path.write_bytes(path.read_bytes()[:20_000])
    assert await refused(tmp_path, clock) == "db_corrupt"


async def test_a_strangers_database_is_refused(tmp_path: Path, clock: HandClock) -> None:
    with closing(sqlite3.connect(tmp_path / "bulkops.db")) as connection:
        connection.execute("CREATE TABLE customers (id)")
    assert await refused(tmp_path, clock) == "db_corrupt"


async def test_a_newer_database_is_refused(tmp_path: Path, clock: HandClock) -> None:
    await born(tmp_path, clock)
    with closing(sqlite3.connect(tmp_path / "bulkops.db")) as connection:
        connection.execute(f"PRAGMA user_version = {migrations.VERSION + 1}")
    assert await refused(tmp_path, clock) == "db_corrupt"


async def test_the_database_of_another_data_directory_is_refused(tmp_path: Path, clock: HandClock) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        await born(folder, clock)
    (two / "bulkops.db").write_bytes((one / "bulkops.db").read_bytes())
    with pytest.raises(StartRefused) as raised:
        async with opened_store(two, clock):
            pytest.fail("it opened")
    assert raised.value.code == "db_corrupt"


async def test_a_second_instance_is_refused_and_the_first_unharmed(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        with pytest.raises(StartRefused) as raised:
            await open_store(tmp_path / "bulkops.db", tmp_path, clock, InstanceLock(tmp_path))
        assert raised.value.code == "already_running"
        await stored(store, a_job())


async def test_each_start_is_a_generation_of_the_same_instance(tmp_path: Path, clock: HandClock) -> None:
    seen = []
    for _ in range(3):
        async with opened_store(tmp_path, clock) as store:
            seen.append((store.instance, store.generation, store.epoch, store.restored))
    assert [generation for _, generation, _, _ in seen] == [1, 2, 3]
    assert len({(instance, epoch, restored) for instance, _, epoch, restored in seen}) == 1


async def test_a_backup_that_was_put_back_is_noticed_and_begins_a_new_log(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened_store(tmp_path, clock) as store:
        await store.backup(tmp_path / "copy.db")
        epoch = store.epoch
        with pytest.raises(FileExistsError):
            await store.backup(tmp_path / "copy.db")
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"bulkops.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "copy.db").replace(tmp_path / "bulkops.db")
    async with opened_store(tmp_path, clock) as store:
        assert store.restored
        assert store.epoch != epoch
        assert store.generation == 2


async def test_an_exception_leaves_nothing_behind(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        job = a_job()
        rung: list[Commit] = []
        store.on_commit.append(rung.append)

        def fail(tx: Tx) -> None:
            put(tx, job)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await store.write(fail)
        assert await store.read(lambda c: c.execute("SELECT count(*) FROM jobs").fetchone()) == (0,)
        assert rung == []
        await stored(store, job)
        assert rung[0].jobs == {job.id}
        assert rung[0].line


async def test_a_writer_that_is_cancelled_still_commits_and_rings(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        rung: list[Commit] = []
        store.on_commit.append(rung.append)
        job = a_job("queued")
        task = asyncio.create_task(store.write(lambda tx: put(tx, job)))
        await asyncio.sleep(0)
        task.cancel()
        assert await cancelled(task)
        assert await store.read(lambda c: c.execute("SELECT count(*) FROM jobs").fetchone()) == (1,)
        assert [commit.jobs for commit in rung] == [{job.id}]


async def cancelled(task: Awaitable[object]) -> bool:
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def test_readers_see_one_moment_and_cannot_write(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        with pytest.raises(sqlite3.OperationalError):
            await store.read(lambda c: c.execute("DELETE FROM jobs"))

        async def read() -> int:
            return int(await store.read(lambda c: c.execute("SELECT count(*) FROM jobs").fetchone()[0]))

        assert await asyncio.gather(*(read() for _ in range(20))) == [0] * 20


@pytest.mark.parametrize("gone", [True, False])
async def test_nothing_is_acknowledged_that_the_next_start_would_not_find(
    tmp_path: Path, clock: HandClock, gone: bool
) -> None:
    async with opened_store(tmp_path, clock) as store:
        moved = store.path.with_name("moved.db")
        store.path.rename(moved)
        if not gone:
            store.path.write_bytes(b"somebody's copy")
        with pytest.raises(sqlite3.OperationalError, match="replaced or removed"):
            await store.write(lambda tx: meta.write(tx, "k", "lost"))
        moved.replace(store.path)
        await store.write(lambda tx: meta.write(tx, "k", "kept"))
        assert await store.read(lambda connection: meta.read(connection, "k")) == "kept"


async def test_the_database_is_as_durable_and_as_private_as_promised(
    tmp_path: Path, clock: HandClock
) -> None:
    async with opened_store(tmp_path, clock) as store:

        def pragmas(tx: Tx) -> dict[str, object]:
            names = ("synchronous", "journal_mode", "foreign_keys", "trusted_schema")
            return {name: tx.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

        assert await store.write(pragmas) == {
            "synchronous": 2,
            "journal_mode": "wal",
            "foreign_keys": 1,
            "trusted_schema": 0,
        }
        assert (tmp_path / "bulkops.db").stat().st_mode & 0o077 == 0
        assert await store.check() == []


async def test_a_value_of_meta_is_written_read_and_erased(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        for value in ("one", "two"):
            await store.write(partial(meta.write, key="key", value=value))
            assert await store.read(lambda c: meta.read(c, "key")) == value
        await store.write(lambda tx: meta.erase(tx, "key"))
        assert await store.read(lambda c: meta.read(c, "key")) is None
