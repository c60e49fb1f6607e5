"""What is kept for a time and then removed from our database, a small step at a time.

What comes in: a write transaction, and the instant before which things are old; what goes out: how many
rows one step removed, 0 when nothing is left to remove. A step is small enough to be repeated until a
transaction has had its time. Nothing that could still be undone, and nothing of a job that has not ended,
is ever removed; the audit never is.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from bulkops.store.transaction import Tx

_DAY_MS: Final = 24 * 3_600_000
#: Rows a step removes, by how big they are.
_IMAGES: Final = 50
_CHUNKS: Final = 10
_EXCEPTIONS: Final = 500
_TASKS: Final = 50
#: Free pages (4 KiB) that stay in the file, so that it does not shrink and grow all day.
_MAX_FREE_PAGES: Final = 512
_VACUUM_PAGES: Final = 64


class OldJob(msgspec.Struct, frozen=True):
    """A job that ended long ago."""

    id: str
    finished_ms: int
    spent: bool


_WITH_TRASH: Final = """
SELECT id, finished_ms, EXISTS (SELECT 1 FROM trash WHERE trash.job = jobs.id)
  FROM jobs INDEXED BY jobs_finished
 WHERE finished_ms <= :before_ms AND (finished_ms, id) > (:finished_ms, :id)
 ORDER BY finished_ms, id LIMIT :limit
"""
_REMOVABLE: Final = """
SELECT id, finished_ms,
       coalesce(undo_until_ms, 0) <= :now_ms
       AND NOT EXISTS (SELECT 1 FROM trash WHERE trash.job = jobs.id)
       AND NOT EXISTS (SELECT 1 FROM jobs AS later WHERE later.retry_of = jobs.id)
       AND NOT EXISTS (SELECT 1 FROM jobs AS later WHERE later.undo_of = jobs.id)
  FROM jobs INDEXED BY jobs_finished
 WHERE finished_ms <= :before_ms AND (finished_ms, id) > (:finished_ms, :id)
   AND (:resource IS NULL OR resource = :resource)
 ORDER BY finished_ms, id LIMIT :limit
"""


def jobs_with_trash(
    connection: sqlite3.Connection, *, before_ms: int, after: OldJob | None, limit: int
) -> list[OldJob]:
    """List jobs that ended before an instant, oldest first, ``spent`` where there are images to remove."""
    return _old_jobs(connection, _WITH_TRASH, before_ms=before_ms, after=after, limit=limit)


def removable_jobs(
    connection: sqlite3.Connection,
    *,
    now_ms: int,
    before_ms: int,
    after: OldJob | None,
    limit: int,
    resource: str | None = None,
) -> list[OldJob]:
    """List jobs (of one ``resource``) that ended before an instant, oldest first, ``spent`` where the job can go.

    One that has trash, can be undone, or is what a later job retries or undoes, stays.
    """
    return _old_jobs(
        connection,
        _REMOVABLE,
        now_ms=now_ms,
        before_ms=before_ms,
        after=after,
        limit=limit,
        resource=resource,
    )


def _old_jobs(
    connection: sqlite3.Connection, statement: str, *, after: OldJob | None, **values: int | str | None
) -> list[OldJob]:
    place = {"finished_ms": after.finished_ms if after else -1, "id": after.id if after else ""}
    rows = connection.execute(statement, {**values, **place}).fetchall()
    return [OldJob(job_id, finished_ms, bool(spent)) for job_id, finished_ms, spent in rows]


_UNDOABLE: Final = """
SELECT finished_ms IS NULL OR finished_ms > :before_ms OR coalesce(undo_until_ms, 0) > :now_ms
       OR EXISTS (SELECT 1 FROM jobs AS undo WHERE undo.undo_of = jobs.id
                     AND undo.status NOT IN ('completed', 'failed', 'cancelled'))
  FROM jobs WHERE id = :job
"""
_EMPTY_TRASH: Final = """
DELETE FROM trash WHERE job = :job
   AND position IN (SELECT position FROM trash WHERE job = :job ORDER BY position LIMIT :limit)
"""


def empty_trash(tx: Tx, job_id: str, *, before_ms: int) -> int:
    """Remove some before-images of a job that ended before an instant and cannot be undone any more."""
    # Asked in the transaction that removes: an undo may have begun since the list was made.
    values = {"job": job_id, "before_ms": before_ms, "now_ms": tx.now_ms}
    row = tx.connection.execute(_UNDOABLE, values).fetchone()
    if row is None or row[0]:
        return 0
    return tx.connection.execute(_EMPTY_TRASH, {"job": job_id, "limit": _IMAGES}).rowcount


_REMOVE_CHUNKS: Final = """
DELETE FROM manifest WHERE job = :job
   AND first IN (SELECT first FROM manifest WHERE job = :job ORDER BY first LIMIT :limit)
"""
_REMOVE_EXCEPTIONS: Final = """
DELETE FROM exceptions WHERE job = :job
   AND position IN (SELECT position FROM exceptions WHERE job = :job ORDER BY position LIMIT :limit)
"""
_REMOVE_JOB: Final = "DELETE FROM jobs WHERE id = :job"


def remove_job(tx: Tx, job_id: str, *, before_ms: int) -> int:
    """Remove a part of a job that `removable_jobs` called spent: its lists first, at last its row."""
    values = {"now_ms": tx.now_ms, "before_ms": before_ms, "job": job_id}
    row = tx.connection.execute(_STILL_REMOVABLE, values).fetchone()
    if row is None or not row[0]:
        return 0
    for statement, limit in ((_REMOVE_CHUNKS, _CHUNKS), (_REMOVE_EXCEPTIONS, _EXCEPTIONS)):
        removed = tx.connection.execute(statement, {"job": job_id, "limit": limit}).rowcount
        if removed:
            return removed
    return tx.connection.execute(_REMOVE_JOB, {"job": job_id}).rowcount


_STILL_REMOVABLE: Final = """
SELECT finished_ms <= :before_ms AND coalesce(undo_until_ms, 0) <= :now_ms
       AND NOT EXISTS (SELECT 1 FROM trash WHERE trash.job = jobs.id)
       AND NOT EXISTS (SELECT 1 FROM jobs AS later WHERE later.retry_of = jobs.id)
       AND NOT EXISTS (SELECT 1 FROM jobs AS later WHERE later.undo_of = jobs.id)
  FROM jobs WHERE id = :job
"""

_REMOVE_TASKS: Final = """
DELETE FROM tasks WHERE id IN (
  SELECT id FROM tasks INDEXED BY tasks_newest
   WHERE created_ms <= :before_ms
     AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.task_id = tasks.id)
   ORDER BY created_ms LIMIT :limit)
"""


def remove_tasks(tx: Tx, *, before_ms: int) -> int:
    """Remove some tasks made before an instant whose jobs are all gone."""
    values = {"before_ms": before_ms, "limit": _TASKS}
    return tx.connection.execute(_REMOVE_TASKS, values).rowcount


# A job that has still to freeze needs its list; a day of grace lets clients be told EXPIRED, not NOT_FOUND.
_DEAD_SELECTION: Final = """
SELECT id FROM selections INDEXED BY selections_expiry
 WHERE expires_ms <= :before_ms
   AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_status
                    WHERE status IN ('scheduled', 'preparing', 'pausing', 'paused', 'cancelling', 'failed')
                      AND frozen = 0 AND json_extract(jobs.selection, '$.selection_id') = selections.id)
 ORDER BY expires_ms LIMIT 1
"""
_REMOVE_SELECTION_CHUNKS: Final = """
DELETE FROM selection_chunks WHERE selection = :id
   AND first IN (SELECT first FROM selection_chunks WHERE selection = :id ORDER BY first LIMIT :limit)
"""
_REMOVE_SELECTION: Final = "DELETE FROM selections WHERE id = :id"


def remove_selections(tx: Tx) -> int:
    """Remove a part of an uploaded selection that expired a day ago and that no job has still to freeze."""
    row = tx.connection.execute(_DEAD_SELECTION, {"before_ms": tx.now_ms - _DAY_MS}).fetchone()
    if row is None:
        return 0
    values = {"id": row[0], "limit": _CHUNKS}
    removed = tx.connection.execute(_REMOVE_SELECTION_CHUNKS, values).rowcount
    return removed or tx.connection.execute(_REMOVE_SELECTION, {"id": row[0]}).rowcount


_FREE_PAGES: Final = "PRAGMA freelist_count"
_VACUUM: Final = f"PRAGMA incremental_vacuum({_VACUUM_PAGES})"


def vacuum(tx: Tx) -> int:
    """Give some free pages back to the file system; 0 while few are free."""
    free = int(tx.connection.execute(_FREE_PAGES).fetchone()[0])
    if free <= _MAX_FREE_PAGES:
        return 0
    tx.connection.execute(_VACUUM).fetchall()
    return free - int(tx.connection.execute(_FREE_PAGES).fetchone()[0])


# The limit keeps the look at each index short, however large the table has become.
_ANALYSIS_LIMIT: Final = "PRAGMA analysis_limit = 400"
_OPTIMIZE: Final = "PRAGMA optimize"


def optimize(tx: Tx) -> None:
    """Let SQLite refresh what it knows of tables that have changed much."""
    tx.connection.execute(_ANALYSIS_LIMIT).fetchall()
    tx.connection.execute(_OPTIMIZE).fetchall()
