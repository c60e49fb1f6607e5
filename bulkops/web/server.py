"""uvicorn, held to what a server that meets strangers needs: deadlines, caps, an end in seconds.

An ASGI application and an address come in; connections go out of it in every case, also those whose peer
neither reads nor closes. The socket is bound here, so that port 0 works and a taken port is an error and
never a neighbour. Nothing here knows a route or a caller; what an application needs of its connection it
finds in the scope's extensions (`ABORT`, `HOLD`, `WRITE`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Final, Protocol, cast

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from bulkops.errors import StartRefused
from bulkops.web.guard import UPLOAD_DEADLINE_S, is_upload
from bulkops.web.live.sessions import ABORT, HOLD, WRITE

_SNDBUF_BYTES: Final = 64 * 1024
_USER_TIMEOUT_MS: Final = 60_000
_BACKLOG: Final = 256
_MAX_FILES: Final = 65_536
#: Pieces of one unfinished message; ours come in one, and empty ones would pile up for nothing.
_MAX_FRAGMENTS: Final = 64
_log = logging.getLogger("bulkops.server")


class Flag(Protocol):
    """Set once, when the server begins to shut down; setting it from outside begins that."""

    def is_set(self) -> bool: ...
    def set(self) -> object: ...


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How long a request may take to arrive, how many connections there may be, how long the end takes."""

    headers_s: float = 10
    body_s: float = 30
    keep_alive_s: int = 15
    drain_s: float = 2
    max_header_bytes: int = 64 * 1024
    max_connections: int = 4096
    max_unanswered_bytes: int = 256 * 1024


class Census:
    """Who is connected: caps, deadlines, and who goes first when there is no room.

    Sockets and streams stay for hours, so together they get three quarters of the room; the rest is for
    commands. A new connection at the cap takes the place of the oldest that asks nothing.
    """

    def __init__(self, bounds: Bounds, max_connections: int) -> None:
        self.bounds = bounds
        self.max_connections = max_connections
        self.max_held = max_connections * 3 // 4
        # Behind a proxy on this machine everybody has its address.
        self.max_per_client = max(16, max_connections // 4)
        self.connections: dict[Connection, None] = {}
        self.held = 0
        self._clients: Counter[str] = Counter()
        self._framed = ("", b"")

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; ``False`` when it has to go at once."""
        client = connection.peer
        if self._clients[client] >= self.max_per_client and not _is_loopback(client):
            return False
        if len(self.connections) >= self.max_connections and not self._make_room():
            return False
        self.connections[connection] = None
        self._clients[client] += 1
        return True

    def _make_room(self) -> bool:
        idle = next((each for each in self.connections if each.is_idle()), None)
        if idle is None:
            return False
        self.leave(idle)
        idle.abort()
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection; one that is not here is fine."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self.release(connection)
        self._clients[connection.peer] -= 1
        if not self._clients[connection.peer]:
            del self._clients[connection.peer]

    def hold(self, connection: Connection) -> bool:
        """Take a long-lived place for a connection; ``False`` when the rest is needed for commands."""
        if connection.holds:
            return True
        if self.held >= self.max_held:
            return False
        connection.holds = True
        self.held += 1
        return True

    def release(self, connection: Connection) -> None:
        """Give the long-lived place back; without one nothing happens."""
        if connection.holds:
            connection.holds = False
            self.held -= 1

    def frame_of(self, text: str) -> bytes:
        """Return a text frame as it is on the wire; the next thousand sockets mostly want the same one."""
        if self._framed[0] != text:
            # A server masks nothing and deflate is off, so a frame is the same for everybody (RFC 6455, 5.2).
            self._framed = (text, Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        return self._framed[1]

    def sweep(self, now: float) -> None:
        """Abort who let a deadline pass."""
        for connection in [each for each in self.connections if each.is_late(now)]:
            connection.abort()


def _is_loopback(client: str) -> bool:
    return client.startswith(("127.", "::1", "::ffff:127."))


class Connection(Protocol):
    """What the census asks of a connection."""

    holds: bool

    @property
    def peer(self) -> str: ...
    def is_idle(self) -> bool: ...
    def is_late(self, now: float) -> bool: ...
    def abort(self) -> None: ...


_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


def _peer_of(transport: asyncio.BaseTransport | None) -> str:
    name = None if transport is None else transport.get_extra_info("peername")
    return str(name[0]) if name else "-"


class HttpConnection(HttpToolsProtocol):
    """HTTP/1.1 with an absolute deadline for headers and body."""

    census: Census

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.holds = False
        self.peer = _peer_of(transport)
        self._deadline: float | None = self.loop.time() + self.census.bounds.headers_s
        self._in_headers = True
        self._header_bytes = 0
        super().connection_made(transport)
        if not self.census.admit(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.census.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.census.bounds.max_header_bytes and self._is_headless(data):
                self.abort()
                return
        super().data_received(data)

    def _is_headless(self, data: bytes) -> bool:
        # A body may come in the packet that ends the headers, and has limits of its own.
        return b"\r\n\r\n" not in data[: self.census.bounds.max_header_bytes]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_headers:
            self._in_headers = True
            self._header_bytes = 0
            self._deadline = self.loop.time() + self.census.bounds.headers_s

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._take_authority()
        extensions = self.scope.setdefault("extensions", {})
        cast("dict[str, Any]", extensions).update({ABORT: self.abort, HOLD: lambda: self.census.hold(self)})
        super().on_headers_complete()
        # An upgrade has no path yet, and is over at once.
        upload = "path" in self.scope and is_upload(cast("Any", self.scope))
        self._deadline = self.loop.time() + (UPLOAD_DEADLINE_S if upload else self.census.bounds.body_s)

    def _take_authority(self) -> None:
        """Make a target in absolute form (RFC 9112, 3.2.2) an ordinary one.

        uvicorn drops its authority; one that is not the Host header's becomes a second Host, which the
        application refuses as it refuses any two.
        """
        found = _ABSOLUTE.match(self.url)
        if found is None:
            return
        rest = self.url[found.end() :]
        self.url = rest if rest.startswith(b"/") else b"/" + rest
        authority = found[1].lower()
        if [value.lower() for name, value in self.headers if name == b"host"] != [authority]:
            self.headers.append((b"host", authority))

    def on_message_complete(self) -> None:
        self._deadline = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.census.release(self)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self.census.leave(self)
        super().handle_websocket_upgrade()

    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def is_late(self, now: float) -> bool:
        return self._deadline is not None and now > self._deadline

    def abort(self) -> None:
        self.transport.abort()


_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket that is gone when it should be, whether its peer reads or not."""

    census: Census

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.holds = False
        self.peer = _peer_of(transport)
        self.close_timeout = self.census.bounds.drain_s
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A request that the library does not take (long lines, many headers) it leaves without an answer.
        if not self.handshake_initiated and not self.close_sent:
            self.close_sent = self.handshake_complete = True
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        if not self.census.admit(self) or not self.census.hold(self):
            _log.warning("no room for another socket; %d are open", self.census.held)
            self._turn_away()
            return
        super().handle_connect(event)
        # The task that serves this scope was made but has not begun.
        if hasattr(self, "scope"):
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions.update({ABORT: self.abort, WRITE: self.write_text})

    def write_text(self, text: str) -> bool:
        """Write a text frame without waiting; ``False`` (and nothing written) when that would pile up."""
        if not self.writable.is_set() or not self.handshake_complete or self.close_sent:
            return False
        if self.disconnected or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return False
        self.transport.write(self.census.frame_of(text))
        return True

    def _turn_away(self) -> None:
        response = self.conn.reject(503, "too many sockets are open\n")
        response.headers["Retry-After"] = "5"
        self.handshake_complete = self.close_sent = True
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.census.leave(self)
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MAX_FRAGMENTS:
            self.abort()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        # Pongs that nobody reads would pile up here: this answer alone asks nobody for leave.
        if self.transport.get_write_buffer_size() > self.census.bounds.max_unanswered_bytes:
            self.abort()
            return
        super().handle_ping()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        # Closing waits for the peer to read what is left, which it may never do.
        self.loop.call_later(self.census.bounds.drain_s + 1, self.abort)

    def is_idle(self) -> bool:
        return False

    def is_late(self, now: float) -> bool:  # noqa: ARG002  the live sessions watch sockets
        return False

    def abort(self) -> None:
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server with our end: writers say goodbye first, and what is left goes by force."""

    def __init__(
        self,
        config: uvicorn.Config,
        census: Census,
        draining: Flag,
        on_ready: Callable[[str, int], None],
        listener: socket.socket,
        *,
        signals: bool,
    ) -> None:
        super().__init__(config)
        self.census = census
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
            self.census.sweep(asyncio.get_running_loop().time())
        return self._draining.is_set() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._draining.set()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpConnection):
                connection.shutdown()
        await self._wait_for_goodbyes()
        for left in list(self.census.connections):
            left.abort()
        await super().shutdown(sockets)

    async def _wait_for_goodbyes(self) -> None:
        now = asyncio.get_running_loop().time
        until = now() + self.census.bounds.drain_s
        # uvicorn keeps its connections in a set that rings no bell.
        while self.server_state.connections and now() < until and not self.force_exit:  # noqa: ASYNC110  see above
            await asyncio.sleep(0.02)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Turn SIGINT and SIGTERM into a shutdown; unlike uvicorn's own, never raise them again afterwards.

        Whoever serves has a house to close after the doors; `caught` says which signal it was.
        """
        if not self._signals:
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.caught = sig
        super().handle_exit(sig, frame)


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen at exactly this address; port 0 takes a free one.

    Raises:
        StartRefused: (``bind``) the address is taken, not ours, or needs rights we lack.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            # As bytes, an address does not go through the codec of international names, which is slow to load.
            host.encode() if host.isascii() else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
    except OSError as error:
        raise StartRefused("bind", f"{host} is no address to listen at: {error}") from error
    listener = socket.socket(family, kind, number)
    try:
        _set_options(listener, family)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise StartRefused("bind", f"cannot listen at {host} port {port}: {reason}") from error
    return listener


def _set_options(listener: socket.socket, family: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # Accepted sockets inherit both: little is hidden in the kernel, and a dead peer is noticed there too.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SNDBUF_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def room_for_connections(bounds: Bounds) -> int:
    """Raise the limit of open files as far as allowed; return how many connections that leaves room for."""
    try:
        import resource  # not on Windows
    except ImportError:  # pragma: no cover
        return min(bounds.max_connections, 512)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    files = _MAX_FILES if soft == resource.RLIM_INFINITY else soft
    return max(8, min(bounds.max_connections, files - max(64, files // 4)))


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


def _configure(app: Any, census: Census) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=type("HttpConnection", (HttpConnection,), {"census": census}),
        ws=type("SocketConnection", (SocketConnection,), {"census": census}),
        ws_max_size=65_536,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # the protocol has its own, which see whether the peer reads
        log_config=None,
        log_level="warning",  # uvicorn's lines about sockets bear the query
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=census.bounds.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(census.bounds.drain_s)),
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
        census = Census(bounds, room_for_connections(bounds))
        server = Server(_configure(app, census), census, draining, on_ready, listener, signals=signals)
        with _quiet_logs():
            await server.serve(sockets=[listener])
    finally:
        listener.close()
    return server.caught
