"""Lines from the host: bytes of a pipe in, whole lines out, and what the start line says.

A thread reads the descriptor itself, because one inside Python's buffered stdin aborts the interpreter at
its exit. A line without end is cut, never collected; what a line holds is never part of a message, for it
may be the token.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bulkops.errors import Refusal, StartRefused

#: The longest line that counts; a longer one is handed on cut, one byte above it.
MAX_LINE: Final = 64 * 1024
_CHUNK: Final = 64 * 1024
_MAX_TOKEN: Final = 1024
_MAX_ORIGINS: Final = 64
_MAX_PID: Final = 2**32 - 1
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43,}")


class StartLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the host wishes; ``token`` is a secret."""

    token: str | None
    origins: tuple[str, ...]
    host_pid: int | None

    def __repr__(self) -> str:
        # Else any message about it would tell the token.
        return f"StartLine(origins={self.origins!r}, host_pid={self.host_pid!r})"


class Splitter:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._begun = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes, without their ends; one too long as soon as it is."""
        *whole, rest = chunk.split(b"\n")
        lines = [line.removesuffix(b"\r") for part in whole if (line := self._end(part)) is not None]
        if not self._skipping:
            self._begun += rest
            if len(self._begun) > MAX_LINE:
                lines.append(self._begun[: MAX_LINE + 1])
                self._begun, self._skipping = b"", True
        return lines

    def _end(self, part: bytes) -> bytes | None:
        line, self._begun = self._begun + part, b""
        if self._skipping:
            self._skipping = False
            return None
        return line[: MAX_LINE + 1]


def read_lines(fd: int, on_line: Callable[[bytes], object], on_end: Callable[[], object]) -> None:
    """Call ``on_line`` for each line of a descriptor and ``on_end`` at its end, from a thread, at once."""

    def read() -> None:
        splitter = Splitter()
        try:
            while chunk := os.read(fd, _CHUNK):
                for line in splitter.feed(chunk):
                    on_line(line)
        except OSError:
            pass  # a terminal that hung up: its end as well
        on_end()

    threading.Thread(target=read, name="bulkops stdin", daemon=True).start()


def read_start(line: bytes) -> StartLine:
    """Read the start line; members nobody here knows are a newer host's, and are passed over.

    Raises:
        StartRefused: (``bad_start``) it is none, or something in it cannot be. No value is in the message.
    """
    said = _read_object(line)
    if said.get("type") != "start":
        raise _bad('the first line has to be {"type":"start",…}')
    return StartLine(
        token=_read_token(said.get("token")),
        origins=_read_origins(said.get("origins")),
        host_pid=_read_pid(said.get("host_pid")),
    )


def _bad(message: str) -> StartRefused:
    return StartRefused("bad_start", message)


def _read_object(line: bytes) -> dict[str, Any]:
    from bulkops.web.strict_json import parse  # late: the line is awaited while all of it loads

    if len(line) > MAX_LINE:
        raise _bad(f"the start line has more than {MAX_LINE} bytes")
    try:
        said = parse(line.removeprefix(b"\xef\xbb\xbf"))
    except Refusal:
        raise _bad("the start line is no JSON, or names a member twice") from None
    if not isinstance(said, dict):
        raise _bad("the start line is no JSON object")
    return said


def _read_token(token: object) -> str | None:
    from bulkops.store.credentials import LOCAL, split  # as above

    if token is None:
        return None
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or _TOKEN.fullmatch(token) is None:
        raise _bad("token: expected 43 or more of A-Z a-z 0-9 _ -, at least 32 random bytes in base64url")
    if split(token)[1] != LOCAL:
        raise _bad("token: it has the form of an API key; make one from random bytes alone")
    return token


def _read_origins(origins: object) -> tuple[str, ...]:
    from bulkops.mistakes import is_origin  # as above

    if origins is None:
        return ()
    if not isinstance(origins, list) or len(origins) > _MAX_ORIGINS:
        raise _bad(f"origins: expected a list of at most {_MAX_ORIGINS} texts")
    if not all(isinstance(each, str) and is_origin(each) for each in origins):
        raise _bad("origins: each is exact and whole, such as tauri://localhost; no path, no wildcard")
    return tuple(origins)


def _read_pid(pid: object) -> int | None:
    if pid is not None and (not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid <= _MAX_PID):
        raise _bad("host_pid: expected the pid of a process")
    return pid


def read_command(line: bytes) -> dict[str, Any] | None:
    """Read a line that comes after the start; ``None`` for one to be ignored."""
    if len(line) > MAX_LINE:
        return None
    try:
        said = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
