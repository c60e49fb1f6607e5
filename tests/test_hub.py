from __future__ import annotations

import asyncio

from bulkops.hub import Hub


async def test_a_ring_before_the_wait_is_heard() -> None:
    hub = Hub()
    with hub.join() as bell:
        hub.ring()
        assert await bell.wait(max_s=0)


async def test_many_rings_before_a_look_are_one() -> None:
    hub = Hub()
    with hub.join() as bell:
        hub.ring()
        hub.ring()
        assert await bell.wait(max_s=0)
        assert not await bell.wait(max_s=0)


async def test_everybody_who_joined_hears_and_who_left_does_not() -> None:
    hub = Hub()
    early, late = hub.join(), hub.join()
    hub.leave(late)
    hub.leave(late)
    hub.ring()
    assert await early.wait(max_s=0)
    assert not await late.wait(max_s=0)
    assert hub.statistics().bells == 1
    assert hub.statistics().rings == 1


async def test_ringing_wakes_every_waiting_task() -> None:
    hub = Hub()
    with hub.join() as one, hub.join() as two:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(bell.wait(max_s=5)) for bell in (one, two)]
            await asyncio.sleep(0)
            hub.ring()
        assert [task.result() for task in waits] == [True, True]


async def test_nobody_listening_is_fine() -> None:
    Hub().ring()


async def test_a_bell_can_be_rung_alone() -> None:
    hub = Hub()
    with hub.join() as one, hub.join() as two:
        one.ring()
        assert await one.wait(max_s=0)
        assert not await two.wait(max_s=0)
