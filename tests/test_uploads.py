"""Uploads: long lists arrive in pieces of any size and leave nothing behind when they break off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import anyio
import pytest

from bulkops.errors import Refusal
from bulkops.models import SelectionReceipt
from bulkops.service import uploads
from bulkops.store import selections
from bulkops.store.store import Store
from tests.store_house import a_caller, ids_of

ANA = a_caller("ana", "operator", "acme")


async def pieces(*lists: Iterable[str]) -> AsyncIterator[list[str]]:
    for each in lists:
        yield list(each)


async def _ids(store: Store, receipt: SelectionReceipt) -> list[str]:
    return await store.read(lambda connection: ids_of(connection, receipt.selection_id))


async def _usable(store: Store) -> int:
    rows = await store.read(
        lambda connection: connection.execute(
            "SELECT count(*) FROM selections WHERE expires_ms > 0"
        ).fetchone()
    )
    return int(rows[0])


async def test_repetitions_count_once_wherever_they_stand(store: Store) -> None:
    numbers = [str(number) for number in range(5000)]
    receipt = await uploads.upload(store, ANA, pieces(numbers[:3], [], numbers, ["7", "7", "x"]))
    assert (receipt.count, receipt.duplicates) == (5001, 5)
    assert receipt.expires_at == "2026-01-02T00:00:00.000Z"
    assert await _ids(store, receipt) == [*numbers, "x"]


async def test_it_belongs_to_whoever_uploaded_it(store: Store) -> None:
    receipt = await uploads.upload(store, ANA, pieces(["1"]))
    row = await store.read(lambda connection: selections.get(connection, receipt.selection_id))
    assert row is not None
    assert (row.tenant, row.requested_by) == ("acme", "ana")


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        ([], "EMPTY_SELECTION"),
        (["1", ""], "INVALID_FIELD"),
        (["1", "a\0"], "INVALID_FIELD"),
        (["1", "\ud800"], "INVALID_FIELD"),
        (["1", "x" * 1001], "INVALID_FIELD"),
        (["1", "2", "3", "4"], "TOO_MANY_ITEMS"),
    ],
)
async def test_a_bad_list_is_refused_and_nothing_of_it_can_be_used(
    store: Store, ids: list[str], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOADED", 3)
    with pytest.raises(Refusal) as refusal:
        await uploads.upload(store, ANA, pieces(ids))
    assert refusal.value.code == code
    if code == "INVALID_FIELD":
        assert refusal.value.extra["errors"][0]["pointer"] == "/1"
    assert await _usable(store) == 0


async def test_an_upload_that_is_cancelled_leaves_nothing_usable(store: Store) -> None:
    begun = anyio.Event()

    async def endless() -> AsyncIterator[list[str]]:
        yield ["1"] * 3000
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(uploads.upload, store, ANA, endless())
        await begun.wait()
        assert await _usable(store) == 1
        group.cancel_scope.cancel()
    assert await _usable(store) == 0
