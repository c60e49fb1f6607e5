"""The WebSocket, subprotocol ``bulkops.v1``: JSON text frames both ways.

Commands come in and are answered in order; frames of the feed go out, several events each. One task
reads for as long as the socket is open (a peer whose frames nobody reads loses its pongs too), one task
writes and is the only one to send. No queue holds events: they wait in the log.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection

from bulkops.errors import Refusal
from bulkops.feed import Follower, Frame, Topic
from bulkops.models import Caller
from bulkops.operations import has_role
from bulkops.store.events import MAX_ROWS
from bulkops.timing import rfc3339
from bulkops.web.authentication import explicit_secret
from bulkops.web.live import sessions
from bulkops.web.live.commands import (
    TICKET,
    BadFrame,
    Command,
    Hello,
    Pong,
    Subscribe,
    Unsubscribe,
    choose_subprotocol,
    parse_command,
    parse_topic,
)
from bulkops.web.live.sessions import WRITE, Ending, Message, Receive, Scope, Send, Session, Sessions

_MAX_SUB: Final = 64

_log = logging.getLogger("bulkops.live")


class Subscription(msgspec.Struct, frozen=True):
    """One followed topic of a socket; ``head`` begins each of its frames."""

    name: str
    topic: Topic
    follower: Follower
    head: str


class _Bell(asyncio.Event):
    """Wakes the writer, unless what there is to tell can be told on the spot."""

    def __init__(self, tell_now: Callable[[], bool]) -> None:
        super().__init__()
        self._tell_now = tell_now

    def set(self) -> None:
        if not self._tell_now():
            super().set()


class SocketEndpoint:
    """The ASGI application behind ``/ws``."""

    def __init__(self, open_sessions: Sessions) -> None:
        self._sessions = open_sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        socket = Socket(self._sessions, scope, receive, send)
        self._sessions.join(socket)
        try:
            await socket.serve()
        finally:
            socket.close_subscriptions()
            self._sessions.leave(socket)


class Socket(Session):
    """One WebSocket from accept to close."""

    def __init__(self, open_sessions: Sessions, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(open_sessions.runtime, open_sessions.limits, scope, send)
        self._sessions = open_sessions
        self._scope = scope
        self._receive = receive
        self._subs: dict[str, Subscription] = {}
        self._outbox: deque[dict[str, Any]] = deque()
        self._commands: deque[float] = deque(maxlen=self.limits.max_commands)
        self._welcomed = False
        self._hello_by: float | None = self._now() + self.limits.hello_s
        self._ping_at = float("inf")
        self._pong_by: float | None = None
        self._ping_due = False
        self._handler: asyncio.Task[Any] | None = None
        self._write_now: Callable[[str], bool] | None = (scope.get("extensions") or {}).get(WRITE)
        self._is_parked = False
        self._unsent: list[str] = []
        self.news = _Bell(self._tell_now)

    async def serve(self) -> None:
        """Accept, then read and write until either side closes."""
        offered = list(self._scope.get("subprotocols") or ())
        chosen, known = choose_subprotocol(offered)
        try:
            await self.send({"type": "websocket.accept", "subprotocol": chosen})
        except OSError:
            return
        if not known:
            self.end(sessions.WRONG_VERSION)
        self._handler = asyncio.current_task()
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write())
            await self._read()
            writer.cancel()

    # -- what the timer asks

    def watch(self, now: float) -> None:
        super().watch(now)
        if self._hello_by is not None and now > self._hello_by:
            self.end(sessions.NO_HELLO)
        elif self._pong_by is not None and now > self._pong_by:
            self.end(sessions.NO_PONG)
        elif now >= self._ping_at:
            self._ping_at = now + self.limits.ping_s
            self._ping_due = True
            self.news.set()

    def abort(self) -> None:
        super().abort()
        # Under a server that knows no abort, the task is all we can take away.
        if self._abort is None and self._handler is not None:
            self._handler.cancel()

    # -- reading

    async def _read(self) -> None:
        try:
            caller = await self._who()
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    return
                if self.ending is None:
                    caller = await self._hear(message, caller)
        except sqlite3.Error:
            _log.exception("a live socket cannot go on")
            self.end(sessions.FAULT)
            await self._drain()

    async def _drain(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def _who(self) -> Caller | None:
        """Return whom header, subprotocol or cookie name; ``None`` leaves it to the ticket in `hello`."""
        explicit, _ = explicit_secret(self._scope)
        offered = self._scope.get("subprotocols") or ()
        tickets = [name[len(TICKET) :] for name in offered if name.startswith(TICKET)]
        if tickets and not explicit:
            return await self._redeem(tickets[0])
        caller = await self._sessions.authentication.find(HTTPConnection(self._scope))
        if caller is None and explicit:
            self._refuse()
        return caller

    async def _redeem(self, ticket: str) -> Caller | None:
        caller = await self.runtime.credentials.redeem_ticket(ticket)
        if caller is None:
            self._refuse()
        return caller

    def _refuse(self) -> None:
        self._sessions.authentication.failed(self._scope)
        self.end(sessions.UNAUTHORISED)

    async def _hear(self, message: Message, caller: Caller | None) -> Caller | None:
        now = self._now()
        commands = self._commands
        if len(commands) == commands.maxlen and now - commands[0] < self.limits.commands_window_s:
            self.end(sessions.TOO_FAST)
            return caller
        commands.append(now)
        text = message.get("text")
        if text is None:
            self.end(sessions.BAD_FRAME)
        elif len(text) > self.limits.max_frame_bytes:
            self.end(sessions.TOO_BIG)
        else:
            try:
                return await self._obey(parse_command(text), caller)
            except BadFrame:
                self.end(sessions.BAD_FRAME)
        return caller

    async def _obey(self, command: Command, caller: Caller | None) -> Caller | None:
        if not self._welcomed:
            if not isinstance(command, Hello):
                self.end(sessions.NO_HELLO)
                return caller
            return await self._welcome(command, caller)
        if isinstance(command, Pong):
            self._pong_by = None
        elif isinstance(command, Hello):
            raise BadFrame("hello comes once")
        else:
            await self._answer(command)
        return caller

    async def _welcome(self, hello: Hello, caller: Caller | None) -> Caller | None:
        if caller is None:
            caller = await self._redeem(hello.ticket if isinstance(hello.ticket, str) else "")
        if caller is None:
            return None
        if not has_role(caller, "viewer"):
            self.end(sessions.FORBIDDEN)
            return caller
        if not self._sessions.admit(self, caller):
            self.end(sessions.TOO_MANY)
            return caller
        head = await self.runtime.feed.head()
        self._welcomed, self._hello_by = True, None
        self._ping_at = self._now() + self.limits.ping_s
        self._reply(
            {
                "type": "welcome",
                "re": hello.id,
                "instance": self.runtime.store.instance,
                "epoch": head.epoch,
                "head": str(head),
                "user": caller.user,
                "ping_ms": int(self.limits.ping_s * 1000),
                "limits": {
                    "frame": self.limits.max_frame_bytes,
                    "subs": self.limits.max_subs,
                    "batch": MAX_ROWS,
                },
                "expires_at": rfc3339(caller.expires_ms),
            }
        )
        return caller

    async def _answer(self, command: Subscribe | Unsubscribe) -> None:
        try:
            if not isinstance(command.sub, str) or not 0 < len(command.sub) <= _MAX_SUB:
                raise Refusal("INVALID_FIELD", f"sub must be a text of 1 to {_MAX_SUB} characters")
            if isinstance(command, Subscribe):
                await self._subscribe(command, command.sub)
            else:
                self._unsubscribe(command, command.sub)
        except Refusal as refusal:
            self._reply(
                {
                    "type": "error",
                    "re": command.id,
                    "code": refusal.code,
                    "message": refusal.detail,
                    "temporary": refusal.status >= 500,
                }
            )

    async def _subscribe(self, command: Subscribe, name: str) -> None:
        if name not in self._subs and len(self._subs) >= self.limits.max_subs:
            self.end(sessions.TOO_MANY)
            return
        topic = parse_topic(command.topic)
        if not isinstance(command.since, str):
            raise Refusal("INVALID_FIELD", "since must be a cursor, now or earliest")
        assert self.caller is not None
        follower = await self.runtime.feed.follow(self.caller, topic, command.since, self.news)
        start = follower.start
        # Subscribing again under a name is how a client closes a gap: the old one ends here.
        self._forget(name)
        head = f'{{"type":"events","sub":{msgspec.json.encode(name).decode()},"prev":"'
        self._subs[name] = Subscription(name, topic, follower, head)
        sessions.note_subscribed(topic, follower)
        self._reply(
            {
                "type": "subscribed",
                "re": command.id,
                "sub": name,
                "recovered": start.recovered,
                **({} if start.reason is None else {"reason": start.reason}),
                "from": str(start.cursor),
                "head": str(start.head),
            }
        )

    def _unsubscribe(self, command: Unsubscribe, name: str) -> None:
        if name not in self._subs:
            raise Refusal("NOT_FOUND", "there is no such subscription")
        self._forget(name)
        self._reply({"type": "unsubscribed", "re": command.id, "sub": name})

    def _forget(self, name: str) -> None:
        subscription = self._subs.pop(name, None)
        if subscription is not None:
            subscription.follower.close()
            sessions.note_unsubscribed(subscription.topic, subscription.follower)

    def close_subscriptions(self) -> None:
        """Stop following anything."""
        for name in list(self._subs):
            self._forget(name)

    def _reply(self, message: dict[str, Any]) -> None:
        self._outbox.append(message)
        self.news.set()

    # -- writing

    async def _write(self) -> None:
        try:
            while self.ending is None:
                self._is_parked = True
                await self.news.wait()
                self._is_parked = False
                self.news.clear()
                await self._tell_all()
            await self._say_bye(self.ending)
        except OSError:
            return  # the client is gone, which the reader hears too
        except sqlite3.Error:
            _log.exception("a live socket cannot go on")
            await self._say_bye(sessions.FAULT)

    def _tell_now(self) -> bool:
        """Send what the tails remember while the writer sleeps; return whether that was all there is to do.

        Waking a task for every socket costs as much as the frame it sends.
        """
        write = self._write_now
        if write is None or not self._is_parked or self._outbox or self._ping_due or self.ending is not None:
            return False
        for subscription in self._subs.values():
            follower = subscription.follower
            while follower.has_more:
                if self._unsent or follower.is_behind:
                    return False
                frame = follower.next_nowait()
                if frame is not None and not write(text := self._text_of(subscription, frame)):
                    self._unsent.append(text)
                    return False
        return True

    async def _tell_all(self) -> None:
        busy = True
        while busy and not self.is_ending():
            while self._unsent:
                await self._send_text(self._unsent.pop(0))
            while self._outbox:
                await self._send_json(self._outbox.popleft())
            busy = False
            for subscription in list(self._subs.values()):
                busy = await self._tell(subscription) or busy
                if self.is_ending():
                    return
        if self._ping_due and not self.is_ending():
            await self._ping()

    async def _tell(self, subscription: Subscription) -> bool:
        """Send the next frame of a subscription; return whether there was one."""
        frame = await subscription.follower.next()
        # It may have been unsubscribed or begun anew while the log was read, and nothing may come after that.
        if frame is None or self.is_ending() or self._subs.get(subscription.name) is not subscription:
            return False
        await self._send_frame(subscription, frame)
        return True

    async def _send_frame(self, subscription: Subscription, frame: Frame) -> None:
        if frame.kind == "reset":
            reset = {
                "type": "reset",
                "sub": subscription.name,
                "reason": frame.reason,
                "from": str(frame.cursor),
            }
            await self._send_json(reset)
        else:
            await self._send_text(self._text_of(subscription, frame))

    async def _ping(self) -> None:
        self._ping_due = False
        for subscription in list(self._subs.values()):
            frame = subscription.follower.advance()
            if frame is not None:
                await self._send_frame(subscription, frame)
        subs = {name: str(subscription.follower.sent) for name, subscription in self._subs.items()}
        if self._pong_by is None:
            self._pong_by = self._now() + self.limits.pong_s
        await self._send_json({"type": "ping", "at": rfc3339(self.runtime.clock.now_ms()), "subs": subs})

    def _text_of(self, subscription: Subscription, frame: Frame) -> str:
        return self.located(f'{subscription.head}{frame.prev}",{frame.body}}}')

    async def _say_bye(self, ending: Ending) -> None:
        try:
            await self._send_json({"type": "bye", **ending.to_json()})
            await self.send({"type": "websocket.close", "code": ending.code, "reason": ending.reason})
        except OSError:
            return

    async def _send_json(self, message: dict[str, Any]) -> None:
        await self._send_text(msgspec.json.encode(message).decode())

    async def _send_text(self, text: str) -> None:
        await self.send({"type": "websocket.send", "text": text})
