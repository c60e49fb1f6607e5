"""The routes of webhooks: who outside is told of jobs, what was told, and what is told again."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.responses import Response

from bulkops.models import NoBody, WebhookBody
from bulkops.web import answers, queries
from bulkops.web.routing import Answer, Call, Operation, json_answer


async def list_webhooks(call: Call) -> Response:
    """`GET /api/webhooks`."""
    query: queries.TenantQuery = call.query
    found = await call.runtime.service.webhooks(
        call.caller, tenant=query.tenant, limit=query.limit, page=query.page
    )
    return json_answer(found)


async def create(call: Call) -> Response:
    """`POST /api/webhooks`."""
    return json_answer(await call.runtime.service.webhook_create(call.caller, call.body), 201)


async def delete(call: Call) -> Response:
    """`DELETE /api/webhooks/{webhook}`."""
    await call.runtime.service.webhook_delete(call.caller, call.path["webhook"])
    return Response(None, 204)


async def test(call: Call) -> Response:
    """`POST /api/webhooks/{webhook}/test`."""
    return json_answer(await call.runtime.service.webhook_test(call.caller, call.path["webhook"]), 202)


async def list_deliveries(call: Call) -> Response:
    """`GET /api/webhooks/{webhook}/deliveries`."""
    query: queries.DeliveriesQuery = call.query
    found = await call.runtime.service.webhook_deliveries(
        call.caller, call.path["webhook"], state=query.state, limit=query.limit, page=query.page
    )
    return json_answer(found)


async def resend(call: Call) -> Response:
    """`POST /api/webhooks/{webhook}/deliveries/{delivery}/resend`."""
    found = await call.runtime.service.webhook_resend(
        call.caller, call.path["webhook"], call.path["delivery"]
    )
    return json_answer(found)


_operation: Final = partial(Operation, role="admin", tag="webhooks")


OPERATIONS: Final = (
    _operation(
        name="listWebhooks",
        method="GET",
        path="/api/webhooks",
        summary="List webhooks, without their secrets",
        handler=list_webhooks,
        query=queries.TenantQuery,
        answers={200: Answer("a page of webhooks", answers.WebhookPage)},
    ),
    _operation(
        name="createWebhook",
        method="POST",
        path="/api/webhooks",
        summary="Have events of jobs sent to a URL, signed as Standard Webhooks are; the secret is shown once",
        handler=create,
        body=WebhookBody,
        answers={201: Answer("the webhook", answers.NewWebhook)},
    ),
    _operation(
        name="deleteWebhook",
        method="DELETE",
        path="/api/webhooks/{webhook}",
        summary="Delete a webhook; what waits for it is never sent",
        handler=delete,
        body=NoBody,
        body_optional=True,
        answers={204: Answer("deleted")},
        refusals=("NOT_FOUND",),
    ),
    _operation(
        name="testWebhook",
        method="POST",
        path="/api/webhooks/{webhook}/test",
        summary="Send a message of the type `test`",
        handler=test,
        body=NoBody,
        body_optional=True,
        answers={202: Answer("the delivery", answers.Delivery)},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
    _operation(
        name="listDeliveries",
        method="GET",
        path="/api/webhooks/{webhook}/deliveries",
        summary="List what was or will be sent, newest first; `state=dead` lists what was given up",
        handler=list_deliveries,
        query=queries.DeliveriesQuery,
        answers={200: Answer("a page of deliveries", answers.DeliveryPage)},
        refusals=("NOT_FOUND",),
    ),
    _operation(
        name="resendDelivery",
        method="POST",
        path="/api/webhooks/{webhook}/deliveries/{delivery}/resend",
        summary="Send a message again, under its old id",
        handler=resend,
        body=NoBody,
        body_optional=True,
        answers={200: Answer("the delivery", answers.Delivery)},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
)
