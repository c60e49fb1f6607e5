"""The audit, as far as a caller may read it.

What comes in: a caller and which part of it; what goes out: a page, newest first.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from bulkops.models import Caller
from bulkops.service.access import require
from bulkops.service.pages import Whole, check_limit, page_from, page_of, read_token
from bulkops.store import audit, listings
from bulkops.store.store import Store


class Audit:
    """Answers who did what."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def audit(
        self,
        caller: Caller,
        *,
        job: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        page: str | None = None,
    ) -> dict[str, Any]:
        """List who did what, newest first; an admin sees the tenant's, one without tenant everybody's.

        Raises:
            Refusal: ``FORBIDDEN`` below admin; ``INVALID_FIELD`` for a bad limit or page.

        """
        require(caller, "admin")
        check_limit(limit)
        before = read_token(page, "audit", tuple[Whole])
        sight = listings.sight_of(caller, tenant)

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            if sight is None:
                return page_of([], None)
            rows = audit.page(
                connection,
                tenant=sight.tenant,
                job=job,
                before=before[0] if before else None,
                limit=limit + 1,
                installation=sight.installation,
            )
            return page_from(rows, limit, "audit", key=lambda row: (row.seq,), view=audit.view)

        return await self._store.read(work)
