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
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeVar

import msgspec

from bulkops.errors import Refusal
from bulkops.hub import Bell, Hub
from bulkops.models import Caller
from bulkops.operations import has_role, may_see
from bulkops.store import events
from bulkops.store.events import MAX_BYTES, MAX_ROWS, Audience, Cursor, EventRow, LogState, Scope, Slice

T = TypeVar("T")

#: A commit rings; this only bounds what a lost ring could cost.
_LOOK_ANYWAY_S: Final = 2.0
_RETRY_S: Final = 1.0
#: How much a tail remembers for followers that are slower than the bell.
_MAX_TAIL_BYTES: Final = 2 * MAX_BYTES
#: More batches behind than this, only the newest progress of each job is sent.
_MAX_BATCHES_BEHIND: Final = 2
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


def text_of(row: EventRow) -> str:
    """Return an event's JSON object."""
    return f'{{"seq":{row.seq}{row.rest}'


def _body(cursor: Cursor, rows: Sequence[EventRow], *, coalesced: bool) -> str:
    mark = ',"coalesced":true' if coalesced else ""
    return f'"cursor":"{cursor}","items":[{",".join(map(text_of, rows))}]{mark}'


def newest_progress(rows: Sequence[EventRow]) -> list[EventRow]:
    """Drop progress that a later row of the same job replaces; every other kind stays."""
    newest = {row.job: row.seq for row in rows if row.kind == "progress"}
    return [row for row in rows if row.kind != "progress" or newest[row.job] == row.seq]


class _Piece(msgspec.Struct, frozen=True):
    rows: Sequence[EventRow]
    cursor: Cursor
    body: str


class Tail:
    """The last rows of one scope, for all its followers: everything of it in (``start``, ``end``]."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.epoch = ""
        self.start = 0
        self.end: int | None = None
        self.followers: set[Follower] = set()
        self.lagging = 0
        self.bytes = 0
        self._rows: list[EventRow] = []
        self._batches: list[int] = []
        self._pieces: dict[tuple[int, int], _Piece] = {}

    def begin(self, log: LogState) -> None:
        """Remember nothing and go on from the head."""
        self._forget()
        self.epoch, self.start, self.end = log.epoch, log.head, log.head

    def accept(self, log: LogState, after: int, found: Slice) -> None:
        """Take what was read after ``after``; wake everybody when there is something."""
        if self.end != after:
            return
        if log.loss(Cursor(self.epoch, after)) is not None:
            self.begin(log)
            self._wake()
            return
        # A cached piece ends where the tail ended, so it is stale without a new row too.
        self._pieces.clear()
        self.end = found.position
        if found.rows:
            self._rows.extend(found.rows)
            self._batches.append(found.position)
            self.bytes += sum(row.size for row in found.rows)
            self._drop_oldest()
            self._wake()

    def _drop_oldest(self) -> None:
        excess, dropped = self.bytes - _MAX_TAIL_BYTES, 0
        while excess > 0:
            excess -= self._rows[dropped].size
            self.bytes -= self._rows[dropped].size
            dropped += 1
        if dropped:
            self.start = self._rows[dropped - 1].seq
            del self._rows[:dropped]
            del self._batches[: bisect_right(self._batches, self.start)]

    def _wake(self) -> None:
        for follower in self.followers:
            if not follower.lagging:
                follower.lagging = True
                self.lagging += 1
        # Only now: who is told may take its frame at once, and the last to do so ends our memory of it.
        for follower in list(self.followers):
            follower.news.set()

    def caught_up(self, follower: Follower) -> None:
        """Note that a follower has everything; when all have, nothing need be remembered."""
        if follower.lagging:
            follower.lagging = False
            self.lagging -= 1
            if self.lagging == 0 and self.end is not None:
                self._forget()
                self.start = self.end

    def _forget(self) -> None:
        self._rows.clear()
        self._batches.clear()
        self._pieces.clear()
        self.bytes = 0

    def piece(self, position: int, max_rows: int) -> _Piece:
        """Return what comes after ``position``, encoded once for all who ask for the same."""
        found = self._pieces.get((position, max_rows))
        if found is None:
            found = self._pieces[position, max_rows] = self._cut(position, max_rows)
        return found

    def _cut(self, position: int, max_rows: int) -> _Piece:
        assert self.end is not None
        rows = self._rows[bisect_right(self._rows, position, key=_seq) :]
        coalesced = len(self._batches) - bisect_right(self._batches, position) > _MAX_BATCHES_BEHIND
        if coalesced:
            rows = newest_progress(rows)
        fitting = _fitting(rows, max_rows)
        end = max(position, self.end) if len(fitting) == len(rows) else fitting[-1].seq
        cursor = Cursor(self.epoch, end)
        return _Piece(fitting, cursor, _body(cursor, fitting, coalesced=coalesced))


def _seq(row: EventRow) -> int:
    return row.seq


def _fitting(rows: list[EventRow], max_rows: int) -> list[EventRow]:
    room, count = MAX_BYTES, 0
    for row in islice(rows, max_rows):
        room -= row.size
        if count and room < 0:
            break
        count += 1
    return rows[:count]


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
        body = _body(self.sent, found.rows, coalesced=self._was_live)
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
        return Frame("advance", prev, self.sent, body=_body(self.sent, (), coalesced=False))

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

    async def follow(self, caller: Caller, topic: Topic, since: str, news: asyncio.Event) -> Follower:
        """Begin to follow ``topic`` at ``since``: a cursor, ``now`` or ``earliest``.

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
            follower.begin(_start(since, log, ended=audience is not None and audience.ended))
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


def _start(since: str, log: LogState, *, ended: bool) -> Start:
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
