"""The last rows of one scope of the log, remembered once for all who follow it and encoded once a frame.

What comes in: rows as the feed reads them; what goes out: pieces of the log, each with the wire form that its
followers share. What is not remembered any more is read from the log; nothing here reads or waits.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from typing import Final, Protocol

import msgspec

from bulkops.store.events import MAX_BYTES, Cursor, EventRow, LogState, Scope, Slice

#: How much a tail remembers for followers that are slower than the bell.
_MAX_TAIL_BYTES: Final = 2 * MAX_BYTES
#: More batches behind than this, only the newest progress of each job is sent.
_MAX_BATCHES_BEHIND: Final = 2


def _text_of(row: EventRow) -> str:
    return f'{{"seq":{row.seq}{row.rest}'


def body_of(cursor: Cursor, rows: Sequence[EventRow], *, coalesced: bool) -> str:
    """Return the wire form of a frame but for its ``prev``, which is each follower's own."""
    mark = ',"coalesced":true' if coalesced else ""
    return f'"cursor":"{cursor}","items":[{",".join(map(_text_of, rows))}]{mark}'


def newest_progress(rows: Sequence[EventRow]) -> list[EventRow]:
    """Drop progress that a later row of the same job replaces; every other kind stays."""
    newest = {row.job: row.seq for row in rows if row.kind == "progress"}
    return [row for row in rows if row.kind != "progress" or newest[row.job] == row.seq]


class Piece(msgspec.Struct, frozen=True):
    """What a follower is told next: the rows up to ``cursor``, and their wire form."""

    rows: Sequence[EventRow]
    cursor: Cursor
    body: str


class Listener(Protocol):
    """What a tail asks of a follower: the bell to ring for news, and whether it has yet to hear of some."""

    lagging: bool

    @property
    def news(self) -> asyncio.Event: ...


class Tail:
    """The last rows of one scope, for all its followers: everything of it in (``start``, ``end``]."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.epoch = ""
        self.start = 0
        self.end: int | None = None
        self.followers: set[Listener] = set()
        self.lagging = 0
        self.bytes = 0
        self._rows: list[EventRow] = []
        self._batches: list[int] = []
        self._pieces: dict[tuple[int, int], Piece] = {}

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

    def caught_up(self, follower: Listener) -> None:
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

    def piece(self, position: int, max_rows: int) -> Piece:
        """Return what comes after ``position``, encoded once for all who ask for the same."""
        found = self._pieces.get((position, max_rows))
        if found is None:
            found = self._pieces[position, max_rows] = self._cut(position, max_rows)
        return found

    def _cut(self, position: int, max_rows: int) -> Piece:
        assert self.end is not None
        rows = self._rows[bisect_right(self._rows, position, key=_seq) :]
        coalesced = len(self._batches) - bisect_right(self._batches, position) > _MAX_BATCHES_BEHIND
        if coalesced:
            rows = newest_progress(rows)
        fitting = _fitting(rows, max_rows)
        end = max(position, self.end) if len(fitting) == len(rows) else fitting[-1].seq
        cursor = Cursor(self.epoch, end)
        return Piece(fitting, cursor, body_of(cursor, fitting, coalesced=coalesced))


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
