"""Ids: of our own rows (ULIDs, 26 characters that sort by the time they were made), and of items on the wire.

Nothing here knows what an id stands for.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final
from urllib.parse import quote

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class UlidSource:
    """Makes ULIDs that rise strictly within the process, also inside one millisecond.

    Source: the ULID specification (github.com/ulid/spec), monotonic variant.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> str:
        fresh = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
        with self._lock:
            self._last = fresh if fresh > self._last else self._last + 1
            value = self._last
        return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


new_id = UlidSource().new


def wire_id(native: int | str | list[int | str]) -> str:
    """Write an item's native id as clients know it; parts of a composite key percent-encoded, by commas."""
    if isinstance(native, list):
        return ",".join(quote(str(part), safe="") for part in native)
    return str(native)
