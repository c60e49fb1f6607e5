"""How the command hears of a job: three ways, which is tried when, and real servers that go and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from bulkops import runtime_file
from bulkops.cli.channels import (
    WAYS,
    Broken,
    Line,
    Pages,
    back_off_s,
    by_poll,
    by_socket,
    by_stream,
    comes_back,
    parse_stream,
)
from bulkops.cli.progress import follow
from bulkops.client import Client, Endpoint, NoServer
from bulkops.errors import Refusal
from tests.live_house import House, open_house, served
from tests.test_cli import App, app, until

__all__ = ["app"]


def page(prev: int, cursor: int, *seqs: int) -> dict[str, Any]:
    items = [{"seq": seq, "kind": "progress"} for seq in seqs]
    return {"prev": f"e:{prev}", "cursor": f"e:{cursor}", "items": items}


def line_of(*ways: Any) -> Line:
    client: Any = None
    return Line(client, "J", ways)


def saying(*pages: dict[str, Any] | Exception) -> Any:
    def way(client: Client, job: str, since: Callable[[], str]) -> Pages:
        for each in pages:
            if isinstance(each, Exception):
                raise each
            yield each

    return way


# -- the client's rule


def test_what_is_known_already_is_left_out() -> None:
    line = line_of(saying(page(1, 5, 2, 4, 5), page(5, 5)))
    assert line.hear("e:1")["items"][0]["seq"] == 2
    # The job was read again meanwhile, as of 9.
    assert line.hear("e:9") == {"cursor": "e:9", "items": []}


def test_a_gap_is_closed_by_asking_again() -> None:
    line = line_of(saying(page(7, 9, 8, 9)))
    assert line.hear("e:5") == {"cursor": "e:5", "items": []}
    assert line.hear("e:7")["cursor"] == "e:9"


def test_another_epoch_is_a_gap() -> None:
    line = line_of(saying({"prev": "x:1", "cursor": "x:2", "items": []}))
    assert line.hear("e:5") == {"cursor": "e:5", "items": []}


# -- which way when


def test_after_three_failures_the_next_way_is_taken_and_the_socket_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("bulkops.cli.channels.time.monotonic", lambda: now)
    refused = saying(Broken("no"))
    works = [False]

    def socket(client: Client, job: str, since: Callable[[], str]) -> Pages:
        if not works[0]:
            raise Broken("no socket", away=False)
        while True:
            yield page(3, 3)

    def stream(client: Client, job: str, since: Callable[[], str]) -> Pages:
        while True:
            yield page(2, 2)

    line = line_of(socket, refused, stream)
    for _ in range(6):
        with pytest.raises(Broken) as error:
            line.hear("e:9")
        assert 0.5 <= line.lost(error.value) <= 20
    assert line.hear("e:9") == {"cursor": "e:9", "items": []}
    for works[0] in (False, True):
        now += 61
        line.hear("e:9")
    assert line._level == 0
    line.close()


def test_a_connection_that_stood_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bulkops.cli.channels.time.monotonic", lambda: now)
    line = line_of(saying(page(1, 1), Broken("gone")), saying())
    for _ in range(5):
        line.hear("e:1")
        now += 6
        with pytest.raises(Broken) as error:
            line.hear("e:1")
        assert line.lost(error.value) <= 1
    assert line._level == 0


def test_a_code_that_says_not_to_come_back_changes_the_way_at_once() -> None:
    line = line_of(saying(Broken("closed with 4504", for_good=True)), saying(page(1, 2)))
    with pytest.raises(Broken) as error:
        line.hear("e:1")
    line.lost(error.value)
    assert line.hear("e:1")["cursor"] == "e:2"


def test_the_pause_that_a_server_asks_for_is_kept_within_a_quarter() -> None:
    line = line_of(saying())
    assert all(7.5 <= line.lost(Broken("bye", wait_s=10)) <= 12.5 for _ in range(50))


@pytest.mark.parametrize(("tries", "most"), [(0, 1.0), (1, 1.5), (3, 4.5), (6, 20.0), (5000, 20.0)])
def test_the_back_off_is_the_protocols(tries: int, most: float) -> None:
    found = [back_off_s(tries) for _ in range(300)]
    assert 0.5 <= min(found) <= max(found) <= most
    assert max(found) > most / 2


@pytest.mark.parametrize(
    ("code", "again"),
    [(1000, False), (1001, True), (1006, True), (1009, False), (1012, True), (4008, True), (4014, True),
     (4444, True), (4500, False), (4504, False), (4999, False)],
)  # fmt: skip
def test_close_codes_say_whether_to_come_back(code: int, again: bool) -> None:
    assert comes_back(code) is again


def test_a_stream_is_read_however_it_is_cut() -> None:
    text = b': ok\nretry: 2000\n\nid: e:1\nevent: ready\ndata: {"a":"x: y"}\n\nevent: ping\ndata: {}\n\n: hm'
    for size in (1, 2, 7, 1000):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert list(parse_stream(chunks)) == [("ready", {"a": "x: y"}), ("ping", {})]


# -- real servers


class Shown:
    """A view that remembers, from any thread."""

    def __init__(self) -> None:
        self.processed: list[int] = []
        self.said: list[str] = []

    def show(self, job: dict[str, Any]) -> None:
        self.processed.append(job["processed"])

    def say(self, text: str) -> None:
        self.said.append(text)


def test_each_way_follows_over_a_killed_server_to_the_end(app: App) -> None:
    def locate() -> Endpoint:
        running = runtime_file.find_running(app.folder / "bulkops-data")
        if running is None:
            raise NoServer("none runs")
        return Endpoint(running.url, running.key)

    ways = [[by_socket], [by_stream], [by_poll], WAYS]
    views = [Shown() for _ in ways]

    def one(index: int) -> dict[str, Any]:
        with closing(Client(locate)) as client:
            return follow(client, client.get(f"/api/jobs/{job}"), views[index], ways=ways[index])

    with ThreadPoolExecutor(len(ways)) as pool:
        with app.server() as (first, _):
            job = app.json("start", "notes", "close", "--all", "--tenant", "a")["id"]
            following = [pool.submit(one, index) for index in range(len(ways))]
            until(lambda: all(len(view.processed) > 3 for view in views))
            first.kill()
            first.wait()
        with app.server():
            done = [each.result(timeout=60) for each in following]
    assert {each["status"] for each in done} == {"completed"}
    for view in views:
        assert view.processed[-1] == 100
        assert len(set(view.processed)) > 5
        assert view.processed == sorted(view.processed)
        assert any("waiting" in each for each in view.said)


@pytest.mark.parametrize("way", WAYS)
def test_a_key_revoked_while_following_ends_it_with_a_refusal(app: App, way: Any) -> None:
    with app.server() as (_, told):
        made = app.json("keys", "create", "--user", "eva", "--role", "owner")
        job = app.json("start", "notes", "close", "--all", "--tenant", "a", "--throttle-ms", "500")
        seen = Shown()

        def watch() -> None:
            with closing(Client(lambda: Endpoint(told["url"], made["key"]))) as client:
                follow(client, client.get(f"/api/jobs/{job['id']}"), seen, ways=[way])

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch)
            until(lambda: len(seen.processed) > 2)
            app.json("keys", "revoke", made["id"])
            with pytest.raises(Refusal) as refused:
                watching.result(timeout=20)
        assert refused.value.code == "UNAUTHENTICATED"
        app.json("cancel", job["id"])


@asynccontextmanager
async def proxied(port: int, refuses: Callable[[bytes], bool]) -> AsyncIterator[int]:
    """Pass connections on but answer 403 to requests of some kinds, as many proxies do to sockets."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if refuses(head):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        # One request a connection, so that each is judged.
        inward, outward = await asyncio.open_connection("127.0.0.1", port)
        outward.write(head)
        await asyncio.gather(copy(reader, outward), copy(inward, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def hear(port: int, key: str, job: str, ways: Any, since: str) -> Generator[dict[str, Any], None, None]:
    """Hear pages until the job has ended."""
    with (
        closing(Client(lambda: Endpoint(f"http://127.0.0.1:{port}", key))) as client,
        closing(Line(client, job, ways)) as line,
    ):
        while True:
            try:
                found = line.hear(since)
            except (NoServer, Refusal) as error:
                if isinstance(error, Refusal):
                    raise
                line.lost(error)
                client.reconnect()
                continue
            since = found["cursor"]
            yield {**found, "level": line._level}
            if any(item["kind"] == "completed" for item in found.get("items", [])):
                return


async def heard(house: House, port: int, key: str, ways: Any = WAYS) -> list[dict[str, Any]]:
    job = await house.new_job()
    await house.tell(job, "started")
    since = f"{house.store.epoch}:0"
    connected = threading.Event()

    def work() -> list[dict[str, Any]]:
        pages = []
        for found in hear(port, key, job.id, ways, since):
            pages.append(found)
            connected.set()
        return pages

    hearing = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(connected.wait, 10)
    await house.tell(job, "progress", processed=1)
    await house.end(job)
    async with asyncio.timeout(15):
        return await hearing


@pytest.mark.parametrize("way", [by_socket, by_stream, by_poll])
async def test_each_way_tells_the_same(tmp_path: Path, way: Any) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        pages = await heard(house, port, await house.key(), [way])
        items = [item for found in pages for item in found["items"]]
        assert [item["kind"] for item in items] == ["queued", "started", "progress", "completed"]
        assert [item["seq"] for item in items] == [1, 2, 3, 4]
        assert pages[-1]["cursor"] == f"{house.store.epoch}:4"


async def test_where_sockets_are_refused_the_stream_is_followed_and_then_polls(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        key = await house.key()
        async with proxied(port, lambda head: head.startswith(b"GET /ws")) as proxy:
            assert (await heard(house, proxy, key))[-1]["level"] == 1
        async with proxied(port, lambda head: b"event-stream" in head or b"GET /ws" in head) as proxy:
            assert (await heard(house, proxy, key))[-1]["level"] == 2


async def test_a_log_that_is_another_is_a_reset_on_every_way(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        key, job = await house.key(), await house.new_job()
        for way in WAYS:
            pages = hear(port, key, job.id, [way], "other:7")
            found = await asyncio.to_thread(next, pages)
            assert (found["reset"], found["cursor"]) == ("epoch", f"{house.store.epoch}:1")
            pages.close()


async def test_a_revoked_key_and_a_foreign_job_are_refusals(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        job, foreign = await house.new_job(), await house.new_job(tenant="other")
        for way in WAYS:
            with pytest.raises(Refusal) as refused:
                await asyncio.to_thread(next, hear(port, await house.key(), foreign.id, [way], "x:0"))
            assert refused.value.code == "NOT_FOUND"
        for way in (by_stream, by_poll):
            with pytest.raises(Refusal) as refused:
                await asyncio.to_thread(next, hear(port, "bk_wrong", job.id, [way], "x:0"))
            assert refused.value.code == "UNAUTHENTICATED"
