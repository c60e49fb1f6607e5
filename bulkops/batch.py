"""What a host application's own action is given: the items of one batch, and where to say what became of them.

What comes in: items that are still what was selected; what goes out: verdicts on those that did not go well.
An item without a verdict succeeded. Nothing here reads, writes or waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,49}")
_MAX_MESSAGE: Final = 500


class Item(msgspec.Struct, frozen=True, eq=False):
    """One item: its id on the wire, its row as it was read for this batch, and whose it is.

    ``row`` holds all columns of a table's row, and whatever a resource made in Python puts there. Changing it
    changes nothing but itself.
    """

    id: str
    row: dict[str, Any] = {}
    tenant: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What became of an item that did not succeed: ``outcome`` is ``failed`` or ``skipped``."""

    outcome: str
    code: str
    message: str


class Batch:
    """The items of one batch, for a function that acts on them; iterate over it.

    A crash may have it done again, at least once, never less: ``key`` is then the same, so pass it on to
    whoever knows idempotency keys. ``options`` are the job's, as the action declared them.
    """

    def __init__(
        self, *, resource: str, action: str, job_id: str, key: str, options: Any, items: Sequence[Item]
    ) -> None:
        self.resource = resource
        self.action = action
        self.job_id = job_id
        self.key = key
        self.options = options
        self._items = {item.id: item for item in items}
        self._verdicts: dict[str, Verdict] = {}

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Batch {self.key} {self.resource}.{self.action} of {len(self)}>"

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The items that did not succeed so far, by id."""
        return dict(self._verdicts)

    def fail(self, item: Item | str, code: str, message: str = "") -> None:
        """Say that an item failed; said twice of one item, the last word holds.

        ``code`` is of the application's own choosing, such as ``PROVIDER``: capitals, digits, underscores, at
        most 50. ``message`` is shown to people and kept: 500 characters of it, and no secrets.

        Raises:
            ValueError: the code is none, or the item is not of this batch.

        """
        self._judge(item, "failed", code, message)

    def skip(self, item: Item | str, code: str, message: str = "") -> None:
        """Say that an item was left alone on purpose; else as `fail`."""
        self._judge(item, "skipped", code, message)

    def _judge(self, item: Item | str, outcome: str, code: str, message: str) -> None:
        item_id = item if isinstance(item, str) else item.id
        if item_id not in self._items:
            raise ValueError(f"item {item_id!r} is not of this batch")
        if not _CODE.fullmatch(code):
            raise ValueError(f"{code!r} is no code: capitals, digits and underscores, at most 50")
        self._verdicts[item_id] = Verdict(outcome, code, _clean(message))


def _clean(message: str) -> str:
    # What is stored is text for a line: no control characters, nothing that UTF-8 cannot hold.
    text = message.encode("utf-8", "replace").decode()
    return "".join(each if each.isprintable() else " " for each in text)[:_MAX_MESSAGE].strip()
