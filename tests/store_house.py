"""A real store in a folder of the test's own, and jobs in it as they would stand at any moment of their life."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bulkops.effects import Id, Image, ItemException
from bulkops.ids import new_id
from bulkops.models import Caller
from bulkops.states import Source, Status
from bulkops.store import claims, credentials, exceptions, jobs, manifests, selections, trash
from bulkops.store.instance import InstanceLock
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.store import Store, open_store
from bulkops.store.transaction import Tx
from bulkops.timing import Clock

DAY_MS = 24 * 3_600_000
START_MS = 1_767_225_600_000


@asynccontextmanager
async def opened_store(folder: Path, clock: Clock) -> AsyncIterator[Store]:
    """Open a newborn store; closed at the end of the block."""
    lock = InstanceLock(folder)
    store = await open_store(folder / "bulkops.db", folder, clock, lock)
    try:
        yield store
    finally:
        await store.close()
        lock.release()


def a_caller(user: str = "ana", role: str = "admin", tenant: str | None = None) -> Caller:
    """Make a caller with one role."""
    return Caller(user=user, tenant=tenant, roles=frozenset({role}))


OWNER = a_caller("root", "owner")


def a_job(
    status: str = "completed",
    *,
    user: str = "ana",
    tenant: str | None = None,
    source: str = "user",
    at_ms: int = START_MS,
    **fields: Any,
) -> JobRow:
    """Make a job of three items that stands as its status says; ``fields`` are other columns."""
    terminal = status in {"completed", "failed", "cancelled"}
    fields.setdefault("total", None if status in {"preparing", "scheduled"} else 3)
    if status == "completed":
        fields.setdefault("cursor", fields["total"])
        fields.setdefault("outcome", "ok")
    if "succeeded" not in fields and {"failed", "skipped"}.isdisjoint(fields):
        fields["succeeded"] = fields.get("cursor", 0)
    values: dict[str, Any] = {
        "id": new_id(),
        "resource": "receipts",
        "action": "delete",
        "priority": 100,
        "selection": Selection(kind="all"),
        "options": {},
        "knobs": Knobs(),
        "identity": "-",
        "queued_ms": at_ms,
        "created_ms": at_ms,
        "updated_ms": at_ms,
        "finished_ms": at_ms if terminal else None,
        "frozen": fields["total"] is not None,
    }
    return JobRow(
        **(
            values
            | {"status": Status(status), "source": Source(source), "requested_by": user, "tenant": tenant}
            | fields
        )
    )


def put(tx: Tx, job: JobRow, ids: list[Id] | None = None, passed: list[ItemException] | None = None) -> None:
    """Write a job with its manifest and exceptions."""
    jobs.insert(tx, job)
    if ids:
        manifests.append(tx, job.id, 0, ids)
    if passed:
        exceptions.record(tx, job.id, passed)


async def stored(
    store: Store, job: JobRow, ids: list[Id] | None = None, passed: list[ItemException] | None = None
) -> JobRow:
    """Write a job with its manifest and exceptions in one transaction; return it."""
    await store.write(lambda tx: put(tx, job, ids, passed))
    return job


def take(tx: Tx, job: JobRow, labels: list[str], *, first: int = 0, listed: bool = True) -> None:
    """Put before-images of a job into the trash, one a label."""
    images = [
        Image(first + place, f"id-{label}", label, listed, b"image") for place, label in enumerate(labels)
    ]
    trash.write_tentative(tx, job.id, images, resource=job.resource, tenant=job.tenant)
    trash.settle(tx, job.id, first, len(labels), untouched=[])


async def current(store: Store, job: JobRow) -> JobRow:
    """Return a job as its row is now."""
    found = await store.read(lambda connection: jobs.get(connection, job.id))
    assert found is not None
    return found


async def claim(store: Store, *, preparing: bool = False, worker: int = 1) -> JobRow | None:
    """Take the first job in line, as a worker would."""
    return await store.write(lambda tx: claims.claim(tx, worker=worker, preparing=preparing))


def ids_of(connection: sqlite3.Connection, selection: str) -> list[str]:
    """Return all ids of an uploaded selection."""
    found: list[str] = []
    while ids := selections.chunk_at(connection, selection, len(found)):
        found += ids
    return found


async def a_key(store: Store, **fields: Any) -> tuple[str, str]:
    """Make an API key, one of Ana's unless told otherwise; return its id and its secret."""
    wanted = {"user": "ana", "tenant": "acme", "role": "operator", **fields}
    row, secret = await store.write(lambda tx: credentials.create_key(tx, **wanted))
    return row.id, secret
