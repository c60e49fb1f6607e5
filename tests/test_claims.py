"""The line of jobs: who is next, who holds which, and who joins it when the time has come."""

from __future__ import annotations

from bulkops.states import Status
from bulkops.store import claims, jobs
from bulkops.store.jobs import Counts
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import START_MS, a_job, claim, current, stored


async def test_the_line_goes_by_priority_then_by_time(store: Store) -> None:
    late = await stored(store, a_job("queued", queued_ms=START_MS + 5))
    early = await stored(store, a_job("queued", queued_ms=START_MS))
    urgent = await stored(store, a_job("queued", queued_ms=START_MS + 9, priority=101))
    order = [await claim(store) for _ in range(4)]
    assert [job.id if job else None for job in order] == [urgent.id, early.id, late.id, None]


async def test_a_claim_starts_a_queued_job_and_tells_so_once(store: Store, clock: HandClock) -> None:
    job = await stored(store, a_job("queued"))
    claimed = await claim(store)
    assert claimed is not None
    assert (claimed.status, claimed.worker, claimed.started_ms) == (Status.RUNNING, 1, START_MS)
    await store.write(lambda tx: claims.release(tx, claimed))
    clock.advance(1)
    again = await claim(store)
    assert again is not None
    assert (again.status, again.started_ms) == (Status.RUNNING, START_MS)
    kinds = await store.read(
        lambda c: [
            row[0] for row in c.execute("SELECT kind FROM events WHERE job = ? ORDER BY seq", [job.id])
        ]
    )
    assert kinds == ["queued", "started"]


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
    await store.write(lambda tx: claims.release(tx, held, not_before_ms=START_MS + 1000))
    assert await claim(store) is None
    assert await store.read(claims.line_length) == 1
    assert await store.read(lambda c: claims.ready_length(c, now_ms=clock.now_ms())) == 0
    assert await store.read(lambda c: claims.next_due_ms(c, clock.now_ms())) == START_MS + 1000
    assert not await store.read(lambda c: claims.anybody_in_line(c, preparing=False, now_ms=clock.now_ms()))
    clock.advance(1)
    assert await store.read(lambda c: claims.anybody_in_line(c, preparing=False, now_ms=clock.now_ms()))
    assert await claim(store) is not None


async def test_only_the_holder_releases_a_job(store: Store) -> None:
    await stored(store, a_job("queued"))
    held = await claim(store, worker=2)
    assert held is not None
    await store.write(lambda tx: claims.release(tx, a_job("running", id=held.id, worker=1)))
    assert (await current(store, held)).worker == 2


async def test_a_scheduled_exclusive_job_waits_for_the_active_one(store: Store, clock: HandClock) -> None:
    active = await stored(store, a_job("queued", exclusive=True))
    waiting = await stored(
        store, a_job("scheduled", exclusive=True, run_at_ms=START_MS, total=3, frozen=True)
    )
    other = await stored(store, a_job("scheduled", run_at_ms=START_MS + 60_000, total=3, frozen=True))
    assert await store.write(claims.fire_due) == 0
    due = await store.read(lambda c: claims.next_due_ms(c, START_MS))
    assert due == START_MS
    later = await store.read(lambda c: claims.next_due_ms(c, START_MS, after_ms=START_MS))
    assert later == START_MS + 60_000
    await store.write(lambda tx: jobs.cancel(tx, active.id))
    assert await store.write(claims.fire_due) == 1
    assert (await current(store, waiting)).status is Status.QUEUED
    assert (await current(store, other)).status is Status.SCHEDULED


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
    assert await store.write(claims.resume_due) == 0
    clock.advance(5)
    assert await store.write(claims.resume_due) == 1
    back = await current(store, held)
    assert (back.status, back.stretch_ms, back.stretch_items, back.active_ms) == (Status.QUEUED, 0, 0, 500)
    assert back.status_code is None


async def test_a_dead_process_leaves_its_jobs_to_the_next_with_the_crash_counted(store: Store) -> None:
    await stored(store, a_job("queued"))
    await stored(store, a_job("queued"))
    held = await claim(store, worker=1)
    mine = await claim(store, worker=2)
    assert held is not None
    assert mine is not None
    taken = await store.write(lambda tx: claims.take_over(tx, generation=2))
    assert [job.id for job in taken] == [held.id]
    assert (taken[0].worker, taken[0].crashes) == (None, 1)
    assert (await current(store, mine)).worker == 2
