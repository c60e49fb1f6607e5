"""The sidecar's process: the handshake, the house, the end, and an exit code for the host.

What comes in: options, stdin and signals; what goes out: `ready` or `fatal`, then `stopping` and `stopped`.
Everything of the process that the host could see or wait for is set here; the house knows nothing of it.
"""

from __future__ import annotations

import gc
import os
import signal
import time
import traceback
from queue import Empty, SimpleQueue
from typing import Any, Final
from urllib.parse import urlsplit

from bulkops import runtime_file
from bulkops.errors import ConfigError, StartRefused
from bulkops.sidecar.ending import GRACE_S, Ending, orphaned, patient
from bulkops.sidecar.lines import StartLine, read_command, read_lines, read_start
from bulkops.sidecar.options import Options
from bulkops.sidecar.outlet import Outlet, Speech, fill_descriptors, take_stdout

OK: Final = 0
CRASHED: Final = 70
CANNOT_START: Final = 3
#: What `fatal` codes exit with, where it is not 3.
EXITS: Final = {"already_running": 10, "db_locked": 11, "db_corrupt": 11}

_START_WITHIN_S: Final = 5.0
_MAX_GRACE_S: Final = 3600.0
_LAST_WORDS_S: Final = 0.3
_LEAVE_S: Final = 0.5


def run(options: Options) -> int:
    """Run the sidecar; returns the exit code. The process must end then: its stdout is not what it was."""
    gc.disable()  # nothing that a start makes is garbage
    fill_descriptors()
    return Sidecar(options).run()


class Sidecar:
    """One life of the process."""

    def __init__(self, options: Options) -> None:
        self._began = time.monotonic()
        self._options = options
        self._first: SimpleQueue[bytes | None] = SimpleQueue()
        self._started = False
        # Each is set before the other is looked at, from two threads, so that none of both is missed.
        self._ready = False
        self._deaf = False
        self._speech: Speech
        self._prints: Outlet
        self._speech, self._prints = take_stdout(lambda: self._ending.request(orphaned()))
        self._ending = Ending(lambda reason: self._speech.say("stopping", reason=reason))

    def run(self) -> int:
        code = self._live()
        if self._ending.wish is not None:
            self._speech.say("stopped")
        self._ending.settle(code, within_s=_LAST_WORDS_S + _LEAVE_S)
        # A host that does not listen must not keep us; it hears the exit code.
        self._speech.flush(_LAST_WORDS_S)
        self._prints.flush(_LAST_WORDS_S)
        return code

    def _live(self) -> int:
        try:
            self._heed()
            start = self._await_start()
            if start is not None:
                self._serve(start)
        except Exception as error:  # noqa: BLE001  whatever it is, the host gets a line and a code
            return self._fail(_sole(error))
        return OK if self._ending.wish is not None else CRASHED

    def _heed(self) -> None:
        """Begin to listen to the host, to signals and to the death of whoever started us."""
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, lambda *_: self._ending.request(patient("signal")))
        self._ending.listen(lambda: self._first.put(None))
        # A bootloader that is killed leaves us to nobody, with the host's pipe still open.
        self._ending.watch(os.getppid())
        if self._options.host_pid is not None:
            self._ending.watch(self._options.host_pid)
        read_lines(0, self._hear, self._hear_no_more)

    def _hear(self, line: bytes) -> None:
        if not self._started:
            self._started = True
            self._first.put(line)
            return
        said = read_command(line)
        if said is None:
            return
        if said.get("type") == "ping":
            self._speech.say("pong")
        elif said.get("type") == "shutdown":
            self._ending.request(patient("shutdown", grace_of(said)))

    def _hear_no_more(self) -> None:
        if not self._started:
            self._first.put(b"")
        elif not self._ending.host_lives:
            self._ending.request(orphaned("stdin_eof"))
        else:
            # One who lives and says nothing more still learns how the start went, and then it ends.
            self._deaf = True
            if self._ready:
                self._ending.request(patient("stdin_eof"))

    def _note_ready(self) -> None:
        self._ready = True
        if self._deaf:
            self._ending.request(patient("stdin_eof"))

    def _await_start(self) -> StartLine | None:
        """Wait for the start line while the house is loaded; ``None`` when the end comes first."""
        from bulkops.sidecar import serving  # noqa: F401  what takes longest, for `_serve`

        try:
            line = self._first.get(timeout=max(0.0, self._began + _START_WITHIN_S - time.monotonic()))
        except Empty:
            raise StartRefused("bad_start", f"no start line within {_START_WITHIN_S:.0f} s") from None
        if line is None:
            return None
        if not line and not self._started:
            raise StartRefused("bad_start", "stdin ended before the start line")
        return read_start(line)

    def _serve(self, start: StartLine) -> None:
        import anyio

        from bulkops.sidecar.placing import settle  # late: slow to load
        from bulkops.sidecar.serving import serve_house  # late: slow to load

        if start.host_pid is not None:
            self._ending.watch(start.host_pid)
        settings = settle(self._options, start.origins, os.environ)
        anyio.run(lambda: serve_house(settings, start.token, self._ending, self._speech, self._note_ready))

    def _fail(self, error: Exception) -> int:
        if self._ready:
            traceback.print_exception(error)
            return CRASHED
        code, message, more = self._explain(error)
        self._speech.say("fatal", code=code, message=message, **more)
        return EXITS.get(code, CANNOT_START)

    def _explain(self, error: Exception) -> tuple[str, str, dict[str, Any]]:
        """Say what keeps us from starting: the code of `fatal`, its message, and whose pid it is."""
        us = {"pid": os.getpid()}
        if isinstance(error, StartRefused):
            them = self._who_runs(error) if error.code == "already_running" else us
            return error.code, error.message, them
        if isinstance(error, ConfigError):
            return error.code, str(error), us
        if isinstance(error, OSError):
            return "config", f"{self._options.data_dir} cannot be used: {error}", us
        traceback.print_exception(error)
        return "config", f"unexpected {type(error).__name__}; where it came from is on stderr", us

    def _who_runs(self, refused: StartRefused) -> dict[str, Any]:
        pid = refused.extra.get("pid")
        word = runtime_file.read(self._options.data_dir)
        port = urlsplit(word.url).port if word is not None and word.pid == pid else None
        return {"pid": pid, "port": port}


def grace_of(said: dict[str, Any]) -> float:
    """Read how long a shutdown may take, in seconds; what is no time counts as the usual one."""
    grace_ms = said.get("grace_ms")
    if isinstance(grace_ms, bool) or not isinstance(grace_ms, int | float) or not grace_ms >= 0:
        return GRACE_S
    return min(grace_ms / 1000, _MAX_GRACE_S)


def _sole(error: Exception) -> Exception:
    """Take what a task group wrapped out of it, where it is one thing."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
