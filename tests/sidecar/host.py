"""A desktop application that runs a sidecar, as one with tauri-plugin-shell does.

The child gets three pipes. A thread reads stdout, another stderr, line by line, and both put what they read
into one channel with room for a few events: when the application does not take them, the threads stop
reading and the pipes fill. `kill` ends the direct child and nobody else. As a program of its own,
`python -m tests.sidecar.host`, it is a host that can be killed: it repeats every event on its own stdout.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

ROOT: Final = Path(__file__).resolve().parents[2]
_ROOM: Final = 1
_MARK: Final = "SIDECAR_TEST_LAUNCH"
TOKEN: Final = "t0ken-" + "x" * 40
ORIGINS: Final = ["tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"]


class Event(NamedTuple):
    """What the channel carries: `stdout`, `stderr`, or `terminated` with the exit code as text."""

    kind: str
    text: str


def command(data_dir: Path, *options: str, bootloader: bool = False) -> list[str]:
    """Return the command of a sidecar, behind a bootloader if so wished."""
    server = [sys.executable, "-m", "bulkops", "sidecar", "--data-dir", str(data_dir), *options]
    before = [sys.executable, "-S", "-E", str(Path(__file__).with_name("bootloader.py"))]
    return [*before, *server] if bootloader else server


def start_line(**members: Any) -> bytes:
    """Write the start line of this process; a member that is ``None`` is left out."""
    said = {"type": "start", "token": TOKEN, "origins": ORIGINS, "host_pid": os.getpid(), **members}
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode() + b"\n"


def until(holds: Callable[[], Any], *, within_s: float, what: str = "") -> Any:
    """Ask until the answer is true, return it; fail at the deadline."""
    end = time.monotonic() + within_s
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {within_s} s: {what or holds}"
        time.sleep(0.01)


class Host:
    """One launch of a sidecar; a context manager that leaves nothing of it behind."""

    def __init__(self, argv: Sequence[str], *, environ: Mapping[str, str] | None = None) -> None:
        #: In the environment of everything that this launch has started, however it was orphaned.
        self.mark = uuid.uuid4().hex
        self.argv = list(argv)
        self.began = time.monotonic()
        self.child = subprocess.Popen(
            self.argv,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, _MARK: self.mark, **(environ or {})},
            bufsize=0,
        )
        self.events: list[Event] = []
        self.lines: list[dict[str, Any]] = []
        self.exit_code: int | None = None
        self._channel: queue.Queue[Event] = queue.Queue(_ROOM)
        self._draining = threading.Event()
        self._draining.set()
        self._changed = threading.Condition()
        readers = [
            threading.Thread(target=self._read, args=(name, getattr(self.child, name)), daemon=True)
            for name in ("stdout", "stderr")
        ]
        waiter = threading.Thread(target=self._wait, args=(readers,), daemon=True)
        self._threads = [*readers, waiter, threading.Thread(target=self._drain, daemon=True)]
        for each in self._threads:
            each.start()

    def _read(self, kind: str, pipe: Any) -> None:
        for line in pipe:
            self._channel.put(Event(kind, line.decode(errors="replace").rstrip("\n")))

    def _wait(self, readers: list[threading.Thread]) -> None:
        code = self.child.wait()
        with self._changed:
            self.exit_code = code
            self._changed.notify_all()
        for each in readers:
            each.join()
        self._channel.put(Event("terminated", str(code)))

    def _drain(self) -> None:
        while True:
            self._draining.wait()
            event = self._channel.get()
            with self._changed:
                self.events.append(event)
                if event.kind == "stdout":
                    self.lines.append(json.loads(event.text))
                self._changed.notify_all()
            if event.kind == "terminated":
                return

    def stop_draining(self) -> None:
        """Take no more events; one more may be on its way."""
        self._draining.clear()

    def go_on_draining(self) -> None:
        self._draining.set()

    def send(self, line: bytes) -> None:
        """Write to its stdin; one that is gone is fine."""
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):
            self.child.stdin.write(line)

    def say(self, kind: str, **members: Any) -> None:
        self.send(json.dumps({"type": kind, **members}).encode() + b"\n")

    def close_stdin(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()

    def hear(self, kind: str, *, within_s: float = 15) -> dict[str, Any]:
        """Wait for a line of this type on stdout; return it."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if line.get("type") == kind), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._is_over, within_s)
            line = found()
        assert line is not None, f"no {kind}: {self.events[-20:]}"
        return line

    @property
    def _is_over(self) -> bool:
        return bool(self.events) and self.events[-1].kind == "terminated"

    def ready(self, **members: Any) -> dict[str, Any]:
        """Send the start line and wait for the answer."""
        self.send(start_line(**members))
        return self.hear("ready")

    def exits(self, *, within_s: float = 10) -> int:
        """Wait for the direct child to end; return its exit code."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.exit_code is not None, within_s), self.events[-20:]
        assert self.exit_code is not None
        return self.exit_code

    def said(self) -> list[str]:
        """Return the types of all lines of a launch that is over."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_over, 5), self.events[-20:]
        return [line["type"] for line in self.lines]

    def stderr(self) -> str:
        return "\n".join(event.text for event in self.events if event.kind == "stderr")

    def kill(self, *, keep_stdin: bool = False) -> None:
        """End the direct child with SIGKILL and drop its stdin; what it started lives on for now."""
        self.child.kill()
        if not keep_stdin:
            self.close_stdin()

    def repeat_events(self) -> None:
        """Print every event as it comes, for ever."""
        printed = 0

        def is_behind() -> bool:
            return len(self.events) > printed

        while True:
            with self._changed:
                self._changed.wait_for(is_behind)
                fresh = self.events[printed:]
            for event in fresh:
                print(json.dumps(event), flush=True)
            printed += len(fresh)

    def left(self) -> list[int]:
        """Return the pids of everything of this launch that still runs."""
        return processes_with(self.mark)

    def leaves_nothing(self, *, within_s: float = 2.0) -> None:
        until(lambda: not self.left(), within_s=within_s, what=f"an end of {self.left()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.left():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.go_on_draining()
        for each in self._threads:
            each.join(10)
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            assert pipe is not None
            pipe.close()


def processes_with(mark: str) -> list[int]:
    """Return who has a launch's mark in the environment and is no zombie."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            marked = mark.encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if marked:  # a zombie's environment is empty
            found.append(int(entry.name))
    return found


def main() -> None:
    """Run a sidecar until somebody kills us: argv is its command, events are repeated as JSON lines."""
    host = Host(sys.argv[1:], environ={_MARK: os.environ[_MARK]})
    host.send(start_line())
    host.repeat_events()


class FarHost:
    """A host in a process of its own, so that it can be killed."""

    def __init__(
        self, data_dir: Path, *, bootloader: bool = False, argv: Sequence[str] | None = None
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.sidecar.host", *(argv or command(data_dir, bootloader=bootloader))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env={**os.environ, _MARK: self.mark},
            text=True,
        )

    def ready(self) -> dict[str, Any]:
        """Wait until its sidecar is ready; return that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = Event(*json.loads(line))
            if event.kind == "stdout":
                said = json.loads(event.text)
                assert said["type"] == "ready", said
                return dict(said)
        raise AssertionError("the host ended")

    def kill(self) -> None:
        self.process.kill()

    def leaves_nothing(self, *, within_s: float = 2.0) -> None:
        until(lambda: not processes_with(self.mark), within_s=within_s, what="an end of it all")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for pid in processes_with(self.mark):
            os.kill(pid, 9)


if __name__ == "__main__":
    main()
