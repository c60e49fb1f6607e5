"""Uploaded selections: kept for a day, for those who may see them, without repetitions."""

from __future__ import annotations

import sqlite3
from functools import partial

import pytest

from bulkops.database import open_scratch
from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.store import selections
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import a_caller, ids_of


async def _uploaded(store: Store, chunks: list[list[str]], *, tenant: str | None = "acme") -> None:
    await store.write(lambda tx: selections.begin(tx, "S", tenant=tenant, requested_by="ana"))
    for chunk in chunks:
        await store.write(partial(selections.add, selection_id="S", ids=chunk))


async def test_ids_come_back_in_their_order_and_are_counted(store: Store) -> None:
    await _uploaded(store, [["3", "1"], [], ["a,b", "2"]])
    assert await store.read(lambda connection: ids_of(connection, "S")) == [
        "3",
        "1",
        "a,b",
        "2",
    ]
    row = await store.read(lambda connection: selections.get(connection, "S"))
    assert row is not None
    assert row.count == 4
    assert await store.read(lambda connection: selections.chunk_at(connection, "S", 2)) == ["a,b", "2"]
    assert await store.read(lambda connection: selections.chunk_at(connection, "S", 4)) == []


async def test_the_ids_of_an_unknown_selection_are_none(store: Store) -> None:
    assert await store.read(lambda connection: ids_of(connection, "S")) == []


async def _refusal(store: Store, caller: Caller, selection_id: str = "S") -> tuple[str, str]:
    now_ms = store.clock.now_ms()
    with pytest.raises(Refusal) as refusal:
        await store.read(lambda connection: selections.take(connection, selection_id, caller, now_ms=now_ms))
    assert refusal.value.extra["errors"][0]["pointer"] == "/selection_id"
    return refusal.value.code, refusal.value.detail


async def test_a_strangers_selection_is_refused_like_one_that_never_was(store: Store) -> None:
    await _uploaded(store, [["1"]])
    unknown = await _refusal(store, a_caller("ana", "viewer", "acme"), "T")
    assert unknown[0] == "NOT_FOUND"
    assert await _refusal(store, a_caller("ana", "owner", "rival")) == unknown
    assert await _refusal(store, a_caller("bob", "operator", "acme")) == unknown


async def test_whoever_uploaded_it_and_admins_of_the_tenant_may_use_it(store: Store) -> None:
    await _uploaded(store, [["1"]])
    for caller in (a_caller("ana", "operator", "acme"), a_caller("bob", "admin", "acme")):
        row = await store.read(
            partial(selections.take, selection_id="S", caller=caller, now_ms=store.clock.now_ms())
        )
        assert row.count == 1


async def test_after_a_day_it_has_expired_but_for_strangers_it_never_was(
    store: Store, clock: HandClock
) -> None:
    await _uploaded(store, [["1"]])
    clock.advance(24 * 3600)
    assert (await _refusal(store, a_caller("ana", "operator", "acme")))[0] == "EXPIRED"
    assert (await _refusal(store, a_caller("ana", "operator", "rival")))[0] == "NOT_FOUND"


async def test_an_abandoned_upload_cannot_be_used(store: Store) -> None:
    await _uploaded(store, [["1"]])
    await store.write(lambda tx: selections.abandon(tx, "S"))
    assert (await _refusal(store, a_caller("ana", "operator", "acme")))[0] == "EXPIRED"


async def test_adding_to_a_selection_that_is_gone_leaves_no_chunk(store: Store) -> None:
    await store.write(lambda tx: selections.add(tx, "S", ["1"]))
    assert await store.read(lambda connection: selections.chunk_at(connection, "S", 0)) == []


def test_ids_seen_before_are_told_across_chunks() -> None:
    scratch: sqlite3.Connection = open_scratch()
    try:
        selections.begin_unseen(scratch)
        assert selections.unseen(scratch, ["b", "a", "b"]) == ["b", "a"]
        assert selections.unseen(scratch, ["c", "a", "A", "1", "01"]) == ["c", "A", "1", "01"]
        assert selections.unseen(scratch, ["1", "b"]) == []
    finally:
        scratch.close()
