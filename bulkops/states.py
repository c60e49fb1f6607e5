"""A job's statuses and the moves between them: the one list that store, service and page go by.

::

    scheduled ──(fires)──▶ preparing ──(frozen)──▶ queued ──(claimed)──▶ running ──▶ completed | failed
        │                      │                     │                     │
        └──cancel──▶ cancelled └─pause─▶ pausing ─▶ paused ◀──pause────────┤ pausing ─▶ paused
                                                     │ resume ─▶ queued    └ cancelling ─▶ cancelled

``pausing`` and ``cancelling`` are requests a runner has still to see; they may end ``completed`` on the
last batch. After a crash nobody runs, so ``pausing`` is ``paused`` and ``cancelling`` is ``cancelled``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    SCHEDULED = "scheduled"
    PREPARING = "preparing"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How a completed job ended."""

    OK = "ok"
    PARTIAL = "partial"
    NONE = "none"


class ItemOutcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


class Source(StrEnum):
    USER = "user"
    MAINTENANCE = "maintenance"


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


#: Every allowed move of a job's status; whatever is not here is an impossible one.
MOVES: Final[dict[Status, frozenset[Status]]] = {
    # fires (then freezes, or is frozen already) · cancel · found in a database put back from a copy
    Status.SCHEDULED: frozenset({Status.PREPARING, Status.QUEUED, Status.CANCELLED, Status.PAUSED}),
    # manifest frozen (to wait for its time, with run_at) · pause · cancel · freeze impossible · nothing matched
    Status.PREPARING: frozenset(
        {
            Status.SCHEDULED,
            Status.QUEUED,
            Status.PAUSING,
            Status.PAUSED,
            Status.CANCELLING,
            Status.CANCELLED,
            Status.FAILED,
            Status.COMPLETED,
        }
    ),
    # claimed · pause and cancel take effect at once, nobody runs · unless a last batch is to be explained first
    Status.QUEUED: frozenset(
        {
            Status.RUNNING,
            Status.PAUSED,
            Status.CANCELLING,
            Status.CANCELLED,
            Status.COMPLETED,
            Status.FAILED,
        }
    ),
    # last batch · the job cannot go on · pause · cancel · auto-pause between batches
    Status.RUNNING: frozenset(
        {
            Status.COMPLETED,
            Status.FAILED,
            Status.PAUSING,
            Status.PAUSED,
            Status.CANCELLING,
            Status.CANCELLED,
        }
    ),
    # the runner saw it · it was the last batch · resume before it was seen · cancel
    Status.PAUSING: frozenset(
        {
            Status.PAUSED,
            Status.COMPLETED,
            Status.FAILED,
            Status.RUNNING,
            Status.PREPARING,
            Status.CANCELLING,
            Status.CANCELLED,
        }
    ),
    # resume (to the freeze, when that was not finished; to wait for its time) · cancel, like that of a queued one
    Status.PAUSED: frozenset(
        {Status.QUEUED, Status.PREPARING, Status.SCHEDULED, Status.CANCELLING, Status.CANCELLED}
    ),
    # the runner saw it · it was the last batch
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.COMPLETED, Status.FAILED}),
    Status.COMPLETED: frozenset(),
    # resume: what failed was the job, not its items
    Status.FAILED: frozenset({Status.QUEUED, Status.PREPARING}),
    Status.CANCELLED: frozenset(),
}


def sources_of(target: Status) -> frozenset[Status]:
    """List the statuses a job may come from to reach ``target``."""
    return frozenset(status for status, targets in MOVES.items() if target in targets)


def outcome_of(*, succeeded: int, failed: int) -> Outcome:
    """Judge a completed job; one without items, or with skipped ones only, is ``ok``."""
    if failed == 0:
        return Outcome.OK
    return Outcome.PARTIAL if succeeded else Outcome.NONE


def allowed_actions(status: Status, *, failed: int, can_undo: bool) -> list[str]:
    """List the verbs that a job in this status takes, in the order a page shows them."""
    allowed = []
    if status in {Status.PREPARING, Status.QUEUED, Status.RUNNING}:
        allowed.append("pause")
    if status in {Status.PAUSING, Status.PAUSED, Status.FAILED}:
        allowed.append("resume")
    if status not in TERMINAL and status is not Status.CANCELLING:
        allowed.append("cancel")
    if status in TERMINAL and failed:
        allowed.append("retry")
    if status in TERMINAL and can_undo:
        allowed.append("undo")
    return allowed
