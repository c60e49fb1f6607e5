"""Files beneath a root: from a path as bytes to an open folder and what stands in it.

What comes in: a root and a path an application's row gave; what goes out: descriptors, identities, and
refusals with their reason. A path is walked component by component, each opened relative to the one
before and none through a symbolic link, so that nobody who swaps a folder meanwhile leads us outside.
Paths are bytes and are never normalised into acceptance. Nothing here may open a file
that is named by a row: `lstat` says all there is to know, and a FIFO or a database must not be opened.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Final

import msgspec

from bulkops import handles

#: The trash of a root whose file system is not the data directory's; no item's path may pass through it.
TRASH_FOLDER: Final = b".bulkops-trash"
_RENAME_NOREPLACE: Final = 1
#: renameat2 is missing, or the file system does not know its flag.
_NO_RENAMEAT2: Final = frozenset({errno.ENOSYS, errno.EINVAL})
#: Errors that no waiting mends; every other one is worth trying again.
_FINAL: Final = frozenset(
    {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
)

FileKey = tuple[int, int]


class Identity(msgspec.Struct, frozen=True):
    """Which file it is, and that nobody has written to it since: what `lstat` said."""

    dev: int
    ino: int
    size: int
    mtime_ns: int

    @property
    def key(self) -> FileKey:
        return self.dev, self.ino


class Refused(msgspec.Struct, frozen=True):
    """Not to be touched: ``REFUSED_PATH`` for ever, or ``IO_ERROR`` as things stand."""

    reason: str
    code: str = "REFUSED_PATH"


#: What stands under a name; ``None`` when nothing does.
Seen = Identity | Refused | None


class PathRefused(OSError):
    """A path that is not walked: empty, absolute, with dots for a part, through a folder of ours."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)
        self.reason = reason


class FolderMissing(FileNotFoundError):
    """A folder on the way is not there; ``dev`` is the file system of the last one that was."""

    def __init__(self, error: FileNotFoundError, dev: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.dev = dev


class Area(msgspec.Struct, frozen=True):
    """Where a batch may act: a root, its trash, and files and folders that are never touched.

    ``root_key`` is the root's own identity: when something else is mounted there, nothing is judged; so is
    ``trash_key`` for a trash that others could put another folder in the place of.
    """

    root: bytes
    trash: bytes
    forbidden: frozenset[FileKey] = frozenset()
    root_key: FileKey | None = None
    trash_key: FileKey | None = None


def split_path(path: bytes) -> list[bytes]:
    """Split an item's path into components, never normalising anything into acceptance.

    Raises:
        PathRefused: empty, absolute, a trailing or double slash, ``.`` or ``..``, NUL, or our trash.

    """
    if b"\0" in path:
        raise PathRefused("the path holds a NUL byte")
    parts = path.split(b"/")
    for part in parts:
        if part in (b"", b".", b".."):
            raise PathRefused("the path is empty, absolute, or has an empty or dotted part")
        if part.lower() == TRASH_FOLDER:
            raise PathRefused("the path leads into the trash")
    return parts


def is_final(error: OSError) -> bool:
    """Say whether no waiting mends this error."""
    return error.errno in _FINAL


def reason_of(error: OSError) -> str:
    """Name an error for people: a refusal's own words, else errno and its meaning."""
    if isinstance(error, PathRefused):
        return error.reason
    name = errno.errorcode.get(error.errno or 0, "EIO")
    return f"{name}: {error.strerror or 'the file system refused'}"


@contextmanager
def opened_folder(path: bytes, *, key: FileKey | None = None) -> Iterator[int]:
    """Open a folder of ours (a root, a trash) that is no symbolic link itself.

    Raises:
        OSError: it is not there, no folder, or not the one with ``key`` any more (ESTALE).

    """
    descriptor = os.open(path, handles.FOLDER)
    try:
        if key is not None and _key_of(os.fstat(descriptor)) != key:
            raise OSError(errno.ESTALE, "another folder stands where the root was")
        yield descriptor
    finally:
        os.close(descriptor)


def open_folder(
    root: int, parts: Iterable[bytes], *, forbidden: frozenset[FileKey], create: bool = False
) -> int:
    """Walk down from the descriptor ``root`` and return the last folder's; no parts, the root's twin.

    Only one descriptor is held on the way, so depth costs nothing. With ``create``, folders that are not
    there are made, and the folder that got a new name is synced.

    Raises:
        FolderMissing: a folder is not there.
        PathRefused: a folder is forbidden.
        OSError: ENOTDIR or ELOOP when a part is a symbolic link or no folder, and whatever the disk says.

    """
    descriptor = os.dup(root)
    try:
        for part in parts:
            deeper = _open_child(descriptor, part, create=create)
            os.close(descriptor)
            descriptor = deeper
            if forbidden and _key_of(os.fstat(descriptor)) in forbidden:
                raise PathRefused("the path leads into a folder of ours")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_child(folder: int, part: bytes, *, create: bool) -> int:
    try:
        return os.open(part, handles.FOLDER, dir_fd=folder)
    except FileNotFoundError as error:
        if not create:
            raise FolderMissing(error, os.fstat(folder).st_dev) from None
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=folder)
    os.fsync(folder)
    return os.open(part, handles.FOLDER, dir_fd=folder)


def look(folder: int, name: bytes, *, forbidden: frozenset[FileKey] = frozenset()) -> Seen:
    """Say what stands under a name in an open folder, opening and following nothing."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return Refused(f"it is {_kind(found.st_mode)}, not a regular file")
    if _key_of(found) in forbidden:
        return Refused("it is a database or a file of ours")
    return identity_of(found)


def identity_of(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _key_of(found: os.stat_result) -> FileKey:
    return found.st_dev, found.st_ino


def _kind(mode: int) -> str:
    return {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }.get(stat.S_IFMT(mode), "a device")


def identify(area: Area, path: bytes) -> Seen:
    """Say which file a path below the root names; ``None`` when there is none.

    Raises:
        OSError: the root itself cannot be opened, or is another one.

    """
    return identify_many(area, [path])[0]


def identify_many(area: Area, paths: Sequence[bytes]) -> list[Seen]:
    """Do as `identify` does for many paths, in their order, walking to each folder once.

    Raises:
        OSError: the root itself cannot be opened, or is another one.

    """
    seen: list[Seen] = [None] * len(paths)
    with opened_folder(area.root, key=area.root_key) as root:
        for folder, places in by_folder(paths, seen.__setitem__).items():
            for place, found in _identify_in(area, root, folder, places):
                seen[place] = found
    return seen


Places = list[tuple[int, bytes]]


def by_folder(paths: Sequence[bytes], refuse: Callable[[int, Refused], None]) -> dict[bytes, Places]:
    """Group paths by folder; those that cannot be split go to ``refuse`` with their place."""
    folders: dict[bytes, Places] = {}
    for place, path in enumerate(paths):
        try:
            split_path(path)
        except PathRefused as error:
            refuse(place, Refused(error.reason))
            continue
        folder, _, name = path.rpartition(b"/")
        folders.setdefault(folder, []).append((place, name))
    return folders


def parts_of(folder: bytes) -> list[bytes]:
    return folder.split(b"/") if folder else []


def _identify_in(area: Area, root: int, folder: bytes, places: Places) -> Iterator[tuple[int, Seen]]:
    try:
        descriptor = open_folder(root, parts_of(folder), forbidden=area.forbidden)
    except OSError as error:
        for place, _ in places:
            yield place, seen_from(error)
        return
    try:
        for place, name in places:
            yield place, _look_safely(descriptor, name, area.forbidden)
    finally:
        os.close(descriptor)


def _look_safely(folder: int, name: bytes, forbidden: frozenset[FileKey]) -> Seen:
    try:
        return look(folder, name, forbidden=forbidden)
    except OSError as error:
        return seen_from(error)


def seen_from(error: OSError) -> Seen:
    if isinstance(error, FileNotFoundError):
        return None
    return Refused(reason_of(error), code="REFUSED_PATH" if is_final(error) else "IO_ERROR")


def rename_noreplace(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
    """Rename, never over anything: `renameat2` on Linux, elsewhere link and unlink.

    Raises:
        FileExistsError: the target is taken, be it by a hard link to the very same file.
        OSError: EXDEV across mounts, and whatever the disk says.

    """
    call = _renameat2()
    if call is not None:
        if call(source_folder, source, target_folder, target, _RENAME_NOREPLACE) == 0:
            return
        import ctypes  # slow to import

        code = ctypes.get_errno()
        if code not in _NO_RENAMEAT2:
            raise OSError(code, os.strerror(code))
    _link_and_unlink(source_folder, source, target_folder, target)


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # slow to import

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    found: Callable[[int, bytes, int, bytes, int], int] = function
    return found


def _link_and_unlink(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
    os.link(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)
    # Between the two calls another program may have put a new file in the source's place.
    if look(source_folder, source) == look(target_folder, target):
        os.unlink(source, dir_fd=source_folder)


def can_rename(source: bytes, target: bytes) -> bool:
    """Say whether files of one folder can be renamed into the other: same file system *and* same mount.

    A name that exists nowhere is "renamed": the kernel compares the mounts before it looks the name up.
    Two bind mounts of one disk (container volumes) have the same ``st_dev`` and still answer EXDEV.
    """
    with opened_folder(source) as left, opened_folder(target) as right:
        if os.fstat(left).st_dev != os.fstat(right).st_dev:
            return False
        try:
            os.rename(b".bulkops-probe", b".bulkops-probe", src_dir_fd=left, dst_dir_fd=right)
        except OSError as error:
            return error.errno != errno.EXDEV
        return True
