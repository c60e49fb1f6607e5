"""Items that did not succeed: one row each, whatever is written twice."""

from __future__ import annotations

import pytest

from bulkops.effects import ItemException
from bulkops.store import exceptions
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from tests.store_house import a_job, stored


@pytest.fixture
async def job(store: Store) -> JobRow:
    return await stored(store, a_job("preparing"))


def bad(position: int, code: str = "CONSTRAINT") -> ItemException:
    return ItemException(position, f"i{position}", "failed", code, "why")


async def test_a_batch_written_twice_leaves_one_row_an_item(store: Store, job: JobRow) -> None:
    for _ in range(2):
        await store.write(lambda tx: exceptions.record(tx, job.id, [bad(1), bad(2)]))
    await store.write(lambda tx: exceptions.record(tx, job.id, [bad(2, "IO_ERROR")]))
    found = await store.read(lambda c: exceptions.within(c, job.id, 0, 10))
    assert found == [bad(1), bad(2, "IO_ERROR")]


async def test_a_range_begins_and_ends_where_it_says(store: Store, job: JobRow) -> None:
    await store.write(lambda tx: exceptions.record(tx, job.id, [bad(position) for position in range(5)]))
    found = await store.read(lambda c: exceptions.within(c, job.id, 1, 3))
    assert [each.position for each in found] == [1, 2, 3]
    assert await store.read(lambda c: exceptions.within(c, "nobody", 0, 10)) == []


async def test_failed_items_are_listed_by_code_in_pages_and_skipped_ones_never(
    store: Store, job: JobRow
) -> None:
    skipped = ItemException(3, "i3", "skipped", "CONFLICT", "gone")
    await store.write(
        lambda tx: exceptions.record(tx, job.id, [bad(1), bad(2, "IO_ERROR"), skipped, bad(4), bad(5)])
    )

    async def failed(codes: list[str] | None, after: int = -1, limit: int = 10) -> list[int]:
        rows = await store.read(lambda c: exceptions.failed_after(c, job.id, codes, after, limit))
        return [row.position for row in rows]

    assert await failed(None) == [1, 2, 4, 5]
    assert await failed(["CONSTRAINT"], limit=2) == [1, 4]
    assert await failed(["CONSTRAINT"], after=4) == [5]
    assert await failed([]) == []


async def test_clearing_is_for_one_job_only(store: Store, job: JobRow) -> None:
    other = await stored(store, a_job("preparing"), passed=[bad(1)])
    await store.write(lambda tx: exceptions.record(tx, job.id, [bad(1)]))
    await store.write(lambda tx: exceptions.clear(tx, job.id))
    assert await store.read(lambda c: exceptions.within(c, job.id, 0, 10)) == []
    assert len(await store.read(lambda c: exceptions.within(c, other.id, 0, 10))) == 1
