"""Manifests: written in chunks, read in pages from any position, searched for one id."""

from __future__ import annotations

import pytest

from bulkops.effects import Id
from bulkops.store import manifests
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from tests.store_house import a_job, stored

COUNT = manifests.CHUNK * 2 + 17


@pytest.fixture
async def job(store: Store) -> JobRow:
    return await stored(store, a_job("preparing"))


async def write(
    store: Store, job: JobRow, ids: list[Id], first: int = 0, origins: list[int] | None = None
) -> int:
    return await store.write(lambda tx: manifests.append(tx, job.id, first, ids, origins))


async def page(store: Store, job: JobRow, position: int, limit: int) -> list[Id]:
    found = await store.read(lambda c: manifests.page(c, job.id, position, limit))
    assert found.first == position
    return found.ids


@pytest.mark.parametrize(
    "position", [0, 1, manifests.CHUNK - 1, manifests.CHUNK, COUNT - 1, COUNT, COUNT + 5]
)
@pytest.mark.parametrize("limit", [1, 500, manifests.CHUNK + 1, COUNT])
async def test_a_page_is_what_stands_at_its_positions(
    store: Store, job: JobRow, position: int, limit: int
) -> None:
    ids: list[Id] = list(range(1000, 1000 + COUNT))
    assert await write(store, job, ids[:3000]) == 3000
    assert await write(store, job, ids[3000:], first=3000) == COUNT
    assert await page(store, job, position, limit) == ids[position : position + limit]


async def test_ids_of_every_kind_come_back_in_their_native_form(store: Store, job: JobRow) -> None:
    ids: list[Id] = [2**63 - 1, -(2**63), 0, "1", "", "ä\n,", [1, "x"], ["a", "b"]]
    await write(store, job, ids)
    assert await page(store, job, 0, 100) == ids


async def test_origins_go_with_their_items(store: Store, job: JobRow) -> None:
    count = manifests.CHUNK + 5
    await write(store, job, list(range(count)), origins=[count - each for each in range(count)])
    found = await store.read(lambda c: manifests.page(c, job.id, manifests.CHUNK - 1, 3))
    assert found.ids == [manifests.CHUNK - 1, manifests.CHUNK, manifests.CHUNK + 1]
    assert found.origins == [
        count - each for each in (manifests.CHUNK - 1, manifests.CHUNK, manifests.CHUNK + 1)
    ]


async def test_a_walk_covers_everything_once(store: Store, job: JobRow) -> None:
    await write(store, job, list(range(COUNT)))
    walked = await store.read(lambda c: [item for found in manifests.pages(c, job.id) for item in found.ids])
    assert walked == list(range(COUNT))
    part = await store.read(
        lambda c: [i for found in manifests.pages(c, job.id, upto=2500) for i in found.ids]
    )
    assert part == list(range(2500))


async def test_an_id_is_found_where_it_stands_and_none_elsewhere(store: Store, job: JobRow) -> None:
    await write(store, job, [*range(0, 2 * COUNT, 2), "x"])

    async def find(item: Id) -> int | None:
        return await store.read(lambda c: manifests.find(c, job.id, item))

    assert await find(0) == 0
    assert await find(2 * (COUNT - 1)) == COUNT - 1
    assert await find("x") == COUNT
    assert await find(3) is None
    assert await find("0") is None


async def test_a_cleared_manifest_is_empty_and_others_stay(store: Store, job: JobRow) -> None:
    other = await stored(store, a_job("preparing"), [7])
    await write(store, job, [1, 2, 3])
    await store.write(lambda tx: manifests.clear(tx, job.id))
    assert await page(store, job, 0, 10) == []
    assert await page(store, other, 0, 10) == [7]
