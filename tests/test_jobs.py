"""Rows of jobs: as they are written, counted, found again and moved."""

from __future__ import annotations

import sqlite3

import pytest

from bulkops.models import FailureThreshold, ItemError
from bulkops.store import jobs
from bulkops.store.jobs import Counts, Knobs, Selection
from bulkops.store.store import Store
from tests.store_house import START_MS, a_job, claim, current, stored


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
    assert await current(store, job) == job


async def test_an_unknown_job_is_none(store: Store) -> None:
    assert await store.read(lambda connection: jobs.get(connection, "nobody")) is None


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
    assert (await current(store, held)).cursor == 2


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


@pytest.mark.parametrize(
    ("tenant", "since_ms", "until_ms", "count", "oldest_ms"),
    [
        ("a", START_MS - 1, START_MS + 10, 2, START_MS),
        ("a", START_MS, START_MS + 10, 1, START_MS + 10),
        ("a", START_MS - 1, START_MS + 9, 1, START_MS),
        (None, 0, START_MS + 10, 1, START_MS + 10),
        ("b", 0, START_MS + 10, 0, None),
    ],
)
async def test_starts_are_counted_by_tenant_and_window(
    store: Store, tenant: str | None, since_ms: int, until_ms: int, count: int, oldest_ms: int | None
) -> None:
    for at_ms, whose in ((START_MS, "a"), (START_MS + 10, "a"), (START_MS + 10, None)):
        await stored(store, a_job(tenant=whose, at_ms=at_ms))
    await stored(store, a_job(tenant="a", at_ms=START_MS + 10, kind="undo"))
    await stored(store, a_job(tenant="a", at_ms=START_MS + 10, source="maintenance"))

    found = await store.read(
        lambda c: jobs.count_starts(
            c, resource="receipts", action="delete", tenant=tenant, since_ms=since_ms, until_ms=until_ms
        )
    )
    assert found == (count, oldest_ms)


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
