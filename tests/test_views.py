"""Views: a row as clients see it, nothing guessed, nothing left out."""

from __future__ import annotations

import msgspec
import pytest

from bulkops.models import ArtifactView, FailureThreshold, ItemError, ItemResult, JobView, Reason, Throttle
from bulkops.progress import Progress
from bulkops.service import views
from bulkops.service.views import Moment
from bulkops.states import Source
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.listings import TrashRow
from bulkops.store.tasks import TaskJob, TaskRow, TaskSummary
from tests.store_house import START_MS, a_caller, a_job

NOW = Moment("k3f9:7", START_MS)
WIRE = [
    "id",
    "resource",
    "action",
    "label",
    "status",
    "terminal",
    "outcome",
    "status_reason",
    "allowed_actions",
    "source",
    "task_id",
    "task_type",
    "project",
    "tenant",
    "requested_by",
    "reason",
    "selection",
    "options",
    "total",
    "processed",
    "succeeded",
    "failed",
    "skipped",
    "in_progress",
    "percent",
    "items_per_second",
    "eta_seconds",
    "active_seconds",
    "batch_size",
    "max_items_per_second",
    "throttle",
    "priority",
    "last_error",
    "error",
    "artifacts",
    "retry_of",
    "undo_of",
    "undo_until",
    "created_at",
    "run_at",
    "started_at",
    "updated_at",
    "finished_at",
    "links",
    "cursor",
]


class Busy:
    """Workers that hold every job."""

    def in_progress(self, job_id: str) -> list[str]:
        return [f"{job_id}-{number}" for number in range(150)]

    def throttle(self, job_id: str) -> Throttle | None:
        return Throttle(0.2, f"others write the file of {job_id}")


def seen(job: JobRow, moment: Moment = NOW) -> JobView:
    return views.job_view(job, moment, Progress())


def test_a_view_has_exactly_the_fields_of_the_contract() -> None:
    assert list(msgspec.to_builtins(seen(a_job()))) == WIRE


def test_the_counts_always_add_up() -> None:
    view = seen(a_job("running", total=7, cursor=6, succeeded=3, failed=2, skipped=1, rate=2.55))
    assert view.processed == view.succeeded + view.failed + view.skipped == 6
    assert view.percent == 85.7
    assert (view.items_per_second, view.eta_seconds) == (2.5, 0.4)


def test_what_is_unknown_is_null() -> None:
    view = seen(a_job("preparing"))
    assert (view.total, view.percent, view.eta_seconds, view.items_per_second) == (None, None, None, None)
    assert (view.status_reason, view.last_error, view.error, view.throttle) == (None, None, None, None)
    assert (view.started_at, view.finished_at, view.run_at, view.undo_until) == (None, None, None, None)
    assert view.selection.count is None


def test_times_knobs_and_errors_are_shown_as_they_are() -> None:
    view = seen(
        a_job(
            "paused",
            cursor=0,
            status_code="RUNTIME_CAP",
            active_ms=1500,
            knobs=Knobs(batch_size=50, max_items_per_second=9.5, failure_threshold=FailureThreshold()),
            last_error=ItemError("IO_ERROR", "no", "7"),
            error=Reason("SCHEMA_CHANGED", "gone"),
            started_ms=START_MS + 1,
        )
    )
    assert view.status_reason == Reason("RUNTIME_CAP", "")
    assert (view.active_seconds, view.batch_size, view.max_items_per_second) == (1.5, 50, 9.5)
    assert view.last_error == ItemError("IO_ERROR", "no", "7")
    assert view.error == Reason("SCHEMA_CHANGED", "gone")
    assert (view.created_at, view.started_at) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z")
    assert view.cursor == "k3f9:7"


def test_what_is_in_progress_is_told_of_jobs_that_have_not_ended() -> None:
    running = views.job_view(a_job("running", id="J", cursor=0), NOW, Busy())
    assert running.in_progress == [f"J-{number}" for number in range(100)]
    assert running.throttle == Throttle(0.2, "others write the file of J")
    ended = views.job_view(a_job(id="J"), NOW, Busy())
    assert (ended.in_progress, ended.throttle) == ([], None)


def test_a_job_is_called_what_it_was_named_or_what_it_does() -> None:
    assert seen(a_job(label="Spring cleaning")).label == "Spring cleaning"
    assert seen(a_job()).label == "Delete receipts"
    assert seen(a_job(kind="undo", undo_of="x")).label == "Undo: Delete receipts"


@pytest.mark.parametrize(
    ("selection", "kind", "count"),
    [
        (Selection(kind="ids", ids=["a", 2]), "ids", 2),
        (Selection(kind="filter", filter={"status": "closed"}), "filter", 3),
        (Selection(kind="selection_id", selection_id="S"), "selection_id", 3),
        (Selection(kind="retry", codes=["IO_ERROR"]), "ids", 3),
    ],
)
def test_a_selection_is_shown_by_its_kind_and_size(selection: Selection, kind: str, count: int) -> None:
    view = seen(a_job(selection=selection)).selection
    assert (view.kind, view.count, view.exclude_count) == (kind, count, 0)
    assert view.filter == selection.filter


def test_undo_is_offered_until_its_time_is_over_and_never_of_an_undo() -> None:
    undoable = a_job(undo_until_ms=START_MS + 1)
    assert "undo" in seen(undoable).allowed_actions
    assert "undo" not in seen(undoable, Moment("k:1", START_MS + 1)).allowed_actions
    assert "undo" not in seen(a_job()).allowed_actions
    assert "undo" not in seen(a_job(kind="undo", undo_until_ms=START_MS + 1)).allowed_actions
    nothing = a_job(skipped=3, succeeded=0, undo_until_ms=START_MS + 1)
    assert "undo" not in seen(nothing).allowed_actions


def test_links_and_downloads_get_the_mount_prefix() -> None:
    artifact = ArtifactView(
        id="A",
        kind="export",
        name="x.csv",
        format="csv",
        status="ready",
        bytes=1,
        rows=1,
        sha256=None,
        download_url="/api/artifacts/A/download",
        created_at="",
        expires_at=None,
    )
    view = views.job_view(a_job(id="J"), NOW, Progress(), artifacts=[artifact])
    assert views.with_prefix(view, "") is view
    mounted = views.with_prefix(view, "/bulk")
    assert mounted.links == {
        "self": "/bulk/api/jobs/J",
        "items": "/bulk/api/jobs/J/items",
        "report": "/bulk/api/jobs/J/report",
        "events": "/bulk/api/jobs/J/events",
    }
    assert mounted.artifacts[0].download_url == "/bulk/api/artifacts/A/download"


def test_a_task_names_only_jobs_that_the_caller_may_see() -> None:
    task = TaskRow("T", "change_commit", "Commit changes", "p", "acme", "ana", Source.USER, START_MS)
    hers, his = (
        TaskJob(user, "photos", "file_removal", "act", None, "running", None, "user", "acme", user, 3, 1, 0)
        for user in ("ana", "bob")
    )
    summary = TaskSummary("running", 6, 2, 0, [hers, his])
    view = views.task_view(task, summary, a_caller("ana", "operator", "acme"), cursor="k:1")
    assert [(job.id, job.label) for job in view.jobs] == [("ana", "Removing files")]
    assert (view.total, view.processed, view.percent) == (6, 2, 33.3)
    assert len(views.task_view(task, summary, a_caller("x", "admin", "acme"), cursor="k:1").jobs) == 2


def test_trash_and_history_are_shown_with_their_job() -> None:
    row = TrashRow("J", 4, "7", "No. 7", "receipts", "acme", START_MS, None)
    view = views.trash_view(row)
    assert (view.job, view.id, view.label, view.tenant) == ("J", "7", "No. 7", "acme")
    assert (view.deleted_at, view.undo_until) == ("2026-01-01T00:00:00.000Z", None)
    touch = views.touch_view(a_job(id="J"), ItemResult("7", "failed", "X", "m"))
    assert (touch.job, touch.outcome, touch.code, touch.status) == ("J", "failed", "X", "completed")
