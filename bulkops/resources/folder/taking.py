"""Batches that take items away: into the trash, from where an undo brings them back, or for good.

What comes in: ids; what goes out: a plan of which name is which entry and how it is called in the trash, durable
before anything moves, then what became of each. Entries are taken in order, so that after a crash all before the
last one that was touched is finished and nothing behind it is begun. To purge is to move into the trash, in an
instant, and to remove there: what another program puts in the place meanwhile is never touched.
"""

from __future__ import annotations

import errno
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from bulkops.effects import BatchResult, Fence, FileTaken, Image, ItemException, Plan, Todo
from bulkops.errors import Halt, Transient
from bulkops.ids import new_id
from bulkops.resources.contract import Ahead, Turn
from bulkops.resources.folder.entries import UNFIT, odd_of
from bulkops.resources.folder.names import is_ours, name_of, shown
from bulkops.resources.folder.storage import FolderStorage
from bulkops.resources.folder.walking import remove_tree
from bulkops.resources.folder.yard import Yard, opened_yard
from bulkops.resources.paths import Identity, identity_of, is_final, reason_of
from bulkops.resources.verdicts import Entry, Result, Verdict, never
from bulkops.shapes import whole

#: Purging is waiting for the disk: four hands gain a fifth over two, and a third over one.
_HANDS: Final = 4
#: A batch ends here at the next item, so that progress is seen and requests are heard.
_LONG_S: Final = 0.5
_FIRST: Final = 1_000
_LEAST: Final = 16
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Nothing about the one item: the next would meet the same.
_EVERYWHERE: Final = _FULL | {errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}

#: Says which of some ids still match the job's frozen filter.
Matching = Callable[[list[str]], Awaitable[set[str]]]
#: Says which of some paths rows of an application name.
Named = Callable[[Sequence[bytes]], Awaitable[set[bytes]]]


class Target(msgspec.Struct, frozen=True, array_like=True):
    """One item as it was planned: its place in the manifest, its entry, its name in the trash."""

    position: int
    item: str
    trash: str
    identity: tuple[int, int, int, int]
    folder: bool = False

    def entry(self) -> Entry:
        return Entry(name_of(self.item), self.trash.encode(), Identity(*self.identity))


class Announced(msgspec.Struct, frozen=True, array_like=True):
    """What recovery needs to know of a batch."""

    exceptions: list[ItemException]
    targets: list[Target]
    until: int | None = None  # the position it ends before; `None`: it is the whole batch


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(whole(Announced)).decode


class Taking:
    """Batches of ``delete`` and ``purge``; ``final`` ones leave nothing to undo."""

    def __init__(
        self, storage: FolderStorage, *, final: bool, matching: Matching | None, named: Named
    ) -> None:
        self._storage = storage
        self._final = final
        self._matching = matching
        self._named = named
        #: How many items a batch plans at most: about twice what the last one had the time for.
        self._reach = _FIRST

    async def begin(self, _: Fence, __: Turn) -> Ahead | None:
        """Do nothing: what a batch did is found out from the entries themselves."""
        return None

    async def plan(
        self, todo: Todo, _: dict[int, Image] | None = None, __: Sequence[ItemException] = ()
    ) -> Plan:
        """Look at each item, touching nothing.

        Raises:
            Halt: the root cannot be read now, or another folder stands in its place.
        """
        items = [str(item) for item in todo.ids[: self._reach]]
        until = todo.positions[self._reach] if len(todo.ids) > self._reach else None
        positions = todo.positions[: self._reach]
        looked = await anyio.to_thread.run_sync(lambda: _look(self._storage, positions, items))
        exceptions, targets = looked.exceptions, looked.targets
        for judge in (self._unmatched, self._named_by_rows):
            refused = await judge(targets)
            exceptions += refused
            left_out = {each.position for each in refused}
            targets = [each for each in targets if each.position not in left_out]
        announced = Announced(exceptions, targets, until)
        return Plan(
            announce=bool(targets),
            data=_encode(announced) if targets else b"",
            exceptions=exceptions,
            state=announced,
        )

    async def _unmatched(self, targets: list[Target]) -> list[ItemException]:
        if self._matching is None or not targets:
            return []
        still = await self._matching([each.item for each in targets])
        return [
            _exception(each, "skipped", "CONFLICT", "it does not match the selection any more")
            for each in targets
            if each.item not in still
        ]

    async def _named_by_rows(self, targets: list[Target]) -> list[ItemException]:
        if not targets:
            return []
        named = await self._named([name_of(each.item) for each in targets])
        return [
            _exception(each, "failed", "SHARED", "a row names it")
            for each in targets
            if name_of(each.item) in named
        ]

    async def apply(self, plan: Plan, _: Todo, __: Fence, turn: Turn) -> BatchResult:
        """Take the items, one after the other; what the disk refuses for one item fails that one.

        Raises:
            Halt: the disk refuses everything; ``untouched`` when nothing was done.
        """
        announced = plan.state
        assert isinstance(announced, Announced)
        if not announced.targets:
            return BatchResult(exceptions=announced.exceptions, until=announced.until)
        return await self._work(announced, turn, strict=False)

    async def recover(
        self, _: Todo, data: bytes, __: Fence, turn: Turn, ___: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Finish what an announced batch had begun; ``None`` when that is nothing.

        An item that is neither where it was nor in the trash was purged by the batch, or taken by somebody
        else before it was its turn: nobody can tell, and gone it is.

        Raises:
            Halt: the disk refuses everything.
        """
        announced = _decode(data)
        begun = await anyio.to_thread.run_sync(lambda: _begun(self._storage, announced.targets))
        if not begun:
            return None
        rest = announced.targets[begun:]
        until = rest[0].position if rest else announced.until
        early = Announced(_before(announced.exceptions, until), announced.targets[:begun], until)
        return await self._work(early, turn, strict=True)

    async def _work(self, announced: Announced, turn: Turn, *, strict: bool) -> BatchResult:
        shift = _Shift(self._storage, announced.targets, turn, final=self._final, strict=strict)
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for _ in range(_HANDS if self._final else 1):
                group.start_soon(anyio.to_thread.run_sync, shift.work)
        hold_s = time.monotonic() - began
        await anyio.to_thread.run_sync(shift.end)
        self._reach = max(_LEAST, 2 * shift.dealt) if shift.until is not None else 2 * self._reach
        until = announced.until if shift.until is None else shift.until
        return BatchResult(
            exceptions=_before(announced.exceptions, until) + shift.exceptions,
            # Without the sync, which takes as long for few items as for many.
            hold_s=hold_s,
            whole_failed=shift.dealt > 1 and shift.unmoved == shift.dealt,
            images=shift.images,
            files=shift.files,
            until=until,
        )


class _Shift:
    """The work on one batch: hands take the next item until none is left, time is over, or the disk is full."""

    def __init__(
        self, storage: FolderStorage, targets: list[Target], turn: Turn, *, final: bool, strict: bool
    ) -> None:
        self._storage = storage
        self._targets = targets
        self._turn = turn
        self._final = final
        self._strict = strict
        self._lock = threading.Lock()
        self._next = 0
        #: The highest of the targets that were dealt with, and those that the disk did not let us deal with.
        self._last = -1
        self._stuck: dict[int, OSError] = {}
        self._over_at = time.monotonic() + _LONG_S
        self._taken: list[tuple[Target, Result]] = []
        self.exceptions: list[ItemException] = []
        self.images: list[Image] = []
        self.files: list[FileTaken] = []
        self.until: int | None = None

    @property
    def dealt(self) -> int:
        """How many targets were handed out and not given back."""
        return self._last + 1

    @property
    def unmoved(self) -> int:
        """How many targets the disk did not let go."""
        return sum(each.code == "IO_ERROR" for each in self.exceptions)

    def work(self) -> None:
        """Take items in turn with other hands."""
        try:
            with opened_yard(self._storage.area) as yard:
                while (index := self._take_next()) is not None:
                    self._one(yard, index)
        except OSError as error:
            self._stuck[self._next] = error

    def _take_next(self) -> int | None:
        with self._lock:
            if self._next >= len(self._targets) or self._stuck:
                return None
            # What was begun before a crash has to be finished, however long it takes.
            over = time.monotonic() > self._over_at or self._turn.stop()
            if not self._strict and ((over and self._next) or not self._turn.commit_guard()):
                return None
            self._next += 1
            return self._next - 1

    def _one(self, yard: Yard, index: int) -> None:
        target = self._targets[index]
        began = time.monotonic()
        self._turn.log.started(target.item)
        if self._final and target.folder:
            self._turn.log.flush()  # it may take minutes
        try:
            refused = self._purge(yard, target) if self._final else self._trash(yard, target)
        except OSError as error:
            if error.errno in _EVERYWHERE:
                self._stuck[index] = error
                return
            refused = _failed(target, error)
        if refused is not None:
            self.exceptions.append(refused)
        with self._lock:
            self._last = max(self._last, index)
        self._note(target, refused, int((time.monotonic() - began) * 1000))

    def _note(self, target: Target, refused: ItemException | None, ms: int) -> None:
        if refused is None:
            self._turn.log.done(target.item, ms=ms)
        else:
            self._turn.log.failed(target.item, ms=ms, code=refused.code)

    def end(self) -> None:
        """Make it durable, and find where the batch ends: before the first item that nobody dealt with.

        Raises:
            Halt: the disk refuses everything; ``untouched`` when nothing was done.
        """
        self._turn.log.flush()
        if self._stuck and (self._strict or self._last < 0):
            halt = halt_of(next(iter(self._stuck.values())))
            raise halt if self._strict else _untouched(halt)
        if not self._strict and not self._turn.commit_guard():
            self._take_back()
        end = self._next
        for index, error in self._stuck.items():
            if index > self._last:
                end = min(end, index)
            else:  # another hand got further: a batch has no holes
                self.exceptions.append(_failed(self._targets[index], error))
        if end < len(self._targets):
            self.until = self._targets[end].position
        try:
            with opened_yard(self._storage.area) as yard:
                yard.sync()
        except OSError as error:
            raise halt_of(error) from error

    def _take_back(self) -> None:
        try:
            with opened_yard(self._storage.area) as yard:
                for target, _ in reversed(self._taken):
                    yard.give(target.entry())
        except OSError as error:
            raise halt_of(error) from error
        raise _untouched(Halt("NEEDS_REVIEW", "the job was ended by force; what was in hand was put back"))

    def _trash(self, yard: Yard, target: Target) -> ItemException | None:
        result = yard.take(target.entry(), strict=self._strict)
        if result.verdict is not Verdict.TRASHED:
            return _refused(target, result)
        self._taken.append((target, result))
        self._keep(target, result, final=False)
        return None

    def _keep(self, target: Target, result: Result, *, final: bool) -> None:
        found = result.identity
        identity = (found.dev, found.ino, found.size, found.mtime_ns) if found else target.identity
        name = name_of(target.item)
        if not final:
            self.images.append(Image(target.position, target.item, shown(name), listed=True, image=name))
        self.files.append(
            FileTaken(target.position, self._storage.name, name, identity, final=final, trash=target.trash)
        )

    def _purge(self, yard: Yard, target: Target) -> ItemException | None:
        entry = target.entry()
        try:
            result = yard.take(entry, strict=self._strict, copy=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # No rename reaches the trash, and to copy what is to be destroyed would be absurd.
            remove_tree(yard.root, entry.path, stop=never)
            return None
        if result.verdict is not Verdict.TRASHED:
            return self._purged_before(yard, target, result)
        self._taken.append((target, result))
        try:
            if not remove_tree(yard.trash, entry.trash, stop=self._turn.stop):
                self._keep(target, result, final=True)  # gone from sight; the cleaner removes what is left
        except OSError as error:
            return self._give_back(yard, target, result, error)
        return None

    def _purged_before(self, yard: Yard, target: Target, result: Result) -> ItemException | None:
        """Judge an item that is in neither place, while a crashed batch is finished: it was purged by that."""
        found = yard.look(name_of(target.item))
        if self._strict and (found is None or found.st_ino != target.identity[1]):
            return None
        return _refused(target, result)

    def _give_back(self, yard: Yard, target: Target, result: Result, error: OSError) -> ItemException | None:
        """Put what cannot be removed back where it was, so that people see it; else the cleaner keeps trying."""
        found = yard.kept(target.trash.encode())
        now = Entry(name_of(target.item), target.trash.encode(), identity_of(found) if found else None)
        try:
            returned = yard.give(now).verdict is Verdict.RESTORED
        except OSError:
            returned = False
        if not returned:
            self._keep(target, result, final=True)
            return None
        place = f" (at {error.filename})" if error.filename else ""
        shown_place = place.replace(target.trash, target.item, 1)
        return _exception(target, "failed", "IO_ERROR", f"{reason_of(error)}{shown_place}")


def _look(storage: FolderStorage, positions: Sequence[int], items: list[str]) -> Announced:
    exceptions: list[ItemException] = []
    targets: list[Target] = []
    mark = new_id()
    try:
        with opened_yard(storage.area) as yard:
            for position, item in zip(positions, items, strict=True):
                found = _look_at(yard, position, item, f"{mark}.{len(targets)}")
                if isinstance(found, Target):
                    targets.append(found)
                else:
                    exceptions.append(found)
    except OSError as error:
        raise _untouched(halt_of(error)) from error
    return Announced(exceptions, targets)


def _look_at(yard: Yard, position: int, item: str, trash: str) -> Target | ItemException:
    name = name_of(item)
    try:
        found = None if is_ours(name) else yard.look(name)
    except OSError as error:
        return ItemException(position, item, "failed", "IO_ERROR", reason_of(error))
    if found is None:
        return ItemException(position, item, "skipped", "NOT_FOUND", "there is no such item")
    odd = odd_of(found, yard.ground)
    if odd is not None:
        return ItemException(position, item, "skipped", *UNFIT[odd])
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return Target(position, item, trash, identity, stat.S_ISDIR(found.st_mode))


def _begun(storage: FolderStorage, targets: list[Target]) -> int:
    """Return how many of the targets a crashed batch may have begun with, from the first on."""
    try:
        with opened_yard(storage.area) as yard:
            for index in range(len(targets) - 1, -1, -1):
                if yard.was_begun(targets[index].entry()):
                    return index + 1
    except OSError as error:
        raise halt_of(error) from error
    return 0


def _before(exceptions: list[ItemException], until: int | None) -> list[ItemException]:
    return [each for each in exceptions if until is None or each.position < until]


def _exception(target: Target, outcome: str, code: str, message: str) -> ItemException:
    return ItemException(target.position, target.item, outcome, code, message)


def _failed(target: Target, error: OSError) -> ItemException:
    code = "REFUSED_PATH" if is_final(error) else "IO_ERROR"
    return _exception(target, "failed", code, reason_of(error))


def _refused(target: Target, result: Result) -> ItemException:
    if result.verdict is Verdict.MISSING:
        return _exception(target, "skipped", "NOT_FOUND", "it is not there any more")
    if result.verdict is Verdict.SUPERSEDED:
        return _exception(target, "failed", "SUPERSEDED", result.reason)
    code = "IO_ERROR" if result.verdict is Verdict.RETRY else "REFUSED_PATH"
    return _exception(target, "failed", code, result.reason)


def halt_of(error: OSError) -> Halt:
    """Say what an error means that would meet every item alike."""
    if isinstance(error, FileNotFoundError):
        return Transient("IO_ERROR", "the root folder or its trash is not there")
    if error.errno == errno.ESTALE:
        return Halt("TARGET_REPLACED", "another folder stands where the root was")
    return Transient("DISK_FULL" if error.errno in _FULL else "IO_ERROR", reason_of(error))


def _untouched(halt: Halt) -> Halt:
    halt.untouched = True
    return halt
