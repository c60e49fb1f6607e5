"""A host application's own function over a million items, against a task queue that runs one task an item."""

from __future__ import annotations

import importlib.util
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from bulkops.batch import Batch
from bulkops.embedding import Bulkops
from tests.benchmarks import application
from tests.benchmarks.houses import configure
from tests.benchmarks.measuring import Finding, Found, Scale, Skipped, rate

_BATCH = 5000
_WHAT = "no-op Python action against huey on SQLite, items/s"


async def _items_a_second(folder: Path) -> float:
    bulk = Bulkops.from_file(configure(folder))

    @bulk.action("receipts", "look_at", batch_size=_BATCH, throttle_ms=0)
    async def look_at(batch: Batch) -> None:
        for _ in batch:
            pass

    async with bulk.lifespan(None):
        began = time.perf_counter()
        job = await bulk.start("receipts", "look_at", all=True)
        while not (view := await bulk.job(job.id, wait_s=30)).terminal:
            continue
        took_s = time.perf_counter() - began
    assert view.outcome == "ok"
    assert view.total is not None
    return view.total / took_s


def _huey_tasks_a_second(folder: Path, count: int) -> float:
    """Enqueue no-ops, then run them with huey's own consumer and two threads until none is left."""
    from huey import SqliteHuey  # an optional extra

    huey: Any = SqliteHuey("benchmark", filename=str(folder / "huey.db"), results=False)
    done: list[int] = []

    @huey.task()  # type: ignore[untyped-decorator]  # huey has no types
    def look_at(item: int) -> None:
        done.append(item)

    began = time.perf_counter()
    for item in range(count):
        look_at(item)
    logging.getLogger("huey").setLevel(logging.ERROR)
    consumer = huey.create_consumer(workers=2, initial_delay=0.01)
    consumer.start()
    while len(done) < count:
        time.sleep(0.01)
    took_s = time.perf_counter() - began
    consumer.stop(graceful=True)
    return count / took_s


def no_op(folder: Path, scale: Scale) -> Found:
    """Run both from their start to their last item."""
    if importlib.util.find_spec("huey") is None:
        return [Skipped(_WHAT, "huey is missing; pip install 'bulkops[benchmark]'")]
    application.make(folder / "app.db", scale.pick(1_000_000, 100_000))
    ours = anyio.run(partial(_items_a_second, folder))
    theirs = _huey_tasks_a_second(folder, scale.pick(10_000, 2_000))
    return [
        Finding(
            what=_WHAT, value=ours / theirs, unit="x", goal=80, sense=">=", baseline=rate(1, 1 / theirs),
            detail=rate(1, 1 / ours),
        )
    ]  # fmt: skip
