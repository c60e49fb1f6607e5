"""What there is to act on, as callers see it; previews change nothing and say what a start would refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.errors import Refusal
from bulkops.models import ItemsQuery, JobsQuery, StartBody, ValidateBody
from bulkops.runtime import Offline, open_offline
from tests.conftest import HandClock
from tests.engine_house import OWNER, dump, make_database, settings_for
from tests.store_house import a_caller

SCRIPT = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, who TEXT, status TEXT, v);"
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
    "INSERT INTO t SELECT i, CASE WHEN i <= 1100 THEN 'a' ELSE 'b' END, iif(i % 10, 'open', 'busy'), i FROM n;"
    "CREATE TABLE k (t INTEGER REFERENCES t ON DELETE CASCADE); INSERT INTO k SELECT id FROM t WHERE id < 5;"
    "CREATE VIEW w AS SELECT * FROM t;"
)
RESOURCES = {
    "things": {
        "table": "t",
        "id": "id",
        "tenant": "who",
        "search": ["v", "id"],
        "status": {"column": "status", "closed": "closed", "busy": ["busy"]},
        "actions": {
            "delete": {"confirm": "YES", "rate": "1/minute", "exclusive": True},
            "close": {"max_items": 50},
        },
    },
    "view": {"table": "w", "id": "id"},
}


@pytest.fixture
async def house(tmp_path: Path, clock: HandClock) -> AsyncIterator[Offline]:
    make_database(tmp_path / "app.db", SCRIPT)
    async with open_offline(settings_for(tmp_path, RESOURCES), clock=clock) as opened:
        yield opened


async def preview(house: Offline, caller: Any = OWNER, **body: Any) -> Any:
    return await house.service.validate(caller, "things", msgspec.convert(body, ValidateBody))


async def test_a_caller_sees_the_actions_of_his_role(house: Offline) -> None:
    def actions(found: list[dict[str, Any]]) -> dict[str, list[str]]:
        return {each["name"]: [action["name"] for action in each["actions"]] for each in found}

    assert actions(await house.service.catalog(OWNER)) == {
        "things": ["delete", "close", "export"],
        "view": ["export"],
    }
    assert actions(await house.service.catalog(a_caller(role="viewer", tenant="a"))) == {"things": []}


async def test_what_only_makes_a_file_has_nothing_to_undo(house: Offline) -> None:
    things = (await house.service.catalog(OWNER))[0]
    undoable = {each["name"]: each["undoable"] for each in things["actions"]}
    assert undoable == {"delete": True, "close": True, "export": False}


async def test_an_action_that_changes_a_view_does_not_exist(house: Offline) -> None:
    with pytest.raises(Refusal) as raised:
        await house.service.start(OWNER, "view", "delete", StartBody(all=True))
    assert raised.value.code == "NOT_FOUND"
    assert (await house.service.items(OWNER, "view", ItemsQuery(limit=2)))["total"] == 1200


async def test_counts_and_lists_are_the_tenants(house: Offline) -> None:
    bob = a_caller("bob", "viewer", tenant="b")
    info = await house.service.info(bob, "things")
    assert info["counts"] == {"total": 100, "by_status": {"open": 90, "busy": 10}, "deleted": None}
    page = await house.service.items(bob, "things", ItemsQuery(limit=1000))
    assert {item["row"]["who"] for item in page["items"]} == {"b"}
    assert (page["total"], page["next"]) == (100, None)


async def test_pages_of_items_follow_each_other_and_a_token_belongs_to_its_list(house: Offline) -> None:
    first = await house.service.items(OWNER, "things", ItemsQuery(limit=700, sort="-v"))
    second = await house.service.items(OWNER, "things", ItemsQuery(limit=700, sort="-v", page=first["next"]))
    ids = [item["id"] for page in (first, second) for item in page["items"]]
    assert ids == [str(number) for number in range(1200, 0, -1)]
    for sort, token in (("v", first["next"]), ("-v", "AAAA"), ("-v", "")):
        with pytest.raises(Refusal) as raised:
            await house.service.items(OWNER, "things", ItemsQuery(sort=sort, page=token))
        assert raised.value.extra["errors"][0]["pointer"] == "/page"


async def test_a_preview_of_many_counts_all_and_shows_some(house: Offline, tmp_path: Path) -> None:
    before = dump(tmp_path / "app.db")
    found = await preview(house, action="delete", all=True)
    assert (found.matched, found.eligible_count, found.ineligible_count) == (1200, 1080, 120)
    assert (len(found.eligible), len(found.sample)) == (100, 100)
    assert found.impact.rows == {"t": 1080, "k": 4}
    assert (found.impact.files, found.impact.bytes) == (0, 0)
    assert found.confirm == "YES"
    assert [each.code for each in found.warnings] == ["CONFIRMATION_REQUIRED"]
    assert found.estimated_seconds > 0
    assert dump(tmp_path / "app.db") == before


async def test_a_preview_of_many_tells_why_the_unfit_ones_beyond_the_first_thousand_are(
    house: Offline,
) -> None:
    found = await preview(house, action="delete", all=True, exclude_ids=[str(n) for n in range(10, 1001, 10)])
    unfit = [each.id for each in found.ineligible]
    assert unfit == [str(n) for n in range(1010, 1201, 10)]
    assert found.ineligible_count == len(unfit)
    assert {each.code for each in found.ineligible} == {"INELIGIBLE"}


async def test_what_a_start_would_refuse_for_now_is_a_warning(house: Offline) -> None:
    await house.service.start(OWNER, "things", "delete", StartBody(ids=["1"], confirm="YES"))
    found = await preview(house, action="delete", ids=["2"], expected_count=5)
    assert [each.code for each in found.warnings] == [
        "CONFIRMATION_REQUIRED",
        "COUNT_CHANGED",
        "JOB_ACTIVE",
        "RATE_LIMITED",
    ]
    assert len((await house.service.jobs(OWNER, JobsQuery()))["items"]) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"action": "nothing", "all": True}, "NOT_FOUND"),
        ({"action": "delete"}, "EMPTY_SELECTION"),
        ({"action": "close", "all": True}, "TOO_MANY_ITEMS"),
        ({"action": "delete", "ids": ["x"]}, "INVALID_FIELD"),
        ({"action": "delete", "all": True, "options": {"x": 1}}, "INVALID_FIELD"),
    ],
)
async def test_everything_else_fails_where_the_start_would(house: Offline, body: Any, code: str) -> None:
    with pytest.raises(Refusal) as raised:
        await preview(house, **body)
    assert raised.value.code == code


async def test_a_final_delete_says_so(house: Offline) -> None:
    found = await preview(house, action="delete", ids=["1"], options={"hard": True}, confirm="YES")
    assert "FINAL" in [each.code for each in found.warnings]


async def test_a_preview_takes_all_that_a_start_takes(house: Offline) -> None:
    wishes: dict[str, Any] = {
        "ids": ["1"], "confirm": "YES", "reason": "why", "label": "mine", "priority": 7,
        "run_at": "2099-01-01T00:00:00Z",
        "batch_size": 5, "throttle_ms": 1, "max_items_per_second": 2.5, "max_items": 9, "canary": 1,
        "failure_threshold": {"min_items": 1, "max_ratio": 0.5}, "task_id": "T", "atomic": False, "expected_count": 1,
    }  # fmt: skip
    assert (await preview(house, action="delete", **wishes)).matched == 1
    for wrong in ({"run_at": "2000-01-01T00:00:00Z"}, {"priority": -1}, {"label": ""}, {"canary": 0}):
        with pytest.raises(Refusal) as refused:
            await preview(house, action="delete", **wishes | wrong)
        (name,) = wrong
        assert refused.value.extra["errors"][0]["pointer"] == f"/{name}"


async def test_a_preview_fails_where_the_line_is_full_or_a_task_is_anothers(
    tmp_path: Path, clock: HandClock
) -> None:
    make_database(tmp_path / "app.db", SCRIPT)
    async with open_offline(settings_for(tmp_path, RESOURCES, queue_max=1), clock=clock) as house:
        theirs = a_caller(tenant="b", user="bo", role="admin")
        await house.service.start(theirs, "things", "export", StartBody(ids=["1101"], task_id="T"))
        for more, code in (({"task_id": "T"}, "INVALID_FIELD"), ({}, "QUEUE_FULL")):
            with pytest.raises(Refusal) as refused:
                await preview(house, a_caller(tenant="a", role="admin"), action="export", ids=["1"], **more)
            assert refused.value.code == code
