"""The live doors: ``/ws``, ``/api/events`` and ``/api/jobs/{id}/events`` (SSE, NDJSON, polling), tickets.

A runtime comes in, routes go out. What they tell comes from the feed alone, and whom they tell it from
the credentials; they never read a table and never move a job.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from bulkops.store.keyring import TICKET_TTL_S
from bulkops.timing import rfc3339
from bulkops.web.live.poll import poll
from bulkops.web.live.sessions import Authentication, Limits, Receive, Runtime, Scope, Send, Sessions
from bulkops.web.live.sse import EventStream, Lines, stream
from bulkops.web.live.websocket import SocketEndpoint


class EventsEndpoint:
    """The ASGI application behind ``/api/events``: which form is chosen by ``Accept``."""

    def __init__(self, open_sessions: Sessions) -> None:
        self._sessions = open_sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").lower()
        if b"text/event-stream" in accepted:
            await stream(self._sessions, EventStream, scope, receive, send)
        elif b"application/x-ndjson" in accepted:
            await stream(self._sessions, Lines, scope, receive, send)
        else:
            await poll(self._sessions, scope, receive, send)


def live_routes(
    runtime: Runtime, authentication: Authentication, *, limits: Limits | None = None
) -> list[BaseRoute]:
    """Build the live routes over a runtime, whose feed must be running."""
    open_sessions = Sessions(runtime, authentication, limits or Limits())
    events = EventsEndpoint(open_sessions)

    async def tickets(request: Request) -> Response:
        caller = await authentication.require(request)
        body = {
            "ticket": await runtime.credentials.issue_ticket(caller),
            "expires_at": rfc3339(runtime.clock.now_ms() + TICKET_TTL_S * 1000),
        }
        return Response(msgspec.json.encode(body), 201, {"Cache-Control": "no-store"}, "application/json")

    def options(path: str, allowed: str) -> Route:
        async def answer(_: Request) -> Response:
            return Response(None, 204, {"Allow": allowed})

        return Route(path, answer, methods=["OPTIONS"])

    return [
        options("/api/events", "GET, HEAD, OPTIONS"),
        options("/api/jobs/{id}/events", "GET, HEAD, OPTIONS"),
        options("/api/tickets", "POST, OPTIONS"),
        WebSocketRoute("/ws", SocketEndpoint(open_sessions)),
        Route("/api/events", events, methods=["GET"]),
        Route("/api/jobs/{id}/events", events, methods=["GET"]),
        Route("/api/tickets", tickets, methods=["POST"]),
    ]
