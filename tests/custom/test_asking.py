"""Asking the author's methods: whatever kind they are, and however they end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from bulkops import Item
from bulkops.errors import Halt, Transient
from bulkops.resources.custom import asking
from bulkops.resources.custom.asking import Asker, OwnThread
from bulkops.resources.target import DeadlineError

COUNT = 2_500


def own(found: Any) -> Item:
    if not isinstance(found, Item):
        raise TypeError("no item")
    return found


ASKER = Asker("boxes", own)


def a_list(_: object) -> list[Item]:
    return [Item(str(number)) for number in range(COUNT)]


def a_generator(_: object) -> Iterator[Item]:
    yield from a_list(None)


async def an_async_list(_: object) -> list[Item]:
    return a_list(None)


async def an_async_generator(_: object) -> AsyncIterator[Item]:
    for item in a_list(None):
        yield item


def a_plain_one_that_hands_out_an_async_one(_: object) -> AsyncIterator[Item]:
    return an_async_generator(None)


class Callable:
    async def __call__(self, _: object) -> list[Item]:
        return a_list(None)


async def walk(method: Any, deadline_s: float | None = None) -> list[int]:
    sizes = []
    async with (
        OwnThread() as thread,
        aclosing(ASKER.pieces(thread, method, None, deadline_s=deadline_s)) as pieces,
    ):
        async for piece in pieces:
            sizes.append(len(piece))
    return sizes


@pytest.mark.parametrize(
    "method",
    [
        a_list,
        a_generator,
        an_async_list,
        an_async_generator,
        a_plain_one_that_hands_out_an_async_one,
        Callable(),
    ],
)
async def test_every_kind_of_method_is_walked_in_pieces(method: Any) -> None:
    assert await walk(method) == [1_000, 1_000, 500]


def a_number(_: object) -> Any:
    return 3


def a_text(_: object) -> Any:
    return "abc"


def one_item(_: object) -> Any:
    return Item("a")


def a_hidden_coroutine(_: object) -> Any:
    return an_async_list(None)


def raises(_: object) -> Any:
    raise OSError("secret")


async def is_cancelled_within(_: object) -> list[Item]:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "method", [a_number, a_text, one_item, a_hidden_coroutine, raises, is_cancelled_within]
)
async def test_what_is_no_answer_is_a_fault_worth_trying_again(method: Any) -> None:
    with pytest.raises(Transient, match=rf"^{method.__name__} of boxes raised \w+$"):
        await walk(method)


async def test_what_is_no_item_is_a_mistake_that_trying_again_does_not_mend() -> None:
    with pytest.raises(Halt, match="gave no proper item: no item") as told:
        await walk(lambda _: [Item("a"), "b"])
    assert not isinstance(told.value, Transient)


async def test_a_deadline_ends_a_walk_and_a_hanging_thread_is_left_behind() -> None:
    release = threading.Event()
    closed = threading.Event()

    def endless(_: object) -> Iterator[Item]:
        try:
            yield Item("a")
            release.wait(20)
            yield Item("b")
        finally:
            closed.set()

    began = time.monotonic()
    with pytest.raises(DeadlineError):
        await walk(endless, deadline_s=0.05)
    assert time.monotonic() - began < 10
    release.set()
    assert await asyncio.to_thread(closed.wait, 10), "it is closed in its own thread once it comes back"


async def test_impatience_with_one_piece_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_: object) -> list[Item]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(asking, "PATIENCE_S", 0.05)
    with pytest.raises(Transient, match=r"hangs of boxes took longer than 0\.05 s") as told:
        await walk(hangs)
    assert not isinstance(told.value, DeadlineError)


async def test_a_walk_that_is_left_early_closes_what_it_walks() -> None:
    ended = asyncio.Event()

    async def long(_: object) -> AsyncIterator[Item]:
        try:
            for item in a_list(None):
                yield item
        finally:
            ended.set()

    async with OwnThread() as thread, aclosing(ASKER.pieces(thread, long, None)) as pieces:
        async for _ in pieces:
            break
    assert ended.is_set()


async def test_the_thread_of_a_walk_ends_with_it() -> None:
    async with OwnThread() as thread:
        inside = await thread.run(threading.current_thread)
        assert inside.is_alive()
        assert inside.daemon
    await asyncio.to_thread(inside.join, 10)
    assert not inside.is_alive()
