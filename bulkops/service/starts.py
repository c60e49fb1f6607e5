"""Starting a job: every guard in its order, then one transaction that leaves a job or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bulkops import freezer
from bulkops.drafting import making_of
from bulkops.freezer import Frozen
from bulkops.ids import new_id, wire_id
from bulkops.models import Caller, JobView, Rejected, StartBody
from bulkops.operations import MAINTENANCE, PRIORITY_MAINTENANCE, PRIORITY_USER, may_see
from bulkops.progress import Progress
from bulkops.resources.contract import Query, Resource, Tasked
from bulkops.service.access import Access, Grant, reaching, require_action
from bulkops.service.artifacts import check_storage
from bulkops.service.conditions import (
    check_amount,
    check_exclusive,
    check_queue,
    check_rate,
    check_wishes,
    confirmation_required,
    read_run_at,
)
from bulkops.service.selections import COUNT_BRIEFLY_S, COUNT_S, Chosen, Looked, check_count, choose, look
from bulkops.service.views import Moment, job_view
from bulkops.settings import ActionSettings, Settings
from bulkops.states import Source, Status
from bulkops.store import events, idempotency, jobs, tasks
from bulkops.store.audit import append as audit
from bulkops.store.idempotency import Idempotency
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

_DAY_S: Final = 86_400


class Errand(msgspec.Struct, frozen=True):
    """A start that a schedule asks for, not a person.

    Relative times are counted from ``as_of_ms``. ``claim`` is called in the transaction that writes the job;
    what it raises keeps the job from being written. ``schedule`` is noted in the audit. ``rated``: the action's
    rate holds, as it does not for what the configuration declares beside it.
    """

    schedule: str
    as_of_ms: int
    claim: Callable[[Tx, JobRow], None]
    rated: bool = True


class Opening(msgspec.Struct, frozen=True):
    """A start that opens a task, which is named by the start's ``task_id``.

    ``written`` is called with its first job, in the transaction that writes both.
    """

    type: str
    project: str | None
    written: Callable[[Tx, JobRow], None]


class Considered(msgspec.Struct, frozen=True):
    """A start that passed every guard but those of the transaction that writes its job."""

    grant: Grant
    settings: ActionSettings
    chosen: Chosen
    looked: Looked
    now_ms: int


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
        errand: Errand | None = None,
        opening: Opening | None = None,
    ) -> JobView:
        """Accept a job, of a person or (``errand``) of a schedule.

        Raises:
            Refusal: any of the start's codes; nothing was written.
        """
        found = await self.consider(caller, name, action, body, as_of_ms=errand.as_of_ms if errand else None)
        job = self._job(caller, found.grant, action, body, found.chosen, found.looked, found.now_ms)
        makes_file = making_of(found.grant.resource, action, body.options) is not None

        def insert(tx: Tx) -> JobView:
            if makes_file:
                check_storage(tx.connection, self._settings.server, job.tenant)
            if body.task_id is not None:
                check_joins(tx.connection, caller, body.task_id)
            return self._insert(
                tx, job, found.settings, found.looked, found.chosen, idempotency, errand, opening
            )

        return await self._store.write(insert)

    async def consider(
        self, caller: Caller, name: str, action: str, body: StartBody, *, as_of_ms: int | None = None
    ) -> Considered:
        """Hold a start against everything that can be told beforehand; ``as_of_ms``: what relative times count from.

        Raises:
            Refusal: any of the start's codes but ``JOB_ACTIVE``, ``RATE_LIMITED`` and ``QUEUE_FULL`` of the line.
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
            since_ms = now_ms if as_of_ms is None else as_of_ms
            chosen = await choose(self._store, caller, grant.resource, body, query, since_ms)
        settings = grant.resource.action_settings(action)
        refused = settings.confirm is not None and body.confirm != settings.confirm
        with reaching():
            looked = await look(grant.resource, chosen, count_s=_counting(settings, body, refused=refused))
        if refused:
            raise confirmation_required(settings, looked.matched)
        check_count(body.expected_count, looked.matched)
        check_amount(settings, looked.matched, atomic=body.atomic)
        return Considered(grant, settings, chosen, looked, now_ms)

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
        run_at_ms = read_run_at(body, now_ms)
        frozen = looked.found is not None
        waits = frozen and run_at_ms is not None and run_at_ms > now_ms
        own = resource.kind == MAINTENANCE
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
            project=resource.project_of(body.options) if isinstance(resource, Tasked) else None,
            status=status,
            source=Source.MAINTENANCE if own else Source.USER,
            priority=_priority(own=own) if body.priority is None else body.priority,
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
        errand: Errand | None,
        opening: Opening | None,
    ) -> JobView:
        if errand is not None:
            errand.claim(tx, job)
        check_queue(tx.connection, self._settings.server.queue_max)
        if job.exclusive and job.status is not Status.SCHEDULED:
            check_exclusive(tx.connection, job)
        if errand is None or errand.rated:
            check_rate(tx.connection, settings, job, tx.now_ms)
        if job.task_id is not None:
            job = _in_task(tx, job, job.task_id, opening)
        jobs.insert(tx, job)
        if looked.found is not None:
            freezer.write(tx, job.id, 0, Frozen(looked.found))
        if opening is not None:
            opening.written(tx, job)
        audit(
            tx, user=job.requested_by, tenant=job.tenant, verb="start", job=job.id, resource=job.resource,
            detail={"action": job.action, "kind": chosen.kind, "total": job.total, "options": sorted(job.options),
                    **({"schedule": errand.schedule} if errand else {})},
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


def check_joins(connection: sqlite3.Connection, caller: Caller, task_id: str) -> None:
    """Refuse to put a job into somebody else's task: it would tell of it, and open it again.

    Raises:
        Refusal: 422 naming the field, in the words for another tenant's.
    """
    task = tasks.get(connection, task_id)
    if task is not None and not may_see(
        caller, tenant=task.tenant, requested_by=task.requested_by, source=task.source
    ):
        raise tasks.not_joined()


def _in_task(tx: Tx, job: JobRow, task_id: str, opening: Opening | None) -> JobRow:
    """Put a job into its task, which is made now unless it is there; its end is told (again) once this job's is."""
    task = tasks.ensure(
        tx, task_id, job.action if opening is None else opening.type, requested_by=job.requested_by,
        tenant=job.tenant, project=None if opening is None else opening.project,
    )  # fmt: skip
    tasks.reopen(tx, task_id)
    return msgspec.structs.replace(job, task_type=task.type, project=task.project or job.project)


def _priority(*, own: bool) -> int:
    return PRIORITY_MAINTENANCE if own else PRIORITY_USER


def _counting(settings: ActionSettings, body: StartBody, *, refused: bool) -> float:
    """Say how long to count a large selection: an acceptance does not wait for a number that it needs not."""
    if refused or body.expected_count is not None:
        return COUNT_S
    return COUNT_BRIEFLY_S if settings.max_items is not None or body.atomic else 0.0


def _rejected(looked: Looked) -> list[Rejected]:
    return [
        Rejected(wire_id(each.id), each.code, each.reason or "")
        for each in looked.found or []
        if each.code is not None
    ]


def knobs_of(resource: Resource, action: str, body: StartBody, trash_days: int) -> Knobs:
    """Put together how fast and how far: the request's wishes, else the action's settings."""
    settings = resource.action_settings(action)
    making = making_of(resource, action, body.options)
    lasting = resource.is_final(action, body.options) or (making is not None and making.alone)

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
        undo_s=0 if lasting else trash_days * _DAY_S,
    )
