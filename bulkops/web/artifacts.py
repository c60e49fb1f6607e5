"""The routes of files that jobs made: what one is, and the file itself, whole or a range of it (RFC 9110, 14).

A judged `Call` comes in, a response goes out. The file is read through the descriptor that the service opened
and judged; its name is of our making, whatever the resource is called.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

import anyio.to_thread
import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from bulkops.errors import Refusal
from bulkops.handles import read_at
from bulkops.models import ArtifactView
from bulkops.service.artifacts import Download
from bulkops.web.routing import Answer, Call, Operation, json_answer

MEDIA_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "ndjson.gz": "application/gzip",
    "zip": "application/zip",
}
_OTHER: Final = "application/octet-stream"
_CHUNK: Final = 1 << 18
_MAX_NAME: Final = 150
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')


class Span(msgspec.Struct, frozen=True):
    """The bytes to send: from ``first`` up to, not including, ``end``."""

    first: int
    end: int


#: What a header asks for that names no range.
WHOLE: Final = Span(0, -1)


async def get_artifact(call: Call) -> Response:
    """`GET /api/artifacts/{artifact}`."""
    view = await call.runtime.service.artifact(call.caller, call.path["artifact"])
    return json_answer(msgspec.structs.replace(view, download_url=call.root_path + view.download_url))


async def download(call: Call) -> Response:
    """`GET /api/artifacts/{artifact}/download`."""
    service = call.runtime.service
    found = await service.download(call.caller, call.path["artifact"])
    try:
        response = _answer(call, found)
        if isinstance(response, StreamingResponse):
            await service.taken(call.caller, found)
    except BaseException:
        os.close(found.fd)
        raise
    if not isinstance(response, StreamingResponse):
        os.close(found.fd)
    return response


def _answer(call: Call, found: Download) -> Response:
    size, tag = found.row.bytes or 0, f'"{found.row.sha256}"'
    asked = call.request.headers
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(found.row.name),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Accel-Buffering": "no",
    }
    if matches(asked.get("if-none-match"), tag):
        return Response(None, 304, headers)
    wanted = asked.get("range")
    if wanted is not None and asked.get("if-range", tag) == tag:
        span = span_of(wanted, size)
        if span is None:
            raise Refusal(
                "RANGE_NOT_SATISFIABLE",
                f"the file has {size} bytes",
                headers={"Content-Range": f"bytes */{size}"},
            )
        if span is not WHOLE:
            headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{size}"
            return _send(call, found, span, 206, headers)
    return _send(call, found, Span(0, size), 200, headers)


def _send(call: Call, found: Download, span: Span, status: int, headers: dict[str, str]) -> Response:
    headers["Content-Length"] = str(span.end - span.first)
    media = MEDIA_TYPES.get(found.row.format, _OTHER)
    if call.request.method == "HEAD":
        return Response(None, status, headers, media)
    return _FileResponse(found.fd, span, status, headers, media)


class _FileResponse(StreamingResponse):
    """Sends part of an open file, and closes it however that ends."""

    def __init__(self, fd: int, span: Span, status: int, headers: dict[str, str], media: str) -> None:
        super().__init__(_chunks(fd, span), status, headers, media)
        self._fd = fd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._fd)


async def _chunks(fd: int, span: Span) -> AsyncIterator[bytes]:
    place = span.first
    while place < span.end:
        chunk = await anyio.to_thread.run_sync(read_at, fd, min(_CHUNK, span.end - place), place)
        if not chunk:
            # Cut while it was sent: the connection breaks off, so that nobody takes the part for the whole.
            raise OSError("the file ended before its recorded end")
        place += len(chunk)
        yield chunk


def span_of(header: str, size: int) -> Span | None:
    """Read a Range header (RFC 9110, 14.2): one range of bytes; ``None`` when nothing of the file is in it.

    What is no such range, or several, is ignored as the standard allows: the whole file is the answer.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[0] == "bytes=-":
        return WHOLE
    if not found[1]:
        length = min(int(found[2]), size)
        return Span(size - length, size) if length else None
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return WHOLE
    return Span(first, min(last + 1, size)) if first < size else None


def matches(header: str | None, tag: str) -> bool:
    """Say whether an If-None-Match header (RFC 9110, 13.1.2) names the tag, or any."""
    if header is None:
        return False
    tags = {each.removeprefix("W/") for each in _TAG.findall(header)}
    return header.strip() == "*" or tag in tags


def disposition(name: str) -> str:
    """Write a Content-Disposition (RFC 6266): a plain name for all, and the same in UTF-8 (RFC 8187).

    Control characters, quotes, separators and marks that turn text around become ``_`` in both.
    """
    shown = "".join(each if each.isalnum() or each in "-._" else "_" for each in name)[-_MAX_NAME:]
    plain = "".join(each if each.isascii() else "_" for each in shown)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(shown, safe='-._')}"


_TYPES: Final = (*dict.fromkeys(media.partition(";")[0] for media in MEDIA_TYPES.values()), _OTHER)
_FILE_HEADERS: Final = ("Content-Disposition", "ETag", "Accept-Ranges")

OPERATIONS: Final = (
    Operation(
        name="getArtifact",
        method="GET",
        path="/api/artifacts/{artifact}",
        role="viewer",
        summary="Get what a job made: its size, hash and expiry",
        handler=get_artifact,
        tag="artifacts",
        answers={200: Answer("the artifact", ArtifactView)},
        refusals=("NOT_FOUND",),
    ),
    Operation(
        name="downloadArtifact",
        method="GET",
        path="/api/artifacts/{artifact}/download",
        role="viewer",
        summary="Download what a job made, whole or one range of its bytes",
        handler=download,
        tag="artifacts",
        answers={
            200: Answer("the file", Any, _TYPES, _FILE_HEADERS),
            206: Answer("a range of the file", Any, _TYPES, (*_FILE_HEADERS, "Content-Range")),
            304: Answer("the file is the one that If-None-Match names"),
        },
        refusals=("NOT_FOUND", "EXPIRED", "RANGE_NOT_SATISFIABLE"),
    ),
)
