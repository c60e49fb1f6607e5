"""Actions of the host application's own on a table: its functions, called batch by batch.

What comes in: functions that take a `Batch`, and jobs whose items were frozen; what goes out: the rows they
are called with. Only rows that are still the tenant's, still match the frozen filter and are neither protected
nor busy are handed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bulkops.batch import Item
from bulkops.effects import Image, Todo
from bulkops.errors import Transient
from bulkops.ids import wire_id
from bulkops.models import Caution, Impact
from bulkops.resources.calling import HostAction, batches_of, check_call, impact_of, lay_over
from bulkops.resources.contract import Batches, Query
from bulkops.resources.storage import LocalStorage
from bulkops.resources.table.actions import NAMES, Act
from bulkops.resources.table.filters import Condition, both
from bulkops.resources.table.images import fetch_named
from bulkops.resources.table.keys import hashable
from bulkops.resources.table.resource import TableResource
from bulkops.resources.table.selecting import Selector
from bulkops.resources.target import DeadlineError, Target
from bulkops.settings import ActionSettings, ResourceSettings

#: Names that are, or will be, the engine's own, on whatever table.
BUILT_IN: Final = frozenset({*NAMES, "export", "remove"})
_DEADLINE_S: Final = 10.0


class HostedTable(TableResource):
    """A table with actions of the host's beside its own."""

    def __init__(
        self,
        name: str,
        settings: ResourceSettings,
        target: Target,
        storages: dict[str, LocalStorage],
        actions: Mapping[str, HostAction],
    ) -> None:
        super().__init__(name, settings, target, storages)
        self._hosted = dict(actions)

    def action_names(self) -> list[str]:
        return [*super().action_names(), *self._hosted]

    def action_settings(self, action: str) -> ActionSettings:
        """Return what the code says of the action, and over it what the file says."""
        declared = super().action_settings(action)
        hosted = self._hosted.get(action)
        return declared if hosted is None else lay_over(hosted.settings, declared)

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:
        hosted = self._hosted.get(action)
        return super().option_schemas(action) if hosted is None else hosted.options.schemas()

    def is_final(self, action: str, options: dict[str, Any]) -> bool:
        hosted = self._hosted.get(action)
        return super().is_final(action, options) if hosted is None else hosted.undo is None

    async def check(self, query: Query) -> None:
        hosted = self._hosted.get(query.action)
        if hosted is not None:
            check_call(hosted, query)
        await super().check(query)

    async def act(self, query: Query) -> Act:
        if query.action in self._hosted:
            return self.actions.guarded(query.action)
        return await super().act(query)

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:
        hosted = self._hosted.get(query.action)
        if hosted is None:
            return await super().impact(query, deadline_s)
        return impact_of(hosted)

    async def batches(self, query: Query, *, undo: bool) -> Batches:
        hosted = self._hosted.get(query.action)
        if hosted is None:
            return await super().batches(query, undo=undo)
        return batches_of(self, hosted, query, undo=undo)

    def images(self, action: HostAction, items: Mapping[int, Item]) -> list[Image]:  # noqa: ARG002  a Source's
        """Keep nothing: whoever undoes has the rows."""
        return []

    async def items(
        self,
        query: Query,
        todo: Todo,
        *,
        undo: bool,
        kept: Mapping[int, Image] | None = None,  # noqa: ARG002  for things that are no rows
    ) -> dict[int, Item]:
        """Read the rows that may be acted on now, by position.

        An undo asks no more than that they are there and still the tenant's.

        Raises:
            Halt: the target cannot be read now.

        """
        asked = msgspec.structs.replace(query, ids=todo.ids, bound=None, exclude=[])
        selector = self._all(asked) if undo else await self.selector(asked)
        sql = f"{selector.rows_sql(f'{self.key.select}, t.*')} ORDER BY {self.key.order}"
        try:
            return await self.target.read(
                lambda connection: self._placed(todo, *fetch_named(connection, sql, selector.params)),
                deadline_s=_DEADLINE_S,
            )
        except DeadlineError as error:
            raise Transient("TARGET_LOCKED", "reading the batch's rows took too long") from error

    def _placed(self, todo: Todo, names: list[str], rows: list[tuple[Any, ...]]) -> dict[int, Item]:
        """Build the items; in the reader's thread, because thousands of them would hold the loop up."""
        places = {hashable(item): position for position, item in zip(todo.positions, todo.ids, strict=True)}
        found: dict[int, Item] = {}
        native, tenant_of = self.key.native, self._tenant_of
        width = len(self.key.names)
        columns = names[width:]
        for row in rows:
            item = native(row)
            position = places.get(hashable(item))
            if position is not None:
                held = dict(zip(columns, row[width:], strict=True))
                found[position] = Item(wire_id(item), held, tenant_of(held))
        return dict(sorted(found.items()))

    def _all(self, query: Query) -> Selector:
        act = Act(name=query.action, final=True)
        scope = both(self.tenant_condition(query.tenant), Condition("1", {}))
        return Selector(self.table, self.key, act, scope, query)

    def _tenant_of(self, row: dict[str, Any]) -> str | None:
        held = None if self.settings.tenant is None else row.get(self.settings.tenant)
        return None if held is None else str(held)
