"""How late the event loop is while jobs run: what every request and socket pays on top."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path

import anyio

from bulkops.models import UndoBody
from bulkops.nimble import keep_the_loop_nimble
from bulkops.runtime import local_owner
from tests.benchmarks import application, noise
from tests.benchmarks.houses import ended, open_house, run_job
from tests.benchmarks.measuring import Finding, Found, Scale, percentile

_TICK_S = 0.002


async def _tick(delays: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        delays.append(time.perf_counter() - began - _TICK_S)


async def _delays(folder: Path) -> tuple[list[float], list[float]]:
    idle: list[float] = []
    busy: list[float] = []
    async with open_house(folder) as runtime:
        keep_the_loop_nimble()  # as `serve` does once it answers
        with anyio.move_on_after(2):
            await _tick(idle)
        async with anyio.create_task_group() as group:
            group.start_soon(_tick, busy)
            done = await run_job(runtime)
            undone, _ = await runtime.service.undo(local_owner(), done.job.id, UndoBody())
            await ended(runtime, undone.id)
            await run_job(runtime)
            await run_job(runtime, action="restore", throttle_ms=0)  # keeps an image of every row
            await run_job(runtime, options={"hard": True}, throttle_ms=0)
            group.cancel_scope.cancel()
    return idle, busy


def delay(folder: Path, scale: Scale) -> Found:
    """Measure the delay of a ticker beside a soft delete, its undo, a restore that keeps images, a hard delete."""
    original = folder / "original.db"
    application.make(original, scale.pick(1_000_000, 200_000))
    interval_s = sys.getswitchinterval()
    try:
        idle, busy = anyio.run(_delays, application.copy(original, folder / "job"))
    finally:
        sys.setswitchinterval(interval_s)
        gc.unfreeze()
    return [
        Finding(
            what="loop delay during jobs, p99", value=percentile(busy, 0.99) * 1000, unit="ms", goal=10,
            sense="<=", baseline=f"{percentile(idle, 0.99) * 1000:.2f} ms idle; {noise.of_this_machine(folder)}",
            detail=f"p50 {percentile(busy, 0.5) * 1000:.2f} ms, worst {max(busy) * 1000:.1f} ms, {len(busy)} ticks",
        )
    ]  # fmt: skip
