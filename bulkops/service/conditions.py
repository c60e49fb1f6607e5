"""What has to hold for a start: its numbers and texts, how many items, the queue, the rate, who else is at it.

What comes in: a request, the action's settings, what is in the tables; what goes out: nothing, or the refusal that
says what does not hold. Nothing is written here.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from bulkops.errors import Refusal, invalid_field
from bulkops.models import Caller, FailureThreshold, StartBody
from bulkops.operations import MAX_ATOMIC_ITEMS, PRIORITY_MAX, PRIORITY_USER, RANGES, has_role, parse_rate
from bulkops.settings import ActionSettings
from bulkops.store import claims, jobs
from bulkops.store.jobs import JobRow
from bulkops.timing import parse_rfc3339

_PAST_MS: Final = 60_000
_MAX_AHEAD_MS: Final = 100 * 366 * 86_400_000
_RETRY_AFTER_S: Final = 5


def confirmation_required(settings: ActionSettings, matched: int | None) -> Refusal:
    """Build the refusal that names the word to type and the number it is about."""
    about = "these items" if matched is None else "1 item" if matched == 1 else f"{matched} items"
    return Refusal(
        "CONFIRMATION_REQUIRED",
        f"type {settings.confirm} to confirm: this is about {about}",
        confirm=settings.confirm,
        count=matched,
    )


def check_amount(settings: ActionSettings, matched: int | None, *, atomic: bool) -> None:
    """Refuse more items than the action, or an atomic job, may take.

    Raises:
        Refusal: ``TOO_MANY_ITEMS``.
    """
    if matched is None:
        return
    if settings.max_items is not None and matched > settings.max_items:
        raise Refusal(
            "TOO_MANY_ITEMS", f"{matched} items match, this action takes at most {settings.max_items}"
        )
    if atomic and matched > MAX_ATOMIC_ITEMS:
        raise Refusal(
            "TOO_MANY_ITEMS", f"{matched} items match, an atomic job takes at most {MAX_ATOMIC_ITEMS}"
        )


def check_queue(connection: sqlite3.Connection, queue_max: int) -> None:
    """Refuse when too many jobs wait already.

    Raises:
        Refusal: ``QUEUE_FULL`` with ``Retry-After``.
    """
    if claims.line_length(connection) >= queue_max:
        raise Refusal(
            "QUEUE_FULL",
            f"{queue_max} jobs are waiting already; try again in {_RETRY_AFTER_S} s",
            headers={"Retry-After": str(_RETRY_AFTER_S)},
        )


def check_exclusive(connection: sqlite3.Connection, job: JobRow) -> None:
    """Refuse a second active job of an exclusive action.

    Raises:
        Refusal: ``JOB_ACTIVE`` with the other job's id.
    """
    active = jobs.active_exclusive(connection, resource=job.resource, action=job.action, tenant=job.tenant)
    if active is not None and active != job.id:
        raise Refusal(
            "JOB_ACTIVE",
            f"job {active} is active already; wait for its end, or cancel it",
            job=active,
            active_job=active,
        )


def check_rate(connection: sqlite3.Connection, settings: ActionSettings, job: JobRow, now_ms: int) -> None:
    """Refuse more starts than the action's rate allows; the jobs themselves are the count.

    Raises:
        Refusal: ``RATE_LIMITED`` with ``Retry-After`` and the draft's ``RateLimit`` fields.
    """
    if settings.rate is None:
        return
    rate = parse_rate(settings.rate)
    window_ms = rate.window_s * 1000
    count, oldest_ms = jobs.count_starts(
        connection, resource=job.resource, action=job.action, tenant=job.tenant,
        # What lies further ahead was accepted before the clock was set back.
        since_ms=now_ms - window_ms, until_ms=now_ms + window_ms,
    )  # fmt: skip
    if count >= rate.limit:
        wait_s = max(1, -(-((oldest_ms or now_ms) + window_ms - now_ms) // 1000))
        policy = f'"{job.action}"'
        raise Refusal(
            "RATE_LIMITED",
            f"at most {settings.rate}; try again in {wait_s} s",
            headers={
                "Retry-After": str(wait_s),
                "RateLimit-Policy": f"{policy};q={rate.limit};w={rate.window_s}",
                "RateLimit": f"{policy};r=0;t={wait_s}",
            },
            retry_after_s=wait_s,
        )


def read_run_at(body: StartBody, now_ms: int) -> int | None:
    """Read when a job shall begin; ``None`` is now.

    Raises:
        Refusal: 422: it is no instant, or one that is past.
    """
    if body.run_at is None:
        return None
    try:
        at_ms = parse_rfc3339(body.run_at)
    except ValueError as error:
        raise invalid_field("/run_at", f"an RFC 3339 instant with offset is needed ({error})") from error
    if not now_ms - _PAST_MS <= at_ms <= now_ms + _MAX_AHEAD_MS:
        raise invalid_field("/run_at", "the time must lie ahead, by a hundred years at most")
    return at_ms


def check_wishes(body: StartBody, caller: Caller) -> None:
    """Check every number and text of a start.

    Raises:
        Refusal: 422 naming the field.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(body, name)
        if value is not None and not low <= value <= high:
            raise invalid_field(f"/{name}", f"a number from {low:,} to {high:,} is needed")
    if body.priority is not None and body.priority > PRIORITY_USER and not has_role(caller, "admin"):
        raise Refusal("FORBIDDEN", f"priorities above {PRIORITY_USER} need the role admin")
    if body.priority is not None and not 0 <= body.priority <= PRIORITY_MAX:
        raise invalid_field("/priority", f"a number from 0 to {PRIORITY_MAX} is needed")
    for name, longest in (("reason", 1000), ("label", 200), ("task_id", 100)):
        text = getattr(body, name)
        if text is not None and not 1 <= len(text) <= longest:
            raise invalid_field(f"/{name}", f"a text of 1 to {longest} characters is needed")
    check_threshold(body.failure_threshold)


def check_threshold(threshold: FailureThreshold | None) -> None:
    """Check the two numbers of a failure threshold.

    Raises:
        Refusal: 422 naming the field.
    """
    if threshold is None:
        return
    if threshold.min_items < 1:
        raise invalid_field("/failure_threshold/min_items", "at least 1 is needed")
    if not 0 <= threshold.max_ratio <= 1:
        raise invalid_field("/failure_threshold/max_ratio", "a share from 0 to 1 is needed")
