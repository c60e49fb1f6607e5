"""Exports of a whole table against SQLite's own command line that writes the same rows: `-csv` and `-json`."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from bulkops.configuration import load
from bulkops.runtime import open_runtime
from tests.benchmarks import application
from tests.benchmarks.houses import Ran, configure, run_job
from tests.benchmarks.measuring import Finding, Found, Scale, Skipped, rate, spread, stopwatch

_ACTION: Final = "[resources.receipts.actions.export]\nmax_items = 100_000_000\n"
#: (what it is called, our format, theirs, how many times their time it may take)
_FORMATS: Final = (("CSV", "csv", "-csv", 1.7), ("NDJSON", "ndjson", "-json", 1.4))


def against_sqlite(folder: Path, scale: Scale) -> Found:
    """Export everything as CSV and as NDJSON."""
    shell = shutil.which("sqlite3")
    if shell is None:
        return [Skipped("exports against SQLite's command line", "sqlite3 is not installed")]
    rows = scale.pick(1_000_000, 200_000)
    place = folder / "app"
    place.mkdir()
    application.make(place / "app.db", rows)
    return [_compare(place, scale, shell, rows, *wanted) for wanted in _FORMATS]


def _compare(
    place: Path, scale: Scale, shell: str, rows: int, what: str, ours: str, theirs: str, goal: float
) -> Finding:
    hands: list[float] = []
    jobs: list[Ran] = []
    for _ in range(scale.repeats):
        hands.append(_by_shell(place, shell, theirs))
        jobs.append(anyio.run(partial(_export, place, ours)))
    ratios = [ran.started_s / hand for ran, hand in zip(jobs, hands, strict=True)]
    return Finding(
        what=f"{what} export of 1 M rows against `sqlite3 {theirs}`", value=median(ratios), unit="x", goal=goal,
        sense="<=", baseline=f"{rate(rows, median(hands))} by sqlite3",
        detail=f"{rate(rows, median(ran.started_s for ran in jobs))}; runs {spread(ratios)}",
    )  # fmt: skip


def _by_shell(place: Path, shell: str, flag: str) -> float:
    with (place / "shell.out").open("wb") as out, stopwatch() as watch:
        subprocess.run(
            [shell, flag, "-header", "app.db", "SELECT * FROM receipts"], cwd=place, stdout=out, check=True
        )
    return watch.seconds


async def _export(place: Path, format_: str) -> Ran:
    file = configure(place)
    file.write_text(file.read_text(encoding="utf-8") + _ACTION, encoding="utf-8")
    async with open_runtime(load(file, environ={})) as runtime:
        return await run_job(runtime, action="export", options={"format": format_})
