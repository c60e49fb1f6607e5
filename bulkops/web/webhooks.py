"""The routes of webhooks: who outside is told of jobs, what was told, and what is told again."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from bulkops.models import WebhookBody
from bulkops.web import answers, queries
from bulkops.web.jobs import NoBody
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


def _operation(name: str, method: str, path: str, summary: str, handler: Any, **more: Any) -> Operation:
    return Operation(
        name=name,
        method=method,
        path=f"/api/webhooks{path}",
        role="admin",
        summary=summary,
        handler=handler,
        tag="webhooks",
        **more,
    )


OPERATIONS: Final = (
    _operation(
        "listWebhooks",
        "GET",
        "",
        "List webhooks, without their secrets",
        list_webhooks,
        query=queries.TenantQuery,
        answers={200: Answer("a page of webhooks", answers.WebhookPage)},
    ),
    _operation(
        "createWebhook",
        "POST",
        "",
        "Have events of jobs sent to a URL, signed as Standard Webhooks are; the secret is shown once",
        create,
        body=WebhookBody,
        answers={201: Answer("the webhook", answers.NewWebhook)},
    ),
    _operation(
        "deleteWebhook",
        "DELETE",
        "/{webhook}",
        "Delete a webhook; what waits for it is never sent",
        delete,
        body=NoBody,
        body_optional=True,
        answers={204: Answer("deleted")},
        refusals=("NOT_FOUND",),
    ),
    _operation(
        "testWebhook",
        "POST",
        "/{webhook}/test",
        "Send a message of the type `test`",
        test,
        body=NoBody,
        body_optional=True,
        answers={202: Answer("the delivery", answers.Delivery)},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
    _operation(
        "listDeliveries",
        "GET",
        "/{webhook}/deliveries",
        "List what was or will be sent, newest first; `state=dead` lists what was given up",
        list_deliveries,
        query=queries.DeliveriesQuery,
        answers={200: Answer("a page of deliveries", answers.DeliveryPage)},
        refusals=("NOT_FOUND",),
    ),
    _operation(
        "resendDelivery",
        "POST",
        "/{webhook}/deliveries/{delivery}/resend",
        "Send a message again, under its old id",
        resend,
        body=NoBody,
        body_optional=True,
        answers={200: Answer("the delivery", answers.Delivery)},
        refusals=("NOT_FOUND", "ILLEGAL_TRANSITION"),
    ),
)
