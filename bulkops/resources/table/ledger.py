"""The ledger row a job keeps inside the application's database (``ledger = "app"``).

It is written in the transaction of each batch and so tells exactly which batch was the last to commit,
and what became of its items. One small table; created with the first batch of the first such job.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from bulkops.effects import Fence, ItemException
from bulkops.shapes import whole

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS _bulkops_ledger (
  job        TEXT PRIMARY KEY,
  tenant     TEXT,
  generation INTEGER NOT NULL,
  batch      INTEGER NOT NULL,
  cursor     INTEGER NOT NULL,
  exceptions TEXT NOT NULL
) STRICT
"""
_TAKE_OVER: Final = """
UPDATE _bulkops_ledger SET generation = :generation WHERE job = :job AND generation < :generation
"""


class FencedError(Exception):
    """The ledger says that somebody else has gone on with this job; nothing was done."""


class Entry(msgspec.Struct, frozen=True):
    """A job's ledger row."""

    generation: int
    batch: int
    cursor: int
    exceptions: list[ItemException]


def exists(connection: sqlite3.Connection) -> bool:
    """Say whether the ledger table is there."""
    sql = "SELECT 1 FROM sqlite_schema WHERE name = '_bulkops_ledger'"
    return connection.execute(sql).fetchone() is not None


def take_over(connection: sqlite3.Connection, fence: Fence) -> None:
    """Make the job's row this generation's; a job whose first batch is not done yet has none."""
    connection.execute(_TAKE_OVER, {"job": fence.job, "generation": fence.generation})


_READ: Final = "SELECT generation, batch, cursor, exceptions FROM _bulkops_ledger WHERE job = :job"


def read(connection: sqlite3.Connection, job: str) -> Entry | None:
    """Return a job's row, ``None`` when it has none."""
    if not exists(connection):
        return None
    row = connection.execute(_READ, {"job": job}).fetchone()
    if row is None:
        return None
    return Entry(row[0], row[1], row[2], msgspec.json.decode(row[3], type=whole(list[ItemException])))


_BEGIN: Final = """
INSERT INTO _bulkops_ledger (job, tenant, generation, batch, cursor, exceptions)
VALUES (:job, :tenant, :generation, :batch, :cursor, :exceptions)
ON CONFLICT (job) DO UPDATE SET batch = excluded.batch, cursor = excluded.cursor, exceptions = excluded.exceptions
 WHERE generation = excluded.generation AND batch = 0
"""
_ADVANCE: Final = """
UPDATE _bulkops_ledger SET batch = :batch, cursor = :cursor, exceptions = :exceptions
 WHERE job = :job AND generation = :generation AND batch = :batch - 1
"""


def advance(connection: sqlite3.Connection, fence: Fence, exceptions: list[ItemException]) -> None:
    """Account for a batch inside its own transaction; the first one makes the job's row.

    Raises:
        FencedError: the row is not where this batch expects it.
    """
    values = {
        "job": fence.job,
        "generation": fence.generation,
        "batch": fence.batch,
        "cursor": fence.cursor,
        "exceptions": msgspec.json.encode(exceptions).decode(),
    }
    if fence.batch == 1:
        connection.execute(_CREATE)
        changed = connection.execute(_BEGIN, {**values, "tenant": fence.tenant}).rowcount
    else:
        changed = connection.execute(_ADVANCE, values).rowcount
    if changed != 1:
        raise FencedError(
            f"job {fence.job} is not at batch {fence.batch - 1} of generation {fence.generation}"
        )


_ADOPT: Final = """
INSERT INTO _bulkops_ledger (job, tenant, generation, batch, cursor, exceptions)
VALUES (:job, :tenant, :generation, :batch, :cursor, '[]')
ON CONFLICT (job) DO UPDATE SET generation = excluded.generation, batch = excluded.batch, cursor = excluded.cursor,
  exceptions = excluded.exceptions
"""


def adopt(connection: sqlite3.Connection, fence: Fence) -> None:
    """Put the job's row where our account stands: a copy was restored, and somebody has looked at what it brought."""
    connection.execute(_CREATE)
    connection.execute(_ADOPT, msgspec.structs.asdict(fence))


_FORGET: Final = "DELETE FROM _bulkops_ledger WHERE job IN (SELECT value FROM json_each(:jobs))"


def forget(connection: sqlite3.Connection, jobs: list[str]) -> None:
    """Remove the rows of jobs that are forgotten themselves."""
    if exists(connection):
        connection.execute(_FORGET, {"jobs": msgspec.json.encode(jobs).decode()})
