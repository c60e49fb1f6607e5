"""Connections and their threads: a unit of work is never abandoned, a settings mistake never overlooked."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiosqlite
import pytest

from bulkops.database import (
    Database,
    begin_immediate,
    file_identity,
    is_untrusted,
    open_connection,
    primary_code,
    roll_back,
)

T = TypeVar("T")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (v)")
        connection.commit()
    opened = await Database.open(lambda: open_connection(path))
    yield opened
    await opened.close()


def in_transaction(work: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    """Make a unit of work that is a transaction: it is done as a whole, or not at all."""

    def unit(connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise
        return result

    return unit


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def test_the_private_door_of_aiosqlite_is_still_there() -> None:
    assert list(inspect.signature(aiosqlite.Connection._execute).parameters)[:2] == ["self", "fn"]
    assert isinstance(inspect.getattr_static(aiosqlite.Connection, "_conn"), property)


async def test_a_unit_runs_in_the_connections_own_thread(database: Database) -> None:
    names = {await database.run(lambda _: threading.get_ident()) for _ in range(5)}
    assert len(names) == 1
    assert threading.get_ident() not in names


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_wait_lets_the_unit_end_and_leaves_no_lock(database: Database, times: int) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        entered.set()
        assert go_on.wait(10)

    task = asyncio.create_task(database.run(in_transaction(work)))
    await asyncio.to_thread(entered.wait, 10)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done(), "whoever waits waits for the unit to end"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.run(lambda connection: connection.in_transaction) is False
    assert await database.run(count) == 1


async def test_units_of_many_tasks_never_meet_inside_a_transaction(database: Database) -> None:
    inside: list[int] = []

    def work(connection: sqlite3.Connection) -> int:
        inside.append(1)
        assert len(inside) == 1
        connection.execute("INSERT INTO t VALUES (1)")
        inside.pop()
        return 1

    tasks = [asyncio.create_task(database.run(in_transaction(work))) for _ in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(each == 1 or isinstance(each, asyncio.CancelledError) for each in done)
    assert await database.run(count) >= done.count(1)


async def test_an_exception_of_the_unit_is_told_also_to_one_who_was_not_cancelled(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise KeyError("no")

    with pytest.raises(KeyError):
        await database.run(in_transaction(fail))
    assert await database.run(count) == 0


async def test_a_closed_database_says_so_and_closing_twice_is_fine(database: Database) -> None:
    await database.close()
    await database.close()
    with pytest.raises(ValueError, match="closed"):
        await database.run(count)


async def test_reopening_forgets_an_open_transaction(database: Database) -> None:
    await database.run(lambda connection: connection.execute("BEGIN IMMEDIATE").close())
    await database.reopen()
    assert await database.run(lambda connection: connection.in_transaction) is False


async def test_an_opener_that_fails_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(sqlite3.OperationalError):
        await Database.open(lambda: open_connection(tmp_path / "nowhere.db"))
    assert threading.active_count() <= before
    assert not (tmp_path / "nowhere.db").exists()


def test_a_connection_that_was_never_closed_does_not_hang_the_house_that_is(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from bulkops.database import Database, open_connection\n"
        "async def main():\n"
        "    database = await Database.open(lambda: open_connection(Path(sys.argv[1]), create=True))\n"
        "    try:\n"
        "        await database.run(lambda c: c.execute('CREATE TABLE t (v)').close())\n"
        "        raise SystemExit(3)\n"
        "    finally:\n"
        "        await database.close()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.db")]
    assert subprocess.run(command, timeout=10, check=False).returncode == 3


def test_settings_are_made_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(open_connection(path, create=True)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",), "theirs is never changed"
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("ATTACH ':memory:' AS x")
    with closing(open_connection(path, readonly=True, foreign_keys=False)) as connection:
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("CREATE TABLE t (v)")


def test_a_path_is_no_uri(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=memory#x%20y.db"
    with closing(open_connection(odd, create=True)) as connection:
        connection.execute("CREATE TABLE t (v)")
    assert odd.is_file()


def test_a_waiting_writer_hears_a_stop_and_a_deadline(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with closing(open_connection(path, busy_timeout_ms=10)) as connection:
            for deadline_s, stop in ((0.05, False), (60, True)):
                with pytest.raises(sqlite3.OperationalError) as raised:
                    begin_immediate(connection, deadline_s=deadline_s, stop=partial(bool, stop))
                assert primary_code(raised.value) == sqlite3.SQLITE_BUSY
                assert not is_untrusted(raised.value)
            holder.execute("ROLLBACK")
            begin_immediate(connection, deadline_s=1)
            roll_back(connection)
            roll_back(connection)
            assert not connection.in_transaction


def test_the_identity_of_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert file_identity(tmp_path / "nowhere") is None
