"""Verbs on jobs that exist: pause, resume, cancel, retry, undo, and the live knobs.

Repeating a verb is fine and answers the same; an impossible one says what is possible instead.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from typing import Any, Final

import anyio
import msgspec

from bulkops import accounting
from bulkops.drafting import making_of
from bulkops.errors import ConfigError, Halt, Refusal, invalid_field
from bulkops.house import House
from bulkops.ids import new_id
from bulkops.models import Caller, JobView, KnobsBody, RetryBody, UndoBody
from bulkops.operations import MAX_IDS, PRIORITY_MAX, PRIORITY_USER, RANGES, has_role
from bulkops.progress import Progress
from bulkops.resources.contract import Resource
from bulkops.runner import sweep_drafts
from bulkops.service.access import Access, require, require_action, visible_job
from bulkops.service.artifacts import check_storage, views_of
from bulkops.service.conditions import check_exclusive, check_queue
from bulkops.service.starts import Starts
from bulkops.service.views import Moment, can_undo, job_view
from bulkops.settings import Settings
from bulkops.states import TERMINAL, Status, allowed_actions
from bulkops.store import events, jobs, tasks
from bulkops.store.audit import append as audit
from bulkops.store.idempotency import Idempotency
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

#: How long a forced cancel waits for the batch in flight to end by itself.
_FORCE_GRACE_S: Final = 3.0
_BY_HAND: Final = "paused by hand"


class Verbs:
    """Steers jobs."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        access: Access,
        progress: Progress,
        starts: Starts,
        house: House,
    ) -> None:
        self._store = store
        self._settings = settings
        self._access = access
        self._progress = progress
        self._starts = starts
        self._house = house

    async def _act(
        self, caller: Caller, job_id: str, verb: str, work: Callable[[Tx, JobRow], JobRow | None]
    ) -> JobView:
        """Run a verb on a job the caller may see and steer; its worker hears of it at once."""

        def unit(tx: Tx) -> JobView:
            job = visible_job(tx.connection, caller, job_id)
            require(caller, "operator")
            moved = work(tx, job)
            if moved is not None:
                audit(tx, user=caller.user, tenant=job.tenant, verb=verb, job=job.id, resource=job.resource)
            return self._view(tx, moved or job)

        try:
            view = await self._store.write(unit)
        except sqlite3.IntegrityError as error:
            raise Refusal("JOB_ACTIVE", "another job of this exclusive action is active") from error
        self._progress.poke(job_id)
        return view

    def _view(self, tx: Tx, job: JobRow) -> JobView:
        made = views_of(tx.connection, job, tx.now_ms)
        return job_view(job, Moment(events.cursor(tx.connection), tx.now_ms), self._progress, artifacts=made)

    async def pause(self, caller: Caller, job_id: str) -> JobView:
        """Pause a job after its current batch, at once when nobody works on it.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN``, ``ILLEGAL_TRANSITION``.
        """

        def work(tx: Tx, job: JobRow) -> JobRow | None:
            if job.status is Status.PAUSED and job.not_before_ms:
                return jobs.stay_paused(tx, job.id, message=_BY_HAND)
            if job.status in (Status.PAUSED, Status.PAUSING):
                return None
            if job.status is Status.SCHEDULED:
                _impossible(job, "pause", tx.now_ms)
            moved = jobs.pause(tx, job.id, code="USER", message=_BY_HAND)
            moved = moved or jobs.request_pause(tx, job.id, message=_BY_HAND)
            return moved or _impossible(job, "pause", tx.now_ms)

        return await self._act(caller, job_id, "pause", work)

    async def resume(self, caller: Caller, job_id: str) -> JobView:
        """Put a paused or failed job back in line; one whose target was replaced takes the new one.

        One that waits for a review has had it: it goes on from where our own account stands.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN``, ``ILLEGAL_TRANSITION``, ``JOB_ACTIVE``.
        """

        def work(tx: Tx, job: JobRow) -> JobRow | None:
            if job.status in (Status.QUEUED, Status.RUNNING, Status.PREPARING):
                return None
            if job.status is Status.FAILED and job.exclusive:
                check_exclusive(tx.connection, job)
            if job.task_id is not None:
                tasks.reopen(tx, job.task_id)
            return jobs.resume(tx, job.id) or _impossible(job, "resume", tx.now_ms)

        job = await self._store.read(lambda connection: visible_job(connection, caller, job_id))
        resource = self._house.resources.get(job.resource)
        if resource is not None:
            await _require_still(caller, resource, job)
            if job.status_code == "TARGET_REPLACED":
                await resource.close()
        if job.status_code == "NEEDS_REVIEW":
            self._house.reviewed.add(job_id)
        return await self._act(caller, job_id, "resume", work)

    async def cancel(self, caller: Caller, job_id: str, *, force: bool = False) -> JobView:
        """End a job after its current batch; what is done stays done.

        ``force`` is for owners and for a job whose target is gone: it is ended even if its worker hangs.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN``, ``ILLEGAL_TRANSITION``.
        """
        if force and not has_role(caller, "owner"):
            raise Refusal("FORBIDDEN", "only an owner ends a job by force")

        def work(tx: Tx, job: JobRow) -> JobRow | None:
            if job.status in (Status.CANCELLED, Status.CANCELLING):
                return None
            moved = accounting.cancel(tx, job, held=False) or jobs.request_cancel(tx, job.id)
            return moved or _impossible(job, "cancel", tx.now_ms)

        view = await self._act(caller, job_id, "cancel", work)
        if view.terminal:
            await sweep_drafts(self._house)
        return await self._force(caller, job_id) if force and not view.terminal else view

    async def _force(self, caller: Caller, job_id: str) -> JobView:
        # A batch that is still before its COMMIT will not commit any more; one beyond it ends within the grace.
        self._house.revoked.add(job_id)
        until = anyio.current_time() + _FORCE_GRACE_S
        while anyio.current_time() < until:
            job = await self._store.read(lambda connection: jobs.get(connection, job_id))
            if job is None or job.terminal:
                break
            await anyio.sleep(0.05)

        def work(tx: Tx, job: JobRow) -> JobRow | None:
            return None if job.terminal else accounting.cancel(tx, job, held=True)

        return await self._act(caller, job_id, "cancel_forced", work)

    async def tune(self, caller: Caller, job_id: str, body: KnobsBody) -> JobView:
        """Turn the live knobs; they take effect after the current batch.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN``, 422 naming the field, ``ILLEGAL_TRANSITION`` for an ended job.
        """
        _check_knobs(caller, body)

        def work(tx: Tx, job: JobRow) -> JobRow | None:
            wished = {
                name: getattr(body, name)
                for name in ("batch_size", "max_items_per_second")
                if getattr(body, name) is not msgspec.UNSET
            }
            priority = job.priority if body.priority is msgspec.UNSET else body.priority
            knobs = msgspec.structs.replace(job.knobs, **wished)
            return jobs.tune(tx, job, priority=priority, knobs=knobs) or _impossible(job, "change", tx.now_ms)

        return await self._act(caller, job_id, "tune", work)

    async def retry(
        self, caller: Caller, job_id: str, body: RetryBody, *, idempotency: Idempotency | None = None
    ) -> tuple[JobView, bool]:
        """Start a job on the failed items of an ended one, only those with the given codes.

        Asked again the same job is answered, unless it was cancelled or could not go on; what failed in it once
        more is retried by a retry of that job.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN``, ``ILLEGAL_TRANSITION``, ``JOB_ACTIVE``, ``QUEUE_FULL``,
                ``STORAGE_FULL``.
        """

        def build(job: JobRow, now_ms: int) -> JobRow:
            if not job.terminal or not job.failed:
                _impossible(job, "retry", now_ms)
            selection = msgspec.structs.replace(
                job.selection, codes=body.codes, expected_count=None, ids=None
            )
            return self._successor(job, caller, now_ms, retry_of=job.id, selection=selection)

        return await self._follow(caller, job_id, "retry", [body.codes], build, idempotency)

    async def undo(
        self, caller: Caller, job_id: str, body: UndoBody, *, idempotency: Idempotency | None = None
    ) -> tuple[JobView, bool]:
        """Start a job that puts back exactly what an ended one took, or only the items with the given ids.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN``, ``ILLEGAL_TRANSITION``, ``UNDO_EXPIRED``, ``QUEUE_FULL``, 422.
        """
        ids = _undo_ids(body)

        def build(job: JobRow, now_ms: int) -> JobRow:
            _check_undo(job, now_ms)
            selection = Selection(
                kind="all" if ids is None else "ids", ids=list(ids) if ids is not None else None,
                stamp_ms=job.selection.stamp_ms,
            )  # fmt: skip
            return self._successor(job, caller, now_ms, undo_of=job.id, selection=selection)

        return await self._follow(caller, job_id, "undo", [ids], build, idempotency)

    def _successor(self, job: JobRow, caller: Caller, now_ms: int, **changes: Any) -> JobRow:
        undo = "undo_of" in changes or job.kind == "undo"
        knobs = msgspec.structs.replace(job.knobs, canary=None, max_items=None, failure_threshold=None)
        if undo:
            knobs = Knobs(batch_size=job.knobs.batch_size)
        return JobRow(
            id=new_id(),
            resource=job.resource,
            action=job.action,
            kind="undo" if undo else "act",
            tenant=job.tenant,
            requested_by=caller.user,
            task_id=job.task_id,
            task_type=job.task_type,
            project=job.project,
            source=job.source,
            status=Status.PREPARING,
            priority=PRIORITY_USER,
            exclusive=job.exclusive and not undo,
            options=job.options,
            knobs=knobs,
            identity=job.identity,
            queued_ms=now_ms,
            created_ms=now_ms,
            updated_ms=now_ms,
            **({"undo_of": job.undo_of} | changes),
        )

    async def _follow(
        self,
        caller: Caller,
        job_id: str,
        verb: str,
        request: list[Any],
        build: Callable[[JobRow, int], JobRow],
        once: Idempotency | None,
    ) -> tuple[JobView, bool]:
        """Start a job that follows another one, unless the same was asked and came to its end, or still may."""
        job = await self._store.read(lambda connection: visible_job(connection, caller, job_id))
        grant = await self._access.grant(caller, job.resource)
        require_action(caller, grant.resource, job.action, job.options)
        request_hash = hashlib.sha256(msgspec.json.encode([verb, *request])).hexdigest()

        def unit(tx: Tx) -> tuple[JobView, bool]:
            origin = visible_job(tx.connection, caller, job_id)
            earlier = jobs.follower(tx.connection, job_id, request_hash)
            if earlier is not None and earlier.status not in (Status.FAILED, Status.CANCELLED):
                return self._view(tx, earlier), False
            fresh = msgspec.structs.replace(build(origin, tx.now_ms), request_hash=request_hash)
            check_queue(tx.connection, self._settings.server.queue_max)
            if fresh.kind == "act" and making_of(grant.resource, fresh.action, fresh.options) is not None:
                check_storage(tx.connection, self._settings.server, fresh.tenant)
            if fresh.exclusive:
                check_exclusive(tx.connection, fresh)
            jobs.insert(tx, fresh)
            audit(
                tx, user=caller.user, tenant=fresh.tenant, verb=verb, job=fresh.id, resource=fresh.resource,
                detail={"of": job_id},
            )  # fmt: skip
            return self._starts.answer(tx, fresh, once), True

        return await self._store.write(unit)


async def _require_still(caller: Caller, resource: Resource, job: JobRow) -> None:
    """Refuse who may not start this action any more; one that cannot be looked up now cannot be done now either.

    Raises:
        Refusal: ``FORBIDDEN``.
    """
    require(caller, "operator")
    try:
        await resource.open()
    except (Halt, ConfigError):
        return
    if job.action in resource.action_names():
        require_action(caller, resource, job.action, job.options)


def _impossible(job: JobRow, verb: str, now_ms: int) -> JobRow:
    """Refuse a verb that the job's status does not allow, naming those that it does."""
    allowed = allowed_actions(job.status, failed=job.failed, can_undo=can_undo(job, now_ms))
    possible = f"; possible: {', '.join(allowed)}" if allowed else ""
    raise Refusal(
        "ILLEGAL_TRANSITION",
        f"job {job.id} is {job.status}, cannot {verb}{possible}",
        job_status=job.status,
        allowed_actions=allowed,
    )


def _check_undo(job: JobRow, now_ms: int) -> None:
    if job.status not in TERMINAL or job.kind != "act" or not job.succeeded:
        _impossible(job, "undo", now_ms)
    if not job.undo_ms:
        _impossible(job, "undo (it was final)", now_ms)
    if job.undo_until_ms is None or now_ms >= job.undo_until_ms:
        raise Refusal("UNDO_EXPIRED", "the time to undo this job is over")


def _undo_ids(body: UndoBody) -> list[str] | None:
    if body.ids is None:
        return None
    if not body.ids:
        raise invalid_field("/ids", "an empty list never means all; leave it out", code="EMPTY_SELECTION")
    if len(body.ids) > MAX_IDS:
        raise invalid_field("/ids", f"at most {MAX_IDS:,} ids", code="TOO_MANY_ITEMS")
    return sorted({str(item) for item in body.ids})


def _check_knobs(caller: Caller, body: KnobsBody) -> None:
    for name in ("batch_size", "max_items_per_second"):
        value = getattr(body, name)
        low, high = RANGES[name]
        if value is not msgspec.UNSET and value is not None and not low <= value <= high:
            raise invalid_field(f"/{name}", f"a number from {low:,} to {high:,} is needed")
    if body.priority is msgspec.UNSET:
        return
    if not 0 <= body.priority <= PRIORITY_MAX:
        raise invalid_field("/priority", f"a number from 0 to {PRIORITY_MAX} is needed")
    if body.priority > PRIORITY_USER and not has_role(caller, "admin"):
        raise Refusal("FORBIDDEN", f"priorities above {PRIORITY_USER} need the role admin")
