"""The end: asked for by the host, a signal or the death of either; orderly within a grace, by force after it.

Wishes come in from any thread and from signals; what goes out is one reason, told once, and a process that
is gone in time. A later wish may bring the end forward, never put it off.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from bulkops.sidecar.watched import Watched

Reason = Literal["stdin_eof", "shutdown", "signal", "host_died"]

FORCED: Final = 70
GRACE_S: Final = 5.0
#: The server's own goodbyes come on top of what the batch in hand may take.
_FORCE_AFTER_S: Final = 3.0
#: Nothing may be left two seconds after the host died; noticing that takes up to half of one.
_LOOK_EVERY_S: Final = 0.5
_ORPHAN_GRACE_S: Final = 0.6
_ORPHAN_FORCE_S: Final = 0.6


class Wish(msgspec.Struct, frozen=True):
    """Why to end, how long the batch in hand may take, and when patience is over, in seconds from now."""

    reason: Reason
    grace_s: float
    force_s: float


def patient(reason: Reason, grace_s: float = GRACE_S) -> Wish:
    """Wish for an orderly end."""
    return Wish(reason, grace_s, grace_s + _FORCE_AFTER_S)


def orphaned(reason: Reason = "host_died") -> Wish:
    """Wish for an end that nobody waits for."""
    return Wish(reason, _ORPHAN_GRACE_S, _ORPHAN_GRACE_S + _ORPHAN_FORCE_S)


class Ending:
    """Knows whether the end has come, and sees to it that it comes; one thread watches from the start."""

    def __init__(self, tell: Callable[[Reason], object]) -> None:
        self.wish: Wish | None = None
        #: What the process exits with if it has to be ended by force.
        self.forced_code = FORCED
        self._tell = tell
        self._deadline = float("inf")
        self._watched: list[Watched] = []
        self._listeners: list[Callable[[], object]] = []
        # Reentrant: a signal may interrupt the thread that is inside.
        self._changed = threading.Condition(threading.RLock())
        threading.Thread(target=self._watch, name="bulkops watch", daemon=True).start()

    def watch(self, pid: int) -> None:
        """End when this process dies, too."""
        with self._changed:
            self._watched.append(Watched(pid))

    @property
    def host_lives(self) -> bool:
        """Whether every process under watch is alive; without any nobody can know, which counts as no."""
        with self._changed:
            return bool(self._watched) and all(each.is_alive() for each in self._watched)

    def listen(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when the end is wished for, at once when it is already; from any thread."""
        with self._changed:
            self._listeners.append(listener)
            wished = self.wish is not None
        if wished:
            listener()

    def request(self, wish: Wish) -> None:
        """Wish for the end; the first reason is told, the earliest deadline counts."""
        with self._changed:
            first = self.wish is None
            self._deadline = min(self._deadline, time.monotonic() + wish.force_s)
            if self.wish is None:
                self.wish = wish
            self._changed.notify_all()
            listeners = list(self._listeners)
        if first:
            self._tell(wish.reason)
            for listener in listeners:
                listener()

    def settle(self, code: int, *, within_s: float) -> None:
        """All is saved: leave with ``code`` even if the interpreter's own end hangs."""
        with self._changed:
            self.forced_code = code
            self._deadline = time.monotonic() + within_s
            self._changed.notify_all()

    def _watch(self) -> None:
        bereaved = False
        while True:
            with self._changed:
                self._changed.wait(max(0.0, min(_LOOK_EVERY_S, self._deadline - time.monotonic())))
                over = time.monotonic() >= self._deadline
                died = not bereaved and any(not each.is_alive() for each in self._watched)
            if over:
                os._exit(self.forced_code)
            if died:
                bereaved = True
                self.request(orphaned())
