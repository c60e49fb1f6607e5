"""The one list of moves, held against the store's guards, and every verb against every status."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bulkops.errors import Refusal
from bulkops.models import JobView, KnobsBody, RetryBody, UndoBody
from bulkops.runtime import open_offline
from bulkops.service.service import Service
from bulkops.states import (
    MOVES,
    TERMINAL,
    Outcome,
    Status,
    allowed_actions,
    outcome_of,
    sources_of,
)
from bulkops.store import claims, jobs
from bulkops.store.jobs import JobRow, Knobs
from bulkops.store.transaction import Tx
from tests.conftest import HandClock
from tests.engine_house import OWNER, make_database, settings_for
from tests.store_house import DAY_MS, START_MS, a_job, opened_store, stored

HELD = {Status.RUNNING, Status.PAUSING, Status.CANCELLING}


def standing(status: Status, *, held: bool | None = None, **fields: Any) -> JobRow:
    """Make a job in a status, with the columns such a job has."""
    worker = 1 if (status in HELD if held is None else held) else None
    if status is Status.SCHEDULED:
        fields |= {"run_at_ms": START_MS - 1, "total": 3}
    return a_job(status, worker=worker, **fields)


def test_nothing_leads_out_of_an_end_but_the_resume_of_a_failed_job() -> None:
    assert {status for status in TERMINAL if MOVES[status]} == {Status.FAILED}
    assert MOVES[Status.FAILED] == {Status.QUEUED, Status.PREPARING}


def test_every_status_is_reached_and_has_its_row() -> None:
    assert set(MOVES) == set(Status)
    begun = {Status.PREPARING, Status.SCHEDULED, Status.QUEUED}
    assert {status for status in Status if not sources_of(status)} <= begun


@pytest.mark.parametrize(
    ("succeeded", "failed", "outcome"),
    [(0, 0, Outcome.OK), (5, 0, Outcome.OK), (5, 1, Outcome.PARTIAL), (0, 1, Outcome.NONE)],
)
def test_success_is_never_claimed_with_failures(succeeded: int, failed: int, outcome: Outcome) -> None:
    assert outcome_of(succeeded=succeeded, failed=failed) is outcome


#: Everything in the store that moves a job, held and not.
MOVERS: dict[str, Callable[[Tx, JobRow], object]] = {
    "pause": lambda tx, job: jobs.pause(tx, job.id, code="USER", message=""),
    "pause held": lambda tx, job: jobs.pause(tx, job.id, code="USER", message="", held=True),
    "request_pause": lambda tx, job: jobs.request_pause(tx, job.id, message=""),
    "resume": lambda tx, job: jobs.resume(tx, job.id),
    "cancel": lambda tx, job: jobs.cancel(tx, job.id),
    "cancel held": lambda tx, job: jobs.cancel(tx, job.id, held=True),
    "request_cancel": lambda tx, job: jobs.request_cancel(tx, job.id),
    "complete": jobs.complete,
    "fail": lambda tx, job: jobs.fail(tx, job.id, code="X", message=""),
    "freeze": lambda tx, job: jobs.freeze(tx, job.id, total=3),
    "fire": lambda tx, job: claims.fire_due(tx),
    "claim": lambda tx, job: claims.claim(tx, worker=1, preparing=False),
    "claim preparing": lambda tx, job: claims.claim(tx, worker=1, preparing=True),
    "tune": lambda tx, job: jobs.tune(tx, job, priority=1, knobs=job.knobs),
    "release": claims.release,
}


def variants(status: Status) -> list[JobRow]:
    """List the shapes a job in this status may have: held or not, frozen or not, with items left or none."""
    whole: dict[str, Any] = {"cursor": 3, "succeeded": 3}
    shapes = [standing(status), standing(status, held=True), standing(status, held=False)]
    if status not in {Status.COMPLETED, Status.PREPARING, Status.SCHEDULED}:
        shapes += [standing(status, **whole), standing(status, held=True, **whole)]
    if status in {Status.PAUSED, Status.FAILED, Status.PAUSING, Status.CANCELLING}:
        shapes.append(standing(status, total=None))
    if status is Status.SCHEDULED:
        shapes.append(standing(status, frozen=False))
    if status is Status.PAUSED:
        shapes.append(standing(status, run_at_ms=START_MS + 1))
    if status is Status.PREPARING:
        shapes += [standing(status, total=0, held=True), standing(status, held=True, run_at_ms=START_MS + 1)]
    return shapes


def _forget(tx: Tx, job_id: str) -> None:
    tx.connection.execute("DELETE FROM jobs WHERE id = ?", [job_id])


def _moving(mover: Callable[[Tx, JobRow], object], job: JobRow) -> Callable[[Tx], object]:
    return lambda tx: mover(tx, job)


async def test_the_store_makes_every_listed_move_and_no_other(tmp_path: Path, clock: HandClock) -> None:
    made: set[tuple[Status, Status]] = set()
    async with opened_store(tmp_path, clock) as store:
        for name, mover in MOVERS.items():
            for status in Status:
                for shape in variants(status):
                    await stored(store, shape)
                    try:
                        await store.write(_moving(mover, shape))
                    except sqlite3.IntegrityError:
                        pytest.fail(f"{name} of a {status} job breaks a rule of the schema")
                    after = await store.read(partial(jobs.get, job_id=shape.id))
                    assert after is not None
                    if after.status != status:
                        made.add((status, after.status))
                    await store.write(partial(_forget, job_id=shape.id))
    listed = {(source, target) for source, targets in MOVES.items() for target in targets}
    assert made <= listed, f"not listed: {sorted(made - listed)}"
    assert listed == made, f"nobody makes: {sorted(listed - made)}"


async def test_a_claimed_job_is_nobody_elses(tmp_path: Path, clock: HandClock) -> None:
    async with opened_store(tmp_path, clock) as store:
        await stored(store, standing(Status.QUEUED))
        assert await store.write(lambda tx: claims.claim(tx, worker=1, preparing=False)) is not None
        assert await store.write(lambda tx: claims.claim(tx, worker=1, preparing=False)) is None


Verb = Callable[[Service, str], Awaitable[JobView | tuple[JobView, bool]]]
VERBS: dict[str, Verb] = {
    "pause": lambda service, job: service.pause(OWNER, job),
    "resume": lambda service, job: service.resume(OWNER, job),
    "cancel": lambda service, job: service.cancel(OWNER, job),
    "retry": lambda service, job: service.retry(OWNER, job, RetryBody()),
    "undo": lambda service, job: service.undo(OWNER, job, UndoBody()),
    "tune": lambda service, job: service.tune(OWNER, job, KnobsBody(priority=7)),
}
NO = "ILLEGAL_TRANSITION"
#: What each verb answers: the status the job is in afterwards, or that it cannot be.
MATRIX: dict[str, dict[str, str]] = {
    "scheduled": {"pause": NO, "resume": NO, "cancel": "cancelled", "retry": NO, "undo": NO, "tune": "scheduled"},
    "preparing": {"pause": "pausing", "resume": "preparing", "cancel": "cancelling", "retry": NO, "undo": NO,
                  "tune": "preparing"},
    "queued": {"pause": "paused", "resume": "queued", "cancel": "cancelled", "retry": NO, "undo": NO, "tune": "queued"},
    "running": {"pause": "pausing", "resume": "running", "cancel": "cancelling", "retry": NO, "undo": NO,
                "tune": "running"},
    "pausing": {"pause": "pausing", "resume": "running", "cancel": "cancelling", "retry": NO, "undo": NO,
                "tune": "pausing"},
    "paused": {"pause": "paused", "resume": "queued", "cancel": "cancelled", "retry": NO, "undo": NO, "tune": "paused"},
    "cancelling": {"pause": NO, "resume": NO, "cancel": "cancelling", "retry": NO, "undo": NO, "tune": "cancelling"},
    "completed": {"pause": NO, "resume": NO, "cancel": NO, "retry": "preparing", "undo": "preparing", "tune": NO},
    "failed": {"pause": NO, "resume": "queued", "cancel": NO, "retry": "preparing", "undo": "preparing", "tune": NO},
    "cancelled": {"pause": NO, "resume": NO, "cancel": "cancelled", "retry": "preparing", "undo": "preparing",
                  "tune": NO},
}  # fmt: skip


async def test_every_verb_answers_in_every_status_and_again_the_same(
    tmp_path: Path, clock: HandClock
) -> None:
    make_database(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    settings = settings_for(tmp_path, {"receipts": {"table": "t", "id": "id"}})
    async with open_offline(settings, clock=clock) as house:
        for status in Status:
            for verb, act in VERBS.items():
                job = await stored(house.store, ended_badly(status))
                before = await house.service.job(OWNER, job.id)
                answer = await answered(act(house.service, job.id))
                assert answer == MATRIX[status][verb], f"{verb} of a {status} job"
                # What the job says it takes is what it takes; repeating is always allowed, and not listed.
                listed = verb in before.allowed_actions
                assert not listed or answer != NO, f"{verb} of a {status} job is listed"
                if answer != NO:
                    assert await answered(act(house.service, job.id)) == answer, "repeating a verb is fine"


def ended_badly(status: Status) -> JobRow:
    """Make a job of which one item failed and one succeeded, and that can be undone."""
    counted: dict[str, Any] = (
        {"cursor": 2, "succeeded": 1, "failed": 1} if status in TERMINAL | {Status.PAUSED} else {}
    )
    if status is Status.COMPLETED:
        counted |= {"total": 2, "outcome": "partial"}
    held = status in HELD | {Status.PREPARING}
    until = START_MS + DAY_MS if status in TERMINAL else None
    return standing(
        status,
        held=held,
        knobs=Knobs(undo_s=86_400),
        undo_until_ms=until,
        finished_ms=_ended(status),
        **counted,
    )


def _ended(status: Status) -> int | None:
    return START_MS if status in TERMINAL else None


async def answered(call: Awaitable[JobView | tuple[JobView, bool]]) -> str:
    try:
        answer = await call
    except Refusal as refusal:
        told = {"job_status", "allowed_actions"} <= set(refusal.extra)
        return refusal.code if told else "told too little"
    view = answer[0] if isinstance(answer, tuple) else answer
    return str(view.status)


@pytest.mark.parametrize("status", Status)
def test_allowed_actions_are_those_of_the_matrix(status: Status) -> None:
    listed = set(allowed_actions(status, failed=1, can_undo=True))
    possible = {verb for verb, answer in MATRIX[status].items() if answer not in (NO, status)} - {"tune"}
    # Repeating is possible and not offered; the resume of what is not paused changes nothing.
    assert listed == possible
