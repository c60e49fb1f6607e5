from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from bulkops.web.live.commands import BadFrame, parse_command
from bulkops.web.live.sessions import Limits
from tests.live_house import client, open_house, served, until

QUICK = Limits(hello_s=0.3, ping_s=0.3, pong_s=0.3, blocked_s=0.5, sweep_s=0.05, watch_s=0.05)


class Wire:
    """A client that follows the protocol by hand."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def receive(self, kind: str | None = None) -> dict[str, Any]:
        async with asyncio.timeout(5):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if kind in (None, message["type"]):
                    return message

    async def hello(self, **fields: Any) -> dict[str, Any]:
        await self.send(type="hello", id=1, **fields)
        return await self.receive("welcome")

    async def subscribe(self, sub: str = "a", **fields: Any) -> dict[str, Any]:
        await self.send(type="subscribe", id=2, sub=sub, **fields)
        while True:
            answer = await self.receive()
            if answer.get("re") == 2:
                return answer

    async def closed(self) -> tuple[int | None, dict[str, Any] | None]:
        """Return the close code and the goodbye before it."""
        bye = None
        async with asyncio.timeout(5):
            try:
                while True:
                    message = json.loads(await self.socket.recv())
                    bye = message if message["type"] == "bye" else bye
            except ConnectionClosed as error:
                return (error.rcvd.code if error.rcvd else None), bye


@asynccontextmanager
async def dialled(
    port: int, key: str | None = None, *, protocols: list[str] | None = None, **headers: str
) -> AsyncIterator[Wire]:
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    names = [Subprotocol(name) for name in protocols or ["bulkops.v1"]]
    async with connect(
        f"ws://127.0.0.1:{port}/ws", subprotocols=names, additional_headers=headers, close_timeout=1
    ) as found:
        yield Wire(found)


ALL = {"kind": "all"}


async def test_a_session_from_hello_to_unsubscribe(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        welcome = await wire.hello()
        epoch = house.store.epoch
        assert welcome == {
            "type": "welcome",
            "re": 1,
            "instance": house.store.instance,
            "epoch": epoch,
            "head": f"{epoch}:0",
            "user": "ana",
            "ping_ms": 20000,
            "limits": {"frame": 65536, "subs": 32, "batch": 200},
            "expires_at": None,
        }
        assert await wire.subscribe(topic=ALL) == {
            "type": "subscribed",
            "re": 2,
            "sub": "a",
            "recovered": True,
            "from": f"{epoch}:0",
            "head": f"{epoch}:0",
        }
        job = await house.new_job()
        frame = await wire.receive("events")
        item = frame["items"][0]
        assert (frame["sub"], frame["prev"], frame["cursor"]) == ("a", f"{epoch}:0", f"{epoch}:1")
        assert (item["seq"], item["kind"], item["job"]) == (1, "queued", job.id)
        await house.tell(job, "started")
        assert (await wire.receive("events"))["prev"] == f"{epoch}:1"
        await wire.send(type="unsubscribe", id=5, sub="a")
        assert await wire.receive() == {"type": "unsubscribed", "re": 5, "sub": "a"}
        await house.tell(job, "paused")
        await wire.send(type="unsubscribe", id=6, sub="a")
        assert (await wire.receive())["code"] == "NOT_FOUND"
        assert house.feed.statistics().followers == 0


async def test_a_client_that_comes_back_misses_nothing_and_gets_it_in_one_frame(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        key = await house.key()
        job = await house.new_job()
        cursor = str(await house.feed.head())
        for kind in ("started", "progress", "progress", "completed"):
            await house.tell(job, kind)
        async with dialled(port, key) as wire:
            await wire.hello()
            answer = await wire.subscribe(topic={"kind": "job", "job": job.id}, since=cursor)
            assert answer["recovered"] is True
            frame = await wire.receive("events")
            assert [item["kind"] for item in frame["items"]] == ["started", "progress", "completed"]
            assert frame["prev"] == cursor
            assert "coalesced" not in frame


@pytest.mark.parametrize(
    ("since", "reason"), [("other:1", "epoch"), ("{epoch}:99", "ahead"), ("nonsense", "bad_cursor")]
)
async def test_a_cursor_that_cannot_be_honoured_says_why(tmp_path: Path, since: str, reason: str) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        await house.new_job()
        await wire.hello()
        answer = await wire.subscribe(topic=ALL, since=since.replace("{epoch}", house.store.epoch))
        assert (answer["recovered"], answer["reason"]) == (False, reason)
        assert answer["from"] == answer["head"] == f"{house.store.epoch}:1"


async def test_credentials_are_taken_from_everywhere_they_may_be(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        key = await house.key()
        async with dialled(port, None, protocols=None, **{"X-API-Key": key}) as wire:
            assert (await wire.hello())["user"] == "ana"
        caller = await house.credentials.verify(key)
        assert caller is not None
        ticket = await house.credentials.issue_ticket(caller)
        async with dialled(port, protocols=["bulkops.v1", f"bulkops.ticket.{ticket}"]) as wire:
            assert (await wire.hello())["user"] == "ana"
            assert wire.socket.subprotocol == "bulkops.v1"
        async with client(port, key) as http:
            made = (await http.post("/api/tickets", json={})).json()
        async with dialled(port) as wire:
            assert (await wire.hello(ticket=made["ticket"]))["user"] == "ana"
        for spent in (ticket, made["ticket"]):
            async with dialled(port) as wire:
                await wire.send(type="hello", id=1, ticket=spent)
                assert (await wire.closed())[0] == 4501


async def test_a_bad_credential_is_accepted_and_closed_with_4501(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        async with dialled(port, "bk_wrong") as wire:
            assert await wire.closed() == (
                4501,
                {"type": "bye", "code": 4501, "reason": "unauthorised", "reconnect": False},
            )
        async with dialled(port) as wire:
            await wire.send(type="hello", id=1)
            assert (await wire.closed())[0] == 4501
        async with dialled(port, protocols=["bulkops.v1", "bulkops.ticket.none"]) as wire:
            assert (await wire.closed())[0] == 4501


async def test_a_foreign_version_is_closed_with_4505(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path) as house,
        served(house) as port,
        dialled(port, await house.key(), protocols=["bulkops.v9"]) as wire,
    ):
        assert (await wire.closed())[0] == 4505


async def test_what_is_no_command_closes_with_4500(tmp_path: Path) -> None:
    frames = ["", "{", "[]", "1", '"hello"', "{}", '{"type":"shout"}', '{"type":1}', "[" * 50_000]
    async with open_house(tmp_path) as house, served(house) as port:
        key = await house.key()
        for frame in frames:
            with pytest.raises(BadFrame):
                parse_command(frame)
            async with dialled(port, key) as wire:
                await wire.hello()
                await wire.socket.send(frame)
                assert (await wire.closed())[0] == 4500


async def test_binary_frames_and_a_second_hello_are_bad_frames(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        for second in (b"{}", '{"type":"hello"}'):
            async with dialled(port, await house.key()) as wire:
                await wire.hello()
                await wire.socket.send(second)
                assert (await wire.closed())[0] == 4500


async def test_hello_comes_first_and_in_time(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house, limits=QUICK) as port:
        key = await house.key()
        async with dialled(port, key) as wire:
            await wire.send(type="subscribe", id=1, sub="a", topic=ALL)
            assert (await wire.closed())[0] == 4502
        async with dialled(port, key) as wire:
            assert (await wire.closed())[0] == 4502


async def test_what_is_not_there_or_not_yours_is_not_found_and_the_socket_stays(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        await wire.hello()
        foreign = await house.new_job(tenant="other")
        ids: list[Any] = [
            "01ZZZZZZZZZZZZZZZZZZZZZZZZ",
            "*",
            ["x"],
            1,
            None,
            {},
            "",
            foreign.id,
            foreign.id.lower(),
        ]
        for each in ids:
            for topic in ({"kind": "job", "job": each}, {"kind": "task", "task_id": each}):
                assert await wire.subscribe(topic=topic) == {
                    "type": "error",
                    "re": 2,
                    "code": "NOT_FOUND",
                    "message": f"there is no such {topic['kind']}",
                    "temporary": False,
                }
        assert (await wire.subscribe(topic=ALL))["type"] == "subscribed"


async def test_wrong_fields_are_errors_and_the_socket_stays(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        await wire.hello()
        for fields in (
            {"topic": {"kind": "none"}},
            {"topic": None},
            {"topic": ALL, "since": 5},
            {"topic": ALL, "sub": ""},
            {"topic": ALL, "sub": 7},
        ):
            assert (await wire.subscribe(**fields))["code"] == "INVALID_FIELD"
        assert (await wire.subscribe(topic={"kind": "tenant"}))["code"] == "FORBIDDEN"


async def test_an_admin_follows_the_tenant(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path) as house,
        served(house) as port,
        dialled(port, await house.key(role="admin", user="root")) as wire,
    ):
        await wire.hello()
        assert (await wire.subscribe(topic={"kind": "tenant"}))["type"] == "subscribed"
        await house.new_job(tenant="other")
        job = await house.new_job(user="bob")
        assert (await wire.receive("events"))["items"][0]["job"] == job.id


async def test_a_service_key_that_may_follow_nothing_is_closed_with_4503(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        key = await house.key(role="service")
        async with dialled(port, key) as wire:
            await wire.send(type="hello", id=1)
            farewell = {"type": "bye", "code": 4503, "reason": "forbidden", "reconnect": False}
            assert await wire.closed() == (4503, farewell)


async def test_too_many_subscriptions_commands_or_sockets_close(tmp_path: Path) -> None:
    limits = Limits(max_subs=2, max_sessions=2, max_commands=10)
    async with open_house(tmp_path) as house, served(house, limits=limits) as port:
        key = await house.key()
        async with dialled(port, key) as one, dialled(port, key) as two, dialled(port, key) as three:
            await one.hello()
            await two.hello()
            await three.send(type="hello")
            assert (await three.closed())[0] == 4504
            for name in ("a", "b", "a"):
                assert (await one.subscribe(name, topic=ALL))["type"] == "subscribed"
            await one.send(type="subscribe", id=9, sub="c", topic=ALL)
            assert (await one.closed())[0] == 4504
            for _ in range(10):
                await two.send(type="pong")
            code, bye = await two.closed()
            assert code == 4013
            assert bye is not None
            assert bye["retry_after_ms"] == 10_000


async def test_a_frame_of_more_than_64_kib_is_closed_with_1009(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        await wire.hello()
        await wire.socket.send(" " * 65_537)
        assert (await wire.closed())[0] == 1009


async def test_pings_tell_the_cursor_and_take_quiet_topics_along(tmp_path: Path) -> None:
    limits = Limits(ping_s=1, pong_s=0.5, sweep_s=0.05, watch_s=0.05)
    async with (
        open_house(tmp_path) as house,
        served(house, limits=limits) as port,
        dialled(port, await house.key()) as wire,
    ):
        await wire.hello()
        await wire.subscribe(topic=ALL)
        await house.new_job(tenant="other")
        advance = await wire.receive()
        epoch = house.store.epoch
        assert advance == {
            "type": "events",
            "sub": "a",
            "prev": f"{epoch}:0",
            "cursor": f"{epoch}:1",
            "items": [],
        }
        ping = await wire.receive()
        assert (ping["type"], ping["subs"]) == ("ping", {"a": f"{epoch}:1"})
        await wire.send(type="pong")
        assert (await wire.receive("ping"))["subs"] == {"a": f"{epoch}:1"}
        assert (await wire.closed())[0] == 4012


async def test_a_revoked_credential_ends_its_sockets(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port:
        key = await house.key()
        caller = await house.credentials.verify(key)
        assert caller is not None
        assert caller.credential is not None
        async with dialled(port, key) as wire:
            await wire.hello()
            await house.credentials.revoke(caller.credential)
            code, bye = await wire.closed()
            assert code == 4014
            assert bye is not None
            assert bye["reconnect"] is True


async def test_shutting_down_says_bye_and_closes_1012(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        await wire.hello()
        house.draining.set()
        code, bye = await wire.closed()
        assert code == 1012
        assert bye == {
            "type": "bye",
            "code": 1012,
            "reason": "restart",
            "reconnect": True,
            "retry_after_ms": 800,
        }


async def test_who_never_reads_is_aborted_and_others_go_on(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house, limits=QUICK) as port:
        key = await house.key()
        deaf = await deaf_socket(port, key)
        try:
            async with dialled(port, await house.key(user="eva", role="admin")) as wire:
                await wire.hello()
                await wire.subscribe(topic=ALL)
                await until(lambda: house.feed.statistics().followers == 2)
                job = await house.new_job()
                told, is_deaf_gone = 0, False

                async def flood() -> None:
                    nonlocal told, is_deaf_gone
                    while house.feed.statistics().followers == 2:
                        told = await house.tell(job, "updated", text="x" * 30_000)
                    is_deaf_gone = True

                async def listen() -> int:
                    last = 0
                    async for text in wire.socket:
                        message = json.loads(text)
                        if message["type"] == "ping":
                            await wire.send(type="pong")
                        last = max([last, *(item["seq"] for item in message.get("items", []))])
                        if is_deaf_gone and last >= told:
                            break
                    return last

                async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                    group.create_task(flood())
                    listening = group.create_task(listen())
                assert listening.result() == told
                assert house.feed.statistics().bytes < 300_000
        finally:
            deaf.close()


async def deaf_socket(port: int, key: str) -> socket.socket:
    """Open a socket that says hello, subscribes and never reads again."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await loop.sock_connect(raw, ("127.0.0.1", port))
    request = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    answer = await loop.sock_recv(raw, 4096)
    if b" 101 " not in answer:
        raw.close()
        raise ConnectionRefusedError(answer)
    for text in ('{"type":"hello"}', '{"type":"subscribe","sub":"a","topic":{"kind":"all"}}'):
        await loop.sock_sendall(raw, bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode())
    return raw


async def test_who_follows_is_logged_with_how_many_do_on_every_face(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bulkops.jobs")
    async with open_house(tmp_path) as house, served(house) as port:
        key, job = await house.key(), await house.new_job()
        topic = {"kind": "job", "job": job.id}
        async with dialled(port, key) as one, dialled(port, key) as two, client(port, key) as http:
            for wire in (one, two):
                await wire.hello()
                await wire.subscribe(topic=topic)
            await two.send(type="unsubscribe", id=3, sub="a")
            await two.receive("unsubscribed")
            headers = {"Accept": "text/event-stream"}
            async with http.stream("GET", f"/api/jobs/{job.id}/events", headers=headers):
                pass
            await until(lambda: house.feed.statistics().followers == 1)
        await until(lambda: house.feed.statistics().followers == 0)
    name = f"topic=job:{job.id}"
    assert [record.getMessage() for record in caplog.records if record.name == "bulkops.jobs"] == [
        f"SUBSCRIBE {name} followers=1",
        f"SUBSCRIBE {name} followers=2",
        f"UNSUBSCRIBE {name} followers=1",
        f"SUBSCRIBE {name} followers=2",
        f"UNSUBSCRIBE {name} followers=1",
        f"UNSUBSCRIBE {name} followers=0",
    ]
    assert {getattr(record, "job", None) for record in caplog.records if record.name == "bulkops.jobs"} == {
        job.id
    }
