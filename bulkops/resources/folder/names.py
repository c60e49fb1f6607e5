"""Names of entries as ids, and back: any name a file system holds has exactly one id that is plain text.

A name is its own id, but for what text on a line cannot carry: bytes that are no UTF-8, control and direction
characters, blanks at either end, and ``%`` itself stand percent-encoded, byte by byte. Nothing is normalised;
an id that is written in any other way names nothing.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

#: What begins like this is ours: the trash, copies that are not complete yet. It is never an item.
OURS: Final = b".bulkops-"
_MAX_BYTES: Final = 255
_ODD: Final = re.compile(
    r"^\s+|\s+\Z|[%\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def write_id(name: bytes) -> str:
    """Return the id of the entry with this name."""
    return _ODD.sub(_escape, name.decode("utf-8", "surrogateescape"))


def _escape(found: re.Match[str]) -> str:
    # quote leaves no character of these alone, blanks and the percent sign included.
    return quote_from_bytes(found[0].encode("utf-8", "surrogateescape"), safe="")


def read_id(wire: str | int) -> str:
    """Check an id of a request; it is native as it stands.

    Raises:
        ValueError: no entry can have it, or it is written otherwise than `write_id` does.
    """
    text = str(wire)
    name = unquote_to_bytes(text)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > _MAX_BYTES:
        raise ValueError("this is the name of no file or folder")
    if write_id(name) != text:
        raise ValueError(f"this id is written {write_id(name)!r}")
    return text


def name_of(item: str) -> bytes:
    """Return the name that an id stands for."""
    return unquote_to_bytes(item) if "%" in item else item.encode()


def is_ours(name: bytes) -> bool:
    """Say whether a name is of something this program made."""
    return name[: len(OURS)].lower() == OURS


def shown(name: bytes) -> str:
    """Write a name for people: what is no UTF-8 becomes a mark."""
    return name.decode("utf-8", "replace")
