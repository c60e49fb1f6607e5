"""Endpoints that webhooks are sent to: real servers on the loopback that answer as a test says, and remember."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from standardwebhooks import Webhook

#: What an endpoint says to a letter: a status line and what follows, or nothing at all.
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """Write an answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Received(msgspec.Struct, frozen=True):
    """A request as it came over the line."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(self.json["type"])

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def verified(self, secret: str) -> Any:
        """Check the signature with the library that receivers use; return the payload."""
        return Webhook(secret).verify(self.body, self.headers)


class Endpoint:
    """One server; ``reply`` makes the answer to a request, ``None`` leaves it hanging."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.got: list[Received] = []
        self.got_one = asyncio.Event()
        self.reply: Callable[[Received], bytes | None] = lambda _: OK
        self.sent_bytes = 0
        self.endless = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def types(self) -> list[str]:
        return [each.type for each in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.rstrip().split("\r\n")
            headers = {name.lower(): text for name, text in (each.split(": ", 1) for each in rest)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Received(line, headers, body)
            self.got.append(request)
            self.got_one.set()
            found = self.reply(request)
            if found is None:
                await reader.read()  # until the other side gives up
            else:
                writer.write(found)
                await writer.drain()
                while self.endless:
                    writer.write(b"x" * 65_536)
                    await writer.drain()
                    self.sent_bytes += 65_536
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@asynccontextmanager
async def an_endpoint(
    *, reply: Callable[[Received], bytes | None] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Endpoint]:
    """Run an endpoint until the end of the block."""
    endpoint = Endpoint(0)
    if reply is not None:
        endpoint.reply = reply
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=tls)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
