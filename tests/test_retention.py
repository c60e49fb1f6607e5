"""Retention: what is old goes in small steps; what can still be undone or is still needed stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial

import pytest

from bulkops.effects import ItemException
from bulkops.states import Status
from bulkops.store import jobs, retention, selections, tasks
from bulkops.store.jobs import Selection
from bulkops.store.retention import OldJob
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from tests.conftest import HandClock
from tests.store_house import DAY_MS, START_MS, a_job, put, stored, take

TABLES = ("jobs", "manifest", "exceptions", "trash", "selections", "selection_chunks", "tasks")


async def count(store: Store, table: str) -> int:
    assert table in TABLES
    row = await store.read(lambda connection: connection.execute(f"SELECT count(*) FROM {table}").fetchone())
    return int(row[0])


async def exhaust(store: Store, step: Callable[[Tx], int]) -> list[int]:
    """Repeat a step until it removes nothing; return how much each removed."""
    sizes = []
    while size := await store.write(step):
        sizes.append(size)
        assert len(sizes) < 1000
    return sizes


async def _removable(store: Store, before_ms: int) -> list[str]:
    found = await store.read(
        lambda connection: retention.removable_jobs(
            connection, now_ms=store.clock.now_ms(), before_ms=before_ms, after=None, limit=100
        )
    )
    return [job.id for job in found if job.spent]


async def test_images_go_in_small_steps_once_nothing_can_be_undone(store: Store, clock: HandClock) -> None:
    job = await stored(store, a_job(total=120, undo_until_ms=START_MS + DAY_MS))
    await store.write(lambda tx: take(tx, job, [str(number) for number in range(60)]))
    await store.write(lambda tx: take(tx, job, [str(number) for number in range(60)], first=60, listed=False))

    def step(tx: Tx) -> int:
        return retention.empty_trash(tx, job.id, before_ms=START_MS)

    assert await exhaust(store, step) == []
    clock.advance(24 * 3600)
    assert await exhaust(store, step) == [50, 50, 20]
    assert await count(store, "trash") == 0


async def test_images_stay_while_they_are_young_whatever_undo_until_says(store: Store) -> None:
    job = await stored(store, a_job(undo_until_ms=START_MS - 1))
    await store.write(lambda tx: take(tx, job, ["a"]))
    assert await store.write(lambda tx: retention.empty_trash(tx, job.id, before_ms=START_MS - 1)) == 0


@pytest.mark.parametrize(
    "status", [status for status in Status if status not in {"completed", "failed", "cancelled"}]
)
async def test_images_stay_while_their_job_or_its_undo_has_not_ended(store: Store, status: str) -> None:
    live = await stored(store, a_job(status))
    ended = await stored(store, a_job())
    await stored(store, a_job(status, undo_of=ended.id, kind="undo"))
    for job in (live, ended):
        await store.write(partial(take, job=job, labels=["a"]))
        assert await store.write(partial(retention.empty_trash, job_id=job.id, before_ms=START_MS)) == 0


async def test_the_search_for_trash_goes_from_the_oldest_in_pages(store: Store) -> None:
    old = [await stored(store, a_job(at_ms=START_MS - age)) for age in (30, 20, 20, 10)]
    await store.write(lambda tx: take(tx, old[2], ["a"]))
    found: list[OldJob] = []
    after = None
    while page := await store.read(
        partial(retention.jobs_with_trash, before_ms=START_MS - 20, after=after, limit=1)
    ):
        found += page
        after = page[-1]
    assert [(job.id, job.spent) for job in found] == [
        (old[0].id, False),
        *[(job.id, job is old[2]) for job in sorted(old[1:3], key=lambda job: job.id)],
    ]


async def test_a_job_goes_with_all_its_lists_a_bit_at_a_time(store: Store) -> None:
    job = a_job(total=30_000, failed=1200, succeeded=28_800, outcome="partial")
    lost = [ItemException(place, str(place), "failed", "X", "m") for place in range(1200)]
    await stored(store, job, list(range(30_000)), lost)
    assert await _removable(store, START_MS) == [job.id]
    sizes = await exhaust(store, lambda tx: retention.remove_job(tx, job.id, before_ms=START_MS))
    assert sizes == [10, 5, 500, 500, 200, 1]
    assert [await count(store, table) for table in TABLES] == [0] * len(TABLES)


async def test_a_job_that_is_young_undoable_or_unfinished_stays(store: Store) -> None:
    young = await stored(store, a_job(at_ms=START_MS + 1))
    undoable = await stored(store, a_job(undo_until_ms=START_MS + 1))
    running = await stored(store, a_job("running"))
    with_trash = await stored(store, a_job())
    await store.write(lambda tx: take(tx, with_trash, ["a"]))
    assert await _removable(store, START_MS) == []
    for job in (young, undoable, running, with_trash):
        assert await store.write(partial(retention.remove_job, job_id=job.id, before_ms=START_MS)) == 0


async def test_a_job_stays_as_long_as_one_that_retried_or_undid_it(store: Store) -> None:
    first = await stored(store, a_job())
    retry = await stored(store, a_job(retry_of=first.id))
    undo = await stored(store, a_job(undo_of=retry.id, kind="undo"))
    for job, others in ((undo, [first, retry]), (retry, [first]), (first, [])):
        assert await _removable(store, START_MS) == [job.id]
        for other in others:
            step = partial(retention.remove_job, job_id=other.id, before_ms=START_MS)
            assert await store.write(step) == 0
        await exhaust(store, partial(retention.remove_job, job_id=job.id, before_ms=START_MS))
        assert await store.read(partial(jobs.get, job_id=job.id)) is None


async def test_tasks_go_when_their_jobs_are_gone(store: Store) -> None:
    for name in ("old", "used"):
        await store.write(partial(tasks.ensure, task_id=name, task_type="change_commit", requested_by="ana"))
    await stored(store, a_job(task_id="used"))
    assert await store.write(lambda tx: retention.remove_tasks(tx, before_ms=START_MS - 1)) == 0
    assert await exhaust(store, lambda tx: retention.remove_tasks(tx, before_ms=START_MS)) == [1]
    assert await store.read(lambda connection: tasks.get(connection, "used")) is not None


def _upload(tx: Tx, name: str, ids: int) -> None:
    selections.begin(tx, name, tenant=None, requested_by="ana")
    for _ in range(ids):
        selections.add(tx, name, ["x"])


async def test_selections_go_a_day_after_they_expired(store: Store, clock: HandClock) -> None:
    await store.write(lambda tx: _upload(tx, "S", 25))
    clock.advance(47 * 3600)
    assert await exhaust(store, retention.remove_selections) == []
    clock.advance(3600)
    assert await exhaust(store, retention.remove_selections) == [10, 10, 5, 1]
    assert await count(store, "selections") == 0


async def test_an_abandoned_upload_goes_at_once(store: Store) -> None:
    await store.write(lambda tx: _upload(tx, "S", 1))
    await store.write(lambda tx: selections.abandon(tx, "S"))
    assert await exhaust(store, retention.remove_selections) == [1, 1]


@pytest.mark.parametrize(("status", "stays"), [("preparing", True), ("paused", True), ("cancelled", False)])
async def test_a_selection_stays_while_a_job_has_still_to_freeze_it(
    store: Store, clock: HandClock, status: str, stays: bool
) -> None:
    def work(tx: Tx) -> None:
        _upload(tx, "S", 1)
        put(tx, a_job(status, total=None, selection=Selection(kind="selection_id", selection_id="S")))

    await store.write(work)
    clock.advance(50 * 3600)
    await exhaust(store, retention.remove_selections)
    assert await count(store, "selections") == int(stays)


async def test_free_pages_are_given_back_but_for_a_reserve(store: Store) -> None:
    def fill(tx: Tx) -> None:
        tx.connection.execute("CREATE TABLE ballast (x BLOB)")
        tx.connection.execute("INSERT INTO ballast VALUES (zeroblob(4000000))")

    await store.write(fill)
    assert await store.write(retention.vacuum) == 0
    await store.write(lambda tx: tx.connection.execute("DROP TABLE ballast").fetchall())
    sizes = await exhaust(store, retention.vacuum)
    assert len(sizes) > 3
    assert max(sizes) <= 64
    assert await store.read(_free_pages) <= 512


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


async def test_optimising_looks_at_no_more_than_a_bounded_part(store: Store) -> None:
    await store.write(retention.optimize)
    limit = await store.write(lambda tx: tx.connection.execute("PRAGMA analysis_limit").fetchone()[0])
    assert limit == 400
