"""Polling: one page of the log after a cursor, waited for when there is none yet.

The third face of the feed, for clients that have neither sockets nor streams. Every answer carries the
cursor for the next question; nothing is remembered between two of them.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from bulkops.feed import Follower, Frame
from bulkops.store.events import MAX_ROWS, Cursor
from bulkops.web.live.sessions import Receive, Scope, Send, Session, Sessions
from bulkops.web.live.streams import number, opened, while_connected

_MAX_LIMIT = 1000
_HEADERS = {"Cache-Control": "no-store, no-transform"}


async def poll(open_sessions: Sessions, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the next events, at once or within ``wait`` seconds; an empty page moves the cursor too.

    Raises:
        Refusal: as `streams.opened`; (``INVALID_FIELD``) ``wait`` or ``limit`` is out of bounds.
    """
    params = HTTPConnection(scope).query_params
    wait_s = number(params, "wait", 0, low=0, high=open_sessions.limits.max_wait_s)
    limit = min(int(number(params, "limit", MAX_ROWS, low=1, high=_MAX_LIMIT)), MAX_ROWS)
    async with opened(open_sessions, scope, send) as (session, follower):

        async def answer() -> None:
            frame = None
            if follower.start.recovered:
                frame = await _next(session, follower, wait_s=wait_s, max_rows=limit)
            page = session.located(_page(follower, frame))
            response = Response(page, 200, _HEADERS, "application/json")
            await response(scope, receive, session.send)

        await while_connected(receive, answer)


async def _next(session: Session, follower: Follower, *, wait_s: float, max_rows: int) -> Frame | None:
    now = asyncio.get_running_loop().time
    until = now() + wait_s
    while True:
        session.news.clear()
        frame = await follower.next(max_rows=max_rows)
        if frame is not None or session.ending is not None or now() >= until:
            return frame
        await follower.wait(until - now())


def _page(follower: Follower, frame: Frame | None) -> str:
    start = follower.start
    if not start.recovered:
        return _reset(start.reason, start.cursor)
    frame = frame or follower.advance()
    if frame is not None and frame.kind == "reset":
        return _reset(frame.reason, frame.cursor)
    body = frame.body if frame is not None else f'"cursor":"{start.cursor}","items":[]'
    return f'{{"prev":"{start.cursor}",{body},"head":"{follower.head}"}}'


def _reset(reason: str | None, cursor: Cursor) -> str:
    return msgspec.json.encode({"reset": reason, "cursor": str(cursor)}).decode()
