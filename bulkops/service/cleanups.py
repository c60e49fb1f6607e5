"""The file deletion queue as people see and steer it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bulkops.cleaner import Cleaner, printable
from bulkops.errors import Refusal, invalid_field
from bulkops.models import Caller
from bulkops.service.access import require
from bulkops.service.pages import Whole, check_limit, page_from, read_token
from bulkops.store import deletions
from bulkops.store.audit import append as audit
from bulkops.store.deletions import DeletionRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339

_RUN_S: Final = 10.0
_MAX_BATCH: Final = 1000
_MAX_ATTEMPTS: Final = 100


class Cleanups:
    """Runs and shows the queue; a caller with a tenant has to do with the tenant's files only."""

    def __init__(self, store: Store, cleaner: Cleaner) -> None:
        self._store = store
        self._cleaner = cleaner

    async def cleanup_run(self, caller: Caller, *, batch_size: int, max_attempts: int) -> dict[str, Any]:
        """Work one batch of the queue now, for ten seconds at most.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, 422 naming the parameter.
        """
        require(caller, "admin")
        for name, value, highest in (
            ("batch_size", batch_size, _MAX_BATCH),
            ("max_attempts", max_attempts, _MAX_ATTEMPTS),
        ):
            if not 1 <= value <= highest:
                raise invalid_field(f"/{name}", f"a number from 1 to {highest} is needed")
        result = await self._cleaner.run_once(
            batch_size, max_attempts, deadline_s=_RUN_S, tenant=caller.tenant
        )
        return msgspec.structs.asdict(result)

    async def cleanup_stats(self, caller: Caller) -> dict[str, Any]:
        """Sum the queue up.

        Raises:
            Refusal: ``FORBIDDEN`` below admin.
        """
        require(caller, "admin")
        stats = await self._store.read(lambda connection: deletions.stats(connection, tenant=caller.tenant))
        return {
            "pending": stats.pending,
            "retrying": stats.retrying,
            "dead": stats.dead,
            "bytes": stats.bytes,
            "oldest_at": rfc3339(stats.oldest_ms),
        }

    async def cleanup_items(self, caller: Caller, *, limit: int, page: str | None) -> dict[str, Any]:
        """List the entries that are open or ended badly.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, 422 naming the parameter.
        """
        require(caller, "admin")
        check_limit(limit)
        place = read_token(page, "cleanup", tuple[Whole])
        after = place[0] if place else 0
        rows = await self._store.read(
            lambda connection: deletions.page(
                connection, state=None, tenant=caller.tenant, after=after, limit=limit + 1
            )
        )
        return page_from(rows, limit, "cleanup", key=lambda row: (row.id,), view=_view)

    async def cleanup_requeue(self, caller: Caller, entry: int) -> dict[str, Any]:
        """Put an entry that ended badly, or waits for its next try, in line now.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND`` when there is none such.
        """
        require(caller, "admin")

        def work(tx: Tx) -> None:
            if not deletions.requeue(tx, entry, tenant=caller.tenant):
                raise Refusal("NOT_FOUND", "no such entry, or nothing to try again")
            audit(tx, user=caller.user, tenant=caller.tenant, verb="cleanup_requeue", detail={"entry": entry})

        await self._store.write(work)
        return {"id": entry, "state": "queued"}

    async def cleanup_drop(self, caller: Caller, entry: int) -> None:
        """Forget an entry; its file stays where it is.

        Raises:
            Refusal: ``FORBIDDEN`` below admin, ``NOT_FOUND`` when there is none such.
        """
        require(caller, "admin")

        def work(tx: Tx) -> None:
            if not deletions.drop(tx, entry, tenant=caller.tenant):
                raise Refusal("NOT_FOUND", "no such entry, or it is being worked on")
            audit(tx, user=caller.user, tenant=caller.tenant, verb="cleanup_drop", detail={"entry": entry})

        await self._store.write(work)


def _view(row: DeletionRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "job": row.job,
        "resource": row.resource,
        "tenant": row.tenant,
        "storage": row.storage,
        "path": printable(row.path),
        "bytes": None if row.identity is None else row.identity[2],
        "state": row.state,
        "attempts": row.attempts,
        "error": row.error,
        "not_before": rfc3339(row.not_before_ms or None),
        "created_at": rfc3339(row.created_ms),
    }
