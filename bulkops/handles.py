"""How files are opened: following no link, inherited by nobody, byte for byte; on systems without folder handles too.

Windows has no folder handles and no such flags. There, what needs them is refused when the configuration is
read (see `LocalStorage`), and everything else works on plain paths.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

#: Whether paths can be walked folder by folder, so that nobody swaps a link in on the way.
FOLDER_HANDLES: Final = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")

#: A file of our own that is there already.
OWN: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
#: A file of others: a pipe in its place must not hold the thread up.
READ: Final = os.O_RDONLY | OWN | getattr(os, "O_NONBLOCK", 0)
#: A file that must not be there yet.
NEW: Final = os.O_CREAT | os.O_EXCL | OWN
FOLDER: Final = os.O_RDONLY | OWN | getattr(os, "O_DIRECTORY", 0)


def sync_folder(path: Path) -> None:
    """Make a rename or a new name in ``path`` durable; Windows has no such call and needs none."""
    if sys.platform == "win32":  # pragma: no cover
        return
    fd = os.open(path, FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_data(fd: int) -> None:
    """Make what was written to a file durable; its times may lag behind where the system tells them apart."""
    getattr(os, "fdatasync", os.fsync)(fd)


def read_at(fd: int, size: int, place: int) -> bytes:
    """Read up to ``size`` bytes from ``place`` of a file that one thread at a time reads; nothing behind its end."""
    os.lseek(fd, place, os.SEEK_SET)
    return os.read(fd, size)
