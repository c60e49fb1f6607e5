"""Tasks: made once, and always what their jobs add up to."""

from __future__ import annotations

from typing import Any

import pytest

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.states import Source, Status
from bulkops.store import tasks
from bulkops.store.listings import sight_of
from bulkops.store.store import Store
from bulkops.store.tasks import TaskRow, TaskSummary
from tests.conftest import HandClock
from tests.store_house import OWNER, a_caller, a_job, stored


async def _made(store: Store, task_id: str = "T", task_type: str = "change_commit", **fields: Any) -> TaskRow:
    values: dict[str, Any] = {"requested_by": "ana", **fields}
    return await store.write(lambda tx: tasks.ensure(tx, task_id, task_type, **values))


async def _summary(store: Store, task_id: str = "T") -> TaskSummary:
    return await store.read(lambda connection: tasks.summary(connection, task_id))


async def test_a_task_is_made_once_and_then_stays_as_it_is(store: Store, clock: HandClock) -> None:
    first = await _made(store, project="summer")
    clock.advance(5)
    assert await _made(store, task_type="other", project="winter") == first
    assert (first.label, first.project, first.source) == ("Commit changes", "summer", Source.USER)
    assert await store.read(lambda connection: tasks.get(connection, "T")) == first
    assert await store.read(lambda connection: tasks.get(connection, "U")) is None


async def test_another_tenants_task_cannot_be_joined(store: Store) -> None:
    await _made(store, tenant="acme")
    with pytest.raises(Refusal) as refusal:
        await _made(store, tenant="rival")
    assert refusal.value.extra["errors"][0]["pointer"] == "/task_id"


async def test_a_task_without_jobs_is_queued_with_nothing_to_do(store: Store) -> None:
    await _made(store)
    assert await _summary(store) == TaskSummary("queued", 0, 0, 0, [])


async def test_counts_are_those_of_all_its_jobs(store: Store) -> None:
    await _made(store)
    await stored(store, a_job(task_id="T", total=3, failed=1, succeeded=2, outcome="partial"))
    await stored(store, a_job("running", task_id="T", total=4, cursor=1))
    await stored(store, a_job("running", total=100))
    summary = await _summary(store)
    assert (summary.status, summary.total, summary.processed, summary.failed) == ("running", 7, 4, 1)
    assert summary.percent == 57.1
    assert len(summary.jobs) == 2
    assert await store.read(lambda connection: tasks.count_unfinished(connection, "T")) == 1


async def test_the_total_is_unknown_while_a_job_is_still_preparing(store: Store) -> None:
    await _made(store)
    await stored(store, a_job(task_id="T"))
    await stored(store, a_job("preparing", task_id="T"))
    summary = await _summary(store)
    assert (summary.total, summary.percent) == (None, None)


async def test_a_job_that_ended_before_it_had_a_total_counts_as_nothing(store: Store) -> None:
    await _made(store)
    await stored(store, a_job("cancelled", task_id="T", total=None))
    summary = await _summary(store)
    assert (summary.status, summary.total, summary.percent) == ("cancelled", 0, 100.0)


@pytest.mark.parametrize(
    ("jobs", "status"),
    [
        ({Status.COMPLETED: 2, Status.RUNNING: 1}, "running"),
        ({Status.QUEUED: 1, Status.PAUSED: 1}, "queued"),
        ({Status.COMPLETED: 1, Status.QUEUED: 1}, "running"),
        ({Status.PAUSING: 1}, "running"),
        ({Status.CANCELLING: 1, Status.PAUSED: 1}, "running"),
        ({Status.COMPLETED: 1, Status.PAUSED: 1}, "paused"),
        ({Status.SCHEDULED: 1}, "scheduled"),
        ({Status.COMPLETED: 5, Status.CANCELLED: 1}, "cancelled"),
        ({Status.COMPLETED: 5, Status.CANCELLED: 1, Status.FAILED: 1}, "failed"),
        ({Status.COMPLETED: 5}, "completed"),
    ],
)
def test_a_task_stands_where_its_least_finished_job_stands(jobs: dict[Status, int], status: str) -> None:
    assert tasks.status_of(jobs) == status


async def _listed(store: Store, caller: Caller, **filters: Any) -> list[str]:
    sight = sight_of(caller)
    assert sight is not None
    rows = await store.read(lambda connection: tasks.newest(connection, sight, limit=10, **filters))
    return [row.id for row in rows]


async def test_lists_are_newest_first_and_within_what_the_caller_may_see(
    store: Store, clock: HandClock
) -> None:
    await _made(store, "b", tenant="acme")
    await _made(store, "a", tenant="acme", requested_by="bob")
    clock.advance(1)
    await _made(store, "c", tenant="rival", project="p")
    await _made(store, "m", task_type="trash_maintenance", source=Source.MAINTENANCE)
    assert await _listed(store, OWNER) == ["c", "b", "a"]
    assert await _listed(store, OWNER, maintenance=True) == ["m", "c", "b", "a"]
    assert await _listed(store, a_caller("x", "admin"), maintenance=True) == ["c", "b", "a"]
    assert await _listed(store, a_caller("x", "admin", "acme"), maintenance=True) == ["b", "a"]
    assert await _listed(store, a_caller("bob", "operator", "acme")) == ["a"]
    assert await _listed(store, OWNER, project="p") == ["c"]
    assert await _listed(store, OWNER, task_type="other") == []
    row = await store.read(lambda connection: tasks.get(connection, "b"))
    assert row is not None
    assert await _listed(store, OWNER, before=(row.created_ms, "b")) == ["a"]


async def test_the_end_of_a_task_is_noted_once_until_it_is_taken_back(store: Store) -> None:
    await _made(store)
    assert await store.write(lambda tx: tasks.end(tx, "T"))
    assert not await store.write(lambda tx: tasks.end(tx, "T"))
    await store.write(lambda tx: tasks.reopen(tx, "T"))
    assert await store.write(lambda tx: tasks.end(tx, "T"))
