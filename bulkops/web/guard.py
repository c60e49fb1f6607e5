"""The guard before routing, for HTTP and WebSocket alike: who may talk to this server at all.

A raw ASGI scope comes in; what passes has one known Host, no foreign Origin, bounded headers and a
bounded body, and what goes out bears the security headers. Nothing here knows callers or routes; no
header that a proxy may forge is believed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import anyio
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkops.errors import Refusal
from bulkops.web import problems
from bulkops.web.strict_json import check_content_type

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 256 * 1024
MAX_UPLOAD_BYTES: Final = 64 * 1024 * 1024
BODY_DEADLINE_S: Final = 30.0
#: An upload may take long, as long as it moves.
UPLOAD_DEADLINE_S: Final = 600.0
UPLOAD_PATH: Final = "/api/selections"

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_SECURITY: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_ALLOW_HEADERS: Final = (
    b"authorization, content-type, idempotency-key, last-event-id, prefer, x-api-key, accept, "
    b"range, if-range, if-none-match"
)
_ALLOW_METHODS: Final = b"GET, HEAD, POST, PATCH, DELETE"
_EXPOSE_HEADERS: Final = (
    b"location, retry-after, ratelimit, ratelimit-policy, content-disposition, preference-applied, allow, "
    b"etag, accept-ranges, content-range, content-length"
)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SECRET_IN_QUERY = re.compile(rb"b[kts]_[0-9A-HJKMNP-TV-Z]{26}_[A-Za-z0-9_-]{43}")
_access = logging.getLogger("bulkops.access")


class Gate(msgspec.Struct, frozen=True):
    """Whom the guard lets pass, beyond loopback names and our own origin."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()


def gate(allowed_hosts: Collection[str], allowed_origins: Collection[str]) -> Gate:
    """Build the gate of a configuration; host names are compared in lower case, origins as they are."""
    return Gate(frozenset(name.lower() for name in allowed_hosts), frozenset(allowed_origins))


class Traffic:
    """How many sockets are open now."""

    def __init__(self) -> None:
        self.sockets = 0


class Guard:
    """Stands before an ASGI application; refuses, limits, and adds the headers every answer needs."""

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        *,
        traffic: Traffic | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.gate = gate
        self.traffic = traffic or Traffic()
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = scope["headers"]
        origin = _single(headers, b"origin")
        try:
            check_headers(scope)
            own = check_host(scope, self.gate)
            check_origin(headers, own, self.gate)
            check_query(scope)
            check_forgery(scope)
            check_length(scope)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        # An origin that passed is ours or an allowed one; only the latter needs to be told so.
        echoed = origin if origin is not None and origin != own.encode() else None
        if scope["type"] == "websocket":
            await self._pass_socket(_without_trailing_slash(scope), receive, send)
            return
        outward = _Outward(scope, send, echoed, self._monotonic)
        if _is_preflight(scope):
            await _answer_preflight(headers, outward)
            return
        inward = _Inward(scope, receive, self._monotonic)
        await self.app(_without_trailing_slash(scope), inward, outward)

    async def _pass_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.traffic.sockets += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.traffic.sockets -= 1


def check_headers(scope: Scope) -> None:
    """Bound the request line and headers.

    Raises:
        Refusal: (``HEADERS_TOO_LARGE``) more than 100 headers, or 16 KiB in all.

    """
    headers = scope["headers"]
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    size += sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise Refusal(
            "HEADERS_TOO_LARGE",
            f"request line and headers may have {MAX_HEADERS} lines and {MAX_HEADER_BYTES} bytes",
            headers={"Connection": "close"},
        )


def check_host(scope: Scope, gate: Gate) -> str:
    """Hold a request to the names this server answers to; returns the origin that these make ours.

    Raises:
        Refusal: (``WRONG_HOST``) no Host header, two of them, one that is none, or an unknown name.

    """
    value = _single(scope["headers"], b"host")
    found = None if value is None else _HOST.fullmatch(value.decode("latin-1"))
    if found is None:
        raise Refusal("WRONG_HOST", "exactly one well-formed Host header is needed")
    name, port = found[1].lower(), found[2]
    if port is not None and not 0 < int(port) < 65536:
        raise Refusal("WRONG_HOST", "the Host header's port is out of range")
    if not {name, f"{name}:{port}"} & (LOOPBACK | gate.hosts):
        raise Refusal("WRONG_HOST", "this server does not answer to that name; see allowed_hosts")
    scheme = scheme_of(scope)
    if port is None or int(port) == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{name}"
    return f"{scheme}://{name}:{int(port)}"


def scheme_of(scope: Scope) -> str:
    """Return ``http`` or ``https``, for sockets too."""
    return "https" if scope.get("scheme") in {"https", "wss"} else "http"


def check_origin(headers: list[tuple[bytes, bytes]], own: str, gate: Gate) -> None:
    """Refuse every origin but our own and the allowed ones; an absent one passes here.

    Raises:
        Refusal: (``FORBIDDEN``) a foreign, repeated or ``null`` Origin.

    """
    values = _all(headers, b"origin")
    if not values:
        return
    origin = values[0].decode("latin-1")
    if len(values) > 1 or origin == "null" or origin not in {own, *gate.origins}:
        raise Refusal("FORBIDDEN", "this origin may not talk to this server; see allowed_origins")


def check_query(scope: Scope) -> None:
    """Refuse long-lived secrets in the query, where logs and histories keep them.

    Raises:
        Refusal: (``UNAUTHENTICATED``) the query holds what looks like a key, a token or a cookie.

    """
    if _SECRET_IN_QUERY.search(scope.get("query_string", b"")):
        raise Refusal("UNAUTHENTICATED", "a key in the query is refused")


def check_forgery(scope: Scope) -> None:
    """Refuse writes and sockets that a foreign page could cause with nothing but our visitor's cookie.

    Any cookie counts, not ours alone: a host application that embeds us may know its people by its own.

    Raises:
        Refusal: (``FORBIDDEN``) no Origin, or a cross-site request.
        Refusal: (``UNSUPPORTED_MEDIA_TYPE``) a write that a plain form could send.

    """
    headers = scope["headers"]
    is_socket = scope["type"] == "websocket"
    if not is_socket and scope["method"] in SAFE_METHODS:
        return
    if not _all(headers, b"cookie") or has_explicit_credential(scope):
        return
    if not _all(headers, b"origin"):
        raise Refusal("FORBIDDEN", "with a cookie alone an Origin header is needed")
    if is_socket:
        return
    if _single(headers, b"sec-fetch-site") == b"cross-site":
        raise Refusal("FORBIDDEN", "a cross-site request with a cookie alone is refused")
    content_type = _single(headers, b"content-type")
    if not (is_upload(scope) and _needs_preflight(content_type)):
        check_content_type(None if content_type is None else content_type.decode("latin-1"))


def check_length(scope: Scope) -> None:
    """Refuse a body that is announced too large, whether or not anybody would read it.

    Raises:
        Refusal: (``TOO_LARGE``) more than the path allows.

    """
    if scope["type"] == "http" and _announced_bytes(scope["headers"]) > max_bytes(scope):
        raise _too_large(max_bytes(scope))


def max_bytes(scope: Scope) -> int:
    """Return how long a request's body may be."""
    return MAX_UPLOAD_BYTES if is_upload(scope) else MAX_BODY_BYTES


def has_explicit_credential(scope: Scope) -> bool:
    """Say whether a request bears a credential that no browser sends by itself."""
    headers = scope["headers"]
    if _all(headers, b"authorization") or _all(headers, b"x-api-key"):
        return True
    protocols = scope.get("subprotocols") or []
    return scope["type"] == "websocket" and any(each.startswith("bulkops.ticket.") for each in protocols)


def is_upload(scope: Scope) -> bool:
    """Say whether this is the one request that may be long."""
    path = scope["path"][len(scope.get("root_path", "")) :]
    return scope.get("method") == "POST" and path.rstrip("/") == UPLOAD_PATH


def _needs_preflight(content_type: bytes | None) -> bool:
    # Neither is a type that a form or a simple cross-origin request can have.
    media = (content_type or b"").partition(b";")[0].strip().lower()
    return media in {b"application/x-ndjson", b"text/csv"}


def _all(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _single(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    values = _all(headers, name)
    return values[0] if len(values) == 1 else None


def _without_trailing_slash(scope: Scope) -> Scope:
    """Make ``/x/`` the path ``/x`` (an escaped slash belongs to the last segment and stays)."""
    raw = scope.get("raw_path") or b""
    path = scope["path"]
    if len(path) < 2 or not path.endswith("/") or (raw and not raw.endswith(b"/")):
        return scope
    return {**scope, "path": path[:-1], **({"raw_path": raw[:-1]} if raw else {})}


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    response = problems.answer(refusal, scope.get("root_path", ""))
    for name, value in _SECURITY:
        response.raw_headers.append((name, value))
    response.raw_headers.append((b"vary", b"Origin"))
    _access.info("%s %s %d", scope.get("method", "SOCKET"), _loggable_path(scope), refusal.status)
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    await response(scope, receive, send)


def _is_preflight(scope: Scope) -> bool:
    headers = scope["headers"]
    return (
        scope["method"] == "OPTIONS"
        and bool(_all(headers, b"origin"))
        and bool(_all(headers, b"access-control-request-method"))
    )


async def _answer_preflight(headers: list[tuple[bytes, bytes]], send: Send) -> None:
    answer = [
        (b"access-control-allow-methods", _ALLOW_METHODS),
        (b"access-control-allow-headers", _ALLOW_HEADERS),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
    if _single(headers, b"access-control-request-private-network") == b"true":
        answer.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Inward:
    """The request's body on its way in: no larger and no slower than allowed."""

    def __init__(self, scope: Scope, receive: Receive, monotonic: Callable[[], float]) -> None:
        upload = is_upload(scope)
        self._receive = receive
        self._monotonic = monotonic
        self._max_bytes = max_bytes(scope)
        self._patience_s = BODY_DEADLINE_S
        self._deadline = monotonic() + (UPLOAD_DEADLINE_S if upload else BODY_DEADLINE_S)
        self._bytes = 0
        self._done = False

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()
        message = await self._timely()
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._done = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _timely(self) -> Message:
        patience_s = min(self._patience_s, self._deadline - self._monotonic())
        with anyio.move_on_after(max(0.0, patience_s)):
            return await self._receive()
        raise Refusal("INVALID_JSON", "the body did not arrive in time", headers={"Connection": "close"})


def _too_large(limit: int) -> Refusal:
    return Refusal("TOO_LARGE", f"the body may have {limit} bytes at most", headers={"Connection": "close"})


def _announced_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    values = _all(headers, b"content-length")
    return max((int(value) for value in values if value.isdigit()), default=0)


class _Outward:
    """The response on its way out: with the headers that every answer needs, and a line in the access log."""

    def __init__(
        self, scope: Scope, send: Send, echoed: bytes | None, monotonic: Callable[[], float]
    ) -> None:
        self._scope = scope
        self._send = send
        self._echoed = echoed
        self._monotonic = monotonic
        self._began = monotonic()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": self._dressed(message.get("headers", []))}
            self._note(message["status"])
        await self._send(message)

    def _dressed(self, headers: Any) -> list[tuple[bytes, bytes]]:
        dressed = [(name.lower(), value) for name, value in headers]
        present = {name for name, _ in dressed}
        dressed += [each for each in _SECURITY if each[0] not in present]
        dressed.append((b"vary", b"Origin"))
        if self._echoed is not None:
            dressed.append((b"access-control-allow-origin", self._echoed))
            dressed.append((b"access-control-expose-headers", _EXPOSE_HEADERS))
        return dressed

    def _note(self, status: int) -> None:
        if _access.isEnabledFor(logging.INFO):
            elapsed_ms = (self._monotonic() - self._began) * 1000
            _access.info(
                "%s %s %d %.0fms", self._scope["method"], _loggable_path(self._scope), status, elapsed_ms
            )


def _loggable_path(scope: Scope) -> str:
    # The raw path is percent-encoded, so nobody writes lines of their own; the query may hold a ticket.
    return (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
