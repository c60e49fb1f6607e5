"""Large jobs that are killed again and again while the application writes the same file."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.crashes import large
from tests.crashes.large import Large
from tests.crashes.servers import TERMINAL, Server, until
from tests.crashes.writer import ForeignWriter


def _check(world: Large, job: dict[str, Any], writer: ForeignWriter, bystanders: str) -> None:
    assert job["status"] == "completed"
    assert (job["succeeded"], job["failed"], job["skipped"]) == (world.total - world.locked, world.locked, 0)
    assert job["total"] == job["processed"] == world.total
    assert world.left() == (world.locked, 0)
    assert world.digest("other") == bystanders
    with closing(sqlite3.connect(world.database)) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone()[0] == writer.report["writes"]
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    with closing(sqlite3.connect(world.folder / "bulkops.db")) as connection:
        assert connection.execute("SELECT count(*) FROM intents").fetchone()[0] == 0
        failed = connection.execute(
            "SELECT count(*) FROM exceptions WHERE job = ? AND code = 'CONSTRAINT'", [job["id"]]
        )
        assert failed.fetchone()[0] == world.locked
        batches = connection.execute(
            "SELECT sum(detail ->> 'count') FROM audit WHERE job = ? AND verb = 'batch'", [job["id"]]
        )
        assert batches.fetchone()[0] == world.total
    assert writer.report["locked"] == 0, writer.report


def _work_and_kill(
    world: Large, job: str | None, chance: random.Random, resident: list[int]
) -> tuple[str, bool]:
    """Live once: start the job unless it is, let it get somewhere, kill; say whether it ended before."""
    with Server(world.folder) as server:
        job = job or server.start("things", all=True, tenant="acme", batch_size=200)
        view = server.job(job)
        if view["status"] == "paused":
            assert view["status_reason"]["code"] == "CRASH_LOOP", view["status_reason"]
            server.verb(job, "resume")
        before = view["processed"]
        end = time.monotonic() + chance.uniform(0, 0.25)
        moves = chance.random() < 0.8
        while time.monotonic() < end or (moves and view["processed"] == before):
            view = server.job(job)
            if view["status"] in TERMINAL:
                return job, True
        resident.append(server.rss_kib())
        server.kill()
    return job, False


def _survive(world: Large, kills: int, seed: int) -> tuple[dict[str, Any], ForeignWriter, list[int]]:
    chance = random.Random(seed)
    resident: list[int] = []
    job: str | None = None
    survived = 0
    with ForeignWriter(world.database) as writer:
        while survived < kills:
            job, over = _work_and_kill(world, job, chance, resident)
            assert not over, f"the job ended after {survived} kills; more rows are needed"
            survived += 1
        assert job is not None
        with Server(world.folder) as server:
            view = server.job(job)
            if view["status"] == "paused":
                server.verb(job, "resume")
            view = server.end(job, within_s=900)
            resident.append(server.rss_kib())
            assert server.stop() == 0
    print(f"\n{survived} kills, writer {writer.report}, resident {min(resident)} to {max(resident)} KiB")
    return view, writer, resident


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ledger", ["own", "app"])
def test_a_job_killed_a_dozen_times_counts_every_row_once(tmp_path: Path, ledger: str) -> None:
    world = large.build(tmp_path / "w", 100_000, ledger=ledger)
    bystanders = world.digest("other")
    view, writer, resident = _survive(world, 12, seed=7)
    _check(world, view, writer, bystanders)
    assert max(resident) < 200 * 1024


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("journal", "ledger"), [("wal", "own"), ("wal", "app"), ("delete", "own")])
def test_a_million_rows_survive_fifty_kills(tmp_path: Path, journal: str, ledger: str) -> None:
    world = large.build(tmp_path / "w", 1_000_000, journal=journal, ledger=ledger)
    bystanders = world.digest("other")
    before = world.digest()
    view, writer, resident = _survive(world, 50, seed=11)
    _check(world, view, writer, bystanders)
    assert max(resident) < 250 * 1024
    with Server(world.folder) as server:
        undo = server.verb(view["id"], "undo")["id"]
        undone = server.end(undo, within_s=1800)
        assert undone["outcome"] == "ok", undone
    assert world.digest() == before


@pytest.mark.timeout(300)
def test_pause_resume_and_cancel_mid_way_leave_what_is_counted(tmp_path: Path) -> None:
    world = large.build(tmp_path / "w", 60_000)
    bystanders = world.digest("other")
    before = world.digest()
    with ForeignWriter(world.database) as writer, Server(world.folder) as server:
        job = server.start("things", all=True, tenant="acme", batch_size=100)
        for _ in range(5):
            server.verb(job, "pause")
            paused = server.reach(job, "paused")
            gone = world.total - sum(world.left())
            assert paused["succeeded"] == gone
            assert paused["processed"] == gone + paused["failed"] + paused["skipped"]
            server.verb(job, "resume")
        until(lambda: server.job(job)["processed"])
        server.verb(job, "cancel")
        cancelled = server.end(job)
        assert cancelled["status"] == "cancelled"
        gone = world.total - sum(world.left())
        assert 0 < gone < world.total
        assert cancelled["succeeded"] == gone
        undone = server.end(server.verb(job, "undo")["id"])
        assert (undone["outcome"], undone["succeeded"]) == ("ok", gone)
        assert server.stop() == 0
    assert world.digest() == before
    assert world.digest("other") == bystanders
    assert writer.report["locked"] == 0, writer.report
