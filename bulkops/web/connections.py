"""uvicorn's connections, held to what strangers may do with one: HTTP/1.1 and the WebSocket.

What comes in: bytes of a peer; what goes out: requests to the application, with what it needs of its connection in
the scope's extensions (`ABORT`, `HOLD`, `WRITE`). Each is counted by the `Doorkeeper` and gone when that says so,
whether its peer reads or not.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from bulkops.errors import Refusal
from bulkops.web import problems
from bulkops.web.doorkeeper import Doorkeeper
from bulkops.web.guard import MAX_HEADER_BYTES, UPLOAD_DEADLINE_S, is_upload
from bulkops.web.live.sessions import ABORT, HOLD, WRITE

#: Pieces of one unfinished message; ours come in one, and empty ones would pile up for nothing.
_MAX_FRAGMENTS: Final = 64
#: So many times what may be read of headers is dropped once they were refused; then, or at the deadline, it is over.
_MAX_DROPPED: Final = 16
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_log = logging.getLogger("bulkops.server")


def _peer_of(transport: asyncio.BaseTransport | None) -> str:
    name = None if transport is None else transport.get_extra_info("peername")
    return str(name[0]) if name else "-"


class HttpConnection(HttpToolsProtocol):
    """HTTP/1.1 with an absolute deadline for headers and body."""

    doorkeeper: Doorkeeper

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.holds = False
        self.peer = _peer_of(transport)
        self._deadline: float | None = self.loop.time() + self.doorkeeper.bounds.headers_s
        self._in_headers = True
        self._header_bytes = 0
        self._refused = False
        super().connection_made(cast("asyncio.Transport", transport))
        if not self.doorkeeper.admit(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.doorkeeper.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._drop(data)
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.doorkeeper.bounds.max_header_bytes and self._is_headless(data):
                self._refuse_headers()
                return
        super().data_received(data)

    def _refuse_headers(self) -> None:
        if not self.is_idle():
            self.abort()  # an earlier request has not got its answer
            return
        self._refused = True
        self.transport.write(_too_large(self.doorkeeper.bounds.max_header_bytes))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _drop(self, data: bytes) -> None:
        # Closed at once, with bytes unread, the peer's system would throw the answer away (RFC 9112, 9.6).
        self._header_bytes += len(data)
        if self._header_bytes > _MAX_DROPPED * self.doorkeeper.bounds.max_header_bytes:
            self.abort()

    def _is_headless(self, data: bytes) -> bool:
        # A body may come in the packet that ends the headers, and has limits of its own.
        return b"\r\n\r\n" not in data[: self.doorkeeper.bounds.max_header_bytes]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_headers:
            self._in_headers = True
            self._header_bytes = 0
            self._deadline = self.loop.time() + self.doorkeeper.bounds.headers_s

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._take_authority()
        extensions = self.scope.setdefault("extensions", {})
        cast("dict[str, Any]", extensions).update(
            {ABORT: self.abort, HOLD: lambda: self.doorkeeper.hold(self)}
        )
        super().on_headers_complete()
        # An upgrade has no path yet, and is over at once.
        upload = "path" in self.scope and is_upload(cast("Any", self.scope))
        self._deadline = self.loop.time() + (UPLOAD_DEADLINE_S if upload else self.doorkeeper.bounds.body_s)

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
        self.doorkeeper.release(self)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self.doorkeeper.leave(self)
        super().handle_websocket_upgrade()

    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def is_late(self, now: float) -> bool:
        return self._deadline is not None and now > self._deadline

    def abort(self) -> None:
        self.transport.abort()


def _too_large(max_bytes: int) -> bytes:
    """Write the answer to headers that nobody reads to their end."""
    refusal = Refusal("HEADERS_TOO_LARGE", f"request line and headers may have {max_bytes} bytes at most")
    body = msgspec.json.encode(problems.document(refusal, "", problems.new_instance()))
    head = (
        "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
        f"Content-Type: {problems.MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class SharedFrames:
    """Text frames as they are on the wire; the next thousand sockets mostly want the last one again."""

    def __init__(self) -> None:
        self._last = ("", b"")

    def of(self, text: str) -> bytes:
        """Return the frame of a text."""
        if self._last[0] != text:
            # A server masks nothing and deflate is off, so a frame is the same for everybody (RFC 6455, 5.2).
            self._last = (text, Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        return self._last[1]


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket that is gone when it should be, whether its peer reads or not."""

    doorkeeper: Doorkeeper
    shared: SharedFrames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.holds = False
        self.lingers = False
        self.peer = _peer_of(transport)
        self.close_timeout = self.doorkeeper.bounds.drain_s
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A request that the library does not take (long lines, many headers) it leaves without an answer.
        if not self.handshake_initiated and not self.close_sent:
            self.close_sent = self.handshake_complete = True
            self.transport.write(_too_large(MAX_HEADER_BYTES))
            self.transport.close()

    def handle_connect(self, event: Any) -> None:
        if not self.doorkeeper.admit(self) or not self.doorkeeper.hold(self):
            _log.warning("no room for another socket; %d are open", self.doorkeeper.held)
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
        self.transport.write(self.shared.of(text))
        return True

    def handle_parser_exception(self) -> None:
        if self.lingers:
            return
        self.lingers = not self.close_sent
        if not self.lingers:
            super().handle_parser_exception()
            return
        close = self.conn.close_sent
        assert close is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.close_sent = True
        # A peer that is still sending would lose our close frame to a reset: we read on until it ends, or time is up.
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def _turn_away(self) -> None:
        response = self.conn.reject(503, "too many sockets are open\n")
        response.headers["Retry-After"] = "5"
        self.handshake_complete = self.close_sent = True
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.doorkeeper.leave(self)
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MAX_FRAGMENTS:
            self.abort()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        # Pongs that nobody reads would pile up here: this answer alone asks nobody for leave.
        if self.transport.get_write_buffer_size() > self.doorkeeper.bounds.max_unanswered_bytes:
            self.abort()
            return
        super().handle_ping()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        # Closing waits for the peer to read what is left, which it may never do.
        self.loop.call_later(self.doorkeeper.bounds.drain_s + 1, self.abort)

    def is_idle(self) -> bool:
        return False

    def is_late(self, now: float) -> bool:  # noqa: ARG002  the live sessions watch sockets
        return False

    def abort(self) -> None:
        self.transport.abort()
