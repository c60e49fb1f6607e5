"""Batches that remove the rows of photos which have no file left: a table's own, with a look at the folders first."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bulkops.effects import Image, ItemException, Plan, Todo
from bulkops.resources.photos.deciding import Deciding
from bulkops.resources.photos.ground import Ground
from bulkops.resources.table.batches import TableBatches
from bulkops.resources.table.bound import Bound, without
from bulkops.resources.table.reading import announce_also


class CleaningBatches(TableBatches):
    """Deletes rows as tables do, with everything that goes along, but only where the disk agrees."""

    def __init__(self, bound: Bound, ground: Ground, deciding: Deciding) -> None:
        super().__init__(bound)
        self._ground = ground
        self._deciding = deciding

    async def plan(
        self, todo: Todo, kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Leave out photos that have files, then read what the batch will take.

        Raises:
            Halt: the table or the disk cannot be read now.
        """
        decided = await self._deciding.decide(todo.positions, todo.ids)
        unfit = decided.exceptions
        plan = await super().plan(without(todo, {each.position for each in unfit}), kept, stuck)
        exceptions = [*unfit, *plan.exceptions]
        return msgspec.structs.replace(plan, exceptions=exceptions, data=announce_also(plan.data, unfit))
