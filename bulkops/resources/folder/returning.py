"""Batches that undo: what the deletion queue moved back is told from what could not return.

The entries themselves come back out of the trash before a batch, by way of the queue's storage, as the files of
rows do; here nothing moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread

from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import Transient
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.folder.names import name_of
from bulkops.resources.folder.storage import FolderStorage
from bulkops.resources.folder.yard import opened_yard
from bulkops.resources.paths import reason_of


class Returning:
    """Batches of an undo."""

    def __init__(self, storage: FolderStorage) -> None:
        self._storage = storage

    async def begin(self, _: Fence, __: Turn) -> Ahead | None:
        """Do nothing: there is nothing to be ahead of."""
        return None

    async def plan(
        self, todo: Todo, kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Look at what came back; ``kept`` are images of items that were in the trash, ``stuck`` are still.

        Raises:
            Transient: the root cannot be read now.
        """
        images = kept or {}
        items = dict(zip(todo.positions, map(str, todo.ids), strict=True))
        there = await anyio.to_thread.run_sync(lambda: self._standing(list(items.values())))
        lost = [
            ItemException(position, item, "skipped", "CONFLICT", "it is not in the trash any more")
            for position, item in items.items()
            if position not in images or item not in there
        ]
        return Plan(announce=False, exceptions=[*stuck, *lost])

    def _standing(self, items: list[str]) -> set[str]:
        try:
            with opened_yard(self._storage.area) as yard:
                return {item for item in items if yard.look(name_of(item)) is not None}
        except OSError as error:
            raise Transient("IO_ERROR", reason_of(error)) from error

    async def apply(self, plan: Plan, _: Todo, __: Fence, ___: Turn) -> BatchResult:
        """Report what planning found."""
        return BatchResult(exceptions=plan.exceptions)

    async def recover(
        self, _: Todo, __: bytes, ___: Fence, ____: Turn, _____: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Say that nothing happened: these batches do nothing that could be half done."""
        return None
