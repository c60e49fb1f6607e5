"""Waiting for a job: a bell for each job that somebody waits for, rung by the commits that change it.

What comes in: the store's commits; what goes out: a wake-up, never a value. Join before the first read,
then no change is missed. Nobody polls, and a job nobody waits for costs one look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bulkops.hub import Bell, Hub
from bulkops.store.transaction import Commit


class JobBells:
    """The bells of all jobs that are waited for; put `ring` into the store's ``on_commit``."""

    def __init__(self) -> None:
        self._hubs: dict[str, Hub] = {}
        self._released = False

    @property
    def released(self) -> bool:
        """Say whether waiting is over for everybody: the process is about to stop."""
        return self._released

    def ring(self, commit: Commit) -> None:
        """Wake those who wait for a job that this commit changed."""
        for job_id in commit.jobs & self._hubs.keys():
            self._hubs[job_id].ring()

    def release(self) -> None:
        """Wake everybody, now and from now on: they shall answer with what they have."""
        self._released = True
        for hub in self._hubs.values():
            hub.ring()

    @contextmanager
    def wait_for_job(self, job_id: str) -> Iterator[Bell]:
        """Hold a bell that rings whenever this job has changed."""
        hub = self._hubs.setdefault(job_id, Hub())
        with hub.join() as bell:
            try:
                yield bell
            finally:
                hub.leave(bell)
                if not hub.statistics().bells:
                    self._hubs.pop(job_id, None)

    def waiting(self) -> int:
        """Return how many jobs are waited for."""
        return len(self._hubs)
