"""Calling the host application's own functions, batch by batch, whatever stands behind the items.

What comes in: functions that take a `Batch`, and a `Source` that knows the items; what goes out: an outcome
for every item. What a function does is not in any transaction of ours: a batch is announced before it
begins, and after a crash the very same batch is done again, under the same key: at least once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
import msgspec

from bulkops.batch import Batch, Item
from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import ConfigError, Halt, Refusal, Transient, invalid_field
from bulkops.models import Caution, Impact
from bulkops.resources.contract import Ahead, Query, Turn
from bulkops.resources.host_options import Options
from bulkops.resources.table.bound import CONFLICT, conflict, without
from bulkops.resources.table.reading import announce, announced
from bulkops.settings import ActionSettings
from bulkops.timing import back_off_s

_LOOK_S: Final = 0.2
_BASE_S: Final = 0.25
_CAP_S: Final = 10.0
#: Threads one action may hold, those of functions that overran their time included.
_THREADS: Final = 16
_log = logging.getLogger("bulkops.hosted")

Function = Callable[[Batch], Awaitable[None] | None]


class HostAction(msgspec.Struct, frozen=True, kw_only=True):
    """One action as the host declared it; ``undo`` makes it reversible."""

    name: str
    function: Function
    undo: Function | None
    options: Options
    settings: ActionSettings
    timeout_s: float | None
    retries: int
    threads: anyio.CapacityLimiter


def declare(
    where: str,
    name: str,
    function: Function,
    *,
    undo: Function | None,
    options: Options,
    settings: ActionSettings,
    timeout_s: float | None,
    retries: int,
    taken: Collection[str] = (),
) -> HostAction:
    """Check what the host declares; ``taken`` are names of the resource's own actions.

    Raises:
        ConfigError: the name is taken, a function cannot take a batch, a number is out of bounds.

    """
    if name in taken:
        raise ConfigError(where, f"{name!r} is one of the built-in actions: {', '.join(sorted(taken))}")
    for each in (function, undo):
        if each is not None:
            _check_function(where, each)
    if timeout_s is not None and not 0 < timeout_s <= 86_400:
        raise ConfigError(where, f"timeout_s: {timeout_s} is not within 0 and 86400")
    if not 0 <= retries <= 20:
        raise ConfigError(where, f"retries: {retries} is not within 0 and 20")
    return HostAction(
        name=name, function=function, undo=undo, options=options, settings=settings, timeout_s=timeout_s,
        retries=retries, threads=anyio.CapacityLimiter(_THREADS),
    )  # fmt: skip


def check_call(action: HostAction, query: Query) -> None:
    """Refuse options that an action does not take, and what nobody could roll back.

    Raises:
        Refusal: 422 naming the field.
    """
    action.options.read(query.options)
    if query.atomic:
        raise invalid_field("/atomic", "an action of the application cannot be rolled back")


def impact_of(action: HostAction) -> tuple[Impact, list[Caution]]:
    """Say what is known of the effects of an action: what the host's code does, only the host knows."""
    final = [Caution("FINAL", "this cannot be undone")] if action.undo is None else []
    return Impact({}, None, None), final


def _check_function(where: str, function: Function) -> None:
    if not callable(function):
        raise ConfigError(where, f"{function!r} is no function")
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(where, f"{name} is a generator; a function that takes a batch is needed")
    try:
        inspect.signature(function).bind(object())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            where, f"{name} must take one argument, the batch: {name}(batch: Batch) -> None ({error})"
        ) from error


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether a function is awaited; any other runs in a thread."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  whose signature is asked, not whether there is one
    )


def lay_over(code: ActionSettings, file: ActionSettings) -> ActionSettings:
    """Lay what a file sets over what code sets; a file cannot say again what is the default anyway."""
    plain = ActionSettings()
    changed = {
        name: getattr(file, name)
        for name in ActionSettings.__struct_fields__
        if getattr(file, name) != getattr(plain, name)
    }
    return msgspec.structs.replace(code, **changed)


class Source(Protocol):
    """Whose items a function is called with."""

    name: str

    async def items(
        self, query: Query, todo: Todo, *, undo: bool, kept: Mapping[int, Image]
    ) -> dict[int, Item]:
        """Read the items that may be acted on now, by position; for an undo ``kept`` are their images.

        Raises:
            Halt: they cannot be read now.
        """
        ...

    def images(self, action: HostAction, items: Mapping[int, Item]) -> list[Image]:
        """Keep the items as they are, for an undo to come; none where the undo needs none."""
        ...


class _Trouble(msgspec.Struct, frozen=True):
    """Why a batch failed as a whole, and whether trying again may help."""

    code: str
    message: str
    again: bool


def batches_of(
    source: Source, action: HostAction, query: Query, *, undo: bool, changed: str = CONFLICT
) -> HostBatches:
    """Build the batches of a job.

    Raises:
        Halt: (``CONFIG_CHANGED``) there is no undo any more, or the job's options are no options by now.
    """
    function = action.undo if undo else action.function
    if function is None:
        raise Halt("CONFIG_CHANGED", f"{source.name} has no undo of {query.action!r} any more")
    try:
        options = action.options.read(query.options)
    except Refusal as error:
        raise Halt("CONFIG_CHANGED", f"the options of {query.action!r} are others by now") from error
    return HostBatches(source, action, function, query, options, undo=undo, changed=changed)


class HostBatches:
    """Batches of one action of the host's; the runner plans, announces, applies and accounts for them."""

    def __init__(
        self,
        source: Source,
        action: HostAction,
        function: Function,
        query: Query,
        options: Any,
        *,
        undo: bool,
        changed: str = CONFLICT,
    ) -> None:
        """Call ``function``; an item that is not fit any more is skipped, with ``changed`` as its message."""
        self._source = source
        self._action = action
        self._function = function
        self._query = query
        self._options = options
        self._undo = undo
        self._changed = changed
        self._kept: Mapping[int, Image] = {}

    async def begin(self, _fence: Fence, _turn: Turn) -> Ahead | None:
        """Make nothing ready: there is no ledger of what a function does."""
        return None

    async def plan(
        self, todo: Todo, kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Read the items that are handed over, and who is not; announced, so that a batch stays one batch.

        Raises:
            Halt: the items cannot be read.

        """
        self._kept = kept or {}
        items = await self._items(todo)
        left_out = [
            conflict(position, item, self._changed)
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position not in items
        ]
        exceptions = [*stuck, *left_out]
        return Plan(
            announce=bool(items), data=announce(exceptions), exceptions=exceptions, state=items,
            images=[] if self._undo else self._source.images(self._action, items),
        )  # fmt: skip

    async def _items(self, todo: Todo) -> dict[int, Item]:
        if not todo.ids:
            return {}
        return await self._source.items(self._query, todo, undo=self._undo, kept=self._kept)

    async def apply(self, plan: Plan, todo: Todo, fence: Fence, turn: Turn) -> BatchResult:
        """Hand the batch to the function, again while it raises, and take its verdicts.

        Raises:
            Halt: the house closes, or the job was ended by force; the batch may be half done.

        """
        items = plan.state
        assert isinstance(items, dict)
        return await self._hand_over(items, todo, plan.exceptions, fence, turn)

    async def recover(
        self, todo: Todo, data: bytes, fence: Fence, turn: Turn, kept: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Do an announced batch again: nobody but the function knows how far it came.

        Items that were handed over and are no longer fit were done by it (or, in that window only, changed
        by somebody else: promised no finer, as for tables without a ledger).

        Raises:
            Halt: as `apply`.

        """
        self._kept = kept or {}
        known = announced(data)
        rest = without(todo, {each.position for each in known})
        return await self._hand_over(await self._items(rest), rest, known, fence, turn)

    async def _hand_over(
        self, items: dict[int, Item], todo: Todo, known: list[ItemException], fence: Fence, turn: Turn
    ) -> BatchResult:
        if not items:
            return BatchResult(exceptions=known)
        result: BatchResult | None = None
        halt: Halt | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(_watch, turn, group.cancel_scope)
            try:
                result = await self._tries(items, todo, fence)
            except Halt as error:
                # Through the group it would come out inside an ExceptionGroup, which the runner does not know.
                halt = error
            group.cancel_scope.cancel()
        if result is None:
            raise halt or _left(turn)
        return msgspec.structs.replace(result, exceptions=known + result.exceptions)

    async def _tries(self, items: dict[int, Item], todo: Todo, fence: Fence) -> BatchResult:
        began = time.monotonic()
        handed = items
        number = 0
        while True:
            batch = self._batch(handed, fence)
            trouble = await self._call(batch)
            if trouble is None:
                return BatchResult(exceptions=_exceptions(handed, batch), hold_s=time.monotonic() - began)
            number += 1
            if not trouble.again or number > self._action.retries:
                return BatchResult(exceptions=_all_failed(items, trouble), whole_failed=True)
            await anyio.sleep(back_off_s(number, base_s=_BASE_S, cap_s=_CAP_S))
            # Read again: what the try before has done already is not fit any more, and not asked for twice.
            handed = await self._items(without(todo, set(todo.positions) - set(items)))
            if not handed:
                return BatchResult()

    def _batch(self, items: dict[int, Item], fence: Fence) -> Batch:
        return Batch(
            resource=self._source.name, action=self._action.name, job_id=fence.job,
            key=f"{fence.job}-{fence.batch}", options=self._options, items=list(items.values()),
        )  # fmt: skip

    async def _call(self, batch: Batch) -> _Trouble | None:
        with anyio.move_on_after(self._action.timeout_s):
            try:
                await self._invoke(batch)
            except (Exception, SystemExit) as error:  # noqa: BLE001  the host's code may raise anything
                self._note(batch, error)
                return _Trouble("ACTION_ERROR", f"the action raised {type(error).__name__}", again=True)
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                # Something inside was cancelled, this task was not: an error like any other.
                self._note(batch, error)
                return _Trouble("ACTION_ERROR", "the action raised CancelledError", again=True)
            return None
        _log.warning("ACTION_TIMEOUT key=%s", batch.key, extra={"job": batch.job_id})
        # Never again at once: a function in a thread goes on behind our back.
        return _Trouble("TIMEOUT", f"the action took longer than {self._action.timeout_s:g} s", again=False)

    async def _invoke(self, batch: Batch) -> None:
        if is_async(self._function):
            answer = self._function(batch)
            assert answer is not None
            await answer
            return
        returned = await anyio.to_thread.run_sync(
            self._function, batch, abandon_on_cancel=True, limiter=self._action.threads
        )
        if inspect.iscoroutine(returned):
            returned.close()
            raise TypeError("a plain function returned a coroutine; declare it with async def")

    def _note(self, batch: Batch, error: BaseException) -> None:
        _log.error("ACTION_ERROR key=%s action=%s", batch.key, self._action.name, exc_info=error,
                   extra={"job": batch.job_id})  # fmt: skip


async def _watch(turn: Turn, scope: anyio.CancelScope) -> None:
    """Cancel a function that is still at work when there is no more time for it."""
    while (patience_s := turn.patience()) is None:  # noqa: ASYNC110  two flags of the house, no event
        await anyio.sleep(_LOOK_S)
    await anyio.sleep(patience_s)
    scope.cancel()


def _left(turn: Turn) -> Halt:
    if turn.patience() == 0:
        return Halt("USER", "the job was ended by force")
    return Transient("IO_ERROR", "the application closes; the batch is done again at its next start")


def is_cancelled() -> bool:
    """Say whether the running task itself is cancelled, not something inside it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _exceptions(items: dict[int, Item], batch: Batch) -> list[ItemException]:
    verdicts = batch.verdicts
    return [
        ItemException(position, item.id, verdict.outcome, verdict.code, verdict.message)
        for position, item in items.items()
        if (verdict := verdicts.get(item.id)) is not None
    ]


def _all_failed(items: dict[int, Item], trouble: _Trouble) -> list[ItemException]:
    return [
        ItemException(position, item.id, "failed", trouble.code, trouble.message)
        for position, item in items.items()
    ]
