"""Schedules in a whole house: made, judged, listed, run by hand, fired as who made them, ended with their key."""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bulkops
from bulkops.configuration import from_dict, load
from bulkops.errors import ConfigError, Refusal
from bulkops.models import Caller, JobsQuery, JobView, ScheduleBody, ScheduleView, StartBody
from bulkops.runtime import Runtime, open_runtime
from bulkops.states import Status
from bulkops.store import credentials, jobs, schedules
from bulkops.store.jobs import JobRow
from tests.conftest import HandClock, LeapingClock
from tests.engine_house import OWNER, execute, make_database, opened, rested, run, settings_for, until
from tests.store_house import a_caller

DAY_S = 86_400
#: What the hand-moved clock shows at first.
START = datetime(2026, 1, 1, tzinfo=UTC)

SCHEMA = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY, tenant TEXT, status TEXT, closed_at TEXT, deleted_at TEXT);
INSERT INTO sessions (tenant, status, closed_at) VALUES
  ('acme', 'closed', '2025-09-01T00:00:00Z'), ('acme', 'closed', '2025-12-31T00:00:00Z'), ('acme', 'open', NULL),
  ('other', 'closed', '2025-09-01T00:00:00Z')
"""

SESSIONS: dict[str, Any] = {
    "table": "sessions",
    "id": "id",
    "tenant": "tenant",
    "soft_delete": "deleted_at",
    "status": {"column": "status", "closed": "closed"},
    "search": ["status", "closed_at", "deleted_at"],
    "actions": {
        "purge": {"confirm": "PURGE", "exclusive": True, "rate": "1/minute"},
        "close": {"batch_size": 1},
    },
}
ANA = a_caller("ana", "admin", "acme")
OLD = {"closed_at": {"lt": "-90d"}}


@asynccontextmanager
async def house(folder: Path, clock: HandClock, **server: Any) -> AsyncIterator[Runtime]:
    if not (folder / "app.db").exists():
        make_database(folder / "app.db", SCHEMA)
    async with opened(folder, {"sessions": SESSIONS}, clock=clock, **server) as runtime:
        yield runtime


@pytest.fixture
async def runtime(tmp_path: Path, clock: HandClock) -> AsyncIterator[Runtime]:
    async with house(tmp_path, clock) as opened_house:
        yield opened_house


def a_body(**members: Any) -> ScheduleBody:
    wish: dict[str, Any] = {
        "name": "old sessions",
        "resource": "sessions",
        "action": "delete",
        "filter": OLD,
        "cron": "0 3 * * *",
    }
    return msgspec.convert(wish | members, ScheduleBody)


async def make(runtime: Runtime, caller: Caller = ANA, **members: Any) -> ScheduleView:
    return await runtime.service.schedule_create(caller, a_body(**members))


async def listed(runtime: Runtime, caller: Caller = OWNER) -> dict[str, ScheduleView]:
    page = await runtime.service.schedules(caller, tenant=None, limit=100, page=None)
    return {each.id: each for each in page["items"]}


async def pass_time(runtime: Runtime, clock: HandClock, seconds: float) -> None:
    clock.advance(seconds)
    runtime.scheduler.ring()


async def result(runtime: Runtime, schedule: str, after: str | None = None) -> ScheduleView:
    """Wait until a schedule that was due has been seen to (again, behind the time it was last)."""

    async def seen() -> ScheduleView | None:
        view = (await listed(runtime))[schedule]
        return view if view.last_at != after else None

    found: ScheduleView = await until(seen)
    return found


def ids(folder: Path, where: str) -> list[int]:
    return [
        row[0] for row in execute(folder / "app.db", f"SELECT id FROM sessions WHERE {where} ORDER BY id")
    ]


async def jobs_of(runtime: Runtime, caller: Caller = OWNER, **query: Any) -> list[JobView]:
    found: list[JobView] = (await runtime.service.jobs(caller, JobsQuery(**query)))["items"]
    return found


async def test_sessions_closed_for_90_days_go_every_night(
    runtime: Runtime, clock: HandClock, tmp_path: Path
) -> None:
    made = await make(runtime, reason="retention")
    assert (made.tenant, made.origin, made.next_at) == ("acme", "api", "2026-01-01T03:00:00.000Z")
    assert made.body == {"filter": OLD, "reason": "retention"}
    await pass_time(runtime, clock, 3 * 3600)
    seen = await result(runtime, made.id)
    assert (seen.last_result, seen.next_at) == ("started", "2026-01-02T03:00:00.000Z")
    job = await rested(runtime, seen.last_job or "", ANA)
    assert (job.status, job.succeeded, job.source, job.requested_by) == ("completed", 1, "user", "ana")
    assert (job.label, job.reason, job.tenant) == ("old sessions", "retention", "acme")
    assert ids(tmp_path, "deleted_at IS NOT NULL") == [1]
    # What is relative is counted anew each time.
    await pass_time(runtime, clock, 89 * DAY_S)
    again = await result(runtime, made.id, seen.last_at)
    await rested(runtime, again.last_job or "", ANA)
    assert ids(tmp_path, "deleted_at IS NOT NULL") == [1, 2]


async def test_what_was_in_the_trash_for_30_days_is_purged_every_night(
    runtime: Runtime, clock: HandClock, tmp_path: Path
) -> None:
    gone = (START - timedelta(days=1)).isoformat()
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("UPDATE sessions SET deleted_at = ? WHERE id = 1", (gone,))
    made = await make(
        runtime, action="purge", filter={"deleted_at": {"lt": "-30d"}}, confirm="PURGE", name="purge"
    )
    last = None
    for day in range(31):
        clock.advance(DAY_S if day else 3 * 3600)
        runtime.scheduler.ring()
        seen = await result(runtime, made.id, last)
        last = seen.last_at
        await rested(runtime, seen.last_job or "", ANA)
        assert (ids(tmp_path, "id = 1") == []) == (day >= 30 - 1), day


async def test_a_clock_that_leaps_forward_purges_nothing_early(tmp_path: Path) -> None:
    clock = LeapingClock()
    async with house(tmp_path, clock) as runtime:
        with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
            connection.execute("UPDATE sessions SET deleted_at = ? WHERE id = 1", (START.isoformat(),))
        made = await make(
            runtime, action="purge", filter={"deleted_at": {"lt": "-30d"}}, confirm="PURGE", name="purge"
        )
        await pass_time(runtime, clock, 29 * DAY_S + 4 * 3600)
        first = await result(runtime, made.id)
        await rested(runtime, first.last_job or "", ANA)
        clock.set_by(DAY_S)
        runtime.scheduler.ring()
        second = await result(runtime, made.id, first.last_at)
        job = await rested(runtime, second.last_job or "", ANA)
        assert (second.last_result, job.total, ids(tmp_path, "id = 1")) == ("started", 0, [1])
        await pass_time(runtime, clock, DAY_S)
        third = await result(runtime, made.id, second.last_at)
        await rested(runtime, third.last_job or "", ANA)
        assert ids(tmp_path, "id = 1") == []


async def test_a_schedule_is_bound_by_every_guard_when_it_is_made(runtime: Runtime) -> None:
    async def refused(caller: Caller = ANA, **members: Any) -> tuple[str, str]:
        with pytest.raises(Refusal) as caught:
            await make(runtime, caller, **members)
        errors = caught.value.extra.get("errors") or [{"pointer": ""}]
        return caught.value.code, errors[0]["pointer"]

    assert await refused(a_caller("bo", "operator", "acme")) == ("FORBIDDEN", "")
    assert (await refused(resource="nothing"))[0] == "NOT_FOUND"
    assert (await refused(action="explode"))[0] == "NOT_FOUND"
    assert (await refused(resource="maintenance", action="run", filter=None, all=True))[0] == "NOT_FOUND"
    assert (await refused(action="purge"))[0] == "CONFIRMATION_REQUIRED"
    assert (await refused(filter={"secret": 1}))[0] == "INVALID_FIELD"
    assert (await refused(filter={"closed_at": {"lt": "-90x"}, "status": {"near": 1}}))[0] == "INVALID_FIELD"
    assert (await refused(filter={}))[0] == "EMPTY_SELECTION"
    assert (await refused(filter=None))[0] == "EMPTY_SELECTION"
    assert (await refused(options={"loud": True}))[0] == "INVALID_FIELD"
    assert await refused(tenant="other") == ("INVALID_FIELD", "/tenant")
    once: dict[str, Any] = {
        "selection_id": "S",
        "expected_count": 3,
        "run_at": "2027-01-01T00:00:00Z",
        "task_id": "T",
    }
    for name, value in once.items():
        assert await refused(**{name: value}) == ("INVALID_FIELD", f"/{name}")
    bad: dict[str, Any] = {"name": "", "timezone": "Mars/Olympus", "batch_size": 0}
    for name, value in bad.items():
        assert await refused(**{name: value}) == ("INVALID_FIELD", f"/{name}")
    assert await refused(name="x" * 101) == ("INVALID_FIELD", "/name")
    assert await refused(name="a\nb") == ("INVALID_FIELD", "/name")
    for cron in ("* * *", "0 0 30 2 *", "0 0 29 2 *", "x" * 10_000):
        assert await refused(cron=cron) == ("INVALID_FIELD", "/cron")
    for every in ("59s", "0h", "-1h", "400d", "9" * 18 + "w"):
        assert await refused(cron=None, every=every) == ("INVALID_FIELD", "/every")
    assert await refused(every="6h") == ("INVALID_FIELD", "/cron")
    assert await refused(cron=None) == ("INVALID_FIELD", "/cron")
    assert [each for each in (await listed(runtime)).values() if each.origin == "api"] == []


async def test_there_is_a_bound_to_how_many_a_tenant_has(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "MAX_PER_TENANT", 2)
    for _ in range(2):
        await make(runtime)
    with pytest.raises(Refusal, match="2 schedules already"):
        await make(runtime)
    await make(runtime, a_caller("eve", "admin", "other"))


async def test_tenants_see_and_touch_their_own_only(runtime: Runtime) -> None:
    made = await make(runtime)
    eve = a_caller("eve", "admin", "other")
    assert list(await listed(runtime, eve)) == []
    assert list(await listed(runtime, ANA)) == [made.id]
    for act in (runtime.service.schedule_delete, runtime.service.schedule_run):
        for name in (made.id, "maintenance.nightly", "nothing"):
            with pytest.raises(Refusal) as caught:
                await act(eve, name)
            assert (caught.value.code, caught.value.detail) == ("NOT_FOUND", "")
    for_acme = await make(runtime, OWNER, tenant="acme")
    assert list(await listed(runtime, ANA)) == [for_acme.id, made.id]
    assert "tenant" not in for_acme.body


async def test_a_schedule_made_by_someone_for_a_tenant_acts_on_that_tenant_only(
    runtime: Runtime, clock: HandClock, tmp_path: Path
) -> None:
    made = await make(runtime, OWNER, tenant="acme")
    await pass_time(runtime, clock, 3 * 3600)
    seen = await result(runtime, made.id)
    job = await rested(runtime, seen.last_job or "")
    assert (job.tenant, job.requested_by, ids(tmp_path, "deleted_at IS NOT NULL")) == ("acme", "root", [1])


async def test_pages_of_schedules_go_on_where_the_last_one_ended(runtime: Runtime) -> None:
    made = [(await make(runtime, name=f"s{number}")).id for number in range(5)]
    for caller in (ANA, OWNER):
        found: list[str] = []
        page: str | None = None
        while True:
            answer = await runtime.service.schedules(caller, tenant=None, limit=2, page=page)
            found += [each.id for each in answer["items"]]
            page = answer["next"]
            if page is None:
                break
        assert [each for each in found if not each.startswith("maintenance")] == made[::-1]


async def test_deleting_ends_it_and_leaves_its_jobs(runtime: Runtime, clock: HandClock) -> None:
    made = await make(runtime)
    job = await runtime.service.schedule_run(ANA, made.id)
    await runtime.service.schedule_delete(ANA, made.id)
    assert made.id not in await listed(runtime)
    await rested(runtime, job.id)
    with pytest.raises(Refusal):
        await runtime.service.schedule_delete(ANA, made.id)
    await pass_time(runtime, clock, DAY_S)
    assert len(await jobs_of(runtime)) == 1


async def test_run_by_hand_starts_now_as_the_caller_and_moves_nothing(runtime: Runtime) -> None:
    made = await make(runtime, enabled=False)
    bea = a_caller("bea", "admin", "acme")
    job = await runtime.service.schedule_run(bea, made.id)
    assert (job.requested_by, job.tenant) == ("bea", "acme")
    await rested(runtime, job.id)
    after = (await listed(runtime))[made.id]
    assert (after.next_at, after.last_at, after.last_job) == (None, None, job.id)


async def test_run_by_hand_by_somebody_of_no_tenant_it_stays_within_its_tenant(
    runtime: Runtime, tmp_path: Path
) -> None:
    made = await make(runtime)
    job = await rested(runtime, (await runtime.service.schedule_run(OWNER, made.id)).id)
    assert (job.tenant, job.requested_by) == ("acme", "root")
    assert ids(tmp_path, "deleted_at IS NOT NULL") == [1]


async def hold(runtime: Runtime, schedule: str) -> None:
    """Have a schedule's last job be one that does not end by itself."""

    def work(tx: Any) -> None:
        row = schedules.get(tx.connection, schedule)
        assert row is not None
        last = jobs.get(tx.connection, row.last_job or "")
        assert last is not None
        fresh = msgspec.structs.replace(
            last, id=f"{last.id}X", status=Status.PAUSED, finished_ms=None, outcome=None, total=None, cursor=0,
            succeeded=0, frozen=False, status_code="USER", exclusive=False,
        )  # fmt: skip
        jobs.insert(tx, fresh)
        schedules.note_run(tx, schedule, fresh.id)

    await runtime.store.write(work)


async def test_while_the_last_job_has_not_ended_a_run_is_left_out(runtime: Runtime, clock: HandClock) -> None:
    made = await make(runtime)
    await rested(runtime, (await runtime.service.schedule_run(ANA, made.id)).id)
    await hold(runtime, made.id)
    await pass_time(runtime, clock, 3 * 3600)
    seen = await result(runtime, made.id)
    assert (seen.last_result, seen.next_at) == ("skipped_running", "2026-01-02T03:00:00.000Z")
    with pytest.raises(Refusal) as caught:
        await runtime.service.schedule_run(ANA, made.id)
    assert (caught.value.code, caught.value.extra["active_job"]) == ("JOB_ACTIVE", seen.last_job)
    assert len(await jobs_of(runtime)) == 2


async def test_a_refusal_is_noted_and_the_next_time_tried(
    runtime: Runtime, clock: HandClock, tmp_path: Path
) -> None:
    made = await make(runtime, action="purge", filter=None, all=True, confirm="PURGE")
    row = await runtime.store.read(lambda connection: schedules.get(connection, made.id))
    assert row is not None
    other = msgspec.structs.replace(
        (await _job_row(runtime, (await run(runtime, "sessions", "close", caller=ANA, ids=["3"])).id)),
        id="0ACTIVE", action="purge", status=Status.PAUSED, finished_ms=None, outcome=None, total=None, cursor=0,
        succeeded=0, skipped=0, failed=0, frozen=False, status_code="USER", exclusive=True,
    )  # fmt: skip
    await runtime.store.write(lambda tx: jobs.insert(tx, other))
    await pass_time(runtime, clock, 3 * 3600)
    seen = await result(runtime, made.id)
    assert (seen.last_result, seen.last_job) == ("JOB_ACTIVE", None)
    await runtime.service.cancel(OWNER, "0ACTIVE")
    await pass_time(runtime, clock, DAY_S)
    again = await result(runtime, made.id, seen.last_at)
    assert again.last_result == "started"


async def _job_row(runtime: Runtime, job_id: str) -> JobRow:
    row = await runtime.store.read(lambda connection: jobs.get(connection, job_id))
    assert row is not None
    return row


async def test_without_room_it_is_tried_again_a_minute_later(tmp_path: Path, clock: HandClock) -> None:
    async with house(tmp_path, clock, queue_max=1) as runtime:
        made = await make(runtime)
        done = await run(runtime, "sessions", "close", caller=ANA, ids=["3"])
        waiting = msgspec.structs.replace(
            await _job_row(runtime, done.id),
            id="0WAITS", status=Status.RUNNING, finished_ms=None, outcome=None, cursor=0, succeeded=0,
            not_before_ms=clock.now_ms() + 10 * DAY_S * 1000,
        )  # fmt: skip
        await runtime.store.write(lambda tx: jobs.insert(tx, waiting))
        await pass_time(runtime, clock, 3 * 3600)
        seen = await result(runtime, made.id)
        assert (seen.last_result, seen.next_at) == ("QUEUE_FULL", "2026-01-01T03:01:00.000Z")
        await runtime.service.cancel(OWNER, "0WAITS")
        await pass_time(runtime, clock, 60)
        again = await result(runtime, made.id, seen.last_at)
        assert (again.last_result, again.next_at) == ("started", "2026-01-02T03:00:00.000Z")


async def test_what_is_due_is_bound_by_the_rate_too_and_comes_again_a_minute_later(
    runtime: Runtime, clock: HandClock
) -> None:
    made = await make(runtime, action="purge", filter=None, all=True, confirm="PURGE")
    clock.advance(3 * 3600)
    body = StartBody(all=True, confirm="PURGE")
    await rested(runtime, (await runtime.service.start(ANA, "sessions", "purge", body)).id)
    runtime.scheduler.ring()
    seen = await result(runtime, made.id)
    assert (seen.last_result, seen.next_at) == ("RATE_LIMITED", "2026-01-01T03:01:00.000Z")
    await pass_time(runtime, clock, 60)
    seen = await result(runtime, made.id, seen.last_at)
    assert (seen.last_result, seen.next_at) == ("started", "2026-01-02T03:00:00.000Z")
    await rested(runtime, seen.last_job or "")
    with pytest.raises(Refusal, match="at most 1/minute"):
        await runtime.service.schedule_run(ANA, made.id)


async def test_many_schedules_are_no_way_around_the_rate(runtime: Runtime, clock: HandClock) -> None:
    wishes: dict[str, Any] = {"action": "purge", "filter": None, "all": True, "confirm": "PURGE"}
    made = [await make(runtime, **wishes) for _ in range(5)]
    await pass_time(runtime, clock, 3 * 3600)
    seen = [await result(runtime, each.id) for each in made]
    assert sorted(each.last_result or "" for each in seen)[-1:] == ["started"]
    assert sum(each.last_result == "started" for each in seen) == 1


async def test_revoking_the_key_ends_what_was_made_with_it(runtime: Runtime, clock: HandClock) -> None:
    key, _ = await runtime.store.write(
        lambda tx: credentials.create_key(tx, user="ana", role="admin", tenant="acme")
    )
    token, _ = await runtime.store.write(
        lambda tx: credentials.create(
            tx, kind="token", user="ana", tenant="acme", roles=["admin"], parent=key.id
        )
    )
    direct = await make(runtime, key.caller())
    through = await make(runtime, token.caller())
    untouched = await make(runtime)
    await runtime.credentials.revoke(key.id)
    found = await listed(runtime)
    assert [(found[each.id].enabled, found[each.id].last_result) for each in (direct, through)] == [
        (False, "revoked")
    ] * 2
    assert found[untouched.id].enabled
    await pass_time(runtime, clock, 3 * 3600)
    await result(runtime, untouched.id)
    assert len(await jobs_of(runtime)) == 1


async def test_a_schedule_does_not_outlive_the_key_that_it_was_made_with(
    runtime: Runtime, clock: HandClock
) -> None:
    day, _ = await runtime.store.write(
        lambda tx: credentials.create_key(tx, user="ana", role="admin", tenant="acme", ttl_s=DAY_S)
    )
    backend, _ = await runtime.store.write(
        lambda tx: credentials.create_key(tx, user="backend", role="service")
    )
    minutes, _ = await runtime.store.write(
        lambda tx: credentials.create(
            tx, kind="token", user="ana", tenant="acme", roles=["admin"], parent=backend.id,
            expires_ms=tx.now_ms + 900_000,
        )
    )  # fmt: skip
    direct, through = await make(runtime, day.caller()), await make(runtime, minutes.caller())
    await pass_time(runtime, clock, 3 * 3600)
    seen = {each.id: await result(runtime, each.id) for each in (direct, through)}
    assert {each.last_result for each in seen.values()} == {"started"}
    for each in seen.values():
        await rested(runtime, each.last_job or "")
    await pass_time(runtime, clock, DAY_S)
    again = [await result(runtime, each.id, seen[each.id].last_at) for each in (direct, through)]
    # A token of minutes hands on what its key allows, and that key is still good.
    assert [each.last_result for each in again] == ["revoked", "started"]


async def test_the_audit_knows_who_made_what_and_which_job_came_of_it(
    runtime: Runtime, clock: HandClock
) -> None:
    made = await make(runtime)
    await pass_time(runtime, clock, 3 * 3600)
    seen = await result(runtime, made.id)
    await rested(runtime, seen.last_job or "")
    await runtime.service.schedule_delete(ANA, made.id)
    page = await runtime.service.audit(ANA, job=None, limit=50, page=None)
    about = {row["verb"]: row for row in page["items"] if row["detail"].get("schedule") == made.id}
    assert set(about) == {"schedule_created", "start", "schedule_deleted"}
    assert (about["start"]["job"], about["start"]["user"]) == (seen.last_job, "ana")


async def test_a_job_and_the_step_to_the_next_slot_are_written_together_or_not_at_all(
    runtime: Runtime, clock: HandClock
) -> None:
    made = await make(runtime)
    row = await runtime.store.read(lambda connection: schedules.get(connection, made.id))
    assert row is not None
    clock.advance(3 * 3600)
    await runtime.service.fire(row)
    await runtime.service.fire(row)  # a second one that saw the same row
    await runtime.service.fire(msgspec.structs.replace(row, next_ms=1))
    assert len(await jobs_of(runtime)) == 1


async def test_a_fault_between_the_step_and_the_job_leaves_it_due(
    runtime: Runtime, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(runtime)
    row = await runtime.store.read(lambda connection: schedules.get(connection, made.id))
    assert row is not None
    clock.advance(3 * 3600)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(jobs, "insert", full)
        with pytest.raises(sqlite3.OperationalError):
            await runtime.service.fire(row)
    assert await runtime.store.read(lambda connection: schedules.get(connection, made.id)) == row
    await runtime.service.fire(row)
    assert len(await jobs_of(runtime)) == 1


# --- declared in the configuration -------------------------------------------------------------------


def declared(folder: Path, **sections: dict[str, Any]) -> Any:
    base = settings_for(folder, {"sessions": SESSIONS})
    made = from_dict(
        {
            "resources": {"sessions": {"kind": "table", "database": "app.db", **SESSIONS}},
            "schedules": sections,
        },
        folder,
        {},
    )
    return msgspec.structs.replace(base, schedules=made.schedules)


NIGHTLY = {"resource": "sessions", "action": "delete", "filter": OLD, "cron": "0 3 * * *", "tenant": "acme"}


@asynccontextmanager
async def declaring(folder: Path, clock: HandClock, **sections: dict[str, Any]) -> AsyncIterator[Runtime]:
    if not (folder / "app.db").exists():
        make_database(folder / "app.db", SCHEMA)
    async with open_runtime(declared(folder, **sections), clock=clock) as runtime:
        yield runtime


async def test_declared_schedules_fire_are_kept_over_restarts_and_go_with_their_section(
    tmp_path: Path, clock: HandClock
) -> None:
    async with declaring(tmp_path, clock, nightly=NIGHTLY) as runtime:
        view = (await listed(runtime))["nightly"]
        assert (view.origin, view.tenant, view.created_by) == ("config", "acme", "config")
        with pytest.raises(Refusal) as caught:
            await runtime.service.schedule_delete(OWNER, "nightly")
        assert caught.value.code == "ILLEGAL_TRANSITION"
    clock.advance(2 * DAY_S)
    async with declaring(tmp_path, clock, nightly={**NIGHTLY, "reason": "changed"}) as runtime:
        seen = await result(runtime, "nightly")
        job = await rested(runtime, seen.last_job or "")
        assert (job.succeeded, job.reason, job.tenant) == (1, "changed", "acme")
        assert len(await jobs_of(runtime)) == 1
    async with declaring(tmp_path, clock, nightly={**NIGHTLY, "cron": "0 5 * * *"}) as runtime:
        moved = (await listed(runtime))["nightly"]
        assert (moved.next_at, moved.last_job) == ("2026-01-03T05:00:00.000Z", seen.last_job)
    async with declaring(tmp_path, clock) as runtime:
        assert "nightly" not in await listed(runtime)


async def test_a_declared_schedule_is_not_bound_by_the_rate_and_means_every_nought_it_says(
    tmp_path: Path, clock: HandClock
) -> None:
    purge = {"resource": "sessions", "action": "purge", "all": True, "confirm": "PURGE", "cron": "0 3 * * *"}
    async with declaring(tmp_path, clock, purging={**purge, "priority": 0, "throttle_ms": 0}) as runtime:
        clock.advance(3 * 3600)
        body = StartBody(all=True, confirm="PURGE")
        await rested(runtime, (await runtime.service.start(OWNER, "sessions", "purge", body)).id)
        runtime.scheduler.ring()
        seen = await result(runtime, "purging")
        assert (seen.last_result, seen.body["priority"], seen.body["throttle_ms"]) == ("started", 0, 0)
        assert (await rested(runtime, seen.last_job or "")).priority == 0


async def test_a_declared_schedule_that_cannot_be_started_stops_the_start(
    tmp_path: Path, clock: HandClock
) -> None:
    for section in (
        {"action": "explode"},
        {"filter": {"secret": 1}},
        {"action": "purge"},
        {"options": {"x": 1}},
    ):
        with pytest.raises(ConfigError, match=r"schedules\.nightly"):
            async with declaring(tmp_path, clock, nightly={**NIGHTLY, **section}):
                pass


async def test_a_declared_schedule_waits_for_a_database_that_is_not_there(
    tmp_path: Path, clock: HandClock
) -> None:
    async with declaring(tmp_path, clock, nightly=NIGHTLY) as runtime:
        assert "nightly" in await listed(runtime)
    (tmp_path / "app.db").rename(tmp_path / "away.db")
    for leftover in tmp_path.glob("app.db-*"):
        leftover.unlink()
    clock.advance(DAY_S)
    async with open_runtime(declared(tmp_path, nightly=NIGHTLY), clock=clock) as runtime:
        seen = await result(runtime, "nightly")
        assert seen.last_result == "QUEUE_FULL"


async def test_after_a_restore_nothing_is_made_up_for(tmp_path: Path, clock: HandClock) -> None:
    async with declaring(tmp_path, clock, nightly=NIGHTLY):
        pass
    with closing(sqlite3.connect(tmp_path / "bulkops.db")) as connection, connection:
        connection.execute("INSERT INTO meta VALUES ('backup_ms', '1')")
    clock.advance(2 * DAY_S)
    async with declaring(tmp_path, clock, nightly=NIGHTLY) as runtime:
        await runtime.scheduler.look()
        view = (await listed(runtime))["nightly"]
        assert (view.last_at, view.next_at) == (None, "2026-01-03T03:00:00.000Z")
        await pass_time(runtime, clock, 3 * 3600)
        assert (await result(runtime, "nightly")).last_result == "started"


# --- what the README says -----------------------------------------------------------------------------

README = (Path(bulkops.__file__).parents[1] / "README.md").read_text(encoding="utf-8")

README_RESOURCES = """
[resources.sessions]
kind = "table"
database = "app.db"
table = "sessions"
id = "id"
search = ["closed_at"]

[resources.receipts]
kind = "table"
database = "app.db"
table = "receipts"
id = "id"
soft_delete = "deleted_at"
search = ["deleted_at"]
[resources.receipts.actions.purge]
confirm = "PURGE"
"""
README_SCHEMA = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY, closed_at TEXT);
INSERT INTO sessions (closed_at) VALUES ('2025-10-04T01:00:00+00:00'), ('2025-10-04T03:00:00+00:00'), (NULL);
CREATE TABLE receipts (id INTEGER PRIMARY KEY, deleted_at TEXT);
INSERT INTO receipts (deleted_at) VALUES ('2025-12-03T01:00:00+00:00'), ('2025-12-03T03:00:00+00:00'), (NULL)
"""


async def test_the_examples_of_the_readme_do_what_it_says(tmp_path: Path, clock: HandClock) -> None:
    block = next(block for block in README.split("```toml\n")[1:] if "[schedules." in block).partition("```")[
        0
    ]
    (tmp_path / "bulkops.toml").write_text(README_RESOURCES + block)
    make_database(tmp_path / "app.db", README_SCHEMA)
    async with open_runtime(load(tmp_path / "bulkops.toml", {}), clock=clock) as runtime:
        # 03:00 and 03:30 in Madrid, on the 2nd of January.
        await pass_time(runtime, clock, DAY_S + 2 * 3600 + 1800)
        for name in ("old-sessions", "empty-trash"):
            seen = await result(runtime, name)
            assert (await rested(runtime, seen.last_job or "")).succeeded == 1, name
    assert execute(tmp_path / "app.db", "SELECT id FROM sessions") == [(2,), (3,)]
    assert execute(tmp_path / "app.db", "SELECT id FROM receipts") == [(2,), (3,)]


async def test_the_chores_are_those_that_the_readme_names(runtime: Runtime) -> None:
    told = README.partition("whose items are chores: ")[2].partition(". ")[0]
    assert tuple(re.findall(r"`(\w+)`", told)) == runtime.janitor.names


# --- a process that is killed -------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from pathlib import Path
from bulkops.runtime import open_runtime
from bulkops.configuration import load

async def main():
    async with open_runtime(load(Path(sys.argv[1]), {})):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

CONFIG = """
[resources.sessions]
kind = "table"
database = "app.db"
table = "sessions"
id = "id"
search = ["status"]

[schedules.often]
resource = "sessions"
action = "delete"
filter = { status = "never" }
every = "1h"
"""


class Killed:
    """An installation whose server runs in a process of its own, for as long as a test lets it."""

    def __init__(self, folder: Path) -> None:
        make_database(folder / "app.db", SCHEMA)
        self.config = folder / "bulkops.toml"
        self.config.write_text(CONFIG)
        self.database = folder / "bulkops.db"

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask our database, which nobody but this process has open now."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server while the block runs, then kill it at once."""
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(self.config)], stdout=subprocess.PIPE)
        with child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == b"up\n"
                yield
            finally:
                child.kill()

    def now(self) -> tuple[int, str | None, bool]:
        """Return how many jobs there are, what the schedule's last one is, and whether it is still due."""
        ((count,),) = self.ask("SELECT count(*) FROM jobs WHERE resource = 'sessions'")
        ((last, due),) = self.ask(
            "SELECT last_job, next_ms = 1 FROM schedules WHERE id = 'often' AND next_ms IS NOT NULL"
        )
        return count, last, bool(due)

    def settle(self) -> None:
        """Run the server until the job of the due slot has ended."""
        with self.running():
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                    ((busy, due),) = connection.execute(
                        "SELECT (SELECT count(*) FROM jobs WHERE finished_ms IS NULL), next_ms = 1"
                        " FROM schedules WHERE id = 'often'"
                    ).fetchall()
                if not busy and not due:
                    return
                time.sleep(0.02)
            pytest.fail("the slot was never seen to")


def kill_around_firing(folder: Path, rounds: int) -> None:
    house = Killed(folder)
    with house.running():
        pass
    chance = random.Random(7)
    early = 0
    for number in range(rounds):
        assert house.now()[0] == number
        house.ask("UPDATE schedules SET next_ms = 1 WHERE id = 'often'")
        with house.running():
            time.sleep(chance.uniform(0, 0.03))
        count, last, due = house.now()
        # The job and the step to the next slot are there, or neither is.
        assert (count, due) in {(number, True), (number + 1, False)}
        assert due or house.ask("SELECT id FROM jobs ORDER BY id DESC LIMIT 1") == [(last,)]
        early += due
        house.settle()
    assert house.now()[0] == rounds
    print(f"killed {rounds} times, {early} of them before the slot was seen to")


def test_killed_around_firing_a_slot_is_neither_lost_nor_run_twice(tmp_path: Path) -> None:
    kill_around_firing(tmp_path, 4)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_killed_around_firing_a_hundred_times(tmp_path: Path) -> None:
    kill_around_firing(tmp_path, 100)
