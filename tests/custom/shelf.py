"""A resource made in Python that tests can hold in their hands: boxes on a shelf in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from bulkops import Batch, Bulkops, Item, Scope, action
from bulkops.testing import Subject


class Shelf:
    """Boxes by id; ``stuck`` ones cannot be deleted, ``kept`` ones are unfit."""

    columns: ClassVar = {"owner": str, "size": int}
    label = "owner"

    def __init__(self, count: int = 8) -> None:
        self.boxes = {f"b{number}": {"owner": "ana", "size": number} for number in range(1, count + 1)}
        self.stuck: set[str] = set()
        self.kept: set[str] = set()
        self.keys: list[str] = []

    def select(self, scope: Scope) -> Iterator[Item]:
        for box, row in list(self.boxes.items()):
            yield Item(box, dict(row))

    def read(self, ids: Sequence[str]) -> Iterable[Item]:
        return [Item(box, dict(self.boxes[box])) for box in ids if box in self.boxes]

    def unfit(self, item: Item, action: str) -> str | None:
        return f"it is kept from {action}" if item.id in self.kept else None

    @action(batch_size=3)
    def delete(self, batch: Batch) -> None:
        self.keys.append(batch.key)
        for item in batch:
            if item.id in self.stuck:
                batch.fail(item, "STUCK")
            else:
                self.boxes.pop(item.id, None)

    @delete.undo
    def put_back(self, batch: Batch) -> None:
        for item in batch:
            self.boxes[item.id] = dict(item.row)

    @action(options={"to": {"type": "integer", "minimum": 0, "default": 0}})
    async def resize(self, batch: Batch) -> None:
        for item in batch:
            self.boxes[item.id]["size"] = batch.options["to"]

    @resize.undo
    async def size_back(self, batch: Batch) -> None:
        for item in batch:
            self.boxes[item.id]["size"] = item.row["size"]

    @action(roles=["admin"])
    def weigh(self, batch: Batch) -> None:
        """Look only: final, for there is nothing to undo."""


class ShelfSubject(Subject):
    """A shelf in front of the contract suite."""

    resource = "boxes"
    action = "delete"
    unknown = "nothing"

    def __init__(self, folder: Any, make: Callable[[], Shelf] = Shelf) -> None:
        self._folder = folder
        self.shelf = make()

    def house(self) -> Bulkops:
        bulk = Bulkops({"server": {"workers": 2}}, base=self._folder)
        bulk.resource("boxes", self.shelf)
        return bulk

    def look(self) -> dict[str, Any]:
        return {box: dict(row) for box, row in self.shelf.boxes.items()}

    def add(self) -> str:
        self.shelf.boxes["late"] = {"owner": "ana", "size": 0}
        return "late"

    def take_away(self, item: str) -> None:
        del self.shelf.boxes[item]

    def spoil(self, item: str) -> None:
        self.shelf.stuck.add(item)
