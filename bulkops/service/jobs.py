"""Everything a caller may ask about jobs without changing any: the list, one job, what became of its items.

What comes in: a caller and a question; what goes out: wire structs, pages and streams. Every answer is
read in short transactions. What is unknown and what is not the caller's are refused with the same words.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from bulkops import joblog
from bulkops.errors import did_you_mean, invalid_field
from bulkops.models import Caller, JobsQuery, JobView
from bulkops.service import reports
from bulkops.service.access import no_such_job, require, visible_job
from bulkops.service.artifacts import views_of
from bulkops.service.pages import MAX_EMPTY, Whole, check_limit, page_from, page_of, read_token, write_token
from bulkops.service.views import Moment, Progress, job_view
from bulkops.service.waiting import JobBells
from bulkops.settings import Settings
from bulkops.states import Status
from bulkops.store import events, listings, outcomes
from bulkops.store.jobs import JobRow
from bulkops.store.listings import JobFilter
from bulkops.store.outcomes import OUTCOMES, Results
from bulkops.store.store import Store

T = TypeVar("T")

MAX_WAIT_S: Final = 60.0
_REPORT_PAGE: Final = 2000


class Jobs:
    """Answers questions about jobs; made once, shared by all doors."""

    def __init__(self, store: Store, settings: Settings, progress: Progress) -> None:
        self._store = store
        self._settings = settings
        self._progress = progress
        self.bells = JobBells()
        store.on_commit.append(self.bells.ring)

    async def jobs(self, caller: Caller, query: JobsQuery) -> dict[str, Any]:
        """List jobs, newest first.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad status, limit or page.

        """
        require(caller, "viewer")
        limit = check_limit(query.limit)
        before = read_token(query.page, "jobs", tuple[str])
        sight = listings.sight_of(caller, query.tenant)
        wanted = self._job_filter(query)

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            if sight is None:
                return page_of([], None)
            rows = listings.newest_jobs(
                connection, sight, wanted, before=before[0] if before else None, limit=limit + 1
            )
            moment = self._moment(connection)
            return page_from(
                rows,
                limit,
                "jobs",
                key=lambda job: (job.id,),
                view=lambda job: self._view(connection, job, moment),
            )

        return await self._store.read(work)

    def _job_filter(self, query: JobsQuery) -> JobFilter:
        maintenance = query.show_maintenance
        if maintenance is None:
            maintenance = self._settings.server.show_maintenance
        return JobFilter(
            statuses=_statuses(query.status),
            resource=query.resource,
            action=query.action,
            task_id=query.task_id,
            project=query.project,
            maintenance=maintenance,
        )

    async def job(self, caller: Caller, job_id: str, *, wait_s: float = 0) -> JobView:
        """Show a job; with ``wait_s`` (at most 60) once it has ended, or the time is over.

        Raises:
            Refusal: ``NOT_FOUND`` when there is no such job, or it is not the caller's to see.

        """
        require(caller, "viewer")
        with self.bells.wait_for_job(job_id) as bell:
            view = await self._read_job(caller, job_id)
            if not wait_s > 0:
                return view
            with anyio.move_on_after(min(wait_s, MAX_WAIT_S)):
                while not view.terminal and not self.bells.released:
                    await bell.wait()
                    view = await self._read_job(caller, job_id)
            return view

    async def _read_job(self, caller: Caller, job_id: str) -> JobView:
        def work(connection: sqlite3.Connection) -> JobView:
            job = visible_job(connection, caller, job_id)
            return self._view(connection, job, self._moment(connection))

        return await self._store.read(work)

    def _moment(self, connection: sqlite3.Connection) -> Moment:
        return Moment(events.cursor(connection), self._store.clock.now_ms())

    def _view(self, connection: sqlite3.Connection, job: JobRow, moment: Moment) -> JobView:
        made = views_of(connection, job, moment.now_ms)
        return job_view(job, moment, self._progress, artifacts=made)

    async def _visible(
        self, caller: Caller, job_id: str, work: Callable[[sqlite3.Connection, JobRow], T]
    ) -> T:
        require(caller, "viewer")

        def unit(connection: sqlite3.Connection) -> T:
            job = visible_job(connection, caller, job_id)
            try:
                return work(connection, job)
            except LookupError:  # its retention is over, and the janitor is at it right now
                raise no_such_job() from None

        return await self._store.read(unit)

    async def job_items(
        self,
        caller: Caller,
        job_id: str,
        *,
        outcome: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List what became of a job's items, in the order of its manifest.

        Raises:
            Refusal: ``NOT_FOUND``; ``INVALID_FIELD`` for a bad outcome, limit or page.

        """
        _check_outcome(outcome)
        check_limit(limit)
        place = read_token(page, "items", tuple[Whole])
        position: int | None = place[0] if place else 0
        found = Results([], None)
        for _ in range(MAX_EMPTY):
            found = await self._results(caller, job_id, outcome, position or 0, limit)
            position = found.following
            if found.items or position is None:
                break
        return page_of(found.items, None if position is None else write_token("items", position))

    async def _results(
        self, caller: Caller, job_id: str, outcome: str | None, position: int, limit: int
    ) -> Results:
        return await self._visible(
            caller,
            job_id,
            lambda connection, job: outcomes.page(
                connection, job, outcome=outcome, position=position, limit=limit
            ),
        )

    async def job_errors(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """List a job's failures by code, the most frequent first; all on one page.

        Raises:
            Refusal: ``NOT_FOUND``.

        """
        groups = await self._visible(caller, job_id, outcomes.error_groups)
        return page_of(list(groups), None)

    async def job_log(self, caller: Caller, job_id: str) -> AsyncIterator[bytes]:
        """Check, then return a job's lines of the log as a stream of JSON lines.

        Raises:
            Refusal: ``NOT_FOUND``, before anything is streamed.

        """
        await self._visible(caller, job_id, lambda _, job: job.id)
        return _in_thread(joblog.job_lines(self._settings.data_dir, job_id))

    async def report(
        self,
        caller: Caller,
        job_id: str,
        *,
        format: str = "csv",  # noqa: A002  the name on the wire
        outcome: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Check, then return a job's report as a stream: what the job had done when it was asked for.

        Raises:
            Refusal: ``NOT_FOUND``, ``INVALID_FIELD`` for a bad format or outcome, before anything is
                streamed; ``NOT_FOUND`` in the stream when the job is removed meanwhile.

        """
        if format not in reports.FORMATS:
            raise invalid_field("/format", f"one of {', '.join(reports.FORMATS)} is needed")
        _check_outcome(outcome)
        job = await self._visible(caller, job_id, lambda _, job: job)
        return self._stream_report(job, format, outcome)

    async def _stream_report(self, job: JobRow, form: str, outcome: str | None) -> AsyncIterator[bytes]:
        head, write = reports.FORMATS[form]
        position: int | None = 0

        def work(connection: sqlite3.Connection) -> tuple[bytes, int | None]:
            found = outcomes.page(
                connection, job, outcome=outcome, position=position or 0, limit=_REPORT_PAGE
            )
            return write(found.items), found.following

        if head:
            yield head
        while position is not None:
            try:
                chunk, position = await self._store.read(work)
            except LookupError:
                raise no_such_job() from None
            if chunk:
                yield chunk


def _statuses(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    known = list(Status)
    statuses = dict.fromkeys(text.split(","))
    for status in statuses:
        if status not in known:
            hint = did_you_mean(status, known)
            raise invalid_field("/status", f"there is no such status{hint}")
    return tuple(statuses)


def _check_outcome(outcome: str | None) -> None:
    if outcome is not None and outcome not in OUTCOMES:
        raise invalid_field("/outcome", f"one of {', '.join(OUTCOMES)} is needed")


async def _in_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Walk a blocking iterator in threads, a chunk at a time."""
    while chunk := await anyio.to_thread.run_sync(next, chunks, b""):
        yield chunk
