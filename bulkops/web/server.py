"""uvicorn, held to what a server that meets strangers needs: deadlines, caps, an end in seconds.

An ASGI application and an address come in; connections go out of it in every case, also those whose peer
neither reads nor closes (see `connections`, and `doorkeeper` for who has to go). Nothing here knows a route or a
caller.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, Protocol

import uvicorn

from bulkops.web.connections import HttpConnection, SharedFrames, SocketConnection
from bulkops.web.doorkeeper import Bounds, Doorkeeper
from bulkops.web.listener import BACKLOG, bind, room_for_connections


class Flag(Protocol):
    """Set once, when the server begins to shut down; setting it from outside begins that."""

    def is_set(self) -> bool: ...
    def set(self) -> object: ...


class Server(uvicorn.Server):
    """uvicorn's server with our end: writers say goodbye first, and what is left goes by force."""

    def __init__(
        self,
        config: uvicorn.Config,
        doorkeeper: Doorkeeper,
        draining: Flag,
        on_ready: Callable[[str, int], None],
        listener: socket.socket,
        *,
        signals: bool,
    ) -> None:
        super().__init__(config)
        self.doorkeeper = doorkeeper
        self.caught: int | None = None
        self._draining = draining
        self._on_ready = on_ready
        self._listener = listener
        self._signals = signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self._listener.getsockname()[:2]
            self._on_ready(host, port)

    async def on_tick(self, counter: int) -> bool:
        if counter % 5 == 0:
            self.doorkeeper.sweep(asyncio.get_running_loop().time())
        return self._draining.is_set() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._draining.set()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpConnection):
                connection.shutdown()
        await self._wait_for_goodbyes()
        for left in list(self.doorkeeper.connections):
            left.abort()
        await super().shutdown(sockets)

    async def _wait_for_goodbyes(self) -> None:
        now = asyncio.get_running_loop().time
        until = now() + self.doorkeeper.bounds.drain_s
        # uvicorn keeps its connections in a set that rings no bell.
        while self.server_state.connections and now() < until and not self.force_exit:  # noqa: ASYNC110  see above
            await asyncio.sleep(0.02)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Turn SIGINT and SIGTERM into a shutdown; unlike uvicorn's own, never raise them again afterwards.

        Whoever serves has a house to close after the doors; `caught` says which signal it was. Told once, it
        is deaf to more of them, until the process ends: a terminal's Ctrl-C comes twice to a packaged binary,
        and the second would tear down what the first is closing.
        """
        if not self._signals:
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler if self.caught is None else signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught = sig
            super().handle_exit(sig, frame)


class _AcceptFilter(logging.Filter):
    """Lets one line in ten seconds through about files running out; asyncio writes thousands."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._quiet_until = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if "out of system resource" not in record.getMessage():
            return True
        if self._now() < self._quiet_until:
            return False
        self._quiet_until = self._now() + 10
        return True


class _StrangerFilter(logging.Filter):
    """Keeps back uvicorn's lines about what strangers send, and its paths with their tickets."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_STRANGERS)


_STRANGERS: Final = (
    "ASGI callable returned without completing handshake",  # a handshake that was refused with an answer
    "Invalid HTTP request received",
    "Invalid UTF-8 sequence received from client",
    "Unsupported upgrade request",
    "opening handshake failed",
    "parser failed",
    '%s - "WebSocket %s"',
)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    with ExitStack() as stack:
        guards: dict[str, logging.Filter] = {
            "asyncio": _AcceptFilter(asyncio.get_running_loop().time),
            "uvicorn.error": _StrangerFilter(),
        }
        for name, guard in guards.items():
            logger = logging.getLogger(name)
            logger.addFilter(guard)
            stack.callback(logger.removeFilter, guard)
        yield


def _configure(app: Any, doorkeeper: Doorkeeper) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=type("HttpConnection", (HttpConnection,), {"doorkeeper": doorkeeper}),
        ws=type(
            "SocketConnection", (SocketConnection,), {"doorkeeper": doorkeeper, "shared": SharedFrames()}
        ),
        ws_max_size=65_536,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # the protocol has its own, which see whether the peer reads
        log_config=None,
        log_level="warning",  # uvicorn's lines about sockets bear the query
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=doorkeeper.bounds.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(doorkeeper.bounds.drain_s)),
    )


async def serve(
    app: Any,
    *,
    host: str,
    port: int,
    draining: Flag,
    on_ready: Callable[[str, int], None],
    signals: bool = True,
    bounds: Bounds | None = None,
) -> int | None:
    """Serve ``app`` until a signal, or until ``draining`` is set; return the signal, ``None`` without one.

    ``on_ready(host, port)`` is called once the first request would be answered. On the way out
    ``draining`` is set first, so that whoever writes can say goodbye; nobody is waited for longer than
    seconds.

    Raises:
        StartRefused: (``bind``) nobody can listen there.
    """
    bounds = bounds or Bounds()
    listener = bind(host, port)
    try:
        doorkeeper = Doorkeeper(bounds, room_for_connections(bounds))
        server = Server(
            _configure(app, doorkeeper), doorkeeper, draining, on_ready, listener, signals=signals
        )
        with _quiet_logs():
            await server.serve(sockets=[listener])
    finally:
        listener.close()
    return server.caught
