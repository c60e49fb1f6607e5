"""Kill points: every system call by which a run changes the disk, found by watching one run under strace.

A counter of strace counts per thread and per call. So a point names the file too: each file is written by
one thread only, and then "the n-th pwrite64 on app.db-wal" is one instant of the run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

CALLS: Final = (
    "pwrite64", "write", "fdatasync", "fsync", "ftruncate", "renameat2", "rename", "renameat", "unlink",
    "unlinkat", "openat", "mkdir", "mkdirat",
)  # fmt: skip
#: How a run ends whose job is paused (its code is printed), or whose start our disk did not take.
PAUSED: Final = 3
REFUSED: Final = 4
_ROOT: Final = Path(__file__).resolve().parents[2]
#: pid, call, first argument as a descriptor with its path or as a path, the rest
_LINE: Final = re.compile(
    r'^(?P<tid>\d+) +(?P<call>\w+)\((?:(?:\d+|AT_FDCWD)<(?P<fd>[^>]*)>)?(?:, )?(?:"(?P<path>[^"]*)")?(?P<rest>.*)$'
)


class Point(NamedTuple):
    """The ``nth`` time that ``call`` touches ``path`` (relative to the world's folder)."""

    call: str
    path: str
    nth: int


def command(folder: Path, plan: str, *flags: str, driver: str = "tests.crashes.driver") -> list[str]:
    """Return the command that carries out a plan, by the module that is its driver."""
    return [
        sys.executable,
        "-X",
        "frozen_modules=on",
        "-m",
        driver,
        str(folder),
        plan,
        *flags,
    ]


def run(arguments: Sequence[str], *, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's folder; at the timeout it and its children are killed.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    process = subprocess.Popen(
        arguments,
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, trouble = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, trouble)


def watch(folder: Path, plan: str, *, driver: str = "tests.crashes.driver") -> list[Point]:
    """Carry out a plan under strace and list its kill points in the order in which they came."""
    log = folder.parent / f"{folder.name}.strace"
    done = run(
        ["strace", "-f", "-y", "-qq", "-s", "256", "-o", str(log), "-e", "trace=" + ",".join(CALLS),
         "-e", "signal=none", *command(folder, plan, driver=driver)]
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen: Counter[tuple[str, str]] = Counter()
    threads: dict[tuple[str, str], set[str]] = {}
    points = []
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        place = None if found is None else _place(folder, found)
        if found is None or place is None:
            continue
        key = (found["call"], place)
        seen[key] += 1
        threads.setdefault(key, set()).add(found["tid"])
        points.append(Point(*key, seen[key]))
    return points


def _place(folder: Path, found: re.Match[str]) -> str | None:
    if found["call"] == "openat" and "O_CREAT" not in found["rest"]:
        return None
    path = found["fd"] or ""
    if found["path"] is not None and (found["path"].startswith("/") or not path):
        path = found["path"]
    return str(Path(path).relative_to(folder)) if path.startswith(str(folder) + "/") else None


def injected(faults: Sequence[str], paths: Sequence[Path], arguments: Sequence[str]) -> list[str]:
    """Put strace around a command: ``faults`` such as ``fdatasync:error=EIO:when=3`` on these paths only."""
    calls = ",".join(dict.fromkeys(fault.partition(":")[0] for fault in faults))
    around = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    for path in paths:
        around += ["-P", str(path)]
    for fault in faults:
        around += ["-e", f"inject={fault}"]
    return [*around, *arguments]


def kill_at(folder: Path, plan: str, point: Point, *, driver: str = "tests.crashes.driver") -> bool:
    """Carry out a plan with a kill at a point; say whether it came to that point."""
    fault = f"{point.call}:signal=KILL:when={point.nth}"
    done = run(injected([fault], [folder / point.path], command(folder, plan, driver=driver)))
    assert done.returncode in (0, PAUSED, 137, -9), done.stdout + done.stderr
    return done.returncode not in (0, PAUSED)


def die_at(call: str, path: Path, arguments: Sequence[str]) -> None:
    """Run a command that dies when it makes a call on a path."""
    done = run(injected([f"{call}:signal=KILL:when=1"], [path], arguments))
    assert done.returncode in (137, -9), done.stdout + done.stderr
