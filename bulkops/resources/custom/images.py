"""Items of a resource made in Python, as its undo keeps them: written down as they were, whatever their rows hold."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from bulkops.batch import Item
from bulkops.effects import Image


def write_image(item: Item) -> bytes:
    """Write an item down, whatever its row holds: what no record can hold is kept as text."""
    try:
        row = msgspec.msgpack.encode([item.row, item.tenant], enc_hook=str)
    except (TypeError, ValueError, OverflowError, RecursionError):
        texts = {str(name): str(value) for name, value in item.row.items()}
        row = msgspec.msgpack.encode([_encodable(texts), item.tenant])
    return zlib.compress(row, 1)


def _encodable(row: dict[str, str]) -> dict[str, str]:
    return {_plain(name): _plain(value) for name, value in row.items()}


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def read_image(image: Image) -> Item:
    """Return the item of an image; what no record could hold is a text by now."""
    row, tenant = msgspec.msgpack.decode(zlib.decompress(image.image), type=tuple[dict[str, Any], str | None])
    return Item(image.item, row, tenant)
