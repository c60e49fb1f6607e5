"""Before-images of what jobs took or changed: what makes undo possible.

Images are tentative until the batch they belong to is accounted for; images of items that turned out
untouched are dropped with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from bulkops.effects import Image
from bulkops.store.transaction import Tx

_INSERT: Final = """
INSERT INTO trash (job, position, item, label, resource, tenant, kept, listed, image, created_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job, position) DO UPDATE SET image = excluded.image, label = excluded.label, kept = excluded.kept
"""


def write_tentative(
    tx: Tx, job_id: str, images: Sequence[Image], *, resource: str, tenant: str | None
) -> None:
    """Write the images of an announced batch."""
    _write(tx, job_id, images, resource, tenant, kept=0)


def write_kept(tx: Tx, job_id: str, images: Sequence[Image], *, resource: str, tenant: str | None) -> None:
    """Write the images of a batch that is accounted for in this transaction."""
    _write(tx, job_id, images, resource, tenant, kept=1)


def _write(
    tx: Tx, job_id: str, images: Sequence[Image], resource: str, tenant: str | None, *, kept: int
) -> None:
    tx.connection.executemany(
        _INSERT,
        [
            (
                job_id,
                each.position,
                each.item,
                each.label,
                resource,
                tenant,
                kept,
                int(each.listed),
                each.image,
                tx.now_ms,
            )
            for each in images
        ],
    )


_DROP: Final = """
DELETE FROM trash WHERE job = :job AND position IN (SELECT value FROM json_each(:positions))
"""
_KEEP: Final = """
UPDATE trash SET kept = 1 WHERE job = :job AND position >= :first AND position < :last AND kept = 0
"""
_DROP_RANGE: Final = """
DELETE FROM trash WHERE job = :job AND position >= :first AND position < :last
"""


def settle(tx: Tx, job_id: str, first: int, count: int, *, untouched: Sequence[int]) -> None:
    """Keep the images of a batch that is accounted for, but for the items it did not touch."""
    if untouched:
        drop(tx, job_id, untouched)
    tx.connection.execute(_KEEP, {"job": job_id, "first": first, "last": first + count})


def drop(tx: Tx, job_id: str, positions: Sequence[int]) -> None:
    """Forget the images at these positions: put back, or never taken."""
    tx.connection.execute(_DROP, {"job": job_id, "positions": msgspec.json.encode(list(positions)).decode()})


def withdraw(tx: Tx, job_id: str, first: int, count: int) -> None:
    """Forget the images of an announced batch that did not happen."""
    tx.connection.execute(_DROP_RANGE, {"job": job_id, "first": first, "last": first + count})


_KEPT_AMONG: Final = """
SELECT position FROM trash
 WHERE job = :job AND kept = 1 AND position IN (SELECT value FROM json_each(:positions))
"""


def kept_among(connection: sqlite3.Connection, job_id: str, positions: Sequence[int]) -> list[int]:
    """Return those of the positions at which an image is kept."""
    values = {"job": job_id, "positions": msgspec.json.encode(list(positions)).decode()}
    return [position for (position,) in connection.execute(_KEPT_AMONG, values)]


_READ: Final = """
SELECT position, item, label, listed, image FROM trash
 WHERE job = :job AND kept = 1 AND position IN (SELECT value FROM json_each(:positions))
"""


def images(connection: sqlite3.Connection, job_id: str, positions: Sequence[int]) -> dict[int, Image]:
    """Return the kept images at these positions; a position without one is left out."""
    rows = connection.execute(
        _READ, {"job": job_id, "positions": msgspec.json.encode(list(positions)).decode()}
    )
    return {row[0]: Image(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows}
