"""Items that did not succeed. What a job's cursor has passed and has no row here succeeded.

Rows ahead of the cursor are known beforehand (ineligible when the manifest was frozen); they count once
their batch does.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from bulkops.effects import ItemException
from bulkops.store.transaction import Tx

_INSERT: Final = """
INSERT INTO exceptions (job, position, item, outcome, code, message)
VALUES (:job, :position, :item, :outcome, :code, :message)
ON CONFLICT (job, position) DO UPDATE SET outcome = excluded.outcome, code = excluded.code, message = excluded.message
"""


def record(tx: Tx, job_id: str, exceptions: list[ItemException]) -> None:
    """Write exceptions; the same batch written twice leaves one row an item."""
    tx.connection.executemany(
        _INSERT, [{"job": job_id, **msgspec.structs.asdict(each)} for each in exceptions]
    )


_RANGE: Final = """
SELECT position, item, outcome, code, message FROM exceptions
 WHERE job = :job AND position >= :first AND position < :last ORDER BY position
"""


def within(connection: sqlite3.Connection, job_id: str, first: int, count: int) -> list[ItemException]:
    """List the exceptions at positions ``first`` … ``first + count - 1``."""
    rows = connection.execute(_RANGE, {"job": job_id, "first": first, "last": first + count})
    return [ItemException(*row) for row in rows]


_CLEAR: Final = "DELETE FROM exceptions WHERE job = :job"


def clear(tx: Tx, job_id: str) -> None:
    """Forget all exceptions of a job whose freezing starts again."""
    tx.connection.execute(_CLEAR, {"job": job_id})


_FAILED: Final = """
SELECT position, item, outcome, code, message FROM exceptions
 WHERE job = :job AND position > :after AND outcome = 'failed'
   AND (:codes IS NULL OR code IN (SELECT value FROM json_each(:codes)))
 ORDER BY position LIMIT :limit
"""


def failed_after(
    connection: sqlite3.Connection, job_id: str, codes: list[str] | None, after: int, limit: int
) -> list[ItemException]:
    """List failed items behind position ``after``, only those with the wanted codes when there are any."""
    wanted = None if codes is None else msgspec.json.encode(codes).decode()
    rows = connection.execute(_FAILED, {"job": job_id, "after": after, "codes": wanted, "limit": limit})
    return [ItemException(*row) for row in rows]
