"""Rows of `jobs`: how one is written, moved, counted and read; who works on it is told in `claims`.

Every change of status is a guarded ``UPDATE … WHERE status IN (…) RETURNING`` with its event in the same
transaction; zero rows is an answer, not an error.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from bulkops.models import FailureThreshold, ItemError, Reason
from bulkops.shapes import whole
from bulkops.states import TERMINAL, Source, Status, outcome_of, sources_of
from bulkops.store import artifacts, events
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What was selected, as frozen at acceptance: relative times resolved, later rows bounded out."""

    kind: str
    filter: dict[str, Any] | None = None
    exclude_ids: list[str | int] = []
    selection_id: str | None = None
    deleted: bool = False
    bound: str | int | None = None
    expected_count: int | None = None
    stamp_ms: int = 0
    codes: list[str] | None = None
    ids: list[str | int] | None = None


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """How fast and how far; ``None`` means automatic or none. Units in the names."""

    batch_size: int | None = None
    throttle_ms: int | None = None
    max_items_per_second: float | None = None
    max_items: int | None = None
    max_runtime_s: float | None = None
    auto_resume_s: float | None = None
    max_batch_failures: int = 10
    failure_threshold: FailureThreshold | None = None
    canary: int | None = None
    atomic: bool = False
    undo_s: int = 0


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `jobs`; see schema.sql for what each column means."""

    id: str
    resource: str
    action: str
    kind: str = "act"
    label: str | None = None
    tenant: str | None = None
    requested_by: str
    reason: str | None = None
    source: Source = Source.USER
    task_id: str | None = None
    task_type: str | None = None
    project: str | None = None
    status: Status
    outcome: str | None = None
    status_code: str | None = None
    status_message: str | None = None
    priority: int
    exclusive: bool = False
    selection: Selection
    options: dict[str, Any]
    knobs: Knobs
    identity: str
    frozen: bool = False
    total: int | None = None
    cursor: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    batch: int = 0
    batch_failures: int = 0
    crashes: int = 0
    worker: int | None = None
    queued_ms: int
    not_before_ms: int = 0
    active_ms: int = 0
    stretch_ms: int = 0
    stretch_items: int = 0
    stretch_failed: int = 0
    rate: float | None = None
    last_error: ItemError | None = None
    error: Reason | None = None
    retry_of: str | None = None
    undo_of: str | None = None
    request_hash: str | None = None
    undo_until_ms: int | None = None
    created_ms: int
    run_at_ms: int | None = None
    started_ms: int | None = None
    updated_ms: int
    finished_ms: int | None = None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def undo_ms(self) -> int:
        """How long after its end what the job took can be put back; 0 for never."""
        return self.knobs.undo_s * 1000


_COLUMNS: Final = JobRow.__struct_fields__
_JSON: Final[dict[str, Any]] = {
    "selection": Selection,
    "options": dict[str, Any],
    "knobs": Knobs,
    "last_error": ItemError,
    "error": Reason,
}
#: The columns of a row in the order `from_row` expects.
COLUMNS: Final = ", ".join(_COLUMNS)


def from_row(row: tuple[Any, ...]) -> JobRow:
    """Build the value of a row selected as ``COLUMNS``."""
    values = dict(zip(_COLUMNS, row, strict=True))
    for name, kind in _JSON.items():
        if values[name] is not None:
            values[name] = msgspec.json.decode(values[name], type=whole(kind))
    return msgspec.convert(values, whole(JobRow), strict=False)


def _to_row(job: JobRow) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in _COLUMNS}
    for name in _JSON:
        if values[name] is not None:
            values[name] = encode(values[name])
    return values


def encode(value: Any) -> str:
    """Write a value of a JSON column."""
    return msgspec.json.encode(value).decode()


_INSERT: Final = f"INSERT INTO jobs ({COLUMNS}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"


def insert(tx: Tx, job: JobRow) -> None:
    """Write a new job and its `queued` event.

    Raises:
        sqlite3.IntegrityError: another active exclusive job of this resource, action and tenant.
    """
    tx.connection.execute(_INSERT, _to_row(job))
    events.append(tx, job, "queued", progress_data(job))
    tx.ring(job=job.id, line=True)


_GET: Final = f"SELECT {COLUMNS} FROM jobs WHERE id = :id"


def get(connection: sqlite3.Connection, job_id: str) -> JobRow | None:
    """Return a job, ``None`` when there is none of that id."""
    row = connection.execute(_GET, {"id": job_id}).fetchone()
    return None if row is None else from_row(row)


_FOLLOWER: Final = f"""
SELECT {COLUMNS} FROM jobs
 WHERE id = (SELECT max(id) FROM (
         SELECT max(id) AS id FROM jobs WHERE retry_of = :id AND request_hash = :request_hash
         UNION ALL SELECT max(id) FROM jobs WHERE undo_of = :id AND request_hash = :request_hash))
"""


def follower(connection: sqlite3.Connection, job_id: str, request_hash: str) -> JobRow | None:
    """Return the newest retry or undo of a job that was asked in the same way, ``None`` without one."""
    row = connection.execute(_FOLLOWER, {"id": job_id, "request_hash": request_hash}).fetchone()
    return None if row is None else from_row(row)


_UNDOS: Final = """
SELECT id, cursor FROM jobs INDEXED BY jobs_undo
 WHERE undo_of = :origin AND kind = 'undo' AND cursor > 0 AND id <> :but
"""


def undos(connection: sqlite3.Connection, origin: str, *, but: str) -> list[tuple[str, int]]:
    """List the other jobs that undid a job, or some of it, each with how many items it has passed."""
    return connection.execute(_UNDOS, {"origin": origin, "but": but}).fetchall()


_ACTIVE: Final = """
SELECT id FROM jobs INDEXED BY jobs_exclusive
 WHERE resource = :resource AND action = :action AND coalesce(tenant, '') = coalesce(:tenant, '')
   AND exclusive = 1
   AND status IN ('preparing', 'queued', 'running', 'pausing', 'paused', 'cancelling')
"""


def active_exclusive(
    connection: sqlite3.Connection, *, resource: str, action: str, tenant: str | None
) -> str | None:
    """Return the id of the active exclusive job of this resource, action and tenant, if there is one."""
    row = connection.execute(_ACTIVE, {"resource": resource, "action": action, "tenant": tenant}).fetchone()
    return None if row is None else str(row[0])


_STARTS: Final = """
SELECT count(*), min(created_ms) FROM jobs
 WHERE resource = :resource AND action = :action AND coalesce(tenant, '') = coalesce(:tenant, '')
   AND created_ms > :since_ms AND created_ms <= :until_ms AND source = 'user' AND kind = 'act'
"""


def count_starts(
    connection: sqlite3.Connection,
    *,
    resource: str,
    action: str,
    tenant: str | None,
    since_ms: int,
    until_ms: int,
) -> tuple[int, int | None]:
    """Count a tenant's accepted starts after ``since_ms`` up to ``until_ms``, and say when the oldest of them was."""
    values = {
        "resource": resource, "action": action, "tenant": tenant, "since_ms": since_ms, "until_ms": until_ms,
    }  # fmt: skip
    row = connection.execute(_STARTS, values).fetchone()
    return row[0], row[1]


def _move(tx: Tx, sql: str, job_id: str, kind: str, *, target: Status, **values: Any) -> JobRow | None:
    """Run a guarded update of one job's status and write its event; ``None`` when the guard said no."""
    statement = sql.replace(":from", _one_of(sources_of(target)))
    row = tx.connection.execute(statement, {"id": job_id, "now": tx.now_ms, **values}).fetchone()
    if row is None:
        return None
    job = from_row(row)
    terminal = job.terminal and kind != "updated"
    data = terminal_data(job, artifacts.told(tx.connection, job.id)) if terminal else progress_data(job)
    events.append(tx, job, kind, data)
    tx.ring(job=job.id, line=True)
    return job


def _one_of(statuses: frozenset[Status]) -> str:
    return "(" + ", ".join(f"'{status}'" for status in sorted(statuses)) + ")"


_PAUSE: Final = f"""
UPDATE jobs SET status = 'paused', worker = NULL, status_code = :code, status_message = :message,
       not_before_ms = :resume_ms, updated_ms = :now
 WHERE id = :id AND status IN :from AND (worker IS NULL OR :held = 1)
RETURNING {COLUMNS}
"""
_REQUEST_PAUSE: Final = f"""
UPDATE jobs SET status = 'pausing', status_code = 'USER', status_message = :message, updated_ms = :now
 WHERE id = :id AND status IN :from AND status <> 'pausing' AND worker IS NOT NULL
RETURNING {COLUMNS}
"""


def pause(
    tx: Tx, job_id: str, *, code: str, message: str, held: bool = False, resume_ms: int = 0
) -> JobRow | None:
    """Pause a job nobody works on, or (``held``) the one the calling worker holds.

    ``resume_ms`` is when it shall go on by itself, 0 for by hand.
    """
    return _move(
        tx, _PAUSE, job_id, "paused", target=Status.PAUSED,
        code=code, message=message, held=int(held), resume_ms=resume_ms,
    )  # fmt: skip


_REVIEW: Final = f"""
UPDATE jobs SET status_code = 'NEEDS_REVIEW', status_message = :message, not_before_ms = 0, updated_ms = :now
 WHERE id = :id AND status IN :from AND status = 'paused'
RETURNING {COLUMNS}
"""


def review(tx: Tx, job_id: str, *, message: str) -> JobRow | None:
    """Keep a paused job paused until somebody has looked at it, whatever it was paused for."""
    return _move(tx, _REVIEW, job_id, "updated", target=Status.CANCELLED, message=message)


_STAY_PAUSED: Final = f"""
UPDATE jobs SET not_before_ms = 0, status_code = 'USER', status_message = :message, updated_ms = :now
 WHERE id = :id AND status = 'paused'
RETURNING {COLUMNS}
"""


def stay_paused(tx: Tx, job_id: str, *, message: str) -> JobRow | None:
    """Keep a paused job paused that would have gone on by itself."""
    return _move(tx, _STAY_PAUSED, job_id, "updated", target=Status.PAUSED, message=message)


def request_pause(tx: Tx, job_id: str, *, message: str) -> JobRow | None:
    """Ask the worker that holds a job to pause it after its batch."""
    return _move(tx, _REQUEST_PAUSE, job_id, "updated", target=Status.PAUSING, message=message)


_RESUME: Final = f"""
UPDATE jobs SET status = CASE WHEN status = 'pausing' THEN iif(frozen, 'running', 'preparing')
                              WHEN status = 'paused' AND frozen AND run_at_ms > :now THEN 'scheduled'
                              ELSE iif(frozen, 'queued', 'preparing') END,
       status_code = NULL, status_message = NULL, error = NULL, finished_ms = NULL, not_before_ms = 0,
       queued_ms = :now, stretch_ms = 0, stretch_items = 0, stretch_failed = 0, batch_failures = 0, crashes = 0, updated_ms = :now
 WHERE id = :id AND status IN ('pausing', 'paused', 'failed')
RETURNING {COLUMNS}
"""


def resume(tx: Tx, job_id: str) -> JobRow | None:
    """Put a paused or failed job back in line, its limits counted afresh.

    Raises:
        sqlite3.IntegrityError: a failed exclusive job, and another one is active by now.
    """
    return _move(tx, _RESUME, job_id, "resumed", target=Status.QUEUED)


_CANCEL: Final = f"""
UPDATE jobs SET status = 'cancelled', worker = NULL, status_code = NULL, status_message = NULL, not_before_ms = 0,
       updated_ms = :now, finished_ms = :now, rate = NULL
 WHERE id = :id AND status IN :from AND (worker IS NULL OR :held = 1)
RETURNING {COLUMNS}
"""
_REQUEST_CANCEL: Final = f"""
UPDATE jobs SET status = 'cancelling', not_before_ms = 0, updated_ms = :now
 WHERE id = :id AND status IN :from AND (worker IS NOT NULL OR :unheld = 1)
RETURNING {COLUMNS}
"""


def cancel(tx: Tx, job_id: str, *, held: bool = False) -> JobRow | None:
    """End a job nobody works on, or (``held``) the one the calling worker holds; what is done stays done."""
    return _move(tx, _CANCEL, job_id, "cancelled", target=Status.CANCELLED, held=int(held))


def request_cancel(tx: Tx, job_id: str, *, unheld: bool = False) -> JobRow | None:
    """Ask the worker that holds a job (``unheld``: the one that takes it next) to end it after its batch."""
    return _move(tx, _REQUEST_CANCEL, job_id, "updated", target=Status.CANCELLING, unheld=int(unheld))


_COMPLETE: Final = f"""
UPDATE jobs SET status = 'completed', outcome = :outcome, worker = NULL, status_code = NULL, status_message = NULL,
       updated_ms = :now, finished_ms = :now, rate = NULL
 WHERE id = :id AND status IN :from AND cursor = total
RETURNING {COLUMNS}
"""


def complete(tx: Tx, job: JobRow) -> JobRow | None:
    """End a job whose every item is accounted for; ``job`` carries its newest counts."""
    outcome = outcome_of(succeeded=job.succeeded, failed=job.failed)
    return _move(tx, _COMPLETE, job.id, "completed", target=Status.COMPLETED, outcome=outcome)


_FAIL: Final = f"""
UPDATE jobs SET status = 'failed', worker = NULL, status_code = NULL, status_message = NULL, error = :error,
       updated_ms = :now, finished_ms = :now, rate = NULL
 WHERE id = :id AND status IN :from
RETURNING {COLUMNS}
"""


def fail(tx: Tx, job_id: str, *, code: str, message: str) -> JobRow | None:
    """End a job that can never go on."""
    return _move(tx, _FAIL, job_id, "failed", target=Status.FAILED, error=encode(Reason(code, message)))


_SET_UNDO_UNTIL: Final = "UPDATE jobs SET undo_until_ms = :until WHERE id = :id AND undo_until_ms IS NULL"


def set_undo_until(tx: Tx, job_id: str, until_ms: int) -> None:
    """Say until when what this job took can be put back."""
    tx.connection.execute(_SET_UNDO_UNTIL, {"id": job_id, "until": until_ms})


_FROZEN: Final = f"""
UPDATE jobs SET frozen = 1, total = :total, worker = NULL, queued_ms = :now, updated_ms = :now,
       status = CASE WHEN status = 'preparing' AND run_at_ms > :now THEN 'scheduled'
                     WHEN status = 'preparing' THEN 'queued' ELSE status END
 WHERE id = :id AND status IN ('preparing', 'pausing', 'cancelling')
RETURNING {COLUMNS}
"""


def freeze(tx: Tx, job_id: str, *, total: int) -> JobRow | None:
    """Close a job's manifest: ``total`` items, none will be added."""
    return _move(tx, _FROZEN, job_id, "updated", target=Status.QUEUED, total=total)


_TUNE: Final = f"""
UPDATE jobs SET priority = :priority, knobs = :knobs, updated_ms = :now,
       not_before_ms = CASE status WHEN 'paused' THEN not_before_ms ELSE 0 END
 WHERE id = :id AND status NOT IN ('completed', 'failed', 'cancelled')
RETURNING {COLUMNS}
"""


def tune(tx: Tx, job: JobRow, *, priority: int, knobs: Knobs) -> JobRow | None:
    """Turn the live knobs of a job that has not ended; the worker sees them after its batch."""
    return _move(tx, _TUNE, job.id, "updated", target=Status.QUEUED, priority=priority, knobs=encode(knobs))


_ACCOUNT: Final = f"""
UPDATE jobs SET cursor = :cursor, succeeded = succeeded + :succeeded, failed = failed + :failed,
       skipped = skipped + :skipped, batch = batch + 1, batch_failures = :batch_failures, crashes = 0,
       active_ms = active_ms + :active_ms, stretch_ms = stretch_ms + :active_ms,
       stretch_items = stretch_items + :items, stretch_failed = stretch_failed + :failed, rate = :rate, last_error = coalesce(:last_error, last_error),
       updated_ms = :now
 WHERE id = :id AND batch = :batch AND (worker = :worker OR (worker IS NULL AND status = 'cancelled'))
RETURNING {COLUMNS}
"""


class Counts(msgspec.Struct, frozen=True):
    """What one batch adds to its job."""

    succeeded: int
    failed: int
    skipped: int

    @property
    def items(self) -> int:
        return self.succeeded + self.failed + self.skipped


def account(
    tx: Tx,
    job: JobRow,
    counts: Counts,
    *,
    active_ms: int,
    rate: float | None,
    last_error: ItemError | None,
    batch_failed: bool = False,
) -> JobRow | None:
    """Add a batch to its job; ``None`` when it was added before or somebody else holds the job.

    A job that was ended by force while the batch was at its commit takes it still: it was done.
    """
    row = tx.connection.execute(
        _ACCOUNT,
        {
            "id": job.id,
            "batch": job.batch,
            "worker": job.worker,
            "cursor": job.cursor + counts.items,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "skipped": counts.skipped,
            "items": counts.items,
            "batch_failures": job.batch_failures + 1 if batch_failed else 0,
            "active_ms": active_ms,
            "rate": rate,
            "last_error": None if last_error is None else encode(last_error),
            "now": tx.now_ms,
        },
    ).fetchone()
    return None if row is None else from_row(row)


_UNFINISHED: Final = f"""
SELECT {COLUMNS} FROM jobs
 WHERE status IN ('scheduled', 'preparing', 'queued', 'running', 'pausing', 'paused', 'cancelling') ORDER BY id
"""


def unfinished(connection: sqlite3.Connection) -> list[JobRow]:
    """List the jobs that have not ended, oldest first."""
    return [from_row(row) for row in connection.execute(_UNFINISHED)]


def announce(tx: Tx, job: JobRow, kind: str, *, items: list[dict[str, Any]] | None = None) -> None:
    """Write an event of a job as it stands; progress replaces the job's older progress."""
    events.append(tx, job, kind, progress_data(job, items=items))
    tx.ring(job=job.id)


def percent(job: JobRow) -> float | None:
    """Say how much is done, floored to one decimal; ``None`` while the total is unknown."""
    if job.total is None:
        return None
    return 100.0 if job.total == 0 else job.cursor * 1000 // job.total / 10


def eta_seconds(job: JobRow) -> float | None:
    """Estimate the time left from the smoothed rate; ``None`` when it is unknown, never a guess."""
    if job.total is None or not job.rate or job.status is not Status.RUNNING:
        return None
    return round((job.total - job.cursor) / job.rate, 1)


def progress_data(job: JobRow, *, items: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the ``data`` of every event that is not a job's last."""
    return {
        "status": job.status,
        "total": job.total,
        "processed": job.cursor,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "skipped": job.skipped,
        "percent": percent(job),
        "items_per_second": None if job.rate is None else round(job.rate, 1),
        "eta_seconds": eta_seconds(job),
        "items": items or [],
    } | (
        {"status_reason": {"code": job.status_code, "message": job.status_message}} if job.status_code else {}
    )


def terminal_data(job: JobRow, made: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ``data`` of a job's last event."""
    return {
        "status": job.status,
        "outcome": job.outcome,
        "total": job.total,
        "processed": job.cursor,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "skipped": job.skipped,
        "error": None if job.error is None else {"code": job.error.code, "message": job.error.message},
        "artifacts": made,
        "undo_until": rfc3339(job.undo_until_ms),
    }
