"""The line of workers and the wall clock: what waits for an instant waits as long as was meant."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bulkops import workers
from bulkops.models import StartBody
from bulkops.store import claims, jobs
from bulkops.store.store import Store
from tests.conftest import LeapingClock
from tests.engine_house import OWNER, counts, make_database, opened, rested, until
from tests.store_house import START_MS, a_job, current, stored


async def test_jobs_that_wait_wait_no_longer_when_the_clock_is_set_back(store: Store) -> None:
    backing_off = await stored(store, a_job("queued", not_before_ms=START_MS + 90_000))
    by_itself = await stored(store, a_job("paused", not_before_ms=START_MS + 95_000))
    by_hand = await stored(store, a_job("paused"))
    due = await stored(store, a_job("queued", not_before_ms=START_MS - 5))

    await store.write(lambda tx: claims.hasten(tx, back_ms=90_000))

    waits = [(await current(store, each)).not_before_ms for each in (backing_off, by_itself, by_hand, due)]
    assert waits == [START_MS, START_MS + 5_000, 0, START_MS - 5]


async def test_a_job_that_backs_off_goes_on_though_the_clock_is_set_back_by_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_database(
        tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)"
    )
    monkeypatch.setattr(workers, "_MAX_SLEEP_S", 0.05)
    clock = LeapingClock()
    async with opened(tmp_path, {"things": {"table": "t", "id": "id"}}, clock=clock) as runtime:
        with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            job = await runtime.service.start(OWNER, "things", "delete", StartBody(all=True))

            async def backs_off() -> bool:
                row = await runtime.store.read(lambda connection: jobs.get(connection, job.id))
                return row is not None and row.not_before_ms > clock.now_ms()

            await until(backs_off)
            clock.set_by(-86_400)
        clock.advance(11)
        assert counts(await rested(runtime, job.id)) == (2, 0, 0)
