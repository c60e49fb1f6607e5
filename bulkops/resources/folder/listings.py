"""Listings that the calls of one request share: a folder is read once, and all of them speak of the same entries.

What comes in: a query, whose bound is the instant of its request; what goes out: a connection to the entries
that stood there then (see `listing`). The job that the request becomes is frozen from the same listing while it
is kept. After a while, or a crash, the folder is read anew, and what came later is told by its ctime, which no
program can set: an entry that was made, moved, renamed or written to since is left out, unless the folder
itself shows that nothing came or went.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bulkops.resources.contract import Query
from bulkops.resources.folder.listing import laid_out, lay_out, looked_at
from bulkops.resources.folder.yard import Yard
from bulkops.resources.target import DeadlineError

#: How long a listing is kept after its last use: it may be many megabytes.
KEEP_S: Final = 10.0
_MAX_KEPT: Final = 2
#: File systems take their times from a clock that stands still for as long (a tick at 100 Hz).
_TICK_NS: Final = 10_000_000

_Key = tuple[str | int, bool]


class _Listing:
    """One listing, used by one call at a time; ``late``: there was no time to read it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.late = False
        self.used_at = time.monotonic()

    def close(self) -> None:
        # Whoever waits for the lock finds it as new, and reads for himself.
        if self.connection is not None:
            self.connection.close()
        self.connection, self.late = None, False


class Listings:
    """The listings of one root; every method but `drop_old` may wait for the disk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[_Key, _Listing] = {}

    @contextmanager
    def opened(self, yard: Yard, query: Query, *, until: float | None) -> Iterator[sqlite3.Connection]:
        """Open the entries that a query is about: those it names, else all that stood there at its bound.

        Raises:
            DeadlineError: to read them takes longer than until ``until`` (monotonic), or did before.
            OSError: the root cannot be read.
        """
        if query.ids is not None or query.bound is None:
            items = None if query.ids is None else [str(item) for item in query.ids]
            needs = set(query.filter)
            with laid_out(yard.root, yard.ground, items=items, needs=needs, until=until) as connection:
                yield connection
            return
        listing = self._of(query, query.bound)
        with listing.lock:
            if listing.connection is None:
                if listing.late:
                    raise DeadlineError
                listing.late = True
                listing.connection = lay_out(yard.root, yard.ground, needs=set(query.filter), until=until)
            try:
                yield listing.connection
            finally:
                listing.used_at = time.monotonic()

    def _of(self, query: Query, bound: str | int) -> _Listing:
        with self._lock:
            listing = self._kept.setdefault((bound, looked_at(query.filter)), _Listing())
        self.drop_old(most=_MAX_KEPT, but=listing)
        return listing

    @contextmanager
    def last(self, yard: Yard, query: Query) -> Iterator[sqlite3.Connection]:
        """Open the entries that stood there at a query's bound, however long it takes, for the last time.

        Raises:
            OSError: the root cannot be read.
        """
        with self._lock:
            listing = self._kept.pop((query.bound or "", looked_at(query.filter)), None) or _Listing()
        with listing.lock:
            if listing.connection is None:
                listing.connection = _read_late(yard, query)
            try:
                yield listing.connection
            finally:
                listing.close()

    def drop_old(self, *, most: int = 0, but: _Listing | None = None) -> None:
        """Let go of listings that nobody uses: those of some time ago, and so many that ``most`` are left."""
        with self._lock:
            for key, listing in list(self._kept.items()):
                old = listing.used_at < time.monotonic() - KEEP_S
                surplus = most and len(self._kept) > most
                if listing is but or not (old or surplus) or not listing.lock.acquire(blocking=False):
                    continue
                del self._kept[key]
                listing.close()
                listing.lock.release()

    def drop_all(self) -> None:
        """Let go of every listing."""
        with self._lock:
            kept, self._kept = self._kept, {}
        for listing in kept.values():
            with listing.lock:
                listing.close()


def _read_late(yard: Yard, query: Query) -> sqlite3.Connection:
    since_ns = None if query.bound is None else int(query.bound) - _TICK_NS
    if since_ns is not None and os.fstat(yard.root).st_ctime_ns < since_ns:
        since_ns = None  # nothing came into the folder, nothing was renamed in it
    return lay_out(yard.root, yard.ground, needs=set(query.filter), since_ns=since_ns)
