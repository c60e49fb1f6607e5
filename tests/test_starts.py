"""Starting a job: each guard, and a row that says what was accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.errors import Refusal
from bulkops.models import StartBody
from bulkops.runtime import Offline, open_offline
from bulkops.store import jobs
from tests.conftest import HandClock
from tests.engine_house import OWNER, execute, make_database, settings_for
from tests.store_house import a_caller

SCRIPT = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, at TEXT);"
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1500)"
    "INSERT INTO t SELECT i, 'v' || (i % 2), '2020-01-01 00:00:00' FROM n;"
)
RESOURCE = {
    "table": "t",
    "id": "id",
    "search": ["v", "at", "id"],
    "set": ["v"],
    "actions": {
        "delete": {"rate": "2/minute", "max_items": 1400, "batch_size": 7, "throttle_ms": 3},
        "set": {"exclusive": True, "confirm": "SET"},
    },
}


@pytest.fixture
async def house(tmp_path: Path, clock: HandClock) -> AsyncIterator[Offline]:
    make_database(tmp_path / "app.db", SCRIPT)
    async with open_offline(settings_for(tmp_path, {"things": RESOURCE}), clock=clock) as opened:
        yield opened


async def start(house: Offline, action: str = "delete", caller: Any = OWNER, **body: Any) -> Any:
    return await house.service.start(caller, "things", action, msgspec.convert(body, StartBody))


async def refusal(house: Offline, action: str = "delete", caller: Any = OWNER, **body: Any) -> Refusal:
    with pytest.raises(Refusal) as raised:
        await start(house, action, caller, **body)
    return raised.value


async def test_a_small_selection_is_frozen_at_once_and_a_large_one_later(house: Offline) -> None:
    small = await start(house, filter={"id": {"lte": 1000}})
    assert (small.status, small.total) == ("queued", 1000)
    large = await start(house, filter={"id": {"lte": 1001}})
    assert (large.status, large.total) == ("preparing", None)


async def test_nothing_that_matches_is_fine(house: Offline) -> None:
    job = await start(house, filter={"v": "nobody"})
    assert (job.status, job.total, job.percent) == ("queued", 0, 100.0)


async def test_wishes_go_before_settings_and_settings_before_nothing(house: Offline) -> None:
    plain = await start(house, ids=["1"])
    wished = await start(house, ids=["1"], batch_size=9, reason="why", label="mine", priority=50)
    assert (plain.batch_size, wished.batch_size) == (7, 9)
    assert (wished.reason, wished.label, wished.priority) == ("why", "mine", 50)
    row = await house.store.read(lambda connection: jobs.get(connection, wished.id))
    assert row is not None
    assert row.knobs.throttle_ms == 3


async def test_a_rate_is_counted_from_the_jobs_and_passes_with_time(house: Offline, clock: HandClock) -> None:
    for _ in range(2):
        await start(house, ids=["1"])
        clock.advance(10)
    refused = await refusal(house, ids=["1"])
    assert (refused.code, refused.headers["Retry-After"]) == ("RATE_LIMITED", "40")
    assert refused.headers["RateLimit-Policy"] == '"delete";q=2;w=60'
    clock.advance(41)
    await start(house, ids=["1"])


async def test_a_clock_set_back_by_a_day_shuts_nobody_out_for_a_day(house: Offline, clock: HandClock) -> None:
    for _ in range(2):
        await start(house, ids=["1"])
    clock.advance(-2)
    assert (await refusal(house, ids=["1"])).code == "RATE_LIMITED"
    clock.advance(-86_400)
    for _ in range(2):
        await start(house, ids=["1"])
    assert (await refusal(house, ids=["1"])).code == "RATE_LIMITED"


async def test_a_refused_start_costs_no_rate(house: Offline) -> None:
    for _ in range(5):
        assert (await refusal(house, ids=["x"])).code == "INVALID_FIELD"
    await start(house, ids=["1"])


async def test_more_than_the_action_takes_is_refused(house: Offline) -> None:
    assert (await refusal(house, all=True, expected_count=1500)).code == "TOO_MANY_ITEMS"
    assert (await refusal(house, ids=[str(number) for number in range(1001)])).code == "TOO_MANY_ITEMS"


async def test_an_exclusive_action_is_active_once_and_its_word_is_asked_for(house: Offline) -> None:
    body = {"ids": ["1"], "options": {"set": {"v": "x"}}}
    assert (await refusal(house, "set", **body)).code == "CONFIRMATION_REQUIRED"
    first = await start(house, "set", confirm="SET", **body)
    refused = await refusal(house, "set", confirm="SET", **body)
    assert (refused.code, refused.extra["active_job"]) == ("JOB_ACTIVE", first.id)
    await house.service.cancel(OWNER, first.id)
    await start(house, "set", confirm="SET", **body)


async def test_relative_times_are_resolved_once(house: Offline) -> None:
    job = await start(house, filter={"at": {"lt": "-30d"}, "id": {"lt": 5}})
    assert job.selection.filter == {"at": {"lt": "2025-12-02 00:00:00"}, "id": {"lt": 5}}
    assert job.total == 4


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"ids": ["1"], "priority": -1}, "/priority"),
        ({"ids": ["1"], "throttle_ms": 600_001}, "/throttle_ms"),
        ({"ids": ["1"], "canary": 0}, "/canary"),
        ({"ids": ["1"], "reason": ""}, "/reason"),
        ({"ids": ["1"], "label": "x" * 201}, "/label"),
        ({"ids": ["1"], "failure_threshold": {"min_items": 0}}, "/failure_threshold/min_items"),
        ({"ids": ["1"], "failure_threshold": {"max_ratio": 1.5}}, "/failure_threshold/max_ratio"),
        ({"ids": ["1"], "run_at": "2026-01-01T00:00:00"}, "/run_at"),
        ({"ids": ["1"], "run_at": "2025-12-31T23:58:00Z"}, "/run_at"),
        ({"all": True, "exclude_ids": ["x"]}, "/exclude_ids/0"),
    ],
)
async def test_a_number_out_of_range_is_refused_at_its_place(
    house: Offline, body: dict[str, Any], pointer: str
) -> None:
    refused = await refusal(house, caller=a_caller(role="operator"), **body)
    assert refused.code == "INVALID_FIELD"
    assert refused.extra["errors"][0]["pointer"] == pointer


async def test_a_job_may_wait_for_years(house: Offline) -> None:
    job = await start(house, ids=["1"], run_at="2099-01-01T00:00:00Z")
    assert (job.status, job.run_at, job.total) == ("scheduled", "2099-01-01T00:00:00.000Z", 1)


async def test_an_admin_may_go_before_others(house: Offline) -> None:
    refused = await refusal(house, caller=a_caller(role="operator"), ids=["1"], priority=101)
    assert (refused.code, refused.detail) == ("FORBIDDEN", "priorities above 100 need the role admin")
    assert (await start(house, caller=a_caller(role="admin"), ids=["1"], priority=1000)).priority == 1000


async def test_the_application_may_be_read_only_while_a_job_is_accepted(
    house: Offline, tmp_path: Path
) -> None:
    rows = execute(tmp_path / "app.db", "SELECT count(*) FROM t")
    await start(house, ids=["1", "2"])
    assert execute(tmp_path / "app.db", "SELECT count(*) FROM t") == rows
