"""Folders across file systems: copied whole and synced, then what was copied is removed, and nothing else.

A copy gets its name only when it is complete, so that a crash leaves a part to be thrown away or a copy to be
relied on. Of the original only what looks as its copy does goes; what was written meanwhile stays.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from bulkops import handles
from bulkops.resources.copies import fill
from bulkops.resources.folder.entries import kind_of
from bulkops.resources.folder.walking import Descent, visit
from bulkops.resources.paths import identity_of


def copy_tree(parent: int, name: bytes, target: int, copy: bytes) -> None:
    """Copy a folder with all it holds; modes, owners and times too, everything synced.

    Raises:
        OSError: something cannot be read or written, is no folder, file or symbolic link, or was written to
            while it was copied; an incomplete copy is left behind then.
    """
    os.mkdir(copy, 0o700, dir_fd=target)
    there: Descent | None = None
    looks: list[os.stat_result] = []
    try:
        for place, files, _ in visit(parent, name):
            if there is None:
                there = Descent(target, copy)
            else:
                while there.depth >= place.depth:
                    _seal(there, looks.pop())
                inner = place.path().rpartition(b"/")[2]
                os.mkdir(inner, 0o700, dir_fd=there.folder)
                there.enter(inner)
            looks.append(os.fstat(place.folder))
            for each in files:
                _copy_one(place, there, each)
        while there is not None and looks:
            _seal(there, looks.pop())
        os.fsync(target)
    finally:
        if there is not None:
            there.close()


def _seal(there: Descent, look: os.stat_result) -> None:
    """Give a folder whose copy is complete the original's mode and times, and leave it."""
    _dress(there.folder, look)
    os.fsync(there.folder)
    there.leave()


def _dress(descriptor: int, look: os.stat_result) -> None:
    with suppress(PermissionError):
        os.fchown(descriptor, look.st_uid, look.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(look.st_mode))
    os.utime(descriptor, ns=(look.st_atime_ns, look.st_mtime_ns))


def _copy_one(place: Descent, there: Descent, name: bytes) -> None:
    look = os.stat(name, dir_fd=place.folder, follow_symlinks=False)
    if stat.S_ISLNK(look.st_mode):
        _copy_link(place, there, name, look)
        return
    if not stat.S_ISREG(look.st_mode):
        message = f"{os.fsdecode(place.path(name))!r} is a {kind_of(look)}, which cannot be copied"
        raise OSError(errno.EINVAL, message)
    reader = os.open(name, handles.READ, dir_fd=place.folder)
    try:
        mine = identity_of(look)
        same = identity_of(os.fstat(reader)) == mine and fill(reader, there.folder, name, mine)
        if same and identity_of(os.fstat(reader)) == mine:
            return
    finally:
        os.close(reader)
    raise OSError(errno.EBUSY, f"{os.fsdecode(place.path(name))!r} was written to while it was copied")


def _copy_link(place: Descent, there: Descent, name: bytes, look: os.stat_result) -> None:
    os.symlink(os.readlink(name, dir_fd=place.folder), name, dir_fd=there.folder)
    with suppress(PermissionError):
        os.chown(name, look.st_uid, look.st_gid, dir_fd=there.folder, follow_symlinks=False)
    os.utime(name, ns=(look.st_atime_ns, look.st_mtime_ns), dir_fd=there.folder, follow_symlinks=False)


def remove_copied(parent: int, name: bytes, target: int, copy: bytes) -> bool:
    """Remove of a folder what its copy has too; ``False`` when something is left: it is not in the copy.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        there = Descent(parent, name)
    except FileNotFoundError:
        return True
    try:
        for place, files, folders in visit(target, copy):
            while there.depth >= place.depth > 1:
                _leave_and_remove(there)
            if place.depth > 1 and not _enters(there, place.path().rpartition(b"/")[2]):
                for _ in files:
                    pass
                folders.clear()
                continue
            for each in files:
                _remove_twin(place, there, each)
        while there.depth:
            _leave_and_remove(there)
        os.fsync(parent)
    finally:
        there.close()
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def _enters(there: Descent, name: bytes) -> bool:
    """Go down into a folder; ``False`` when it is gone already, or is something else now."""
    try:
        there.enter(name)
    except OSError:
        return False
    return True


def _leave_and_remove(there: Descent) -> None:
    name = there.leave()
    try:
        os.rmdir(name, dir_fd=there.folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
            raise


def _remove_twin(place: Descent, there: Descent, name: bytes) -> None:
    try:
        here = os.stat(name, dir_fd=there.folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    kept = os.stat(name, dir_fd=place.folder, follow_symlinks=False)
    if (kind_of(here), here.st_size, here.st_mtime_ns) == (kind_of(kept), kept.st_size, kept.st_mtime_ns):
        os.unlink(name, dir_fd=there.folder)
