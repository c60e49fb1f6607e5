"""Jobs that begin when a job completes: whose they are, how they run, and that only tasked resources have any."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bulkops import chains
from bulkops.resources.contract import Completed, FollowUp
from bulkops.settings import ActionSettings
from bulkops.states import Source, Status
from bulkops.store.jobs import JobRow, Knobs
from tests.store_house import a_job


class Chained:
    """The part of a resource that is asked here."""

    identity = "as it is now"

    def __init__(self, *wishes: FollowUp) -> None:
        self.wishes = list(wishes)
        self.asked: list[Completed] = []

    def task_types(self) -> dict[str, str]:
        return {"two_steps": "first"}

    def project_of(self, options: dict[str, Any]) -> str | None:
        return None

    def follow_ups(self, done: Completed) -> list[FollowUp]:
        self.asked.append(done)
        return self.wishes

    def action_settings(self, action: str) -> ActionSettings:
        return ActionSettings(batch_size=7, exclusive=True, max_batch_failures=3)

    def is_final(self, action: str, options: dict[str, Any]) -> bool:
        return action == "final"


def followers(resource: Any, job: JobRow) -> list[JobRow]:
    return chains.followers(resource, job, 5000)


@pytest.fixture
def job() -> JobRow:
    return msgspec.structs.replace(
        a_job("running", tenant="acme", task_id="T", task_type="two_steps", project="summer", succeeded=2),
        knobs=Knobs(undo_s=60), requested_by="ana",
    )  # fmt: skip


def test_a_resource_without_tasks_has_none(job: JobRow) -> None:
    assert followers(None, job) == []
    assert followers(object(), job) == []


def test_a_follower_is_the_same_persons_in_the_same_task(job: JobRow) -> None:
    resource = Chained(FollowUp(action="second", options={"project": "summer"}, priority=80))
    (row,) = followers(resource, job)
    assert (row.requested_by, row.tenant, row.task_id, row.task_type, row.project) == (
        "ana", "acme", "T", "two_steps", "summer"
    )  # fmt: skip
    assert (row.status, row.source, row.priority, row.total) == (
        Status.PREPARING,
        Source.MAINTENANCE,
        80,
        None,
    )
    assert (row.selection.kind, row.selection.stamp_ms, row.queued_ms) == ("all", 5000, 5000)
    assert row.identity == "as it is now"
    (done,) = resource.asked
    assert (done.action, done.undo, done.succeeded, done.maintenance) == (job.action, False, 2, False)


def test_a_follower_runs_as_its_action_is_set_but_never_exclusively(job: JobRow) -> None:
    resource = Chained(
        FollowUp(action="second", options={}, priority=100, maintenance=False),
        FollowUp(action="final", options={}, priority=100),
    )
    second, final = followers(resource, job)
    assert second.source is Source.USER
    assert not second.exclusive, "the end of a job must not fail for another one that is active"
    assert (second.knobs.batch_size, second.knobs.max_batch_failures) == (7, 3)
    assert (second.knobs.undo_s, final.knobs.undo_s) == (60, 0)
