"""Starts that must be refused, and databases that were put back from a copy."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.crashes import large, points
from tests.crashes.large import Large
from tests.crashes.servers import Server, command, refused, until

pytestmark = pytest.mark.timeout(180)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _served_once(folder: Path) -> Large:
    world = large.build(folder, 500)
    with Server(world.folder) as server:
        server.end(server.start("things", all=True, tenant="acme"))
        assert server.stop() == 0
    return world


def _pragma(path: Path, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA {text}")
        connection.commit()


def _overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("emptied", lambda path: os.truncate(path, 0), "0 bytes"),
    ("garbage", lambda path: path.write_bytes(os.urandom(50_000)), "not a database"),
    ("garbage header", lambda path: _overwrite(path, 0, b"\0" * 100), "not a database"),
    ("truncated", lambda path: os.truncate(path, 3 * 4096 + 17), ""),
    ("overwritten in the middle", lambda path: _overwrite(path, 4096, b"\xa5" * 5 * 4096), ""),
    ("newer", lambda path: _pragma(path, "user_version = 9999"), "schema version 9999"),
    ("foreign", lambda path: _pragma(path, "application_id = 4711"), "not a database of bulkops"),
    ("missing", lambda path: path.unlink(), "is missing"),
]


@pytest.mark.parametrize(
    ("damage", "sentence"), [each[1:] for each in DAMAGES], ids=[each[0] for each in DAMAGES]
)
def test_a_bad_database_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    world = _served_once(tmp_path / "w")
    database = world.folder / "bulkops.db"
    damage(database)
    before = _digest(database) if database.exists() else None
    ended = refused(world.folder)
    assert "bulkops.db" in ended.stderr
    assert sentence in ended.stderr
    assert (_digest(database) if database.exists() else None) == before


def test_another_application_s_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 500)
    shutil.copyfile(world.database, world.folder / "bulkops.db")
    before = _digest(world.folder / "bulkops.db")
    assert "not a database of bulkops" in refused(world.folder).stderr
    assert _digest(world.folder / "bulkops.db") == before


def test_a_second_instance_is_refused_at_once_and_harms_nothing(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 20_000)
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=200, throttle_ms=5)
        began = time.monotonic()
        assert f"pid {server.pid}" in refused(world.folder).stderr
        assert time.monotonic() - began < 2
        assert server.end(job)["failed"] == world.locked
        assert server.stop() == 0


def test_an_app_database_from_an_older_copy_asks_for_a_look(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 20_000, ledger="app")
    copy = tmp_path / "copy.db"
    with Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=100, throttle_ms=10)
        until(lambda: server.job(job)["processed"] >= 200)
        with closing(sqlite3.connect(world.database)) as connection:
            connection.execute("VACUUM INTO ?", [str(copy)])
        until(lambda: server.job(job)["processed"] >= 1000)
        server.kill()
    for suffix in ("-wal", "-shm"):
        (world.folder / f"app.db{suffix}").unlink(missing_ok=True)
    os.replace(copy, world.database)
    left = sum(world.left())
    with Server(world.folder) as server:
        paused = server.reach(job, "paused")
        assert paused["status_reason"]["code"] == "NEEDS_REVIEW"
        assert sum(world.left()) == left
        server.verb(job, "cancel")
        assert server.end(job)["status"] == "cancelled"
        assert sum(world.left()) == left


def test_our_database_from_a_backup_pauses_everything_unfinished(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 20_000, flags=100)
    copy = tmp_path / "copy.db"
    slow: dict[str, Any] = {"all": True, "tenant": "acme", "batch_size": 100, "throttle_ms": 20}
    with Server(world.folder) as server:
        later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
        scheduled = server.start("flags", all=True, run_at=later)
        running = server.start("things", **slow)
        paused = server.start("things", **slow)
        server.verb(paused, "pause")
        server.reach(paused, "paused")
        until(lambda: server.job(running)["processed"] >= 300)
        status, _ = server.ask("GET", "/healthz")
        assert status == 200
        _back_up(world.folder, copy)
        server.end(scheduled)
        until(lambda: server.job(running)["processed"] >= 600)
        server.kill()
    for suffix in ("-wal", "-shm"):
        (world.folder / f"bulkops.db{suffix}").unlink(missing_ok=True)
    shutil.copyfile(copy, world.folder / "bulkops.db")
    with closing(sqlite3.connect(world.database)) as connection:
        connection.execute("INSERT INTO flags (name) VALUES ('new')")
        connection.commit()
    left = sum(world.left())
    if shutil.which("strace"):
        # A start that dies before it has paused the jobs must not make the next one forget.
        points.die_at("rename", world.folder / "bulkops-data" / "instance.json.new", command(world.folder))
    with Server(world.folder) as server:
        for job in (scheduled, running, paused):
            view = server.job(job)
            assert (view["status"], view["status_reason"]["code"]) == ("paused", "NEEDS_REVIEW"), view
        assert sum(world.left()) == left
        with closing(sqlite3.connect(world.database)) as connection:
            new = connection.execute("SELECT is_deleted FROM flags WHERE name = 'new'").fetchone()
        assert new == (0,)
        server.verb(running, "resume")
        done = server.end(running)
        # What was done after the backup is not its doing any more: it says so instead of guessing.
        assert done["succeeded"] + done["failed"] + done["skipped"] == done["total"] == world.total
        assert done["skipped"] > 0
        assert world.left() == (world.locked, 0)


def _back_up(folder: Path, target: Path) -> None:
    """Do what `bulkops backup` does while the server runs."""
    import asyncio

    from bulkops.store.store import copy_database

    asyncio.run(copy_database(folder / "bulkops.db", target, int(time.time() * 1000)))
