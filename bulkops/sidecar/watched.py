"""A process that must be alive: its pid comes in once, whether that very process still lives goes out.

A pid is given to another process sooner or later, so wherever the system tells when a process began, or
hands out something to hold it by, that decides.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from bulkops.runtime_file import process_exists


class Watched:
    """One process, as it was when it was first seen; one that was gone by then is not alive."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle: Any = _open_handle(pid) if sys.platform == "win32" else None
        self._began = _began(pid)

    def is_alive(self) -> bool:
        """Say whether it lives; a zombie does not."""
        if sys.platform == "win32":  # pragma: no cover
            return _is_running(self._handle)
        if _HAS_PROC:
            return self._began is not None and _began(self.pid) == self._began
        return process_exists(self.pid)  # pragma: no cover  macOS: nothing tells one pid's holders apart


_HAS_PROC = os.path.exists("/proc/self/stat")


def _began(pid: int) -> str | None:
    """Return when a process began, in ticks since boot (proc(5): stat, field 22); ``None``: it is over."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may hold blanks and brackets; what follows its last bracket does not.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    state, began = fields[0], fields[19]
    return None if state in {b"Z", b"X"} else began.decode()


def _open_handle(pid: int) -> Any:  # pragma: no cover  Windows
    synchronize = 0x00100000
    return _kernel().OpenProcess(synchronize, 0, pid)


def _is_running(handle: Any) -> bool:  # pragma: no cover  Windows
    still_waiting = 0x102
    return bool(handle) and _kernel().WaitForSingleObject(handle, 0) == still_waiting


def _kernel() -> Any:  # pragma: no cover  Windows
    import ctypes

    # By its name: where types are checked, ctypes has no such member.
    return vars(ctypes)["windll"].kernel32
