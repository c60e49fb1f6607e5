"""What stands in front of the suite: a house over some items, and a way to look at them from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bulkops.embedding import Bulkops


class Unsupported(Exception):
    """The subject cannot show this: its author's test skips the check, with this as its reason."""


class Subject(ABC):
    """A resource in front of the suite, with at least seven items, all fit; made afresh for each check.

    ``action`` with ``options`` is to succeed on every item, and to change what `look` says of it.
    """

    resource: str
    action: str
    options: Mapping[str, Any] = {}
    #: Whether the action can be undone.
    reversible: bool = True
    #: An id in the right form that no item has.
    unknown: str = "999999999"

    @abstractmethod
    def house(self) -> Bulkops:
        """Make a house over the items and over the same database of bulkops; a new one at each call."""

    @abstractmethod
    def look(self) -> dict[str, Any]:
        """Say by id what each item is like, from outside; one that is not there (any more) is left out."""

    def add(self) -> str:
        """Add an item as somebody else would, and return its id."""
        raise Unsupported("no item can be added")

    def take_away(self, item: str) -> None:  # noqa: ARG002  for those who can
        """Take an item away as somebody else would."""
        raise Unsupported("no item can be taken away")

    def spoil(self, item: str) -> None:  # noqa: ARG002  for those who can
        """Make the action fail on an item."""
        raise Unsupported("the action cannot be made to fail")


Check = Callable[[Subject], Awaitable[None]]
