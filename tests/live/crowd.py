"""Many WebSocket clients in one loop: each follows one job by the rule, and may stop reading for a while."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from typing import Any

import msgspec

from bulkops.store.events import Cursor
from tests.client_rule import ClientRule

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: bulkops.v1\r\nAuthorization: Bearer {key}\r\n\r\n"
)


def raise_file_limit() -> int:
    """Let this process open as many files as it may; return how many that are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def frame(payload: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    """Write a client's frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + size.to_bytes(2)
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8)
    mask = os.urandom(4)
    stream = int.from_bytes(mask * (size // 4 + 1), "big") >> (8 * (4 - size % 4))
    masked = (int.from_bytes(payload, "big") ^ stream).to_bytes(size, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + length + mask + masked


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Split a server's frames off: opcode and payload of each, and what is left."""
    found, at = [], 0
    while len(data) - at >= 2:
        size, head = data[at + 1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head])
        if len(data) - at < head + size or len(data) - at < head:
            break
        found.append((data[at] & 15, data[at + head : at + head + size]))
        at += head + size
    return found, data[at:]


class Member(asyncio.Protocol):
    """One client; ``rule`` stays when it is disconnected, and is where it goes on."""

    def __init__(self, job: str, epoch: str, key: str) -> None:
        self.rule = ClientRule()
        self.rule.fetched(Cursor(epoch, 0))
        self.job = job
        self.key = key
        self.delays_ms: list[float] = []
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        self.bye: dict[str, Any] | None = None
        self.coalesced = False

    async def connect(self, port: int, *, small: bool = False) -> None:
        """Connect and subscribe at the cursor; ``small``: let the kernel hold back little."""
        self._data, self._upgraded = b"", False
        self.ready.clear()
        self.lost.clear()
        loop = asyncio.get_running_loop()
        raw = socket.socket()
        if small:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", port))
        self.transport, _ = await loop.create_connection(lambda: self, sock=raw)
        self.transport.write(HANDSHAKE.format(port=port, key=self.key).encode())
        await self.ready.wait()

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._upgraded:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head, head
            self._upgraded, self._data = True, rest
            topic = {"kind": "job", "job": self.job}
            self._tell({"type": "hello"})
            self._tell({"type": "subscribe", "sub": "a", "topic": topic, "since": str(self.rule.mine)})
        frames, self._data = split_frames(self._data)
        for opcode, payload in frames:
            if opcode == 1:
                self._hear(msgspec.json.decode(payload))

    def _tell(self, message: dict[str, Any]) -> None:
        self.transport.write(frame(msgspec.json.encode(message)))

    def _hear(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribed":
                assert message["recovered"], message
                self.ready.set()
            case "events":
                self._take(message)
            case "ping":
                self._tell({"type": "pong"})
            case "bye":
                self.bye = message
            case "reset":
                raise AssertionError(message)
            case _:
                pass

    def _take(self, message: dict[str, Any]) -> None:
        now = time.monotonic_ns()
        items = message["items"]
        self.coalesced = self.coalesced or message.get("coalesced", False)
        self.rule.take(
            Cursor.parse(message["prev"]),
            Cursor.parse(message["cursor"]),
            [(item["seq"], item["kind"]) for item in items],
        )
        self.delays_ms += [(now - item["data"]["t"]) / 1e6 for item in items if "t" in item["data"]]
        if any(item["kind"] == "completed" for item in items):
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
