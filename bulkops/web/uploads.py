"""Long lists of ids on their way in: a stream of NDJSON, CSV or plain lines becomes pages of ids.

Bytes come in as they arrive, lists of at most a thousand ids go out; the whole upload is never in memory.
What is no id is refused with the line it stands on, and nothing is guessed.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from bulkops.errors import Refusal, invalid_field
from bulkops.web import strict_json

MEDIA_TYPES: Final = ("application/x-ndjson", "text/csv", "text/plain")
_NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
MAX_LINE: Final = 8192
PAGE: Final = 1000

#: Reads one line: its number, its text; an id, or ``None`` for a line that holds none.
_LineReader = Callable[[int, str], str | None]


def reader_of(content_type: str | None) -> tuple[str, _LineReader]:
    """Choose how lines are read; returns the media type and the reader.

    Raises:
        Refusal: (``UNSUPPORTED_MEDIA_TYPE``) the type is none of these, or not in UTF-8.

    """
    media, _, parameters = (content_type or "").lower().partition(";")
    charset = parameters.replace('"', "").strip()
    readers: dict[str, _LineReader] = {
        **dict.fromkeys(_NDJSON, _from_json),
        "text/csv": _csv_reader(),
        "text/plain": _from_text,
    }
    reader = readers.get(media.strip())
    if reader is None or (charset and not _is_accepted(charset)):
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", f"the body must be {', '.join(MEDIA_TYPES)}, in UTF-8")
    return media.strip(), reader


def _is_accepted(parameter: str) -> bool:
    return parameter in {"charset=utf-8", "charset=us-ascii", "header=present", "header=absent"}


async def read_ids(stream: AsyncIterator[bytes], content_type: str | None) -> AsyncIterator[list[str]]:
    """Read an upload page by page; an empty one has no page.

    Raises:
        Refusal: (``UNSUPPORTED_MEDIA_TYPE``, ``INVALID_JSON``, ``INVALID_FIELD``) it cannot be read.

    """
    media, reader = reader_of(content_type)
    page: list[str] = []
    async for number, line in _lines(stream, quoted=media == "text/csv"):
        item = reader(number, line)
        if item is not None:
            page.append(_checked(number, item))
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def _lines(stream: AsyncIterator[bytes], *, quoted: bool) -> AsyncIterator[tuple[int, str]]:
    """Split a stream into lines with their numbers; in CSV a line goes on while a quote is open."""
    pending, number, whole = "", 0, ""
    async for text in _decoded(stream):
        *complete, pending = (pending + text).split("\n")
        if len(pending) + len(whole) > MAX_LINE:
            raise _bad_line(number + 1, f"is longer than {MAX_LINE} characters")
        for line in complete:
            whole = f"{whole}\n{line}" if whole else line
            if len(whole) > MAX_LINE:
                raise _bad_line(number + 1, f"is longer than {MAX_LINE} characters")
            if quoted and whole.count('"') % 2:
                continue
            number += 1
            yield number, whole.removesuffix("\r")
            whole = ""
    last = f"{whole}\n{pending}" if whole else pending
    if last:
        yield number + 1, last.removesuffix("\r")


async def _decoded(stream: AsyncIterator[bytes]) -> AsyncIterator[str]:
    # A byte order mark is what spreadsheets write before CSV; it is no part of the first id.
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        async for chunk in stream:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Refusal("INVALID_JSON", "the body is not valid UTF-8") from error


def _from_text(_: int, line: str) -> str | None:
    return line or None


def _from_json(number: int, line: str) -> str | None:
    if not line.strip():
        return None
    try:
        value: Any = strict_json.parse(line.encode())
    except Refusal as refusal:
        raise Refusal("INVALID_JSON", f"line {number}: {refusal.detail}") from refusal
    if isinstance(value, dict):
        value = value.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _bad_line(number, "is no id: a string, an integer, or an object with one as id, is needed")
    return str(value)


def _csv_reader() -> _LineReader:
    """Read the column that the first line names ``id``; without such a line the cells are the parts of a key."""
    column: int | None = None

    def read(number: int, line: str) -> str | None:
        nonlocal column
        try:
            cells = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            raise _bad_line(number, "is not CSV") from error
        names = [each.strip().lower() for each in cells]
        if number == 1 and "id" in names:
            column = names.index("id")
            return None
        if column is None:
            return ",".join(cells) if any(cells) else None
        return cells[column] or None if column < len(cells) else None

    return read


def _checked(number: int, item: str) -> str:
    if "\0" in item:
        raise _bad_line(number, "holds a NUL")
    return item


def _bad_line(number: int, detail: str) -> Refusal:
    return invalid_field(f"/{number - 1}", f"line {number} {detail}")
