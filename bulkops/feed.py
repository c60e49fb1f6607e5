"""The follower: replay and live in one. A cursor comes in; frames go out, in order, each event once.

Events wait in the log, never in a queue per client. Everybody who follows the same `Scope` shares one
`Tail`: one read a ring and one encoding a frame, however many follow. Who is further behind than the tail
remembers reads the log for itself until it has caught up. Nothing here may skip an event that is not
replaced progress, or send a frame whose ``prev`` its client cannot know.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeVar

import msgspec

from bulkops.errors import Refusal
from bulkops.hub import Bell, Hub
from bulkops.models import Caller
from bulkops.operations import has_role, may_see
from bulkops.store import events
from bulkops.store.events import MAX_ROWS, Audience, Cursor, EventRow, LogState, Scope, Slice
from bulkops.tail import Tail, body_of

T = TypeVar("T")

#: A commit rings; this only bounds what a lost ring could cost.
_LOOK_ANYWAY_S: Final = 2.0
_RETRY_S: Final = 1.0
#: Scopes read in one call, so that the reader's thread is never held for long.
_MAX_SCOPES: Final = 64

_log = logging.getLogger("bulkops.feed")


class Log(Protocol):
    """What the feed asks of the store."""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T: ...


class Topic(msgspec.Struct, frozen=True):
    """What a client wants to follow; ``id`` names the job or task."""

    kind: Literal["all", "job", "task", "tenant"]
    id: str | None = None


def scope_of(caller: Caller, topic: Topic) -> Scope:
    """Say what of the log ``caller`` may read under ``topic``; whether a job is theirs is asked later.

    Raises:
        Refusal: (``FORBIDDEN``) the caller's roles do not reach that far.
    """
    if not has_role(caller, "viewer"):
        raise Refusal("FORBIDDEN", "following events needs the role viewer")
    admin = has_role(caller, "admin")
    if topic.kind == "tenant" and not admin:
        raise Refusal("FORBIDDEN", "the topic tenant needs the role admin")
    return Scope(
        kind="all" if topic.kind == "tenant" else topic.kind,
        id=topic.id,
        tenant=caller.tenant,
        any_tenant=caller.tenant is None,
        user=None if admin else caller.user,
        installation=caller.tenant is None and has_role(caller, "owner"),
    )


class Start(msgspec.Struct, frozen=True):
    """Where following began: at the client's cursor, or (not recovered) at the head, with the reason.

    ``ended``: the followed job had already ended when its log was looked at.
    """

    recovered: bool
    reason: str | None
    cursor: Cursor
    head: Cursor
    ended: bool = False


class Frame(msgspec.Struct, frozen=True):
    """One thing to tell a client.

    ``events`` (``rows``), ``advance`` (nothing happened up to ``cursor``) or ``reset`` (events are lost, see
    ``reason``; go on from ``cursor``). ``body`` is the shared wire form of everything but ``prev``, which is
    each follower's own.
    """

    kind: Literal["events", "advance", "reset"]
    prev: Cursor
    cursor: Cursor
    rows: Sequence[EventRow] = ()
    body: str = ""
    reason: str | None = None


class FeedStatistics(msgspec.Struct, frozen=True):
    """How many follow how many scopes, how much is remembered for them, how often the log was read."""

    scopes: int
    followers: int
    bytes: int
    reads: int


class Follower:
    """One client's place in one scope; a context manager. ``news`` is set when there may be more.

    Several followers may share one ``news``. Only one task at a time may ask for frames.
    """

    def __init__(self, feed: Feed, tail: Tail, news: asyncio.Event) -> None:
        self.news = news
        self.lagging = False
        self.start: Start
        self.sent: Cursor
        self._feed = feed
        self.tail = tail
        self._position = 0
        self._epoch = ""
        self._was_live = False

    def begin(self, start: Start) -> None:
        """Stand where following begins."""
        self.start = start
        self.sent = start.cursor
        self._epoch, self._position = start.cursor.epoch, start.cursor.seq

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def head(self) -> Cursor:
        """Return how far the log is known to go."""
        return Cursor(self._epoch, max(self._position, self.start.head.seq, self.tail.end or 0))

    @property
    def followers(self) -> int:
        """Return how many follow the same, this one included unless it is closed."""
        return len(self.tail.followers)

    def close(self) -> None:
        """Stop following; closing twice is fine."""
        self._feed.leave(self)

    @property
    def has_more(self) -> bool:
        """Say whether the log is known to go on after what was handed out."""
        return self._position < (self.tail.end or 0) or self.is_behind

    @property
    def is_behind(self) -> bool:
        """Say whether the tail has forgotten what comes next, so that the log has to be read."""
        return self._position < self.tail.start or self._epoch != self.tail.epoch

    async def next(self, *, max_rows: int = MAX_ROWS) -> Frame | None:
        """Return the next frame, ``None`` when there is nothing more now; it never waits for news.

        Raises:
            sqlite3.Error: the log could not be read.
        """
        while self.is_behind:
            at = self._position
            frame = await self._read(max_rows)
            if frame is not None:
                return frame
            if self._position == at:
                return None
        return self.next_nowait(max_rows=max_rows)

    def next_nowait(self, *, max_rows: int = MAX_ROWS) -> Frame | None:
        """Return the next frame out of the tail's memory; only for who is not behind."""
        self._was_live = True
        piece = self.tail.piece(self._position, max_rows)
        self._position = piece.cursor.seq
        if self._position >= (self.tail.end or 0):
            self.tail.caught_up(self)
        if not piece.rows:
            return None
        prev, self.sent = self.sent, piece.cursor
        return Frame("events", prev, piece.cursor, piece.rows, piece.body)

    async def _read(self, max_rows: int) -> Frame | None:
        place = Cursor(self._epoch, self._position)
        log, found = await self._feed.look(self.tail.scope, place, max_rows)
        loss = log.loss(place)
        if loss is not None:
            return self._reset(log, loss)
        self._position = found.position
        if not found.rows:
            return None
        # The log itself keeps only the newest progress of a job; say so to whom it was skipped for.
        prev, self.sent = self.sent, Cursor(self._epoch, self._position)
        body = body_of(self.sent, found.rows, coalesced=self._was_live)
        return Frame("events", prev, self.sent, found.rows, body)

    def _reset(self, log: LogState, reason: str) -> Frame:
        prev, self.sent = self.sent, log.cursor
        self._epoch, self._position = log.epoch, log.head
        return Frame("reset", prev, self.sent, reason=reason)

    def advance(self) -> Frame | None:
        """Return a frame that takes a quiet client along, ``None`` when it is where we are."""
        if self.sent == Cursor(self._epoch, self._position):
            return None
        prev, self.sent = self.sent, Cursor(self._epoch, self._position)
        return Frame("advance", prev, self.sent, body=body_of(self.sent, (), coalesced=False))

    async def wait(self, max_s: float) -> None:
        """Wait until ``news`` is set, at most ``max_s``; whoever waits clears it before looking."""
        try:
            async with asyncio.timeout(max_s):
                await self.news.wait()
        except TimeoutError:
            return


class Feed:
    """Hands out followers and, in `run`, reads the log for all of them when the hub rings."""

    def __init__(self, store: Log, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._tails: dict[Scope, Tail] = {}
        self._bell: Bell | None = None
        self._head = 0
        self._reads = 0

    async def run(self) -> None:
        """Read for all followers at every ring, until cancelled; a log that cannot be read is tried again."""
        with self._hub.join() as bell:
            self._bell = bell
            while True:
                try:
                    while await self._round():
                        pass
                except sqlite3.Error:
                    _log.exception("the event log cannot be read; trying again")
                    await asyncio.sleep(_RETRY_S)
                    continue
                await bell.wait(max_s=_LOOK_ANYWAY_S)

    async def head(self) -> Cursor:
        """Return where the log ends now."""
        return (await self._store.read(events.state)).cursor

    async def follow(self, caller: Caller, topic: Topic, since: str | None, news: asyncio.Event) -> Follower:
        """Begin to follow ``topic`` at ``since``: a cursor, ``now`` or ``earliest``.

        ``None`` is now, but for a job that has ended: then it is the event that tells so.

        A cursor that cannot be honoured begins at the head, with ``start.recovered`` false and why.

        Raises:
            Refusal: (``NOT_FOUND``) the job or task is unknown or somebody else's; (``FORBIDDEN``) the
                caller's roles do not reach that far.
        """
        scope = scope_of(caller, topic)
        follower = self._join(scope, news)
        try:
            log, audience = await self._store.read(lambda connection: _situation(connection, topic))
            if topic.kind in ("job", "task"):
                _refuse_foreign(caller, topic, audience)
            follower.begin(_start(since, log, audience))
            self._place(follower, log)
        except BaseException:
            follower.close()
            raise
        return follower

    def _join(self, scope: Scope, news: asyncio.Event) -> Follower:
        tail = self._tails.setdefault(scope, Tail(scope))
        follower = Follower(self, tail, news)
        tail.followers.add(follower)
        return follower

    def _place(self, follower: Follower, log: LogState) -> None:
        tail = follower.tail
        if tail.end is None:
            tail.begin(log)
            # A round that ran meanwhile left this tail out and took the ring that was meant for it too.
            if self._bell is not None and self._head > log.head:
                self._bell.ring()
        follower.news.set()

    def leave(self, follower: Follower) -> None:
        """Forget a follower, and its tail with the last one; leaving twice is fine."""
        tail = follower.tail
        tail.caught_up(follower)
        tail.followers.discard(follower)
        if not tail.followers and self._tails.get(tail.scope) is tail:
            del self._tails[tail.scope]

    async def look(self, scope: Scope, place: Cursor, max_rows: int) -> tuple[LogState, Slice]:
        """Read the log after ``place`` for one follower; an unusable place reads nothing.

        Raises:
            sqlite3.Error: the log could not be read.
        """
        self._reads += 1

        def work(connection: sqlite3.Connection) -> tuple[LogState, Slice]:
            log = events.state(connection)
            if log.loss(place) is not None:
                return log, Slice([], place.seq)
            return log, events.read_after(connection, scope, place.seq, head=log.head, max_rows=max_rows)

        return await self._store.read(work)

    async def _round(self) -> bool:
        """Read once for every tail; return whether there is more to read at once."""
        tails = [tail for tail in self._tails.values() if tail.end is not None]
        more = False
        for first in range(0, len(tails), _MAX_SCOPES):
            part = [(tail, tail.epoch, tail.end) for tail in tails[first : first + _MAX_SCOPES]]
            more = await self._read_tails(part) or more
        return more

    async def _read_tails(self, part: Sequence[tuple[Tail, str, int | None]]) -> bool:
        places = [(tail.scope, Cursor(epoch, end or 0)) for tail, epoch, end in part]
        self._reads += 1
        log, slices = await self._store.read(lambda connection: _look_all(connection, places))
        self._head = log.head
        for (tail, _, end), found in zip(part, slices, strict=True):
            tail.accept(log, end or 0, found)
        return any(found.position < log.head for found in slices)

    def statistics(self) -> FeedStatistics:
        """Return how many follow and what it costs."""
        tails = self._tails.values()
        return FeedStatistics(
            scopes=len(tails),
            followers=sum(len(tail.followers) for tail in tails),
            bytes=sum(tail.bytes for tail in tails),
            reads=self._reads,
        )


def _look_all(
    connection: sqlite3.Connection, places: Sequence[tuple[Scope, Cursor]]
) -> tuple[LogState, list[Slice]]:
    log = events.state(connection)
    lost = Slice([], log.head)
    return log, [
        lost if log.loss(at) is not None else events.read_after(connection, scope, at.seq, head=log.head)
        for scope, at in places
    ]


def _situation(connection: sqlite3.Connection, topic: Topic) -> tuple[LogState, Audience | None]:
    audience = None
    if topic.kind in {"job", "task"}:
        audience = events.audience(connection, topic.kind, topic.id or "")
    return events.state(connection), audience


def _refuse_foreign(caller: Caller, topic: Topic, audience: Audience | None) -> None:
    seen = audience is not None and may_see(
        caller, tenant=audience.tenant, requested_by=audience.requested_by, source=audience.source
    )
    if not seen:
        raise Refusal("NOT_FOUND", f"there is no such {topic.kind}")


def _start(since: str | None, log: LogState, audience: Audience | None) -> Start:
    ended = audience is not None and audience.ended
    if since is None:
        end_seq = None if audience is None else audience.end_seq
        last = log.cursor if end_seq is None else Cursor(log.epoch, end_seq - 1)
        return Start(True, None, log.cursor if log.loss(last) else last, log.cursor, ended)
    if since in {"now", "earliest"}:
        return Start(True, None, log.cursor if since == "now" else log.earliest, log.cursor, ended)
    try:
        cursor = Cursor.parse(since)
    except ValueError:
        return Start(False, "bad_cursor", log.cursor, log.cursor, ended)
    loss = log.loss(cursor)
    if loss is not None:
        return Start(False, loss, log.cursor, log.cursor, ended)
    return Start(True, None, cursor, log.cursor, ended)
