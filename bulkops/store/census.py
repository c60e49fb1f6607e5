"""How much there is: counts over our tables for metrics, without anybody's name in them."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from bulkops.store import claims, deletions, deliveries, events


class Census(msgspec.Struct, frozen=True):
    """Counts of one instant, over all tenants."""

    jobs: dict[str, int]
    items: dict[str, int]
    waiting: int
    deletions: dict[str, int]
    letters: dict[str, int]
    head: int
    floor: int


# A scan of the jobs on record (90 days of them): an index over counters would cost each batch a write.
_JOBS: Final = """
SELECT status, count(*), sum(succeeded), sum(failed), sum(skipped) FROM jobs GROUP BY status
"""


def take(connection: sqlite3.Connection) -> Census:
    """Count jobs by status, their items by outcome, the line, the queues and the event log's ends."""
    rows = connection.execute(_JOBS).fetchall()
    log = events.state(connection)
    queue = deletions.stats(connection)
    return Census(
        jobs={row[0]: row[1] for row in rows},
        items={
            outcome: sum(row[place] for row in rows)
            for place, outcome in enumerate(("succeeded", "failed", "skipped"), start=2)
        },
        waiting=claims.line_length(connection),
        deletions={"pending": queue.pending, "retrying": queue.retrying, "dead": queue.dead},
        letters=deliveries.stats(connection),
        head=log.head,
        floor=log.floor,
    )
