from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkops.web.doorkeeper import Bounds
from bulkops.web.live.sessions import Limits
from bulkops.web.server import _AcceptFilter, serve
from tests.live_house import client, open_house, served, until
from tests.test_websocket import deaf_socket, dialled

CHECKOUT = Path(__file__).parents[1]


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body."""
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


@asynccontextmanager
async def plain_server(bounds: Bounds | None = None) -> AsyncIterator[int]:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    draining = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            serve(
                plain_app,
                host="127.0.0.1",
                port=0,
                draining=draining,
                on_ready=lambda _, port: ready.set_result(port),
                signals=False,
                bounds=bounds,
            )
        )
        try:
            yield await ready
        finally:
            draining.set()


async def talk(port: int, *parts: bytes) -> bytes:
    """Send some bytes and return what comes until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
        async with asyncio.timeout(5):
            try:
                return await reader.read()
            except ConnectionError:
                return b"reset"
    finally:
        writer.transport.abort()


# -- the address


async def test_ready_means_that_requests_are_answered_and_nobody_learns_what_we_are() -> None:
    async with plain_server() as port, httpx.AsyncClient() as http:
        answer = await http.post(f"http://127.0.0.1:{port}/", content=b"12345")
        assert answer.text == "5"
        assert "server" not in answer.headers


# -- deadlines


async def test_headers_that_do_not_arrive_in_time_end_the_connection() -> None:
    async with plain_server(Bounds(headers_s=0.2)) as port:
        assert await talk(port, b"GET / HTTP/1.1\r\nHo") in (b"", b"reset")
        assert await talk(port) in (b"", b"reset")


async def test_a_body_that_does_not_arrive_in_time_ends_the_connection() -> None:
    async with plain_server(Bounds(body_s=0.2)) as port:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"
        assert b"200" not in await talk(port, head)


async def test_the_second_request_of_a_connection_has_a_deadline_too() -> None:
    async with plain_server(Bounds(headers_s=0.3, keep_alive_s=60)) as port:
        first = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        heard = await talk(port, first, b"GET / HTTP/1.1\r\n")
        assert heard == b"reset" or heard.count(b"200 OK") == 1


async def test_headers_without_end_are_cut_off() -> None:
    async with plain_server(Bounds(max_header_bytes=10_000)) as port:
        flood = [b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X-Many: " + b"y" * 1000 + b"\r\n"] * 200]
        assert b"200" not in await talk(port, *flood)


async def test_a_client_that_says_everything_first_hears_afterwards_that_it_was_too_much() -> None:
    def say_all_then_listen(port: int) -> bytes:
        heard = b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"y" * 100_000 + b"\r\n\r\n")
            while chunk := peer.recv(65_536):
                heard += chunk
        return heard

    async with plain_server(Bounds(max_header_bytes=10_000)) as port:
        head, _, body = (await asyncio.to_thread(say_all_then_listen, port)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "HEADERS_TOO_LARGE"


async def test_headers_that_go_on_after_they_were_refused_are_cut_off() -> None:
    async with plain_server(Bounds(max_header_bytes=1_000)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")

        async def go_on() -> None:
            while True:
                writer.write(b"X-Many: " + b"y" * 1000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(go_on(), 5)
        writer.transport.abort()


# -- caps


async def test_idle_connections_make_room_for_a_command(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house, bounds=Bounds(max_connections=8)) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        async with client(port, await house.key()) as http:
            assert (await http.get("/api/events")).status_code == 200
        for _, writer in idle:
            writer.transport.abort()


async def test_sockets_and_streams_leave_a_quarter_of_the_room_to_commands(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house, bounds=Bounds(max_connections=8)) as port:
        key = await house.key()
        deaf = [await deaf_socket(port, key) for _ in range(6)]
        try:
            with pytest.raises(ConnectionRefusedError, match="503"):
                await deaf_socket(port, key)
            async with client(port, key) as http:
                refused = await http.get("/api/events", headers={"Accept": "text/event-stream"})
                assert refused.status_code == 429
                assert (await http.post("/api/tickets", json={})).status_code == 201
        finally:
            for each in deaf:
                each.close()
        await until(lambda: house.feed.statistics().followers == 0)
        async with dialled(port, key) as wire:
            await wire.hello()


async def test_pings_of_a_peer_that_never_reads_do_not_pile_up(tmp_path: Path) -> None:
    bounds = Bounds(max_unanswered_bytes=20_000)
    async with open_house(tmp_path) as house, served(house, bounds=bounds) as port:
        deaf = await deaf_socket(port, await house.key())
        frame = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + b"p" * 125

        async def flood() -> None:
            while True:
                await asyncio.get_running_loop().sock_sendall(deaf, frame * 100)

        with closing(deaf), pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                await flood()
        await until(lambda: house.feed.statistics().followers == 0)


async def test_a_stream_that_is_never_read_is_aborted(tmp_path: Path) -> None:
    limits = Limits(blocked_s=0.3, sweep_s=0.05, watch_s=0.05)
    async with open_house(tmp_path) as house, served(house, limits=limits) as port:
        key, loop = await house.key(), asyncio.get_running_loop()
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        with closing(raw):
            await loop.sock_connect(raw, ("127.0.0.1", port))
            head = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            await loop.sock_sendall(raw, f"{head}Accept: text/event-stream\r\n\r\n".encode())
            await until(lambda: house.feed.statistics().followers == 1)
            job = await house.new_job()

            async def one_more() -> bool:
                await house.tell(job, "updated", text="x" * 30_000)
                return house.feed.statistics().followers == 0

            await until(one_more, within_s=10)


async def test_deflate_is_off(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, served(house) as port, dialled(port, await house.key()) as wire:
        assert wire.socket.response is not None
        assert "Sec-WebSocket-Extensions" not in wire.socket.response.headers


def test_running_out_of_files_is_one_line_and_not_thousands() -> None:
    now = 0.0
    guard = _AcceptFilter(lambda: now)

    def passes(text: str) -> bool:
        return guard.filter(logging.LogRecord("asyncio", logging.ERROR, "", 0, text, (), None))

    trouble = "socket.accept() out of system resource"
    assert [passes(trouble) for _ in range(3)] == [True, False, False]
    assert passes("something else")
    now = 11.0
    assert passes(trouble)


# -- the end


@asynccontextmanager
async def process(path: Path, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, str]]:
    """Run `tests.live_server` and yield it with its port and a key."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.live_server",
        str(path),
        *arguments,
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    try:
        ready = json.loads(await running.stdout.readline())
        yield running, ready["port"], ready["key"]
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def heard(lines: AsyncIterator[str], text: str) -> None:
    async for line in lines:
        if text in line:
            return
    raise EOFError


async def test_sigterm_ends_everything_in_seconds_and_says_so(tmp_path: Path) -> None:
    async with process(tmp_path) as (running, port, key), client(port, key) as http:
        deaf = await deaf_socket(port, key)
        headers = {"Accept": "text/event-stream"}
        async with dialled(port, key) as wire, http.stream("GET", "/api/events", headers=headers) as stream:
            await wire.hello()
            lines = stream.aiter_lines()
            await heard(lines, "event: ready")
            polling = asyncio.create_task(http.get("/api/events", params={"wait": 30}))
            await asyncio.sleep(0.1)  # the poll has nothing to show that it is waiting
            running.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                await heard(lines, "event: bye")
                assert await wire.closed() == (
                    1012,
                    {
                        "type": "bye",
                        "code": 1012,
                        "reason": "restart",
                        "reconnect": True,
                        "retry_after_ms": 800,
                    },
                )
                assert (await polling).status_code == 200
                assert running.stdout is not None
                assert json.loads(await running.stdout.readline()) == {"signal": signal.SIGTERM}
                assert await running.wait() == 0
        deaf.close()


async def test_a_flood_of_connections_leaves_room_for_a_command_where_files_are_few(tmp_path: Path) -> None:
    async with process(tmp_path, "256") as (_, port, key):
        raw = []
        for _ in range(300):
            peer = socket.socket()
            peer.setblocking(False)
            raw.append(peer)
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
            head = (
                f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            )
            nonce = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(peer, (head + nonce).encode())
        try:
            async with client(port, key) as http, asyncio.timeout(2):
                assert (await http.post("/api/tickets", json={})).status_code == 201
        finally:
            for peer in raw:
                peer.close()
