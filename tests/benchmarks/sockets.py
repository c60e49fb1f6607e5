"""A thousand sockets: what one costs, how soon an event is everywhere, and how many get through."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from tests.benchmarks import application, noise
from tests.benchmarks.houses import configure
from tests.benchmarks.measuring import Finding, Found, Scale, percentile, rate, spread
from tests.benchmarks.servers import read_line
from tests.benchmarks.swarm import Swarm


@dataclass
class Sender:
    """The child that sends."""

    process: subprocess.Popen[bytes]
    port: int
    keys: list[str]

    def send(self, count: int, gap_ms: float) -> None:
        """Have it write so many events."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"send {count} {gap_ms}\n".encode())
        self.process.stdin.flush()

    def rss_kb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024


@contextmanager
def _sender(*arguments: str) -> Iterator[Sender]:
    command = [sys.executable, "-m", "tests.benchmarks.socket_server", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            ready = msgspec.json.decode(read_line(process.stdout))
            yield Sender(process, ready["port"], ready["keys"])
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=30)


async def _burst(sender: Sender, swarm: Swarm, count: int, sent: int) -> float:
    swarm.expect(sent + count)
    began = time.perf_counter()
    sender.send(count, 0)
    await swarm.all_arrived()
    return time.perf_counter() - began


async def _house(sender: Sender, sockets: int, burst: int, paced: int, repeats: int) -> _House:
    swarm = Swarm(sender.port, bare=False)
    await swarm.connect(20, sender.keys)  # what the first sockets bring along is not theirs alone
    await asyncio.sleep(1)
    before = sender.rss_kb()
    await swarm.connect(sockets - 20, sender.keys)
    await asyncio.sleep(2)
    each_kb = (sender.rss_kb() - before) / (sockets - 20)
    sent = 0
    bursts = []
    for _ in range(repeats):
        bursts.append(await _burst(sender, swarm, burst, sent))
        sent += burst
    swarm.expect(sent + paced)
    sender.send(paced, 50)
    await swarm.all_arrived()
    delays = [each / 1e6 for each in swarm.delays_ns]
    swarm.close()
    return _House(each_kb, bursts, delays)


@dataclass(frozen=True)
class _House:
    each_kb: float
    bursts_s: list[float]
    delays_ms: list[float]


async def _bare(sender: Sender, sockets: int, burst: int, repeats: int) -> list[float]:
    swarm = Swarm(sender.port, bare=True)
    await swarm.connect(sockets, sender.keys)
    bursts = []
    for turn in range(repeats):
        bursts.append(await _burst(sender, swarm, burst, turn * burst))
    swarm.close()
    return bursts


def fan_out(folder: Path, scale: Scale) -> Found:
    """Connect a thousand sockets to the house and to a bare loop, and send both the same events."""
    sockets, burst = scale.pick(1000, 300), scale.pick(200, 50)
    application.make(folder / "app.db", 10)
    configure(folder)
    with _sender("bare") as sender:
        bare_s = asyncio.run(_bare(sender, sockets, burst, scale.repeats))
    with _sender("house", str(folder), str(sockets)) as sender:
        house = asyncio.run(_house(sender, sockets, burst, scale.pick(400, 100), scale.repeats))
    messages = sockets * burst
    return [
        Finding(
            what=f"events to {sockets:,} sockets against a bare Starlette loop",
            value=median(bare_s) / median(house.bursts_s), unit="x", goal=0.8, sense=">=",
            baseline=rate(messages, median(bare_s)),
            detail=f"{rate(messages, median(house.bursts_s))}; seconds {spread(house.bursts_s)} and {spread(bare_s)}",
        ),
        Finding(
            what=f"commit → client, 20 events/s, {sockets:,} sockets, p99",
            value=percentile(house.delays_ms, 0.99), unit="ms", goal=30, sense="<=",
            baseline=noise.of_this_machine(folder),
            detail=f"p50 {percentile(house.delays_ms, 0.5):.1f} ms, worst {max(house.delays_ms):.1f} ms",
        ),
        Finding(what="memory of an idle socket", value=house.each_kb, unit="KiB", goal=30, sense="<="),
    ]  # fmt: skip
