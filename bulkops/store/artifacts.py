"""Rows of `artifacts`: the files that jobs make, from the first byte to the end of their time.

::

    building ──complete──▶ ready ──expire──▶ expired
        └──────abandon───▶ failed ───────────▶ expired

What comes in: how far a job's file is, with each batch that is accounted for; what goes out: which file a
caller may have, and which files have no row that wants them. No file is touched here: whoever removes one
commits first that it is not wanted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bulkops.effects import Making, Written
from bulkops.ids import new_id
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339

_COLUMNS: Final = (
    "id, job, tenant, requested_by, resource, kind, name, format, status, bytes, rows, sha256, written, "
    "created_ms, expires_ms"
)


class ArtifactRow(msgspec.Struct, frozen=True):
    """A row of `artifacts`; see schema.sql for what each column means."""

    id: str
    job: str
    tenant: str | None
    requested_by: str
    resource: str
    kind: str
    name: str
    format: str
    status: str
    bytes: int | None
    rows: int | None
    sha256: str | None
    written: int
    created_ms: int
    expires_ms: int


class Owner(msgspec.Struct, frozen=True):
    """Whose job makes a file."""

    job: str
    tenant: str | None
    requested_by: str
    resource: str


class Usage(msgspec.Struct, frozen=True):
    """What a tenant's files take: those that are ready, and what is written of those being made."""

    files: int
    bytes: int


def _from_row(row: Sequence[Any]) -> ArtifactRow:
    return ArtifactRow(*row)


_INSERT: Final = """
INSERT INTO artifacts (id, job, tenant, requested_by, resource, kind, name, format, status, rows, written,
                       created_ms, expires_ms)
VALUES (:id, :job, :tenant, :requested_by, :resource, :kind, :name, :format, 'building', 0, 0, :now, :expires)
"""


def begin(tx: Tx, owner: Owner, making: Making, *, keep_ms: int) -> ArtifactRow:
    """Note that a job makes a file; the file itself comes into being after the commit."""
    artifact_id = new_id()
    name = f"{making.stem}-{artifact_id}.{making.format}"
    values = msgspec.structs.asdict(owner) | {
        "id": artifact_id, "kind": making.kind, "name": name, "format": making.format,
        "now": tx.now_ms, "expires": tx.now_ms + keep_ms,
    }  # fmt: skip
    tx.connection.execute(_INSERT, values)
    made = get(tx.connection, artifact_id)
    assert made is not None
    return made


_ADVANCE: Final = """
UPDATE artifacts SET written = :written, rows = :rows WHERE job = :job AND status = 'building'
"""


def advance(tx: Tx, job: str, written: Written) -> None:
    """Note how far the accounted batches have written a job's file."""
    tx.connection.execute(_ADVANCE, {"job": job, "written": written.position, "rows": written.rows})


_COMPLETE: Final = """
UPDATE artifacts SET status = 'ready', bytes = :bytes, rows = :rows, sha256 = :sha256,
       expires_ms = expires_ms - created_ms + :now
 WHERE job = :job AND status = 'building'
"""


def complete(tx: Tx, job: str, written: Written) -> None:
    """Hand out a job's file, which is whole and on disk; its time begins now."""
    values = {
        "job": job, "bytes": written.bytes, "rows": written.rows, "sha256": written.sha256, "now": tx.now_ms,
    }  # fmt: skip
    tx.connection.execute(_COMPLETE, values)


_ABANDON: Final = "UPDATE artifacts SET status = 'failed' WHERE job = :job AND status = 'building'"


def abandon(tx: Tx, job: str) -> bool:
    """Give up what a job was making; say whether there was anything."""
    return tx.connection.execute(_ABANDON, {"job": job}).rowcount > 0


_SPOIL: Final = "UPDATE artifacts SET status = 'failed' WHERE id = :id AND status = 'ready'"


def spoil(tx: Tx, artifact_id: str) -> None:
    """Withdraw a file that is not what was recorded of it."""
    tx.connection.execute(_SPOIL, {"id": artifact_id})


_EXPIRE: Final = """
UPDATE artifacts SET status = 'expired'
 WHERE id IN (SELECT id FROM artifacts WHERE status <> 'expired' AND expires_ms <= :now AND status <> 'building'
               ORDER BY expires_ms LIMIT :limit)
"""


def expire(tx: Tx, *, now_ms: int, limit: int) -> int:
    """End the time of files that are old; return how many went. What is still being made does not end."""
    return tx.connection.execute(_EXPIRE, {"now": now_ms, "limit": limit}).rowcount


_ANY_OVER: Final = """
SELECT EXISTS (SELECT 1 FROM artifacts
                WHERE status <> 'expired' AND expires_ms <= :now AND status <> 'building')
"""


def any_over(connection: sqlite3.Connection, now_ms: int) -> bool:
    """Say whether `expire` would end anything."""
    return bool(connection.execute(_ANY_OVER, {"now": now_ms}).fetchone()[0])


_FORGET: Final = """
DELETE FROM artifacts
 WHERE id IN (SELECT id FROM artifacts WHERE status = 'expired' AND expires_ms <= :before
               ORDER BY expires_ms LIMIT :limit)
"""


def forget(tx: Tx, *, before_ms: int, limit: int) -> int:
    """Remove what is left of files that expired long ago; return how many went."""
    return tx.connection.execute(_FORGET, {"before": before_ms, "limit": limit}).rowcount


_GET: Final = f"SELECT {_COLUMNS} FROM artifacts WHERE id = :id"


def get(connection: sqlite3.Connection, artifact_id: str) -> ArtifactRow | None:
    """Return a file's row, ``None`` when there is none."""
    row = connection.execute(_GET, {"id": artifact_id}).fetchone()
    return None if row is None else _from_row(row)


_OF_JOB: Final = f"SELECT {_COLUMNS} FROM artifacts WHERE job = :job ORDER BY id"


def of_job(connection: sqlite3.Connection, job: str) -> list[ArtifactRow]:
    """List the files a job made, oldest first; none is the usual answer."""
    return [_from_row(row) for row in connection.execute(_OF_JOB, {"job": job}).fetchall()]


_WANTED: Final = """
SELECT id FROM artifacts
 WHERE id IN (SELECT value FROM json_each(:ids)) AND status IN ('building', 'ready')
"""


def wanted(connection: sqlite3.Connection, ids: Sequence[str]) -> set[str]:
    """Return which of the files shall stay."""
    values = {"ids": msgspec.json.encode(list(ids)).decode()}
    return {row[0] for row in connection.execute(_WANTED, values).fetchall()}


_USAGE: Final = """
SELECT count(*), coalesce(sum(coalesce(bytes, written)), 0) FROM artifacts
 WHERE coalesce(tenant, '') = :tenant AND status IN ('building', 'ready') AND id <> :but
"""


def usage(connection: sqlite3.Connection, tenant: str | None, *, but: str = "") -> Usage:
    """Add up what a tenant's files take, ``but`` one of them."""
    return Usage(*connection.execute(_USAGE, {"tenant": tenant or "", "but": but}).fetchone())


def download_path(artifact_id: str) -> str:
    """Return where a file is had, without a mount prefix."""
    return f"/api/artifacts/{artifact_id}/download"


def told(connection: sqlite3.Connection, job: str) -> list[dict[str, Any]]:
    """Return a job's files as its last event tells them."""
    return [
        {
            "id": row.id, "kind": row.kind, "name": row.name, "format": row.format, "status": row.status,
            "bytes": row.bytes, "rows": row.rows, "sha256": row.sha256, "download_url": download_path(row.id),
            "created_at": rfc3339(row.created_ms), "expires_at": rfc3339(row.expires_ms),
        }
        for row in of_job(connection, job)
    ]  # fmt: skip
