"""The file of one job while a worker has the job: written behind each batch, whole behind the last.

What comes in: a job, its batches and the items of a batch that was applied; what goes out: how far the file
is, on disk, for the transaction that accounts for the batch. A part of a file is never handed out, and what
no accounted batch wrote is cut off before the next one writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import anyio.to_thread

from bulkops.drafts import Draft, Drafts, trouble
from bulkops.effects import CutShort, ItemException, Making, Todo, Written
from bulkops.errors import Halt, JobFailed
from bulkops.resources.contract import Batches, MakesFiles, Resource, Writing
from bulkops.store import artifacts
from bulkops.store.artifacts import ArtifactRow, Owner
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

_HOUR_MS: Final = 3_600_000
#: How long an export stays where its action says nothing.
_EXPORT_H: Final = 24.0
_AT_ONCE: Final = 200


def making_of(resource: Resource, action: str, options: dict[str, Any]) -> Making | None:
    """Say what file an action makes, ``None`` when it makes none."""
    return resource.making(action, options) if isinstance(resource, MakesFiles) else None


class Drafting:
    """A job's file in one slice."""

    def __init__(
        self, draft: Draft, writing: Writing, written: Written, check_room: Callable[[int], Awaitable[None]]
    ) -> None:
        self._draft = draft
        self._writing = writing
        self._check_room = check_room
        #: How far the file is on disk; goes into the account of the batch that was written last.
        self.written = written

    async def write(self, todo: Todo) -> tuple[list[ItemException], int | None]:
        """Write the records of a batch that was applied, and put them on disk.

        Returns who could not be written, and the position before which it was cut short, ``None`` for a whole one.

        Raises:
            Halt: the disk does not let us, or the file becomes more than its tenant may keep.
        """
        until: int | None = None
        try:
            failed = await self._writing.write(self._draft, todo) if todo.ids else []
        except CutShort as cut:
            failed, until = cut.failed, cut.until
        except OSError as error:
            raise trouble(error) from error
        written = await anyio.to_thread.run_sync(self._draft.keep)
        await self._check_room(written.position)
        self.written = written
        return failed, until

    async def finish(self) -> None:
        """Make the file whole, unless it is.

        Raises:
            Halt: the disk does not let us.
        """
        if self.written.sha256 is not None:
            return
        try:
            await self._writing.close(self._draft)
        except OSError as error:
            raise trouble(error) from error
        self.written = await anyio.to_thread.run_sync(self._draft.finish, self.written)


async def open_drafting(
    store: Store, drafts: Drafts, job: JobRow, resource: Resource, batches: Batches
) -> Drafting | None:
    """Open the file that a job makes, as its accounted batches left it; ``None`` when it makes none.

    Raises:
        Halt: the disk does not let us.
        JobFailed: what the job wrote before is gone, or (``STORAGE_FULL``) its tenant keeps enough files.
    """
    making = None if job.kind == "undo" else making_of(resource, job.action, job.options)
    if making is None:
        return None
    keep_ms = _keep_ms(resource, job, making, drafts)
    row = await store.read(lambda connection: _unfinished(connection, job))
    if row is None:
        row = await store.write(lambda tx: _begin(tx, job, making, drafts, keep_ms))
    written = Written(position=row.written, rows=row.rows or 0)
    take = partial(drafts.open, job.id, row.id, written.position, written.rows)
    check_room = partial(_check_room, store, drafts, job.tenant, row.id)
    return Drafting(await anyio.to_thread.run_sync(take), cast("Writing", batches), written, check_room)


async def _check_room(
    store: Store, drafts: Drafts, tenant: str | None, artifact_id: str, position: int
) -> None:
    """Refuse to let a file grow beyond what its tenant may keep.

    Raises:
        Halt: (``DISK_FULL``) it would; it goes on once others have expired.
    """
    used = await store.read(lambda connection: artifacts.usage(connection, tenant, but=artifact_id))
    if used.bytes + position > drafts.max_bytes:
        most = drafts.max_bytes // 1_000_000
        raise Halt("DISK_FULL", f"the files that are kept may take {most} MB; once some have expired, resume")


def _keep_ms(resource: Resource, job: JobRow, making: Making, drafts: Drafts) -> int:
    hours = resource.action_settings(job.action).expires_h
    if hours is None:
        hours = drafts.archive_h if making.kind == "archive" else _EXPORT_H
    return int(hours * _HOUR_MS)


def _unfinished(connection: sqlite3.Connection, job: JobRow) -> ArtifactRow | None:
    rows = [row for row in artifacts.of_job(connection, job.id) if row.status == "building"]
    if not rows and job.cursor:
        raise JobFailed("EXPIRED", "what this job wrote was removed when it ended; start the job again")
    return rows[0] if rows else None


def _begin(tx: Tx, job: JobRow, making: Making, drafts: Drafts, keep_ms: int) -> ArtifactRow:
    # Asked again, in the transaction that takes the room: many may have been accepted while there was some.
    used = artifacts.usage(tx.connection, job.tenant)
    if used.files >= drafts.max_files or used.bytes >= drafts.max_bytes:
        raise JobFailed("STORAGE_FULL", "as many files are kept as may be; wait until some expire")
    owner = Owner(job.id, job.tenant, job.requested_by, job.resource)
    return artifacts.begin(tx, owner, making, keep_ms=keep_ms)


async def sweep(store: Store, drafts: Drafts) -> int:
    """Remove every file that no row wants; return how many went.

    A row is there before its file, so what is listed first and has no row now is wanted by nobody.
    """
    ids = await anyio.to_thread.run_sync(drafts.listed)
    wanted = await store.read(lambda connection: artifacts.wanted(connection, ids))
    left = [artifact_id for artifact_id in ids if artifact_id not in wanted]
    for artifact_id in left:
        await anyio.to_thread.run_sync(drafts.remove, artifact_id)
    return len(left)


def without(todo: Todo, exceptions: list[ItemException]) -> Todo:
    """Return the items of a batch that are not among its exceptions."""
    odd = {each.position for each in exceptions}
    if not odd:
        return todo
    left = [index for index, position in enumerate(todo.positions) if position not in odd]
    return Todo([todo.positions[index] for index in left], [todo.ids[index] for index in left])


class Shelf:
    """What a janitor does about files that jobs made: ``now_ms`` tells the time that never leaps ahead."""

    def __init__(self, store: Store, drafts: Drafts, now_ms: Callable[[], int], *, keep_ms: int) -> None:
        self._store = store
        self._drafts = drafts
        self._now_ms = now_ms
        #: How long the row of an expired file tells what it was.
        self._keep_ms = keep_ms

    async def due(self) -> bool:
        """Say whether the time of any file is over."""
        now_ms = self._now_ms()
        return await self._store.read(lambda connection: artifacts.any_over(connection, now_ms))

    async def clear(self, stop: Callable[[], bool]) -> int:
        """End the time of old files, then remove them; return how many rows were ended or forgotten."""
        now_ms, removed = self._now_ms(), 0
        steps: list[Callable[[Tx], int]] = [
            lambda tx: artifacts.expire(tx, now_ms=now_ms, limit=_AT_ONCE),
            lambda tx: artifacts.forget(tx, before_ms=now_ms - self._keep_ms, limit=_AT_ONCE),
        ]
        for step in steps:
            while not stop() and (count := await self._store.write(step)):
                removed += count
        await sweep(self._store, self._drafts)
        return removed
