"""Slots: when a cron line or an interval is due, across clock changes, and after the clock was set back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bulkops.slots import (
    Timing,
    after_set_back,
    check_cron,
    check_zone,
    following,
    parse_every,
    slots,
    write_every,
)

NOW_MS = 1_767_225_600_000
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
#: Europe, a half-hour change, one at midnight, one to the day, none.
ZONES = ["Europe/Madrid", "Australia/Lord_Howe", "Africa/Cairo", "America/St_Johns", "Asia/Kolkata", "UTC"]
LINES = [
    "30 2 * * *",
    "0 0 * * *",
    "0,30 2 * * *",
    "15 */6 * * *",
    "*/20 * * * *",
    "0 * * * *",
    "5 3 * * 1-5",
]


def at(zone: str, text: str, fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp() * 1000)


def local(zone: str, slot_ms: int) -> str:
    return datetime.fromtimestamp(slot_ms / 1000, ZoneInfo(zone)).isoformat()


def first(timing: Timing, after_ms: int, count: int) -> list[int]:
    return list(islice(slots(timing, after_ms), count))


def test_a_line_is_read_in_its_zone() -> None:
    found = following(
        Timing(cron="0 3 * * *", timezone="Asia/Kolkata"), at("Asia/Kolkata", "2026-01-01T02:59")
    )
    assert found == at("Asia/Kolkata", "2026-01-01T03:00")


def test_a_time_that_the_clock_skips_comes_right_after_it_and_once() -> None:
    timing = Timing(cron="30 2 * * *", timezone="Europe/Madrid")
    found = first(timing, at("Europe/Madrid", "2026-03-28T12:00"), 2)
    assert [local("Europe/Madrid", each) for each in found] == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


@pytest.mark.parametrize(
    ("text", "fold"), [("02:30", 0), ("02:59", 0), ("02:00", 1), ("02:15", 1), ("02:30", 1)]
)
def test_a_time_that_comes_twice_is_taken_once(text: str, fold: int) -> None:
    timing = Timing(cron="30 2 * * *", timezone="Europe/Madrid")
    before = at("Europe/Madrid", "2026-10-25T01:00")
    assert following(timing, before) == at("Europe/Madrid", "2026-10-25T02:30", fold=0)
    inside = at("Europe/Madrid", f"2026-10-25T{text}", fold=fold)
    assert following(timing, inside) == at("Europe/Madrid", "2026-10-26T02:30")


def test_a_line_of_every_hour_goes_by_elapsed_time() -> None:
    timing = Timing(cron="0 * * * *", timezone="Europe/Madrid")
    for day in ("2026-03-28T23:30", "2026-10-24T23:30"):
        found = first(timing, at("Europe/Madrid", day), 6)
        assert {later - earlier for earlier, later in pairwise(found)} == {HOUR_MS}


@given(
    zone=st.sampled_from(ZONES),
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    day=st.dates(date(2020, 1, 1), date(2035, 12, 31)),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_daily_time_comes_exactly_once_on_every_day_of_any_zone(
    zone: str, minute: int, hour: int, day: date
) -> None:
    timing = Timing(cron=f"{minute} {hour} * * *", timezone=zone)
    start = at(zone, f"{day.isoformat()}T12:00") - 200 * DAY_MS
    found = first(timing, start, 400)
    days = [datetime.fromtimestamp(each / 1000, ZoneInfo(zone)).date() for each in found]
    assert [later - earlier for earlier, later in pairwise(days)] == [timedelta(days=1)] * 399


@given(
    zone=st.sampled_from(ZONES),
    line=st.sampled_from(LINES),
    at_ms=st.integers(NOW_MS, NOW_MS + 3 * 365 * DAY_MS),
    share=st.floats(0, 1, exclude_max=True),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_from_wherever_one_asks_the_next_slot_is_the_same(
    zone: str, line: str, at_ms: int, share: float
) -> None:
    timing = Timing(cron=line, timezone=zone)
    one, two = first(timing, at_ms, 2)
    assert at_ms < one < two
    assert following(timing, one - 1) == one
    between = one + int((two - one) * share)
    assert following(timing, between) == two


@given(
    every_s=st.integers(60, 400_000), anchor_ms=st.integers(0, 2 * NOW_MS), at_ms=st.integers(0, 2 * NOW_MS)
)
def test_an_interval_keeps_to_its_grid_however_the_clock_stands(
    every_s: int, anchor_ms: int, at_ms: int
) -> None:
    one, two = first(Timing(every_s=every_s, anchor_ms=anchor_ms), at_ms, 2)
    assert at_ms < one <= at_ms + every_s * 1000
    assert two - one == every_s * 1000
    assert (one - anchor_ms) % (every_s * 1000) == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("90m", 5400), ("6h", 21_600), ("1d", 86_400), ("2w", 1_209_600)]
)
def test_intervals_are_read_and_written(text: str, seconds: int) -> None:
    assert parse_every(text) == seconds
    assert parse_every(write_every(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["59s", "0h", "-6h", "6", "h", "1.5h", "367d", "999999999w", "6 h", "\u0661h", ""]
)
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"interval|between"):
        parse_every(text)


@pytest.mark.parametrize(
    "line",
    [
        *("", "@daily", "* * * *", "0 0 3 * * *", "60 * * * *", "0 0 31 2 *", "0 0 30 2 *", "0 0 29 2 *"),
        *(
            "a b c d e",
            "1-0 * * * *",
            "*/0 * * * *",
            "²L * * * *",
            "* * * * ²L",
            "* * * * 1L/2",
            "1,,2 * * * *",
        ),
        *("0 0 * * 8", "9" * 5000 + " * * * *", ",".join(["1"] * 500) + " * * * *", "0\0 3 * * *"),
    ],
)
def test_a_line_that_cannot_be_read_or_never_comes_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"cron line|within a year"):
        check_cron(line, NOW_MS)


@given(line=st.text(max_size=60))
def test_no_text_does_anything_but_pass_or_be_refused(line: str) -> None:
    try:
        check_cron(line, NOW_MS)
    except ValueError:
        return
    assert following(Timing(cron=line), NOW_MS) is not None


@pytest.mark.parametrize(
    "name",
    ["", "Europe", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe/Madrid\0", "a" * 5000, "."],
)
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        check_zone(name)


def test_known_zones_pass() -> None:
    for name in (*ZONES, "Etc/GMT+5", "America/Argentina/Buenos_Aires"):
        check_zone(name)


DAILY = Timing(cron="0 3 * * *")


def day(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_after_a_day_forward_and_back_the_slot_that_ran_is_left_out() -> None:
    ran = day("2026-01-06T12:00")  # a day ahead of the truth: for the slot of the 6th
    assert after_set_back(DAILY, day("2026-01-05T12:01"), ran) == day("2026-01-07T03:00")


def test_two_days_back_leaves_out_what_ran_and_goes_on_after_it() -> None:
    ran = day("2026-01-07T03:00")
    assert after_set_back(DAILY, day("2026-01-05T12:00"), ran) == day("2026-01-08T03:00")


def test_a_clock_that_was_years_ahead_does_not_keep_anything_from_running() -> None:
    assert after_set_back(DAILY, day("2026-01-05T12:00"), day("2099-01-01T03:00")) == day("2026-01-07T03:00")


def test_a_slot_of_every_few_minutes_goes_on_at_once() -> None:
    minutely = Timing(cron="*/5 * * * *")
    back = after_set_back(minutely, day("2026-01-05T12:01"), day("2026-01-07T12:00"))
    assert back == day("2026-01-05T12:10")


@given(
    timing=st.one_of(
        st.builds(Timing, cron=st.sampled_from(LINES), timezone=st.sampled_from(ZONES)),
        st.builds(Timing, every_s=st.integers(60, 400_000)),
    ),
    now_ms=st.integers(NOW_MS, NOW_MS + 700 * DAY_MS),
    ahead_ms=st.integers(0, 400 * DAY_MS),
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_after_a_set_back_at_most_two_slots_are_left_out(timing: Timing, now_ms: int, ahead_ms: int) -> None:
    last_ms = now_ms + ahead_ms
    found = after_set_back(timing, now_ms, last_ms)
    near = first(timing, now_ms, 3)
    assert found in near
    if near[2] > last_ms:
        assert found == next(each for each in near if each > last_ms)
