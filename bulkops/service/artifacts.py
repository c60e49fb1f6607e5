"""The files that jobs made, for those who may have them: shown, and handed out while their time lasts.

What comes in: a caller and an id; what goes out: a view, or an open file that is what was recorded of it.
Parts are never handed out; what is unknown, what is somebody else's and what is not whole are refused with the
same words.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import Final

import anyio.to_thread
import msgspec

from bulkops import handles
from bulkops.drafts import Drafts
from bulkops.errors import Refusal
from bulkops.models import ArtifactView, Caller
from bulkops.operations import has_role, may_see
from bulkops.service.views import instant
from bulkops.settings import ServerSettings
from bulkops.store import artifacts
from bulkops.store.artifacts import ArtifactRow
from bulkops.store.audit import append as audit
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

_MB: Final = 1_000_000


class Download(msgspec.Struct, frozen=True):
    """A file to be sent: its row, and the descriptor of the open file, which the taker closes."""

    row: ArtifactRow
    fd: int


class Artifacts:
    """Answers questions about files that jobs made."""

    def __init__(self, store: Store, drafts: Drafts) -> None:
        self._store = store
        self._drafts = drafts

    async def artifact(self, caller: Caller, artifact_id: str) -> ArtifactView:
        """Show a file; one whose time is over is still shown for a while.

        Raises:
            Refusal: ``NOT_FOUND``, ``FORBIDDEN`` without a reading role.
        """
        row = await self._find(caller, artifact_id)
        return view_of(row, self._store.clock.now_ms())

    async def download(self, caller: Caller, artifact_id: str) -> Download:
        """Open a file for sending; who sends it says so before (`taken`).

        Raises:
            Refusal: ``NOT_FOUND`` also while it is being made, ``EXPIRED`` after its time, or when the file is not
                what was recorded of it any more.
        """
        row = await self._find(caller, artifact_id)
        if row.status == "expired" or (
            row.status == "ready" and row.expires_ms <= self._store.clock.now_ms()
        ):
            raise Refusal("EXPIRED", f"this file was kept until {instant(row.expires_ms)}")
        if row.status != "ready":
            raise _unknown()
        fd = await anyio.to_thread.run_sync(self._open, row)
        if fd is None:
            await self._store.write(lambda tx: artifacts.spoil(tx, row.id))
            raise Refusal("EXPIRED", "this file was damaged or removed; start the job again")
        return Download(row, fd)

    async def taken(self, caller: Caller, download: Download) -> None:
        """Note in the audit that a file, or a part of it, goes out."""
        await self._store.write(lambda tx: _note(tx, caller, download.row))

    async def _find(self, caller: Caller, artifact_id: str) -> ArtifactRow:
        if not has_role(caller, "viewer"):
            raise Refusal("FORBIDDEN", "this needs the role viewer")
        row = await self._store.read(lambda connection: artifacts.get(connection, artifact_id))
        if row is None or not may_see(
            caller, tenant=row.tenant, requested_by=row.requested_by, source="user"
        ):
            raise _unknown()
        return row

    def _open(self, row: ArtifactRow) -> int | None:
        """Open a whole file; ``None`` when it is not there, or not as long as was recorded."""
        try:
            fd = os.open(self._drafts.path(row.id), handles.READ)
        except OSError:
            return None
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_size == row.bytes:
            return fd
        os.close(fd)
        return None


def _unknown() -> Refusal:
    return Refusal("NOT_FOUND", "no such artifact")


def _note(tx: Tx, caller: Caller, row: ArtifactRow) -> None:
    audit(
        tx, user=caller.user, tenant=row.tenant, verb="download", job=row.job, resource=row.resource,
        detail={"artifact": row.id, "bytes": row.bytes},
    )  # fmt: skip


def view_of(row: ArtifactRow, now_ms: int) -> ArtifactView:
    """Show a file as clients see it; its time ends on the second, whenever the janitor comes."""
    over = row.status == "ready" and row.expires_ms <= now_ms
    return ArtifactView(
        id=row.id, kind=row.kind, name=row.name, format=row.format,
        status="expired" if over else row.status,
        bytes=row.bytes, rows=row.rows, sha256=row.sha256,
        download_url=artifacts.download_path(row.id),
        created_at=instant(row.created_ms), expires_at=instant(row.expires_ms),
    )  # fmt: skip


def views_of(connection: sqlite3.Connection, job: JobRow, now_ms: int) -> list[ArtifactView]:
    """Show what a job made."""
    return [view_of(row, now_ms) for row in artifacts.of_job(connection, job.id)]


def check_storage(connection: sqlite3.Connection, server: ServerSettings, tenant: str | None) -> None:
    """Refuse one more file where a tenant has as many, or as large ones, as may be kept.

    Raises:
        Refusal: ``STORAGE_FULL``.
    """
    used = artifacts.usage(connection, tenant)
    if used.files >= server.max_artifacts:
        raise Refusal(
            "STORAGE_FULL", f"as many files are kept as may be ({used.files}); wait until some expire"
        )
    if used.bytes >= server.max_artifact_bytes:
        raise Refusal(
            "STORAGE_FULL", f"the files that are kept take {used.bytes // _MB} MB; wait until some expire"
        )
