"""What is expected of the wire under attack, tried with raw bytes at the real server.

Covered elsewhere: origins, hosts and CORS by table (test_guard), tickets and revoked keys (test_credentials,
test_sse, test_websocket), header and body deadlines, caps, floods of pings and connections (test_server).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import httpx
import pytest

from bulkops.web.doorkeeper import Bounds
from bulkops.web.live.sessions import Limits
from tests.live.crowd import frame, split_frames
from tests.live_house import House, client, open_house, served, until
from tests.test_websocket import dialled

NONCE = "dGhlIHNhbXBsZSBub25jZQ=="


@asynccontextmanager
async def opened(path: Path, limits: Limits | None = None) -> AsyncIterator[tuple[House, int]]:
    async with open_house(path) as house, served(house, limits=limits, bounds=Bounds(drain_s=0.5)) as port:
        yield house, port


async def talk(port: int, *parts: bytes, hang_up: bool = False) -> bytes:
    """Send some bytes and return what comes until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        async with asyncio.timeout(10):
            for part in parts:
                writer.write(part)
                if part.startswith(b"GET") and NONCE.encode() in part and len(parts) > 1:
                    # Nothing may be sent before the answer (RFC 6455, 4.1).
                    heard += await reader.readuntil(b"\r\n\r\n")
            if hang_up:
                writer.write_eof()
            while data := await reader.read(65536):
                heard += data
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return heard


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def request(target: str, *headers: str, host: str | None = None, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
    return ("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode("latin-1")


def handshake(target: str, *headers: str, host: str | None) -> bytes:
    lines = [f"GET {target} HTTP/1.1", *([] if host is None else [f"Host: {host}"])]
    lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Key: {NONCE}", *headers, "", ""]).encode("latin-1")


# -- rows 12 and 13: foreign pages and names


async def test_hosts_that_are_not_ours_are_421_on_the_wire_whatever_their_form(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, port):
        good = f"127.0.0.1:{port}"
        bad = [
            "attacker.example",
            f"127.0.0.1.evil:{port}",
            "localhost.",
            f"u@{good}",
            "[::2]",
            "",
            "a b",
            good + ":1",
        ]
        for host in bad:
            assert status_of(await talk(port, request("/api/events", host=host))) in {400, 421}, host
            assert status_of(await talk(port, handshake("/ws", host=host))) in {400, 421}, host
        for two in ([good, good], [good, "evil.example"]):
            lines = [f"Host: {each}" for each in two]
            assert status_of(await talk(port, request("/api/events", *lines))) == 421
            assert status_of(await talk(port, handshake("/ws", *lines, host=None))) == 421
        assert status_of(await talk(port, request("/api/events"))) in {400, 421}
        assert status_of(await talk(port, handshake("/ws", host=None))) in {400, 421}


async def test_a_foreign_authority_in_the_target_is_421(tmp_path: Path) -> None:
    authorities = ["evil.example", "127.0.0.1@evil.example", "", "[", "127.0.0.1:1"]
    async with opened(tmp_path) as (_, port):
        good = f"127.0.0.1:{port}"
        for scheme, authority in product(("http", "HTTPS", "ws"), authorities):
            target = f"{scheme}://{authority}"
            assert status_of(await talk(port, request(f"{target}/api/events", host=good))) in {400, 421}
            assert status_of(await talk(port, handshake(f"{target}/ws", host=good))) in {400, 421}


async def test_our_own_authority_in_the_target_is_an_ordinary_request(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port):
        good, bearer = f"127.0.0.1:{port}", f"Authorization: Bearer {await house.key()}"
        assert (
            status_of(await talk(port, request(f"http://{good}/api/events?wait=0", bearer, host=good))) == 200
        )
        assert status_of(await talk(port, request(f"http://{good}", bearer, host=good))) == 404
        answer = await talk(port, handshake(f"http://{good}/ws", bearer, host=good), frame(b"{"))
        assert status_of(answer) == 101


@pytest.mark.parametrize(
    "target", ["*", "evil.example:443", "//evil.example/api/events", "/\\evil", "http:", "/ws#x"]
)
async def test_targets_of_no_form_are_an_answer_and_no_crash(tmp_path: Path, target: str) -> None:
    async with opened(tmp_path) as (_, port):
        for method in ("GET", "OPTIONS", "CONNECT"):
            sent = request(target, host=f"127.0.0.1:{port}", method=method)
            assert 400 <= status_of(await talk(port, sent, hang_up=True)) < 500
        assert (
            status_of(await talk(port, handshake(target, host=f"127.0.0.1:{port}"), hang_up=True)) != 101
            or target == "/ws#x"
        )


async def test_a_foreign_page_opens_no_socket_whatever_it_brings(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port):
        good, key = f"127.0.0.1:{port}", await house.key()
        foreign = ["https://evil.example", "null", f"https://{good}", f"http://127.0.0.1:{port + 1}", f"http://{good}.evil",
                   f"http://{good}/", ""]  # fmt: skip
        for origin in foreign:
            for proof in ([], [f"Authorization: Bearer {key}"], [f"Cookie: bulkops_{port}={key}"]):
                sent = handshake("/ws", f"Origin: {origin}", *proof, host=good)
                assert status_of(await talk(port, sent)) == 403, origin
        # Its cookie alone is not enough for a socket that no page opened.
        assert (
            status_of(await talk(port, handshake("/ws", f"Cookie: bulkops_{port}={key}", host=good))) == 403
        )


# -- rows 18, 19 and 21: secrets


async def test_keys_in_the_query_are_refused_and_tickets_there_are_never_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("websockets", "asyncio", "httpx", "httpcore"):
        caplog.set_level(logging.WARNING, name)
    async with opened(tmp_path) as (house, port):
        key, host = await house.key(), f"127.0.0.1:{port}"
        assert status_of(await talk(port, handshake(f"/ws?key={key}", host=host))) == 401
        assert status_of(await talk(port, request(f"/api/events?token={key}", host=host))) == 401
        caller = await house.credentials.verify(key)
        assert caller is not None
        used = await house.credentials.issue_ticket(caller)
        sent = request(f"/api/events?wait=0&ticket={used}", host=host)
        assert [status_of(await talk(port, sent)) for _ in range(2)] == [200, 401]
        # A ticket in the query of a socket is no credential; hello has a place for it.
        other = await house.credentials.issue_ticket(caller)
        answer = await talk(port, handshake(f"/ws?ticket={other}", host=host), frame(b'{"type":"hello"}'))
        assert b"4501" in answer
        in_protocol = await house.credentials.issue_ticket(caller)
        names = ["bulkops.v1", f"bulkops.ticket.{in_protocol}"]
        async with dialled(port, protocols=names) as wire:
            assert (await wire.hello())["user"] == "ana"
        async with dialled(port, protocols=names) as wire:
            assert (await wire.closed())[0] == 4501
    out, err = capfd.readouterr()
    for secret in (key, used, other, in_protocol):
        assert secret not in caplog.text + out + err


async def test_a_revoked_credential_hears_nothing_more_within_five_seconds(tmp_path: Path) -> None:
    """With the limits of production: sockets by key, by ticket and by subprotocol, a stream and a long poll."""
    async with opened(tmp_path) as (house, port):
        key = await house.key()
        caller = await house.credentials.verify(key)
        assert caller is not None
        assert caller.credential is not None
        job = await house.new_job()
        ticket = await house.credentials.issue_ticket(caller)
        names = ["bulkops.v1", f"bulkops.ticket.{ticket}"]
        async with (
            dialled(port, key) as one,
            dialled(port, protocols=names) as two,
            client(port, key) as http,
            http.stream("GET", "/api/events", headers={"Accept": "text/event-stream"}) as stream,
        ):
            for each in (one, two):
                await each.hello()
                await each.subscribe(topic={"kind": "all"})
            lines = stream.aiter_lines()
            async for line in lines:
                if line == "event: ready":
                    break
            polling = asyncio.create_task(http.get("/api/events", params={"wait": 30}))
            await until(lambda: house.feed.statistics().followers == 4)
            async with asyncio.timeout(5):
                await house.credentials.revoke(caller.credential)
                assert [(await each.closed())[0] for each in (one, two)] == [4014, 4014]
                rest = [line async for line in lines]
                assert (await polling).json()["items"] == []
            assert [line for line in rest if line.startswith("event")] == ["event: bye"]
            await house.tell(job, "started")
            assert house.feed.statistics().followers == 0
            assert (await http.get("/api/events")).status_code == 401


# -- rows 42 to 49: bodies, headers, frames, floods


async def test_bodies_that_lie_or_never_end_are_refused_early(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port):
        head = [f"Authorization: Bearer {await house.key()}", "Content-Type: application/json"]
        host = f"127.0.0.1:{port}"
        huge = request("/api/tickets", *head, "Content-Length: 1000000000", host=host, method="POST")
        # A route that takes no body reads none, and hangs up over what is left.
        assert status_of(await talk(port, huge, b"x" * 1000)) in {201, 413}
        chunked = request("/api/tickets", *head, "Transfer-Encoding: chunked", host=host, method="POST")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        assert status_of(await talk(port, chunked, *[chunk] * 40)) in {201, 413, 0}
        bomb = zlib.compress(b"[" * 10_000_000)
        packed = [*head, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}"]
        assert (
            status_of(await talk(port, request("/api/tickets", *packed, host=host, method="POST"), bomb))
            < 500
        )


SMUGGLED: list[list[str]] = [
    ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Content-Length: 5", "Content-Length: 6"],
    ["Content-Length: -1"],
    ["Content-Length: 0x10"],
    ["Transfer-Encoding: chunked, identity"],
    ["X: a\r\n folded"],
    ["X : space"],
    ["Bad\x00Name: x"],
]


async def test_what_could_be_two_requests_is_never_two(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port):
        bearer, host = f"Authorization: Bearer {await house.key()}", f"127.0.0.1:{port}"
        second = b"0\r\n\r\n" + request("/api/events?wait=0", bearer, host=host)
        for bad in SMUGGLED:
            first = request("/api/tickets", *bad, "Content-Type: application/json", host=host, method="POST")
            answer = await talk(port, first, second, hang_up=True)
            assert answer.count(b"HTTP/1.1 ") <= 1, bad
            assert b" 200 " not in answer, bad


async def test_floods_of_headers_are_431_or_cut(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, port):
        host = f"127.0.0.1:{port}"
        for headers in ([f"X-{n}: y" for n in range(1000)], ["X: " + "y" * 20_000], ["X: " + "y" * 200_000]):
            assert status_of(await talk(port, request("/api/events", *headers, host=host))) in {431, 400, 0}
            assert status_of(await talk(port, handshake("/ws", *headers, host=host))) in {431, 400, 0}


def close_code(answer: bytes) -> int | None:
    """Find the code of the close frame after a handshake."""
    frames, _ = split_frames(answer.partition(b"\r\n\r\n")[2])
    return next((int.from_bytes(payload[:2]) for opcode, payload in frames if opcode == 8), None)


HELLO = frame(b'{"type":"hello"}')
FLOODS: dict[str, tuple[Iterable[bytes], int | None]] = {
    "17 MiB in one frame": ([b"\x81\xff" + (17 << 20).to_bytes(8) + b"mask", b"x" * 100_000], 1009),
    "17 MiB in pieces": (
        [frame(b"x" * 60_000, fin=False), *[frame(b"x" * 60_000, opcode=0, fin=False)] * 300],
        1009,
    ),
    "endless empty pieces": (
        [frame(b"{", fin=False), *[frame(b"", opcode=0, fin=False) * 1000] * 100],
        None,
    ),
    "a message inside a message": ([frame(b"{", fin=False), frame(b"{}")], 1002),
    "a continuation of nothing": ([frame(b"{}", opcode=0)], 1002),
    "binary": ([frame(b"{}", opcode=2)], 4500),
    "invalid UTF-8": ([frame(b"\xff\xfe")], 1007),
    "not masked": ([b"\x81\x02{}"], 1002),
    "a reserved opcode": ([frame(b"", opcode=3)], 1002),
    "a compressed frame": ([b"\xc1\x80mask"], 1002),
    "a long ping": ([frame(b"x" * 126, opcode=9)], 1002),
    "a ping in pieces": ([frame(b"x", opcode=9, fin=False)], 1002),
    "a close of one byte": ([frame(b"x", opcode=8)], 1002),
    "a hundred commands": ([frame(b'{"type":"pong"}') * 100], 4013),
    "ten thousand commands": ([frame(b'{"type":"unsubscribe","sub":"a"}') * 100] * 100, 4013),
    "an unknown type": ([frame(b'{"type":"shout"}')], 4500),
    "nothing but a handshake": ([], 4502),
}


async def test_frames_that_break_the_rules_end_their_socket_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, Limits(hello_s=0.5, sweep_s=0.05, watch_s=0.05)) as (house, port):
        bystander = await house.key(user="eva")

        async def try_one(name: str) -> int | None:
            hello = [] if name == "nothing but a handshake" else [HELLO]
            bearer = f"Authorization: Bearer {await house.key(user=name)}"
            begin = handshake("/ws", bearer, host=f"127.0.0.1:{port}")
            return close_code(await talk(port, begin, *hello, *FLOODS[name][0]))

        async with dialled(port, bystander) as wire:
            await wire.hello()
            codes = await asyncio.gather(*map(try_one, FLOODS))
            assert dict(zip(FLOODS, codes, strict=True)) == {name: code for name, (_, code) in FLOODS.items()}
            assert (await wire.subscribe(topic={"kind": "all"}))["type"] == "subscribed"
        await until(lambda: house.feed.statistics().followers == 0)
    # What strangers do is no line of ours, or of uvicorn's.
    assert [record for record in caplog.records if record.name == "uvicorn.error"] == []


def send_on(port: int, begin: bytes) -> bytes:
    """Send a frame that is too big, and go on after the server's close is there; return what it said."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall(begin)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += peer.recv(65536)
        peer.sendall(b"\x81\xff" + (1 << 25).to_bytes(8) + b"mask")
        peer.recv(1, socket.MSG_PEEK)
        for _ in range(400):  # more than buffers take
            peer.sendall(b"x" * 65536)
        return b"".join(iter(lambda: peer.recv(65536), b""))


async def test_whoever_still_sends_what_is_too_big_hears_why_it_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port):
        bearer = f"Authorization: Bearer {await house.key()}"
        begin = handshake("/ws", bearer, host=f"127.0.0.1:{port}")
        frames, _ = split_frames(await asyncio.to_thread(send_on, port, begin))
        assert [payload[:2] for opcode, payload in frames if opcode == 8] == [(1009).to_bytes(2)]


async def test_refused_handshakes_and_broken_requests_leave_no_line_of_uvicorns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    async with opened(tmp_path) as (_, port):
        host = f"127.0.0.1:{port}"
        await talk(port, handshake("/ws?ticket=canary", "Origin: null", host=host))
        await talk(port, handshake("/none?ticket=canary", host=host))
        await talk(port, handshake("/ws", "Sec-WebSocket-Version: 99", host=host))
        await talk(port, b"GET / HTTP/9.9 nonsense\r\n\r\n")
        await talk(
            port, request("/api/events", "Upgrade: h2c", "Connection: Upgrade", host=host), hang_up=True
        )
        await talk(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    told = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    assert not [line for line in told if "canary" in line]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_slow_senders_do_not_slow_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port):
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        for _, writer in slow:
            writer.write(b"GET /api/events HTTP/1.1\r\nHo")
        async with client(port, await house.key()) as http:
            loop = asyncio.get_running_loop()
            times = []
            for _ in range(50):
                began = loop.time()
                assert (await http.get("/api/events")).status_code == 200
                times.append(loop.time() - began)
        assert sorted(times)[47] < 0.25
        for _, writer in slow:
            writer.transport.abort()


async def test_two_hundred_that_never_read_do_not_hold_up_the_log(tmp_path: Path) -> None:
    """Row 48: writing an event waits for no reader; what is remembered for them is bounded."""
    limits = Limits(max_sessions=300, blocked_s=2)
    async with opened(tmp_path, limits) as (house, port):
        key = await house.key()
        idle = []
        for _ in range(200):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(handshake("/ws", f"Authorization: Bearer {key}", host=f"127.0.0.1:{port}"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO + frame(b'{"type":"subscribe","sub":"a","topic":{"kind":"all"}}'))
            idle.append((reader, writer))
        await until(lambda: house.feed.statistics().followers == 200, within_s=20)
        job = await house.new_job()
        loop = asyncio.get_running_loop()
        worst = 0.0
        for _ in range(30):
            began = loop.time()
            await house.tell(job, "updated", text="x" * 20_000)
            worst = max(worst, loop.time() - began)
            assert house.feed.statistics().bytes < 300_000
        assert worst < 2
        for _, writer in idle:
            writer.transport.abort()


async def test_who_holds_all_the_sockets_cannot_keep_a_cancel_out(tmp_path: Path) -> None:
    """Row 47, by sockets that say hello; a flood of bare connections is in test_server."""
    async with opened(tmp_path) as (house, port):
        key = await house.key()
        async with client(port, key) as http:
            wires = []
            for _ in range(25):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(handshake("/ws", f"Authorization: Bearer {key}", host=f"127.0.0.1:{port}"))
                await reader.readuntil(b"\r\n\r\n")
                writer.write(HELLO)
                wires.append((reader, writer))
            heard = []
            for reader, _ in wires:
                async with asyncio.timeout(5):
                    data = b""
                    while b"welcome" not in data and b"4504" not in data:
                        data += await reader.read(4096)
                    heard.append(b"4504" in data)
            assert sum(heard) == 5
            async with asyncio.timeout(2):
                assert (await http.post("/api/tickets", json={})).status_code == 201
            for _, writer in wires:
                writer.transport.abort()


async def test_no_answer_of_a_stream_may_be_kept_by_a_cache(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port), client(port, await house.key()) as http:
        for accept in ("text/event-stream", "application/x-ndjson"):
            async with http.stream("GET", "/api/events", headers={"Accept": accept}) as answer:
                assert "no-store" in answer.headers["cache-control"]
        answer = await http.post("/api/tickets", json={})
        assert isinstance(answer, httpx.Response)
        assert answer.headers["cache-control"] == "no-store"
