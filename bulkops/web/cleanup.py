"""The routes of the file deletion queue: run it, count it, list it, try a dead entry again or give it up."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.responses import Response

from bulkops.errors import Refusal
from bulkops.web import answers, queries
from bulkops.web.routing import Answer, Call, Operation, json_answer


async def run(call: Call) -> Response:
    """`POST /api/cleanup/run`."""
    query: queries.CleanupQuery = call.query
    done = await call.runtime.service.cleanup_run(
        call.caller, batch_size=query.batch_size, max_attempts=query.max_attempts
    )
    return json_answer(done)


async def stats(call: Call) -> Response:
    """`GET /api/cleanup/stats`."""
    return json_answer(await call.runtime.service.cleanup_stats(call.caller))


async def items(call: Call) -> Response:
    """`GET /api/cleanup/items`."""
    query: queries.PageQuery = call.query
    found = await call.runtime.service.cleanup_items(call.caller, limit=query.limit, page=query.page)
    return json_answer(found)


async def requeue(call: Call) -> Response:
    """`POST /api/cleanup/items/{entry}/requeue`."""
    return json_answer(await call.runtime.service.cleanup_requeue(call.caller, _entry(call)))


async def drop(call: Call) -> Response:
    """`DELETE /api/cleanup/items/{entry}`."""
    await call.runtime.service.cleanup_drop(call.caller, _entry(call))
    return Response(None, 204)


def _entry(call: Call) -> int:
    text = call.path["entry"]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal("NOT_FOUND", "")
    return int(text)


_operation: Final = partial(Operation, role="admin", tag="cleanup")


OPERATIONS: Final = (
    _operation(
        name="runCleanup",
        method="POST",
        path="/api/cleanup/run",
        summary="Work off the file deletion queue, for at most ten seconds",
        handler=run,
        query=queries.CleanupQuery,
        makes_work=True,
        answers={200: Answer("what was done", answers.CleanupRun)},
    ),
    _operation(
        name="getCleanupStats",
        method="GET",
        path="/api/cleanup/stats",
        summary="Count the file deletion queue",
        handler=stats,
        answers={200: Answer("the queue in numbers", answers.CleanupStats)},
    ),
    _operation(
        name="listCleanupItems",
        method="GET",
        path="/api/cleanup/items",
        summary="List what is pending, retrying or dead",
        handler=items,
        query=queries.PageQuery,
        answers={200: Answer("a page of entries", answers.CleanupPage)},
    ),
    _operation(
        name="requeueCleanupItem",
        method="POST",
        path="/api/cleanup/items/{entry}/requeue",
        summary="Try a dead entry again",
        handler=requeue,
        answers={200: Answer("the entry", answers.Requeued)},
        refusals=("NOT_FOUND",),
    ),
    _operation(
        name="dropCleanupItem",
        method="DELETE",
        path="/api/cleanup/items/{entry}",
        summary="Give an entry up: its file stays where it is",
        handler=drop,
        answers={204: Answer("given up")},
        refusals=("NOT_FOUND",),
    ),
)
