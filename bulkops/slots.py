"""When a schedule is due: the instants of a cron line in a time zone, or of an interval.

Values in, instants (UTC milliseconds) out; nothing here waits or knows what is to be done at them. A cron
line whose minute and hour name times runs once on every day it matches: at a time that a clock change skips,
right after it; at a time that comes twice, the first time. One whose minute or hour begins with ``*`` goes by
elapsed time. This is how Debian's cron does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import msgspec

MIN_EVERY_S: Final = 60
MAX_EVERY_S: Final = 366 * 86_400
_MAX_CRON: Final = 200
#: A year, and the day that a leap year has more.
_MAX_AHEAD_MS: Final = MAX_EVERY_S * 1000
_EVERY: Final = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d|w)")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}")


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of ``cron`` (five fields, read in ``timezone``) and ``every_s``, counted from ``anchor_ms``."""

    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    anchor_ms: int = 0


def parse_every(text: str) -> int:
    """Read ``90m``, ``6h``, ``1d`` into seconds.

    Raises:
        ValueError: the text is no interval, or one below a minute or above a year.
    """
    found = _EVERY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no interval such as 6h (s, m, h, d, w)")
    seconds = int(found[1]) * _UNIT_S[found[2]]
    if not MIN_EVERY_S <= seconds <= MAX_EVERY_S:
        raise ValueError(f"{text!r} is not between a minute and a year")
    return seconds


def check_zone(name: str) -> None:
    """Accept the name of a time zone that this machine, or the package tzdata, knows.

    Raises:
        ValueError: it is unknown.
    """
    from zoneinfo import ZoneInfo  # late: a start without cron lines needs no zone

    try:
        known = _ZONE.fullmatch(name) is not None and ZoneInfo(name) is not None
    except (LookupError, ValueError, OSError):  # a folder of zones is an OSError
        known = False
    if not known:
        raise ValueError(f"{name!r} is no time zone such as Europe/Madrid")


def check_cron(text: str, now_ms: int) -> None:
    """Accept a cron line of five fields that matches within a year from now.

    Raises:
        ValueError: it cannot be read, or its next time is further away, or never.
    """
    slot_ms = following(Timing(cron=text), now_ms) if len(text) <= _MAX_CRON else None
    if slot_ms is None or slot_ms - now_ms > _MAX_AHEAD_MS:
        raise ValueError(f"{text[:_MAX_CRON]!r} does not come within a year")


def following(timing: Timing, after_ms: int) -> int | None:
    """Return the first slot behind an instant; ``None`` when there is none.

    Raises:
        ValueError: the cron line or the time zone cannot be read.
    """
    return next(slots(timing, after_ms), None)


def following_if_readable(timing: Timing, after_ms: int) -> int | None:
    """Return the first slot behind an instant; ``None`` also where a zone is not known any more."""
    try:
        return following(timing, after_ms)
    except ValueError:
        return None


def slots(timing: Timing, after_ms: int) -> Iterator[int]:
    """Walk the slots behind an instant, each later than the one before.

    Raises:
        ValueError: the cron line or the time zone cannot be read.
    """
    if timing.every_s is not None:
        yield from _grid(timing.anchor_ms, timing.every_s * 1000, after_ms)
        return
    latest_ms = after_ms
    for moment in _cron(timing.cron or "", timing.timezone, after_ms):
        # The hour that comes twice: from within its second half the line's times of the first are found again.
        slot_ms = int(moment.astimezone(UTC).timestamp()) * 1000
        if slot_ms > latest_ms:
            latest_ms = slot_ms
            yield slot_ms


def _grid(anchor_ms: int, every_ms: int, after_ms: int) -> Iterator[int]:
    slot_ms = anchor_ms + ((after_ms - anchor_ms) // every_ms + 1) * every_ms
    while True:
        yield slot_ms
        slot_ms += every_ms


def _cron(line: str, zone: str, after_ms: int) -> Iterator[datetime]:
    from zoneinfo import ZoneInfo  # late: only cron lines need it

    from cronsim import CronSim, CronSimError  # the same

    check_zone(zone)
    if len(line.split()) != 5:
        raise ValueError(f"{line!r} is no cron line of five fields such as 0 3 * * *")
    # cronsim knows by identity that UTC has no clock changes.
    tz = UTC if zone == "UTC" else ZoneInfo(zone)
    try:
        return CronSim(line, datetime.fromtimestamp(after_ms / 1000, tz))
    except (CronSimError, ValueError, AssertionError) as error:
        raise ValueError(f"{line!r} is no cron line such as 0 3 * * *: {error}") from error


def after_set_back(timing: Timing, now_ms: int, last_ms: int) -> int | None:
    """Say when a schedule is due that already ran at ``last_ms``, while the clock now shows less.

    A slot it ran for is left out, so that nothing runs twice; but of three slots one is taken, so that a
    clock that was wrong for a while keeps nothing from running for long.
    """
    ahead = list(islice(slots(timing, now_ms), 3))
    for slot_ms in ahead:
        if slot_ms > last_ms:
            return slot_ms
    return ahead[1] if len(ahead) > 1 else None


def write_every(seconds: int) -> str:
    """Write an interval as `parse_every` reads it."""
    unit = next(unit for unit, size in reversed(_UNIT_S.items()) if seconds % size == 0)
    return f"{seconds // _UNIT_S[unit]}{unit}"
