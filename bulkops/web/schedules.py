"""The routes of schedules: what starts by the calendar, and starting it now."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.responses import Response

from bulkops.models import JobView, NoBody, ScheduleBody, ScheduleView
from bulkops.store.idempotency import Idempotency
from bulkops.web import answers, queries
from bulkops.web.jobs import once
from bulkops.web.repeats import answered_once
from bulkops.web.routing import JSON, Answer, Call, Operation, json_answer


async def list_schedules(call: Call) -> Response:
    """`GET /api/schedules`."""
    query: queries.TenantQuery = call.query
    found = await call.runtime.service.schedules(
        call.caller, tenant=query.tenant, limit=query.limit, page=query.page
    )
    return json_answer(found)


async def create(call: Call) -> Response:
    """`POST /api/schedules`."""

    async def make(request: Idempotency | None) -> Response:
        service = call.runtime.service
        return json_answer(await service.schedule_create(call.caller, call.body, idempotency=request), 201)

    return await answered_once(
        call, make, lambda stored: Response(stored.body, stored.status, media_type=JSON)
    )


async def delete(call: Call) -> Response:
    """`DELETE /api/schedules/{schedule}`."""
    await call.runtime.service.schedule_delete(call.caller, call.path["schedule"])
    return Response(None, 204)


async def run(call: Call) -> Response:
    """`POST /api/schedules/{schedule}/run`."""

    async def act(request: Idempotency | None) -> tuple[JobView, bool]:
        found = await call.runtime.service.schedule_run(
            call.caller, call.path["schedule"], idempotency=request
        )
        return found, True

    return await once(call, act)


_operation: Final = partial(Operation, role="admin", tag="schedules")


_START_REFUSALS: Final = (
    *("NOT_FOUND", "FORBIDDEN", "EMPTY_SELECTION", "TOO_MANY_ITEMS"),
    *("CONFIRMATION_REQUIRED", "QUEUE_FULL"),
)

OPERATIONS: Final = (
    _operation(
        name="listSchedules",
        method="GET",
        path="/api/schedules",
        summary="List schedules; the house's own are shown to owners without a tenant",
        handler=list_schedules,
        query=queries.TenantQuery,
        answers={200: Answer("a page of schedules", answers.SchedulePage)},
    ),
    _operation(
        name="createSchedule",
        method="POST",
        path="/api/schedules",
        summary="Have a job started by a cron line or an interval; it is judged and confirmed now",
        handler=create,
        body=ScheduleBody,
        idempotent=True,
        answers={201: Answer("the schedule", ScheduleView)},
        refusals=_START_REFUSALS,
    ),
    _operation(
        name="deleteSchedule",
        method="DELETE",
        path="/api/schedules/{schedule}",
        summary="Delete a schedule; jobs that came of it go on",
        handler=delete,
        body=NoBody,
        body_optional=True,
        answers={204: Answer("deleted")},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
    _operation(
        name="runSchedule",
        method="POST",
        path="/api/schedules/{schedule}/run",
        summary="Start a schedule's job now, as the caller; when it is due next stays as it is",
        handler=run,
        body=NoBody,
        body_optional=True,
        makes_work=True,
        idempotent=True,
        answers={202: Answer("the job", JobView, headers=("Location",))},
        refusals=(*_START_REFUSALS, "JOB_ACTIVE", "RATE_LIMITED"),
    ),
)
