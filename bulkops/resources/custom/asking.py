"""Asking the author's code for items: async or not, a list or one by one, and however it ends.

What comes in: a method and its argument; what goes out: checked items in pieces, or a `Halt` that says which
method did not answer. What it raises is logged and never quoted: it may hold what nobody else is to see.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from itertools import islice
from typing import Any, Final, Self, TypeVar

import anyio
import msgspec

from bulkops.batch import Item
from bulkops.errors import Halt, Transient
from bulkops.resources.calling import is_async, is_cancelled
from bulkops.resources.target import DeadlineError

T = TypeVar("T")

PIECE: Final = 1_000
#: How long a method may take for one piece.
PATIENCE_S: Final = 60.0
_log = logging.getLogger("bulkops.custom")


class OwnThread:
    """A thread for one walk: generators, connections and mirrors stay in the one they were made in.

    It ends with the block; one that hangs in somebody's code is left behind and ends with the process.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bulkops custom", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def leave(self, last: Callable[[], None]) -> None:
        """Have something done in the thread once it is free; nobody waits for it."""
        self._work.put(last)

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread; raises what it raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(value: T) -> None:
            if not done.done():
                done.set_result(value)

        def fail(error: Exception) -> None:
            if not done.done():
                done.set_exception(error)

        def act() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                try:
                    value = work()
                except StopIteration:
                    loop.call_soon_threadsafe(fail, RuntimeError("the method raised StopIteration"))
                except SystemExit:
                    loop.call_soon_threadsafe(fail, RuntimeError("the method raised SystemExit"))
                except Exception as error:  # noqa: BLE001  it is raised where it is waited for
                    loop.call_soon_threadsafe(fail, error)
                else:
                    loop.call_soon_threadsafe(settle, value)

        self._work.put(act)
        return await done


class Asker:
    """Asks one resource's methods."""

    def __init__(self, name: str, own: Callable[[Any], Item]) -> None:
        """Take the resource's name, and what makes a checked item of whatever the methods give."""
        self._name = name
        self._own = own

    async def pieces(
        self,
        thread: OwnThread,
        method: Callable[..., Any],
        *arguments: Any,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[list[Item], None]:
        """Walk what a method gives, in lists.

        Raises:
            Halt: it raised, took too long, or gave something that is no item.
            DeadlineError: the deadline for the whole walk is over.
        """
        until = None if deadline_s is None else time.monotonic() + deadline_s
        what = getattr(method, "__name__", "a method")
        source = await self.guarded(what, lambda: _begin(thread, method, *arguments), until)
        async with aclosing(source):
            while found := await self.guarded(what, source.take, until):
                yield [self._checked(what, each) for each in found]

    def _checked(self, what: str, found: Any) -> Item:
        try:
            return self._own(found)
        except (TypeError, ValueError) as error:
            raise Halt("IO_ERROR", f"{what} of {self._name} gave no proper item: {error}") from error

    async def guarded(self, what: str, ask: Callable[[], Awaitable[T]], until: float | None = None) -> T:
        """Wait for an answer of the author's code, for as long as patience and deadline allow.

        Raises:
            Halt: it raised or took too long.
            DeadlineError: the deadline is over.
        """
        left_s = PATIENCE_S if until is None else min(PATIENCE_S, max(0.0, until - time.monotonic()))
        with anyio.move_on_after(left_s):
            try:
                return await ask()
            except Halt:
                raise
            except (Exception, SystemExit) as error:
                # Of a task, SystemExit would end the whole loop; somebody's client may well say it.
                raise self._trouble(what, error) from error
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                raise self._trouble(what, error) from error
        if left_s < PATIENCE_S:
            raise DeadlineError
        raise Transient("IO_ERROR", f"{what} of {self._name} took longer than {PATIENCE_S:g} s")

    def _trouble(self, what: str, error: BaseException) -> Transient:
        _log.error("RESOURCE_ERROR resource=%s method=%s", self._name, what, exc_info=error)
        return Transient("IO_ERROR", f"{what} of {self._name} raised {type(error).__name__}")


async def call(thread: OwnThread, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method, awaiting an async one and running any other in the thread."""
    if is_async(method):
        return await method(*arguments)
    if inspect.isasyncgenfunction(method):
        return method(*arguments)
    found = await thread.run(lambda: method(*arguments))
    if inspect.iscoroutine(found):
        found.close()
        raise TypeError("a plain method returned a coroutine; declare it with async def")
    return found


class _AsyncSource:
    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    async def take(self) -> list[Any]:
        found: list[Any] = []
        while len(found) < PIECE:
            try:
                found.append(await anext(self._items))
            except StopAsyncIteration:
                break
        return found

    async def aclose(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is not None:
            with suppress(Exception):
                await close()


class _Source:
    def __init__(self, thread: OwnThread, items: Iterator[Any]) -> None:
        self._thread = thread
        self._items = items

    async def take(self) -> list[Any]:
        return await self._thread.run(lambda: list(islice(self._items, PIECE)))

    async def aclose(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            # Not waited for: it may hang in there. What it raises concerns nobody any more.
            self._thread.leave(lambda: _close_quietly(close))


def _close_quietly(close: Callable[[], None]) -> None:
    with suppress(Exception):
        close()


async def _begin(thread: OwnThread, method: Callable[..., Any], *arguments: Any) -> _AsyncSource | _Source:
    found = await call(thread, method, *arguments)
    if hasattr(found, "__aiter__"):
        return _AsyncSource(aiter(found))
    if isinstance(found, str | bytes | msgspec.Struct) or not hasattr(found, "__iter__"):
        raise TypeError(f"{type(found).__name__} is not iterable; items are needed")
    return _Source(thread, await thread.run(lambda: iter(found)))
