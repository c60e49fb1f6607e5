"""The routes of jobs and tasks: lists, one job, its knobs and verbs, its items, log and report.

A judged `Call` comes in, a response goes out; what a job may do, the service says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from bulkops.models import (
    CancelBody,
    Input,
    JobsQuery,
    JobView,
    KnobsBody,
    RetryBody,
    TaskBody,
    TaskView,
    UndoBody,
)
from bulkops.store import idempotency
from bulkops.store.idempotency import Answer as StoredAnswer
from bulkops.store.idempotency import Idempotency
from bulkops.web import answers, queries
from bulkops.web.links import prefixed
from bulkops.web.routing import Answer, Call, Operation, json_answer

_JOB = Answer("the job", JobView)
_NDJSON: Final = "application/x-ndjson"


async def list_jobs(call: Call) -> Response:
    """`GET /api/jobs`."""
    found = await call.runtime.service.jobs(call.caller, call.query)
    return json_answer(prefixed(found, call.root_path))


async def get_job(call: Call) -> Response:
    """`GET /api/jobs/{id}`, at once or when it ends."""
    job = await call.runtime.service.job(call.caller, call.path["job"], wait_s=call.query.wait)
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
        if request is None:
            return await service.retry(call.caller, call.path["job"], call.body)
        return await service.retry(call.caller, call.path["job"], call.body, idempotency=request)

    return await once(call, act)


async def undo(call: Call) -> Response:
    """`POST /api/jobs/{id}/undo`."""

    async def act(request: Idempotency | None) -> tuple[JobView, bool]:
        service = call.runtime.service
        if request is None:
            return await service.undo(call.caller, call.path["job"], call.body)
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


async def answered_once(
    call: Call,
    make: Callable[[Idempotency | None], Awaitable[Response]],
    replay: Callable[[StoredAnswer], Response],
) -> Response:
    """Make an answer once per Idempotency-Key, whatever it is of; ``replay`` writes it anew from what was kept.

    Raises:
        Refusal: as `once`.
    """
    key = idempotency.parse_key(call.request.headers.getlist("idempotency-key"))
    if key is None:
        return await make(None)
    path = call.request.scope["path"].removeprefix(call.request.scope.get("root_path", ""))
    request = idempotency.mark(call.caller, key, method=call.request.method, path=path, body=call.canonical)
    store = call.runtime.store
    async with call.door.in_flight.turn(request):
        now_ms = store.clock.now_ms()
        stored = await store.read(lambda connection: idempotency.lookup(connection, request, now_ms))
        if stored is not None:
            return replay(stored)
        return await make(request)


def _made(call: Call, job: JobView, fresh: bool) -> Response:  # noqa: FBT001  the service's own pair
    return job_answer(call, job, 202, location=True) if fresh else job_answer(call, job)


def _replayed(call: Call, stored: StoredAnswer) -> Response:
    job = msgspec.json.decode(stored.body, type=JobView)
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
    lines = await call.runtime.service.report(call.caller, job, format=query.format, outcome=query.outcome)
    name = "-".join(["job", job, *([query.outcome] if query.outcome else [])])
    media = "text/csv; charset=utf-8" if query.format == "csv" else _NDJSON
    return await streamed(lines, media, attachment=f"{name}.{query.format}")


async def streamed(lines: AsyncIterator[bytes], media: str, *, attachment: str | None = None) -> Response:
    """Stream lines, once the first is there: until then a refusal is still an answer of its own."""
    try:
        first = await anext(lines)
    except StopAsyncIteration:
        first = b""
    headers = {} if attachment is None else {"Content-Disposition": disposition(attachment)}
    headers["X-Accel-Buffering"] = "no"
    return StreamingResponse(_all(first, lines), headers=headers, media_type=media)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        # The client may leave in the middle: whatever the stream holds is let go now, not at some collection.
        if hasattr(rest, "aclose"):
            await rest.aclose()


def disposition(name: str) -> str:
    """Write a Content-Disposition for a name of our making; whatever else is in it becomes ``_``."""
    safe = "".join(each if each.isascii() and (each.isalnum() or each in "-._") else "_" for each in name)
    return f'attachment; filename="{safe[:120]}"'


async def tasks(call: Call) -> Response:
    """`GET /api/tasks`."""
    query: queries.TasksQuery = call.query
    found = await call.runtime.service.tasks(
        call.caller,
        type=query.type,
        project=query.project,
        tenant=query.tenant,
        show_maintenance=query.show_maintenance,
        limit=query.limit,
        page=query.page,
    )
    return json_answer(found)


async def task(call: Call) -> Response:
    """`GET /api/tasks/{id}`."""
    return json_answer(await call.runtime.service.task(call.caller, call.path["task"]))


async def start_task(call: Call) -> Response:
    """`POST /api/tasks/{type}`."""

    async def make(request: Idempotency | None) -> Response:
        service, task_type = call.runtime.service, call.path["task"]
        if request is None:
            return _task_answer(call, await service.task_start(call.caller, task_type, call.body))
        view = await service.task_start(call.caller, task_type, call.body, idempotency=request)
        return _task_answer(call, view)

    return await answered_once(
        call, make, lambda stored: _task_answer(call, msgspec.json.decode(stored.body, type=TaskView))
    )


def _task_answer(call: Call, task: TaskView) -> Response:
    return json_answer(task, 202, {"Location": f"{call.root_path}/api/tasks/{task.id}"})


class NoBody(Input, frozen=True, kw_only=True):
    """A body that says nothing: ``{}``, or none at all."""


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
    Operation(
        name="listTasks",
        method="GET",
        path="/api/tasks",
        role="viewer",
        summary="List tasks, newest first",
        handler=tasks,
        tag="tasks",
        query=queries.TasksQuery,
        answers={200: Answer("a page of tasks", answers.TaskPage)},
    ),
    Operation(
        name="getTask",
        method="GET",
        path="/api/tasks/{task}",
        role="viewer",
        summary="Get one task and its jobs",
        handler=task,
        tag="tasks",
        answers={200: Answer("the task", TaskView)},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="startTask",
        method="POST",
        path="/api/tasks/{task}",
        role="viewer",
        summary="Start a task of the type in the path, such as `change_commit`, on a project",
        handler=start_task,
        tag="tasks",
        body=TaskBody,
        answers={202: Answer("the task and its first job", TaskView, headers=("Location",))},
        makes_work=True,
        idempotent=True,
        refusals=(
            *("NOT_FOUND", "CONFIRMATION_REQUIRED", "COUNT_CHANGED", "JOB_ACTIVE", "TOO_MANY_ITEMS"),
            *("RATE_LIMITED", "QUEUE_FULL", "STORAGE_FULL"),
        ),
    ),
)
