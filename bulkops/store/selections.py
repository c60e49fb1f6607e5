"""Uploaded lists of ids: written in chunks as they arrive, read once when a job freezes, gone a day later.

What comes in: ids as clients wrote them, in lists of any length; what goes out: the same ids without
repetitions, in their first order. Whether an id fits a resource is not asked here: a list belongs to none.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.operations import may_see
from bulkops.store.transaction import Tx

#: Ids a chunk, and a transaction.
CHUNK: Final = 2000
TTL_MS: Final = 24 * 3_600_000


class SelectionRow(msgspec.Struct, frozen=True):
    """A row of `selections`."""

    id: str
    tenant: str | None
    requested_by: str
    count: int
    created_ms: int
    expires_ms: int


_BEGIN: Final = """
INSERT INTO selections (id, tenant, requested_by, count, created_ms, expires_ms)
VALUES (:id, :tenant, :requested_by, 0, :now, :expires_ms)
"""


def begin(tx: Tx, selection_id: str, *, tenant: str | None, requested_by: str) -> None:
    """Open an empty selection that lives for a day."""
    tx.connection.execute(
        _BEGIN,
        {
            "id": selection_id,
            "tenant": tenant,
            "requested_by": requested_by,
            "now": tx.now_ms,
            "expires_ms": tx.now_ms + TTL_MS,
        },
    )


_ADD: Final = """
INSERT INTO selection_chunks (selection, first, count, ids)
SELECT id, count, :count, :ids FROM selections WHERE id = :id
"""
_COUNT: Final = "UPDATE selections SET count = count + :count WHERE id = :id"


def add(tx: Tx, selection_id: str, ids: list[str]) -> None:
    """Append one chunk of ids that are not in the selection yet; none is fine."""
    if ids:
        values = {"id": selection_id, "count": len(ids), "ids": msgspec.json.encode(ids).decode()}
        tx.connection.execute(_ADD, values)
        tx.connection.execute(_COUNT, {"id": selection_id, "count": len(ids)})


_BEGIN_UNSEEN: Final = "CREATE TABLE seen (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID"


def begin_unseen(scratch: sqlite3.Connection) -> None:
    """Prepare a scratch database to tell ids that came before."""
    scratch.execute(_BEGIN_UNSEEN)


_NOTE: Final = "INSERT OR IGNORE INTO seen SELECT value FROM json_each(:ids) RETURNING id"


def unseen(scratch: sqlite3.Connection, ids: list[str]) -> list[str]:
    """Return the ids that did not come before, in their order, and remember them."""
    rows = scratch.execute(_NOTE, {"ids": msgspec.json.encode(ids).decode()}).fetchall()
    fresh = {row[0] for row in rows}
    return [each for each in dict.fromkeys(ids) if each in fresh]


_ABANDON: Final = "UPDATE selections SET expires_ms = 0 WHERE id = :id"


def abandon(tx: Tx, selection_id: str) -> None:
    """Give up a selection whose upload did not end; the janitor removes it."""
    tx.connection.execute(_ABANDON, {"id": selection_id})


_GET: Final = "SELECT id, tenant, requested_by, count, created_ms, expires_ms FROM selections WHERE id = :id"


def get(connection: sqlite3.Connection, selection_id: str) -> SelectionRow | None:
    """Return a selection, ``None`` when there is none of that id."""
    row = connection.execute(_GET, {"id": selection_id}).fetchone()
    return None if row is None else SelectionRow(*row)


def take(connection: sqlite3.Connection, selection_id: str, caller: Caller, *, now_ms: int) -> SelectionRow:
    """Return a selection that the caller may use.

    Raises:
        Refusal: ``NOT_FOUND`` when it is unknown or not the caller's to see, ``EXPIRED`` when its day is over.

    """
    row = get(connection, selection_id)
    if row is None or not may_see(caller, tenant=row.tenant, requested_by=row.requested_by, source="user"):
        raise _refusal("NOT_FOUND", "no such selection")
    if row.expires_ms <= now_ms:
        raise _refusal("EXPIRED", "the selection has expired, upload it again")
    return row


def _refusal(code: str, detail: str) -> Refusal:
    pointer = "/selection_id"
    return Refusal(code, f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


_CHUNK: Final = "SELECT ids FROM selection_chunks WHERE selection = :id AND first = :first"


def chunk_at(connection: sqlite3.Connection, selection_id: str, first: int) -> list[str]:
    """Return the chunk that begins at place ``first`` (0, then 0 + its length, …), empty at the end."""
    row = connection.execute(_CHUNK, {"id": selection_id, "first": first}).fetchone()
    return [] if row is None else msgspec.json.decode(row[0], type=list[str])
