"""A thousand WebSocket clients in one process, as cheap as they can be: bytes are searched, never parsed."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

_SENT: Final = re.compile(rb'"n":(\d+),"t":(\d+)')
_HANDSHAKE: Final = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: bulkops.v1\r\nAuthorization: Bearer {key}\r\n\r\n"
)
_HELLO: Final = b'{"type":"hello","id":1}'
_SUBSCRIBE: Final = b'{"type":"subscribe","id":2,"sub":"a","topic":{"kind":"all"},"since":"now"}'


def masked(text: bytes) -> bytes:
    """Write a short text as a client's frame (RFC 6455, 5.2)."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2)
    return b"\x81" + length + mask + body


def _itself(client: Client) -> Callable[[], Client]:
    return lambda: client


class Client(asyncio.Protocol):
    """One client: becomes ready, then notes what it receives and when."""

    def __init__(self, swarm: Swarm, key: str) -> None:
        self._swarm = swarm
        self._key = key
        self._tail = b""
        self._upgraded = False
        self.last = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(_HANDSHAKE.format(port=self._swarm.port, key=self._key).encode())

    def data_received(self, data: bytes) -> None:
        if not self._upgraded:
            if b"101 Switching" not in data:
                raise RuntimeError(f"no socket: {data[:200]!r}")
            self._upgraded = True
            if self._swarm.bare:
                self._swarm.became_ready()
            else:
                self.transport.write(masked(_HELLO) + masked(_SUBSCRIBE))
            return
        if b'"type":"ping"' in data:
            self.transport.write(masked(b'{"type":"pong"}'))
        if b'"type":"subscribed"' in data:
            self._swarm.became_ready()
        self._note(self._tail + data)

    def _note(self, data: bytes) -> None:
        end = 0
        now = time.monotonic_ns()
        for found in _SENT.finditer(data):
            end = found.end()
            self.last = int(found[1])
            self._swarm.delays_ns.append(now - int(found[2]))
            if self.last == self._swarm.awaited:
                self._swarm.arrived()
        # An event may come in two pieces, but its numbers stand near each other.
        self._tail = data[max(end, len(data) - 64) :]


class Swarm:
    """All clients together."""

    def __init__(self, port: int, *, bare: bool) -> None:
        self.port = port
        self.bare = bare
        self.delays_ns: list[int] = []
        self.awaited = -1
        self._clients: list[Client] = []
        self._missing = 0
        self._bell = asyncio.Event()

    async def connect(self, count: int, keys: Sequence[str]) -> None:
        """Open sockets, some at a time, until all follow everything."""
        loop = asyncio.get_running_loop()
        for first in range(0, count, 50):
            some = range(first, min(count, first + 50))
            self._missing = len(some)
            self._bell.clear()
            for index in some:
                client = Client(self, keys[index % len(keys)])
                await loop.create_connection(_itself(client), "127.0.0.1", self.port)
                self._clients.append(client)
            await asyncio.wait_for(self._bell.wait(), 60)

    def became_ready(self) -> None:
        self.arrived()

    def arrived(self) -> None:
        """Count one that was waited for; the last of them rings."""
        self._missing -= 1
        if self._missing == 0:
            self._bell.set()

    def expect(self, number: int) -> None:
        """Begin to wait for an event at every client."""
        self.delays_ns = []
        self.awaited = number
        self._missing = len(self._clients)
        self._bell.clear()

    async def all_arrived(self) -> None:
        """Wait until every client has the awaited event."""
        await asyncio.wait_for(self._bell.wait(), 120)

    def close(self) -> None:
        """Drop all sockets."""
        for client in self._clients:
            client.transport.abort()
