"""Outcomes are derived from manifest, exceptions and cursor, and from nothing else."""

from __future__ import annotations

import random
from functools import partial

import pytest

from bulkops.effects import Id, ItemException
from bulkops.models import ItemResult
from bulkops.store import outcomes
from bulkops.store.jobs import JobRow
from bulkops.store.outcomes import OUTCOMES, Results
from bulkops.store.store import Store
from tests.store_house import a_job, stored


def failed(position: int, item: str, code: str = "CONSTRAINT") -> ItemException:
    return ItemException(position, item, "failed", code, f"{code} at {position}")


def skipped(position: int, item: str) -> ItemException:
    return ItemException(position, item, "skipped", "INELIGIBLE", "it is busy")


async def _page(
    store: Store, job: JobRow, outcome: str | None = None, position: int = 0, limit: int = 1000
) -> Results:
    return await store.read(
        lambda connection: outcomes.page(connection, job, outcome=outcome, position=position, limit=limit)
    )


async def _all(store: Store, job: JobRow, outcome: str | None, limit: int) -> list[ItemResult]:
    found: list[ItemResult] = []
    position: int | None = 0
    while position is not None:
        page = await _page(store, job, outcome, position, limit)
        assert len(page.items) <= limit
        assert page.following is None or page.following > position
        found += page.items
        position = page.following
    return found


async def test_what_the_cursor_passed_without_an_exception_succeeded(store: Store) -> None:
    job = a_job("paused", total=4, cursor=3, succeeded=1, failed=1, skipped=1)
    exceptions = [failed(0, "10"), skipped(2, "30"), skipped(3, "40")]
    await stored(store, job, [10, 20, 30, 40], exceptions)
    assert (await _page(store, job)).items == [
        ItemResult("10", "failed", "CONSTRAINT", "CONSTRAINT at 0"),
        ItemResult("20", "succeeded", None, None),
        ItemResult("30", "skipped", "INELIGIBLE", "it is busy"),
        ItemResult("40", "unprocessed", None, None),
    ]


async def test_exceptions_known_ahead_of_the_cursor_are_not_told(store: Store) -> None:
    job = a_job("running", total=2, cursor=0)
    await stored(store, job, [1, 2], [skipped(0, "1"), failed(1, "2")])
    assert (await _page(store, job, "skipped")).items == []
    assert [item.id for item in (await _page(store, job, "unprocessed")).items] == ["1", "2"]
    assert await store.read(lambda connection: outcomes.error_groups(connection, job)) == []


async def test_a_manifest_that_is_not_frozen_has_no_items_yet(store: Store) -> None:
    job = a_job("preparing")
    await stored(store, job, [1, 2])
    assert await _page(store, job) == Results([], None)


async def test_ids_are_written_as_clients_know_them(store: Store) -> None:
    job = a_job(total=4, cursor=4, resource="mixed")
    await stored(store, job, [7, "a,b", ["x,y", 5], ["ä", "%"]])
    assert [item.id for item in (await _page(store, job)).items] == ["7", "a,b", "x%2Cy,5", "%C3%A4,%25"]


@pytest.mark.parametrize("outcome", [None, *OUTCOMES])
@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_pages_of_any_size_add_up_to_the_same_list(
    store: Store, outcome: str | None, limit: int
) -> None:
    rng = random.Random(5)
    total, cursor = 4500 if limit > 1 else 300, 4100 if limit > 1 else 210
    ids: list[Id] = [f"item-{place}" for place in range(total)]
    fates = {place: rng.choice(["failed", "skipped", "ok", "ok"]) for place in range(cursor)}
    exceptions = [
        ItemException(place, f"item-{place}", fate, "CODE", "m")
        for place, fate in fates.items()
        if fate != "ok"
    ]
    lost = sum(fate == "failed" for fate in fates.values())
    passed_over = sum(fate == "skipped" for fate in fates.values())
    job = a_job(
        "paused",
        total=total,
        cursor=cursor,
        failed=lost,
        skipped=passed_over,
        succeeded=cursor - lost - passed_over,
    )
    await stored(store, job, ids, exceptions)
    expected = [
        (f"item-{place}", {"ok": "succeeded"}.get(fate, fate))
        for place, fate in {**dict.fromkeys(range(total), "unprocessed"), **fates}.items()
    ]
    wanted = [pair for pair in expected if outcome is None or pair[1] == outcome]
    assert [(item.id, item.outcome) for item in await _all(store, job, outcome, limit)] == wanted


async def test_a_search_for_the_rare_success_stops_after_a_while_and_names_where_to_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "_MAX_CHUNKS", 1)
    total = 4001
    job = a_job(total=total, failed=total - 1, succeeded=1, outcome="partial")
    await stored(store, job, list(range(total)), [failed(place, str(place)) for place in range(total - 1)])
    assert await _page(store, job, "succeeded", limit=10) == Results([], 2000)
    assert [item.id for item in await _all(store, job, "succeeded", 10)] == ["4000"]


async def test_failures_are_grouped_by_code_the_most_frequent_first(store: Store) -> None:
    job = a_job(total=6, failed=4, skipped=1, succeeded=1, outcome="partial")
    exceptions = [
        failed(1, "b", "IO_ERROR"),
        failed(2, "c"),
        skipped(3, "d"),
        failed(4, "e", "IO_ERROR"),
        failed(5, "f", "IO_ERROR"),
    ]
    await stored(store, job, ["a", "b", "c", "d", "e", "f"], exceptions)
    groups = await store.read(lambda connection: outcomes.error_groups(connection, job))
    assert [(group.code, group.count, group.first_item, group.sample_message) for group in groups] == [
        ("IO_ERROR", 3, "b", "IO_ERROR at 1"),
        ("CONSTRAINT", 1, "c", "CONSTRAINT at 2"),
    ]


async def test_a_manifest_that_is_going_is_an_error_not_a_short_answer(store: Store) -> None:
    job = a_job()
    await stored(store, job)
    with pytest.raises(LookupError, match="no manifest"):
        await _page(store, job)


@pytest.mark.parametrize(
    ("ids", "item"),
    [
        ([1, 5, 9], "5"),
        (["1", "5", "9"], "5"),
        ([["a", 1], ["5", 1]], "5,1"),
        ([["x,y", "z"], ["q", "z"]], "x%2Cy,z"),
        ([1, "mixed", 5], "5"),
        (["-0", "05"], "05"),
        ([-(2**63)], str(-(2**63))),
    ],
)
async def test_one_item_is_found_whatever_its_native_form(store: Store, ids: list[Id], item: str) -> None:
    job = await stored(store, a_job(total=len(ids)), ids)
    found = await store.read(lambda connection: outcomes.of_item(connection, job, item))
    assert found == ItemResult(item, "succeeded", None, None)


@pytest.mark.parametrize("item", ["4", "55", "", "5,5", "9" * 19, "9" * 40, "1,2,3,4,5,6", "a\0b", '"'])
async def test_an_item_that_is_not_the_jobs_is_not_found(store: Store, item: str) -> None:
    job = await stored(store, a_job(), [1, 5, 9])
    texts = await stored(store, a_job(), ["1", "5", "9"])
    for each in (job, texts):
        assert await store.read(partial(outcomes.of_item, job=each, item=item)) is None


async def test_an_item_that_was_not_reached_was_not_touched(store: Store) -> None:
    job = a_job("cancelled", total=3, cursor=2, succeeded=1, failed=1)
    await stored(store, job, [1, 2, 3], [failed(1, "2")])
    found = [await store.read(partial(outcomes.of_item, job=job, item=item)) for item in ("1", "2", "3")]
    assert [each and each.outcome for each in found] == ["succeeded", "failed", None]
