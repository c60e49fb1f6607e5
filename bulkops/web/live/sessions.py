"""Every open live connection of this process, and the one timer that watches them all.

A session says who is at the other end, what wakes its writer and since when a send hangs. The timer looks
at all of them a few times a second: shutting down, a credential that ended, a peer that stopped reading.
It never waits and never sends; a session whose time is over is told to end, and aborted if it cannot even
do that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
from starlette.requests import HTTPConnection

from bulkops import joblog
from bulkops.errors import Refusal
from bulkops.feed import Feed, Follower, Topic
from bulkops.models import Caller
from bulkops.timing import Clock

#: In a scope's extensions: frees the connection at once, whatever its buffers hold (`web/connections.py`).
ABORT: Final = "bulkops.abort"
#: Also there: takes a place among the long-lived connections; ``False`` when there is none left.
HOLD: Final = "bulkops.hold"
#: For a WebSocket: writes a text frame at once; ``False`` when nothing was written, the peer being slow or gone.
WRITE: Final = "bulkops.write"

#: How an event tells where a file is had. People's texts cannot hold it: their quotes are escaped in JSON.
_PATH: Final = '"download_url":"/api/'

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Draining(Protocol):
    """Set once, when the server begins to shut down."""

    def is_set(self) -> bool: ...


class Keeper(Protocol):
    """What the live routes ask of the credentials."""

    def is_live(self, caller: Caller) -> bool: ...
    async def issue_ticket(self, caller: Caller) -> str: ...
    async def redeem_ticket(self, presented: str) -> Caller | None: ...


class Authentication(Protocol):
    """Who is asking, by header or cookie (`web.authentication.Authenticator`)."""

    async def find(self, connection: HTTPConnection) -> Caller | None: ...
    async def require(self, connection: HTTPConnection) -> Caller: ...
    def failed(self, scope: Scope) -> Refusal: ...


class Named(Protocol):
    """The store, as far as a welcome tells of it."""

    instance: str


class Runtime(Protocol):
    """What the live routes use of the runtime."""

    @property
    def feed(self) -> Feed: ...
    @property
    def credentials(self) -> Keeper: ...
    @property
    def draining(self) -> Draining: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Named: ...


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take, how many there may be."""

    hello_s: float = 10
    ping_s: float = 20
    pong_s: float = 20
    tick_s: float = 10
    blocked_s: float = 10
    sweep_s: float = 0.2
    watch_s: float = 1
    max_frame_bytes: int = 65_536
    max_subs: int = 32
    max_sessions: int = 20
    max_commands: int = 50
    commands_window_s: float = 10
    max_wait_s: float = 60


class Ending(msgspec.Struct, frozen=True):
    """Why the server ends a session; the code is the WebSocket's close code on every face."""

    code: int
    reason: str

    @property
    def reconnect(self) -> bool:
        return self.code < 4500 and self.code not in {1000, 1009}

    def to_json(self) -> dict[str, Any]:
        """Return what `bye` says."""
        wait = {"retry_after_ms": _RETRY_MS.get(self.code, 800)} if self.reconnect else {}
        return {"code": self.code, "reason": self.reason, "reconnect": self.reconnect, **wait}


_RETRY_MS: Final = {4013: 10_000}

RESTART: Final = Ending(1012, "restart")
FAULT: Final = Ending(1011, "internal error")
SLOW: Final = Ending(4008, "too slow")
NO_PONG: Final = Ending(4012, "no pong")
TOO_FAST: Final = Ending(4013, "too many commands")
EXPIRED: Final = Ending(4014, "the credential has expired or was revoked")
BAD_FRAME: Final = Ending(4500, "bad frame")
UNAUTHORISED: Final = Ending(4501, "unauthorised")
NO_HELLO: Final = Ending(4502, "no hello")
FORBIDDEN: Final = Ending(4503, "forbidden")
TOO_MANY: Final = Ending(4504, "too many")
WRONG_VERSION: Final = Ending(4505, "unsupported subprotocol")
TOO_BIG: Final = Ending(1009, "the frame is too big")


class Session:
    """One live connection. Its writer waits on ``news``, looks at ``ending`` first, and alone sends."""

    def __init__(self, runtime: Runtime, limits: Limits, scope: Scope, send: Send) -> None:
        self.runtime = runtime
        self.limits = limits
        self.news = asyncio.Event()
        self.caller: Caller | None = None
        self.ending: Ending | None = None
        self._abort: Callable[[], None] | None = (scope.get("extensions") or {}).get(ABORT)
        self._root_path = quote(scope.get("root_path", ""))
        self._send = send
        self._now = asyncio.get_running_loop().time
        self._sending_since: float | None = None

    async def send(self, message: Message) -> None:
        """Send one ASGI message, watched.

        Raises:
            OSError: the client is gone.
        """
        self._sending_since = self._now()
        await self._send(message)
        self._sending_since = None

    def located(self, text: str) -> str:
        """Put the mount prefix before the paths in events, whose text all who follow share."""
        return text.replace(_PATH, _PATH.replace("/", f"{self._root_path}/", 1)) if self._root_path else text

    def end(self, ending: Ending) -> None:
        """Tell the writer to say goodbye; the first reason counts."""
        self.ending = self.ending or ending
        self.news.set()

    def is_ending(self) -> bool:
        """Say whether only the goodbye is left to be sent."""
        return self.ending is not None

    def watch(self, now: float) -> None:
        """See whether the time of something is over; called about once a second."""
        if self.caller is not None and not self.runtime.credentials.is_live(self.caller):
            self.end(EXPIRED)
        if self._sending_since is None:
            return
        # Who has to go for another reason gets a second for it: nothing may reach a revoked credential.
        patience_s = self.limits.blocked_s if self.ending is None else 1.0
        if now - self._sending_since > patience_s:
            self.end(SLOW)
            self.abort()

    def abort(self) -> None:
        """Free the connection without waiting for the peer."""
        if self._abort is not None:
            self._abort()


class Sessions:
    """The open sessions; the timer runs while there are any."""

    def __init__(self, runtime: Runtime, authentication: Authentication, limits: Limits) -> None:
        self.runtime = runtime
        self.authentication = authentication
        self.limits = limits
        self._open: set[Session] = set()
        self._users: Counter[tuple[str | None, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._watched = 0.0

    def join(self, session: Session) -> None:
        """Watch a session."""
        self._open.add(session)
        if self._timer is None:
            self._schedule()

    def admit(self, session: Session, caller: Caller) -> bool:
        """Say whose session this is; ``False`` when this user has too many."""
        who = (caller.tenant, caller.user)
        if self._users[who] >= self.limits.max_sessions:
            return False
        self._users[who] += 1
        session.caller = caller
        return True

    def leave(self, session: Session) -> None:
        """Stop watching; leaving twice is fine."""
        if session not in self._open:
            return
        self._open.remove(session)
        if session.caller is not None:
            who = (session.caller.tenant, session.caller.user)
            self._users[who] -= 1
            if not self._users[who]:
                del self._users[who]
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __len__(self) -> int:
        return len(self._open)

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.limits.sweep_s, self._sweep)

    def _sweep(self) -> None:
        self._schedule()
        now = asyncio.get_running_loop().time()
        if self.runtime.draining.is_set():
            for session in self._open:
                session.end(RESTART)
        if now - self._watched >= self.limits.watch_s:
            self._watched = now
            for session in self._open:
                session.watch(now)


def note_subscribed(topic: Topic, follower: Follower) -> None:
    """Log that somebody follows a topic, and how many do now."""
    joblog.subscribed(_name_of(topic), followers=follower.followers, job_id=_job_of(topic))


def note_unsubscribed(topic: Topic, follower: Follower) -> None:
    """Log that a follower, closed by now, followed a topic, and how many still do."""
    joblog.unsubscribed(_name_of(topic), followers=follower.followers, job_id=_job_of(topic))


def _name_of(topic: Topic) -> str:
    return topic.kind if topic.id is None else f"{topic.kind}:{topic.id}"


def _job_of(topic: Topic) -> str | None:
    return topic.id if topic.kind == "job" else None
