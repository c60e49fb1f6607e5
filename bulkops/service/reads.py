"""Everything a caller may ask about jobs without changing any: the reading half of the service.

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
from bulkops.errors import Refusal, did_you_mean, invalid_field
from bulkops.models import (
    ArtifactView,
    Caller,
    JobsQuery,
    JobView,
    SelectionReceipt,
    TaskView,
    Touch,
)
from bulkops.operations import has_role, may_see
from bulkops.service import reports, uploads
from bulkops.service.pages import Whole, check_limit, page_of, read_token, write_token
from bulkops.service.views import Moment, Progress, job_view, task_view, touch_view, trash_view
from bulkops.service.waiting import JobBells
from bulkops.settings import Settings
from bulkops.states import Status
from bulkops.store import audit, events, jobs, listings, outcomes, tasks
from bulkops.store.jobs import JobRow
from bulkops.store.listings import JobFilter, TrashPlace, TrashRow
from bulkops.store.outcomes import OUTCOMES, Results
from bulkops.store.store import Store

T = TypeVar("T")

MAX_WAIT_S: Final = 60.0
_REPORT_PAGE: Final = 2000
#: Jobs that one history page looks into, and how many of them in one transaction.
_MAX_LOOKED_INTO: Final = 200
_LOOKED_INTO_AT_ONCE: Final = 10
#: How often an empty page of a long search is followed by the next before the client is told to.
_MAX_EMPTY: Final = 20

Artifacts = Callable[[sqlite3.Connection, JobRow, int], list[ArtifactView]]


def no_artifacts(_connection: sqlite3.Connection, _job: JobRow, _now_ms: int) -> list[ArtifactView]:
    """Find no artifacts: for processes in which no action makes any."""
    return []


class Reads:
    """Answers questions; made once, shared by all doors."""

    def __init__(
        self, store: Store, settings: Settings, progress: Progress, *, artifacts: Artifacts = no_artifacts
    ) -> None:
        self._store = store
        self._settings = settings
        self._progress = progress
        self._artifacts = artifacts
        self.bells = JobBells()
        store.on_commit.append(self.bells.ring)

    # Jobs

    async def jobs(self, caller: Caller, query: JobsQuery) -> dict[str, Any]:
        """List jobs, newest first.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad status, limit or page.

        """
        _require(caller, "viewer")
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
            shown = rows[:limit]
            following = write_token("jobs", shown[-1].id) if len(rows) > limit else None
            moment = self._moment(connection)
            return page_of([self._view(connection, job, moment) for job in shown], following)

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
        _require(caller, "viewer")
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
        made = self._artifacts(connection, job, moment.now_ms)
        return job_view(job, moment, self._progress, artifacts=made)

    async def _visible(
        self, caller: Caller, job_id: str, work: Callable[[sqlite3.Connection, JobRow], T]
    ) -> T:
        _require(caller, "viewer")

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
        for _ in range(_MAX_EMPTY):
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

    # Tasks

    async def tasks(
        self,
        caller: Caller,
        *,
        type: str | None = None,  # noqa: A002  the name on the wire
        project: str | None = None,
        tenant: str | None = None,
        show_maintenance: bool | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List tasks with what their jobs add up to, newest first.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad limit or page.

        """
        _require(caller, "viewer")
        check_limit(limit)
        before = read_token(page, "tasks", tuple[Whole, str])
        sight = listings.sight_of(caller, tenant)
        if show_maintenance is None:
            show_maintenance = self._settings.server.show_maintenance

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            if sight is None:
                return page_of([], None)
            rows = tasks.newest(
                connection,
                sight,
                task_type=type,
                project=project,
                maintenance=bool(show_maintenance),
                before=before,
                limit=limit + 1,
            )
            shown = rows[:limit]
            last = shown[-1] if len(rows) > limit else None
            cursor = events.cursor(connection)
            return page_of(
                [task_view(row, tasks.summary(connection, row.id), caller, cursor=cursor) for row in shown],
                None if last is None else write_token("tasks", last.created_ms, last.id),
            )

        return await self._store.read(work)

    async def task(self, caller: Caller, task_id: str) -> TaskView:
        """Show a task.

        Raises:
            Refusal: ``NOT_FOUND`` when there is no such task, or it is not the caller's to see.

        """
        _require(caller, "viewer")

        def work(connection: sqlite3.Connection) -> TaskView:
            row = tasks.get(connection, task_id)
            if row is None or not may_see(
                caller, tenant=row.tenant, requested_by=row.requested_by, source=row.source
            ):
                raise Refusal("NOT_FOUND", "no such task")
            summary = tasks.summary(connection, task_id)
            return task_view(row, summary, caller, cursor=events.cursor(connection))

        return await self._store.read(work)

    # Items

    async def trash(
        self,
        caller: Caller,
        *,
        q: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List what is in the trash and the caller's to see, newest first; ``q`` is part of a label or id.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad limit or page.

        """
        _require(caller, "viewer")
        check_limit(limit)
        key = read_token(page, "trash", tuple[Whole, str, Whole])
        place = TrashPlace(*key) if key else None
        rows: list[TrashRow] = []
        for _ in range(_MAX_EMPTY):
            place, rows = await self._trash_page(caller, tenant, q, place, limit)
            if rows or place is None:
                break
        return page_of([trash_view(row) for row in rows], _trash_token(place))

    async def _trash_page(
        self, caller: Caller, tenant: str | None, q: str | None, place: TrashPlace | None, limit: int
    ) -> tuple[TrashPlace | None, list[TrashRow]]:
        def work(connection: sqlite3.Connection) -> listings.TrashPage:
            return listings.newest_trash(connection, caller, tenant=tenant, q=q, place=place, limit=limit + 1)

        found = await self._store.read(work)
        if len(found.rows) <= limit:
            return found.following, found.rows
        last = found.rows[limit - 1]
        return TrashPlace(last.created_ms, last.job, last.position), found.rows[:limit]

    async def history(
        self,
        caller: Caller,
        resource: str,
        item: str,
        *,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List what jobs did with one item, the newest job first; whether it exists is not asked here.

        A page may have few items, or none, and still name the next: jobs are looked into one by one.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad limit or page.

        """
        _require(caller, "viewer")
        check_limit(limit)
        key = read_token(page, "history", tuple[str])
        before = key[0] if key else None
        found: list[Touch] = []
        for _ in range(_MAX_LOOKED_INTO // _LOOKED_INTO_AT_ONCE):
            touches, before = await self._look_into(caller, tenant, resource, item, before)
            found += touches
            if before is None or len(found) >= limit:
                break
        if len(found) > limit:
            found = found[:limit]
            before = found[-1].job
        return page_of(found, None if before is None else write_token("history", before))

    async def _look_into(
        self, caller: Caller, tenant: str | None, resource: str, item: str, before: str | None
    ) -> tuple[list[Touch], str | None]:
        """Look into some jobs; return what they did, and the last one's id when there may be more."""
        sight = listings.sight_of(caller, tenant)
        wanted = JobFilter(resource=resource, maintenance=True)

        def work(connection: sqlite3.Connection) -> tuple[list[Touch], str | None]:
            if sight is None:
                return [], None
            rows = listings.newest_jobs(connection, sight, wanted, before=before, limit=_LOOKED_INTO_AT_ONCE)
            results = ((row, outcomes.of_item(connection, row, item)) for row in rows)
            touches = [touch_view(row, result) for row, result in results if result is not None]
            return touches, rows[-1].id if len(rows) == _LOOKED_INTO_AT_ONCE else None

        return await self._store.read(work)

    # The rest

    async def audit(
        self,
        caller: Caller,
        *,
        job: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List who did what, newest first; an admin sees the tenant's, one without tenant everybody's.

        Raises:
            Refusal: ``FORBIDDEN`` below admin; ``INVALID_FIELD`` for a bad limit or page.

        """
        _require(caller, "admin")
        check_limit(limit)
        before = read_token(page, "audit", tuple[Whole])
        sight = listings.sight_of(caller, tenant)

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            if sight is None:
                return page_of([], None)
            rows = audit.page(
                connection,
                tenant=sight.tenant,
                job=job,
                before=before[0] if before else None,
                limit=limit + 1,
                installation=sight.installation,
            )
            following = write_token("audit", rows[limit - 1].seq) if len(rows) > limit else None
            return page_of([audit.view(row) for row in rows[:limit]], following)

        return await self._store.read(work)

    async def upload_selection(self, caller: Caller, ids: AsyncIterator[list[str]]) -> SelectionReceipt:
        """Store a list of ids that is too long for a request.

        Raises:
            Refusal: ``FORBIDDEN`` below operator; else see `uploads.upload`.

        """
        _require(caller, "operator")
        return await uploads.upload(self._store, caller, ids)


def visible_job(connection: sqlite3.Connection, caller: Caller, job_id: str) -> JobRow:
    """Return a job that the caller may see.

    Raises:
        Refusal: ``NOT_FOUND``, in the same words when there is no such job and when it is somebody else's.

    """
    job = jobs.get(connection, job_id)
    if job is None or not may_see(
        caller, tenant=job.tenant, requested_by=job.requested_by, source=job.source
    ):
        raise no_such_job()
    return job


def no_such_job() -> Refusal:
    """Build the refusal of a job that is unknown or not the caller's to see."""
    return Refusal("NOT_FOUND", "no such job")


def _trash_token(place: TrashPlace | None) -> str | None:
    return None if place is None else write_token("trash", place.created_ms, place.job, place.position)


def _require(caller: Caller, role: str) -> None:
    if not has_role(caller, role):
        raise Refusal("FORBIDDEN", f"the role {role} is needed")


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
