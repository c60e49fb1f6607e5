"""What an item costs in a large job against a small one, and in the manifest."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from statistics import median

import anyio

from tests.benchmarks import application
from tests.benchmarks.houses import Ran, open_house, run_job
from tests.benchmarks.measuring import Finding, Found, Scale

_SMALL = 100_000


async def _run(folder: Path) -> tuple[Ran, float]:
    """Return how a job over everything went, and the bytes of manifest an item took."""
    async with open_house(folder) as runtime:
        before = await runtime.store.read(_bytes_used)
        ran = await run_job(runtime, throttle_ms=0)
        after = await runtime.store.read(_bytes_used)
    assert ran.job.total is not None
    return ran, (after - before) / ran.job.total


def _bytes_used(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _measure(folder: Path, rows: int, repeats: int) -> tuple[float, float, float]:
    original = folder / "original.db"
    original.unlink(missing_ok=True)
    application.make(original, rows)
    runs = [anyio.run(partial(_run, application.copy(original, folder / "job"))) for _ in range(repeats)]
    costs = [ran.accepted_s / rows for ran, _ in runs]
    return median(costs), median(ran.started_s / rows for ran, _ in runs), runs[-1][1]


def cost(folder: Path, scale: Scale) -> Found:
    """Compare seconds an item, and weigh the manifest; everything our file grew by counts as manifest."""
    large = scale.pick(10_000_000, 2_000_000)
    small_s, small_work_s, _ = _measure(folder, _SMALL, scale.pick(7, 3))
    large_s, large_work_s, manifest = _measure(folder, large, 1)
    return [
        Finding(
            what=f"cost an item at {large:,} against {_SMALL:,}", value=large_s / small_s, unit="x", goal=1.2,
            sense="<=", baseline=f"{small_s * 1e6:.2f} µs", detail=f"{large_s * 1e6:.2f} µs; without freezing"
            f" {large_work_s / small_work_s:.2f}x",
        ),
        Finding(what="manifest bytes an item", value=manifest, unit="B", goal=24, sense="<="),
    ]  # fmt: skip
