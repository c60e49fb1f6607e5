"""The routes of resources: what there is, browsing, previews, starts, uploads and the trash.

A judged `Call` comes in, a response goes out; the service decides who may do what to which items.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.responses import Response

from bulkops.errors import invalid_field
from bulkops.models import Input, ItemsQuery, JobView, Preview, SelectionReceipt, StartBody, ValidateBody
from bulkops.service.pages import Whole, page_of, read_token, write_token
from bulkops.store.idempotency import Idempotency
from bulkops.web import answers, queries, uploads
from bulkops.web.jobs import job_answer, once
from bulkops.web.routing import Answer, Call, Operation, json_answer

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,4})\"?", re.IGNORECASE)
MAX_PREFERRED_WAIT_S: Final = 60


async def catalog(call: Call) -> Response:
    """`GET /api/resources`: all of them, unless a page of fewer is asked for."""
    query: queries.CatalogQuery = call.query
    found = await call.runtime.service.catalog(call.caller)
    first = (read_token(query.page, "resources", tuple[Whole]) or (0,))[0]
    end = first + query.limit
    return json_answer(page_of(found[first:end], write_token("resources", end) if end < len(found) else None))


async def info(call: Call) -> Response:
    """`GET /api/bulk/{resource}/info`."""
    return json_answer(await call.runtime.service.info(call.caller, call.path["resource"]))


async def items(call: Call) -> Response:
    """`GET /api/bulk/{resource}/items`."""
    return json_answer(await call.runtime.service.items(call.caller, call.path["resource"], call.query))


async def history(call: Call) -> Response:
    """`GET /api/bulk/{resource}/items/{item}/history`."""
    query: queries.TenantQuery = call.query
    found = await call.runtime.service.history(
        call.caller,
        call.path["resource"],
        call.path["item"],
        tenant=query.tenant,
        limit=query.limit,
        page=query.page,
    )
    return json_answer(found)


async def validate(call: Call) -> Response:
    """`POST /api/bulk/{resource}/validate`."""
    return json_answer(await call.runtime.service.validate(call.caller, call.path["resource"], call.body))


async def start(call: Call) -> Response:
    """`POST /api/bulk/{resource}/{action}`."""

    async def act(request: Idempotency | None) -> tuple[JobView, bool]:
        return await _start(call, call.path["action"], call.body, request), True

    return await once(call, act)


async def _start(call: Call, action: str, body: StartBody, request: Idempotency | None) -> JobView:
    service, resource = call.runtime.service, call.path["resource"]
    return await service.start(call.caller, resource, action, body, idempotency=request)


class RemoveBody(Input, frozen=True, kw_only=True):
    """What ``DELETE`` of one item may say; all of it may be left out."""

    options: dict[str, Any] = msgspec.field(default_factory=dict)
    confirm: str | None = None
    reason: str | None = None
    tenant: str | None = None


async def remove(call: Call) -> Response:
    """`DELETE /api/bulk/{resource}/items/{item}`: a job of one item, waited for where that is preferred."""
    body = _one_item(call.path["item"], call.body, call.query)

    async def act(request: Idempotency | None) -> tuple[JobView, bool]:
        return await _start(call, "delete", body, request), True

    wait_s = preferred_wait_s(call.request.headers.get("prefer"))
    response = await once(call, act)
    if not wait_s:
        return response
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    job_id = response.headers["Location"].rpartition("/")[2]
    job = await call.runtime.service.job(call.caller, job_id, wait_s=wait_s)
    if not job.terminal:
        return response
    ended = job_answer(call, job, location=True)
    ended.headers["Preference-Applied"] = f"wait={wait_s}"
    return ended


def _one_item(item: str, body: RemoveBody, query: queries.RemoveQuery) -> StartBody:
    for name in ("confirm", "tenant"):
        if getattr(body, name) is not None and getattr(query, name) is not None:
            raise invalid_field(f"/{name}", "stands in the query and in the body")
    return StartBody(
        ids=[item],
        options=dict(body.options),
        confirm=body.confirm or query.confirm,
        reason=body.reason,
        tenant=body.tenant or query.tenant,
    )


def preferred_wait_s(header: str | None) -> int:
    """Read how long the client would rather wait than be sent away (RFC 7240, 4.3); 0 without a wish."""
    found = _WAIT.search(header or "")
    return min(int(found[1]), MAX_PREFERRED_WAIT_S) if found else 0


async def upload(call: Call) -> Response:
    """`POST /api/selections`: more ids than a body may have, as a stream."""
    content_type = call.request.headers.get("content-type")
    uploads.reader_of(content_type)
    pages = uploads.read_ids(call.request.stream(), content_type)
    return json_answer(await call.runtime.service.upload_selection(call.caller, pages), 201)


async def trash(call: Call) -> Response:
    """`GET /api/trash`."""
    query: queries.TrashQuery = call.query
    found = await call.runtime.service.trash(
        call.caller, q=query.q, tenant=query.tenant, limit=query.limit, page=query.page
    )
    return json_answer(found)


_STARTS: Final = (
    "NOT_FOUND",
    "EMPTY_SELECTION",
    "TOO_MANY_ITEMS",
    "CONFIRMATION_REQUIRED",
    "COUNT_CHANGED",
    "JOB_ACTIVE",
    "RATE_LIMITED",
    "QUEUE_FULL",
    "STORAGE_FULL",
    "EXPIRED",
)

OPERATIONS: Final = (
    Operation(
        name="listResources",
        method="GET",
        path="/api/resources",
        role="viewer",
        summary="List resources and actions this caller may use",
        handler=catalog,
        tag="resources",
        query=queries.CatalogQuery,
        answers={200: Answer("the resources", answers.Catalog)},
    ),
    Operation(
        name="getResourceInfo",
        method="GET",
        path="/api/bulk/{resource}/info",
        role="viewer",
        summary="Count a resource by status; its limits, actions and columns",
        handler=info,
        tag="resources",
        answers={200: Answer("the resource", dict[str, Any])},
        refusals=("NOT_FOUND", "QUEUE_FULL"),
    ),
    Operation(
        name="listItems",
        method="GET",
        path="/api/bulk/{resource}/items",
        role="viewer",
        summary="Browse items; other parameters are columns: `status=closed`, `created_at.lt=2026-01-01`",
        handler=items,
        tag="resources",
        query=ItemsQuery,
        parse_query=queries.parse_items,
        answers={200: Answer("a page of items", answers.ItemPage)},
        refusals=("NOT_FOUND", "QUEUE_FULL"),
    ),
    Operation(
        name="removeItem",
        method="DELETE",
        path="/api/bulk/{resource}/items/{item}",
        role="viewer",
        summary="Delete one item: a job of one; `Prefer: wait=5` waits for it",
        handler=remove,
        tag="resources",
        query=queries.RemoveQuery,
        body=RemoveBody,
        body_optional=True,
        answers={
            202: Answer("the job", JobView, headers=("Location",)),
            200: Answer("the job, ended within the preferred wait", JobView, headers=("Location",)),
        },
        makes_work=True,
        idempotent=True,
        refusals=_STARTS,
    ),
    Operation(
        name="listItemHistory",
        method="GET",
        path="/api/bulk/{resource}/items/{item}/history",
        role="viewer",
        summary="List the jobs that touched an item",
        handler=history,
        tag="resources",
        query=queries.TenantQuery,
        answers={200: Answer("a page of jobs and what they did to it", answers.TouchPage)},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="validate",
        method="POST",
        path="/api/bulk/{resource}/validate",
        role="viewer",
        summary="Preview an action; changes nothing",
        handler=validate,
        tag="resources",
        body=ValidateBody,
        answers={200: Answer("the preview", Preview)},
        refusals=("NOT_FOUND", "EMPTY_SELECTION", "TOO_MANY_ITEMS", "EXPIRED", "QUEUE_FULL"),
    ),
    Operation(
        name="startJob",
        method="POST",
        path="/api/bulk/{resource}/{action}",
        role="viewer",
        summary="Start an action on a selection of items",
        handler=start,
        tag="resources",
        body=StartBody,
        answers={202: Answer("the job", JobView, headers=("Location",))},
        makes_work=True,
        idempotent=True,
        refusals=_STARTS,
    ),
    Operation(
        name="uploadSelection",
        method="POST",
        path="/api/selections",
        role="operator",
        summary="Upload a long list of ids, one a line; objects and tables have them under `id`",
        handler=upload,
        tag="resources",
        upload=uploads.MEDIA_TYPES,
        answers={201: Answer("the selection", SelectionReceipt)},
        makes_work=True,
        refusals=("EMPTY_SELECTION", "TOO_MANY_ITEMS", "STORAGE_FULL"),
    ),
    Operation(
        name="listTrash",
        method="GET",
        path="/api/trash",
        role="viewer",
        summary="List what is in the trash",
        handler=trash,
        tag="resources",
        query=queries.TrashQuery,
        answers={200: Answer("a page of what can be put back", answers.TrashPage)},
    ),
)
