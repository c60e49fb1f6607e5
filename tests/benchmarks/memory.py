"""What the server holds in memory: idle, during the largest jobs, for each socket that listens."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Self

from tests.benchmarks import application
from tests.benchmarks.houses import configure
from tests.benchmarks.measuring import Finding, Found, Scale
from tests.benchmarks.servers import Server, serving


class Peak:
    """The most a server held while a thread looked, many times a second."""

    def __init__(self, server: Server) -> None:
        self.mb = server.rss_mb()
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.mb = max(self.mb, self._server.rss_mb())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _run(server: Server, **body: object) -> float:
    with Peak(server) as peak:
        view = server.wait(server.start("receipts", "delete", all=True, **body))
    if view["outcome"] != "ok":
        raise RuntimeError(f"the job ended {view}")
    return peak.mb


def _measure(folder: Path, **body: object) -> tuple[float, float, float]:
    """Return MiB: idle, added at the peak of a job, and added some seconds after it."""
    with serving(configure(folder)) as server:
        server.wait(server.start("receipts", "delete", ids=["1"]))
        server.start("receipts", "restore", ids=["1"])
        time.sleep(1)
        idle = server.rss_mb()
        peak = _run(server, **body)
        time.sleep(3)
        return idle, peak - idle, server.rss_mb() - idle


def jobs(folder: Path, scale: Scale) -> Found:
    """Watch a server's resident memory before, during and after a soft and a hard delete of everything."""
    rows = scale.pick(10_000_000, 1_000_000)
    application.make(folder / "original.db", rows)
    soft = folder / "soft"
    application.copy(folder / "original.db", soft)
    idle, added, _ = _measure(soft)
    hard = folder / "hard"
    application.copy(folder / "original.db", hard)
    _, hard_added, left = _measure(hard, options={"hard": True})
    return [
        Finding(what="RSS idle", value=idle, unit="MB", goal=50, sense="<="),
        Finding(
            what=f"RSS added by a soft delete of {rows:,}", value=added, unit="MB", goal=20, sense="<="
        ),
        Finding(
            what=f"RSS added by a hard delete of {rows:,}", value=hard_added, unit="MB", goal=90, sense="<=",
            detail=f"{left:.1f} MB of it 3 s after its end",
        ),
    ]  # fmt: skip
