"""Problem documents (RFC 9457): what a refusal, a fault or a wrong turn looks like on the wire.

A `Refusal`, an `HTTPException` of starlette or any other exception comes in, a response goes out. What
the process looks like inside (SQL, paths, stack, versions) never goes out: it is logged under the id
that the document bears as its ``instance``. Documents of 401 and 404 bear the nil id and a constant
text, so that what exists elsewhere and what never existed answer byte for byte the same.
"""

from __future__ import annotations

import logging
import re
import uuid
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkops.errors import REFUSALS, Refusal

MEDIA_TYPE: Final = "application/problem+json"
NIL: Final = "urn:uuid:00000000-0000-0000-0000-000000000000"
CONSTANT: Final = {
    "UNAUTHENTICATED": "a valid credential is needed, as X-API-Key or Authorization: Bearer",
    "NOT_FOUND": "there is no such thing, or it is not yours to see",
}
#: Problem types that IANA keeps for everybody; ours are described in the reference page, a code an anchor.
REGISTERED: Final = {
    "RATE_LIMITED": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "DRAINING": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
    "QUEUE_FULL": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}
CHALLENGE: Final = 'Bearer realm="bulkops"'
_RETRY_AFTER: Final = {"DRAINING": "2", "QUEUE_FULL": "5", "RATE_LIMITED": "60"}
_POLICY = re.compile(r'"([^"\\]+)"')
#: What starlette and we ourselves may answer by status alone.
_BY_STATUS: Final = {
    400: "INVALID_JSON",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    413: "TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    421: "WRONG_HOST",
    431: "HEADERS_TOO_LARGE",
}
_log = logging.getLogger("bulkops.web")


def type_of(code: str, root_path: str) -> str:
    """Return the URI that names a code's kind of problem; relative ones lead to the reference page."""
    return REGISTERED.get(code) or f"{root_path}/docs#{code}"


def document(refusal: Refusal, root_path: str, instance: str) -> dict[str, Any]:
    """Build the members of a refusal's problem document."""
    constant = CONSTANT.get(refusal.code)
    return {
        "type": type_of(refusal.code, root_path),
        "title": refusal.title,
        "status": refusal.status,
        "detail": constant or refusal.detail,
        "code": refusal.code,
        "instance": instance if constant is None else NIL,
        **({} if constant else _extra(refusal)),
    }


def _extra(refusal: Refusal) -> dict[str, Any]:
    extra = dict(refusal.extra)
    if refusal.code == "RATE_LIMITED":
        policies = _POLICY.findall(refusal.headers.get("RateLimit-Policy", ""))
        extra["violated-policies"] = policies or ["requests"]
    if refusal.status == 422:
        extra.setdefault("errors", [{"pointer": "", "detail": refusal.detail}])
    return extra


def answer(refusal: Refusal, root_path: str = "", instance: str | None = None) -> Response:
    """Build the response of a refusal, with the headers that its status demands."""
    headers = {} if refusal.code == "NOT_FOUND" else dict(refusal.headers)
    if refusal.code == "UNAUTHENTICATED":
        headers["WWW-Authenticate"] = CHALLENGE
    if refusal.code in _RETRY_AFTER:
        headers.setdefault("Retry-After", _RETRY_AFTER[refusal.code])
    body = document(refusal, root_path, instance or new_instance())
    return Response(msgspec.json.encode(body), refusal.status, headers, MEDIA_TYPE)


def new_instance() -> str:
    """Make the id of one refused request."""
    return f"urn:uuid:{uuid.uuid4()}"


def from_http_exception(error: HTTPException) -> Refusal:
    """Translate starlette's own exceptions; a status without a code of ours is an internal fault."""
    code = _BY_STATUS.get(error.status_code, "INTERNAL")
    return Refusal(code, REFUSALS[code][1].lower(), headers=dict(error.headers or {}))


def internal() -> Refusal:
    """Build the refusal that tells a stranger nothing."""
    return Refusal("INTERNAL", "something went wrong inside; the log has it under this instance")


class Boundary:
    """Turns whatever an HTTP handler raises into a problem document; sockets pass through.

    An exception after the first byte goes on outwards: the server then cuts the connection, so that a
    truncated stream is not taken for a whole one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Mounted in another starlette application, its handlers must not answer in our place.
        scope = {**scope, "app": self}
        scope.pop("starlette.exception_handlers", None)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            instance = new_instance()
            refusal = self._refusal(error, instance)
            if started:
                raise
            await answer(refusal, scope.get("root_path", ""), instance)(scope, receive, send)

    def _refusal(self, error: Exception, instance: str) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, HTTPException):
            return from_http_exception(error)
        _log.error("unhandled exception, %s", instance, exc_info=error)
        return internal()
