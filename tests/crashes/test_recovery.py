"""Trouble on top of trouble: kills during recovery, a disk that fails at a commit, and then a kill."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from tests.crashes import checks, points
from tests.crashes.ground import ACT, UNDO, Ground, thinned
from tests.crashes.points import Point

_BY_HAND = [pytest.mark.soak, pytest.mark.timeout(1800)]
pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
    pytest.mark.timeout(300),
]
#: A counter of strace begins anew with each connection's thread: as early as this it would fail for ever.
_TOO_EARLY = {"bulkops.db-wal": 60}
_PAUSES = {"EIO": "IO_ERROR", "ENOSPC": "DISK_FULL"}
#: How many runs: a few each time, many by hand.
_ROUNDS = pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=_BY_HAND)])


def _watch(ground: Ground) -> list[Point]:
    found = points.watch(ground.folder, ground.plan)
    ground.reset()
    return found


@_ROUNDS
@pytest.mark.parametrize(("journal", "ledger", "plan"), [("wal", "own", ACT), ("delete", "app", UNDO)])
def test_kills_during_recovery_change_nothing(
    tmp_path: Path, journal: str, ledger: str, plan: str, rounds: int
) -> None:
    ground = Ground(tmp_path, journal=journal, ledger=ledger, plan=plan)
    chance = random.Random(5)
    marks = thinned(_watch(ground))
    early = [mark for mark in marks if mark.path in ("bulkops.db-wal", "app.db-wal", "app.db-journal")]
    for _ in range(rounds):
        ground.reset()
        for point in [chance.choice(marks), *chance.choices(early, k=3)]:
            points.kill_at(ground.folder, plan, point)
            checks.check_crashed(ground.folder)
        ground.finish()
        ground.check()


def _run_with(ground: Ground, faults: list[str], *paths: str) -> int | None:
    """Carry out the plan with faults; return the exit code, ``None`` when it had to be killed."""
    arguments = points.injected(
        faults, [ground.folder / path for path in paths], points.command(ground.folder, ground.plan)
    )
    try:
        done = points.run(arguments, timeout_s=45)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == points.PAUSED:
        assert any(code in done.stdout for code in _PAUSES.values()), done.stdout
    return done.returncode


@_ROUNDS
@pytest.mark.parametrize(("journal", "ledger"), [("wal", "own"), ("delete", "app")])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_write_that_fails_once_is_made_good(
    tmp_path: Path, journal: str, ledger: str, error: str, rounds: int
) -> None:
    ground = Ground(tmp_path, journal=journal, ledger=ledger, plan=ACT)
    marks = [
        mark
        for mark in thinned(_watch(ground))
        if mark.nth > _TOO_EARLY.get(mark.path, 10) * (mark.call == "pwrite64")
        and mark.call in ("pwrite64", "fdatasync") and mark.path.startswith(("app.db", "bulkops.db-wal"))
        and not mark.path.endswith("-shm")
    ]  # fmt: skip
    for point in random.Random(6).sample(marks, rounds):
        ground.reset()
        fault = f"{point.call}:error={error}:when={point.nth}"
        code = _run_with(ground, [fault], point.path)
        assert code in (0, points.PAUSED, points.REFUSED), (point, code)
        checks.check_crashed(ground.folder)
        ground.finish()
        ground.check()


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(("journal", "ledger"), [("wal", "own"), ("delete", "app")])
def test_a_target_that_cannot_be_written_any_more_pauses_the_job(
    tmp_path: Path, error: str, journal: str, ledger: str
) -> None:
    ground = Ground(tmp_path, journal=journal, ledger=ledger, plan=ACT)
    path = "app.db-wal" if journal == "wal" else "app.db-journal"
    code = _run_with(ground, [f"pwrite64:error={error}:when=1+"], path)
    assert code == points.PAUSED
    checks.check_crashed(ground.folder)
    ground.finish()
    ground.check()


@_ROUNDS
@pytest.mark.parametrize("ledger", ["own", "app"])
def test_a_commit_that_failed_and_comes_to_life_after_a_kill_is_counted_once(
    tmp_path: Path, ledger: str, rounds: int
) -> None:
    ground = Ground(tmp_path, journal="wal", ledger=ledger, plan=ACT)
    writes = [mark for mark in _watch(ground) if mark.path == "app.db-wal"]
    syncs = [index for index, mark in enumerate(writes) if mark.call == "fdatasync"]
    for index in random.Random(8).sample(syncs, min(rounds, len(syncs))):
        before = sum(mark.call == "pwrite64" for mark in writes[:index])
        for later in (1, 2):
            ground.reset()
            faults = [
                f"fdatasync:error=EIO:when={writes[index].nth}",
                f"pwrite64:signal=KILL:when={before + later}",
            ]
            _run_with(ground, faults, "app.db-wal")
            checks.check_crashed(ground.folder)
            ground.finish()
            ground.check()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_what_is_read_after_a_failed_commit_is_final(tmp_path: Path, journal: str) -> None:
    ground = Ground(tmp_path, journal=journal, ledger="own", plan=ACT)
    database = ground.folder / "app.db"
    hows = []
    for path, nth in product(["app.db-wal", "app.db-journal", "app.db"], [2, 3, 4]):
        ground.reset()
        look = [sys.executable, "-m", "tests.crashes.doubt", str(database)]
        done = points.run(points.injected([f"fdatasync:error=EIO:when={nth}"], [ground.folder / path], look))
        how, _, count = done.stdout.strip().partition(" ")
        hows += [how] * (count != "nobody knows")
        with closing(sqlite3.connect(database)) as connection:
            now = connection.execute("SELECT count(*) FROM journal").fetchone()[0]
        assert count in (str(now), "nobody knows"), (path, nth, how)
    assert "unknown" in hows
