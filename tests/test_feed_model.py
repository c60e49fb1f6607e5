"""The client rule of the protocol, played by hypothesis against the real store and the real feed.

Whatever the clients do (read, dawdle, lose the connection with frames in flight, come back) and whatever
befalls the log (replaced progress, trims, a restored backup), nothing is applied twice, no event that a
client was promised is missed, and no gap is seen where none is.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from bulkops.feed import Follower, Frame, Topic
from bulkops.models import Caller
from bulkops.store import events, meta
from bulkops.store.events import TERMINAL_KINDS, Scope
from bulkops.store.jobs import JobRow
from tests.client_rule import ClientRule
from tests.conftest import HandClock
from tests.live_house import House, open_house, until

T = TypeVar("T")

CALLERS = {
    "ana": Caller(user="ana", tenant="acme", roles=frozenset({"operator"})),
    "admin": Caller(user="ada", tenant="acme", roles=frozenset({"admin"})),
    "owner": Caller(user="own", roles=frozenset({"owner"})),
}
EVERYTHING = Scope(kind="all", any_tenant=True, installation=True)
KINDS = ["progress", "progress", "started", "paused", "resumed", "updated", "changed", "completed", "failed"]
CONNECTIONS = st.integers(0, 3)


def _knows(follower: Follower, seq: int) -> bool:
    return (follower.tail.end or 0) >= seq


class Client(ClientRule):
    """A client that is connected to the feed itself."""

    def __init__(self, caller: str, topic: Topic) -> None:
        super().__init__()
        self.caller = CALLERS[caller]
        self.topic = topic
        self.follower: Follower | None = None

    async def connect(self, house: House) -> None:
        since = "earliest" if self.mine is None else str(self.mine)
        self.follower = await house.feed.follow(self.caller, self.topic, since, asyncio.Event())
        start = self.follower.start
        if self.mine is None or not start.recovered:
            self.fetched(start.cursor)
        else:
            assert start.cursor == self.mine

    def disconnect(self) -> None:
        if self.follower is not None:
            self.follower.close()
            self.follower = None

    def hear(self, frame: Frame) -> None:
        if frame.kind == "reset":
            self.fetched(frame.cursor)
        else:
            self.take(frame.prev, frame.cursor, [(row.seq, row.kind) for row in frame.rows])


class Wire(RuleBasedStateMachine):
    """Jobs, clients and the misfortunes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.clock = HandClock()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.house: House = self.run(self.stack.enter_async_context(open_house(self.path, self.clock)))
        self.jobs: list[JobRow] = []
        self.clients: list[Client] = []
        self.truth: dict[int, tuple[JobRow, str]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def make_jobs_and_clients(self) -> None:
        for user, tenant in [("ana", "acme"), ("bob", "acme"), ("own", None)]:
            job = self.run(self.house.new_job(user=user, tenant=tenant))
            self.jobs.append(job)
            self.truth[len(self.jobs)] = (job, "queued")
        ana = self.jobs[0]
        self.clients = [
            Client("ana", Topic("all")),
            Client("admin", Topic("all")),
            Client("ana", Topic("job", ana.id)),
            Client("owner", Topic("tenant")),
        ]

    # -- what happens

    @rule(which=st.integers(0, 2), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    def tell(self, which: int, kinds: list[str]) -> None:
        job = self.jobs[which]
        for kind in kinds:
            self.truth[self.run(self.house.tell(job, kind))] = (job, kind)
            self.clock.advance(60)

    @rule(which=st.integers(0, 2))
    def tell_much(self, which: int) -> None:
        job = self.jobs[which]
        for _ in range(6):
            self.truth[self.run(self.house.tell(job, "updated", text="x" * 31_000))] = (job, "updated")

    @rule(age_s=st.sampled_from([0, 120, 86_400]))
    def trim(self, age_s: int) -> None:
        before_ms = self.clock.now_ms() - age_s * 1000
        self.run(self.house.store.write(lambda tx: events.trim(tx, before_ms=before_ms)))

    @rule()
    def a_week_passes(self) -> None:
        self.clock.advance(7 * 86_400)

    @precondition(lambda self: self.truth)
    @rule(data=st.data())
    def a_backup_is_restored(self, data: st.DataObject) -> None:
        """Lose the newest events, as a backup put back does: every socket ends, the epoch is another."""
        kept = data.draw(st.integers(0, max(self.truth)))
        for client in self.clients:
            client.disconnect()
        self.run(self.house.store.write(lambda tx: _restore(tx, kept)))
        # The backup still had progress that was replaced since; here it is gone for good.
        left = self.run(self.house.store.read(_progress_left))
        self.truth = {
            seq: (job, kind)
            for seq, (job, kind) in self.truth.items()
            if seq <= kept and (kind != "progress" or seq in left)
        }

    # -- what clients do

    @rule(which=CONNECTIONS)
    def connect(self, which: int) -> None:
        client = self.clients[which]
        if client.follower is None:
            self.run(client.connect(self.house))

    @rule(which=CONNECTIONS, frames=st.integers(1, 3), max_rows=st.sampled_from([1, 3, 200]))
    def read(self, which: int, frames: int, max_rows: int) -> None:
        self._read(self.clients[which], frames, max_rows)

    @rule(which=CONNECTIONS, in_flight=st.integers(0, 2))
    def lose_the_connection(self, which: int, in_flight: int) -> None:
        client = self.clients[which]
        if client.follower is not None:
            for _ in range(in_flight):
                self.run(client.follower.next())
            client.disconnect()

    @rule(which=CONNECTIONS)
    def ping(self, which: int) -> None:
        client = self.clients[which]
        if client.follower is not None and not self._read(client, 1, 200):
            frame = client.follower.advance()
            if frame is not None:
                client.hear(frame)
            assert client.mine == client.follower.sent

    @rule()
    def everybody_catches_up(self) -> None:
        for client in self.clients:
            if client.follower is None:
                self.run(client.connect(self.house))
        head = self.run(self.house.feed.head())
        for client in self.clients:
            follower = client.follower
            assert follower is not None
            self.run(until(partial(_knows, follower, head.seq)))
            while self._read(client, 1, 200):
                pass
            self._check(client)

    def _read(self, client: Client, frames: int, max_rows: int) -> bool:
        for _ in range(frames):
            frame = None if client.follower is None else self.run(client.follower.next(max_rows=max_rows))
            if frame is None:
                return False
            client.hear(frame)
        return True

    def _check(self, client: Client) -> None:
        """Compare what a client holds with what was told to those like it since it fetched the state."""
        promised = {
            seq: kind
            for seq, (job, kind) in self.truth.items()
            if seq > client.base and _is_for(client, job, kind)
        }
        lasting = {seq: kind for seq, kind in promised.items() if kind != "progress"}
        got = {seq: kind for seq, kind in client.applied.items() if kind != "progress"}
        assert got == lasting
        assert {seq for seq, kind in got.items() if kind in TERMINAL_KINDS} == {
            seq for seq, kind in promised.items() if kind in TERMINAL_KINDS
        }
        newest: dict[str, int] = {}
        for seq, (job, kind) in sorted(self.truth.items()):
            if kind == "progress" and seq in promised:
                newest[job.id] = seq
        assert set(newest.values()) <= set(client.applied)
        assert set(client.applied) <= set(promised)

    def teardown(self) -> None:
        if self.clients:
            self.everybody_catches_up()
        for client in self.clients:
            client.disconnect()
        self.run(self.stack.aclose())
        self.runner.close()
        shutil.rmtree(self.path)


def _is_for(client: Client, job: JobRow, kind: str) -> bool:
    if client.topic.kind == "job" and job.id != client.topic.id:
        return False
    caller = client.caller
    if caller.tenant is None:
        return True
    return job.tenant == caller.tenant and (
        "admin" in caller.roles or job.requested_by == caller.user or kind == "changed"
    )


def _progress_left(connection: sqlite3.Connection) -> set[int]:
    return {row[0] for row in connection.execute("SELECT seq FROM events WHERE kind = 'progress'")}


def _restore(tx: Any, kept: int) -> None:
    tx.connection.execute("DELETE FROM events WHERE seq > ?", [kept])
    tx.connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", [kept])
    floor = events.state(tx.connection).floor
    meta.write(tx, "event_floor", str(min(floor, kept + 1)))
    meta.write(tx, "epoch", meta.new_epoch())
    tx.ring(head=kept)


TestWire = Wire.TestCase
TestWire.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


#: The same stories by the thousand.
TestWireForLong = pytest.mark.soak(
    pytest.mark.timeout(3600)(
        type(
            "TestWireForLong",
            (Wire.TestCase,),
            {"settings": settings(TestWire.settings, max_examples=3000)},
        )
    )
)
