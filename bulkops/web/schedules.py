"""The routes of schedules: what starts by the calendar, and starting it now."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from bulkops.models import JobView, ScheduleBody, ScheduleView
from bulkops.store.idempotency import Idempotency
from bulkops.web import answers, queries
from bulkops.web.jobs import NoBody, answered_once, once
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


def _operation(name: str, method: str, path: str, summary: str, handler: Any, **more: Any) -> Operation:
    return Operation(
        name=name,
        method=method,
        path=f"/api/schedules{path}",
        role="admin",
        summary=summary,
        handler=handler,
        tag="schedules",
        **more,
    )


_START_REFUSALS: Final = (
    *("NOT_FOUND", "FORBIDDEN", "EMPTY_SELECTION", "TOO_MANY_ITEMS"),
    *("CONFIRMATION_REQUIRED", "QUEUE_FULL"),
)

OPERATIONS: Final = (
    _operation(
        "listSchedules",
        "GET",
        "",
        "List schedules; the house's own are shown to owners without a tenant",
        list_schedules,
        query=queries.TenantQuery,
        answers={200: Answer("a page of schedules", answers.SchedulePage)},
    ),
    _operation(
        "createSchedule",
        "POST",
        "",
        "Have a job started by a cron line or an interval; it is judged and confirmed now",
        create,
        body=ScheduleBody,
        idempotent=True,
        answers={201: Answer("the schedule", ScheduleView)},
        refusals=_START_REFUSALS,
    ),
    _operation(
        "deleteSchedule",
        "DELETE",
        "/{schedule}",
        "Delete a schedule; jobs that came of it go on",
        delete,
        body=NoBody,
        body_optional=True,
        answers={204: Answer("deleted")},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
    _operation(
        "runSchedule",
        "POST",
        "/{schedule}/run",
        "Start a schedule's job now, as the caller; when it is due next stays as it is",
        run,
        body=NoBody,
        body_optional=True,
        makes_work=True,
        idempotent=True,
        answers={202: Answer("the job", JobView, headers=("Location",))},
        refusals=(*_START_REFUSALS, "JOB_ACTIVE", "RATE_LIMITED"),
    ),
)
