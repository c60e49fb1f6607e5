"""A wall clock that does not leap: the time that decides what is old enough to be removed for good.

What comes in: the machine's two clocks; what goes out: an instant that never runs ahead of both. When the
wall clock leaps forward, this one goes on as if nothing had happened, for a day of elapsed time; what is still
ahead then is taken for the truth (the process slept, or the clock was wrong before). A clock that is set back
is followed at once: that removes later, never earlier.
"""

from __future__ import annotations

from typing import Final

from bulkops.timing import Clock

_DOUBT_S: Final = 24 * 3600.0
#: Ahead by less than this is no leap: clocks are slewed, and their two readings are not one instant.
_SLACK_MS: Final = 1000
_SLEW: Final = 0.002
_LONG_AWAY_MS: Final = 7 * 24 * 3_600_000


class Steadiness:
    """Tells the steady time; one for the whole house, asked every minute or so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steady_ms = clock.now_ms()
        self._looked_s = clock.monotonic()
        self._doubted_s: float | None = None

    def remember(self, seen_ms: int) -> None:
        """Take note, at the start, of the last instant on record: a clock far beyond it is doubted too."""
        if self._steady_ms - seen_ms > _LONG_AWAY_MS:
            self._steady_ms = seen_ms
            self._doubted_s = self._looked_s

    def now_ms(self) -> int:
        """Return the steady time in UTC milliseconds."""
        wall_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        elapsed_s = max(0.0, now_s - self._looked_s)
        self._looked_s = now_s
        expected_ms = self._steady_ms + round(elapsed_s * 1000)
        if wall_ms <= expected_ms + _SLACK_MS + elapsed_s * 1000 * _SLEW:
            self._doubted_s = None
            self._steady_ms = wall_ms
            return wall_ms
        if self._doubted_s is None:
            self._doubted_s = now_s
        believed = now_s - self._doubted_s >= _DOUBT_S
        if believed:
            self._doubted_s = None
        self._steady_ms = wall_ms if believed else expected_ms
        return self._steady_ms
