"""A lane: one at a time, who asks for little first, and nobody is passed over for long.

What comes in: who wants a turn, and for how many items; what goes out: the turn. A lane is in memory only and
belongs to one event loop; a waiter who is cancelled gives up the place, or the turn that just came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

#: Up to here a batch holds everybody else up for no more than a commit.
_FEW: Final = 100
_PATIENCE_S: Final = 0.25


class _Waiter(msgspec.Struct, eq=False):
    items: int
    since: float
    turn: asyncio.Future[None]


class Lane:
    """Hands out turns."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def turn(self, items: int) -> AsyncIterator[None]:
        """Have the lane while the block runs."""
        await self._enter(items)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, items: int) -> None:
        if not self._taken:
            self._taken = True
            return
        waiter = _Waiter(items, time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if not waiter.turn.cancelled():  # it came in the same moment
                self._leave()
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def _leave(self) -> None:
        if not self._waiting:
            self._taken = False
            return
        chosen = min(self._waiting, key=self._rank)
        self._waiting.remove(chosen)
        if chosen.turn.done():  # cancelled, and not yet told
            self._leave()
        else:
            chosen.turn.set_result(None)

    @staticmethod
    def _rank(waiter: _Waiter) -> tuple[int, float]:
        if time.monotonic() - waiter.since >= _PATIENCE_S:
            return 0, waiter.since
        return 1 if waiter.items <= _FEW else 2, waiter.since
