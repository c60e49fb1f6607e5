from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bulkops.store import events
from tests.conftest import HandClock
from tests.live_house import House, client, open_house, served, until


@asynccontextmanager
async def opened(
    path: Path, clock: HandClock | None = None
) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    async with (
        open_house(path, clock) as house,
        served(house) as port,
        client(port, await house.key()) as http,
    ):
        yield house, http


async def test_polling_walks_the_log_page_by_page(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        epoch = house.store.epoch
        first = (await http.get("/api/events")).json()
        assert first == {"prev": f"{epoch}:0", "cursor": f"{epoch}:0", "items": [], "head": f"{epoch}:0"}
        job = await house.new_job()
        for kind in ("started", "paused"):
            await house.tell(job, kind)
        page = (await http.get("/api/events", params={"since": first["cursor"], "limit": 2})).json()
        assert [item["kind"] for item in page["items"]] == ["queued", "started"]
        assert (page["prev"], page["cursor"], page["head"]) == (f"{epoch}:0", f"{epoch}:2", f"{epoch}:3")
        rest = (await http.get("/api/events", params={"since": page["cursor"]})).json()
        assert [item["kind"] for item in rest["items"]] == ["paused"]
        assert rest["items"][0]["job"] == job.id


async def test_a_quiet_page_moves_the_cursor(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        await house.new_job(tenant="other")
        page = (await http.get("/api/events", params={"since": f"{house.store.epoch}:0"})).json()
        assert (page["items"], page["cursor"]) == ([], f"{house.store.epoch}:1")


async def test_waiting_ends_with_the_first_event_or_in_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(http.get("/api/events", params={"wait": 10}))
            await until(lambda: house.feed.statistics().followers == 1)
            await house.new_job()
        assert [item["kind"] for item in asking.result().json()["items"]] == ["queued"]
        late = (await http.get("/api/events", params={"wait": 0.05})).json()
        assert late["items"] == []


async def test_a_cursor_that_cannot_be_honoured_is_a_reset(tmp_path: Path, clock: HandClock) -> None:
    async with opened(tmp_path, clock) as (house, http):
        job = await house.new_job()
        await house.tell(job, "updated")
        clock.advance(86_400)
        await house.store.write(lambda tx: events.trim(tx, before_ms=tx.now_ms))
        epoch = house.store.epoch
        for since, reason in {
            f"{epoch}:1": "trimmed",
            f"{epoch}:9": "ahead",
            "x:1": "epoch",
            "": "bad_cursor",
        }.items():
            answer = await http.get("/api/events", params={"since": since, "wait": 10})
            assert answer.json() == {"reset": reason, "cursor": f"{epoch}:2"}


async def test_long_polls_answer_when_the_server_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http), asyncio.TaskGroup() as group:
        asking = group.create_task(http.get("/api/events", params={"wait": 30}))
        await until(lambda: house.feed.statistics().followers == 1)
        house.draining.set()
        async with asyncio.timeout(3):
            answer = await asking
        assert answer.json()["items"] == []


async def test_who_leaves_a_long_poll_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        asking = asyncio.create_task(http.get("/api/events", params={"wait": 30}))
        await until(lambda: house.feed.statistics().followers == 1)
        asking.cancel()
        await asyncio.wait([asking])
        await until(lambda: house.feed.statistics().followers == 0)


async def test_bounds_are_named_when_they_are_passed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http):
        for name, value in {"wait": "61", "limit": "0"}.items():
            answer = await http.get("/api/events", params={name: value})
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == f"/{name}"
        for bad in ("nan", "x", "-1"):
            assert (await http.get("/api/events", params={"wait": bad})).status_code == 422
