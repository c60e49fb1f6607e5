"""The janitor: walks through what is kept for a time and removes what is old, so slowly that nobody waits.

What comes in: the store, how long things are kept, and more acts if others have some; what goes out:
nothing but room. Each transaction holds the write lock for some 20 ms and leaves a gap as long as itself,
so that jobs go first. A fault ends the round, never the loop.
"""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import msgspec

from bulkops.errors import BulkopsError
from bulkops.settings import ServerSettings
from bulkops.store import credentials, deletions, events, idempotency, retention, webhooks
from bulkops.store.retention import OldJob
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

_DAY_MS: Final = 24 * 3_600_000
_HOLD_S: Final = 0.02
_MAX_GAP_S: Final = 0.1
_ROUND_S: Final = 600.0
_FIRST_ROUND_S: Final = 5.0
_OPTIMIZE_S: Final = 6 * 3600.0
_OLD_JOBS: Final = 200

_log = logging.getLogger("bulkops.janitor")

#: One small removal inside a write transaction; returns how many rows went, 0 when nothing is left.
Step = Callable[[Tx], int]
Look = Callable[[sqlite3.Connection, OldJob | None], list[OldJob]]
Remove = Callable[[Tx, str], int]
#: An act of another room (expired artifacts, …) that keeps its own measure.
Chore = Callable[[], Awaitable[None]]


class Round(msgspec.Struct, frozen=True):
    """How much one round removed, by what."""

    removed: dict[str, int]


class Janitor:
    """Makes rounds for as long as it runs."""

    def __init__(self, store: Store, server: ServerSettings, *, chores: Sequence[Chore] = ()) -> None:
        self._store = store
        self._server = server
        self._chores = tuple(chores)
        self._optimized_s: float | None = None

    async def run(self) -> None:
        """Make a round soon after the start and then every ten minutes or so, until cancelled."""
        pause_s = _FIRST_ROUND_S
        while True:
            # Jitter: several instances on one machine shall not all begin at once.
            await anyio.sleep(pause_s * random.uniform(0.9, 1.1))  # noqa: S311  jitter is no secret
            pause_s = _ROUND_S
            try:
                await self.make_round()
            except (sqlite3.Error, OSError, BulkopsError) as error:
                _log.warning("maintenance broke off, it goes on next time: %s", type(error).__name__)

    async def make_round(self) -> Round:
        """Remove everything that is old by now; return how much that was."""
        now_ms = self._store.clock.now_ms()
        removed = {
            "trash": await self._empty_trash(now_ms - self._server.trash_days * _DAY_MS),
            "jobs": await self._remove_jobs(now_ms, now_ms - self._server.keep_jobs_days * _DAY_MS),
        }
        for name, step in self._steps(now_ms).items():
            removed[name] = await self._work_off(step)
        for chore in self._chores:
            await chore()
        await self._optimize()
        done = {name: count for name, count in removed.items() if count}
        if done:
            _log.info("maintenance: %s", " ".join(f"{name}={count}" for name, count in done.items()))
        return Round(removed)

    def _steps(self, now_ms: int) -> dict[str, Step]:
        jobs_before_ms = now_ms - self._server.keep_jobs_days * _DAY_MS
        events_before_ms = now_ms - self._server.keep_events_days * _DAY_MS
        trash_before_ms = now_ms - self._server.trash_days * _DAY_MS
        return {
            "files_retired": lambda tx: deletions.retire(tx, trash_before_ms, 200),
            "files_forgotten": lambda tx: deletions.forget(tx, jobs_before_ms, 200),
            "tasks": lambda tx: retention.remove_tasks(tx, before_ms=jobs_before_ms),
            "selections": retention.remove_selections,
            "idempotency": lambda tx: idempotency.purge(tx, limit=200),
            "credentials": lambda tx: credentials.purge(tx, limit=200),
            "letters": lambda tx: webhooks.forget(
                tx, delivered_before_ms=events_before_ms, dead_before_ms=jobs_before_ms, limit=200
            ),
            "events": lambda tx: events.trim(tx, before_ms=events_before_ms),
            "pages": retention.vacuum,
        }

    async def _empty_trash(self, before_ms: int) -> int:
        def look(connection: sqlite3.Connection, after: OldJob | None) -> list[OldJob]:
            return retention.jobs_with_trash(connection, before_ms=before_ms, after=after, limit=_OLD_JOBS)

        def remove(tx: Tx, job_id: str) -> int:
            return retention.empty_trash(tx, job_id, before_ms=before_ms)

        return await self._for_each(look, remove)

    async def _remove_jobs(self, now_ms: int, before_ms: int) -> int:
        def look(connection: sqlite3.Connection, after: OldJob | None) -> list[OldJob]:
            return retention.removable_jobs(
                connection, now_ms=now_ms, before_ms=before_ms, after=after, limit=_OLD_JOBS
            )

        def remove(tx: Tx, job_id: str) -> int:
            return retention.remove_job(tx, job_id, before_ms=before_ms)

        return await self._for_each(look, remove)

    async def _for_each(self, look: Look, remove: Remove) -> int:
        """Look for old jobs on a reader, so that the search holds no write lock; then work them off."""
        removed = 0
        after: OldJob | None = None
        while found := await self._look(look, after):
            removed += await self._work_off(_through([job.id for job in found if job.spent], remove))
            after = found[-1]
        return removed

    async def _look(self, look: Look, after: OldJob | None) -> list[OldJob]:
        return await self._store.read(lambda connection: look(connection, after))

    async def _work_off(self, step: Step) -> int:
        """Repeat ``step`` until it removes nothing, in short transactions with gaps."""
        removed, finished = 0, False
        while not finished:
            began_s = self._store.clock.monotonic()
            count, finished = await self._store.write(lambda tx: _bite(tx, step, self._store.clock.monotonic))
            removed += count
            if not finished:
                await anyio.sleep(min(_MAX_GAP_S, self._store.clock.monotonic() - began_s))
        return removed

    async def _optimize(self) -> None:
        now_s = self._store.clock.monotonic()
        if self._optimized_s is None or now_s - self._optimized_s >= _OPTIMIZE_S:
            await self._store.write(retention.optimize)
            self._optimized_s = now_s


def _through(job_ids: list[str], remove: Remove) -> Step:
    """Make one step out of many jobs: the first that something can be removed of is worked off first."""
    left = job_ids[::-1]

    def step(tx: Tx) -> int:
        while left:
            if removed := remove(tx, left[-1]):
                return removed
            left.pop()
        return 0

    return step


def _bite(tx: Tx, step: Step, monotonic: Callable[[], float]) -> tuple[int, bool]:
    """Repeat a step while the transaction has time; say how much went, and whether nothing is left."""
    until_s = monotonic() + _HOLD_S
    removed = 0
    while True:
        count = step(tx)
        removed += count
        if count == 0 or monotonic() >= until_s:
            return removed, count == 0
