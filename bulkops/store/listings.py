"""Lists of jobs and of what is in the trash, newest first, within what a caller may see.

What comes in: whose eyes (`Sight`), filters and the place where the last page ended; what goes out: rows.
The rule of `operations.may_see` stands in every WHERE clause, so a row that is not the caller's is never
read. Pages go on from a key, never from a count of rows.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from bulkops.models import Caller
from bulkops.operations import has_role, may_see
from bulkops.states import TERMINAL
from bulkops.store.jobs import COLUMNS, JobRow, from_row

#: Sorts after every id of ours.
_LAST_ID: Final = "~"
_LAST_MS: Final = 2**63 - 1
_LAST_POSITION: Final = 2**63 - 1


class Sight(msgspec.Struct, frozen=True):
    """What somebody may see: of one tenant or all, of one user or all, the installation's own or not."""

    tenant: str | None
    user: str | None
    installation: bool


def sight_of(caller: Caller, tenant: str | None = None) -> Sight | None:
    """Say what a caller may see, of ``tenant`` if named; ``None`` when that is nothing."""
    if not has_role(caller, "viewer") or (caller.tenant is not None and tenant not in (None, caller.tenant)):
        return None
    return Sight(
        tenant=caller.tenant if caller.tenant is not None else tenant,
        user=None if has_role(caller, "admin") else caller.user,
        installation=caller.tenant is None and has_role(caller, "owner"),
    )


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of jobs is limited to; empty and ``None`` mean everything."""

    statuses: tuple[str, ...] = ()
    resource: str | None = None
    action: str | None = None
    task_id: str | None = None
    project: str | None = None
    maintenance: bool = False


def _newest(index: str, lead: str) -> str:
    return f"""
SELECT {COLUMNS} FROM jobs INDEXED BY {index}
 WHERE {lead} id < :before
   AND (:tenant IS NULL OR tenant = :tenant)
   AND (:user IS NULL OR requested_by = :user)
   AND (:installation OR source = 'user' OR tenant IS NOT NULL)
   AND (:maintenance OR source = 'user')
   AND (:status IS NULL OR status = :status)
   AND (:resource IS NULL OR resource = :resource)
   AND (:action IS NULL OR action = :action)
   AND (:task_id IS NULL OR task_id = :task_id)
   AND (:project IS NULL OR project = :project)
 ORDER BY id DESC LIMIT :limit
"""


#: One statement for each column that may lead: the index that narrows most is named, the rest filters.
_NEWEST: Final = {
    "task_id": _newest("jobs_task", "task_id = :task_id AND"),
    "project": _newest("jobs_project", "project = :project AND"),
    "status": _newest("jobs_status", "status = :status AND"),
    "user": _newest("jobs_user", "requested_by = :user AND"),
    "tenant": _newest("jobs_tenant", "tenant = :tenant AND"),
    "resource": _newest("jobs_resource", "resource = :resource AND"),
    "all": _newest("sqlite_autoindex_jobs_1", ""),
}


def newest_jobs(
    connection: sqlite3.Connection, sight: Sight, wanted: JobFilter, *, before: str | None, limit: int
) -> list[JobRow]:
    """List up to ``limit`` jobs with ids below ``before``, newest first."""
    values: dict[str, Any] = {
        **msgspec.structs.asdict(sight),
        **msgspec.structs.asdict(wanted),
        "before": before or _LAST_ID,
        "limit": limit,
    }
    del values["statuses"]
    # One walk for each status: several together would keep the index from giving the order.
    found = [
        from_row(row)
        for status in wanted.statuses or (None,)
        for row in connection.execute(
            _NEWEST[_lead(sight, wanted, status)], {**values, "status": status}
        ).fetchall()
    ]
    return sorted(found, key=lambda job: job.id, reverse=True)[:limit]


def _lead(sight: Sight, wanted: JobFilter, status: str | None) -> str:
    narrowing = {
        "task_id": wanted.task_id is not None,
        "project": wanted.project is not None,
        # Few jobs are unfinished; of finished ones there may be more than a user or a tenant has.
        "status": status is not None and status not in TERMINAL,
        "user": sight.user is not None,
        "tenant": sight.tenant is not None,
        "resource": wanted.resource is not None,
    }
    lead = next((name for name, given in narrowing.items() if given), None)
    return lead or ("all" if status is None else "status")


class TrashRow(msgspec.Struct, frozen=True):
    """One thing in the trash, and the job that put it there."""

    job: str
    position: int
    item: str
    label: str
    resource: str
    tenant: str | None
    created_ms: int
    undo_until_ms: int | None


class TrashPlace(msgspec.Struct, frozen=True):
    """Where in the trash a walk from the newest to the oldest has come; what it names was passed."""

    created_ms: int = _LAST_MS
    job: str = _LAST_ID
    position: int = 0


class TrashPage(msgspec.Struct, frozen=True):
    """What a walk found, and where it stopped; ``None`` when it came to the end."""

    rows: list[TrashRow]
    following: TrashPlace | None


#: How many batches and rows one walk looks at, so that a rare match costs no long read.
_MAX_STEPS: Final = 5000
_PIECE: Final = 500

_NEXT_BATCH: Final = """
SELECT created_ms, job FROM trash INDEXED BY trash_list
 WHERE kept = 1 AND listed = 1 AND (created_ms, job) < (:created_ms, :job)
 ORDER BY created_ms DESC, job DESC LIMIT 1
"""
_BATCH: Final = """
SELECT position, item, label FROM trash INDEXED BY trash_list
 WHERE kept = 1 AND listed = 1 AND created_ms = :created_ms AND job = :job AND position < :position
 ORDER BY position DESC LIMIT :limit
"""
_OWNER: Final = "SELECT resource, tenant, requested_by, source, undo_until_ms FROM jobs WHERE id = :id"


def newest_trash(
    connection: sqlite3.Connection,
    caller: Caller,
    *,
    tenant: str | None = None,
    q: str | None = None,
    place: TrashPlace | None = None,
    limit: int,
) -> TrashPage:
    """Walk the trash after ``place``, newest first, for up to ``limit`` things whose label or id holds ``q``.

    A page may have few rows, or none, and still name a place to go on from.
    """
    walk = _TrashWalk(connection, caller, tenant, (q or "").casefold(), limit)
    return walk.run(place or TrashPlace())


class _TrashWalk:
    """What one job took in one batch stands together in the index, so a stranger's batch is one step."""

    def __init__(
        self, connection: sqlite3.Connection, caller: Caller, tenant: str | None, q: str, limit: int
    ) -> None:
        self._connection = connection
        self._caller = caller
        self._tenant = tenant
        self._q = q
        self._limit = limit
        self._steps = 0
        self._rows: list[TrashRow] = []
        self._owners: dict[str, tuple[str, str | None, int | None] | None] = {}

    def run(self, place: TrashPlace) -> TrashPage:
        stop = self._read_batch(place) if place.position else None
        place = TrashPlace(place.created_ms, place.job)
        while stop is None and self._steps < _MAX_STEPS:
            self._steps += 1
            key = {"created_ms": place.created_ms, "job": place.job}
            found = self._connection.execute(_NEXT_BATCH, key).fetchone()
            if found is None:
                return TrashPage(self._rows, None)
            place = TrashPlace(found[0], found[1])
            if self._owner(place.job) is not None:
                stop = self._read_batch(TrashPlace(found[0], found[1], _LAST_POSITION))
        return TrashPage(self._rows, stop or place)

    def _read_batch(self, place: TrashPlace) -> TrashPlace | None:
        """Read what is left of a batch; return where the walk has to stop, ``None`` after the batch."""
        owner = self._owner(place.job)
        while owner is not None:
            values = {**msgspec.structs.asdict(place), "limit": _PIECE}
            rows = self._connection.execute(_BATCH, values).fetchall()
            for position, item, label in rows:
                place = TrashPlace(place.created_ms, place.job, position)
                if self._q in label.casefold() or self._q in item.casefold():
                    self._rows.append(_trash_row(place, item, label, owner))
                if len(self._rows) >= self._limit:
                    # Position 0 is the batch's last: going on from it means going on after the batch.
                    return place
            self._steps += len(rows)
            if len(rows) < _PIECE:
                return None
            if self._steps >= _MAX_STEPS:
                return place
        return None

    def _owner(self, job_id: str) -> tuple[str, str | None, int | None] | None:
        if job_id not in self._owners:
            row = self._connection.execute(_OWNER, {"id": job_id}).fetchone()
            self._owners[job_id] = (row[0], row[1], row[4]) if row and self._sees(*row[1:4]) else None
        return self._owners[job_id]

    def _sees(self, tenant: str | None, requested_by: str, source: str) -> bool:
        if self._tenant is not None and tenant != self._tenant:
            return False
        return may_see(self._caller, tenant=tenant, requested_by=requested_by, source=source)


def _trash_row(
    place: TrashPlace, item: str, label: str, owner: tuple[str, str | None, int | None]
) -> TrashRow:
    resource, tenant, undo_until_ms = owner
    return TrashRow(place.job, place.position, item, label, resource, tenant, place.created_ms, undo_until_ms)
