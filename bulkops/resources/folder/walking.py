"""Ways through a tree that cost one descriptor however deep it is, and never lead out of it.

What comes in: an open folder and the name of something in it; what goes out: what it holds, or nothing at all,
when it was removed. Each folder is opened relative to the one before, through no symbolic link and across no
mount point; on the way back `..` is believed only if it is the folder we came from. Nothing recurses, no path
is ever put together for the kernel, and a folder's entries are streamed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from bulkops import handles
from bulkops.resources.paths import FileKey
from bulkops.resources.verdicts import Stop

_OPENAT2: Final = 437
#: Across no mount, through no symbolic link of any sort, never above the folder.
_RESOLVE: Final = 0x01 | 0x02 | 0x04 | 0x08
#: No such call, a sandbox that forbids it, or flags that it does not know.
_UNKNOWN: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL})
#: Somebody keeps putting files into a folder that is being removed.
_MAX_PASSES: Final = 16


class _How(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_below(folder: int, name: bytes) -> int:
    """Open a folder in a folder.

    Raises:
        OSError: it is not there, no folder (ENOTDIR, ELOOP), or a mount point (EXDEV).
    """
    call = _openat2()
    if call is not None:
        return call(folder, name)
    descriptor = os.open(name, handles.FOLDER, dir_fd=folder)
    if os.fstat(descriptor).st_dev != os.fstat(folder).st_dev:
        os.close(descriptor)
        raise OSError(errno.EXDEV, "something else is mounted there")
    return descriptor


@cache
def _openat2() -> Callable[[int, bytes], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    how = _How(handles.FOLDER, 0, _RESOLVE)
    size = ctypes.sizeof(how)

    def call(folder: int, name: bytes) -> int:
        while True:
            found: int = function(
                ctypes.c_long(_OPENAT2), ctypes.c_int(folder), name, ctypes.byref(how), ctypes.c_size_t(size)
            )
            if found >= 0:
                return found
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.EINTR):  # a rename elsewhere, a signal: asked again
                raise OSError(code, os.strerror(code))

    here = os.open("/", handles.FOLDER)
    try:
        os.close(call(here, b"."))
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    finally:
        os.close(here)
    return call


class Descent:
    """A place in a tree: one descriptor, and how we came here."""

    def __init__(self, parent: int, name: bytes) -> None:
        """Enter the folder ``name`` in ``parent``; the caller keeps ``parent`` open."""
        self._parent = parent
        self._names: list[bytes] = []
        self._keys: list[FileKey] = []
        self.folder = os.dup(parent)
        try:
            self.enter(name)
        except BaseException:
            self.close()
            raise

    @property
    def depth(self) -> int:
        """How many folders were entered and not left."""
        return len(self._names)

    def path(self, name: bytes = b"") -> bytes:
        """Name a place for people and archives, relative to where the descent began."""
        return b"/".join([*self._names, *([name] if name else [])])

    def enter(self, name: bytes) -> None:
        """Go down into a folder."""
        deeper = open_below(self.folder, name)
        os.close(self.folder)
        self.folder = deeper
        found = os.fstat(deeper)
        self._names.append(name)
        self._keys.append((found.st_dev, found.st_ino))

    def leave(self) -> bytes:
        """Go back up; return the name of the folder that was left.

        Raises:
            OSError: (ESTALE) the folder was moved elsewhere meanwhile.
        """
        if self.depth == 1:
            above = os.dup(self._parent)
        else:
            above = os.open(b"..", handles.FOLDER, dir_fd=self.folder)
            found = os.fstat(above)
            if (found.st_dev, found.st_ino) != self._keys[-2]:
                os.close(above)
                raise OSError(errno.ESTALE, "a folder was moved away while it was walked")
        os.close(self.folder)
        self.folder = above
        self._keys.pop()
        return self._names.pop()

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.folder)


def entries(folder: int) -> Iterator[tuple[bytes, bool]]:
    """Stream the names in an open folder, each with whether it is a folder itself."""
    with os.scandir(folder) as found:
        for each in found:
            yield os.fsencode(each.name), each.is_dir(follow_symlinks=False)


class Gone(Exception):
    """The walk was told to stop."""


def remove_tree(parent: int, name: bytes, *, stop: Stop) -> bool:
    """Remove whatever has this name; ``False`` when ``stop`` came first, and a part is left.

    Raises:
        OSError: something in it cannot be removed; ``filename`` is where, from ``name`` on.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return True
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    try:
        _remove_folder(parent, name, stop)
    except Gone:
        return False
    return True


class _Level:
    """A folder on the way: the folders in it still to be removed, and how often it was swept."""

    def __init__(self, folders: list[bytes]) -> None:
        self.folders = folders
        self.passes = 1


def _remove_folder(parent: int, name: bytes, stop: Stop) -> None:
    place = Descent(parent, name)
    try:
        levels = [_Level(_sweep(place, stop))]
        while levels:
            level = levels[-1]
            if level.folders:
                if _go_down(place, level.folders.pop()):
                    levels.append(_Level(_sweep(place, stop)))
            elif _removed(place, level):
                levels.pop()
            else:
                level.folders = _sweep(place, stop)
    finally:
        place.close()


def _go_down(place: Descent, name: bytes) -> bool:
    try:
        place.enter(name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _located(error, place, name) from None
    return True


def _removed(place: Descent, level: _Level) -> bool:
    """Leave a folder and remove it; ``False``, and in it again, when there is something in it after all."""
    name = place.leave()
    try:
        os.rmdir(name, dir_fd=place.folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or level.passes >= _MAX_PASSES:
            raise _located(error, place, name) from None
        # Something was put into it since, or the file system left names out.
        level.passes += 1
        place.enter(name)
        return False
    return True


def _sweep(place: Descent, stop: Stop) -> list[bytes]:
    """Unlink all that is no folder; return the folders."""
    folders: list[bytes] = []
    for name, is_folder in entries(place.folder):
        if stop():
            raise Gone
        if is_folder:
            folders.append(name)
            continue
        try:
            os.unlink(name, dir_fd=place.folder)
        except FileNotFoundError:
            continue
        except IsADirectoryError:
            folders.append(name)
        except OSError as error:
            raise _located(error, place, name) from None
    return folders


def _located(error: OSError, place: Descent, name: bytes) -> OSError:
    return OSError(error.errno, error.strerror, os.fsdecode(place.path(name)))


def measure_tree(parent: int, name: bytes, *, until: float) -> tuple[int, int] | None:
    """Count the files below a folder and their bytes; ``None`` when it takes until ``until`` (monotonic).

    Raises:
        OSError: a folder in it cannot be read.
    """
    files = size = 0
    for place, some, _ in visit(parent, name):
        for each in some:
            if time.monotonic() > until:
                return None
            try:
                found = os.stat(each, dir_fd=place.folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            files += 1
            size += found.st_size
        if time.monotonic() > until:
            return None
    return files, size


def visit(parent: int, name: bytes) -> Iterator[tuple[Descent, Iterator[bytes], list[bytes]]]:
    """Walk a folder and all below it, each folder before those in it.

    Yields the place, its entries that are no folders (streamed: they have to be taken before the walk goes on),
    and the list that its folders gather in meanwhile, which may be cut to keep the walk out of them.

    Raises:
        OSError: a folder cannot be read; one that vanished meanwhile is passed over.
    """
    place = Descent(parent, name)
    try:
        waiting: list[list[bytes]] = []
        entered = True
        while True:
            if entered:
                folders: list[bytes] = []
                files = _files(place.folder, folders)
                yield place, files, folders
                for _ in files:
                    pass
                folders.sort(reverse=True)
                waiting.append(folders)
            if waiting[-1]:
                entered = _enter(place, waiting[-1].pop())
                continue
            waiting.pop()
            if not waiting:
                return
            place.leave()
            entered = False
    finally:
        place.close()


def _files(folder: int, folders: list[bytes]) -> Iterator[bytes]:
    for name, is_folder in entries(folder):
        if is_folder:
            folders.append(name)
        else:
            yield name


def _enter(place: Descent, name: bytes) -> bool:
    try:
        place.enter(name)
    except FileNotFoundError:
        return False
    return True
