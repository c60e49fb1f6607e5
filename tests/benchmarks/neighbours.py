"""Another process that writes the application's file while a job runs: how long it waits, and whether in vain."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec

from tests.benchmarks import application, noise
from tests.benchmarks.background import busy
from tests.benchmarks.houses import configure
from tests.benchmarks.measuring import Finding, Found, Scale, percentile
from tests.benchmarks.servers import read_line, serving

_EVERY_S = 0.05


class Waits(msgspec.Struct, frozen=True):
    """How long each write waited for the lock and took in all, and how many ended with "database is locked"."""

    lock_s: list[float]
    whole_s: list[float]
    locked: int


def write_now_and_then(path: Path, count: int) -> Waits:
    """Write a row every 50 ms as an application does: BEGIN IMMEDIATE, INSERT, COMMIT, 5 s of patience."""
    waits = Waits([], [], 0)
    locked = 0
    with closing(application.connect(path)) as connection:
        for _ in range(count):
            began = time.perf_counter()
            try:
                connection.execute("BEGIN IMMEDIATE")
                waits.lock_s.append(time.perf_counter() - began)
                connection.execute("INSERT INTO notes (body) VALUES ('a note')")
                connection.execute("COMMIT")
            except sqlite3.OperationalError:
                locked += 1
            waits.whole_s.append(time.perf_counter() - began)
            time.sleep(_EVERY_S)
    return msgspec.structs.replace(waits, locked=locked)


def _write_apart(path: Path, count: int) -> Waits:
    command = [sys.executable, "-m", "tests.benchmarks.neighbours", str(path), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        return msgspec.json.decode(read_line(process.stdout), type=Waits)


def politeness(folder: Path, scale: Scale) -> Found:
    """Measure a foreign writer's waits without a job and beside one at pace "auto"."""
    path = folder / "app.db"
    application.make(path, scale.pick(1_000_000, 200_000))
    count = scale.pick(300, 60)
    alone = _write_apart(path, 40)
    with serving(configure(folder)) as server, busy(server, ["receipts"]):
        beside = _write_apart(path, count)
    # Its first commit is what is seen.
    return [
        Finding(
            what="another process writing the file during a job, p99 wait for the lock once seen",
            value=percentile(beside.lock_s[2:], 0.99) * 1000, unit="ms", goal=60, sense="<=",
            baseline=f"{_whole(alone.whole_s)} without a job; {noise.of_this_machine(folder)}",
            detail=f"{_whole(beside.whole_s[2:])}; the first waited {beside.lock_s[0] * 1000:.1f} ms",
        ),
        Finding(
            what="writes of another process that ended locked", value=beside.locked, unit="", goal=0, sense="<="
        ),
    ]  # fmt: skip


def _whole(seconds: list[float]) -> str:
    shares = [percentile(seconds, share) * 1000 for share in (0.5, 0.9, 0.99)]
    return "whole writes p50 {:.1f}, p90 {:.1f}, p99 {:.1f} ms".format(*shares)


if __name__ == "__main__":
    sys.stdout.write(
        msgspec.json.encode(write_now_and_then(Path(sys.argv[1]), int(sys.argv[2]))).decode() + "\n"
    )
