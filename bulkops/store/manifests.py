"""The frozen ids of a job: written once in `preparing`, read in pages from a position.

Ids travel in their native form (integers, else strings) as JSON, some eight bytes an integer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from bulkops.effects import Id, Page
from bulkops.store.transaction import Tx

#: Ids a chunk; a page is put together from whole chunks and cut.
CHUNK: Final = 2000


_INSERT: Final = """
INSERT INTO manifest (job, first, count, low, high, ids, origins)
VALUES (:job, :first, :count, :low, :high, :ids, :origins)
"""


def append(tx: Tx, job_id: str, first: int, ids: list[Id], origins: list[int] | None = None) -> int:
    """Write ids (and where they stood in the job that is undone) from position ``first`` on; return the next."""
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        low, high = _bounds(chunk)
        tx.connection.execute(
            _INSERT,
            {
                "job": job_id,
                "first": first + start,
                "count": len(chunk),
                "low": low,
                "high": high,
                "ids": msgspec.json.encode(chunk).decode(),
                "origins": None
                if origins is None
                else msgspec.json.encode(origins[start : start + CHUNK]).decode(),
            },
        )
    return first + len(ids)


def _bounds(chunk: list[Id]) -> tuple[int | None, int | None]:
    integers = [item for item in chunk if isinstance(item, int)]
    if len(integers) < len(chunk):
        return None, None
    return min(integers), max(integers)


_CLEAR: Final = "DELETE FROM manifest WHERE job = :job"


def clear(tx: Tx, job_id: str) -> None:
    """Forget a manifest that was not finished; freezing starts again."""
    tx.connection.execute(_CLEAR, {"job": job_id})


_PAGE: Final = """
SELECT first, ids, origins FROM manifest
 WHERE job = :job AND first >= coalesce(
         (SELECT max(first) FROM manifest WHERE job = :job AND first <= :position), 0)
 ORDER BY first LIMIT :chunks
"""


def page(connection: sqlite3.Connection, job_id: str, position: int, limit: int) -> Page:
    """Return up to ``limit`` ids from ``position`` on; empty at the end."""
    chunks = 2 + limit // CHUNK
    ids: list[Id] = []
    origins: list[int] = []
    for first, encoded, encoded_origins in connection.execute(
        _PAGE, {"job": job_id, "position": position, "chunks": chunks}
    ).fetchall():
        chunk = msgspec.json.decode(encoded, type=list[Id])
        ids += chunk[max(0, position - first) :]
        if encoded_origins is not None:
            origins += msgspec.json.decode(encoded_origins, type=list[int])[max(0, position - first) :]
    return Page(position, ids[:limit], origins[:limit])


def pages(connection: sqlite3.Connection, job_id: str, *, upto: int | None = None) -> Iterator[Page]:
    """Walk a whole manifest chunk by chunk, up to position ``upto`` (exclusive)."""
    position = 0
    while upto is None or position < upto:
        found = page(connection, job_id, position, CHUNK if upto is None else min(CHUNK, upto - position))
        if not found.ids:
            return
        yield found
        position += len(found.ids)


_COVERING: Final = """
SELECT manifest.first, manifest.ids FROM manifest
 WHERE job = :job AND (low IS NULL OR (low <= :id AND high >= :id)) ORDER BY first
"""


def find(connection: sqlite3.Connection, job_id: str, item: Id) -> int | None:
    """Return the position of an id in a job's manifest, ``None`` when it is not in it."""
    bound = item if isinstance(item, int) else None
    for first, encoded in connection.execute(_COVERING, {"job": job_id, "id": bound}):
        chunk = msgspec.json.decode(encoded, type=list[Id])
        if item in chunk:
            return int(first) + chunk.index(item)
    return None
