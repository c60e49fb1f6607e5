"""Before-images: tentative until their batch is accounted for, dropped when nothing was taken."""

from __future__ import annotations

import pytest

from bulkops.effects import Image
from bulkops.store import trash
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from tests.store_house import a_job, stored


@pytest.fixture
async def job(store: Store) -> JobRow:
    return await stored(store, a_job("queued"))


def image(position: int, body: bytes = b"x") -> Image:
    return Image(position, f"i{position}", f"label {position}", listed=True, image=body)


async def write(store: Store, job: JobRow, *images: Image) -> None:
    await store.write(lambda tx: trash.write_tentative(tx, job.id, images, resource="r", tenant=None))


async def kept(store: Store, job: JobRow) -> dict[int, bytes]:
    found = await store.read(lambda c: trash.images(c, job.id, range(100)))
    return {position: each.image for position, each in found.items()}


async def test_an_image_is_not_there_before_its_batch_is_accounted_for(store: Store, job: JobRow) -> None:
    await write(store, job, image(1), image(2), image(7))
    assert await kept(store, job) == {}
    await store.write(lambda tx: trash.settle(tx, job.id, 0, 5, untouched=[2]))
    assert await kept(store, job) == {1: b"x"}


async def test_a_batch_announced_again_replaces_its_images(store: Store, job: JobRow) -> None:
    await write(store, job, image(1, b"old"))
    await write(store, job, image(1, b"new"))
    await store.write(lambda tx: trash.settle(tx, job.id, 0, 5, untouched=[]))
    assert await kept(store, job) == {1: b"new"}


async def test_a_withdrawn_batch_leaves_nothing(store: Store, job: JobRow) -> None:
    await write(store, job, image(1), image(2))
    await store.write(lambda tx: trash.withdraw(tx, job.id, 0, 2))
    await store.write(lambda tx: trash.settle(tx, job.id, 0, 5, untouched=[]))
    assert await kept(store, job) == {2: b"x"}


async def test_what_is_put_back_is_dropped(store: Store, job: JobRow) -> None:
    await write(store, job, image(1), image(2))
    await store.write(lambda tx: trash.settle(tx, job.id, 0, 5, untouched=[]))
    await store.write(lambda tx: trash.drop(tx, job.id, [1]))
    assert await kept(store, job) == {2: b"x"}
