"""What others do to a running job: locks, foreign changes, replaced files, changed schemas, signals, full disks."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.crashes import large
from tests.crashes.large import Large
from tests.crashes.servers import Server, refused, until

pytestmark = pytest.mark.timeout(180)


@contextmanager
def locked(database: Path, how: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Hold the application's database as another process would."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(f"BEGIN {how}")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def ours(folder: Path, sql: str, *parameters: Any) -> list[Any]:
    """Read from bulkops' own database beside a running server."""
    with closing(sqlite3.connect(f"file:{folder / 'bulkops.db'}?mode=ro", uri=True, timeout=5)) as connection:
        return connection.execute(sql, parameters).fetchall()


def held(folder: Path, job: str) -> bool:
    """Say whether a worker has the job in hand."""
    rows = ours(folder, "SELECT worker FROM jobs WHERE id = ? AND status = 'running'", job)
    return bool(rows and rows[0][0] is not None)


def announced(folder: Path, job: str) -> bool:
    return bool(ours(folder, "SELECT 1 FROM intents WHERE job = ?", job))


def exact(world: Large, job: dict[str, Any]) -> None:
    """Check that the job's counts are what happened to the rows, however it ended."""
    assert job["succeeded"] == world.total - sum(world.left())
    assert job["succeeded"] + job["failed"] + job["skipped"] == job["processed"]


@pytest.mark.parametrize(("journal", "how"), [("wal", "IMMEDIATE"), ("delete", "EXCLUSIVE")])
def test_a_locked_target_delays_a_job_and_a_cancel_works_meanwhile(
    tmp_path: Path, journal: str, how: str
) -> None:
    world = large.build(
        tmp_path / "w",
        2_000,
        journal=journal,
    )
    with Server(world.folder) as server:
        first = server.start("things", all=True, tenant="acme", throttle_ms=20, batch_size=50)
        with locked(world.database, how):
            until(lambda: server.job(first)["throttle"], within_s=15, what="it backs off")
            if journal == "wal":
                until(lambda: held(world.folder, first), within_s=15, what="it waits for the lock again")
            began = time.monotonic()
            server.verb(first, "cancel")
            cancelled = server.end(first, within_s=5)
            assert time.monotonic() - began < 2
            assert cancelled["status"] == "cancelled"
        exact(world, cancelled)
        again = server.start("things", all=True, tenant="acme")
        done = server.end(again)
        assert (done["failed"], done["skipped"]) == (world.locked, 0)
        assert world.left() == (world.locked, 0)
        assert server.stop() == 0


@pytest.mark.parametrize("ledger", ["own", "app"])
def test_rows_that_others_take_while_a_batch_waits_for_the_lock_are_conflicts(
    tmp_path: Path, ledger: str
) -> None:
    world = large.build(tmp_path / "w", 1_000, ledger=ledger)
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=100, throttle_ms=300)
        until(lambda: server.job(job)["processed"] == 100)
        with locked(world.database) as foreign:
            until(lambda: announced(world.folder, job), what="the batch is announced")
            foreign.execute("UPDATE things SET business = 'other' WHERE id IN (121, 122, 123)")
            foreign.execute("DELETE FROM things WHERE id = 124")
            foreign.execute("UPDATE things SET name = 'renamed' WHERE id = 125")
            foreign.execute("COMMIT")
        done = server.end(job)
        assert (done["outcome"], done["succeeded"], done["skipped"]) == ("ok", world.total - 4, 4)
    with closing(sqlite3.connect(world.database)) as connection:
        assert (
            connection.execute("SELECT count(*) FROM things WHERE id IN (121, 122, 123)").fetchone()[0] == 3
        )


def test_a_locked_job_goes_on_by_itself(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 5_000)
    with Server(world.folder) as server:
        with locked(world.database):
            job = server.start("things", all=True, tenant="acme")
            until(lambda: held(world.folder, job), what="held")
            until(lambda: server.job(job)["throttle"], within_s=10, what="it backs off")
            assert server.job(job)["processed"] == 0
        done = server.end(job, within_s=30)
        assert done["succeeded"] == world.total - world.locked


def test_a_replaced_target_pauses_the_job(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 20_000)
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(world.database)) as connection:
        connection.execute("VACUUM INTO ?", [str(copy)])
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=50, throttle_ms=10)
        until(lambda: server.job(job)["processed"] > 0)
        os.replace(copy, world.database)
        paused = server.reach(job, "paused")
        assert paused["status_reason"]["code"] == "TARGET_REPLACED"
        left = sum(world.left())
        server.verb(job, "cancel")
        assert server.end(job)["status"] == "cancelled"
        assert sum(world.left()) == left == world.total
        assert server.stop() == 0


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE things ADD COLUMN more TEXT", "ALTER TABLE things RENAME COLUMN name TO title",
     "DROP TABLE things", "ALTER TABLE things RENAME TO others"],
)  # fmt: skip
def test_a_changed_schema_pauses_the_job(tmp_path: Path, change: str) -> None:
    world = large.build(tmp_path / "w", 20_000)
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=50, throttle_ms=10)
        until(lambda: server.job(job)["processed"] > 0)
        with closing(sqlite3.connect(world.database, timeout=5, isolation_level=None)) as connection:
            connection.execute("DROP TRIGGER things_locked")
            connection.execute(change)
        paused = server.reach(job, "paused")
        assert paused["status_reason"]["code"] == "SCHEMA_CHANGED"


def test_a_trigger_that_lost_its_table_pauses_the_job_instead_of_failing_rows(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 20_000)
    with closing(sqlite3.connect(world.database)) as connection:
        connection.execute("CREATE TABLE log (entry TEXT)")
        connection.execute(
            "CREATE TRIGGER logged AFTER DELETE ON things BEGIN INSERT INTO log VALUES (old.id); END"
        )
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=50, throttle_ms=10)
        until(lambda: server.job(job)["processed"] > 0)
        with closing(sqlite3.connect(world.database, timeout=5, isolation_level=None)) as connection:
            connection.execute("DROP TABLE log")
        paused = server.reach(job, "paused", "completed")
        assert paused["status_reason"]["code"] == "SCHEMA_CHANGED"
        with closing(sqlite3.connect(world.database, timeout=5, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE log (entry TEXT)")
        server.verb(job, "resume")
        assert server.end(job)["failed"] == world.locked


def test_a_suspended_server_keeps_its_lock_and_goes_on(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 10_000)
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=100, throttle_ms=5)
        until(lambda: server.job(job)["processed"] > 0)
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert "another bulkops" in refused(world.folder).stderr
        assert time.monotonic() - began < 8
        server.signal(signal.SIGCONT)
        done = server.end(job)
        assert done["succeeded"] == world.total - world.locked
        assert server.stop() == 0


def test_sigterm_ends_in_seconds_and_the_next_start_goes_on(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 20_000)
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=200, throttle_ms=5)
        until(lambda: server.job(job)["processed"] > 0)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
    rows = ours(world.folder, "SELECT status, worker, crashes FROM jobs")
    assert rows == [("running", None, 0)]
    with Server(world.folder) as server:
        exact(world, server.end(job))
        assert world.left() == (world.locked, 0)


def test_three_unclean_ends_without_a_batch_pause_the_job(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 2_000)
    with locked(world.database):
        with Server(world.folder) as server:
            job = server.start("things", all=True, tenant="acme")
            until(lambda: held(world.folder, job), what="held")
            server.kill()
        for _ in range(2):
            with Server(world.folder) as server:
                until(lambda: held(world.folder, job), what="held")
                server.kill()
    with Server(world.folder) as server:
        paused = server.job(job)
        assert (paused["status"], paused["status_reason"]["code"]) == ("paused", "CRASH_LOOP")
        server.verb(job, "resume")
        exact(world, server.end(job))
        assert world.left() == (world.locked, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB that can grow."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("ledger", ["own", "app"])
def test_a_full_disk_pauses_the_job_and_a_larger_one_lets_it_go_on(small_disk: Path, ledger: str) -> None:
    world = large.build(small_disk / "w", 20_000, ledger=ledger)
    before = world.digest()
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=500)
        paused = server.reach(job, "paused", within_s=40) if _pauses(server, job) else server.job(job)
        assert paused["status"] != "completed", "the disk was large enough"
        assert server.get("/healthz") is not None
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        if server.job(job)["status"] == "paused":
            server.verb(job, "resume")
        done = server.end(job, within_s=40)
        assert (done["succeeded"], done["failed"]) == (world.total - world.locked, world.locked)
        assert world.left() == (world.locked, 0)
        undone = server.end(server.verb(job, "undo")["id"])
        assert undone["outcome"] == "ok"
        assert server.stop() == 0
    assert world.digest() == before


def _pauses(server: Server, job: str) -> bool:
    """Wait until the job is paused, or stands still because not even that can be written."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 3:
        view = server.job(job)
        if view["status"] == "paused":
            return True
        if view["processed"] != last:
            last, since = view["processed"], time.monotonic()
        time.sleep(0.05)
    return False
