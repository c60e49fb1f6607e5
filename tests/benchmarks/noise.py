"""How much of a late answer is the machine's own doing: a plain sleep and a plain commit, measured beside a row.

Rows that are ratios need none of this; a 99th percentile in milliseconds on a busy machine means nothing without.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.benchmarks.measuring import percentile

_SLEEP_S = 0.002
_COMMITS = 100


def _late_ms() -> list[float]:
    late = []
    for _ in range(500):
        began = time.perf_counter()
        time.sleep(_SLEEP_S)
        late.append((time.perf_counter() - began - _SLEEP_S) * 1000)
    return late


def _commits_ms(folder: Path) -> list[float]:
    took = []
    with closing(sqlite3.connect(folder / "noise.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS note (body TEXT)")
        for _ in range(_COMMITS):
            began = time.perf_counter()
            connection.execute("INSERT INTO note VALUES ('x')")
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    return took


def of_this_machine(folder: Path) -> str:
    """Say how late the machine itself is now: a sleeping thread, and a durable commit of one row."""
    sleeps, commits = _late_ms(), _commits_ms(folder)
    return (
        f"machine: sleep p99 {percentile(sleeps, 0.99):.1f} ms late, worst {max(sleeps):.0f};"
        f" commit p50 {percentile(commits, 0.5):.1f}, p99 {percentile(commits, 0.99):.0f} ms"
    )
