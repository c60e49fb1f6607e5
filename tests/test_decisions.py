"""What a job does after a batch, for any standing it may be in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bulkops.decisions import Next, Standing, decide, page_limit
from bulkops.models import FailureThreshold
from bulkops.states import MOVES, Status


def at(**fields: Any) -> Standing:
    """Make a job half done that nothing holds back."""
    return Standing(
        **{
            "status": Status.RUNNING,
            "total": 100,
            "before": 40,
            "cursor": 50,
            "stretch_ms": 1000,
            "stretch_items": 50,
            "stretch_failed": 0,
            "batch_failures": 0,
            "max_runtime_s": None,
            "max_items": None,
            "max_batch_failures": 10,
            "failure_threshold": None,
            "canary": None,
            "stopping": False,
            "slice_over": False,
            **fields,
        }
    )


numbers = st.integers(0, 1000)
maybe = st.none() | st.integers(1, 1000)
standings = st.builds(
    Standing,
    status=st.sampled_from([Status.RUNNING, Status.PAUSING, Status.CANCELLING]),
    total=numbers,
    before=numbers,
    cursor=numbers,
    stretch_ms=numbers,
    stretch_items=numbers,
    stretch_failed=numbers,
    batch_failures=numbers,
    max_runtime_s=st.none() | st.floats(0.001, 2),
    max_items=maybe,
    max_batch_failures=st.integers(1, 100),
    failure_threshold=st.none()
    | st.builds(FailureThreshold, min_items=st.integers(1, 500), max_ratio=st.floats(0, 1)),
    canary=maybe,
    stopping=st.booleans(),
    slice_over=st.booleans(),
)
TARGETS = {Next.COMPLETE: Status.COMPLETED, Next.CANCEL: Status.CANCELLED, Next.PAUSE: Status.PAUSED}


@given(standings)
def test_every_choice_is_an_allowed_move_with_a_reason_for_each_pause(standing: Standing) -> None:
    step = decide(standing)
    if step.next in TARGETS:
        assert TARGETS[step.next] in MOVES[standing.status]
    assert (step.next is Next.PAUSE) == bool(step.code) == bool(step.message)


@given(standings)
def test_the_last_batch_ends_a_job_whatever_was_asked(standing: Standing) -> None:
    assert (decide(standing).next is Next.COMPLETE) == (standing.cursor >= standing.total)


@given(standings)
def test_what_people_asked_for_goes_before_every_limit(standing: Standing) -> None:
    step = decide(standing)
    if standing.cursor < standing.total and standing.status is Status.CANCELLING:
        assert step.next is Next.CANCEL
    if standing.cursor < standing.total and standing.status is Status.PAUSING:
        assert (step.next, step.code) == (Next.PAUSE, "USER")


@given(standings)
def test_a_job_goes_on_only_while_the_house_is_open_and_nobody_else_is_due(standing: Standing) -> None:
    if decide(standing).next is Next.GO:
        assert not standing.stopping
        assert not standing.slice_over


def test_a_canary_pauses_once_on_its_own_item() -> None:
    assert decide(at(canary=50)).code == "CANARY"
    assert decide(at(canary=50, before=50, cursor=60)).next is Next.GO


def test_max_items_counts_since_the_last_resume() -> None:
    assert decide(at(max_items=50)).code == "MAX_ITEMS"
    assert decide(at(max_items=50, stretch_items=49)).next is Next.GO


def test_the_failure_threshold_needs_enough_items_and_more_than_its_share() -> None:
    threshold = FailureThreshold(min_items=50, max_ratio=0.5)
    assert decide(at(failure_threshold=threshold, stretch_failed=25)).next is Next.GO
    assert decide(at(failure_threshold=threshold, stretch_failed=26)).code == "FAILURE_THRESHOLD"
    assert decide(at(failure_threshold=threshold, stretch_items=49, stretch_failed=49)).next is Next.GO


def test_whole_batches_that_fail_in_a_row_pause_the_job() -> None:
    assert decide(at(batch_failures=9)).next is Next.GO
    assert decide(at(batch_failures=10)).code == "BATCH_FAILURES"


def test_the_runtime_cap_counts_work() -> None:
    assert decide(at(max_runtime_s=1.001)).next is Next.GO
    assert decide(at(max_runtime_s=1.0)).code == "RUNTIME_CAP"


def test_a_slice_that_is_over_puts_the_job_back_in_line() -> None:
    assert decide(at(slice_over=True)).next is Next.RELEASE
    assert decide(at(stopping=True)).next is Next.RELEASE


@given(st.integers(1, 10_000), numbers, numbers, maybe, maybe)
def test_a_batch_ends_where_somebody_wants_a_stop(
    size: int, cursor: int, stretch: int, canary: int | None, max_items: int | None
) -> None:
    limit = page_limit(size, cursor=cursor, stretch_items=stretch, canary=canary, max_items=max_items)
    assert 1 <= limit <= size
    if canary is not None and cursor < canary:
        assert cursor + limit <= canary
    if max_items is not None and stretch < max_items:
        assert stretch + limit <= max_items
