"""A running house, asked as its owner would: started over a subject's items, and left in order.

What comes in: a `Subject`; what goes out: views of its jobs, once they are as far as was asked for. Waiting has a
deadline and says what it waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import msgspec

from bulkops.models import Caller, ItemsQuery, JobView, StartBody, UndoBody, ValidateBody
from bulkops.runtime import Runtime
from bulkops.shapes import whole
from bulkops.testing.subject import Subject

WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.005
OWNER: Final = Caller(user="contract", roles=frozenset({"owner"}))


class Bench:
    """A running house, asked as its owner."""

    def __init__(self, subject: Subject, runtime: Runtime) -> None:
        self._subject = subject
        self.runtime = runtime
        self._confirm: str | None = None

    async def _body(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._confirm is None:
            info = await self.runtime.service.info(OWNER, self._subject.resource)
            mine = [each for each in info["actions"] if each["name"] == self._subject.action]
            assert mine, f"there is no action {self._subject.action}"
            self._confirm = mine[0]["confirm"] or ""
        return {"options": dict(self._subject.options), "confirm": self._confirm or None} | body

    async def preview(self, **body: Any) -> Any:
        wanted = {"action": self._subject.action, **await self._body(body)}
        return await self.runtime.service.validate(
            OWNER, self._subject.resource, msgspec.convert(wanted, whole(ValidateBody))
        )

    async def start(self, **body: Any) -> JobView:
        start = msgspec.convert(await self._body(body), whole(StartBody))
        return await self.runtime.service.start(OWNER, self._subject.resource, self._subject.action, start)

    async def run(self, **body: Any) -> JobView:
        return await self.rested((await self.start(**body)).id)

    async def until(self, job_id: str, holds: Callable[[JobView], bool]) -> JobView:
        view = await self.runtime.service.job(OWNER, job_id)
        with anyio.move_on_after(WITHIN_S):
            while not holds(view):
                await anyio.sleep(_LOOK_S)
                view = await self.runtime.service.job(OWNER, job_id)
        reason = view.error or view.status_reason or view.last_error
        assert holds(view), f"after {WITHIN_S:g} s the job is {view.status}, {view.processed} done: {reason}"
        return view

    async def rested(self, job_id: str) -> JobView:
        return await self.until(job_id, lambda view: view.terminal or view.status == "paused")

    async def resumed(self, job_id: str) -> JobView:
        await self.runtime.service.resume(OWNER, job_id)
        return await self.rested(job_id)

    async def undone(self, job_id: str, *, ids: list[str] | None = None) -> JobView:
        body = UndoBody(ids=None if ids is None else list(ids))
        view, _ = await self.runtime.service.undo(OWNER, job_id, body)
        return await self.rested(view.id)

    async def listed(self) -> list[str]:
        found: list[str] = []
        page: str | None = None
        while True:
            query = ItemsQuery(limit=3, page=page)
            answer = await self.runtime.service.items(OWNER, self._subject.resource, query)
            found += [str(each["id"]) for each in answer["items"]]
            page = answer["next"]
            if page is None:
                return found

    async def outcomes(self, job_id: str) -> dict[str, tuple[str, str | None]]:
        found: dict[str, tuple[str, str | None]] = {}
        page: str | None = None
        while True:
            answer = await self.runtime.service.job_items(OWNER, job_id, outcome=None, limit=1000, page=page)
            for each in answer["items"]:
                found[each.id] = (str(each.outcome), each.code)
            page = answer["next"]
            if page is None:
                return found

    async def report_text(self, job_id: str, format_: str, outcome: str | None = None) -> str:
        chunks = await self.runtime.service.report(OWNER, job_id, format=format_, outcome=outcome)
        return b"".join([chunk async for chunk in chunks]).decode()

    async def report(self, job_id: str, outcome: str | None = None) -> list[dict[str, Any]]:
        text = await self.report_text(job_id, "ndjson", outcome)
        return [msgspec.json.decode(line) for line in text.splitlines()]


@asynccontextmanager
async def opened(subject: Subject) -> AsyncIterator[Bench]:
    bulk = subject.house()
    try:
        async with bulk.lifespan():
            yield Bench(subject, bulk.runtime)
    except BaseExceptionGroup as group:
        # A task group stands around the block; what failed in it is what its reader wants to see.
        if len(group.exceptions) == 1 and isinstance(group.exceptions[0], Exception):
            raise group.exceptions[0] from None
        raise
