"""The scheduler: starts what is due by the wall clock, and waits for what is due next.

What comes in: rows of `schedules` and somebody who starts their jobs; what goes out: calls at the right time.
The wall clock decides what is due, the monotonic clock only measures waiting: since clocks are set, it looks at
least once a minute. It keeps nothing that counts: what is due stands in the row, and moves on with the job.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio

from bulkops.errors import BulkopsError
from bulkops.slots import after_set_back, following_if_readable
from bulkops.steadiness import Steadiness
from bulkops.store import schedules
from bulkops.store.schedules import ScheduleRow
from bulkops.store.store import Store
from bulkops.store.transaction import Commit, Tx

_MAX_SLEEP_S: Final = 60.0
_AT_ONCE: Final = 100

_log = logging.getLogger("bulkops.scheduler")

#: Starts the job of a due schedule and takes it past that instant; raises only what is a mistake of ours or
#: the disk's.
Fire = Callable[[ScheduleRow], Awaitable[None]]


class Scheduler:
    """Fires schedules; `run` is a child of the house's task group."""

    def __init__(
        self, store: Store, steadiness: Steadiness, fire: Fire, stopping: Callable[[], bool]
    ) -> None:
        self._store = store
        self._steadiness = steadiness
        self._fire = fire
        self._stopping = stopping
        self._bell = asyncio.Event()
        store.on_commit.append(self._on_commit)

    def _on_commit(self, commit: Commit) -> None:
        if commit.schedules:
            self.ring()

    def ring(self) -> None:
        """Have it look now."""
        self._bell.set()

    async def run(self) -> None:
        """Fire what is due, wait, and so on until cancelled or the house closes."""
        while not self._stopping():
            self._bell.clear()
            try:
                wait_s = await self.look()
            except sqlite3.Error as error:
                _log.error("SCHEDULER_FAILED error=%s", error)
                wait_s = 1.0
            with anyio.move_on_after(wait_s):
                await self._bell.wait()

    async def look(self) -> float:
        """Fire everything that is due; return how many seconds to wait at most."""
        self._steadiness.now_ms()
        now_ms = self._store.clock.now_ms()
        await self._follow_back(now_ms)
        for row in await self._store.read(partial(schedules.due, now_ms=now_ms, limit=_AT_ONCE)):
            if self._stopping():
                break
            await self._fire_one(row)
        next_ms = await self._store.read(schedules.next_due_ms)
        if next_ms is None:
            return _MAX_SLEEP_S
        return min(_MAX_SLEEP_S, max(0.0, (next_ms - self._store.clock.now_ms()) / 1000))

    async def _fire_one(self, row: ScheduleRow) -> None:
        try:
            await self._fire(row)
        except sqlite3.Error:
            raise
        except Exception:  # noqa: BLE001  one schedule's trouble must not keep the others from firing
            _log.exception("SCHEDULE_BROKE schedule=%s", row.id)
            await self._store.write(lambda tx: _give_up(tx, row))

    async def _follow_back(self, now_ms: int) -> None:
        """Bring back schedules that wait for too far a time, because the clock was ahead when they fired."""
        rows = await self._store.read(lambda connection: schedules.ahead(connection, now_ms))
        for row in rows:
            try:
                next_ms = after_set_back(row.timing, now_ms, row.last_ms or 0)
            except ValueError as error:
                _log.error("SCHEDULE_UNREADABLE schedule=%s error=%s", row.id, error)
                continue
            if next_ms is not None and row.next_ms is not None and next_ms < row.next_ms:
                _log.warning("CLOCK_SET_BACK schedule=%s", row.id)
                await self._store.write(partial(schedules.move, row=row, next_ms=next_ms))


def _give_up(tx: Tx, row: ScheduleRow) -> None:
    next_ms = following_if_readable(row.timing, tx.now_ms)
    schedules.advance(tx, row, next_ms=next_ms, result=BulkopsError.code)
