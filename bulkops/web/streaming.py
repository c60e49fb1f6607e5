"""Answers that are streamed, and the file names of those that are saved.

Pieces of bytes come in, one response goes out; whatever is wrong before the first piece is refused as any request is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse


async def streamed(lines: AsyncIterator[bytes], media: str, *, attachment: str | None = None) -> Response:
    """Stream lines, once the first is there: until then a refusal is still an answer of its own."""
    try:
        first = await anext(lines)
    except StopAsyncIteration:
        first = b""
    headers = {} if attachment is None else {"Content-Disposition": disposition(attachment)}
    headers["X-Accel-Buffering"] = "no"
    return StreamingResponse(_all(first, lines), headers=headers, media_type=media)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        # The client may leave in the middle: whatever the stream holds is let go now, not at some collection.
        if hasattr(rest, "aclose"):
            await rest.aclose()


def disposition(name: str) -> str:
    """Write a Content-Disposition for a name of our making; whatever else is in it becomes ``_``."""
    safe = "".join(each if each.isascii() and (each.isalnum() or each in "-._") else "_" for each in name)
    return f'attachment; filename="{safe[:120]}"'
