"""The protocol's client half, and nothing else: what a client knows, and whether a frame may follow.

Frames of any face go in; what was applied since the state was fetched stays. It never asks anybody anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from bulkops.store.events import Cursor


class Gap(AssertionError):
    """The client saw a frame whose `prev` it does not know."""


class ClientRule:
    """One subscription as its client holds it: a cursor, and the kinds applied by seq."""

    def __init__(self) -> None:
        self.mine: Cursor | None = None
        self.base = 0
        self.applied: dict[int, str] = {}

    def fetched(self, cursor: Cursor) -> None:
        """Take the state as of ``cursor``, as REST or a reset tells it."""
        self.mine, self.base, self.applied = cursor, cursor.seq, {}

    def take(self, prev: Cursor, cursor: Cursor, items: Iterable[tuple[int, str]]) -> None:
        """Apply a frame.

        Raises:
            Gap: something is missing before it.
            AssertionError: the frame contradicts itself, or would apply something twice.
        """
        assert self.mine is not None
        if cursor.epoch != self.mine.epoch or prev.seq > self.mine.seq:
            raise Gap(f"{prev}..{cursor} after {self.mine}")
        assert prev.seq <= cursor.seq
        for seq, kind in items:
            assert prev.seq < seq <= cursor.seq
            if seq > self.mine.seq:
                assert seq not in self.applied
                assert seq > max(self.applied, default=0)
                self.applied[seq] = kind
        self.mine = Cursor(self.mine.epoch, max(self.mine.seq, cursor.seq))
