"""The live routes as the reference tells of them; they are served by `bulkops.web.live`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from bulkops.models import Input
from bulkops.web.routing import Answer, Operation

_FORMS: Final = ("application/json", "text/event-stream", "application/x-ndjson")


class JobEventsQuery(Input, frozen=True, kw_only=True):
    """`since` is a cursor, `now` or `earliest`; left out it is now, or the event that says that the job has ended."""

    since: str | None = None
    wait: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200
    ticket: str | None = None


class EventsQuery(JobEventsQuery, frozen=True, kw_only=True):
    """`topic` is `all`, `job:ID`, `task:ID` or `tenant`."""

    topic: str = "all"


class Ticket(msgspec.Struct, frozen=True):
    """Opens one live connection, once, for half a minute."""

    ticket: str
    expires_at: str


def _get(name: str, path: str, summary: str, answer: Answer, query: Any, *refusals: str) -> Operation:
    return Operation(
        name=name,
        method="GET",
        path=path,
        role="viewer",
        summary=summary,
        handler=None,
        tag="live",
        query=query,
        answers={200: answer},
        refusals=refusals,
    )


OPERATIONS: Final = (
    _get(
        "followEvents",
        "/api/events",
        "Follow events: SSE, NDJSON or polling, as `Accept` says",
        Answer("events after the cursor", dict[str, Any], _FORMS),
        EventsQuery,
        "NOT_FOUND",
    ),
    _get(
        "followJob",
        "/api/jobs/{id}/events",
        "Follow the events of one job",
        Answer("events after the cursor", dict[str, Any], _FORMS),
        JobEventsQuery,
        "NOT_FOUND",
    ),
    Operation(
        name="createTicket",
        method="POST",
        path="/api/tickets",
        role="caller",
        summary="Make a ticket that opens one live connection",
        handler=None,
        tag="live",
        answers={201: Answer("the ticket", Ticket)},
    ),
)
