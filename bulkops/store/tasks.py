"""Tasks: one user intent that groups jobs. How one comes to be, and what its jobs add up to.

A task holds no counts of its own; everything about its progress is read from its jobs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bulkops.errors import Refusal, invalid_field
from bulkops.labels import task_label
from bulkops.shapes import whole
from bulkops.states import TERMINAL, Source, Status
from bulkops.store.listings import Sight
from bulkops.store.transaction import Tx

#: Jobs that a task names; the counts are of all.
MAX_JOBS: Final = 100
_LAST_ID: Final = "~"
_LAST_MS: Final = 2**63 - 1


class TaskRow(msgspec.Struct, frozen=True):
    """A row of `tasks`."""

    id: str
    type: str
    label: str
    project: str | None
    tenant: str | None
    requested_by: str
    source: Source
    created_ms: int


_FIELDS: Final = TaskRow.__struct_fields__
_COLUMNS: Final = ", ".join(_FIELDS)


def _from_row(row: tuple[Any, ...]) -> TaskRow:
    return msgspec.convert(dict(zip(_FIELDS, row, strict=True)), whole(TaskRow))


_INSERT: Final = f"""
INSERT INTO tasks ({_COLUMNS})
VALUES (:id, :type, :label, :project, :tenant, :requested_by, :source, :created_ms)
ON CONFLICT (id) DO NOTHING
"""


def ensure(
    tx: Tx,
    task_id: str,
    task_type: str,
    *,
    requested_by: str,
    tenant: str | None = None,
    label: str | None = None,
    project: str | None = None,
    source: Source = Source.USER,
) -> TaskRow:
    """Return the task of this id, made now when there is none; one that is there stays as it is.

    Raises:
        Refusal: (``INVALID_FIELD`` at ``/task_id``) it is another tenant's.

    """
    fresh = TaskRow(
        task_id, task_type, label or task_label(task_type), project, tenant, requested_by, source, tx.now_ms
    )
    tx.connection.execute(_INSERT, msgspec.structs.asdict(fresh))
    task = get(tx.connection, task_id)
    if task is None or task.tenant != tenant:
        raise not_joined()
    return task


def not_joined() -> Refusal:
    """Build the refusal of a task's id that is somebody else's."""
    return invalid_field("/task_id", "this id cannot be used")


_GET: Final = f"SELECT {_COLUMNS} FROM tasks WHERE id = :id"


def get(connection: sqlite3.Connection, task_id: str) -> TaskRow | None:
    """Return a task, ``None`` when there is none of that id."""
    row = connection.execute(_GET, {"id": task_id}).fetchone()
    return None if row is None else _from_row(row)


def _newest(index: str, lead: str) -> str:
    return f"""
SELECT {_COLUMNS} FROM tasks INDEXED BY {index}
 WHERE {lead} (created_ms, id) < (:created_ms, :id)
   AND (:tenant IS NULL OR tenant = :tenant)
   AND (:user IS NULL OR requested_by = :user)
   AND (:installation OR source = 'user' OR tenant IS NOT NULL)
   AND (:maintenance OR source = 'user')
   AND (:type IS NULL OR type = :type)
   AND (:project IS NULL OR project = :project)
 ORDER BY created_ms DESC, id DESC LIMIT :limit
"""


_NEWEST: Final = {
    "user": _newest("tasks_user", "requested_by = :user AND"),
    "tenant": _newest("tasks_tenant", "tenant = :tenant AND"),
    "all": _newest("tasks_newest", ""),
}


def newest(
    connection: sqlite3.Connection,
    sight: Sight,
    *,
    task_type: str | None = None,
    project: str | None = None,
    maintenance: bool = False,
    before: tuple[int, str] | None = None,
    limit: int,
) -> list[TaskRow]:
    """List up to ``limit`` tasks made before the one with this instant and id, newest first."""
    created_ms, task_id = before or (_LAST_MS, _LAST_ID)
    lead = "user" if sight.user is not None else "tenant" if sight.tenant is not None else "all"
    rows = connection.execute(
        _NEWEST[lead],
        {
            **msgspec.structs.asdict(sight),
            "type": task_type,
            "project": project,
            "maintenance": maintenance,
            "created_ms": created_ms,
            "id": task_id,
            "limit": limit,
        },
    )
    return [_from_row(row) for row in rows.fetchall()]


class TaskJob(msgspec.Struct, frozen=True):
    """One job of a task, in short."""

    id: str
    resource: str
    action: str
    kind: str
    label: str | None
    status: str
    outcome: str | None
    source: str
    tenant: str | None
    requested_by: str
    total: int | None
    processed: int
    failed: int


class TaskSummary(msgspec.Struct, frozen=True):
    """What a task's jobs add up to; ``total`` is ``None`` while one of them is not known."""

    status: str
    total: int | None
    processed: int
    failed: int
    jobs: list[TaskJob]

    @property
    def percent(self) -> float | None:
        """Say how much is done, floored to one decimal; ``None`` while the total is unknown."""
        if self.total is None:
            return None
        return 100.0 if self.total == 0 else self.processed * 1000 // self.total / 10


_SUMS: Final = """
SELECT status, count(*), sum(total), sum(total IS NULL), sum(cursor), sum(failed)
  FROM jobs INDEXED BY jobs_task WHERE task_id = :id GROUP BY status
"""
_JOBS: Final = """
SELECT id, resource, action, kind, label, status, outcome, source, tenant, requested_by, total, cursor, failed
  FROM jobs INDEXED BY jobs_task WHERE task_id = :id ORDER BY id LIMIT :limit
"""


def summary(connection: sqlite3.Connection, task_id: str) -> TaskSummary:
    """Add up a task's jobs; one without jobs is ``queued`` with nothing to do."""
    sums = connection.execute(_SUMS, {"id": task_id}).fetchall()
    rows = connection.execute(_JOBS, {"id": task_id, "limit": MAX_JOBS}).fetchall()
    # A job that ended before its total was known will never have one: it counts as what it did.
    unknown = any(nulls and Status(status) not in TERMINAL for status, _, _, nulls, _, _ in sums)
    return TaskSummary(
        status=status_of({Status(row[0]): row[1] for row in sums}),
        total=None if unknown else sum(row[2] or 0 for row in sums),
        processed=sum(row[4] for row in sums),
        failed=sum(row[5] for row in sums),
        jobs=[TaskJob(*row) for row in rows],
    )


def status_of(jobs: Mapping[Status, int]) -> Status:
    """Say where a task stands, from how many of its jobs are in each status.

    It runs while any job does or while some have ended and others wait; it ends as its worst job did.
    """
    if any(jobs.get(status) for status in (Status.RUNNING, Status.PAUSING, Status.CANCELLING)):
        return Status.RUNNING
    ended = any(jobs.get(status) for status in TERMINAL)
    if any(jobs.get(status) for status in (Status.PREPARING, Status.QUEUED)):
        return Status.RUNNING if ended else Status.QUEUED
    for status in (Status.PAUSED, Status.SCHEDULED, Status.FAILED, Status.CANCELLED, Status.COMPLETED):
        if jobs.get(status):
            return status
    return Status.QUEUED


_END: Final = "INSERT INTO task_ends (task, at_ms) VALUES (:id, :now) ON CONFLICT (task) DO NOTHING"


def end(tx: Tx, task_id: str) -> bool:
    """Note that a task has ended; ``False`` when that was noted before: its end is told once."""
    return tx.connection.execute(_END, {"id": task_id, "now": tx.now_ms}).rowcount == 1


_REOPEN: Final = "DELETE FROM task_ends WHERE task = :id"


def reopen(tx: Tx, task_id: str) -> None:
    """Take back that a task has ended: a job was started or resumed in it, and its end is told again."""
    tx.connection.execute(_REOPEN, {"id": task_id})


_UNFINISHED: Final = """
SELECT count(*) FROM jobs INDEXED BY jobs_task
 WHERE task_id = :id AND status NOT IN ('completed', 'failed', 'cancelled')
"""


def count_unfinished(connection: sqlite3.Connection, task_id: str) -> int:
    """Count a task's jobs that have not ended; with the last one gone the task is complete."""
    return int(connection.execute(_UNFINISHED, {"id": task_id}).fetchone()[0])
