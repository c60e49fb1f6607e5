"""A small house for the tests of the live wire: the real store, hub, feed, credentials and server, no jobs run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.routing import Router

from bulkops.feed import Feed
from bulkops.hub import Hub
from bulkops.ids import new_id
from bulkops.states import Source, Status
from bulkops.store import credentials, events, jobs
from bulkops.store.instance import InstanceLock
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.keyring import Keyring
from bulkops.store.store import Store, open_store
from bulkops.store.transaction import Tx
from bulkops.timing import Clock, SystemClock
from bulkops.web.authentication import Authenticator
from bulkops.web.doorkeeper import Bounds
from bulkops.web.guard import Guard, gate
from bulkops.web.live import live_routes
from bulkops.web.live.sessions import Limits
from bulkops.web.problems import Boundary
from bulkops.web.server import serve


def a_job(*, tenant: str | None = "acme", user: str = "ana", source: str = "user", **fields: Any) -> JobRow:
    """Make a queued job that is in no database yet."""
    return JobRow(
        id=new_id(),
        resource="receipts",
        action="delete",
        tenant=tenant,
        requested_by=user,
        source=Source(source),
        status=Status.QUEUED,
        priority=100,
        selection=Selection(kind="all"),
        options={},
        knobs=Knobs(),
        identity="-",
        total=10,
        queued_ms=0,
        created_ms=0,
        updated_ms=0,
        **fields,
    )


def end_job(tx: Tx, job: JobRow) -> int:
    """Complete a job and tell so."""
    tx.connection.execute(
        "UPDATE jobs SET status = 'completed', outcome = 'ok', cursor = total, succeeded = total, finished_ms = 1 "
        "WHERE id = ?",
        [job.id],
    )
    return events.append(tx, job, "completed", {"status": "completed", "succeeded": 10})


@asynccontextmanager
async def opened_store(path: Path, clock: Clock) -> AsyncIterator[Store]:
    """Open the real store in ``path``; the lock goes with it."""
    data_dir = path / "data"
    data_dir.mkdir(exist_ok=True)
    lock = InstanceLock(data_dir)
    store = await open_store(path / "bulkops.db", data_dir, clock, lock)
    try:
        yield store
    finally:
        await store.close()
        lock.release()


@dataclass
class House:
    """What the live routes need of a runtime."""

    store: Store
    hub: Hub
    feed: Feed
    credentials: Keyring
    authentication: Authenticator
    clock: Clock
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def new_job(self, **fields: Any) -> JobRow:
        job = a_job(**fields)
        await self.store.write(lambda tx: jobs.insert(tx, job))
        return job

    async def tell(self, job: JobRow, kind: str, **data: Any) -> int:
        return await self.store.write(lambda tx: events.append(tx, job, kind, data))

    async def end(self, job: JobRow) -> int:
        return await self.store.write(lambda tx: end_job(tx, job))

    async def key(self, *, user: str = "ana", tenant: str | None = "acme", role: str = "operator") -> str:
        made = await self.store.write(
            lambda tx: credentials.create_key(tx, user=user, tenant=tenant, role=role)
        )
        return made[1]


@asynccontextmanager
async def open_house(path: Path, clock: Clock | None = None) -> AsyncIterator[House]:
    """Open a house whose feed runs."""
    clock = clock or SystemClock()
    async with opened_store(path, clock) as store:
        hub = Hub()
        store.on_commit.append(lambda _: hub.ring())
        keeper = Keyring(store)
        house = House(store, hub, Feed(store, hub), keeper, Authenticator(keeper, clock), clock)
        # No task group: a state machine opens and closes a house in two different tasks.
        running = asyncio.create_task(house.feed.run())
        try:
            yield house
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@asynccontextmanager
async def served(
    house: House, *, limits: Limits | None = None, bounds: Bounds | None = None, port: int = 0
) -> AsyncIterator[int]:
    """Serve the live routes at a real port, which is yielded; 0 takes a free one."""
    router = Router(routes=live_routes(house, house.authentication, limits=limits))
    app = Guard(Boundary(router), gate([], []))
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            serve(
                app,
                host="127.0.0.1",
                port=port,
                draining=house.draining,
                on_ready=lambda _, found: ready.set_result(found),
                signals=False,
                bounds=bounds,
            )
        )
        try:
            yield await ready
        finally:
            house.draining.set()


async def until(holds: Callable[[], bool | Awaitable[bool]], *, within_s: float = 5) -> None:
    """Wait until something holds; fail when it does not in time."""
    async with asyncio.timeout(within_s):
        while True:
            answer = holds()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.01)


def client(port: int, key: str) -> httpx.AsyncClient:
    """Make an HTTP client that bears a key."""
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=10
    )
