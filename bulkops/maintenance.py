"""The house's own chores as a resource: what is kept for a time is removed by jobs like all others.

What comes in: the janitor and his chores; what goes out: a `Resource` whose items are the chores and whose one
action does them. A chore leaves its rest for the next time when it is asked to stop, or when others wait for
the worker that it holds; it never undoes anything and never sees an application's data.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

from bulkops.effects import BatchResult, Fence, Id, Image, ItemException, Plan, Todo
from bulkops.errors import invalid_field
from bulkops.janitor import Janitor
from bulkops.models import Caution, Impact
from bulkops.operations import MAINTENANCE
from bulkops.resources.contract import Ahead, Browse, Found, ItemsPage, Query, Tally, Turn
from bulkops.settings import ActionSettings, ResourceSettings

RUN: Final = "run"
#: How long a chore goes on while jobs wait for its worker: as long as any job's slice.
_POLITE_S: Final = 0.1

_log = logging.getLogger("bulkops.maintenance")


class Maintenance:
    """A `Resource`; ``crowded`` says whether jobs wait and every worker has one."""

    name = MAINTENANCE
    kind = MAINTENANCE
    settings = ResourceSettings(kind=MAINTENANCE)
    identity = hashlib.sha256(MAINTENANCE.encode()).hexdigest()
    tenanted = False

    def __init__(self, janitor: Janitor, crowded: Callable[[], bool]) -> None:
        self._janitor = janitor
        self._crowded = crowded

    @property
    def chores(self) -> tuple[str, ...]:
        """The names of the chores, which are the items' ids."""
        return self._janitor.names

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """There is nothing to close."""

    def action_names(self) -> list[str]:
        return [RUN]

    def action_settings(self, action: str) -> ActionSettings:  # noqa: ARG002  there is one
        return ActionSettings(roles=["owner"])

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:  # noqa: ARG002  there is one
        return {}

    def is_final(self, action: str, options: dict[str, Any]) -> bool:  # noqa: ARG002  there is one
        return True

    def columns(self) -> list[dict[str, Any]]:
        return []

    def parse_id(self, wire: str | int) -> Id:
        if not isinstance(wire, str):
            raise ValueError("a chore has a name")  # noqa: TRY004  the contract's word for ids it cannot read
        return wire

    async def freeze_filter(self, filter_: dict[str, Any], now_ms: int) -> dict[str, Any]:  # noqa: ARG002  nothing to filter by
        for column in filter_:
            raise invalid_field(f"/filter/{column}", "chores have no columns; name them, or take all")
        return {}

    async def check(self, query: Query) -> None:
        for option in query.options:
            raise invalid_field(f"/options/{option}", "there is no such option")
        if query.atomic:
            raise invalid_field("/atomic", "what is removed here cannot be taken back")

    async def bound(self) -> str | int | None:
        return None

    async def select(self, query: Query, limit: int) -> list[Found]:
        known = self._janitor.names
        if query.ids is None:
            return [Found(name) for name in known if name not in query.exclude][:limit]
        return [
            Found(name) if name in known else Found(name, "NOT_FOUND", "there is no such chore")
            for name in query.ids
            if name not in query.exclude
        ][:limit]

    async def tally(self, query: Query, deadline_s: float) -> Tally:  # noqa: ARG002  it takes no time
        count = len(await self.select(query, len(self._janitor.names)))
        return Tally(count, count)

    async def manifest(self, query: Query) -> AsyncGenerator[list[Found], None]:
        yield await self.select(query, len(self._janitor.names))

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:  # noqa: ARG002  it is known
        return Impact({}, None, None), []

    async def sample(self, query: Query, limit: int) -> list[dict[str, Any]]:
        return [{"id": each.id} for each in await self.select(query, limit)]

    async def browse(self, browse: Browse) -> ItemsPage:
        if browse.filter or browse.q or browse.sort or browse.deleted:
            raise invalid_field("", "chores have no columns")
        after = browse.after[0] if browse.after else -1
        names = self._janitor.names
        shown = list(enumerate(names))[after + 1 :][: browse.limit]
        items = [
            {"id": name, "label": name, "eligible": True, "code": None, "row": {"id": name}}
            for _, name in shown
        ]
        last = shown[-1][0] if shown else len(names)
        return ItemsPage(items, [last] if last + 1 < len(names) else None, len(names), total_capped=False)

    async def counts(self, tenant: str | None, deadline_s: float) -> dict[str, Any]:  # noqa: ARG002  no wait
        return {"total": len(self._janitor.names), "by_status": {}, "deleted": 0}

    async def batches(self, query: Query, *, undo: bool) -> ChoreBatches:  # noqa: ARG002  it is all final
        return ChoreBatches(self._janitor, self._crowded)

    def auto_hold(self) -> float:
        return 0.0

    def auto_gap(self, hold_s: float) -> float:  # noqa: ARG002  the janitor keeps his own pace
        return 0.0

    async def due(self, names: Sequence[Any]) -> bool:
        """Say whether any of these chores has something to do."""
        known = self._janitor.names
        return await self._janitor.due([name for name in names if name in known])


class ChoreBatches:
    """The batches of one maintenance job; doing a chore twice does no harm, so nothing is announced."""

    def __init__(self, janitor: Janitor, crowded: Callable[[], bool]) -> None:
        self._janitor = janitor
        self._crowded = crowded

    async def begin(self, fence: Fence, turn: Turn) -> Ahead | None:  # noqa: ARG002  nothing is remembered
        return None

    async def plan(
        self,
        todo: Todo,  # noqa: ARG002  it is read when it is done
        kept: dict[int, Image] | None = None,  # noqa: ARG002  there is no undo
        stuck: Sequence[ItemException] = (),  # noqa: ARG002  nor files
    ) -> Plan:
        return Plan(announce=False)

    async def apply(self, plan: Plan, todo: Todo, fence: Fence, turn: Turn) -> BatchResult:  # noqa: ARG002  the contract
        troubles = []
        for position, name in zip(todo.positions, todo.ids, strict=True):
            trouble = await self._do(str(name), turn)
            if trouble is not None:
                troubles.append(ItemException(position, str(name), "failed", "IO_ERROR", trouble))
        return BatchResult(exceptions=troubles)

    async def recover(
        self,
        todo: Todo,
        data: bytes,  # noqa: ARG002  nothing was announced
        fence: Fence,
        turn: Turn,
        kept: dict[int, Image] | None = None,  # noqa: ARG002  there is no undo
    ) -> BatchResult | None:
        return await self.apply(Plan(announce=False), todo, fence, turn)

    async def _do(self, name: str, turn: Turn) -> str | None:
        """Do a chore; return what is wrong with the disk if it is, so that the other chores go on."""
        began_s = time.monotonic()

        def stop() -> bool:
            return turn.stop() or (self._crowded() and time.monotonic() - began_s > _POLITE_S)

        try:
            removed = await self._janitor.do(name, stop)
        except (sqlite3.Error, OSError) as error:
            _log.warning("MAINTENANCE_FAILED chore=%s error=%s", name, error)
            return str(error)
        if removed:
            _log.info("MAINTENANCE chore=%s removed=%d", name, removed)
        return None
