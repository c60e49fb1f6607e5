"""Which jobs begin when a job completes: the resource's wishes, made into rows of `jobs`.

What comes in: a resource and a job of it that is about to be completed; what goes out: rows, written by whoever
completes the job in the same transaction. They are in `preparing`: what they act on is found out when they run.
"""

from __future__ import annotations

import msgspec

from bulkops.ids import new_id
from bulkops.resources.contract import Completed, FollowUp, Resource, Tasked
from bulkops.states import Source, Status
from bulkops.store.jobs import JobRow, Knobs, Selection


def followers(resource: Resource | None, job: JobRow, now_ms: int) -> list[JobRow]:
    """Make the rows of the jobs that ``job``'s completion begins; none where its resource knows no tasks."""
    tasked = _tasked(resource)
    if resource is None or tasked is None:
        return []
    done = Completed(
        action=job.action, options=job.options, undo=job.kind == "undo", task_type=job.task_type,
        maintenance=job.source is Source.MAINTENANCE, succeeded=job.succeeded,
    )  # fmt: skip
    return [_row(resource, job, wish, now_ms) for wish in tasked.follow_ups(done)]


def _tasked(resource: object) -> Tasked | None:
    return resource if isinstance(resource, Tasked) else None


def _row(resource: Resource, job: JobRow, wish: FollowUp, now_ms: int) -> JobRow:
    return JobRow(
        id=new_id(),
        resource=job.resource,
        action=wish.action,
        tenant=job.tenant,
        requested_by=job.requested_by,
        source=Source.MAINTENANCE if wish.maintenance else Source.USER,
        task_id=job.task_id,
        task_type=job.task_type,
        project=job.project,
        status=Status.PREPARING,
        priority=wish.priority,
        # Not exclusive, whatever the settings say: one that is active must not undo the end of this job.
        exclusive=False,
        selection=Selection(kind="all", stamp_ms=now_ms),
        options=wish.options,
        knobs=_knobs(resource, job, wish),
        identity=resource.identity,
        queued_ms=now_ms,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _knobs(resource: Resource, job: JobRow, wish: FollowUp) -> Knobs:
    settings = resource.action_settings(wish.action)
    names = ("batch_size", "throttle_ms", "max_runtime_s", "auto_resume_s", "max_batch_failures")
    final = resource.is_final(wish.action, wish.options)
    chosen = {name: getattr(settings, name) for name in names}
    return msgspec.structs.replace(Knobs(**chosen), undo_s=0 if final else job.knobs.undo_s)
