"""What a job does after a batch: a pure choice from its row, its knobs and the state of the house."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bulkops.models import FailureThreshold
from bulkops.states import Status


class Next(StrEnum):
    GO = "go"
    COMPLETE = "complete"
    CANCEL = "cancel"
    PAUSE = "pause"
    RELEASE = "release"


class Step(msgspec.Struct, frozen=True):
    """What to do next; ``code`` and ``message`` say why a job is paused."""

    next: Next
    code: str = ""
    message: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands after a batch; ``before`` is its cursor before it. Stretch: since the last resume."""

    status: Status
    total: int
    before: int
    cursor: int
    stretch_ms: int
    stretch_items: int
    stretch_failed: int
    batch_failures: int
    max_runtime_s: float | None
    max_items: int | None
    max_batch_failures: int
    failure_threshold: FailureThreshold | None
    canary: int | None
    stopping: bool
    slice_over: bool


def decide(standing: Standing) -> Step:
    """Choose: the last batch ends a job whatever was asked; then what people asked for, then the limits."""
    if standing.cursor >= standing.total:
        return Step(Next.COMPLETE)
    if standing.status is Status.CANCELLING:
        return Step(Next.CANCEL)
    if standing.status is Status.PAUSING:
        return Step(Next.PAUSE, "USER", "paused by hand")
    limit = _limit_reached(standing)
    if limit is not None:
        return limit
    if standing.stopping or standing.slice_over:
        return Step(Next.RELEASE)
    return Step(Next.GO)


def _limit_reached(standing: Standing) -> Step | None:
    threshold = standing.failure_threshold
    if (
        threshold is not None
        and standing.stretch_items >= threshold.min_items
        and standing.stretch_failed > threshold.max_ratio * standing.stretch_items
    ):
        share = standing.stretch_failed / standing.stretch_items
        return Step(Next.PAUSE, "FAILURE_THRESHOLD", f"{share:.0%} of {standing.stretch_items} items failed")
    if standing.batch_failures >= standing.max_batch_failures:
        return Step(
            Next.PAUSE, "BATCH_FAILURES", f"{standing.batch_failures} batches in a row failed as a whole"
        )
    if standing.canary is not None and standing.before < standing.canary <= standing.cursor:
        return Step(Next.PAUSE, "CANARY", f"the first {standing.canary} are done; have a look, then resume")
    if standing.max_items is not None and standing.stretch_items >= standing.max_items:
        return Step(Next.PAUSE, "MAX_ITEMS", f"{standing.max_items} items are done, as asked")
    if standing.max_runtime_s is not None and standing.stretch_ms >= standing.max_runtime_s * 1000:
        return Step(Next.PAUSE, "RUNTIME_CAP", f"{standing.max_runtime_s:g} s of work are over")
    return None


def page_limit(
    standing_size: int, *, cursor: int, stretch_items: int, canary: int | None, max_items: int | None
) -> int:
    """Cut a batch so that it ends where a canary or ``max_items`` wants a stop; at least one item."""
    limit = standing_size
    if canary is not None and cursor < canary:
        limit = min(limit, canary - cursor)
    if max_items is not None and stretch_items < max_items:
        limit = min(limit, max_items - stretch_items)
    return max(1, limit)
