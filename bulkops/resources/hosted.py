"""Actions of the host application's own on a table: its functions, called batch by batch.

What comes in: functions that take a `Batch`, and jobs whose items were frozen; what goes out: an outcome for
every item. Only rows that are still the tenant's, still match the frozen filter and are neither protected
nor busy are handed over. What a function does outside is not in any transaction of ours: a batch is announced
before it begins, and after a crash the very same batch is done again, under the same key: at least once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from bulkops.batch import Batch, Item
from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import ConfigError, Halt, Refusal, Transient, invalid_field
from bulkops.ids import wire_id
from bulkops.models import Caution, Impact
from bulkops.resources.contract import Ahead, Batches, Query, Turn
from bulkops.resources.host_options import Options
from bulkops.resources.storage import LocalStorage
from bulkops.resources.table.actions import NAMES, Act
from bulkops.resources.table.bound import conflict, without
from bulkops.resources.table.filters import Condition, both
from bulkops.resources.table.images import tolerant_text
from bulkops.resources.table.keys import hashable
from bulkops.resources.table.reading import announce, announced
from bulkops.resources.table.resource import TableResource
from bulkops.resources.table.selecting import Selector
from bulkops.resources.target import DeadlineError, Target
from bulkops.settings import ActionSettings, ResourceSettings
from bulkops.timing import back_off_s

#: Names that are, or will be, the engine's own, on whatever table.
BUILT_IN: Final = frozenset({*NAMES, "export", "remove"})
_LOOK_S: Final = 0.2
_BASE_S: Final = 0.25
_CAP_S: Final = 10.0
_DEADLINE_S: Final = 10.0
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
) -> HostAction:
    """Check what the host declares.

    Raises:
        ConfigError: the name is taken, a function cannot take a batch, a number is out of bounds.

    """
    if name in BUILT_IN:
        raise ConfigError(where, f"{name!r} is one of the built-in actions: {', '.join(sorted(BUILT_IN))}")
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


def is_async(function: Function) -> bool:
    """Say whether a function is awaited; any other runs in a thread."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  whose signature is asked, not whether there is one
    )


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
        return declared if hosted is None else _over(hosted.settings, declared)

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:
        hosted = self._hosted.get(action)
        return super().option_schemas(action) if hosted is None else hosted.options.schemas()

    def is_final(self, action: str, options: dict[str, Any]) -> bool:
        hosted = self._hosted.get(action)
        return super().is_final(action, options) if hosted is None else hosted.undo is None

    async def check(self, query: Query) -> None:
        hosted = self._hosted.get(query.action)
        if hosted is not None:
            hosted.options.read(query.options)
            if query.atomic:
                raise invalid_field("/atomic", "an action of the application cannot be rolled back")
        await super().check(query)

    async def act(self, query: Query) -> Act:
        if query.action in self._hosted:
            return self.actions.guarded(query.action)
        return await super().act(query)

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:
        hosted = self._hosted.get(query.action)
        if hosted is None:
            return await super().impact(query, deadline_s)
        # What the host's code does, only the host knows.
        final = [Caution("FINAL", "this cannot be undone")] if hosted.undo is None else []
        return Impact({}, None, None), final

    async def batches(self, query: Query, *, undo: bool) -> Batches:
        hosted = self._hosted.get(query.action)
        if hosted is None:
            return await super().batches(query, undo=undo)
        function = hosted.undo if undo else hosted.function
        if function is None:
            raise Halt("CONFIG_CHANGED", f"{self.name} has no undo of {query.action!r} any more")
        try:
            options = hosted.options.read(query.options)
        except Refusal as error:
            raise Halt("CONFIG_CHANGED", f"the options of {query.action!r} are others by now") from error
        return HostBatches(self, hosted, function, query, options, undo=undo)

    async def items(self, query: Query, todo: Todo, *, undo: bool) -> dict[int, Item]:
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
                lambda connection: self._placed(todo, _fetch(connection, sql, selector.params)),
                deadline_s=_DEADLINE_S,
            )
        except DeadlineError as error:
            raise Transient("TARGET_LOCKED", "reading the batch's rows took too long") from error

    def _placed(self, todo: Todo, rows: list[tuple[list[str], tuple[Any, ...]]]) -> dict[int, Item]:
        """Build the items; in the reader's thread, because thousands of them would hold the loop up."""
        places = {hashable(item): position for position, item in zip(todo.positions, todo.ids, strict=True)}
        found: dict[int, Item] = {}
        width = len(self.key.names)
        for names, row in rows:
            item = self.key.native(row)
            position = places.get(hashable(item))
            if position is not None:
                held = dict(zip(names[width:], row[width:], strict=True))
                found[position] = Item(wire_id(item), held, self._tenant_of(held))
        return dict(sorted(found.items()))

    def _all(self, query: Query) -> Selector:
        act = Act(name=query.action, final=True)
        scope = both(self.tenant_condition(query.tenant), Condition("1", {}))
        return Selector(self.table, self.key, act, scope, query)

    def _tenant_of(self, row: dict[str, Any]) -> str | None:
        held = None if self.settings.tenant is None else row.get(self.settings.tenant)
        return None if held is None else str(held)


def _fetch(
    connection: sqlite3.Connection, sql: str, params: dict[str, Any]
) -> list[tuple[list[str], tuple[Any, ...]]]:
    connection.text_factory = tolerant_text
    try:
        cursor = connection.execute(sql, params)
        names = [column[0] for column in cursor.description]
        return [(names, row) for row in cursor.fetchall()]
    finally:
        connection.text_factory = str


def _over(code: ActionSettings, file: ActionSettings) -> ActionSettings:
    """Lay what a file sets over what code sets; a file cannot say again what is the default anyway."""
    plain = ActionSettings()
    changed = {
        name: getattr(file, name)
        for name in ActionSettings.__struct_fields__
        if getattr(file, name) != getattr(plain, name)
    }
    return msgspec.structs.replace(code, **changed)


class _Trouble(msgspec.Struct, frozen=True):
    """Why a batch failed as a whole, and whether trying again may help."""

    code: str
    message: str
    again: bool


class HostBatches:
    """Batches of one action of the host's; the runner plans, announces, applies and accounts for them."""

    def __init__(
        self,
        table: HostedTable,
        action: HostAction,
        function: Function,
        query: Query,
        options: Any,
        *,
        undo: bool,
    ) -> None:
        self._table = table
        self._action = action
        self._function = function
        self._query = query
        self._options = options
        self._undo = undo

    async def begin(self, _fence: Fence, _turn: Turn) -> Ahead | None:
        """Make nothing ready: there is no ledger of what a function does."""
        return None

    async def plan(
        self, todo: Todo, _kept: dict[int, Image] | None = None, stuck: Sequence[ItemException] = ()
    ) -> Plan:
        """Read the rows that are handed over, and who is not; announced, so that a batch stays one batch.

        Raises:
            Halt: the target cannot be read.

        """
        items = await self._items(todo)
        left_out = [
            conflict(position, item)
            for position, item in zip(todo.positions, todo.ids, strict=True)
            if position not in items
        ]
        exceptions = [*stuck, *left_out]
        return Plan(announce=bool(items), data=announce(exceptions), exceptions=exceptions, state=items)

    async def _items(self, todo: Todo) -> dict[int, Item]:
        return await self._table.items(self._query, todo, undo=self._undo) if todo.ids else {}

    async def apply(self, plan: Plan, todo: Todo, fence: Fence, turn: Turn) -> BatchResult:
        """Hand the batch to the function, again while it raises, and take its verdicts.

        Raises:
            Halt: the house closes, or the job was ended by force; the batch may be half done.

        """
        items = plan.state
        assert isinstance(items, dict)
        return await self._hand_over(items, todo, plan.exceptions, fence, turn)

    async def recover(
        self, todo: Todo, data: bytes, fence: Fence, turn: Turn, _kept: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Do an announced batch again: nobody but the function knows how far it came.

        Items that were handed over and are no longer fit were done by it (or, in that window only, changed
        by somebody else: promised no finer, as for tables without a ledger).

        Raises:
            Halt: as `apply`.

        """
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
            resource=self._table.name, action=self._action.name, job_id=fence.job,
            key=f"{fence.job}-{fence.batch}", options=self._options, items=list(items.values()),
        )  # fmt: skip

    async def _call(self, batch: Batch) -> _Trouble | None:
        with anyio.move_on_after(self._action.timeout_s):
            try:
                await self._invoke(batch)
            except Exception as error:  # noqa: BLE001  the host's code may raise anything
                self._note(batch, error)
                return _Trouble("ACTION_ERROR", f"the action raised {type(error).__name__}", again=True)
            except asyncio.CancelledError as error:
                if _is_cancelled():
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


def _is_cancelled() -> bool:
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
