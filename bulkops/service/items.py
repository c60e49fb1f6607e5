"""What became of items beyond any one job: those in the trash, and what jobs did with one.

What comes in: a caller and a question; what goes out: pages. Jobs are looked into one by one, a few in one
transaction, so that no search holds the reader for long.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from bulkops.models import Caller, Touch
from bulkops.service.access import require
from bulkops.service.pages import MAX_EMPTY, Whole, check_limit, page_of, read_token, write_token
from bulkops.service.views import touch_view, trash_view
from bulkops.store import listings, outcomes
from bulkops.store.listings import JobFilter, TrashPlace, TrashRow
from bulkops.store.store import Store

#: Jobs that one history page looks into, and how many of them in one transaction.
_MAX_LOOKED_INTO: Final = 200
_LOOKED_INTO_AT_ONCE: Final = 10


class Items:
    """Answers questions about items; made once, shared by all doors."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def trash(
        self,
        caller: Caller,
        *,
        q: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List what is in the trash and the caller's to see, newest first; ``q`` is part of a label or id.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad limit or page.

        """
        require(caller, "viewer")
        check_limit(limit)
        key = read_token(page, "trash", tuple[Whole, str, Whole])
        place = TrashPlace(*key) if key else None
        rows: list[TrashRow] = []
        for _ in range(MAX_EMPTY):
            place, rows = await self._trash_page(caller, tenant, q, place, limit)
            if rows or place is None:
                break
        return page_of([trash_view(row) for row in rows], _trash_token(place))

    async def _trash_page(
        self, caller: Caller, tenant: str | None, q: str | None, place: TrashPlace | None, limit: int
    ) -> tuple[TrashPlace | None, list[TrashRow]]:
        def work(connection: sqlite3.Connection) -> listings.TrashPage:
            return listings.newest_trash(connection, caller, tenant=tenant, q=q, place=place, limit=limit + 1)

        found = await self._store.read(work)
        if len(found.rows) <= limit:
            return found.following, found.rows
        last = found.rows[limit - 1]
        return TrashPlace(last.created_ms, last.job, last.position), found.rows[:limit]

    async def history(
        self,
        caller: Caller,
        resource: str,
        item: str,
        *,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List what jobs did with one item, the newest job first; whether it exists is not asked here.

        A page may have few items, or none, and still name the next: jobs are looked into one by one.

        Raises:
            Refusal: ``FORBIDDEN`` without a reading role; ``INVALID_FIELD`` for a bad limit or page.

        """
        require(caller, "viewer")
        check_limit(limit)
        key = read_token(page, "history", tuple[str])
        before = key[0] if key else None
        found: list[Touch] = []
        for _ in range(_MAX_LOOKED_INTO // _LOOKED_INTO_AT_ONCE):
            touches, before = await self._look_into(caller, tenant, resource, item, before)
            found += touches
            if before is None or len(found) >= limit:
                break
        if len(found) > limit:
            found = found[:limit]
            before = found[-1].job
        return page_of(found, None if before is None else write_token("history", before))

    async def _look_into(
        self, caller: Caller, tenant: str | None, resource: str, item: str, before: str | None
    ) -> tuple[list[Touch], str | None]:
        """Look into some jobs; return what they did, and the last one's id when there may be more."""
        sight = listings.sight_of(caller, tenant)
        wanted = JobFilter(resource=resource, maintenance=True)

        def work(connection: sqlite3.Connection) -> tuple[list[Touch], str | None]:
            if sight is None:
                return [], None
            rows = listings.newest_jobs(connection, sight, wanted, before=before, limit=_LOOKED_INTO_AT_ONCE)
            results = ((row, outcomes.of_item(connection, row, item)) for row in rows)
            touches = [touch_view(row, result) for row, result in results if result is not None]
            return touches, rows[-1].id if len(rows) == _LOOKED_INTO_AT_ONCE else None

        return await self._store.read(work)


def _trash_token(place: TrashPlace | None) -> str | None:
    return None if place is None else write_token("trash", place.created_ms, place.job, place.position)
