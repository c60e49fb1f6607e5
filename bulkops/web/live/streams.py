"""What SSE, NDJSON and polling share: who asks, for which topic, and a response that ends when it must.

A GET comes in; a `Follower` and its session go out. Whatever is wrong with the request is refused before
the first byte; afterwards a stream can only end, and says why when its form has words for it.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from bulkops.errors import Refusal, invalid_field
from bulkops.feed import Follower, Topic
from bulkops.models import Caller
from bulkops.web.authentication import explicit_secret
from bulkops.web.live.commands import MAX_ID
from bulkops.web.live.sessions import HOLD, Receive, Scope, Send, Session, Sessions

_log = logging.getLogger("bulkops.live")


async def identify(open_sessions: Sessions, connection: HTTPConnection) -> Caller:
    """Return who asks: by header, by the single-use ``ticket`` of the query, by cookie.

    Raises:
        Refusal: nobody whom we know.
    """
    runtime = open_sessions.runtime
    ticket = connection.query_params.get("ticket")
    if ticket is None or explicit_secret(connection.scope)[0]:
        return await open_sessions.authentication.require(connection)
    caller = await runtime.credentials.redeem_ticket(ticket)
    if caller is None:
        raise open_sessions.authentication.failed(connection.scope)
    return caller


def topic_of(connection: HTTPConnection) -> Topic:
    """Read ``?topic=all|job:ID|task:ID|tenant`` (absent: all), or the job in the path.

    Raises:
        Refusal: (``INVALID_FIELD``) it is none of these.
    """
    job = connection.path_params.get("id")
    if job is not None:
        return Topic("job", job)
    text = connection.query_params.get("topic", "all")
    if text in {"all", "tenant"}:
        return Topic("all" if text == "all" else "tenant")
    kind, colon, subject = text.partition(":")
    if colon and kind in {"job", "task"} and 0 < len(subject) <= MAX_ID:
        return Topic("job" if kind == "job" else "task", subject)
    raise invalid_field("/topic", "must be all, job:ID, task:ID or tenant")


def number(params: QueryParams, name: str, default: float, *, low: float, high: float) -> float:
    """Read a number of the query.

    Raises:
        Refusal: (``INVALID_FIELD``) it is none, or out of bounds.
    """
    text = params.get(name)
    if text is None:
        return default
    with suppress(ValueError):
        value = float(text)
        if low <= value <= high:
            return value
    raise invalid_field(f"/{name}", f"must be a number from {low:g} to {high:g}")


@asynccontextmanager
async def opened(
    open_sessions: Sessions, scope: Scope, send: Send
) -> AsyncIterator[tuple[Session, Follower]]:
    """Open a session and follow what the request asks for; both end with the block.

    Raises:
        Refusal: who asks, what for, or too many of their streams are open.
    """
    connection = HTTPConnection(scope)
    caller = await identify(open_sessions, connection)
    topic = topic_of(connection)
    since = connection.headers.get("last-event-id") or connection.query_params.get("since")
    session = Session(open_sessions.runtime, open_sessions.limits, scope, send)
    open_sessions.join(session)
    try:
        hold = (scope.get("extensions") or {}).get(HOLD)
        if not open_sessions.admit(session, caller) or (hold is not None and not hold()):
            raise Refusal("RATE_LIMITED", "too many live connections", headers={"Retry-After": "5"})
        with await open_sessions.runtime.feed.follow(caller, topic, since, session.news) as follower:
            yield session, follower
    finally:
        open_sessions.leave(session)


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` until it ends or the client is gone; a fault inside can only end the stream."""
    async with anyio.create_task_group() as group:

        async def wait_for_the_end() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(wait_for_the_end)
        try:
            await work()
        except OSError:
            pass  # the client is gone
        except sqlite3.Error:
            _log.exception("a live stream cannot go on")
        group.cancel_scope.cancel()
