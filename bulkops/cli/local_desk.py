"""The desk in this process, for when no server runs: the service itself, asked from ordinary code.

The instance lock is held while the desk is open. Nothing is run here but what is asked: no worker starts.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bulkops.errors import Refusal
from bulkops.models import JobsQuery, KeyBody
from bulkops.runtime import Offline, open_offline
from bulkops.service.artifacts import Download
from bulkops.settings import Settings
from bulkops.shapes import whole
from bulkops.store import audit, credentials
from bulkops.store.credentials import CredentialRow
from bulkops.store.transaction import Tx
from bulkops.web.people import check_key, key_view

_CHUNK: Final = 1 << 18


class LocalDesk:
    """Offers what `Desk` says; made by `open_local_desk`."""

    def __init__(self, portal: BlockingPortal, offline: Offline) -> None:
        self._portal = portal
        self._offline = offline

    def jobs(self, params: dict[str, Any]) -> dict[str, Any]:
        query = msgspec.convert(params, whole(JobsQuery), strict=False)
        return self._built(self._portal.call(self._offline.service.jobs, self._offline.caller, query))

    def job(self, job: str) -> dict[str, Any]:
        return self._built(self._portal.call(self._offline.service.job, self._offline.caller, job))

    def job_errors(self, job: str) -> list[dict[str, Any]]:
        answer = self._portal.call(self._offline.service.job_errors, self._offline.caller, job)
        found: list[dict[str, Any]] = self._built(answer)["items"]
        return found

    def report(self, job: str, *, form: str, outcome: str | None) -> Iterator[bytes]:
        async def begin() -> AsyncIterator[bytes]:
            return await self._offline.service.report(self._offline.caller, job, format=form, outcome=outcome)

        chunks = self._portal.call(begin)
        while True:
            try:
                yield self._portal.call(chunks.__anext__)
            except StopAsyncIteration:
                return

    def artifact(self, artifact: str) -> dict[str, Any]:
        return self._built(self._portal.call(self._offline.service.artifact, self._offline.caller, artifact))

    def download(self, artifact: str) -> Iterator[bytes]:
        async def begin() -> Download:
            offline = self._offline
            found = await offline.service.download(offline.caller, artifact)
            try:
                await offline.service.taken(offline.caller, found)
            except BaseException:
                os.close(found.fd)
                raise
            return found

        with os.fdopen(self._portal.call(begin).fd, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def keys(self) -> list[dict[str, Any]]:
        def read(connection: Any) -> list[CredentialRow]:
            return credentials.list_keys(connection, tenant=None, limit=1000)

        rows = self._portal.call(self._offline.store.read, read)
        return [msgspec.to_builtins(key_view(row)) for row in rows]

    def create_key(self, body: dict[str, Any]) -> dict[str, Any]:
        wish = msgspec.convert(body, whole(KeyBody))
        role = check_key(self._offline.caller, wish)

        def work(tx: Tx) -> tuple[CredentialRow, str]:
            row, secret = credentials.create_key(
                tx, user=wish.user, role=role, tenant=wish.tenant, name=wish.name, ttl_s=wish.ttl_s
            )
            self._note(tx, "key_created", {"key": row.id, "role": role}, tenant=wish.tenant)
            return row, secret

        row, secret = self._portal.call(self._offline.store.write, work)
        return {**msgspec.to_builtins(key_view(row)), "key": secret}

    def revoke_key(self, key: str) -> None:
        def work(tx: Tx) -> None:
            row = credentials.get(tx.connection, key)
            if row is None or row.kind != "key" or row.id == credentials.LOCAL:
                raise Refusal("NOT_FOUND", "there is no such key")
            ended = credentials.revoke(tx, key)
            if ended:
                self._note(tx, "key_revoked", {"key": key, "ended": len(ended)}, tenant=row.tenant)

        self._portal.call(self._offline.store.write, work)

    def cleanup(self, *, batch_size: int, max_attempts: int) -> dict[str, Any]:
        async def run() -> dict[str, Any]:
            return await self._offline.service.cleanup_run(
                self._offline.caller, batch_size=batch_size, max_attempts=max_attempts
            )

        return self._built(self._portal.call(run))

    def cleanup_stats(self) -> dict[str, Any]:
        return self._built(self._portal.call(self._offline.service.cleanup_stats, self._offline.caller))

    def cleanup_items(self, *, limit: int, page: str | None) -> dict[str, Any]:
        ask = partial(self._offline.service.cleanup_items, self._offline.caller, limit=limit, page=page)
        return self._built(self._portal.call(ask))

    def cleanup_requeue(self, entry: int) -> None:
        self._portal.call(self._offline.service.cleanup_requeue, self._offline.caller, entry)

    def cleanup_drop(self, entry: int) -> None:
        self._portal.call(self._offline.service.cleanup_drop, self._offline.caller, entry)

    def trash(self, params: dict[str, Any]) -> dict[str, Any]:
        ask = partial(self._offline.service.trash, self._offline.caller, **params)
        return self._built(self._portal.call(ask))

    def audit(self, params: dict[str, Any]) -> dict[str, Any]:
        ask = partial(self._offline.service.audit, self._offline.caller, **params)
        return self._built(self._portal.call(ask))

    def _note(self, tx: Tx, verb: str, detail: dict[str, Any], *, tenant: str | None) -> None:
        audit.append(tx, user=self._offline.caller.user, tenant=tenant, verb=verb, detail=detail)

    @staticmethod
    def _built(answer: Any) -> dict[str, Any]:
        """Turn structs into what JSON would have been."""
        built: dict[str, Any] = msgspec.to_builtins(answer)
        return built


@contextmanager
def open_local_desk(settings: Settings) -> Iterator[LocalDesk]:
    """Take the instance lock and open the service for asking.

    Raises:
        StartRefused: another instance holds the lock, or the database is not fit.

    """
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(open_offline(settings)) as offline,
    ):
        yield LocalDesk(portal, offline)
