"""One process per data directory, and the memory of it that lives outside the database file.

`instance.lock` is held for life; `instance.json` remembers who the database is and how many times it
was started, so that a missing, emptied, swapped or restored database is noticed (never recreated).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec

from bulkops import handles
from bulkops.errors import StartRefused
from bulkops.shapes import whole

_LOCK: Final = "instance.lock"
_MARKER: Final = "instance.json"


class Marker(msgspec.Struct, frozen=True):
    """What `instance.json` says."""

    instance: str
    generation: int


class InstanceLock:
    """A file lock on the data directory; the kernel frees it when the process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / _LOCK
        self._fds: list[int] = []

    def acquire(self) -> None:
        """Take the lock or refuse at once.

        Raises:
            StartRefused: (``already_running``) another process holds it; ``pid`` says which. (``config``) what
                stands in the lock's place is no file.
        """
        self._take(self._path, self._path.parent)

    def acquire_database(self, path: Path) -> None:
        """Take the database as well: a process with another data directory may have named the same one.

        Raises:
            StartRefused: as `acquire`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Where a link leads: by whichever name the database is opened, its lock is one.
        real = Path(os.path.realpath(path))
        self._take(real.with_name(f"{real.name}.lock"), path)

    def _take(self, path: Path, what: Path) -> None:
        fd = _open_lock(path)
        if not _lock(fd):
            pid = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise StartRefused(
                "already_running",
                f"another bulkops (pid {pid or 'unknown'}) uses {what}",
                pid=int(pid) if pid.isdigit() else None,
            )
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fds.append(fd)

    def release(self) -> None:
        """Free what was taken; without anything nothing happens."""
        while self._fds:
            os.close(self._fds.pop())


def last_holder(data_dir: Path) -> int | None:
    """Return the pid that took the lock last, alive or not; ``None`` when nobody ever did. Takes no lock."""
    try:
        text = (data_dir / _LOCK).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def _open_lock(path: Path) -> int:
    """Open a lock file; it is written to, so it must be none that a link of somebody's leads to."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | handles.OWN, 0o600)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EISDIR}:
            raise
        raise _no_lock(path) from error
    found = os.fstat(fd)
    # A snapshot of hard links holds our own lock too: all that is in it is a pid.
    if stat.S_ISREG(found.st_mode) and (found.st_nlink == 1 or handles.read_at(fd, 32, 0).isdigit()):
        return fd
    os.close(fd)
    raise _no_lock(path)


def _no_lock(path: Path) -> StartRefused:
    return StartRefused("config", f"{path} is to be our lock, and is a link or no file; remove it")


def _lock(fd: int) -> bool:
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt

        os.lseek(fd, 1 << 20, os.SEEK_SET)  # beyond the pid, which others read
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_data_dir(path: Path) -> bool:
    """Say whether a folder is, or was, the data directory of an instance."""
    return (path / _MARKER).exists()


def read_marker(data_dir: Path) -> Marker | None:
    """Return what the marker says, ``None`` when this directory never held an instance.

    Raises:
        StartRefused: (``db_corrupt``) the marker is there and unreadable.
    """
    path = data_dir / _MARKER
    try:
        return msgspec.json.decode(path.read_bytes(), type=whole(Marker))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StartRefused("db_corrupt", f"{path} cannot be read: {error}") from error


def write_marker(data_dir: Path, marker: Marker) -> None:
    """Replace the marker so that a crash leaves the old one or the new one, both whole."""
    path = data_dir / _MARKER
    fresh = path.with_suffix(".json.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, msgspec.json.encode(marker))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(fresh, path)
    handles.sync_folder(data_dir)
