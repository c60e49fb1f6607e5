"""Jobs over a whole table against hand-written loops that do the same to a copy of the same file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from tests.benchmarks import application
from tests.benchmarks.houses import Ran, open_house, run_job
from tests.benchmarks.measuring import Finding, Found, Scale, rate, spread, stopwatch

_FLAT_OUT: dict[str, Any] = {"throttle_ms": 0}


async def _run(folder: Path, ledger: str, body: dict[str, Any]) -> Ran:
    async with open_house(folder, ledger=ledger) as runtime:
        return await run_job(runtime, **body)


def _job(original: Path, folder: Path, *, ledger: str = "app", **body: Any) -> Ran:
    return anyio.run(partial(_run, application.copy(original, folder / "job"), ledger, body))


def _by_hand(original: Path, folder: Path, *, hard: bool) -> float:
    path = application.copy(original, folder / "hand") / "app.db"
    with stopwatch() as watch:
        application.delete_by_hand(path, hard=hard)
    return watch.seconds


def _compare(
    folder: Path, scale: Scale, what: str, goal: float, *, hard: bool = False, **body: Any
) -> list[Finding]:
    rows = scale.pick(1_000_000, 200_000)
    original = folder / "original.db"
    application.make(original, rows)
    hands: list[float] = []
    jobs: list[Ran] = []
    owns: list[Ran] = []
    for _ in range(scale.repeats):
        hands.append(_by_hand(original, folder, hard=hard))
        jobs.append(_job(original, folder, **body))
        owns.append(_job(original, folder, ledger="own", **body))
    hand_s, started_s = median(hands), median(ran.started_s for ran in jobs)
    ratios = [hand / ran.started_s for hand, ran in zip(hands, jobs, strict=True)]
    own_s, whole_s = median(ran.started_s for ran in owns), median(ran.accepted_s for ran in jobs)
    return [
        Finding(
            what=what, value=median(ratios), unit="x", goal=goal, sense=">=",
            baseline=f"{rate(rows, hand_s)} by hand", detail=f"{rate(rows, started_s)}; runs {spread(ratios)};"
            f" with freezing {hand_s / whole_s:.2f}x; without a ledger in theirs {hand_s / own_s:.2f}x",
        )
    ]  # fmt: skip


def soft(folder: Path, scale: Scale) -> Found:
    """Soft-delete everything, no gap between batches."""
    return _compare(folder, scale, "soft-delete 1 M rows, pace 0, against a hand loop", 0.8, **_FLAT_OUT)


def auto(folder: Path, scale: Scale) -> Found:
    """Soft-delete everything at the pace that leaves gaps for other writers, though there are none."""
    return _compare(folder, scale, 'soft-delete 1 M rows, pace "auto", alone', 0.6)


def hard(folder: Path, scale: Scale) -> Found:
    """Delete everything for good."""
    return _compare(
        folder, scale, "hard delete 1 M rows against a hand loop", 0.9,
        hard=True, options={"hard": True}, **_FLAT_OUT,
    )  # fmt: skip
