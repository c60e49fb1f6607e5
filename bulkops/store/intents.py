"""The batch a job has announced and not yet accounted for; at most one a job.

It is durable before the effect it announces, so that a crash in between can be told from one after.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from bulkops.store.transaction import Tx


class Intent(msgspec.Struct, frozen=True):
    """Batch ``batch`` of a job covers positions ``first`` … ``first + count - 1``; ``data`` is the resource's."""

    batch: int
    first: int
    count: int
    data: bytes


_WRITE: Final = """
INSERT INTO intents (job, batch, first, count, data) VALUES (:job, :batch, :first, :count, :data)
ON CONFLICT (job) DO UPDATE SET batch = excluded.batch, first = excluded.first, count = excluded.count,
  data = excluded.data
"""


def write(tx: Tx, job_id: str, intent: Intent) -> None:
    """Announce a batch, replacing one that was withdrawn."""
    tx.connection.execute(_WRITE, {"job": job_id, **msgspec.structs.asdict(intent)})


_READ: Final = "SELECT batch, first, count, data FROM intents WHERE job = :job"


def read(connection: sqlite3.Connection, job_id: str) -> Intent | None:
    """Return the open intent of a job, ``None`` when its last batch is accounted for."""
    row = connection.execute(_READ, {"job": job_id}).fetchone()
    return None if row is None else Intent(*row)


_CLOSE: Final = "DELETE FROM intents WHERE job = :job"


def close(tx: Tx, job_id: str) -> None:
    """Forget the open intent: its batch is accounted for, or nothing of it was done."""
    tx.connection.execute(_CLOSE, {"job": job_id})
