"""What the author of a resource in Python writes with: `action` marks a method, `Scope` says what is asked for.

What comes in: the author's methods; what goes out: marks that are read when the class is built. Nothing here
is checked yet, imports an engine, or acts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypedDict, TypeVar, Unpack, overload

import msgspec

F = TypeVar("F", bound=Callable[..., Any])

#: Items of one call, unless the action says otherwise.
BATCH_SIZE: Final = 20


class Scope(msgspec.Struct, frozen=True):
    """What a selection is about: of one tenant (``None``: of all), and within a filter as on the wire.

    A `select` may narrow by it what it fetches; what does not belong or match is left out anyway.
    """

    tenant: str | None = None
    filter: dict[str, Any] = {}


class ActionWishes(TypedDict, total=False):
    """Settings an action may be declared with, as in ``[resources.<name>.actions.<action>]``."""

    batch_size: int
    throttle_ms: int
    roles: Sequence[str]
    confirm: str
    rate: str
    exclusive: bool
    max_items: int
    max_runtime_s: float
    max_batch_failures: int
    auto_resume_s: float


class DeclaredAction(Generic[F]):
    """A method that is an action; called on an instance it is the method it was."""

    def __init__(
        self,
        function: F,
        *,
        name: str | None,
        options: Mapping[str, Any] | type[msgspec.Struct] | None,
        timeout_s: float | None,
        retries: int,
        wishes: ActionWishes,
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        self.options = options
        self.timeout_s = timeout_s
        self.retries = retries
        self.wishes = wishes
        self.reverse: Callable[..., Any] | None = None
        self.__doc__ = function.__doc__

    def undo(self, function: F) -> F:
        """Make the decorated method the undo of this action; without one the action is final."""
        self.reverse = function
        return function

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the method, bound as any other."""
        return self if instance is None else self.function.__get__(instance, owner)


@overload
def action(function: F, /) -> DeclaredAction[F]: ...


@overload
def action(
    *,
    name: str | None = None,
    options: Mapping[str, Any] | type[msgspec.Struct] | None = None,
    timeout_s: float | None = None,
    retries: int = 2,
    **wishes: Unpack[ActionWishes],
) -> Callable[[F], DeclaredAction[F]]: ...


def action(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    options: Mapping[str, Any] | type[msgspec.Struct] | None = None,
    timeout_s: float | None = None,
    retries: int = 2,
    **wishes: Unpack[ActionWishes],
) -> DeclaredAction[F] | Callable[[F], DeclaredAction[F]]:
    """Make a method an action of its resource; it takes a `Batch`, async or in a thread.

    All is as with `Bulkops.action`: a batch comes at least once, after a crash again under the same
    ``batch.key``; a method that raises is called again ``retries`` times, then the batch's items failed with
    ``ACTION_ERROR``; after ``timeout_s`` they failed with ``TIMEOUT``. The action bears the method's name unless
    ``name`` says otherwise. A method under ``@<action>.undo`` makes it reversible: it is called with the items as
    they were before, whose rows were kept.
    """

    def declare(method: F) -> DeclaredAction[F]:
        return DeclaredAction(
            method, name=name, options=options, timeout_s=timeout_s, retries=retries, wishes=wishes
        )

    return declare if function is None else declare(function)
