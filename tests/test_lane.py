"""The lane hands out turns: few items first, nobody passed over for long, nothing lost to a cancelled waiter."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bulkops.resources import lane as lane_module
from bulkops.resources.lane import Lane


async def order_of(lane: Lane, sizes: list[int]) -> list[int]:
    """Let some wait behind a holder, and tell in which order they had their turn."""
    served: list[int] = []

    async def wait(items: int) -> None:
        async with lane.turn(items):
            served.append(items)
            await checkpoint()

    async with anyio.create_task_group() as group, lane.turn(0):
        for items in sizes:
            group.start_soon(wait, items)
            await anyio.wait_all_tasks_blocked()
    return served


async def test_few_items_come_before_many_and_equals_in_their_order() -> None:
    assert await order_of(Lane(), [5000, 4000, 3, 6000, 1]) == [3, 1, 5000, 4000, 6000]


async def test_nobody_is_passed_over_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_PATIENCE_S", 0.0)
    assert await order_of(Lane(), [5000, 3]) == [5000, 3]


async def test_one_has_the_lane_at_a_time_also_after_an_error() -> None:
    lane = Lane()
    with pytest.raises(ValueError, match="x"):
        async with lane.turn(1):
            raise ValueError("x")
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with lane.turn(1):
            inside += 1
            await checkpoint()
            assert inside == 1
            inside -= 1

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(work)


async def test_a_cancelled_waiter_gives_up_its_place() -> None:
    lane = Lane()
    async with anyio.create_task_group() as group:
        async with lane.turn(1):
            with anyio.move_on_after(0.01):
                async with lane.turn(1):
                    raise AssertionError("the lane is taken")
        group.start_soon(order_of, lane, [1])


async def test_a_turn_that_comes_in_the_moment_of_a_cancel_goes_on_to_the_next() -> None:
    lane = Lane()
    served = anyio.Event()
    scope = anyio.CancelScope()

    async def doomed() -> None:
        with scope:
            async with lane.turn(1):
                await anyio.sleep_forever()

    async def next_one() -> None:
        async with lane.turn(1):
            served.set()

    async with anyio.create_task_group() as group:
        async with lane.turn(1):
            group.start_soon(doomed)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(next_one)
            await anyio.wait_all_tasks_blocked()
        scope.cancel()
        with anyio.fail_after(5):
            await served.wait()
