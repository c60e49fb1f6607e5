"""The doorbell: whoever waits for news joins, a commit rings, everybody looks for themselves.

It carries no payload, so there is no queue that could overflow: any number of rings before a look are
one ring. Join **before** the first read; then whatever is committed after that read is heard. It lives on
the event loop and must never be rung from another thread.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import msgspec


class HubStatistics(msgspec.Struct, frozen=True):
    """How many listen, and how often it rang."""

    bells: int
    rings: int


class Bell:
    """One listener's end of the hub; a context manager that leaves the hub at its end."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._rung = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.leave(self)

    def ring(self) -> None:
        """Wake this listener alone."""
        self._rung.set()

    async def wait(self, *, max_s: float | None = None) -> bool:
        """Wait for a ring since the last wait; return ``False`` when ``max_s`` passed without one."""
        if not self._rung.is_set():
            try:
                async with asyncio.timeout(max_s):
                    await self._rung.wait()
            except TimeoutError:
                return False
        self._rung.clear()
        return True


class Hub:
    """All bells of the process's one event log."""

    def __init__(self) -> None:
        self._bells: set[Bell] = set()
        self._rings = 0

    def join(self) -> Bell:
        """Return a bell that hears every ring from now on."""
        bell = Bell(self)
        self._bells.add(bell)
        return bell

    def leave(self, bell: Bell) -> None:
        """Stop listening; leaving twice is fine."""
        self._bells.discard(bell)

    def ring(self) -> None:
        """Wake everybody who joined; nobody is fine. Call it on the event loop."""
        self._rings += 1
        for bell in self._bells:
            bell.ring()

    def statistics(self) -> HubStatistics:
        """Return how many listen and how often it rang."""
        return HubStatistics(len(self._bells), self._rings)
