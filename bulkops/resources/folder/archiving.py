"""Batches that archive: items are read into the job's zip, and stay where they are.

A folder goes in with all it holds: empty folders, symbolic links as links, modes and times. An item that cannot
be read whole, or is written to meanwhile, is cut out of the file again and fails alone.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Final

import anyio.to_thread

from bulkops import handles
from bulkops.effects import BatchResult, CutShort, Fence, Image, ItemException, Plan, Todo
from bulkops.errors import Halt
from bulkops.resources.contract import Ahead, Pen, Turn
from bulkops.resources.folder import zipping
from bulkops.resources.folder.entries import UNFIT, kind_of, odd_of
from bulkops.resources.folder.names import is_ours, name_of
from bulkops.resources.folder.storage import FolderStorage
from bulkops.resources.folder.taking import Matching, halt_of
from bulkops.resources.folder.walking import measure_tree, visit
from bulkops.resources.folder.yard import Yard, opened_yard
from bulkops.resources.folder.zipping import Directory, Piece
from bulkops.resources.paths import Identity, identity_of, reason_of
from bulkops.resources.verdicts import Stop, never

#: A batch ends behind the item with which it reads this much: progress is seen, requests are heard.
_BATCH_BYTES: Final = 32 << 20
_WEIGH_S: Final = 0.5
_BLOCK: Final = 1 << 20
_MISTAKABLE: Final = re.compile(rb"\\|%5C|%25")


class ChangedError(Exception):
    """A file was written to while it was read."""


class StoppedError(Exception):
    """The job was asked to stop in the midst of an item."""


class Archiving:
    """Batches of ``archive``."""

    def __init__(self, storage: FolderStorage, *, matching: Matching | None) -> None:
        self._storage = storage
        self._matching = matching
        self._stop: Stop = never

    async def begin(self, _: Fence, __: Turn) -> Ahead | None:
        """Do nothing: how far the file is, is known to whoever holds it."""
        return None

    async def plan(
        self, todo: Todo, _: dict[int, Image] | None = None, __: Sequence[ItemException] = ()
    ) -> Plan:
        """Look at the items; as many are taken as a batch can read in a moment.

        Raises:
            Halt: the root cannot be read now, or another folder stands in its place.
        """
        items = [str(item) for item in todo.ids]
        still = set(items) if self._matching is None else await self._matching(items)
        found = await anyio.to_thread.run_sync(lambda: self._look(todo.positions, items, still))
        return Plan(announce=False, exceptions=found.exceptions, state=found)

    def _look(self, positions: Sequence[int], items: list[str], still: set[str]) -> BatchResult:
        exceptions: list[ItemException] = []
        weight, until = 0, time.monotonic() + _WEIGH_S
        try:
            with opened_yard(self._storage.area) as yard:
                for position, item in zip(positions, items, strict=True):
                    if weight >= _BATCH_BYTES or time.monotonic() > until:
                        return BatchResult(exceptions=exceptions, until=position)
                    unfit = _unfit(yard, item, matches=item in still)
                    if unfit is not None:
                        exceptions.append(ItemException(position, item, "skipped", *unfit))
                    else:
                        weight += _weight(yard, name_of(item), until)
        except OSError as error:
            raise halt_of(error) from error
        return BatchResult(exceptions=exceptions)

    async def apply(self, plan: Plan, _: Todo, __: Fence, turn: Turn) -> BatchResult:
        """Report what planning found; what is fit is written afterwards, until the turn says stop."""
        self._stop = turn.stop
        assert isinstance(plan.state, BatchResult)
        return plan.state

    async def recover(
        self, _: Todo, __: bytes, ___: Fence, ____: Turn, _____: dict[int, Image] | None = None
    ) -> BatchResult | None:
        """Say that nothing happened: what a crashed batch wrote was cut off."""
        return None

    async def write(self, pen: Pen, todo: Todo) -> list[ItemException]:
        """Append items to the zip; return those that could not be read whole.

        Raises:
            CutShort: the job was asked to stop; an item that was begun is not in the zip.
        """
        items = [str(item) for item in todo.ids]
        return await anyio.to_thread.run_sync(lambda: self._write(pen, todo.positions, items))

    def _write(self, pen: Pen, positions: Sequence[int], items: list[str]) -> list[ItemException]:
        directory = _directory(pen)
        failed: list[ItemException] = []
        try:
            with opened_yard(self._storage.area) as yard:
                for position, item in zip(positions, items, strict=True):
                    refused = _write_item(pen, directory, yard, position, item, self._stop)
                    if refused is not None:
                        failed.append(refused)
        except StoppedError:
            raise CutShort(position, failed) from None
        except OSError as error:
            raise halt_of(error) from error
        return failed

    async def close(self, pen: Pen) -> None:
        """Append the zip's directory."""
        await anyio.to_thread.run_sync(lambda: zipping.close(pen.file, _directory(pen)))


def _directory(pen: Pen) -> Directory:
    """Return the zip's directory so far; read back when the file was opened anew."""
    end = pen.position()
    if not isinstance(pen.memory, Directory) or pen.memory.end != end:
        try:
            pen.memory = zipping.read_back(pen.file)
        except ValueError as error:
            raise Halt("NEEDS_REVIEW", f"the archive that was begun cannot be continued: {error}") from error
    return pen.memory


def _unfit(yard: Yard, item: str, *, matches: bool) -> tuple[str, str] | None:
    name = name_of(item)
    found = None if is_ours(name) else yard.look(name)
    if found is None:
        return "NOT_FOUND", "there is no such item"
    odd = odd_of(found, yard.ground)
    if odd is not None:
        return UNFIT[odd]
    return None if matches else ("CONFLICT", "it does not match the selection any more")


def _weight(yard: Yard, name: bytes, until: float) -> int:
    found = yard.look(name)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return found.st_size if found else 0
    try:
        measured = measure_tree(yard.root, name, until=until)
    except OSError:
        return 0
    return measured[1] if measured else _BATCH_BYTES


def _write_item(
    pen: Pen, directory: Directory, yard: Yard, position: int, item: str, stop: Stop
) -> ItemException | None:
    at, rows, mark = pen.position(), pen.rows, directory.mark()
    try:
        pen.rows += _append(pen, directory, yard, name_of(item), stop)
        return None
    except StoppedError:
        pen.cut(at, rows)
        directory.cut(mark)
        raise
    except ChangedError as error:
        refused = ItemException(position, item, "failed", "SUPERSEDED", str(error))
    except ValueError as error:
        refused = ItemException(position, item, "failed", "IO_ERROR", str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        refused = ItemException(position, item, "failed", "IO_ERROR", reason_of(error))
    pen.cut(at, rows)
    directory.cut(mark)
    return refused


def _append(pen: Pen, directory: Directory, yard: Yard, name: bytes, stop: Stop) -> int:
    """Append an item; return how many entries that were."""
    found = os.stat(name, dir_fd=yard.root, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        _add_one(pen, directory, yard.root, name, name, stop)
        return 1
    count = 0
    for place, files, _ in visit(yard.root, name):
        look = os.fstat(place.folder)
        zipping.add(pen.file, directory, _piece(place.path(), look), ())
        count += 1
        for each in files:
            _add_one(pen, directory, place.folder, each, place.path(each), stop)
            count += 1
    return count


def _add_one(pen: Pen, directory: Directory, folder: int, name: bytes, path: bytes, stop: Stop) -> None:
    if stop():
        raise StoppedError
    look = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(look.st_mode):
        target = os.readlink(name, dir_fd=folder)
        zipping.add(pen.file, directory, _piece(path, look), (target,))
        return
    if not stat.S_ISREG(look.st_mode):
        raise OSError(errno.EINVAL, f"{os.fsdecode(path)!r} is a {kind_of(look)}")
    reader = os.open(name, handles.READ, dir_fd=folder)
    try:
        mine = identity_of(look)
        zipping.add(pen.file, directory, _piece(path, look), _blocks(reader, mine, path, stop))
    finally:
        os.close(reader)


def _blocks(reader: int, mine: Identity, path: bytes, stop: Stop) -> Iterator[bytes]:
    if identity_of(os.fstat(reader)) == mine:
        left = mine.size
        # One that grows as fast as it is read would never end.
        while left >= 0 and (block := os.read(reader, _BLOCK)):
            left -= len(block)
            yield block
            if stop():
                raise StoppedError
        if identity_of(os.fstat(reader)) == mine:
            return
    raise ChangedError(f"{path.decode('utf-8', 'replace')!r} was written to while it was read")


def _written(path: bytes) -> bytes:
    """Write a path so that nobody who unpacks it takes a name for a path: Windows ends a folder at a backslash.

    It stands as ``%5C``; in names that could be mistaken for one written like that, so does ``%`` as ``%25``. Two
    names are never written alike.
    """
    return b"/".join(
        part.replace(b"%", b"%25").replace(b"\\", b"%5C") if _MISTAKABLE.search(part) else part
        for part in path.split(b"/")
    )


def _piece(path: bytes, look: os.stat_result) -> Piece:
    return Piece(_written(path), look.st_mode, look.st_mtime_ns // 1_000_000_000)
