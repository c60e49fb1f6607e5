"""The route of the audit: who did what, as a page or as a file of all of it.

A judged `Call` comes in, a response goes out; the service says how much of it the caller may see.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal

from starlette.responses import Response

from bulkops.store import audit
from bulkops.web import answers, queries
from bulkops.web.routing import Answer, Call, Operation, accepts, json_answer
from bulkops.web.streaming import streamed

_EXPORT_PAGE: Final = 1000


async def read_audit(call: Call) -> Response:
    """`GET /api/audit`: a page, or with ``format`` the whole list as a file."""
    query: queries.AuditQuery = call.query
    form = query.format or _preferred(call)
    if form == "json":
        found = await call.runtime.service.audit(
            call.caller, job=query.job, tenant=query.tenant, limit=query.limit, page=query.page
        )
        return json_answer(found)
    media = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
    return await streamed(_export(call, form), media, attachment=f"audit.{form}")


def _preferred(call: Call) -> Literal["json", "ndjson", "csv"]:
    header = call.request.headers.get("accept")
    if accepts(header, "application/json"):
        return "json"
    return "ndjson" if accepts(header, "application/x-ndjson") else "csv"


async def _export(call: Call, form: Literal["csv", "ndjson"]) -> AsyncIterator[bytes]:
    query: queries.AuditQuery = call.query
    page = query.page
    header = audit.csv_header() if form == "csv" else b""
    while True:
        found = await call.runtime.service.audit(
            call.caller, job=query.job, tenant=query.tenant, limit=_EXPORT_PAGE, page=page
        )
        rows: list[dict[str, Any]] = found["items"]
        yield header + (audit.csv_lines(rows) if form == "csv" else audit.ndjson(rows))
        header, page = b"", found["next"]
        if page is None:
            return


OPERATIONS: Final = (
    Operation(
        name="readAudit",
        method="GET",
        path="/api/audit",
        role="admin",
        summary="Read who did what, newest first",
        handler=read_audit,
        tag="people",
        query=queries.AuditQuery,
        answers={
            200: Answer(
                "a page, or the whole list as a file",
                answers.AuditPage,
                ("application/json", "application/x-ndjson", "text/csv"),
            )
        },
    ),
)
