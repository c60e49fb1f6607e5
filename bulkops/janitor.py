"""The janitor: his chores remove what was kept for its time, so slowly that nobody waits.

What comes in: the store, how long things are kept, and chores of other rooms if they have some; what goes out:
nothing but room. Each transaction holds the write lock for some 20 ms and leaves a gap as long as itself,
so that jobs go first. What is old is told by the steady time: a wall clock that leaps forward removes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import anyio
import msgspec

from bulkops.operations import MAINTENANCE as OWN_RESOURCE
from bulkops.settings import ServerSettings
from bulkops.steadiness import Steadiness
from bulkops.store import credentials, deletions, deliveries, events, idempotency, retention
from bulkops.store.retention import OldJob
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

_DAY_MS: Final = 24 * 3_600_000
_HOLD_S: Final = 0.02
_MAX_GAP_S: Final = 0.1
_OLD_JOBS: Final = 200
#: The house's own jobs are kept for a week: nobody undoes or retries them.
_OWN_JOBS_MS: Final = 7 * _DAY_MS
#: By then nobody is at a file any more that he began to give back for an undo that has ended.
_STRANDED_MS: Final = 10 * 60_000

#: One small removal inside a write transaction; returns how many rows went, 0 when nothing is left.
Step = Callable[[Tx], int]
Look = Callable[[sqlite3.Connection, OldJob | None], list[OldJob]]
Remove = Callable[[Tx, str], int]
#: Asked between two transactions: whether to leave the rest for another time.
Stop = Callable[[], bool]


class Chore(msgspec.Struct, frozen=True):
    """A chore: ``work`` removes what is old and says how much that was, ``due`` whether there is any.

    ``due`` is cheap, and changes nothing.
    """

    work: Callable[[Stop], Awaitable[int]]
    due: Callable[[], Awaitable[bool]]


class Janitor:
    """Knows the chores by name; ``more`` are those of other rooms (expired artifacts, …)."""

    def __init__(
        self,
        store: Store,
        server: ServerSettings,
        steadiness: Steadiness,
        *,
        more: Mapping[str, Chore] | None = None,
    ) -> None:
        self._store = store
        self._server = server
        self._steadiness = steadiness
        self._chores = {**self._own_chores(), **(more or {})}

    @property
    def names(self) -> tuple[str, ...]:
        """The chores, in the order in which they are best done."""
        return tuple(self._chores)

    async def due(self, names: Iterable[str]) -> bool:
        """Say whether any of these chores has something to remove."""
        for name in names:
            if await self._chores[name].due():
                return True
        return False

    async def do(self, name: str, stop: Stop = lambda: False) -> int:
        """Do one chore until nothing is left or ``stop`` says so; return how much was removed.

        Raises:
            sqlite3.Error, OSError: the disk does not take it now; what was removed stays removed.
        """
        return await self._chores[name].work(stop)

    def _own_chores(self) -> dict[str, Chore]:
        return {
            "trash": Chore(self._empty_trash, self._trash_due),
            "files": self._stepwise(self._take_stranded_files, self._retire_files, self._forget_files),
            "selections": self._stepwise(retention.remove_selections),
            "idempotency": self._stepwise(lambda tx: idempotency.purge(tx, limit=200)),
            "credentials": self._stepwise(lambda tx: credentials.purge(tx, limit=200)),
            "jobs": Chore(self._remove_jobs, self._jobs_due),
            "tasks": self._stepwise(self._remove_tasks),
            "letters": self._stepwise(self._forget_letters),
            "events": self._stepwise(lambda tx: events.trim(tx, before_ms=self._events_before(tx.now_ms))),
            "pages": self._stepwise(retention.vacuum),
            "optimize": Chore(self._optimize, self._never),
        }

    def _trash_before(self, now_ms: int) -> int:
        return now_ms - self._server.trash_days * _DAY_MS

    def _jobs_before(self, now_ms: int) -> int:
        return now_ms - self._server.keep_jobs_days * _DAY_MS

    def _events_before(self, now_ms: int) -> int:
        return now_ms - self._server.keep_events_days * _DAY_MS

    def _take_stranded_files(self, tx: Tx) -> int:
        return deletions.take_stranded(tx, tx.now_ms - _STRANDED_MS, 200)

    def _retire_files(self, tx: Tx) -> int:
        return deletions.retire(tx, self._trash_before(tx.now_ms), 200)

    def _forget_files(self, tx: Tx) -> int:
        return deletions.forget(tx, self._jobs_before(tx.now_ms), 200)

    def _remove_tasks(self, tx: Tx) -> int:
        return retention.remove_tasks(tx, before_ms=self._jobs_before(tx.now_ms))

    def _forget_letters(self, tx: Tx) -> int:
        return deliveries.forget(
            tx,
            delivered_before_ms=self._events_before(tx.now_ms),
            dead_before_ms=self._jobs_before(tx.now_ms),
            limit=200,
        )

    def _stepwise(self, *steps: Step) -> Chore:
        async def work(stop: Stop) -> int:
            return sum([await self._work_off(step, stop) for step in steps])

        async def due() -> bool:
            return await self._try(steps)

        return Chore(work, due)

    async def _try(self, steps: Iterable[Step]) -> bool:
        """Say whether a step would remove anything: it is done and taken back, which costs no disk."""
        now_ms = self._steadiness.now_ms()

        def attempt(tx: Tx) -> None:
            tx.now_ms = min(tx.now_ms, now_ms)
            if any(step(tx) for step in steps):
                raise _Something

        try:
            await self._store.write(attempt)
        except _Something:
            return True
        return False

    async def _trash_due(self) -> bool:
        return await self._any(self._trash_look(self._steadiness.now_ms()))

    async def _jobs_due(self) -> bool:
        looks = self._job_looks(self._steadiness.now_ms())
        return any([await self._any(look) for look, _ in looks])

    async def _never(self) -> bool:
        """Statistics are refreshed along with other chores, they are no reason to begin."""
        return False

    def _trash_look(self, now_ms: int) -> Look:
        before_ms = self._trash_before(now_ms)

        def look(connection: sqlite3.Connection, after: OldJob | None) -> list[OldJob]:
            return retention.jobs_with_trash(connection, before_ms=before_ms, after=after, limit=_OLD_JOBS)

        return look

    async def _empty_trash(self, stop: Stop) -> int:
        now_ms = self._steadiness.now_ms()
        before_ms = self._trash_before(now_ms)

        def remove(tx: Tx, job_id: str) -> int:
            return retention.empty_trash(tx, job_id, before_ms=before_ms)

        return await self._for_each(self._trash_look(now_ms), remove, stop)

    def _job_looks(self, now_ms: int) -> list[tuple[Look, int]]:
        """Return how to find old jobs, the house's own too, and before when each kind is old."""
        kinds = ((None, self._jobs_before(now_ms)), (OWN_RESOURCE, now_ms - _OWN_JOBS_MS))

        def look_for(resource: str | None, before_ms: int) -> Look:
            def look(connection: sqlite3.Connection, after: OldJob | None) -> list[OldJob]:
                return retention.removable_jobs(
                    connection,
                    now_ms=now_ms,
                    before_ms=before_ms,
                    after=after,
                    limit=_OLD_JOBS,
                    resource=resource,
                )

            return look

        return [(look_for(resource, before_ms), before_ms) for resource, before_ms in kinds]

    async def _remove_jobs(self, stop: Stop) -> int:
        removed = 0
        for look, before_ms in self._job_looks(self._steadiness.now_ms()):
            remove = partial(retention.remove_job, before_ms=before_ms)
            removed += await self._for_each(look, remove, stop)
        return removed

    async def _any(self, look: Look) -> bool:
        after: OldJob | None = None
        while found := await self._look(look, after):
            if any(job.spent for job in found):
                return True
            after = found[-1]
        return False

    async def _for_each(self, look: Look, remove: Remove, stop: Stop) -> int:
        """Look for old jobs on a reader, so that the search holds no write lock; then work them off."""
        removed = 0
        after: OldJob | None = None
        while not stop() and (found := await self._look(look, after)):
            step = _through([job.id for job in found if job.spent], remove)
            removed += await self._work_off(step, stop)
            after = found[-1]
        return removed

    async def _look(self, look: Look, after: OldJob | None) -> list[OldJob]:
        return await self._store.read(lambda connection: look(connection, after))

    async def _work_off(self, step: Step, stop: Stop) -> int:
        """Repeat ``step`` until it removes nothing, in short transactions with gaps."""
        removed, finished = 0, False
        while not finished:
            began_s = self._store.clock.monotonic()
            now_ms = self._steadiness.now_ms()
            count, finished = await self._store.write(partial(self._bite, step=step, now_ms=now_ms))
            removed += count
            if not finished:
                if stop():
                    break
                await anyio.sleep(min(_MAX_GAP_S, self._store.clock.monotonic() - began_s))
        return removed

    def _bite(self, tx: Tx, step: Step, now_ms: int) -> tuple[int, bool]:
        """Repeat a step while the transaction has time; say how much went, and whether nothing is left."""
        tx.now_ms = min(tx.now_ms, now_ms)
        monotonic = self._store.clock.monotonic
        until_s = monotonic() + _HOLD_S
        removed = 0
        while True:
            count = step(tx)
            removed += count
            if count == 0 or monotonic() >= until_s:
                return removed, count == 0

    async def _optimize(self, _: Stop) -> int:
        await self._store.write(retention.optimize)
        return 0


class _Something(Exception):
    """There is something to remove; raised to take the attempt back."""


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
