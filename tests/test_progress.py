"""What workers know of the jobs they hold: sizes that adapt, rates that smooth, waits that can be ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkops.models import Throttle
from bulkops.progress import Live, Progress


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 20_000)), max_size=40))
def test_a_size_stays_within_its_bounds_whatever_the_holds(holds: list[tuple[float, int]]) -> None:
    live = Live()
    for hold_s, items in holds:
        live.adapt(hold_s, items, wanted_s=0.025, images=items % 2 == 0)
        assert 20 <= live.size <= 10_000


def test_a_long_hold_halves_the_next_batch_and_a_short_one_doubles_it() -> None:
    live = Live(size=1000)
    live.adapt(0.1, 1000, wanted_s=0.025, images=False)
    assert live.size == 500
    live.adapt(0.001, 500, wanted_s=0.025, images=False)
    assert live.size == 1000


def test_items_that_only_go_into_a_file_come_in_larger_batches() -> None:
    live = Live()
    for _ in range(20):
        live.adapt(0.001, live.size, wanted_s=0.2, images=False, only_written=True)
    assert live.size == 50_000
    live.adapt(0.1, live.size, wanted_s=0.1, images=False)
    assert live.size == 10_000


def test_a_batch_much_smaller_than_asked_says_nothing_about_the_size() -> None:
    live = Live(size=1000)
    live.adapt(0.0001, 10, wanted_s=0.025, images=False)
    assert live.size == 1000


def test_a_rate_is_unknown_at_first_and_forgotten_after_a_long_pause() -> None:
    live = Live()
    assert live.measure(100, 10.0) is None
    assert live.measure(100, 11.0) == 100
    assert live.measure(100, 60.0) is None


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0.001, 10)), min_size=2, max_size=30))
def test_a_smoothed_rate_lies_between_the_slowest_and_the_fastest(steps: list[tuple[int, float]]) -> None:
    live, now = Live(), 0.0
    live.measure(0, now)
    seen = []
    for items, passed_s in steps:
        now += passed_s
        seen.append(items / passed_s)
        rate = live.measure(items, now)
        assert rate is not None
        assert min(seen) * 0.999 - 0.001 <= rate <= max(seen) * 1.001 + 0.001


def test_a_job_nobody_holds_has_nothing_in_progress_and_cannot_be_poked() -> None:
    progress = Progress()
    progress.poke("nobody")
    assert progress.in_progress("nobody") == []
    assert progress.throttle("nobody") is None


def test_at_most_a_hundred_ids_are_shown_until_the_job_is_forgotten() -> None:
    progress = Progress()
    live = progress.of("job")
    live.ids = [str(number) for number in range(300)]
    live.throttle = Throttle(1.0, "throttle_ms")
    assert len(progress.in_progress("job")) == 100
    assert progress.throttle("job") == Throttle(1.0, "throttle_ms")
    progress.forget("job")
    assert progress.in_progress("job") == []


def test_a_poke_asks_and_a_nudge_only_wakes() -> None:
    progress = Progress()
    live = progress.of("job")
    progress.nudge()
    assert live.wake.is_set()
    assert not live.poke.is_set()
    progress.poke("job")
    assert live.poke.is_set()
