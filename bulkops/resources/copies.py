"""Copies of files across file systems, where no rename reaches.

What comes in: a name in an open folder, the identity it is to have, and a free name in another; what goes out: a
copy that is whole, read back and synced before it gets its name, or none at all. What is left of a copy that
crashed is removed by the next one of the same tag; nothing else is unlinked here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from bulkops import handles
from bulkops.resources.paths import Identity, PathRefused, identity_of, rename_noreplace

_COPY_BYTES: Final = 1 << 20

#: A name in an open folder.
File = tuple[int, bytes]


def copy(source: File, mine: Identity, target: File, tag: bytes) -> bool:
    """Copy a file, complete and synced before it gets its name; ``False`` when it is not ``mine``.

    Raises:
        FileExistsError: the target is taken.
        OSError: whatever the disks say; the unfinished copy is gone then.

    """
    folder, name = target
    part = b".bulkops-" + tag + b".part"
    with suppress(FileNotFoundError):
        os.unlink(part, dir_fd=folder)  # of a copy that crashed
    try:
        with _opened(*source) as reader:
            if identity_of(os.fstat(reader)) != mine or not fill(reader, folder, part, mine):
                return False
            if identity_of(os.fstat(reader)) != mine:
                return False
        rename_noreplace(folder, part, folder, name)
        os.fsync(folder)
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)


def fill(reader: int, folder: int, part: bytes, mine: Identity) -> bool:
    """Write a new file with mode, owner and time of the original, sync it, and read it back.

    ``False`` when what is read back is not what was written.

    Raises:
        OSError: whatever the disks say; the file stays as far as it came.

    """
    flags = os.O_RDWR | handles.NEW
    writer = os.open(part, flags, 0o600, dir_fd=folder)
    try:
        digest = hashlib.sha256()
        while block := os.read(reader, _COPY_BYTES):
            digest.update(block)
            _write_all(writer, block)
        original = os.fstat(reader)
        with suppress(PermissionError):
            os.fchown(writer, original.st_uid, original.st_gid)
        os.fchmod(writer, stat.S_IMODE(original.st_mode))
        os.utime(writer, ns=(original.st_atime_ns, mine.mtime_ns))
        os.fsync(writer)
        os.lseek(writer, 0, os.SEEK_SET)
        return _digest(writer) == digest.digest()
    finally:
        os.close(writer)


def _write_all(writer: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(writer, left) :]


def _digest(descriptor: int) -> bytes:
    digest = hashlib.sha256()
    while block := os.read(descriptor, _COPY_BYTES):
        digest.update(block)
    return digest.digest()


def same_bytes(one: File, other: File) -> bool:
    """Read two regular files and say whether they hold the same.

    Raises:
        OSError: one is not there, is no regular file, or cannot be read.

    """
    with _opened(*one) as first, _opened(*other) as second:
        return _digest(first) == _digest(second)


@contextmanager
def _opened(folder: int, name: bytes) -> Iterator[int]:
    descriptor = os.open(name, handles.READ, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PathRefused("it is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)
