from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkops.web.live.sessions import Limits
from tests.live_house import House, client, open_house, served, until

SSE = {"Accept": "text/event-stream"}


class Events:
    """A stream's events as a browser would hand them to a page: name, id, data."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str | None, str | None, dict[str, Any]]:
        found: dict[str, str] = {}
        async with asyncio.timeout(5):
            async for line in self._lines:
                if line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    found[name] = value
                elif not line and "data" in found:
                    return found.get("event"), found.get("id"), json.loads(found["data"])
        raise EOFError

    async def names(self) -> list[str | None]:
        seen = []
        try:
            while True:
                seen.append((await self.next())[0])
        except EOFError:
            return seen


@asynccontextmanager
async def streamed(http: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Events]:
    async with http.stream("GET", path, headers=SSE | headers) as response:
        yield Events(response)


@asynccontextmanager
async def opened(path: Path, limits: Limits | None = None) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    async with (
        open_house(path) as house,
        served(house, limits=limits) as port,
        client(port, await house.key()) as http,
    ):
        yield house, http


async def test_the_first_bytes_come_at_once_and_events_follow(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http), streamed(http, "/api/events?topic=all") as stream:
        epoch = house.store.epoch
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["cache-control"] == "no-store, no-transform"
        assert await stream.next() == ("ready", f"{epoch}:0", {"recovered": True, "head": f"{epoch}:0"})
        job = await house.new_job()
        name, at, data = await stream.next()
        assert (name, at) == ("queued", f"{epoch}:1")
        assert (data["seq"], data["prev"], data["job"]) == (1, f"{epoch}:0", job.id)
        await house.new_job(tenant="other")
        await house.tell(job, "started")
        name, at, data = await stream.next()
        assert (name, at, data["prev"]) == ("started", f"{epoch}:3", f"{epoch}:1")


async def test_the_last_event_id_wins_over_since(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        epoch = house.store.epoch
        job = await house.new_job()
        await house.tell(job, "started")
        path = f"/api/events?since={epoch}:0"
        async with streamed(http, path, **{"Last-Event-ID": f"{epoch}:1"}) as stream:
            assert (await stream.next())[1] == f"{epoch}:1"
            assert (await stream.next())[0] == "started"
        async with streamed(http, path) as stream:
            await stream.next()
            assert (await stream.next())[0] == "queued"
        async with streamed(http, path, **{"Last-Event-ID": "other:1"}) as stream:
            assert await stream.next() == (
                "ready",
                f"{epoch}:2",
                {"recovered": False, "reason": "epoch", "head": f"{epoch}:2"},
            )


async def test_a_finished_job_ends_its_stream_and_then_has_no_content(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        job = await house.new_job()
        path = f"/api/jobs/{job.id}/events"
        async with streamed(http, f"{path}?since=earliest") as stream:
            assert [(await stream.next())[0] for _ in range(2)] == ["ready", "queued"]
            await house.end(job)
            name, at, _ = await stream.next()
            assert name == "completed"
            assert await stream.names() == ["end"]
        assert at is not None
        again = await http.get(path, headers=SSE | {"Last-Event-ID": at})
        assert (again.status_code, again.content) == (204, b"")
        async with streamed(http, f"/api/events?topic=job:{job.id}&since=earliest") as stream:
            assert await stream.names() == ["ready", "queued", "completed", "end"]
        async with streamed(http, path, **{"Last-Event-ID": "gone:7"}) as stream:
            assert await stream.names() == ["ready", "end"]
        assert house.feed.statistics().followers == 0


async def test_who_comes_to_a_finished_job_without_a_cursor_is_told_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        job = await house.new_job()
        path = f"/api/jobs/{job.id}/events"
        async with streamed(http, path) as stream:
            assert (await stream.next())[0] == "ready"
            await house.end(job)
            assert await stream.names() == ["completed", "end"]
        async with streamed(http, path) as stream:
            assert await stream.names() == ["ready", "completed", "end"]
        polled = (await http.get(path)).json()
        assert [each["kind"] for each in polled["items"]] == ["completed"]
        again = await http.get(path, headers=SSE, params={"since": polled["cursor"]})
        assert (again.status_code, again.content) == (204, b"")
        assert (await http.get(path, headers=SSE, params={"since": "now"})).status_code == 204


async def test_a_failed_job_that_was_resumed_does_not_end_its_replay(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        job = await house.new_job()
        for kind in ("failed", "resumed", "started"):
            await house.tell(job, kind)
        async with streamed(http, f"/api/jobs/{job.id}/events?since=earliest") as stream:
            assert [(await stream.next())[0] for _ in range(5)] == [
                "ready",
                "queued",
                "failed",
                "resumed",
                "started",
            ]
            await house.end(job)
            assert await stream.names() == ["completed", "end"]


async def test_pings_keep_the_page_sure_and_bear_no_id(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(tick_s=0.1)) as (house, http), streamed(http, "/api/events") as stream:
        await stream.next()
        assert await stream.next() == ("ping", None, {"cursor": f"{house.store.epoch}:0"})


async def test_the_end_of_the_server_and_of_a_credential_say_bye(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        caller = await house.credentials.verify(http.headers["authorization"].partition(" ")[2])
        assert caller is not None
        assert caller.credential is not None
        async with streamed(http, "/api/events") as one:
            await one.next()
            await house.credentials.revoke(caller.credential)
            assert (await one.next())[2]["code"] == 4014
            with pytest.raises(EOFError):
                await one.next()
        http.headers["authorization"] = f"Bearer {await house.key()}"
        async with streamed(http, "/api/events") as two:
            await two.next()
            house.draining.set()
            name, _, data = await two.next()
            assert (name, data["code"], data["reconnect"]) == ("bye", 1012, True)


async def test_who_may_not_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, http):
        job = await house.new_job(tenant="other")
        answers = {
            f"/api/events?topic=job:{job.id}": "NOT_FOUND",
            "/api/events?topic=job:unknown": "NOT_FOUND",
            f"/api/jobs/{job.id}/events": "NOT_FOUND",
            "/api/events?topic=task:unknown": "NOT_FOUND",
            "/api/events?topic=tenant": "FORBIDDEN",
            "/api/events?topic=job:": "INVALID_FIELD",
            "/api/events?topic=jobs": "INVALID_FIELD",
        }
        for path, code in answers.items():
            answer = await http.get(path, headers=SSE | {"Last-Event-ID": f"{house.store.epoch}:0"})
            assert answer.json()["code"] == code, path
        del http.headers["authorization"]
        assert (await http.get("/api/events", headers=SSE)).status_code == 401
        assert house.feed.statistics().followers == 0


async def test_a_ticket_opens_one_stream(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_house, http):
        made = await http.post("/api/tickets", json={})
        assert made.status_code == 201
        ticket = made.json()["ticket"]
        del http.headers["authorization"]
        async with streamed(http, f"/api/events?ticket={ticket}") as stream:
            assert (await stream.next())[0] == "ready"
        assert (await http.get(f"/api/events?ticket={ticket}", headers=SSE)).status_code == 401


async def test_a_user_has_so_many_streams_and_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(max_sessions=1)) as (house, http):
        async with streamed(http, "/api/events") as stream:
            await stream.next()
            refused = await http.get("/api/events", headers=SSE)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "5"
        await until(lambda: house.feed.statistics().followers == 0)
        async with streamed(http, "/api/events") as stream:
            assert (await stream.next())[0] == "ready"


async def test_a_head_request_has_no_endless_body(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, http):
        answer = await http.head("/api/events", headers=SSE)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_ndjson_is_a_line_an_event(tmp_path: Path) -> None:
    async with opened(tmp_path, Limits(tick_s=0.1)) as (house, http):
        job = await house.new_job()
        headers = {"Accept": "application/x-ndjson"}
        lines: list[dict[str, Any]] = []
        async with http.stream(
            "GET", f"/api/jobs/{job.id}/events?since=earliest", headers=headers
        ) as response:
            assert response.headers["content-type"] == "application/x-ndjson"
            async for line in response.aiter_lines():
                lines.append(json.loads(line))
                if [line["kind"] for line in lines].count("ping") == 1 and lines[-1]["kind"] == "ping":
                    await house.end(job)
        told = [line for line in lines if line["kind"] != "ping"]
        assert [line["kind"] for line in told] == ["queued", "completed"]
        assert told[1]["prev"] == f"{house.store.epoch}:1"
        async with http.stream("GET", "/api/events?since=bad", headers=headers) as response:
            async for line in response.aiter_lines():
                assert json.loads(line) == {"reset": "bad_cursor", "cursor": f"{house.store.epoch}:2"}
                break
