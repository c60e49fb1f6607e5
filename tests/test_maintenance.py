"""The house's own chores as jobs: due or left alone, done politely, seen by whom they concern, removed in time."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.configuration import from_dict
from bulkops.errors import ConfigError, Refusal
from bulkops.feed import Topic, scope_of
from bulkops.janitor import Chore, Stop
from bulkops.maintenance import ChoreBatches, Maintenance
from bulkops.models import Caller, JobsQuery, JobView, RetryBody, ScheduleView, StartBody
from bulkops.resources.contract import Browse, Turn
from bulkops.runtime import Runtime
from bulkops.states import Status
from bulkops.store import events, idempotency, jobs, schedules
from bulkops.store.idempotency import Idempotency
from bulkops.store.transaction import Tx
from tests.conftest import HandClock
from tests.engine_house import OWNER, make_database, opened, outcomes, rested, run, until
from tests.store_house import a_caller, a_job, put, take

DAY_S = 86_400
HOURLY, NIGHTLY = "maintenance.hourly", "maintenance.nightly"


@pytest.fixture
async def runtime(tmp_path: Path, clock: HandClock) -> AsyncIterator[Runtime]:
    make_database(tmp_path / "app.db", "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT)")
    async with opened(tmp_path, {"notes": {"table": "notes", "id": "id"}}, clock=clock) as opened_house:
        yield opened_house


async def schedule(runtime: Runtime, name: str) -> ScheduleView:
    page = await runtime.service.schedules(OWNER, tenant=None, limit=100, page=None)
    found: ScheduleView = next(each for each in page["items"] if each.id == name)
    return found


async def seen_to(runtime: Runtime, name: str, after: str | None = None) -> ScheduleView:
    async def look() -> ScheduleView | None:
        view = await schedule(runtime, name)
        return view if view.last_at != after else None

    found: ScheduleView = await until(look)
    return found


async def listed(runtime: Runtime, *, show: bool | None, caller: Any = OWNER) -> list[JobView]:
    found: list[JobView] = (await runtime.service.jobs(caller, JobsQuery(show_maintenance=show)))["items"]
    return found


def remember(tx: Tx) -> None:
    idempotency.record(tx, Idempotency("p", b"k", b"f"), status=202, location=None, body=b"{}")


async def count(runtime: Runtime, table: str) -> int:
    row = await runtime.store.read(lambda c: c.execute(f"SELECT count(*) FROM {table}").fetchone())
    return int(row[0])


async def test_where_nothing_is_old_no_job_is_made(runtime: Runtime, clock: HandClock) -> None:
    before = await count(runtime, "audit")
    clock.advance(DAY_S)
    runtime.scheduler.ring()
    for name in (HOURLY, NIGHTLY):
        assert (await seen_to(runtime, name)).last_result == "nothing_due"
    assert await listed(runtime, show=True) == []
    assert await count(runtime, "audit") == before


async def test_what_is_old_goes_by_a_job_of_low_priority_that_only_owners_see(
    runtime: Runtime, clock: HandClock
) -> None:
    await runtime.store.write(remember)
    clock.advance(25 * 3600)
    runtime.scheduler.ring()
    seen = await seen_to(runtime, HOURLY)
    assert seen.last_result == "started"
    job = await rested(runtime, seen.last_job or "")
    assert (job.resource, job.source, job.priority, job.outcome) == ("maintenance", "maintenance", 50, "ok")
    assert await count(runtime, "idempotency") == 0
    assert await outcomes(runtime, job.id) == dict.fromkeys(seen.body["ids"], "succeeded")
    assert not job.undo_until
    assert await listed(runtime, show=None) == []
    assert [each.id for each in await listed(runtime, show=True)] == [job.id]
    for caller in (a_caller("ana"), a_caller("bo", "viewer"), a_caller("eve", "owner", "acme")):
        assert await listed(runtime, show=True, caller=caller) == []
        with pytest.raises(Refusal):
            await runtime.service.job(caller, job.id)
        assert job.id not in await told(runtime, caller)
    assert job.id in await told(runtime, OWNER)


async def told(runtime: Runtime, caller: Caller) -> set[str | None]:
    """Return the jobs whose events a caller is told."""
    scope = scope_of(caller, Topic("all"))
    found = await runtime.store.read(partial(events.read_after, scope=scope, after=0, head=10**6))
    return {row.job for row in found.rows}


async def test_trash_and_old_jobs_go_at_night_and_the_nights_own_job_a_week_later(
    runtime: Runtime, clock: HandClock
) -> None:
    done = a_job(at_ms=clock.now_ms(), undo_until_ms=clock.now_ms() + 30 * DAY_S * 1000)

    def work(tx: Tx) -> None:
        put(tx, done, [1, 2, 3])
        take(tx, done, ["a"])

    await runtime.store.write(work)
    clock.advance(31 * DAY_S)
    runtime.scheduler.ring()
    first = await seen_to(runtime, NIGHTLY)
    await rested(runtime, first.last_job or "")
    assert await count(runtime, "trash") == 0
    clock.advance(60 * DAY_S)
    runtime.scheduler.ring()
    second = await seen_to(runtime, NIGHTLY, first.last_at)
    await rested(runtime, second.last_job or "")
    left = [job.id for job in await listed(runtime, show=True)]
    assert done.id not in left
    assert first.last_job not in left
    assert second.last_job in left


async def test_a_night_missed_while_the_machine_slept_is_made_up_for_at_the_start(
    tmp_path: Path, clock: HandClock
) -> None:
    make_database(tmp_path / "app.db", "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT)")
    resources = {"notes": {"table": "notes", "id": "id"}}
    async with opened(tmp_path, resources, clock=clock) as runtime:
        await runtime.store.write(remember)
    clock.advance(3 * DAY_S)
    async with opened(tmp_path, resources, clock=clock) as runtime:
        seen = await seen_to(runtime, HOURLY)
        await rested(runtime, seen.last_job or "")
        assert await count(runtime, "idempotency") == 0
        hourly = [job for job in await listed(runtime, show=True) if job.label == HOURLY]
        assert len(hourly) == 1


async def test_a_clock_far_beyond_the_records_is_believed_a_day_after_the_start(
    tmp_path: Path, clock: HandClock
) -> None:
    make_database(tmp_path / "app.db", "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT)")
    resources = {"notes": {"table": "notes", "id": "id"}}
    async with opened(tmp_path, resources, clock=clock) as runtime:
        await run(runtime, "notes", "delete", all=True)
        await runtime.store.write(remember)
    clock.advance(10 * DAY_S)
    async with opened(tmp_path, resources, clock=clock) as runtime:
        first = await seen_to(runtime, HOURLY)
        assert first.last_result == "nothing_due"
        clock.advance(DAY_S)
        runtime.scheduler.ring()
        assert (await seen_to(runtime, HOURLY, first.last_at)).last_result == "started"


async def test_owners_of_the_installation_list_and_run_it_and_nobody_deletes_it(runtime: Runtime) -> None:
    for caller in (a_caller("ana"), a_caller("eve", "owner", "acme")):
        page = await runtime.service.schedules(caller, tenant=None, limit=100, page=None)
        assert page["items"] == []
        with pytest.raises(Refusal) as caught:
            await runtime.service.schedule_run(caller, NIGHTLY)
        assert caught.value.code == "NOT_FOUND"
        with pytest.raises(Refusal) as caught:
            await runtime.service.start(caller, "maintenance", "run", StartBody(all=True))
        assert caught.value.code == "NOT_FOUND"
    with pytest.raises(Refusal) as caught:
        await runtime.service.schedule_delete(OWNER, NIGHTLY)
    assert caught.value.code == "ILLEGAL_TRANSITION"
    job = await runtime.service.schedule_run(OWNER, NIGHTLY)
    assert (await rested(runtime, job.id)).outcome == "ok"
    assert all(each["name"] != "maintenance" for each in await runtime.service.catalog(OWNER))


async def test_chores_can_be_started_by_name_like_any_action(runtime: Runtime) -> None:
    job = await run(runtime, "maintenance", "run", ids=["events", "nothing"])
    assert await outcomes(runtime, job.id) == {"events": "succeeded", "nothing": "skipped NOT_FOUND"}
    every = await run(runtime, "maintenance", "run", all=True, exclude_ids=["optimize"])
    assert (every.source, every.succeeded) == ("maintenance", len(runtime.janitor.names) - 1)
    assert await outcomes(runtime, every.id) == {
        name: "succeeded" for name in runtime.janitor.names if name != "optimize"
    }
    assert (await runtime.service.info(OWNER, "maintenance"))["counts"]["total"] == len(runtime.janitor.names)
    for body in (
        {"filter": {"a": 1}},
        {"all": True, "options": {"x": 1}},
        {"all": True, "atomic": True},
        {"ids": [1]},
    ):
        with pytest.raises(Refusal):
            await run(runtime, "maintenance", "run", **body)


async def test_one_that_was_paused_does_not_keep_the_next_from_running(
    runtime: Runtime, clock: HandClock
) -> None:
    await rested(runtime, (await runtime.service.schedule_run(OWNER, HOURLY)).id)

    def stick(tx: Tx) -> None:
        row = schedules.get(tx.connection, HOURLY)
        assert row is not None
        last = jobs.get(tx.connection, row.last_job or "")
        assert last is not None
        stuck = msgspec.structs.replace(
            last, id="0STUCK", status=Status.PAUSED, finished_ms=None, outcome=None, cursor=0, succeeded=0,
            status_code="NEEDS_REVIEW",
        )  # fmt: skip
        jobs.insert(tx, stuck)
        schedules.note_run(tx, HOURLY, "0STUCK")
        remember(tx)

    await runtime.store.write(stick)
    clock.advance(25 * 3600)
    runtime.scheduler.ring()
    seen = await seen_to(runtime, HOURLY)
    assert seen.last_result == "started"
    assert (await runtime.service.job(OWNER, "0STUCK")).status == "cancelled"
    assert (await rested(runtime, seen.last_job or "")).outcome == "ok"


def a_turn(stop: bool = False) -> Turn:
    return Turn(gap=lambda _: 0.0, stop=lambda: stop, commit_guard=lambda: True)


async def test_a_chore_that_fails_fails_alone(runtime: Runtime) -> None:
    async def broken(_: Stop) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    async def due() -> bool:
        return True

    runtime.janitor._chores["events"] = Chore(broken, due)
    job = await run(runtime, "maintenance", "run", ids=["idempotency", "events", "credentials"])
    assert job.outcome == "partial"
    again, _ = await runtime.service.retry(OWNER, job.id, RetryBody())
    assert again.source == "maintenance"
    assert await outcomes(runtime, job.id) == {
        "idempotency": "succeeded",
        "events": "failed IO_ERROR",
        "credentials": "succeeded",
    }


@pytest.mark.parametrize(("stop", "crowded"), [(True, False), (False, True), (False, False)])
async def test_a_chore_makes_way_when_the_house_closes_or_others_wait(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, stop: bool, crowded: bool
) -> None:
    monkeypatch.setattr("bulkops.maintenance._POLITE_S", -1.0)
    asked: list[bool] = []

    async def work(asks: Stop) -> int:
        asked.append(asks())
        return 0

    async def due() -> bool:
        return True

    runtime.janitor._chores["events"] = Chore(work, due)
    batches = ChoreBatches(runtime.janitor, lambda: crowded)
    assert await batches._do("events", a_turn(stop)) is None
    assert asked == [stop or crowded]


def test_no_configured_resource_or_schedule_can_take_its_name(tmp_path: Path) -> None:
    table = {"kind": "table", "database": "a.db", "table": "t", "id": "id"}
    with pytest.raises(ConfigError, match=r"resources\.maintenance: .*taken"):
        from_dict({"resources": {"maintenance": table}}, tmp_path, {})
    section = {"resource": "t", "action": "delete", "all": True, "every": "1d"}
    with pytest.raises(ConfigError, match="taken"):
        from_dict({"resources": {"t": table}, "schedules": {"maintenance.nightly": section}}, tmp_path, {})


async def test_chores_are_browsed_page_by_page(runtime: Runtime) -> None:
    maintenance = runtime.house.resources["maintenance"]
    assert isinstance(maintenance, Maintenance)
    found: list[str] = []
    after: list[Any] | None = None
    while True:
        page = await maintenance.browse(Browse(tenant=None, limit=4, after=after))
        found += [item["id"] for item in page.items]
        after = page.after
        if after is None:
            break
    assert tuple(found) == maintenance.chores
