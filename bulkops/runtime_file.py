"""Where a running server can be found: a private file in its data directory, written at start, gone at stop.

What comes in: a data directory; what goes out: the URL, pid and local owner key of the server that runs
there now, or nothing. A file left behind by a crash is told by its pid and by `/healthz`; the key in it
must never be readable by others, sent to a server that does not answer, or printed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from bulkops.shapes import whole

_NAME: Final = "runtime.json"
_PROBE_TIMEOUT_S: Final = 3.0


class RuntimeFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says; ``key`` is a credential of an owner without tenant."""

    url: str
    pid: int
    key: str
    instance: str
    started_at: str


def path_of(data_dir: Path) -> Path:
    """Name the file of a data directory."""
    return data_dir / _NAME


def write(data_dir: Path, content: RuntimeFile) -> None:
    """Replace the file, readable by its owner alone from its first byte on."""
    fresh = data_dir / f"{_NAME}.new"
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, msgspec.json.encode(content))
    finally:
        os.close(fd)
    os.replace(fresh, path_of(data_dir))


def read(data_dir: Path) -> RuntimeFile | None:
    """Return what the file says; ``None`` when it is absent, unreadable or another user's."""
    path = path_of(data_dir)
    try:
        if not _is_ours(path):
            return None
        return msgspec.json.decode(path.read_bytes(), type=whole(RuntimeFile))
    except (OSError, msgspec.DecodeError):
        return None


def remove(data_dir: Path, *, pid: int) -> None:
    """Remove the file if process ``pid`` wrote it; a successor's file stays."""
    found = read(data_dir)
    if found is not None and found.pid == pid:
        with suppress(OSError):
            path_of(data_dir).unlink()


def find_running(data_dir: Path) -> RuntimeFile | None:
    """Return the file of a server that lives and answers, ``None`` when there is no such server."""
    found = read(data_dir)
    if found is None or not process_exists(found.pid) or not answers(found.url):
        return None
    return found


def process_exists(pid: int) -> bool:
    """Say whether the process is there; where the system cannot be asked harmlessly, assume so."""
    if sys.platform == "win32":  # pragma: no cover  os.kill(pid, 0) would send it Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def answers(url: str) -> bool:
    """Say whether `/healthz` at ``url`` answers 200, without any credential."""
    import http.client  # late: a server that starts asks nobody

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "127.0.0.1", parts.port, timeout=_PROBE_TIMEOUT_S
    )
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_ours(path: Path) -> bool:
    if sys.platform == "win32":  # pragma: no cover
        return True
    me = os.geteuid()
    return me == 0 or path.stat().st_uid == me
