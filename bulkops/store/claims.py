"""The line of jobs: who is next, which worker holds whom, and who joins the line when the time has come.

A claim is one guarded ``UPDATE … RETURNING`` along the index `jobs_line`: no two workers ever hold one job, and
what a dead process held is taken back by its generation. How a job moves from status to status is told in `jobs`.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from bulkops.store import events
from bulkops.store.jobs import COLUMNS, JobRow, from_row, get, progress_data, resume
from bulkops.store.transaction import Tx

_LINE_LENGTH: Final = """
SELECT count(*) FROM jobs INDEXED BY jobs_line
 WHERE worker IS NULL AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling')
"""


def line_length(connection: sqlite3.Connection) -> int:
    """Count the jobs that wait for a worker."""
    return int(connection.execute(_LINE_LENGTH).fetchone()[0])


_READY_LENGTH: Final = """
SELECT count(*) FROM jobs INDEXED BY jobs_line
 WHERE worker IS NULL AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling')
   AND not_before_ms <= :now
"""


def ready_length(connection: sqlite3.Connection, *, now_ms: int) -> int:
    """Count the jobs that wait for a worker and for nothing else."""
    return int(connection.execute(_READY_LENGTH, {"now": now_ms}).fetchone()[0])


_CLAIM: Final = f"""
UPDATE jobs SET worker = :worker, updated_ms = :now,
       status = CASE status WHEN 'queued' THEN 'running' ELSE status END,
       started_ms = CASE status WHEN 'queued' THEN coalesce(started_ms, :now) ELSE started_ms END
 WHERE id = (SELECT id FROM jobs INDEXED BY jobs_line
              WHERE worker IS NULL AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling')
                AND (status = 'preparing') = :preparing AND not_before_ms <= :now
              ORDER BY priority DESC, queued_ms, id LIMIT 1)
RETURNING {COLUMNS}
"""


def claim(tx: Tx, *, worker: int, preparing: bool) -> JobRow | None:
    """Give the first job in line to a worker (or, ``preparing``, to a freezer); ``None`` when nobody waits."""
    row = tx.connection.execute(
        _CLAIM, {"worker": worker, "now": tx.now_ms, "preparing": int(preparing)}
    ).fetchone()
    if row is None:
        return None
    job = from_row(row)
    if job.started_ms == tx.now_ms and job.cursor == 0 and not preparing:
        events.append(tx, job, "started", progress_data(job))
        tx.ring(job=job.id)
    return job


_ANYBODY: Final = """
SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_line
 WHERE worker IS NULL AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling')
   AND (status = 'preparing') = :preparing AND not_before_ms <= :now)
"""


def anybody_in_line(connection: sqlite3.Connection, *, preparing: bool, now_ms: int) -> bool:
    """Say whether `claim` would find a job."""
    return bool(connection.execute(_ANYBODY, {"preparing": int(preparing), "now": now_ms}).fetchone()[0])


_NEXT_DUE: Final = """
SELECT min(at) FROM (
  SELECT min(not_before_ms) AS at FROM jobs INDEXED BY jobs_line
   WHERE worker IS NULL AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling')
     AND not_before_ms > :now
  UNION ALL SELECT min(run_at_ms) FROM jobs WHERE status = 'scheduled' AND run_at_ms > :after
  UNION ALL SELECT min(not_before_ms) FROM jobs WHERE status = 'paused' AND not_before_ms > :after)
"""


def next_due_ms(connection: sqlite3.Connection, now_ms: int, *, after_ms: int = 0) -> int | None:
    """Say when the next job that waits for a time behind ``after_ms`` is due; ``None`` when none waits."""
    due = connection.execute(_NEXT_DUE, {"now": now_ms, "after": after_ms}).fetchone()[0]
    return None if due is None else int(due)


_FIRE: Final = f"""
UPDATE jobs SET status = CASE frozen WHEN 1 THEN 'queued' ELSE 'preparing' END, queued_ms = :now, updated_ms = :now
 WHERE id = :id AND status = 'scheduled'
RETURNING {COLUMNS}
"""
_DUE_SCHEDULED: Final = (
    "SELECT id FROM jobs WHERE status = 'scheduled' AND run_at_ms <= :now ORDER BY run_at_ms"
)


def fire_due(tx: Tx) -> int:
    """Put scheduled jobs whose time has come in line; an exclusive one waits while another is active."""
    fired = 0
    for (job_id,) in tx.connection.execute(_DUE_SCHEDULED, {"now": tx.now_ms}).fetchall():
        try:
            row = tx.connection.execute(_FIRE, {"id": job_id, "now": tx.now_ms}).fetchone()
        except sqlite3.IntegrityError:
            continue
        if row is not None:
            job = from_row(row)
            events.append(tx, job, "updated", progress_data(job))
            tx.ring(job=job.id, line=True)
            fired += 1
    return fired


_DUE_PAUSED: Final = """
SELECT id FROM jobs WHERE status = 'paused' AND not_before_ms BETWEEN 1 AND :now
"""


def resume_due(tx: Tx) -> int:
    """Resume paused jobs whose auto-resume time has come."""
    due = tx.connection.execute(_DUE_PAUSED, {"now": tx.now_ms}).fetchall()
    return sum(resume(tx, job_id) is not None for (job_id,) in due)


_RELEASE: Final = f"""
UPDATE jobs SET worker = NULL, queued_ms = :now, not_before_ms = :not_before_ms, updated_ms = :now
 WHERE id = :id AND worker = :worker
RETURNING {COLUMNS}
"""


def release(tx: Tx, job: JobRow, *, not_before_ms: int = 0) -> None:
    """Put a job back in line without changing its status: its slice is over, or it backs off."""
    tx.connection.execute(
        _RELEASE, {"id": job.id, "worker": job.worker, "now": tx.now_ms, "not_before_ms": not_before_ms}
    ).fetchall()
    tx.ring(line=True)


_HASTEN: Final = """
UPDATE jobs SET not_before_ms = max(1, not_before_ms - :back_ms)
 WHERE not_before_ms > :now AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling', 'paused')
"""


def hasten(tx: Tx, *, back_ms: int) -> None:
    """Let jobs that wait for an instant wait no longer than was meant: the wall clock was set back by so much."""
    tx.connection.execute(_HASTEN, {"now": tx.now_ms, "back_ms": back_ms})
    tx.ring(line=True)


_HELD: Final = f"SELECT {COLUMNS} FROM jobs WHERE worker IS NOT NULL AND worker < :generation"
_UNHOLD: Final = "UPDATE jobs SET worker = NULL, crashes = crashes + 1, updated_ms = :now WHERE id = :id"


def take_over(tx: Tx, *, generation: int) -> list[JobRow]:
    """Take back the jobs that workers of a dead process held; return them as they are now."""
    held = [from_row(row) for row in tx.connection.execute(_HELD, {"generation": generation}).fetchall()]
    for job in held:
        tx.connection.execute(_UNHOLD, {"id": job.id, "now": tx.now_ms})
    return [job for job in (get(tx.connection, job.id) for job in held) if job is not None]
