"""What all jobs on a resource's photos share: its table, its folders, and whose turn it is in each of them."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec

from bulkops.resources.photos.projects import Projects
from bulkops.resources.photos.rows import Mirror
from bulkops.resources.target import Target


class Turns:
    """One at a time in each project; several projects are entered in order, so that nobody waits in a ring."""

    def __init__(self) -> None:
        self._locks: dict[str, anyio.Lock] = {}

    def of(self, projects: Sequence[str]) -> _Taken:
        """Take these projects' turns, as an asynchronous context manager."""
        return _Taken([self._locks.setdefault(name, anyio.Lock()) for name in sorted(set(projects))])


class _Taken:
    def __init__(self, locks: list[anyio.Lock]) -> None:
        self._locks = locks
        self._held: list[anyio.Lock] = []

    async def __aenter__(self) -> None:
        try:
            for lock in self._locks:
                await lock.acquire()
                self._held.append(lock)
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._held:
            self._held.pop().release()


class Ground(msgspec.Struct, frozen=True):
    """What batches of photos stand on: the table, the folders, and whose turn it is in them."""

    mirror: Mirror
    projects: Projects
    target: Target
    turns: Turns
    makers: anyio.CapacityLimiter
