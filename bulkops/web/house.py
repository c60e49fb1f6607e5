"""The routes of the house itself: is it alive, is it ready, its numbers, its reference.

`/healthz` is open and says one word; everything else needs a credential. Nothing here says anything
about anybody's data.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import anyio
from starlette.responses import HTMLResponse, Response

from bulkops import metrics
from bulkops.errors import Refusal
from bulkops.store import census, meta
from bulkops.web import answers
from bulkops.web.routing import Answer, Call, Operation, json_answer
from bulkops.web.wiring import Runtime

_PATIENCE_S: Final = 2.0


async def healthz(call: Call) -> Response:
    """`GET /healthz`: always 200; ``degraded`` when our database does not answer, or while shutting down."""
    well = await _reads(call.runtime) and not call.runtime.draining.is_set()
    return json_answer(answers.Standing("ok" if well else "degraded"))


async def readyz(call: Call) -> Response:
    """`GET /readyz`: 200 when new work is taken, else 503."""
    if call.runtime.draining.is_set():
        raise Refusal("DRAINING", "the server is shutting down")
    if not await _reads(call.runtime):
        raise Refusal("DRAINING", "the database does not answer")
    return json_answer(answers.Standing("ready"))


async def _reads(runtime: Runtime) -> bool:
    with anyio.move_on_after(_PATIENCE_S):
        try:
            runtime.store.check_place()
            await runtime.store.read(lambda connection: meta.read(connection, "epoch"))
        except (sqlite3.Error, ValueError):
            return False
        return True
    return False


async def scrape(call: Call) -> Response:
    """`GET /metrics`."""
    counts = await call.runtime.store.read(census.take)
    vitals = metrics.Vitals(
        sockets=call.door.traffic.sockets,
        loop_lag_s=await metrics.measure_loop_lag_s(),
        draining=call.runtime.draining.is_set(),
    )
    text, media = metrics.render(counts, vitals)
    return Response(text, media_type=media)


async def describe(call: Call) -> Response:
    """`GET /openapi.json`."""
    return json_answer(_document(call))


def _document(call: Call) -> dict[str, Any]:
    known = call.door.documents
    if call.root_path not in known:
        from bulkops.web import openapi  # late: few ask for it, and every start would pay

        known[call.root_path] = openapi.document(call.door.operations, call.root_path)
    return known[call.root_path]


async def refer(call: Call) -> Response:
    """`GET /docs`."""
    from bulkops.web import reference  # late, as above

    page = reference.page(_document(call))
    return HTMLResponse(page, headers={"Content-Security-Policy": reference.CONTENT_SECURITY_POLICY})


OPERATIONS: Final = (
    Operation(
        name="getHealth",
        method="GET",
        path="/healthz",
        role="public",
        summary="Say whether the server is alive",
        handler=healthz,
        tag="house",
        answers={200: Answer("`ok` or `degraded`", answers.Standing)},
    ),
    Operation(
        name="getReadiness",
        method="GET",
        path="/readyz",
        role="public",
        summary="Say whether the server takes new work",
        handler=readyz,
        tag="house",
        answers={200: Answer("ready", answers.Standing)},
        refusals=("DRAINING",),
    ),
    Operation(
        name="getMetrics",
        method="GET",
        path="/metrics",
        role="caller",
        summary="Read the metrics in Prometheus' text format",
        handler=scrape,
        tag="house",
        answers={200: Answer("the metrics", str, ("text/plain", "application/openmetrics-text"))},
    ),
    Operation(
        name="getOpenApi",
        method="GET",
        path="/openapi.json",
        role="caller",
        summary="Read this API as an OpenAPI 3.1 document",
        handler=describe,
        tag="house",
        answers={200: Answer("the document", dict)},
    ),
    Operation(
        name="getReference",
        method="GET",
        path="/docs",
        role="caller",
        summary="Read this API as a page",
        handler=refer,
        tag="house",
        answers={200: Answer("the page", str, ("text/html",))},
    ),
)
