"""What clients see of rows: a `JobRow` becomes a `JobView`, and so on for tasks, trash and history.

What comes in: rows and what only the running process knows (`Progress`); what goes out: wire structs.
Nothing here reads or waits, and nothing is guessed: what is unknown is null.
"""

from __future__ import annotations

from typing import Literal, Protocol, cast

import msgspec

from bulkops.labels import job_label
from bulkops.models import (
    ArtifactView,
    Caller,
    ItemResult,
    JobView,
    Reason,
    Rejected,
    SelectionView,
    TaskJobView,
    TaskView,
    Throttle,
    Touch,
    TrashView,
)
from bulkops.operations import may_see
from bulkops.states import Status, allowed_actions
from bulkops.store import jobs
from bulkops.store.jobs import JobRow, Selection
from bulkops.store.listings import TrashRow
from bulkops.store.tasks import TaskJob, TaskRow, TaskSummary
from bulkops.timing import rfc3339

MAX_IN_PROGRESS = 100
_KINDS = ("ids", "filter", "all", "selection_id")


class Progress(Protocol):
    """What the workers of this process know of the jobs they hold, and no row says."""

    def in_progress(self, job_id: str) -> list[str]: ...
    def throttle(self, job_id: str) -> Throttle | None: ...


class Moment(msgspec.Struct, frozen=True):
    """When rows were read: the log's cursor of the same transaction, and the instant."""

    cursor: str
    now_ms: int


def job_view(
    job: JobRow,
    moment: Moment,
    progress: Progress,
    *,
    artifacts: list[ArtifactView] | None = None,
    rejected: list[Rejected] | msgspec.UnsetType = msgspec.UNSET,
) -> JobView:
    """Show a job as it stood at ``moment``; only the 202 of an ids selection has ``rejected``."""
    return JobView(
        id=job.id,
        resource=job.resource,
        action=job.action,
        label=label_of(job),
        status=job.status,
        terminal=job.terminal,
        outcome=job.outcome,
        status_reason=_status_reason(job),
        allowed_actions=allowed_actions(job.status, failed=job.failed, can_undo=can_undo(job, moment.now_ms)),
        source=job.source,
        task_id=job.task_id,
        task_type=job.task_type,
        project=job.project,
        tenant=job.tenant,
        requested_by=job.requested_by,
        reason=job.reason,
        selection=_selection(job.selection, job.total),
        options=job.options,
        total=job.total,
        processed=job.cursor,
        succeeded=job.succeeded,
        failed=job.failed,
        skipped=job.skipped,
        in_progress=[] if job.terminal else progress.in_progress(job.id)[:MAX_IN_PROGRESS],
        percent=jobs.percent(job),
        items_per_second=None if job.rate is None else round(job.rate, 1),
        eta_seconds=jobs.eta_seconds(job),
        active_seconds=job.active_ms / 1000,
        batch_size=job.knobs.batch_size,
        max_items_per_second=job.knobs.max_items_per_second,
        throttle=None if job.terminal else progress.throttle(job.id),
        priority=job.priority,
        last_error=job.last_error,
        error=job.error,
        artifacts=artifacts or [],
        retry_of=job.retry_of,
        undo_of=job.undo_of,
        undo_until=rfc3339(job.undo_until_ms),
        created_at=instant(job.created_ms),
        run_at=rfc3339(job.run_at_ms),
        started_at=rfc3339(job.started_ms),
        updated_at=instant(job.updated_ms),
        finished_at=rfc3339(job.finished_ms),
        links=links_of(job.id),
        cursor=moment.cursor,
        rejected=rejected,
    )


def instant(at_ms: int) -> str:
    """Write an instant that is always known."""
    return cast("str", rfc3339(at_ms))


def label_of(job: JobRow) -> str:
    """Return what a job is called: its own label, else its action and resource in words."""
    return job.label or job_label(job.action, job.resource, undo=job.kind == "undo")


def can_undo(job: JobRow, now_ms: int) -> bool:
    """Say whether what this job took can still be put back, by its row alone."""
    return (
        job.terminal
        and job.kind == "act"
        and job.succeeded > 0
        and job.undo_until_ms is not None
        and now_ms < job.undo_until_ms
    )


def _status_reason(job: JobRow) -> Reason | None:
    return None if job.status_code is None else Reason(job.status_code, job.status_message or "")


def _selection(selection: Selection, total: int | None) -> SelectionView:
    kind = selection.kind if selection.kind in _KINDS else "ids"
    return SelectionView(
        kind=cast("Literal['ids', 'filter', 'all', 'selection_id']", kind),
        filter=selection.filter,
        count=total if selection.ids is None else len(selection.ids),
        exclude_count=len(selection.exclude_ids),
    )


def links_of(job_id: str) -> dict[str, str]:
    """Return a job's links, as seen from the mount point."""
    here = f"/api/jobs/{job_id}"
    return {
        "self": here,
        "items": f"{here}/items",
        "report": f"{here}/report",
        "events": f"{here}/events",
    }


def with_prefix(view: JobView, prefix: str) -> JobView:
    """Put the mount prefix before every path of a view."""
    if not prefix:
        return view
    return msgspec.structs.replace(
        view,
        links={name: prefix + path for name, path in view.links.items()},
        artifacts=[
            msgspec.structs.replace(each, download_url=prefix + each.download_url) for each in view.artifacts
        ],
    )


def task_view(task: TaskRow, summary: TaskSummary, caller: Caller, *, cursor: str) -> TaskView:
    """Show a task; its counts are of all its jobs, it names those the caller may see."""
    return TaskView(
        id=task.id,
        type=task.type,
        label=task.label,
        project=task.project,
        tenant=task.tenant,
        requested_by=task.requested_by,
        source=task.source,
        status=summary.status,
        total=summary.total,
        processed=summary.processed,
        failed=summary.failed,
        percent=summary.percent,
        jobs=[_task_job(job) for job in summary.jobs if _sees(caller, job)],
        created_at=instant(task.created_ms),
        cursor=cursor,
    )


def _sees(caller: Caller, job: TaskJob) -> bool:
    return may_see(caller, tenant=job.tenant, requested_by=job.requested_by, source=job.source)


def _task_job(job: TaskJob) -> TaskJobView:
    return TaskJobView(
        id=job.id,
        resource=job.resource,
        action=job.action,
        label=job.label or job_label(job.action, job.resource, undo=job.kind == "undo"),
        status=job.status,
        outcome=job.outcome,
        source=job.source,
        total=job.total,
        processed=job.processed,
        failed=job.failed,
    )


def trash_view(row: TrashRow) -> TrashView:
    """Show a thing in the trash."""
    return TrashView(
        job=row.job,
        id=row.item,
        label=row.label,
        resource=row.resource,
        tenant=row.tenant,
        deleted_at=instant(row.created_ms),
        undo_until=rfc3339(row.undo_until_ms),
    )


def touch_view(job: JobRow, result: ItemResult) -> Touch:
    """Show what a job did with one item."""
    return Touch(
        job=job.id,
        resource=job.resource,
        action=job.action,
        label=label_of(job),
        status=Status(job.status),
        outcome=str(result.outcome),
        code=result.code,
        message=result.message,
        requested_by=job.requested_by,
        created_at=instant(job.created_ms),
        finished_at=rfc3339(job.finished_ms),
    )
