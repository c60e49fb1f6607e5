"""Starting a job: every guard in its order, then one transaction that leaves a job or nothing."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from bulkops import freezer
from bulkops.errors import Refusal, invalid_field
from bulkops.freezer import Frozen
from bulkops.ids import new_id, wire_id
from bulkops.models import Caller, FailureThreshold, JobView, Rejected, StartBody
from bulkops.operations import MAX_ATOMIC_ITEMS, PRIORITY_MAX, PRIORITY_USER, RANGES, has_role, parse_rate
from bulkops.progress import Progress
from bulkops.resources.contract import Query, Resource
from bulkops.service.access import Access, Grant, reaching, require_action
from bulkops.service.selections import Chosen, Looked, check_count, choose, look
from bulkops.service.views import Moment, job_view
from bulkops.settings import ActionSettings, Settings
from bulkops.states import Status
from bulkops.store import events, idempotency, jobs, tasks
from bulkops.store.audit import append as audit
from bulkops.store.idempotency import Idempotency
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import parse_rfc3339

_DAY_S: Final = 86_400
_MAX_AHEAD_MS: Final = 366 * _DAY_S * 1000
_PAST_MS: Final = 60_000
_RETRY_AFTER_S: Final = 5


class Starts:
    """Turns requests into jobs."""

    def __init__(self, store: Store, settings: Settings, access: Access, progress: Progress) -> None:
        self._store = store
        self._settings = settings
        self._access = access
        self._progress = progress

    async def start(
        self,
        caller: Caller,
        name: str,
        action: str,
        body: StartBody,
        *,
        idempotency: Idempotency | None = None,
    ) -> JobView:
        """Accept a job.

        Raises:
            Refusal: any of the start's codes; nothing was written.
        """
        grant = await self._access.grant(caller, name, body.tenant)
        require_action(caller, grant.resource, action, body.options)
        check_wishes(body, caller)
        now_ms = self._store.clock.now_ms()
        query = Query(
            action=action, options=body.options, tenant=grant.tenant, stamp_ms=now_ms, atomic=body.atomic
        )
        with reaching():
            await grant.resource.check(query)
            chosen = await choose(self._store, caller, grant.resource, body, query, now_ms)
        settings = grant.resource.action_settings(action)
        refused = settings.confirm is not None and body.confirm != settings.confirm
        with reaching():
            looked = await look(grant.resource, chosen, thoroughly=refused or body.expected_count is not None)
        if refused:
            raise confirmation_required(settings, looked.matched)
        check_count(body.expected_count, looked.matched)
        check_amount(settings, looked.matched, atomic=body.atomic)
        job = self._job(caller, grant, action, body, chosen, looked, now_ms)
        return await self._store.write(
            lambda tx: self._insert(tx, job, settings, looked, chosen, idempotency)
        )

    def _job(
        self,
        caller: Caller,
        grant: Grant,
        action: str,
        body: StartBody,
        chosen: Chosen,
        looked: Looked,
        now_ms: int,
    ) -> JobRow:
        resource = grant.resource
        run_at_ms = None if body.run_at is None else _run_at(body.run_at, now_ms)
        frozen = looked.found is not None
        waits = frozen and run_at_ms is not None and run_at_ms > now_ms
        status = Status.SCHEDULED if waits else Status.QUEUED if frozen else Status.PREPARING
        return JobRow(
            id=new_id(),
            resource=resource.name,
            action=action,
            label=body.label,
            tenant=grant.tenant,
            requested_by=caller.user,
            reason=body.reason,
            task_id=body.task_id,
            status=status,
            priority=PRIORITY_USER if body.priority is None else body.priority,
            exclusive=resource.action_settings(action).exclusive,
            selection=Selection(
                kind=chosen.kind,
                filter=chosen.filter,
                exclude_ids=[wire_id(item) for item in chosen.query.exclude],
                selection_id=chosen.selection_id,
                bound=chosen.query.bound,
                expected_count=body.expected_count,
                stamp_ms=now_ms,
            ),
            options=body.options,
            knobs=knobs_of(resource, action, body, self._settings.server.trash_days),
            identity=resource.identity,
            frozen=frozen,
            total=len(looked.found) if looked.found is not None else None,
            queued_ms=now_ms,
            created_ms=now_ms,
            run_at_ms=run_at_ms,
            updated_ms=now_ms,
        )

    def _insert(
        self,
        tx: Tx,
        job: JobRow,
        settings: ActionSettings,
        looked: Looked,
        chosen: Chosen,
        once: Idempotency | None,
    ) -> JobView:
        check_queue(tx.connection, self._settings.server.queue_max)
        if job.exclusive and job.status is not Status.SCHEDULED:
            check_exclusive(tx.connection, job)
        check_rate(tx.connection, settings, job, tx.now_ms)
        if job.task_id is not None:
            task = tasks.ensure(tx, job.task_id, job.action, requested_by=job.requested_by, tenant=job.tenant)
            job = msgspec.structs.replace(job, task_type=task.type, project=task.project)
        jobs.insert(tx, job)
        if looked.found is not None:
            freezer.write(tx, job.id, 0, Frozen(looked.found))
        audit(
            tx, user=job.requested_by, tenant=job.tenant, verb="start", job=job.id, resource=job.resource,
            detail={"action": job.action, "kind": chosen.kind, "total": job.total, "options": sorted(job.options)},
        )  # fmt: skip
        return self.answer(
            tx, job, once, rejected=_rejected(looked) if chosen.kind == "ids" else msgspec.UNSET
        )

    def answer(
        self,
        tx: Tx,
        job: JobRow,
        once: Idempotency | None,
        *,
        rejected: list[Rejected] | msgspec.UnsetType = msgspec.UNSET,
    ) -> JobView:
        """Show a job just made, and keep the answer for a request that comes again."""
        moment = Moment(events.cursor(tx.connection), tx.now_ms)
        view = job_view(job, moment, self._progress, rejected=rejected)
        if once is not None:
            location = view.links["self"]
            idempotency.record(tx, once, status=202, location=location, body=msgspec.json.encode(view))
        return view


def _rejected(looked: Looked) -> list[Rejected]:
    return [
        Rejected(wire_id(each.id), each.code, each.reason or "")
        for each in looked.found or []
        if each.code is not None
    ]


def confirmation_required(settings: ActionSettings, matched: int | None) -> Refusal:
    """Build the refusal that names the word to type and the number it is about."""
    about = "these items" if matched is None else f"{matched} items"
    return Refusal(
        "CONFIRMATION_REQUIRED",
        f"type {settings.confirm} to confirm: this is about {about}",
        confirm=settings.confirm,
        count=matched,
    )


def check_amount(settings: ActionSettings, matched: int | None, *, atomic: bool) -> None:
    """Refuse more items than the action, or an atomic job, may take.

    Raises:
        Refusal: ``TOO_MANY_ITEMS``.
    """
    if matched is None:
        return
    if settings.max_items is not None and matched > settings.max_items:
        raise Refusal(
            "TOO_MANY_ITEMS", f"{matched} items match, this action takes at most {settings.max_items}"
        )
    if atomic and matched > MAX_ATOMIC_ITEMS:
        raise Refusal(
            "TOO_MANY_ITEMS", f"{matched} items match, an atomic job takes at most {MAX_ATOMIC_ITEMS}"
        )


def check_queue(connection: sqlite3.Connection, queue_max: int) -> None:
    """Refuse when too many jobs wait already.

    Raises:
        Refusal: ``QUEUE_FULL`` with ``Retry-After``.
    """
    if jobs.line_length(connection) >= queue_max:
        raise Refusal(
            "QUEUE_FULL",
            f"{queue_max} jobs are waiting already",
            headers={"Retry-After": str(_RETRY_AFTER_S)},
        )


def check_exclusive(connection: sqlite3.Connection, job: JobRow) -> None:
    """Refuse a second active job of an exclusive action.

    Raises:
        Refusal: ``JOB_ACTIVE`` with the other job's id.
    """
    active = jobs.active_exclusive(connection, resource=job.resource, action=job.action, tenant=job.tenant)
    if active is not None and active != job.id:
        raise Refusal("JOB_ACTIVE", f"job {active} is active already", job=active, active_job=active)


def check_rate(connection: sqlite3.Connection, settings: ActionSettings, job: JobRow, now_ms: int) -> None:
    """Refuse more starts than the action's rate allows; the jobs themselves are the count.

    Raises:
        Refusal: ``RATE_LIMITED`` with ``Retry-After`` and the draft's ``RateLimit`` fields.
    """
    if settings.rate is None:
        return
    rate = parse_rate(settings.rate)
    window_ms = rate.window_s * 1000
    count, oldest_ms = jobs.count_starts(
        connection, resource=job.resource, action=job.action, tenant=job.tenant, since_ms=now_ms - window_ms
    )
    if count >= rate.limit:
        wait_s = max(1, -(-((oldest_ms or now_ms) + window_ms - now_ms) // 1000))
        policy = f'"{job.action}"'
        raise Refusal(
            "RATE_LIMITED",
            f"at most {settings.rate}; try again in {wait_s} s",
            headers={
                "Retry-After": str(wait_s),
                "RateLimit-Policy": f"{policy};q={rate.limit};w={rate.window_s}",
                "RateLimit": f"{policy};r=0;t={wait_s}",
            },
            retry_after_s=wait_s,
        )


def _run_at(text: str, now_ms: int) -> int:
    try:
        at_ms = parse_rfc3339(text)
    except ValueError as error:
        raise invalid_field("/run_at", f"an RFC 3339 instant with offset is needed ({error})") from error
    if not now_ms - _PAST_MS <= at_ms <= now_ms + _MAX_AHEAD_MS:
        raise invalid_field("/run_at", "the time must lie ahead, by a year at most")
    return at_ms


def check_wishes(body: StartBody, caller: Caller) -> None:
    """Check every number and text of a start.

    Raises:
        Refusal: 422 naming the field.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(body, name)
        if value is not None and not low <= value <= high:
            raise invalid_field(f"/{name}", f"a number from {low:g} to {high:g} is needed")
    if body.priority is not None and body.priority > PRIORITY_USER and not has_role(caller, "admin"):
        raise invalid_field("/priority", f"priorities above {PRIORITY_USER} are for admins")
    if body.priority is not None and not 0 <= body.priority <= PRIORITY_MAX:
        raise invalid_field("/priority", f"a number from 0 to {PRIORITY_MAX} is needed")
    for name, longest in (("reason", 1000), ("label", 200), ("task_id", 100)):
        text = getattr(body, name)
        if text is not None and not 1 <= len(text) <= longest:
            raise invalid_field(f"/{name}", f"a text of 1 to {longest} characters is needed")
    check_threshold(body.failure_threshold)


def check_threshold(threshold: FailureThreshold | None) -> None:
    """Check the two numbers of a failure threshold.

    Raises:
        Refusal: 422 naming the field.
    """
    if threshold is None:
        return
    if threshold.min_items < 1:
        raise invalid_field("/failure_threshold/min_items", "at least 1 is needed")
    if not 0 <= threshold.max_ratio <= 1:
        raise invalid_field("/failure_threshold/max_ratio", "a share from 0 to 1 is needed")


def knobs_of(resource: Resource, action: str, body: StartBody, trash_days: int) -> Knobs:
    """Put together how fast and how far: the request's wishes, else the action's settings."""
    settings = resource.action_settings(action)
    final = resource.is_final(action, body.options)

    def pick(name: str) -> Any:
        wish = getattr(body, name)
        return getattr(settings, name) if wish is None else wish

    return Knobs(
        batch_size=pick("batch_size"),
        throttle_ms=pick("throttle_ms"),
        max_items_per_second=body.max_items_per_second,
        max_items=body.max_items,
        max_runtime_s=settings.max_runtime_s,
        auto_resume_s=settings.auto_resume_s,
        max_batch_failures=settings.max_batch_failures,
        failure_threshold=body.failure_threshold,
        canary=body.canary,
        atomic=body.atomic,
        undo_s=0 if final else trash_days * _DAY_S,
    )
