"""The routes of tasks: what a person intends, and the jobs that it takes.

A judged `Call` comes in, a response goes out.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.responses import Response

from bulkops.models import TaskBody, TaskView
from bulkops.shapes import whole
from bulkops.store.idempotency import Idempotency
from bulkops.web import answers, queries
from bulkops.web.repeats import answered_once
from bulkops.web.routing import Answer, Call, Operation, json_answer


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
        view = await service.task_start(call.caller, task_type, call.body, idempotency=request)
        return _task_answer(call, view)

    return await answered_once(
        call,
        make,
        lambda stored: _task_answer(call, msgspec.json.decode(stored.body, type=whole(TaskView))),
    )


def _task_answer(call: Call, task: TaskView) -> Response:
    return json_answer(task, 202, {"Location": f"{call.root_path}/api/tasks/{task.id}"})


OPERATIONS: Final = (
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
