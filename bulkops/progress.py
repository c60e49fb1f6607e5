"""What workers know of the jobs they hold and nobody has to survive: live ids, waits, rates, batch sizes.

Nothing here counts for anything: after a crash it is gone and found out again.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

import msgspec

from bulkops.models import Throttle

_MAX_SHOWN: Final = 100
_FIRST_SIZE: Final = 500
_MIN_SIZE: Final = 20
_MAX_SIZE: Final = 10_000
#: Items that only go into a file change nothing, and each batch of them costs two syncs.
_MAX_WRITTEN: Final = 50_000
#: Images are made in Python and written to our own file: more of them at once hold everybody else up.
_MAX_IMAGES: Final = 1_000
_MEMORY_S: Final = 3.0
_FORGET_S: Final = 20.0


class Live(msgspec.Struct):
    """What is known of one job while it is worked on."""

    ids: list[str] = []
    throttle: Throttle | None = None
    size: int = _FIRST_SIZE
    rate: float | None = None
    rated_at: float | None = None
    announced_at: float = float("-inf")
    changed_at: float = float("-inf")
    tries: int = 0
    #: Set when somebody asked something of the job; `wake` also when others come in line.
    poke: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def adapt(
        self, hold_s: float, items: int, *, wanted_s: float, images: bool, only_written: bool = False
    ) -> None:
        """Size the next batch so that it holds the write lock, or writes into a file, for about ``wanted_s``."""
        if hold_s <= 0 or items < self.size // 2:
            return
        factor = min(2.0, max(0.5, wanted_s / hold_s))
        most = _MAX_IMAGES if images else _MAX_WRITTEN if only_written else _MAX_SIZE
        self.size = int(min(most, max(_MIN_SIZE, self.size * factor)))

    def measure(self, items: int, now: float) -> float | None:
        """Take in how many items were done by now; return the smoothed rate, items a second."""
        passed = None if self.rated_at is None else now - self.rated_at
        if passed is not None and passed > _FORGET_S:
            self.rate = None
        elif passed:
            fresh = items / passed
            weight = 1 - math.exp(-passed / _MEMORY_S)
            self.rate = fresh if self.rate is None else self.rate + weight * (fresh - self.rate)
        self.rated_at = now
        return self.rate


class Progress:
    """The live state of all jobs that workers hold."""

    def __init__(self) -> None:
        self._live: dict[str, Live] = {}

    def of(self, job_id: str) -> Live:
        """Return a job's live state, made on first use."""
        return self._live.setdefault(job_id, Live())

    def forget(self, job_id: str) -> None:
        """Drop a job that ended."""
        self._live.pop(job_id, None)

    def poke(self, job_id: str) -> None:
        """Wake the worker that waits between two batches of a job; without one nothing happens."""
        live = self._live.get(job_id)
        if live is not None:
            live.poke.set()
            live.wake.set()

    def nudge(self) -> None:
        """Wake every worker that waits between two batches, to see whether others need it more."""
        for live in self._live.values():
            live.wake.set()

    def in_progress(self, job_id: str) -> list[str]:
        """Return up to 100 ids of the batch under work."""
        live = self._live.get(job_id)
        return live.ids[:_MAX_SHOWN] if live else []

    def throttle(self, job_id: str) -> Throttle | None:
        """Return why and how long a job waits between batches, ``None`` when it does not."""
        live = self._live.get(job_id)
        return live.throttle if live else None
