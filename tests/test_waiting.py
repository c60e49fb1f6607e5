"""Waiting for a job: rung by its own commits only, nothing missed, nothing left behind."""

from __future__ import annotations

from bulkops.service.waiting import JobBells
from bulkops.store.transaction import Commit


def rung(*jobs: str) -> Commit:
    return Commit(head=None, jobs=frozenset(jobs), line=False, deletions=False)


async def test_a_bell_hears_its_own_job_and_no_other() -> None:
    bells = JobBells()
    with bells.wait_for_job("a") as bell:
        bells.ring(rung("b"))
        assert not await bell.wait(max_s=0.001)
        bells.ring(rung("a", "b"))
        assert await bell.wait(max_s=5)


async def test_a_ring_before_the_wait_is_heard() -> None:
    bells = JobBells()
    with bells.wait_for_job("a") as bell:
        bells.ring(rung("a"))
        bells.ring(rung("a"))
        assert await bell.wait(max_s=5)
        assert not await bell.wait(max_s=0.001)


def test_jobs_nobody_waits_for_any_more_are_forgotten() -> None:
    bells = JobBells()
    with bells.wait_for_job("a"):
        with bells.wait_for_job("a"), bells.wait_for_job("b"):
            assert bells.waiting() == 2
        assert bells.waiting() == 1
    assert bells.waiting() == 0


async def test_at_the_end_everybody_is_woken() -> None:
    bells = JobBells()
    with bells.wait_for_job("a") as bell:
        bells.release()
        assert await bell.wait(max_s=5)
    assert bells.released
