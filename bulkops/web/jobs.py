"""The routes of jobs: the list, one job, its knobs and verbs, its items, log and report.

A judged `Call` comes in, a response goes out; what a job may do, the service says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import msgspec
from starlette.responses import Response

from bulkops.models import CancelBody, JobsQuery, JobView, KnobsBody, NoBody, RetryBody, UndoBody
from bulkops.shapes import whole
from bulkops.store.idempotency import Answer as StoredAnswer
from bulkops.store.idempotency import Idempotency
from bulkops.web import answers, queries
from bulkops.web.links import prefixed
from bulkops.web.repeats import answered_once
from bulkops.web.routing import Answer, Call, Operation, accepts, json_answer
from bulkops.web.streaming import streamed

_JOB = Answer("the job", JobView)
_NDJSON: Final = "application/x-ndjson"


async def list_jobs(call: Call) -> Response:
    """`GET /api/jobs`."""
    found = await call.runtime.service.jobs(call.caller, call.query)
    return json_answer(prefixed(found, call.root_path))


async def get_job(call: Call) -> Response:
    """`GET /api/jobs/{id}`, at once or when it ends."""
    wait_s = min(call.query.wait, queries.MAX_WAIT_S)
    job = await call.runtime.service.job(call.caller, call.path["job"], wait_s=wait_s)
    return job_answer(call, job)


async def tune(call: Call) -> Response:
    """`PATCH /api/jobs/{id}`."""
    return job_answer(call, await call.runtime.service.tune(call.caller, call.path["job"], call.body))


async def pause(call: Call) -> Response:
    """`POST /api/jobs/{id}/pause`."""
    return job_answer(call, await call.runtime.service.pause(call.caller, call.path["job"]))


async def resume(call: Call) -> Response:
    """`POST /api/jobs/{id}/resume`."""
    return job_answer(call, await call.runtime.service.resume(call.caller, call.path["job"]))


async def cancel(call: Call) -> Response:
    """`POST /api/jobs/{id}/cancel`."""
    job = await call.runtime.service.cancel(call.caller, call.path["job"], force=call.body.force)
    return job_answer(call, job)


async def retry(call: Call) -> Response:
    """`POST /api/jobs/{id}/retry`."""

    async def act(request: Idempotency | None) -> tuple[JobView, bool]:
        service = call.runtime.service
        return await service.retry(call.caller, call.path["job"], call.body, idempotency=request)

    return await once(call, act)


async def undo(call: Call) -> Response:
    """`POST /api/jobs/{id}/undo`."""

    async def act(request: Idempotency | None) -> tuple[JobView, bool]:
        service = call.runtime.service
        return await service.undo(call.caller, call.path["job"], call.body, idempotency=request)

    return await once(call, act)


async def once(call: Call, act: Callable[[Idempotency | None], Awaitable[tuple[JobView, bool]]]) -> Response:
    """Act once per Idempotency-Key; the same request again gets the same answer.

    ``act`` records the answer in the transaction that makes the job. A refused request records nothing:
    it may be sent again under its key.

    Raises:
        Refusal: (``IDEMPOTENCY_MISMATCH``) the key was used for another request; or what ``act`` refuses.

    """

    async def make(request: Idempotency | None) -> Response:
        return _made(call, *await act(request))

    return await answered_once(call, make, lambda stored: _replayed(call, stored))


def _made(call: Call, job: JobView, fresh: bool) -> Response:  # noqa: FBT001  the service's own pair
    return job_answer(call, job, 202, location=True) if fresh else job_answer(call, job)


def _replayed(call: Call, stored: StoredAnswer) -> Response:
    job = msgspec.json.decode(stored.body, type=whole(JobView))
    return job_answer(call, job, stored.status, location=stored.location is not None)


def job_answer(call: Call, job: JobView, status: int = 200, *, location: bool = False) -> Response:
    """Answer with a job; ``location`` says where it is from now on."""
    headers = {"Location": f"{call.root_path}/api/jobs/{job.id}"} if location else None
    return json_answer(prefixed(job, call.root_path), status, headers)


async def items(call: Call) -> Response:
    """`GET /api/jobs/{id}/items`."""
    query: queries.JobItemsQuery = call.query
    found = await call.runtime.service.job_items(
        call.caller, call.path["job"], outcome=query.outcome, limit=query.limit, page=query.page
    )
    return json_answer(found)


async def errors(call: Call) -> Response:
    """`GET /api/jobs/{id}/errors`."""
    return json_answer(await call.runtime.service.job_errors(call.caller, call.path["job"]))


async def log(call: Call) -> Response:
    """`GET /api/jobs/{id}/log`."""
    return await streamed(await call.runtime.service.job_log(call.caller, call.path["job"]), _NDJSON)


async def report(call: Call) -> Response:
    """`GET /api/jobs/{id}/report`, as a file."""
    query: queries.ReportQuery = call.query
    job = call.path["job"]
    form = query.format or _preferred(call)
    lines = await call.runtime.service.report(call.caller, job, format=form, outcome=query.outcome)
    name = "-".join(["job", job, *([query.outcome] if query.outcome else [])])
    media = "text/csv; charset=utf-8" if form == "csv" else _NDJSON
    return await streamed(lines, media, attachment=f"{name}.{form}")


def _preferred(call: Call) -> Literal["csv", "ndjson"]:
    return "csv" if accepts(call.request.headers.get("accept"), "text/csv") else "ndjson"


def _verb(name: str, handler: Any, summary: str, body: Any = NoBody, **more: Any) -> Operation:
    return Operation(
        name=f"{name}Job",
        method="POST",
        path=f"/api/jobs/{{job}}/{name}",
        role="viewer",
        summary=summary,
        handler=handler,
        tag="jobs",
        body=body,
        body_optional=True,
        answers=more.pop("answers", {200: _JOB}),
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION", *more.pop("refusals", ())),
        **more,
    )


_NEW_JOB: Final = {
    202: Answer("a new job", JobView, headers=("Location",)),
    200: Answer("the job that an earlier call made", JobView),
}

OPERATIONS: Final = (
    Operation(
        name="listJobs",
        method="GET",
        path="/api/jobs",
        role="viewer",
        summary="List jobs, newest first",
        handler=list_jobs,
        tag="jobs",
        query=JobsQuery,
        parse_query=queries.parse_jobs,
        answers={200: Answer("a page of jobs", answers.JobPage)},
    ),
    Operation(
        name="getJob",
        method="GET",
        path="/api/jobs/{job}",
        role="viewer",
        summary="Get one job, at once or when it ends",
        handler=get_job,
        tag="jobs",
        query=queries.WaitQuery,
        answers={200: _JOB},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="tuneJob",
        method="PATCH",
        path="/api/jobs/{job}",
        role="viewer",
        summary="Turn the live knobs of a job",
        handler=tune,
        tag="jobs",
        body=KnobsBody,
        answers={200: _JOB},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
    _verb("pause", pause, "Pause a job after its current batch"),
    _verb("resume", resume, "Let a paused or failed job go on", refusals=("JOB_ACTIVE",)),
    _verb("cancel", cancel, "Cancel a job; what it did stays done", CancelBody),
    _verb(
        "retry",
        retry,
        "Start a job of the items that failed",
        RetryBody,
        answers=_NEW_JOB,
        makes_work=True,
        idempotent=True,
        refusals=("JOB_ACTIVE", "QUEUE_FULL", "STORAGE_FULL"),
    ),
    _verb(
        "undo",
        undo,
        "Start a job that puts back what this one took",
        UndoBody,
        answers=_NEW_JOB,
        makes_work=True,
        idempotent=True,
        refusals=("UNDO_EXPIRED", "JOB_ACTIVE", "QUEUE_FULL", "STORAGE_FULL"),
    ),
    Operation(
        name="listJobItems",
        method="GET",
        path="/api/jobs/{job}/items",
        role="viewer",
        summary="List what became of the items of a job",
        handler=items,
        tag="jobs",
        query=queries.JobItemsQuery,
        answers={200: Answer("a page of outcomes", answers.OutcomePage)},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="listJobErrors",
        method="GET",
        path="/api/jobs/{job}/errors",
        role="viewer",
        summary="Count the failures of a job by code",
        handler=errors,
        tag="jobs",
        answers={200: Answer("failures by code", answers.ErrorGroups)},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="getJobLog",
        method="GET",
        path="/api/jobs/{job}/log",
        role="viewer",
        summary="Read the log lines of a job",
        handler=log,
        tag="jobs",
        answers={200: Answer("lines of JSON", str, (_NDJSON,))},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="getJobReport",
        method="GET",
        path="/api/jobs/{job}/report",
        role="viewer",
        summary="Download the report of a job",
        handler=report,
        tag="jobs",
        query=queries.ReportQuery,
        answers={200: Answer("the report", str, ("text/csv", _NDJSON), ("Content-Disposition",))},
        refusals=("NOT_FOUND",),
    ),
)
