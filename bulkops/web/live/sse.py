"""Server-sent events and NDJSON: the same log, the same cursor, as one endless response.

An event's ``id`` is its cursor, so a browser that reconnects by itself says where it was; its ``prev`` is
the id before it on this stream. A finished job's stream ends, and one that would have nothing to say is a
204, at which browsers stop reconnecting. Nothing here may send an ``id`` that it has not told to the page.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection

from bulkops.feed import Follower, Frame
from bulkops.store.events import TERMINAL_KINDS, Cursor, EventRow
from bulkops.web.live.sessions import (
    Receive,
    Scope,
    Send,
    Session,
    Sessions,
    note_subscribed,
    note_unsubscribed,
)
from bulkops.web.live.streams import opened, topic_of, while_connected

_HEADERS: Final = [
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
#: Kinds that say where a job stands; a failed job may be resumed and goes on.
_MOVES: Final = TERMINAL_KINDS | {"queued", "started", "resumed", "progress", "paused"}


class Form(ABC):
    """How a stream is written: one method for each thing it can say, empty where it has no words for it."""

    media_type: bytes

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        #: The last id that the client has seen; what it compares the next ``prev`` with.
        self.last = follower.start.cursor

    def events(self, rows: Sequence[EventRow]) -> str:
        """Write events, each with the one before it as ``prev``."""
        parts = []
        for row in rows:
            prev, self.last = self.last, Cursor(self._follower.sent.epoch, row.seq)
            parts.append(self.event(row.kind, f'{{"seq":{row.seq},"prev":"{prev}"{row.rest}'))
        return "".join(parts)

    @abstractmethod
    def event(self, kind: str, data: str) -> str:
        """Write one event whose object is ``data``."""

    @abstractmethod
    def ready(self) -> str:
        """Write what comes first."""

    @abstractmethod
    def say(self, name: str, data: dict[str, Any]) -> str:
        """Write what is no event: ``ping``, ``end``, ``bye``."""

    @abstractmethod
    def reset(self, frame: Frame) -> str:
        """Write that events are lost."""


class EventStream(Form):
    """``text/event-stream``."""

    media_type = b"text/event-stream; charset=utf-8"

    def event(self, kind: str, data: str) -> str:
        return f"id: {self.last}\nevent: {kind}\ndata: {data}\n\n"

    def ready(self) -> str:
        start = self._follower.start
        data = {"recovered": start.recovered, **_reason(start.reason), "head": str(start.head)}
        return f": ok\nretry: 2000\n\nid: {self.last}\n{self.say('ready', data)}"

    def say(self, name: str, data: dict[str, Any]) -> str:
        return f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n"

    def reset(self, frame: Frame) -> str:
        self.last = frame.cursor
        return f"id: {self.last}\n{self.say('reset', {'reason': frame.reason, 'from': str(frame.cursor)})}"


class Lines(Form):
    """``application/x-ndjson``: an object a line, for the shell."""

    media_type = b"application/x-ndjson"

    def event(self, kind: str, data: str) -> str:  # noqa: ARG002  the object says its kind itself
        return f"{data}\n"

    def ready(self) -> str:
        start = self._follower.start
        if start.recovered:
            return ""
        return self._line({"reset": start.reason, "cursor": str(start.cursor)})

    def say(self, name: str, data: dict[str, Any]) -> str:
        return self._line({"kind": name, **data}) if name == "ping" else ""

    def reset(self, frame: Frame) -> str:
        self.last = frame.cursor
        return self._line({"reset": frame.reason, "cursor": str(frame.cursor)})

    def _line(self, data: dict[str, Any]) -> str:
        return f"{msgspec.json.encode(data).decode()}\n"


def _reason(reason: str | None) -> dict[str, str]:
    return {} if reason is None else {"reason": reason}


async def stream(
    open_sessions: Sessions, form: type[Form], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer with a stream in this form.

    Raises:
        Refusal: before the first byte, as `opened`.
    """
    async with opened(open_sessions, scope, send) as (session, follower):
        first = await follower.next()
        if first is None and follower.start.ended and follower.start.recovered:
            await session.send({"type": "http.response.start", "status": 204, "headers": _HEADERS})
            await session.send({"type": "http.response.body", "body": b""})
            return
        topic = topic_of(HTTPConnection(scope))
        note_subscribed(topic, follower)
        try:
            writer = _Writer(session, follower, form(follower))
            await while_connected(receive, lambda: writer.run(first, head_only=scope["method"] == "HEAD"))
        finally:
            follower.close()
            note_unsubscribed(topic, follower)


class _Writer:
    """Writes one stream from its first byte to its last."""

    def __init__(self, session: Session, follower: Follower, form: Form) -> None:
        self._session = session
        self._follower = follower
        self._form = form
        #: The followed job has ended, and so does the stream once everything is told.
        self._over = follower.start.ended
        self._is_job = follower.tail.scope.kind == "job"

    async def run(self, first: Frame | None, *, head_only: bool) -> None:
        headers = [(b"content-type", self._form.media_type), *_HEADERS]
        await self._session.send({"type": "http.response.start", "status": 200, "headers": headers})
        if not head_only:
            await self._write(self._form.ready())
            if first is not None:
                await self._tell(first)
            await self._follow()
            await self._write(self._farewell())
        await self._session.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self) -> None:
        now, tick_s = asyncio.get_running_loop().time, self._session.limits.tick_s
        ping_at = now() + tick_s
        while await self._tell_all():
            await self._follower.wait(max(0.0, ping_at - now()))
            if now() >= ping_at:
                ping_at = now() + tick_s
                await self._write(self._form.say("ping", {"cursor": str(self._form.last)}))

    async def _tell_all(self) -> bool:
        """Tell what there is; return whether more can come."""
        self._session.news.clear()
        while self._session.ending is None:
            frame = await self._follower.next()
            if frame is None:
                return not self._over
            await self._tell(frame)
        return False

    async def _tell(self, frame: Frame) -> None:
        if frame.kind == "reset":
            await self._write(self._form.reset(frame))
            return
        for row in frame.rows:
            if self._is_job and row.kind in _MOVES:
                self._over = row.kind in TERMINAL_KINDS
        await self._write(self._session.located(self._form.events(frame.rows)))

    def _farewell(self) -> str:
        if self._session.ending is not None:
            return self._form.say("bye", self._session.ending.to_json())
        return self._form.say("end", {"cursor": str(self._form.last)})

    async def _write(self, text: str) -> None:
        if text:
            body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
            await self._session.send(body)
