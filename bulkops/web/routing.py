"""One table for routes: what is reachable, by whom, with what, and what it answers.

An `Operation` drives routing, authorisation, reading of bodies and queries, and the OpenAPI document, so
these cannot disagree. An operation without a rule cannot be written: `role` has no default. A handler
gets a `Call` whose caller, query and body were judged before, and must not judge them again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, NoReturn
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.operations import has_role
from bulkops.store.idempotency import InFlight
from bulkops.web import problems, queries, strict_json
from bulkops.web.authentication import Authenticator, Denials
from bulkops.web.guard import Traffic
from bulkops.web.wiring import Runtime

#: Who may pass: anybody, anybody with a credential, or a caller of that role or a higher one.
Rule = Literal["public", "caller", "viewer", "operator", "admin", "owner", "service"]
Handler = Callable[["Call"], Awaitable[Response]]

_NOBODY: Final = Caller(user="")
JSON: Final = "application/json"
_ZERO = re.compile(r"q\s*=\s*0(\.0*)?")


class Answer(msgspec.Struct, frozen=True):
    """One answer of an operation, for the reference: its text, and the type or media type of its body."""

    text: str
    body: Any = None
    media_types: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    name: str
    method: str
    path: str
    role: Rule
    summary: str
    answers: dict[int, Answer]
    #: ``None``: it is described here and served elsewhere.
    handler: Handler | None
    tag: str
    query: Any = queries.NoQuery
    parse_query: Callable[[bytes], Any] | None = None
    #: The struct of the body, read strictly; ``None``: the body is not read here.
    body: Any = None
    body_optional: bool = False
    #: Media types of a body that the handler reads itself.
    upload: tuple[str, ...] = ()
    #: It makes new work, which a server that shuts down refuses.
    makes_work: bool = False
    idempotent: bool = False
    #: Codes it may refuse with, beyond those that its rule, query and body imply.
    refusals: tuple[str, ...] = ()


class Door(msgspec.Struct, frozen=True):
    """What all handlers share."""

    runtime: Runtime
    authenticator: Authenticator
    denials: Denials
    in_flight: InFlight
    traffic: Traffic
    #: Every operation of the application, for the reference.
    operations: tuple[Operation, ...]
    #: The reference's document by mount prefix, made when it is first asked for.
    documents: dict[str, dict[str, Any]]


class Call(msgspec.Struct, frozen=True):
    """One request that has passed its operation's rule."""

    door: Door
    request: Request
    caller: Caller
    path: dict[str, str]
    query: Any
    body: Any
    #: The body as equal requests write it, for fingerprints.
    canonical: bytes

    @property
    def runtime(self) -> Runtime:
        return self.door.runtime

    @property
    def root_path(self) -> str:
        """The mount prefix, as it stands in URLs."""
        return quote(self.request.scope.get("root_path", ""))


class PathRoute(BaseRoute):
    """All operations of one path; 405 knows every method of it, HEAD and OPTIONS included."""

    def __init__(self, path: str, operations: Sequence[Operation], door: Door) -> None:
        self.path = path
        self.operations = {operation.method: operation for operation in operations}
        self._door = door
        self._pattern = [each for each in path.split("/") if each]

    @property
    def allowed(self) -> list[str]:
        """The methods that this path takes."""
        return [*self.operations, *(["HEAD"] if "GET" in self.operations else []), "OPTIONS"]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        found = match_segments(self._pattern, segments_of(scope))
        if found is None:
            return Match.NONE, {}
        return Match.FULL, {"path_params": found, "endpoint": self}

    def url_path_for(self, name: str, /, **_: Any) -> NoReturn:
        raise LookupError(f"paths are written where they are used, not looked up by name: {name}")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        operation = self.operations.get("GET" if method == "HEAD" else method)
        request = Request(scope, receive, send)
        if operation is not None:
            response = await perform(self._door, operation, request)
        elif method == "OPTIONS":
            response = Response(None, 204, {"Allow": ", ".join(self.allowed)})
        else:
            raise Refusal(
                "METHOD_NOT_ALLOWED",
                f"this path takes {', '.join(self.allowed)}",
                headers={"Allow": ", ".join(self.allowed)},
            )
        if method == "HEAD":
            response = await _headers_only(response)
        await response(scope, receive, send)


def segments_of(scope: Scope) -> list[bytes]:
    """Split a path below the mount prefix into raw segments: an escaped slash does not part them."""
    raw = (scope.get("raw_path") or quote(scope["path"]).encode()).partition(b"?")[0]
    below = scope.get("root_path", "").strip("/")
    prefix = below.count("/") + 1 if below else 0
    path = raw.removeprefix(b"/")
    segments = path.split(b"/") if path else []
    return segments[prefix:]


def match_segments(pattern: list[str], segments: list[bytes]) -> dict[str, str] | None:
    """Match raw segments against a pattern such as ``api/jobs/{job}``; ``None`` when they differ."""
    if len(pattern) != len(segments):
        return None
    found: dict[str, str] = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        try:
            text = unquote(segment.decode("ascii"), errors="strict")
        except ValueError:
            return None
        if wanted.startswith("{"):
            if not text or "\0" in text:
                return None
            found[wanted[1:-1]] = text
        elif text != wanted:
            return None
    return found


def build_routes(operations: Sequence[Operation], door: Door) -> list[PathRoute]:
    """Group operations by path; a path without parameters is tried before one that has them.

    Raises:
        ValueError: two operations share a method and path.

    """
    paths: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.handler is None:
            continue
        others = paths.setdefault(operation.path, [])
        if any(other.method == operation.method for other in others):
            raise ValueError(f"{operation.method} {operation.path} stands twice in the table")
        others.append(operation)
    # Literal segments sort before parameters, so that `validate` is never taken for an action.
    ordered = sorted(paths, key=lambda path: [part.startswith("{") for part in path.split("/")])
    return [PathRoute(path, paths[path], door) for path in ordered]


async def perform(door: Door, operation: Operation, request: Request) -> Response:
    """Judge and answer one request: credential, role, query, body, then the handler, in this order.

    Raises:
        Refusal: whatever of these refuses; what concerns credentials and roles is noted in the audit.

    """
    caller = _NOBODY
    try:
        if operation.role != "public":
            caller = await door.authenticator.require(request)
        check_role(operation, caller)
        call = await _read(door, operation, request, caller)
        assert operation.handler is not None
        return await operation.handler(call)
    except Refusal as refusal:
        if refusal.code == "FORBIDDEN" or (
            refusal.code == "UNAUTHENTICATED" and _brought_one(operation, request)
        ):
            await door.denials.note(request.scope, refusal.code, None if caller is _NOBODY else caller)
        raise


def _brought_one(operation: Operation, request: Request) -> bool:
    # A visitor who brings no credential is no attack: pages ask before they log in.
    return operation.role == "public" or bool({"authorization", "x-api-key", "cookie"} & set(request.headers))


def check_role(operation: Operation, caller: Caller) -> None:
    """Hold a caller to an operation's rule, before anything is looked up.

    Raises:
        Refusal: (``FORBIDDEN``) the caller has not the role.

    """
    if operation.role not in {"public", "caller"} and not has_role(caller, operation.role):
        raise Refusal("FORBIDDEN", f"this needs the role {operation.role}")


async def _read(door: Door, operation: Operation, request: Request, caller: Caller) -> Call:
    if operation.makes_work and door.runtime.draining.is_set():
        raise Refusal("DRAINING", "the server is shutting down; ask again when it is back")
    check_accept(operation, request.headers.get("accept"))
    raw_query = request.scope.get("query_string", b"")
    if operation.parse_query is not None:
        query = operation.parse_query(raw_query)
    else:
        query = queries.parse(raw_query, operation.query)
    body, canonical = await _read_body(operation, request)
    return Call(door, request, caller, request.path_params, query, body, canonical)


async def _read_body(operation: Operation, request: Request) -> tuple[Any, bytes]:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", "the body must not be compressed")
    if operation.body is None:
        return None, b""
    content = await request.body()
    if not content and operation.body_optional:
        return operation.body(), b"{}"
    strict_json.check_content_type(request.headers.get("content-type"))
    value = strict_json.parse(content)
    return strict_json.convert(value, operation.body), strict_json.canonical(value)


def check_accept(operation: Operation, header: str | None) -> None:
    """Hold an operation to what the client can read; without the header it reads everything.

    Raises:
        Refusal: (``NOT_ACCEPTABLE``) no media type of the operation's answers is among the accepted.

    """
    if header is None or not header.strip():
        return
    offered = {media for answer in operation.answers.values() for media in answer.media_types}
    if any(accepts(header, media) for media in offered):
        return
    raise Refusal("NOT_ACCEPTABLE", f"this answers as {', '.join(sorted(offered))}")


def accepts(header: str | None, media: str) -> bool:
    """Say whether an Accept header (RFC 9110, 12.5.1) lets a media type be; without one everything may be."""
    if header is None or not header.strip():
        return True
    ranges = {_accepted(each) for each in header.split(",")}
    return not ranges.isdisjoint({media, f"{media.partition('/')[0]}/*", "*/*"})


def _accepted(part: str) -> str:
    media, *parameters = [each.strip().lower() for each in part.split(";")]
    return "" if any(_ZERO.fullmatch(each) for each in parameters) else media


async def _headers_only(response: Response) -> Response:
    stream = getattr(response, "body_iterator", None)
    if stream is not None and hasattr(stream, "aclose"):
        await stream.aclose()
    bare = Response(None, response.status_code)
    bare.raw_headers = list(response.raw_headers)
    return bare


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(msgspec.json.encode(value), status, headers, JSON)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for paths that nobody has; on a socket the same on the wire."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "NOT_FOUND"})
        return
    await problems.answer(Refusal("NOT_FOUND", ""), scope.get("root_path", ""))(scope, receive, send)
