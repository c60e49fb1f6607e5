"""The steady time: it follows a clock that runs, and is not taken along by one that leaps forward."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkops.steadiness import Steadiness

START_MS = 1_767_225_600_000
DAY_S = 86_400


class TwoClocks:
    """A wall clock and a monotonic one that tests move apart."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.elapsed_s = 1000.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.elapsed_s

    def run(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)
        self.elapsed_s += seconds

    def leap(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)


def test_a_clock_that_runs_is_followed_however_seldom_one_looks() -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    for seconds in (0.001, 60, 3600, 40 * DAY_S):
        clock.run(seconds)
        assert steady.now_ms() == clock.wall_ms


def test_a_clock_that_is_slewed_is_followed() -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    for _ in range(100):
        clock.run(60)
        clock.leap(0.03)
        assert steady.now_ms() == clock.wall_ms


def test_a_day_forward_changes_nothing_and_a_day_later_is_believed() -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    clock.run(10)
    clock.leap(DAY_S)
    assert steady.now_ms() == clock.wall_ms - DAY_S * 1000
    for _ in range(23):
        clock.run(3600)
        assert steady.now_ms() == clock.wall_ms - DAY_S * 1000
    clock.run(3600)
    assert steady.now_ms() == clock.wall_ms


def test_a_leap_that_is_corrected_leaves_no_doubt() -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    clock.leap(DAY_S)
    steady.now_ms()
    clock.run(3600)
    clock.leap(-DAY_S)
    assert steady.now_ms() == clock.wall_ms
    clock.run(DAY_S)
    assert steady.now_ms() == clock.wall_ms


def test_a_clock_set_back_is_followed_and_its_way_forward_again_is_doubted() -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    clock.leap(-2 * DAY_S)
    assert steady.now_ms() == clock.wall_ms
    clock.leap(2 * DAY_S)
    assert steady.now_ms() == clock.wall_ms - 2 * DAY_S * 1000


def test_at_the_start_a_clock_far_beyond_the_records_is_doubted_for_a_day() -> None:
    clock = TwoClocks()
    seen_ms = START_MS - 8 * DAY_S * 1000
    steady = Steadiness(clock)
    steady.remember(seen_ms)
    assert steady.now_ms() == seen_ms
    clock.run(DAY_S - 1)
    assert steady.now_ms() < clock.wall_ms
    clock.run(1)
    assert steady.now_ms() == clock.wall_ms


def test_at_the_start_some_days_without_records_are_believed() -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    steady.remember(START_MS - 6 * DAY_S * 1000)
    assert steady.now_ms() == clock.wall_ms


moves = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.floats(0, 40_000)),
        st.tuples(st.just("leap"), st.floats(-3 * DAY_S, 3 * DAY_S)),
    ),
    max_size=30,
)


@given(moves)
def test_within_a_day_of_elapsed_time_it_never_runs_ahead_of_it(walk: list[tuple[str, float]]) -> None:
    clock = TwoClocks()
    steady = Steadiness(clock)
    elapsed_s = 0.0
    for kind, amount in walk:
        if kind == "run":
            elapsed_s += amount
            if elapsed_s >= DAY_S:
                return
            clock.run(amount)
        else:
            clock.leap(amount)
        now_ms = steady.now_ms()
        slack_ms = 1000 * (len(walk) + 1) + elapsed_s * 1000 * 0.002
        assert now_ms <= START_MS + elapsed_s * 1000 + slack_ms
        assert now_ms <= clock.wall_ms
