"""The house, wired: built from settings, running for as long as somebody is inside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio

from bulkops.building import Estate, HostedActions, build
from bulkops.cleaner import Cleaner
from bulkops.database import other_library
from bulkops.drafting import Shelf
from bulkops.drafts import Drafts
from bulkops.egress import policy_of
from bulkops.errors import Halt, StartRefused
from bulkops.feed import Feed
from bulkops.giveback import FileReturn
from bulkops.house import House
from bulkops.hub import Hub
from bulkops.janitor import Chore, Janitor
from bulkops.joblog import LogFile, log_to
from bulkops.maintenance import Maintenance
from bulkops.models import Caller
from bulkops.operations import MAINTENANCE
from bulkops.postman import Postman
from bulkops.progress import Progress
from bulkops.resources.contract import Resource
from bulkops.runner import sweep_drafts
from bulkops.scheduler import Scheduler
from bulkops.service.service import Service
from bulkops.settings import Settings
from bulkops.steadiness import Steadiness
from bulkops.store import events
from bulkops.store.instance import InstanceLock
from bulkops.store.keyring import Keyring
from bulkops.store.store import Store, open_store
from bulkops.store.transaction import Commit
from bulkops.timing import Clock, SystemClock
from bulkops.workers import Workers, take_over

STOP_GRACE_S: Final = 8.0
_DAY_MS: Final = 24 * 3_600_000
#: How long a resource that is the host's own code may take to let go.
_CLOSE_S: Final = 2.0
_log = logging.getLogger("bulkops")


class Runtime:
    """The parts of a running house, for the doors."""

    def __init__(self, settings: Settings, store: Store, estate: Estate, log: LogFile) -> None:
        self.settings = settings
        self.log = log
        self.store = store
        self.clock: Clock = store.clock
        self.hub = Hub()
        self.feed = Feed(store, self.hub)
        self.progress = Progress()
        self.estate = estate
        self.cleaner = Cleaner(store, estate.depots)
        drafts = Drafts(
            settings.data_dir,
            archive_h=24.0 * settings.server.trash_days,
            max_files=settings.server.max_artifacts,
            max_bytes=settings.server.max_artifact_bytes,
        )
        self.steadiness = Steadiness(store.clock)
        keep_ms = settings.server.keep_jobs_days * _DAY_MS
        shelf = Shelf(store, drafts, self.steadiness.now_ms, keep_ms=keep_ms)
        chores = {"artifacts": Chore(shelf.clear, shelf.due)}
        self.janitor = Janitor(store, settings.server, self.steadiness, more=chores)
        maintenance = Maintenance(self.janitor, lambda: self.house.crowded)
        resources: dict[str, Resource] = {**estate.resources, MAINTENANCE: maintenance}
        self.house = House(store, resources, self.progress, FileReturn(store, estate.depots), drafts)
        self.workers = Workers(self.house, settings.server.workers)
        self.postman = Postman(store, policy_of(settings.server.webhook_hosts, settings.server.port))
        self.credentials = Keyring(store)
        self.service = Service(store, settings, self.house, self.cleaner, maintenance, self.steadiness)
        self.scheduler = Scheduler(store, self.steadiness, self.service.fire, lambda: self.house.stopping)
        self.draining = asyncio.Event()
        #: How long the batches in hand may take at the end; whoever ends us may know better.
        self.stop_grace_s = STOP_GRACE_S
        store.on_commit.append(self._ring)

    async def answer_waiting_when_draining(self) -> None:
        """Let nobody wait for a job's end while the doors close."""
        await self.draining.wait()
        self.service.release_waiting()

    def _ring(self, commit: Commit) -> None:
        if commit.head is not None:
            self.hub.ring()


def local_owner() -> Caller:
    """Return the caller that a process on the owner's own machine is."""
    return Caller(user="local", tenant=None, roles=frozenset({"owner"}))


@asynccontextmanager
async def _opened(
    settings: Settings,
    clock: Clock | None,
    hosted: HostedActions | None = None,
    made: Mapping[str, object] | None = None,
) -> AsyncIterator[Runtime]:
    other = other_library()
    if other is not None:
        raise StartRefused(
            "config", f"{other} brings a second SQLite into this process: locks would not hold"
        )
    lock = InstanceLock(settings.data_dir)
    estate_clock = clock or SystemClock()
    store = await open_store(settings.database, settings.data_dir, estate_clock, lock)
    estate: Estate | None = None
    try:
        estate = build(settings, hosted, made)
        with log_to(settings.data_dir) as log:
            yield Runtime(settings, store, estate, log)
    finally:
        with anyio.CancelScope(shield=True):
            if estate is not None:
                await _let_go(estate)
            await store.close()
            lock.release()


async def _let_go(estate: Estate) -> None:
    for name, resource in estate.resources.items():
        try:
            with anyio.move_on_after(_CLOSE_S):
                await resource.close()
        except Halt as error:
            _log.warning("RESOURCE_NOT_CLOSED resource=%s error=%s", name, error)
    for target in estate.targets.values():
        await target.close()


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    clock: Clock | None = None,
    hosted: HostedActions | None = None,
    made: Mapping[str, object] | None = None,
) -> AsyncIterator[Runtime]:
    """Open the house and run its workers until the block is left; then every batch in hand is finished.

    ``hosted`` are the host application's own actions, by resource and name, ``made`` its own resources.

    Raises:
        StartRefused: another instance runs, or our database must not be touched.
        ConfigError: a resource is declared wrongly.
    """
    async with _opened(settings, clock, hosted, made) as runtime:
        await _check_resources(runtime)
        await take_over(runtime.house)
        await sweep_drafts(runtime.house)
        await _look_at_the_clock(runtime)
        await runtime.service.declare()
        trouble: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.workers.work)
            group.start_soon(runtime.cleaner.work)
            group.start_soon(runtime.scheduler.run)
            group.start_soon(runtime.postman.work)
            group.start_soon(runtime.feed.run)
            group.start_soon(runtime.answer_waiting_when_draining)
            try:
                yield runtime
            except Exception as error:  # noqa: BLE001  raised again, once the house is closed
                # Through the group it would come out inside an ExceptionGroup, which no caller catches.
                trouble = error
            finally:
                runtime.draining.set()
                runtime.service.release_waiting()
                runtime.workers.stop()
                grace_s = runtime.stop_grace_s
                with anyio.CancelScope(shield=True), anyio.move_on_after(grace_s, shield=True) as scope:
                    await runtime.workers.stopped()
                if scope.cancelled_caught:
                    _log.warning("STOP_GRACE_OVER a batch is still under way; the next start accounts for it")
                else:
                    runtime.house.drafts.close_all()
                group.cancel_scope.cancel()
        if trouble is not None:
            raise trouble


async def _look_at_the_clock(runtime: Runtime) -> None:
    """Doubt a clock that is far beyond everything on record before anything is removed by it."""
    seen_ms = await runtime.store.read(events.last_ms)
    if seen_ms is not None:
        runtime.steadiness.remember(seen_ms)


async def _check_resources(runtime: Runtime) -> None:
    """Compare what is declared with the databases; one that is not there yet is looked at when it is needed."""
    for name, resource in runtime.estate.resources.items():
        try:
            await resource.open()
        except Halt as error:
            _log.warning("RESOURCE_UNREACHABLE resource=%s error=%s", name, error)


class Offline:
    """The house without workers: for commands that work in process while no server runs."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.service = runtime.service
        self.store = runtime.store
        self.caller = local_owner()


@asynccontextmanager
async def open_offline(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Offline]:
    """Take the instance lock and open the house, running nothing by itself.

    Raises:
        StartRefused: a server runs, or our database must not be touched.
        ConfigError: a resource is declared wrongly.
    """
    async with _opened(settings, clock) as runtime:
        yield Offline(runtime)
