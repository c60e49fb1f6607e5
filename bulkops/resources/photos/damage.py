"""Damage in a JPEG that decoders draw over: pictures are made of such a file, grey or shifted from there on.

Source: ITU-T T.81, annex B: within a scan only restart markers stand, in the order 0 … 7 and around again;
markers below 0xC0 are reserved.
"""

from __future__ import annotations

import re
from typing import Final

_SOI: Final = b"\xff\xd8"
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_RESTARTS: Final = range(0xD0, 0xD8)
_END: Final = 0xD9
_SCAN: Final = 0xDA


def find_damage(data: bytes) -> str | None:
    """Say what is wrong inside a JPEG's first picture, ``None`` when nothing is seen, or it is no JPEG.

    A file that just ends is left to the decoder, which refuses it.
    """
    if not data.startswith(_SOI):
        return None
    at = _after_segments(data, 2)
    expected = 0
    while at is not None:
        found = _MARKER.search(data, at)
        if found is None:
            return None
        marker = found[1][0]
        if marker in _RESTARTS:
            if marker - _RESTARTS.start != expected:
                return f"damaged: a restart marker is out of turn at byte {found.start()}"
            expected = (expected + 1) % 8
            at = found.end()
        elif marker == _END:
            return None
        elif marker < 0xC0:
            return f"damaged: the reserved marker 0x{marker:02X} at byte {found.start()}"
        else:
            at, expected = _after_segments(data, found.end() - 2), 0
    return None


def _after_segments(data: bytes, at: int) -> int | None:
    """Walk from segment to segment to behind the header of the next scan; ``None`` when there is none."""
    while True:
        found = _MARKER.match(data, at)
        if found is None:
            return None
        marker = found[1][0]
        at = found.end()
        if marker == _END:
            return None
        if marker == 0x01 or marker in _RESTARTS:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            return None
        at += length
        if marker == _SCAN:
            return at
