"""An application's file: turns in a lane, gaps between them, foreign writers noticed, errors translated."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from bulkops.errors import Halt, Transient
from bulkops.resources import target as target_module
from bulkops.resources.target import DeadlineError, Target, translate
from tests.engine_house import execute, make_database


def make(path: Path) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
    return path


def write(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO notes (body) VALUES ('x')")


def write_as_another(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        write(connection)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Target]:
    target = Target(path)
    try:
        yield target
    finally:
        await target.close()


async def take(target: Target) -> None:
    await target.turn(write, foreign_keys=True, gap=target.auto_gap, stop=lambda: False)


async def test_own_turns_are_not_taken_for_anybody_elses(tmp_path: Path) -> None:
    async with opened(make(tmp_path / "app.db")) as target:
        for _ in range(3):
            await take(target)
        assert not target.foreign_writer
        assert target.auto_gap(0.02) < 0.02


async def test_a_foreign_commit_shortens_turns_and_stretches_gaps(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db")
    async with opened(path) as target:
        await take(target)
        alone_s = target.auto_hold()
        write_as_another(path)
        await take(target)
        assert target.foreign_writer
        assert target.auto_hold() < alone_s
        assert target.auto_gap(0.02) == 0.02


async def test_beside_a_foreign_writer_no_wal_is_left_for_it_to_move(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db")
    wal = path.with_name("app.db-wal")

    async def rounds(target: Target) -> int:
        for _ in range(5):
            write_as_another(path)
            await take(target)
        return wal.stat().st_size

    async with opened(path) as target:
        await take(target)
        first = await rounds(target)
        # What was moved is written over: the WAL grows no more.
        assert await rounds(target) == first


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    make_database(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    made = Target(tmp_path / "app.db")
    yield made
    await made.close()


async def turn(target: Target, work: Any, **more: Any) -> Any:
    wanted: dict[str, Any] = {"foreign_keys": True, "gap": lambda _: 0.0, "stop": lambda: False, **more}
    result, hold_s = await target.turn(work, **wanted)
    assert hold_s >= 0
    return result


def insert(value: int) -> Any:
    return lambda connection: connection.execute("INSERT INTO t (v) VALUES (?)", [value]).rowcount


async def test_turns_are_taken_in_the_order_they_were_asked_for(target: Target) -> None:
    order: list[int] = []

    def work(number: int) -> Any:
        return lambda _: order.append(number)

    await target.open()
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(turn(target, work(number)))
    assert order == list(range(20))


async def test_a_reader_who_never_ends_stops_the_writing_before_the_disk_is_full(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "_MAX_WAL_BYTES", 400_000)
    monkeypatch.setattr(target_module, "_CHECKPOINT_EVERY_S", 0.0)

    def large(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t (v) VALUES (zeroblob(50000))")

    with closing(sqlite3.connect(target.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()

        async def write_on() -> None:
            for _ in range(50):
                await turn(target, large)

        with pytest.raises(Halt) as raised:
            await write_on()
        assert raised.value.code == "TARGET_LOCKED"
        assert target.path.with_name("app.db-wal").stat().st_size < 600_000
        reader.execute("ROLLBACK")
    for _ in range(20):
        await turn(target, large)


async def test_a_gap_is_left_after_a_turn(target: Target) -> None:
    await turn(target, insert(1), gap=lambda _: 0.05)
    began = time.monotonic()
    await turn(target, insert(2))
    assert time.monotonic() - began >= 0.04


async def test_an_exception_and_a_guard_roll_the_turn_back(target: Target) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await turn(target, fail)
    with pytest.raises(Halt):
        await turn(target, insert(1), commit_guard=lambda: False)
    assert await target.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)


async def test_a_locked_file_is_transient_and_its_data_untouched(target: Target) -> None:
    await target.open()
    with closing(sqlite3.connect(target.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as raised:
            await turn(target, insert(1), stop=lambda: True)
        found = translate(raised.value, target.path)
        assert isinstance(found, Transient)
        assert found.code == "TARGET_LOCKED"
    assert await turn(target, insert(1)) == 1


async def test_a_file_that_was_replaced_is_not_touched(tmp_path: Path) -> None:
    # In DELETE mode: a WAL left behind would be read into the new file by anybody.
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)"
    target = Target(make_database(tmp_path / "app.db", script, wal=False))
    await turn(target, insert(1))
    make_database(tmp_path / "other.db", script, wal=False).replace(target.path)
    for _ in range(2):
        with pytest.raises(Halt) as raised:
            await turn(target, insert(2))
        assert raised.value.code == "TARGET_REPLACED"
    assert execute(target.path, "SELECT count(*) FROM t") == [(0,)]
    await target.close()


async def test_a_replacement_is_read_at_once_and_written_once_it_is_accepted(tmp_path: Path) -> None:
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)"
    target = Target(make_database(tmp_path / "app.db", script, wal=False))
    await turn(target, insert(1))
    make_database(tmp_path / "other.db", script).replace(target.path)
    assert await target.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)
    target.accept_replacement()
    assert await turn(target, insert(7)) == 1
    assert execute(target.path, "SELECT count(*) FROM t") == [(1,)]
    assert target.wal
    make_database(tmp_path / "third.db", script).replace(target.path)
    with pytest.raises(Halt):  # what was accepted was that one file
        await turn(target, insert(8))
    await target.close()


async def test_a_missing_file_is_never_made_and_may_come_later(tmp_path: Path) -> None:
    target = Target(tmp_path / "app.db")
    with pytest.raises(Halt) as raised:
        await target.open()
    assert raised.value.code == "TARGET_REPLACED"
    assert not target.path.exists()
    make_database(target.path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    await target.open()
    await target.close()


async def test_a_read_that_takes_too_long_is_cut(target: Target) -> None:
    endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    for _ in range(3):
        with pytest.raises(DeadlineError):
            await target.read(lambda c: c.execute(endless).fetchone(), deadline_s=0.05)
    assert await target.read(lambda c: c.execute("SELECT 1").fetchone()) == (1,)


async def test_readers_cannot_write_and_a_snapshot_sees_one_moment(target: Target) -> None:
    with pytest.raises(Halt):
        await target.read(insert(1))
    async with target.snapshot() as database:
        assert await database.run(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)
        execute(target.path, "INSERT INTO t (v) VALUES (1)")
        assert await database.run(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)


async def test_a_cancelled_turn_ends_and_the_next_one_follows(target: Target) -> None:
    await target.open()
    tasks = [asyncio.create_task(turn(target, insert(number))) for number in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await turn(target, insert(99)) == 1


@pytest.mark.parametrize(
    ("number", "code", "transient"),
    [
        (sqlite3.SQLITE_BUSY, "TARGET_LOCKED", True),
        (sqlite3.SQLITE_LOCKED, "TARGET_LOCKED", True),
        (sqlite3.SQLITE_FULL, "DISK_FULL", True),
        (sqlite3.SQLITE_IOERR, "IO_ERROR", True),
        (sqlite3.SQLITE_NOTADB, "TARGET_REPLACED", False),
        (sqlite3.SQLITE_CANTOPEN, "TARGET_REPLACED", False),
        (sqlite3.SQLITE_SCHEMA, "SCHEMA_CHANGED", False),
        (sqlite3.SQLITE_ERROR, "SCHEMA_CHANGED", False),
    ],
)
def test_each_error_of_sqlite_has_its_meaning(
    number: int, code: str, transient: bool, tmp_path: Path
) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorcode = number | 1 << 8
    found = translate(error, tmp_path / "gone.db")
    assert found.code == code
    assert isinstance(found, Transient) == transient
