"""Schedules as people make, see and run them, and what happens when one is due.

What comes in: callers' wishes, or a row that is due; what goes out: views, or a job started as whoever made the
schedule would have started it, with the tenant and the roles he had then. A schedule is confirmed once, when it
is made; it is bound by every guard of a start, one of the configuration by all but the rate.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from bulkops import accounting
from bulkops.errors import ConfigError, Refusal, invalid_field
from bulkops.ids import new_id
from bulkops.maintenance import RUN, Maintenance
from bulkops.models import Caller, JobView, ScheduleBody, ScheduleView, StartBody
from bulkops.operations import MAINTENANCE, has_role
from bulkops.service.access import require
from bulkops.service.pages import check_limit, page_from, read_token
from bulkops.service.starts import Errand, Starts
from bulkops.settings import ScheduleSettings, Settings
from bulkops.shapes import whole
from bulkops.slots import (
    check_cron,
    check_zone,
    following,
    following_if_readable,
    parse_every,
    write_every,
)
from bulkops.states import Status
from bulkops.steadiness import Steadiness
from bulkops.store import credentials, jobs, schedules
from bulkops.store.audit import append as audit
from bulkops.store.idempotency import Idempotency, record
from bulkops.store.jobs import JobRow
from bulkops.store.schedules import ScheduleRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339

_MAX_NAME: Final = 100
#: How soon a start is tried again that found no room, could not reach its target, or was too soon.
_AGAIN_MS: Final = 60_000
_PASSING: Final = frozenset({"QUEUE_FULL", "DRAINING", "RATE_LIMITED"})
_OWNER: Final = frozenset({"owner"})
#: What makes no sense again and again: it is about one moment.
_ONCE_ONLY: Final = ("selection_id", "expected_count", "run_at", "task_id")
#: The house's own: names, when, and which chores. What grows by the day goes at night.
_HOURLY: Final = ("files", "artifacts", "selections", "idempotency", "credentials")
_NIGHT: Final = "30 3 * * *"


class NotDue(Exception):
    """Somebody else took the schedule past this instant; nothing was written."""


class Schedules:
    """Makes, shows, runs and fires schedules; a caller with a tenant has to do with the tenant's only."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        starts: Starts,
        maintenance: Maintenance,
        steadiness: Steadiness,
    ) -> None:
        self._store = store
        self._settings = settings
        self._starts = starts
        self._maintenance = maintenance
        self._steadiness = steadiness

    async def schedules(
        self, caller: Caller, *, tenant: str | None, limit: int, page: str | None
    ) -> dict[str, Any]:
        """List schedules; the house's own are shown to owners without tenant.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, 422 naming the parameter.
        """
        require(caller, "admin")
        check_limit(limit)
        place = read_token(page, "schedules", tuple[str])
        rows = await self._store.read(
            lambda connection: schedules.page(
                connection,
                tenant=tenant if caller.tenant is None else caller.tenant,
                installation=_keeps_house(caller),
                before=place[0] if place else None,
                limit=limit + 1,
            )
        )
        return page_from(rows, limit, "schedules", key=lambda row: (row.id,), view=_view)

    async def schedule_create(
        self, caller: Caller, body: ScheduleBody, *, idempotency: Idempotency | None = None
    ) -> ScheduleView:
        """Make a schedule; what it will start is judged as if it were started now.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, 422 naming the field, or what the start would be refused with.
        """
        require(caller, "admin")
        now_ms = self._store.clock.now_ms()
        every_s = _check(body, now_ms)
        found = await self._starts.consider(caller, body.resource, body.action, _start_of(body))
        row = ScheduleRow(
            id=new_id(),
            name=body.name,
            tenant=found.grant.tenant,
            resource=body.resource,
            action=body.action,
            body=_kept(body),
            cron=body.cron,
            every_s=every_s,
            timezone=body.timezone,
            enabled=body.enabled,
            origin="api",
            created_by=caller.user,
            roles=sorted(caller.roles),
            created_ms=now_ms,
        )
        row = msgspec.structs.replace(row, next_ms=following(row.timing, now_ms))

        def work(tx: Tx) -> ScheduleView:
            if schedules.count(tx.connection, row.tenant) >= schedules.MAX_PER_TENANT:
                raise invalid_field(
                    "", f"there are {schedules.MAX_PER_TENANT} schedules already; delete one first"
                )
            made = msgspec.structs.replace(
                row, credential=credentials.root_of(tx.connection, caller.credential)
            )
            schedules.insert(tx, made)
            _note(tx, caller, "schedule_created", made, action=made.action, name=made.name)
            view = _view(made)
            if idempotency is not None:
                record(tx, idempotency, status=201, location=None, body=msgspec.json.encode(view))
            return view

        return await self._store.write(work)

    async def schedule_delete(self, caller: Caller, schedule: str) -> None:
        """Remove a schedule; jobs that came of it go on.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND``, ``ILLEGAL_TRANSITION`` for one that the
                configuration, or the house itself, declares.
        """
        require(caller, "admin")

        def work(tx: Tx) -> None:
            row = _find(tx.connection, caller, schedule)
            if row.origin != "api":
                where = "in the configuration" if row.origin == "config" else "by the house itself"
                raise Refusal(
                    "ILLEGAL_TRANSITION", f"this schedule is declared {where}", allowed_actions=["run"]
                )
            schedules.delete(tx, row.id)
            _note(tx, caller, "schedule_deleted", row, name=row.name)

        await self._store.write(work)

    async def schedule_run(
        self, caller: Caller, schedule: str, *, idempotency: Idempotency | None = None
    ) -> JobView:
        """Start a schedule's job now, as the caller; when it is due next stays as it is.

        Raises:
            Refusal: ``FORBIDDEN``, ``NOT_FOUND``, ``JOB_ACTIVE`` while its last job has not ended, or what the
                start is refused with.
        """
        require(caller, "admin")
        row, last = await self._store.read(partial(_with_last, caller=caller, schedule=schedule))
        _refuse_second(last)
        acting = msgspec.structs.replace(caller, tenant=row.tenant)

        def claim(tx: Tx, job: JobRow) -> None:
            _refuse_second(_last_job(tx.connection, _find(tx.connection, caller, schedule)))
            schedules.note_run(tx, row.id, job.id)

        errand = Errand(row.id, self._steadiness.now_ms(), claim)
        return await self._starts.start(
            acting, row.resource, row.action, _body_of(row), idempotency=idempotency, errand=errand
        )

    async def fire(self, row: ScheduleRow) -> None:
        """Start the job of a schedule that is due, once for however many of its times have passed.

        A refusal is noted in its ``last_result`` and the next time tried; when there is no room, the target
        cannot be reached or the action's rate is spent, a minute later.

        Raises:
            sqlite3.Error: our database cannot take it now; the schedule stays due.
        """
        now_ms = self._store.clock.now_ms()
        next_ms = following(row.timing, now_ms)
        result = await self._reason_to_skip(row)
        if result is None:
            try:
                await self._start(row, next_ms)
                return
            except NotDue:
                return
            except Refusal as refused:
                result = refused.code
        if result in _PASSING:
            next_ms = min(next_ms or now_ms + _AGAIN_MS, now_ms + _AGAIN_MS)
        await self._store.write(partial(schedules.advance, row=row, next_ms=next_ms, result=result))

    async def _reason_to_skip(self, row: ScheduleRow) -> str | None:
        if await self._store.read(lambda connection: self._is_over(connection, row)):
            return "revoked"
        last = await self._store.read(lambda connection: _last_job(connection, row))
        if row.origin == "built_in" and last is not None and last.status is Status.PAUSED:
            # Nobody looks after the house's own jobs: one that stopped must not keep all others from running.
            await self._store.write(partial(accounting.cancel, job=last, held=False))
            last = None
        if last is not None and not last.terminal:
            return "skipped_running"
        if row.origin == "built_in" and not await self._maintenance.due(row.body["ids"]):
            return "nothing_due"
        return None

    def _is_over(self, connection: sqlite3.Connection, row: ScheduleRow) -> bool:
        """Say whether the key that a schedule was made with has expired; a page's session may, and it goes on."""
        root = None if row.credential is None else credentials.get(connection, row.credential)
        return root is not None and root.kind == "key" and not root.alive(self._store.clock.now_ms())

    async def _start(self, row: ScheduleRow, next_ms: int | None) -> None:
        def claim(tx: Tx, job: JobRow) -> None:
            if not schedules.advance(tx, row, next_ms=next_ms, result="started", job=job.id):
                raise NotDue

        maker = Caller(user=row.created_by, tenant=row.tenant, roles=frozenset(row.roles))
        errand = Errand(row.id, self._steadiness.now_ms(), claim, rated=row.origin == "api")
        await self._starts.start(maker, row.resource, row.action, _body_of(row), errand=errand)

    async def declare(self) -> None:
        """Bring the schedules of the configuration, and the house's own, up to date with their rows.

        Raises:
            ConfigError: one of the configuration asks for what cannot be.
        """
        now_ms = self._store.clock.now_ms()
        declared = [_declared(name, each, now_ms) for name, each in self._settings.schedules.items()]
        for row in declared:
            await self._check_declared(row)
        own = _own_schedules(self._maintenance.chores, now_ms)
        await self._store.write(lambda tx: schedules.declare(tx, [*declared, *own]))
        if self._store.restored:
            await self._store.write(_pass_over)

    async def _check_declared(self, row: ScheduleRow) -> None:
        maker = Caller(user=row.created_by, tenant=row.tenant, roles=_OWNER)
        try:
            await self._starts.consider(maker, row.resource, row.action, _body_of(row))
        except Refusal as refused:
            if refused.code != "QUEUE_FULL":  # the database is not there now; it is looked at when it is due
                file = self._settings.file
                where = f"{file.name}: " if file else ""
                raise ConfigError(f"{where}schedules.{row.name}", refused.detail) from None


def _pass_over(tx: Tx) -> None:
    """Leave out what was missed before a copy of the database was put back: somebody is to have a look first."""
    while rows := schedules.due(tx.connection, tx.now_ms, limit=100):
        for row in rows:
            schedules.move(tx, row, next_ms=following_if_readable(row.timing, tx.now_ms))


def _declared(name: str, section: ScheduleSettings, now_ms: int) -> ScheduleRow:
    said = msgspec.to_builtins(section)
    default = msgspec.to_builtins(StartBody())
    body = {
        field: said[field]
        for field in StartBody.__struct_fields__
        if field != "tenant" and said.get(field, default[field]) != default[field]
    }
    return ScheduleRow(
        id=name,
        name=name,
        tenant=section.tenant,
        resource=section.resource,
        action=section.action,
        body=body,
        cron=section.cron,
        every_s=None if section.every is None else parse_every(section.every),
        timezone=section.timezone,
        enabled=section.enabled,
        origin="config",
        created_by="config",
        roles=sorted(_OWNER),
        created_ms=now_ms,
    )


def _own_schedules(chores: Sequence[str], now_ms: int) -> list[ScheduleRow]:
    hourly = [name for name in chores if name in _HOURLY]
    nightly = [name for name in chores if name not in _HOURLY]

    def own(name: str, ids: list[str], *, every_s: int | None = None, cron: str | None = None) -> ScheduleRow:
        return ScheduleRow(
            id=f"{MAINTENANCE}.{name}",
            name=f"{MAINTENANCE}.{name}",
            resource=MAINTENANCE,
            action=RUN,
            body={"ids": ids},
            every_s=every_s,
            cron=cron,
            origin="built_in",
            created_by="bulkops",
            roles=sorted(_OWNER),
            created_ms=now_ms,
        )

    return [own("hourly", hourly, every_s=3600), own("nightly", nightly, cron=_NIGHT)]


def _check(body: ScheduleBody, now_ms: int) -> int | None:
    """Check what a start does not have; return the interval in seconds."""
    if not (body.name.strip() and len(body.name) <= _MAX_NAME and body.name.isprintable()):
        raise invalid_field("/name", f"must be 1 to {_MAX_NAME} printable characters")
    for name in _ONCE_ONLY:
        if getattr(body, name) is not None:
            raise invalid_field(f"/{name}", "is about one moment; a schedule has none")
    if (body.cron is None) == (body.every is None):
        raise invalid_field("/cron", "exactly one of cron and every is needed")
    try:
        check_zone(body.timezone)
    except ValueError as error:
        raise invalid_field("/timezone", str(error)) from error
    try:
        if body.cron is not None:
            check_cron(body.cron, now_ms)
        return None if body.every is None else parse_every(body.every)
    except ValueError as error:
        raise invalid_field("/every" if body.cron is None else "/cron", str(error)) from error


def _start_of(body: ScheduleBody) -> StartBody:
    return StartBody(**{name: getattr(body, name) for name in StartBody.__struct_fields__})


def _kept(body: ScheduleBody) -> dict[str, Any]:
    """Return the start's body without what is not said; the tenant stands in the row."""
    kept: dict[str, Any] = msgspec.to_builtins(_start_of(body))
    default = msgspec.to_builtins(StartBody())
    return {name: value for name, value in kept.items() if value != default[name] and name != "tenant"}


def _body_of(row: ScheduleRow) -> StartBody:
    return msgspec.convert({"label": row.name, **row.body}, whole(StartBody))


def _keeps_house(caller: Caller) -> bool:
    return caller.tenant is None and has_role(caller, "owner")


def _find(connection: sqlite3.Connection, caller: Caller, schedule: str) -> ScheduleRow:
    row = schedules.get(connection, schedule, tenant=caller.tenant, installation=_keeps_house(caller))
    if row is None:
        raise Refusal("NOT_FOUND", "")
    return row


def _with_last(
    connection: sqlite3.Connection, caller: Caller, schedule: str
) -> tuple[ScheduleRow, JobRow | None]:
    row = _find(connection, caller, schedule)
    return row, _last_job(connection, row)


def _last_job(connection: sqlite3.Connection, row: ScheduleRow) -> JobRow | None:
    return None if row.last_job is None else jobs.get(connection, row.last_job)


def _refuse_second(last: JobRow | None) -> None:
    if last is not None and not last.terminal:
        raise Refusal("JOB_ACTIVE", f"its last job {last.id} has not ended", job=last.id, active_job=last.id)


def _note(tx: Tx, caller: Caller, verb: str, row: ScheduleRow, **detail: Any) -> None:
    about = {"schedule": row.id, **detail, "credential": caller.credential}
    audit(tx, user=caller.user, tenant=row.tenant, verb=verb, resource=row.resource, detail=about)


def _view(row: ScheduleRow) -> ScheduleView:
    return ScheduleView(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        resource=row.resource,
        action=row.action,
        body=row.body,
        cron=row.cron,
        every=None if row.every_s is None else write_every(row.every_s),
        timezone=row.timezone,
        enabled=row.enabled,
        origin=row.origin,
        created_by=row.created_by,
        created_at=rfc3339(row.created_ms) or "",
        next_at=rfc3339(row.next_ms) if row.enabled else None,
        last_at=rfc3339(row.last_ms),
        last_job=row.last_job,
        last_result=row.last_result,
    )
