"""The page's files, from a list made once: what is not on the list does not exist.

The project's static/ folder comes in, responses go out. No path of a request ever reaches the file
system: it is looked up among names that were found at the start (dot files and source maps are not).
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

import bulkops
from bulkops.errors import Refusal
from bulkops.web.routing import segments_of

INDEX: Final = "index.html"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
_METHODS: Final = ("GET", "HEAD", "OPTIONS")
#: Raises a `Refusal` when a request bears no credential.
Require = Callable[[HTTPConnection], Awaitable[object]]


def static_dir() -> Path:
    """Find the page's folder: inside the package of a wheel, else beside it in a checkout."""
    package = Path(bulkops.__file__).parent
    inside = package / "static"
    return inside if inside.is_dir() else package.parent / "static"


def list_files(folder: Path) -> dict[str, Path]:
    """List the files to serve by their path below ``folder``; an absent folder has none."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "__")) for part in parts)
        if path.is_file() and not path.is_symlink() and not hidden and path.suffix != ".map":
            found["/".join(parts)] = path
    return found


class StaticRoute(BaseRoute):
    """`/` is the page, `/static/…` are its files."""

    def __init__(self, files: dict[str, Path], *, require: Require | None = None) -> None:
        """With ``require``, nobody gets a file whom it does not let pass."""
        self._files = files
        self._require = require

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        path = self._find(segments_of(scope))
        return (Match.NONE, {}) if path is None else (Match.FULL, {"path_params": {"file": path}})

    def _find(self, segments: list[bytes]) -> Path | None:
        if not segments:
            return self._files.get(INDEX)
        if segments[0] != b"static":
            return None
        return self._files.get(b"/".join(segments[1:]).decode("latin-1"))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._require is not None:
            await self._require(Request(scope))
        if scope["method"] not in _METHODS:
            allowed = ", ".join(_METHODS)
            raise Refusal("METHOD_NOT_ALLOWED", "this path has no such method", headers={"Allow": allowed})
        if scope["method"] == "OPTIONS":
            response = Response(None, 204, {"Allow": ", ".join(_METHODS)})
        else:
            response = await serve(scope["path_params"]["file"], Request(scope))
        await response(scope, receive, send)


async def serve(path: Path, request: Request) -> Response:
    """Answer with a file; 304 when the client has it already.

    Raises:
        Refusal: (``NOT_FOUND``) it was removed since the list was made.

    """
    try:
        content = await anyio.to_thread.run_sync(path.read_bytes)
    except OSError as error:
        raise Refusal("NOT_FOUND", "") from error
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(None, 304, headers)
    media = _MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if request.method == "HEAD":
        headers["Content-Length"] = str(len(content))
        content = b""
    return Response(content, 200, headers, media)
