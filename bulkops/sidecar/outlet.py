"""Words to the host: a descriptor that a thread writes, so that a host who reads nothing holds nobody up.

Bytes come in and are written in their order, or dropped where too many wait; nothing here ever blocks but
that thread. stdout and stderr are moved aside: what anybody prints goes to the host's stderr, never among
the lines of the protocol.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

_MAX_WAITING: Final = 64 * 1024
_CHUNK: Final = 16 * 1024


class Outlet:
    """Writes to a descriptor from a thread of its own; begins with the first word."""

    def __init__(
        self,
        fd: int,
        *,
        name: str,
        max_waiting: int = _MAX_WAITING,
        on_broken: Callable[[], object] | None = None,
    ) -> None:
        self._fd = fd
        self._name = name
        self._max_waiting = max_waiting
        self._on_broken = on_broken
        # Reentrant: a signal may come, and be told of, while the same thread is inside.
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._broken = False

    def send(self, data: bytes) -> bool:
        """Hand over bytes to be written together; ``False`` when they are dropped."""
        with self._changed:
            if self._broken or (self._waiting and self._waiting + len(data) > self._max_waiting):
                return False
            self._queue.append(data)
            self._waiting += len(data)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name=self._name, daemon=True)
                self._thread.start()
        return True

    def flush(self, within_s: float) -> bool:
        """Wait until all is written, or nobody is there to read it; ``False`` when the time is over first."""
        end = time.monotonic() + within_s
        with self._changed:
            while self._waiting and not self._broken:
                left_s = end - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
        return True

    def _write(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._queue:
                        self._changed.wait()
                    data = self._queue.popleft()
                _write_all(self._fd, data)
                with self._changed:
                    self._waiting -= len(data)
                    self._changed.notify_all()
        except OSError:
            with self._changed:
                self._broken = True
                self._changed.notify_all()
            if self._on_broken is not None:
                self._on_broken()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Speech:
    """The protocol's side that we speak: one JSON object a line, each whole or not at all."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def say(self, kind: str, **members: Any) -> bool:
        """Say one line; ``False`` when the host has long stopped listening."""
        return self._outlet.send(msgspec.json.encode({"type": kind, **members}) + b"\n")

    def flush(self, within_s: float) -> bool:
        """Wait for what was said to be out, as long as that may take."""
        return self._outlet.flush(within_s)


def fill_descriptors() -> None:
    """Put the null device where stdin, stdout or stderr is closed, before a database's file takes its number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is the one that is missing, as all below it are taken.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)


def take_stdout(on_broken: Callable[[], object]) -> tuple[Speech, Outlet]:
    """Move stdout and stderr aside; return the protocol's speech, and the outlet that prints end in.

    Descriptors 1 and 2 become a pipe that is always read, so that no print and no traceback can block; what
    the host does not take in time is dropped.
    """
    speech = Speech(Outlet(os.dup(1), name="bulkops stdout", on_broken=on_broken))
    prints = Outlet(os.dup(2), name="bulkops stderr")
    source, sink = os.pipe()
    for fd in (1, 2):
        os.dup2(sink, fd)
    os.close(sink)

    def relay() -> None:
        while chunk := os.read(source, _CHUNK):
            prints.send(chunk)

    threading.Thread(target=relay, name="bulkops prints", daemon=True).start()
    return speech, prints
