"""The scheduler: what is due fires once, whatever the clock and the process do; it waits for what is due next."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bulkops.ids import new_id
from bulkops.scheduler import Scheduler
from bulkops.slots import Timing, following, slots
from bulkops.steadiness import Steadiness
from bulkops.store import schedules
from bulkops.store.schedules import ScheduleRow
from bulkops.store.store import Store
from tests.conftest import HandClock, LeapingClock
from tests.engine_house import until
from tests.store_house import opened_store

HOUR_S = 3600
DAY_S = 24 * HOUR_S


class Firing:
    """Fires as the service does, but starts nothing: it notes when."""

    def __init__(self, store: Store) -> None:
        self.store = store
        #: For each firing: which schedule, the slot it was due at, the wall clock, elapsed seconds.
        self.fired: list[tuple[str, int, int, float]] = []
        self.trouble: list[Exception] = []

    async def __call__(self, row: ScheduleRow) -> None:
        if self.trouble:
            raise self.trouble.pop()
        clock = self.store.clock
        next_ms = following(row.timing, clock.now_ms())
        if await self.store.write(
            lambda tx: schedules.advance(tx, row, next_ms=next_ms, result="started", job=new_id())
        ):
            assert row.next_ms is not None
            self.fired.append((row.id, row.next_ms, clock.now_ms(), clock.monotonic()))


def a_schedule(clock: HandClock, name: str = "nightly", **timing: Any) -> ScheduleRow:
    row = ScheduleRow(
        id=name,
        name=name,
        resource="receipts",
        action="purge",
        body={"all": True},
        origin="api",
        created_by="ana",
        roles=["admin"],
        created_ms=clock.now_ms(),
        **(timing or {"cron": "0 3 * * *"}),
    )
    return msgspec.structs.replace(row, next_ms=following(row.timing, clock.now_ms()))


class Timetable:
    """A store with schedules, a scheduler that looks when told, and what fired."""

    def __init__(self, store: Store, clock: LeapingClock) -> None:
        self.store = store
        self.clock = clock
        self.firing = Firing(store)
        self.restart()

    def restart(self) -> None:
        """Begin anew as after a restart: nothing is kept in memory."""
        steadiness = Steadiness(self.clock)
        self.scheduler = Scheduler(self.store, steadiness, self.firing, lambda: False)

    async def add(self, row: ScheduleRow) -> None:
        await self.store.write(lambda tx: schedules.insert(tx, row))

    async def row(self, name: str = "nightly") -> ScheduleRow:
        row = await self.store.read(lambda connection: schedules.get(connection, name))
        assert row is not None
        return row

    async def look(self, *, after_s: float = 0, set_by_s: float = 0) -> int:
        """Let time pass and set the clock, then look; return how often that fired."""
        before = len(self.firing.fired)
        self.clock.advance(after_s)
        self.clock.set_by(set_by_s)
        await self.scheduler.look()
        return len(self.firing.fired) - before


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[Timetable]:
    clock = LeapingClock()
    async with opened_store(tmp_path, clock) as store:
        yield Timetable(store, clock)


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


async def test_what_is_due_fires_once_and_is_due_next_at_its_next_slot(table: Timetable) -> None:
    await table.add(a_schedule(table.clock))
    assert await table.look(after_s=3 * HOUR_S - 1) == 0
    assert await table.look(after_s=1) == 1
    assert await table.look() == 0
    row = await table.row()
    assert (row.next_ms, row.last_ms) == (moment("2026-01-02T03:00"), moment("2026-01-01T03:00"))


async def test_runs_missed_while_nothing_ran_are_made_up_for_once(table: Timetable) -> None:
    await table.add(a_schedule(table.clock))
    assert await table.look(after_s=5 * DAY_S) == 1
    assert (await table.row()).next_ms == moment("2026-01-06T03:00")


async def test_a_disabled_schedule_never_fires(table: Timetable) -> None:
    await table.add(msgspec.structs.replace(a_schedule(table.clock), enabled=False))
    assert await table.look(after_s=5 * DAY_S) == 0


async def test_how_long_to_wait_is_until_the_next_slot_and_a_minute_at_most(table: Timetable) -> None:
    assert await table.scheduler.look() == 60
    await table.add(a_schedule(table.clock))
    assert await table.scheduler.look() == 60
    table.clock.advance(3 * HOUR_S - 20)
    assert await table.scheduler.look() == 20


async def test_a_day_forward_and_two_days_back_runs_nothing_twice_and_goes_on(table: Timetable) -> None:
    await table.add(a_schedule(table.clock))
    assert await table.look(after_s=12 * HOUR_S) == 1  # the 1st, 12:00
    assert await table.look(set_by_s=DAY_S) == 1  # the 2nd, 12:00: its slot has passed
    assert await table.look(set_by_s=-2 * DAY_S) == 0  # the 31st, 12:00
    fired = sum([await table.look(after_s=HOUR_S) for _ in range(62)])
    assert fired == 0  # the slots of the 1st and the 2nd were run for
    assert await table.look(after_s=HOUR_S) == 1
    assert table.firing.fired[-1][2] == moment("2026-01-03T03:00")
    ran_for = [slot for _, slot, _, _ in table.firing.fired]
    assert len(ran_for) == len(set(ran_for)) == 3


async def test_a_clock_that_was_wrong_by_years_is_not_waited_for(table: Timetable) -> None:
    await table.add(a_schedule(table.clock))
    assert await table.look(set_by_s=40 * 365 * DAY_S) == 1
    assert await table.look(set_by_s=-40 * 365 * DAY_S) == 0
    assert sum([await table.look(after_s=HOUR_S) for _ in range(48)]) == 1


async def test_a_schedule_made_while_the_clock_was_ahead_fires_all_the_same(table: Timetable) -> None:
    table.clock.set_by(10 * 365 * DAY_S)
    await table.add(a_schedule(table.clock))
    await table.look()
    assert await table.look(set_by_s=-10 * 365 * DAY_S) == 0
    assert sum([await table.look(after_s=HOUR_S) for _ in range(24)]) == 1


async def test_a_clock_set_back_while_nothing_ran_is_seen_at_the_start(table: Timetable) -> None:
    await table.add(a_schedule(table.clock, every_s=6 * HOUR_S))
    assert await table.look(set_by_s=365 * DAY_S) == 1
    table.clock.set_by(-365 * DAY_S)
    table.restart()
    await table.look()
    next_ms = (await table.row()).next_ms
    assert next_ms is not None
    assert next_ms - table.clock.now_ms() <= 2 * 6 * HOUR_S * 1000


async def test_trouble_with_one_schedule_is_noted_and_the_others_fire(table: Timetable) -> None:
    await table.add(a_schedule(table.clock, "first"))
    await table.add(a_schedule(table.clock, "second"))
    table.firing.trouble.append(RuntimeError("a mistake of ours"))
    assert await table.look(after_s=4 * HOUR_S) == 1
    rows = {name: await table.row(name) for name in ("first", "second")}
    assert sorted(str(row.last_result) for row in rows.values()) == ["INTERNAL", "started"]
    assert {row.next_ms for row in rows.values()} == {moment("2026-01-02T03:00")}
    assert await table.look(after_s=DAY_S) == 2


async def test_a_schedule_that_cannot_be_read_any_more_does_not_stop_the_house(table: Timetable) -> None:
    row = a_schedule(table.clock)
    await table.add(msgspec.structs.replace(row, timezone="Mars/Olympus"))
    await table.add(a_schedule(table.clock, "other"))
    assert await table.look(after_s=4 * HOUR_S) == 1
    broken = await table.row()
    assert (broken.next_ms, broken.last_result) == (None, "INTERNAL")


async def test_it_wakes_for_a_new_schedule_and_outlives_a_fault_of_the_disk(table: Timetable) -> None:
    await table.add(a_schedule(table.clock, "late", every_s=DAY_S))
    async with anyio.create_task_group() as group:
        group.start_soon(table.scheduler.run)
        await until(lambda: table.scheduler._bell._waiters)
        table.firing.trouble.append(sqlite3.OperationalError("disk I/O error"))
        due = a_schedule(table.clock, "now", every_s=60)
        await table.add(msgspec.structs.replace(due, next_ms=table.clock.now_ms()))
        await until(lambda: [name for name, *_ in table.firing.fired] == ["now"])
        assert table.firing.trouble == []
        group.cancel_scope.cancel()


async def test_a_house_that_closes_fires_nothing_more(tmp_path: Path) -> None:
    clock = LeapingClock()
    async with opened_store(tmp_path, clock) as store:
        firing = Firing(store)
        closing = False
        scheduler = Scheduler(store, Steadiness(clock), firing, lambda: closing)
        row = a_schedule(clock, every_s=60)
        await store.write(lambda tx: schedules.insert(tx, row))
        clock.advance(120)
        closing = True
        await scheduler.look()
        await scheduler.run()
        assert firing.fired == []


LINES = ["0 3 * * *", "30 2 * * *", "*/15 * * * *", "0 */4 * * *", "15 5 * * 1"]
ZONES = ["UTC", "Europe/Madrid", "Australia/Lord_Howe", "America/St_Johns"]
walks = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 2 * DAY_S)),
        st.tuples(st.just("set"), st.integers(-2 * DAY_S, 2 * DAY_S)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=25,
)


@given(
    start_d=st.integers(0, 365),
    timing=st.one_of(
        st.builds(Timing, cron=st.sampled_from(LINES), timezone=st.sampled_from(ZONES)),
        st.builds(Timing, every_s=st.integers(300, 3 * DAY_S)),
    ),
    walk=walks,
)
@hypothesis_settings(max_examples=15, deadline=None)
def test_on_any_walk_of_the_clock_nothing_runs_twice_or_never(
    start_d: int, timing: Timing, walk: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_walk(Path(folder), start_d, timing, walk))


async def _walk(folder: Path, start_d: int, timing: Timing, walk: list[tuple[str, int]]) -> None:
    clock = LeapingClock()
    clock.advance(start_d * DAY_S)
    async with opened_store(folder, clock) as store:
        table = Timetable(store, clock)
        times: dict[str, Any] = {"cron": timing.cron, "every_s": timing.every_s, "timezone": timing.timezone}
        await table.add(a_schedule(clock, "nightly", **times))
        for kind, amount in walk:
            fired = 0
            if kind == "restart":
                table.restart()
                fired = await table.look()
            elif kind == "run":
                fired = await table.look(after_s=amount)
            else:
                fired = await table.look(set_by_s=amount)
                # A clock that is set back makes nothing due.
                assert fired == 0 or amount > 0
            assert fired <= 1
            assert await table.look() == 0
            _check_slots(table, timing)
        # Left in peace, it runs before its fourth slot has passed.
        clock.advance(1)
        before = len(table.firing.fired)
        for slot_ms in list(islice(slots((await table.row()).timing, clock.now_ms()), 4)):
            await table.look(after_s=max(0.0, (slot_ms - clock.now_ms()) / 1000))
        assert len(table.firing.fired) > before


def _check_slots(table: Timetable, timing: Timing) -> None:
    """No slot is fired for before its time, and none again within the reach of three slots."""
    fired = table.firing.fired
    for _, slot_ms, wall_ms, _ in fired:
        assert slot_ms <= wall_ms
    for (_, _, earlier_ms, _), (_, slot_ms, _, _) in pairwise(fired):
        if slot_ms <= earlier_ms:
            # It ran for this slot already: then the clock was set back so far that three slots lay behind it.
            gap_ms = (following(timing, slot_ms) or 0) - slot_ms
            assert earlier_ms - slot_ms >= gap_ms
