"""Time: the clock, instants on the wire, durations in filters, back-off.

Wall-clock milliseconds go into rows, monotonic seconds measure waiting; nothing here sleeps.
"""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_RELATIVE = re.compile(r"([+-])(\d{1,6})(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Clock(Protocol):
    """What the house asks the time of; tests move one by hand."""

    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def rfc3339(at_ms: int | None) -> str | None:
    """Write an instant (UTC milliseconds) as RFC 3339 with milliseconds; ``None`` stays ``None``."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> int:
    """Read an RFC 3339 instant into UTC milliseconds.

    Raises:
        ValueError: the text is no instant, or names no offset.

    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("an instant needs an offset, such as Z")
    return int(at.timestamp() * 1000)


def parse_relative(text: str) -> timedelta | None:
    """Read ``-30d``, ``+2h``; ``None`` when the text is no relative time."""
    found = _RELATIVE.fullmatch(text)
    if found is None:
        return None
    sign, amount, unit = found.groups()
    return timedelta(seconds=int(sign + amount) * _UNIT_S[unit])


def back_off_s(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Say how long to wait before try ``attempt`` (1, 2, …): exponential, half fixed and half jitter.

    Source: "equal jitter" of M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    full = min(cap_s, base_s * 2.0 ** min(attempt - 1, 32))
    return full / 2 + random.uniform(0, full / 2)  # noqa: S311  jitter is no secret
