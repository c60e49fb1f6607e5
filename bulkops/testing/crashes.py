"""Houses that die in the middle of a batch: nothing more is written, and another one is opened on what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from bulkops.testing.bench import WITHIN_S, Bench, opened
from bulkops.testing.subject import Subject

#: Where a process may die, seen from a batch: read but not announced, announced but not done, done but not
#: accounted for, accounted for and on to the next.
POINTS: Final = ("planned", "announced", "applied", "accounted")


class _Crash(BaseException):
    """The process ends here; what is raised through everything writes nothing on its way."""


@asynccontextmanager
async def crashing(subject: Subject, point: str) -> AsyncIterator[Bench]:
    """Run a house that dies at a point of the second batch from here on; the block waits for that."""
    crashed = False
    try:
        async with opened(subject) as bench:
            _weaken(bench.runtime.house.resources[subject.resource], point)
            with anyio.move_on_after(WITHIN_S):
                yield bench
    except BaseException as error:
        if not _is_crash(error):
            raise
        crashed = True
    assert crashed, f"the batch never came to the point {point!r}"


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_crash(each) for each in error.exceptions)
    return isinstance(error, _Crash)


def _weaken(resource: Any, point: str) -> None:
    made = resource.batches

    async def batches(*args: Any, **kwargs: Any) -> Any:
        found = await made(*args, **kwargs)
        frail = _Frail(found, point)
        for name in ("plan", "apply"):
            setattr(found, name, getattr(frail, name))
        return found

    name = "batches"
    setattr(resource, name, batches)


class _Frail:
    """Stands before the methods of a job's batches; the second batch does not come past its point."""

    def __init__(self, batches: Any, point: str) -> None:
        self._plan = batches.plan
        self._apply = batches.apply
        self._point = point
        self._number = 0

    def _pass(self, point: str) -> None:
        if point == self._point and self._number >= 2:
            raise _Crash

    async def plan(self, *args: Any, **kwargs: Any) -> Any:
        self._pass("accounted")
        self._number += 1
        plan = await self._plan(*args, **kwargs)
        self._pass("planned")
        return plan

    async def apply(self, *args: Any, **kwargs: Any) -> Any:
        self._pass("announced")
        result = await self._apply(*args, **kwargs)
        self._pass("applied")
        return result
