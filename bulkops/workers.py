"""The workers: bounded, in one task group, each taking the first job in line for a slice at a time.

Freezers do the same for jobs whose manifest is still to be written, so that a long freeze never stands in
the way of a short job. Nobody polls: a commit that changes the line rings, and what waits for a time is
woken at that time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio

from bulkops import joblog
from bulkops.house import House
from bulkops.runner import run_freeze, run_slice
from bulkops.states import Status
from bulkops.store import claims, intents, jobs, meta
from bulkops.store.intents import Intent
from bulkops.store.jobs import JobRow
from bulkops.store.transaction import Commit, Tx

_FREEZERS: Final = 2
_MAX_SLEEP_S: Final = 30.0
#: Set back by less than this, a clock was slewed, or read in two instants.
_SLEWED_MS: Final = 1000
_MAX_CRASHES: Final = 3
_log = logging.getLogger("bulkops.workers")


class Workers:
    """Claims jobs and runs their slices; `work` is a child of the house's task group."""

    def __init__(self, house: House, count: int) -> None:
        self._house = house
        self._count = count
        self._bells = [asyncio.Event() for _ in range(count + _FREEZERS)]
        self._clock_bell = asyncio.Event()
        self._looked = house.store.clock.now_ms(), house.store.clock.monotonic()
        self._over = asyncio.Event()
        house.store.on_commit.append(self._on_commit)

    def _on_commit(self, commit: Commit) -> None:
        if commit.line:
            self._house.waiting = max(1, self._house.waiting)
            self.ring()
            if not self._house.idle:
                self._house.progress.nudge()

    def ring(self) -> None:
        """Wake everybody who waits for work."""
        for bell in self._bells:
            bell.set()
        self._clock_bell.set()

    async def work(self) -> None:
        """Work until `stop`; then every batch in hand ends and is accounted for."""
        try:
            await self._work()
        finally:
            self._over.set()

    async def stopped(self) -> None:
        """Wait until `work` has returned."""
        await self._over.wait()

    async def _work(self) -> None:
        async with anyio.create_task_group() as group:
            for index in range(self._count):
                group.start_soon(self._work_on, self._bells[index], self._run_next)
            for index in range(_FREEZERS):
                group.start_soon(self._work_on, self._bells[self._count + index], self._freeze_next)
            group.start_soon(self._watch_the_clock)

    def stop(self) -> None:
        """Ask all to end after the batch in hand."""
        self._house.stopping = True
        self.ring()
        self._house.progress.nudge()

    async def _work_on(self, bell: asyncio.Event, take: Callable[[], Awaitable[object]]) -> None:
        while not self._house.stopping:
            bell.clear()
            try:
                worked = await take()
            except sqlite3.Error as error:
                _log.error("CLAIM_FAILED error=%s", error)
                await anyio.sleep(1)
                continue
            if not worked and not self._house.stopping:
                self._house.idle += take == self._run_next
                try:
                    await bell.wait()
                finally:
                    self._house.idle -= take == self._run_next

    async def _run_next(self) -> bool:
        job = await self._claim(preparing=False)
        if job is None:
            return False
        await run_slice(self._house, job)
        return True

    async def _freeze_next(self) -> bool:
        job = await self._claim(preparing=True)
        if job is None:
            return False
        await run_freeze(self._house, job)
        return True

    async def _claim(self, *, preparing: bool) -> JobRow | None:
        generation = self._house.store.generation

        def claim(tx: Tx) -> tuple[JobRow | None, int]:
            job = claims.claim(tx, worker=generation, preparing=preparing)
            return job, claims.ready_length(tx.connection, now_ms=tx.now_ms)

        # A look costs no disk; only who sees somebody in line asks for the write lock.
        if not await self._house.store.read(
            lambda c: claims.anybody_in_line(c, preparing=preparing, now_ms=self._now())
        ):
            return None
        job, self._house.waiting = await self._house.store.write(claim)
        return job

    def _now(self) -> int:
        return self._house.store.clock.now_ms()

    def _set_back_ms(self) -> int:
        """Say by how much the wall clock was set back since the last look; what is slewed is not counted."""
        clock, (wall_ms, monotonic_s) = self._house.store.clock, self._looked
        self._looked = clock.now_ms(), clock.monotonic()
        back_ms = wall_ms + round((self._looked[1] - monotonic_s) * 1000) - self._looked[0]
        return back_ms if back_ms > _SLEWED_MS else 0

    async def _watch_the_clock(self) -> None:
        """Fire scheduled jobs, resume paused ones and wake workers for jobs that backed off, when due."""
        while not self._house.stopping:
            self._clock_bell.clear()
            try:
                back_ms = self._set_back_ms()
                if back_ms:
                    await self._house.store.write(partial(claims.hasten, back_ms=back_ms))
                due_ms = await self._house.store.read(lambda c: claims.next_due_ms(c, self._now()))
                if due_ms is not None and due_ms <= self._now():
                    await self._house.store.write(_wake_due)
                    # What is due still is an exclusive job that waits for another one, whose end rings.
                    due_ms = await self._house.store.read(
                        lambda c: claims.next_due_ms(c, self._now(), after_ms=self._now())
                    )
            except sqlite3.Error as error:
                _log.error("CLOCK_FAILED error=%s", error)
                await anyio.sleep(1)
                continue
            wait_s = (
                _MAX_SLEEP_S if due_ms is None else min(_MAX_SLEEP_S, max(0.0, (due_ms - self._now()) / 1000))
            )
            with anyio.move_on_after(wait_s):
                await self._clock_bell.wait()
            if due_ms is not None and due_ms <= self._now():
                for each in self._bells:
                    each.set()


def _wake_due(tx: Tx) -> None:
    claims.fire_due(tx)
    claims.resume_due(tx)


async def take_over(house: House) -> None:
    """After a start: give back what a dead process held, settle requests nobody can see any more.

    A job that was under work at three unclean ends in a row without one batch done is paused; with a
    database that was put back from a copy, every unfinished job is.
    """
    restored = house.store.restored

    def take(tx: Tx) -> None:
        for job in claims.take_over(tx, generation=house.store.generation):
            if job.frozen and not job.terminal:
                _announce_unknown(house, tx, job)
        for job in jobs.unfinished(tx.connection):
            _settle_after_start(tx, job, restored=restored)
        meta.erase(tx, meta.REVIEW)

    await house.store.write(take)
    joblog.process_started()


def _announce_unknown(house: House, tx: Tx, job: JobRow) -> None:
    """Note that a batch may have been done that only the target's ledger knows of: no cancel passes it by."""
    resource = house.resources.get(job.resource)
    ledger = resource is not None and resource.settings.ledger == "app"
    if ledger and job.cursor < (job.total or 0) and intents.read(tx.connection, job.id) is None:
        intents.write(tx, job.id, Intent(job.batch + 1, job.cursor, 1, b""))


def _settle_after_start(tx: Tx, job: JobRow, *, restored: bool) -> None:
    if restored:
        message = "the database was restored from a copy; see what was done since, then resume"
        if job.status is Status.PAUSED:
            jobs.review(tx, job.id, message=message)
        else:
            jobs.pause(tx, job.id, code="NEEDS_REVIEW", message=message, held=True)
    elif job.crashes >= _MAX_CRASHES:
        message = f"the process ended {job.crashes} times while this job was under work, without a batch done"
        jobs.pause(tx, job.id, code="CRASH_LOOP", message=message, held=True)
    elif job.crashes and job.status in (Status.RUNNING, Status.PREPARING):
        jobs.announce(tx, job, "updated")
