"""Rows of jobs: the line, the claims, the counts, the times they wait for."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkops.models import FailureThreshold, ItemError
from bulkops.states import Status
from bulkops.store import jobs
from bulkops.store.jobs import Counts, JobRow, Knobs, Selection
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import START_MS, a_job, opened_store, stored


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    async with opened_store(tmp_path, clock) as opened:
        yield opened


async def get(store: Store, job: JobRow) -> JobRow:
    found = await store.read(lambda connection: jobs.get(connection, job.id))
    assert found is not None
    return found


async def claim(store: Store, *, preparing: bool = False, worker: int = 1) -> JobRow | None:
    return await store.write(lambda tx: jobs.claim(tx, worker=worker, preparing=preparing))


async def test_a_row_comes_back_as_it_was_written(store: Store) -> None:
    job = a_job(
        "paused",
        tenant="acme",
        selection=Selection(
            kind="filter", filter={"a": {"lt": 1.5}, "b": None}, bound="ü", exclude_ids=["1"]
        ),
        options={"set": {"x": None}},
        knobs=Knobs(batch_size=5, failure_threshold=FailureThreshold(min_items=2), atomic=True),
        last_error=ItemError("X", "m", "1"),
        rate=1.5,
        reason="why",
    )
    await stored(store, job)
    assert await get(store, job) == job


async def test_an_unknown_job_is_none(store: Store) -> None:
    assert await store.read(lambda connection: jobs.get(connection, "nobody")) is None


async def test_the_line_goes_by_priority_then_by_time(store: Store) -> None:
    late = await stored(store, a_job("queued", queued_ms=START_MS + 5))
    early = await stored(store, a_job("queued", queued_ms=START_MS))
    urgent = await stored(store, a_job("queued", queued_ms=START_MS + 9, priority=101))
    order = [await claim(store) for _ in range(4)]
    assert [job.id if job else None for job in order] == [urgent.id, early.id, late.id, None]


async def test_a_claim_starts_a_queued_job_and_tells_so_once(store: Store) -> None:
    job = await stored(store, a_job("queued"))
    claimed = await claim(store)
    assert claimed is not None
    assert (claimed.status, claimed.worker, claimed.started_ms) == (Status.RUNNING, 1, START_MS)
    await store.write(lambda tx: jobs.release(tx, claimed))
    again = await claim(store)
    assert again is not None
    assert (again.status, again.started_ms) == (Status.RUNNING, START_MS)
    kinds = await store.read(
        lambda c: [
            row[0] for row in c.execute("SELECT kind FROM events WHERE job = ? ORDER BY seq", [job.id])
        ]
    )
    assert kinds.count("started") <= 2
    assert kinds[:2] == ["queued", "started"]


async def test_who_freezes_and_who_works_take_different_jobs(store: Store) -> None:
    fresh = await stored(store, a_job("preparing"))
    assert await claim(store) is None
    taken = await claim(store, preparing=True)
    assert taken is not None
    assert taken.id == fresh.id


async def test_a_job_that_backs_off_is_not_ready_before_its_time(store: Store, clock: HandClock) -> None:
    await stored(store, a_job("queued"))
    held = await claim(store)
    assert held is not None
    await store.write(lambda tx: jobs.release(tx, held, not_before_ms=START_MS + 1000))
    assert await claim(store) is None
    assert await store.read(jobs.line_length) == 1
    assert await store.read(lambda c: jobs.ready_length(c, now_ms=clock.now_ms())) == 0
    assert await store.read(lambda c: jobs.next_due_ms(c, clock.now_ms())) == START_MS + 1000
    assert not await store.read(lambda c: jobs.anybody_in_line(c, preparing=False, now_ms=clock.now_ms()))
    clock.advance(1)
    assert await store.read(lambda c: jobs.anybody_in_line(c, preparing=False, now_ms=clock.now_ms()))
    assert await claim(store) is not None


async def test_only_the_holder_releases_a_job(store: Store) -> None:
    await stored(store, a_job("queued"))
    held = await claim(store, worker=2)
    assert held is not None
    await store.write(lambda tx: jobs.release(tx, a_job("running", id=held.id, worker=1)))
    assert (await get(store, held)).worker == 2


async def test_a_batch_counts_once_and_only_for_its_holder(store: Store) -> None:
    await stored(store, a_job("queued", crashes=2))
    held = await claim(store)
    assert held is not None

    counts = Counts(1, 1, 0)
    once = await store.write(
        lambda tx: jobs.account(
            tx, held, counts, active_ms=10, rate=5.0, last_error=ItemError("C", "m", "2"), batch_failed=True
        )
    )
    assert once is not None
    assert (once.cursor, once.succeeded, once.failed, once.batch) == (2, 1, 1, 1)
    assert (once.batch_failures, once.crashes, once.stretch_items, once.stretch_failed) == (1, 0, 2, 1)
    twice = await store.write(
        lambda tx: jobs.account(tx, held, counts, active_ms=10, rate=None, last_error=None)
    )
    assert twice is None
    stranger = await store.write(
        lambda tx: jobs.account(
            tx, a_job("running", id=held.id, worker=9, batch=1, cursor=2, succeeded=2), Counts(1, 0, 0),
            active_ms=0, rate=None, last_error=None,
        )
    )  # fmt: skip
    assert stranger is None
    assert (await get(store, held)).cursor == 2


async def test_counts_beyond_the_total_break_a_rule_of_the_schema(store: Store) -> None:
    await stored(store, a_job("queued"))
    held = await claim(store)
    assert held is not None
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(
            lambda tx: jobs.account(tx, held, Counts(4, 0, 0), active_ms=0, rate=None, last_error=None)
        )


async def test_a_second_active_exclusive_job_breaks_the_index_also_without_tenants(store: Store) -> None:
    first = await stored(store, a_job("queued", exclusive=True))
    assert (
        await store.read(
            lambda c: jobs.active_exclusive(c, resource="receipts", action="delete", tenant=None)
        )
        == first.id
    )
    with pytest.raises(sqlite3.IntegrityError):
        await stored(store, a_job("paused", exclusive=True))
    await stored(store, a_job("queued", exclusive=True, tenant="acme"))
    await stored(store, a_job("scheduled", exclusive=True, run_at_ms=START_MS))
    await stored(store, a_job("completed", exclusive=True))


async def test_a_scheduled_exclusive_job_waits_for_the_active_one(store: Store, clock: HandClock) -> None:
    active = await stored(store, a_job("queued", exclusive=True))
    waiting = await stored(
        store, a_job("scheduled", exclusive=True, run_at_ms=START_MS, total=3, frozen=True)
    )
    other = await stored(store, a_job("scheduled", run_at_ms=START_MS + 60_000, total=3, frozen=True))
    assert await store.write(jobs.fire_due) == 0
    due = await store.read(lambda c: jobs.next_due_ms(c, START_MS))
    assert due == START_MS
    later = await store.read(lambda c: jobs.next_due_ms(c, START_MS, after_ms=START_MS))
    assert later == START_MS + 60_000
    await store.write(lambda tx: jobs.cancel(tx, active.id))
    assert await store.write(jobs.fire_due) == 1
    assert (await get(store, waiting)).status is Status.QUEUED
    assert (await get(store, other)).status is Status.SCHEDULED


async def test_a_paused_job_comes_back_at_its_time_with_fresh_limits(store: Store, clock: HandClock) -> None:
    await stored(store, a_job("queued"))
    held = await claim(store)
    assert held is not None
    counted = await store.write(
        lambda tx: jobs.account(tx, held, Counts(1, 0, 0), active_ms=500, rate=None, last_error=None)
    )
    assert counted is not None
    await store.write(
        lambda tx: jobs.pause(
            tx, held.id, code="RUNTIME_CAP", message="", held=True, resume_ms=START_MS + 5000
        )
    )
    assert await store.write(jobs.resume_due) == 0
    clock.advance(5)
    assert await store.write(jobs.resume_due) == 1
    back = await get(store, held)
    assert (back.status, back.stretch_ms, back.stretch_items, back.active_ms) == (Status.QUEUED, 0, 0, 500)
    assert back.status_code is None


async def test_a_dead_process_leaves_its_jobs_to_the_next_with_the_crash_counted(store: Store) -> None:
    await stored(store, a_job("queued"))
    await stored(store, a_job("queued"))
    held = await claim(store, worker=1)
    mine = await claim(store, worker=2)
    assert held is not None
    assert mine is not None
    taken = await store.write(lambda tx: jobs.take_over(tx, generation=2))
    assert [job.id for job in taken] == [held.id]
    assert (taken[0].worker, taken[0].crashes) == (None, 1)
    assert (await get(store, mine)).worker == 2


async def test_starts_are_counted_by_tenant_and_window(store: Store) -> None:
    for at_ms, tenant in ((START_MS, "a"), (START_MS + 10, "a"), (START_MS + 10, None)):
        await stored(store, a_job(tenant=tenant, at_ms=at_ms))
    await stored(store, a_job(tenant="a", at_ms=START_MS + 10, kind="undo"))
    await stored(store, a_job(tenant="a", at_ms=START_MS + 10, source="maintenance"))

    found = await store.read(
        lambda c: jobs.count_starts(
            c, resource="receipts", action="delete", tenant="a", since_ms=START_MS - 1
        )
    )
    assert found == (2, START_MS)
    found = await store.read(
        lambda c: jobs.count_starts(c, resource="receipts", action="delete", tenant="a", since_ms=START_MS)
    )
    assert found == (1, START_MS + 10)
    found = await store.read(
        lambda c: jobs.count_starts(c, resource="receipts", action="delete", tenant=None, since_ms=0)
    )
    assert found == (1, START_MS + 10)


async def test_the_follower_of_a_job_is_the_newest_that_was_asked_in_the_same_way(store: Store) -> None:
    origin = await stored(store, a_job())
    await stored(store, a_job(retry_of=origin.id, request_hash="one"))
    newest = await stored(store, a_job(retry_of=origin.id, request_hash="one"))
    undone = await stored(store, a_job(undo_of=origin.id, request_hash="two", kind="undo"))

    async def follower(request_hash: str) -> str | None:
        found = await store.read(lambda c: jobs.follower(c, origin.id, request_hash))
        return None if found is None else found.id

    assert await follower("one") == newest.id
    assert await follower("two") == undone.id
    assert await follower("three") is None


@pytest.mark.parametrize(
    ("cursor", "total", "percent"),
    [(0, None, None), (0, 0, 100.0), (1, 3, 33.3), (2, 3, 66.6), (999, 1000, 99.9), (99_999, 100_000, 99.9)],
)
def test_percent_has_one_decimal_and_is_floored(
    cursor: int, total: int | None, percent: float | None
) -> None:
    assert jobs.percent(a_job("running", cursor=cursor, total=total, succeeded=cursor)) == percent


def test_an_eta_is_known_only_while_the_job_runs_at_a_known_rate() -> None:
    assert jobs.eta_seconds(a_job("running", total=100, cursor=50, rate=10.0)) == 5.0
    assert jobs.eta_seconds(a_job("running", total=100, cursor=50)) is None
    assert jobs.eta_seconds(a_job("paused", total=100, cursor=50, rate=10.0)) is None


async def test_every_move_leaves_one_event(store: Store) -> None:
    job = await stored(store, a_job("queued"))
    await store.write(lambda tx: jobs.pause(tx, job.id, code="USER", message="m"))
    await store.write(lambda tx: jobs.resume(tx, job.id))
    await store.write(lambda tx: jobs.cancel(tx, job.id))
    await store.write(lambda tx: jobs.cancel(tx, job.id))
    kinds = await store.read(lambda c: [row[0] for row in c.execute("SELECT kind FROM events ORDER BY seq")])
    assert kinds == ["queued", "paused", "resumed", "cancelled"]
