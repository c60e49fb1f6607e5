"""The application at work: writes rows of its own all along and notes how long it had to wait for each.

``python -m tests.crashes.writer DATABASE PAUSE_S``; ends at the end of its input and prints what it met.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

_ROOT = Path(__file__).resolve().parents[2]


def work(database: str, pause_s: float) -> dict[str, Any]:
    """Write until the input ends."""
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    connection = sqlite3.connect(database, timeout=5, isolation_level=None)
    waits: list[float] = []
    locked = 0
    while not over.is_set():
        began = time.monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO journal (entry, at) VALUES ('at work', ?)", [began])
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            locked += 1
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        waits.append(time.monotonic() - began)
        over.wait(pause_s)
    connection.close()
    waits.sort()
    return {
        "writes": len(waits) - locked,
        "locked": locked,
        "p50_ms": round(waits[len(waits) // 2] * 1000, 1),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 1),
        "max_ms": round(waits[-1] * 1000, 1),
    }


class ForeignWriter:
    """The process that `work` runs in."""

    def __init__(self, database: Path, pause_s: float = 0.02) -> None:
        self.report: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes.writer", str(database), str(pause_s)],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        out, _err = self._process.communicate("")
        self.report = json.loads(out)


if __name__ == "__main__":
    print(json.dumps(work(sys.argv[1], float(sys.argv[2]))))
