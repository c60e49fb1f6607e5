"""Many clients follow a job while some never read: flat memory, the others' latency, and nobody loses anything."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.crowd import Member, raise_file_limit

CHECKOUT = Path(__file__).parents[2]


class Told:
    """The server process."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self.process = process
        self.port: int = ready["port"]
        self.keys: list[str] = ready["keys"]
        self.epoch: str = ready["epoch"]
        self.job: str = ready["job"]
        self.followers = 0

    async def do(self, order: str) -> int:
        """Have an order carried out; return the head after it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n".encode())
        answer = json.loads(await self.process.stdout.readline())
        self.followers = answer["followers"]
        return int(answer["seq"])

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def told_server(path: Path, users: int) -> AsyncIterator[Told]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.live.told_server", str(path), str(users),
        cwd=CHECKOUT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Told(process, json.loads(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def p99(delays_ms: list[float]) -> float:
    return sorted(delays_ms)[int(len(delays_ms) * 0.99)]


def latency(members: list[Member]) -> float:
    found = p99([delay for each in members for delay in each.delays_ms])
    for each in members:
        each.delays_ms.clear()
    return found


@pytest.mark.parametrize(
    ("clients", "deaf_ones"), [(200, 20), pytest.param(1000, 100, marks=pytest.mark.soak)]
)
async def test_clients_that_never_read_cost_the_others_nothing_and_come_back_to_everything(
    tmp_path: Path, clients: int, deaf_ones: int
) -> None:
    raise_file_limit()
    async with told_server(tmp_path, users=20) as server:
        members = [Member(server.job, server.epoch, server.keys[number % 20]) for number in range(clients)]
        deaf, others = members[:deaf_ones], members[deaf_ones:]
        for first in range(0, clients, 100):
            await asyncio.gather(
                *(each.connect(server.port, small=each in deaf) for each in members[first : first + 100])
            )

        # Everybody reads.
        await server.do("tell 60 50 3000")
        before_ms, before_mb = latency(members), server.rss_mb()

        # Some stop; what is written until the last of them is let go does not fit into any buffer.
        for each in deaf:
            each.transport.pause_reading()
        worst_mb = before_mb
        while server.followers > len(others):
            head = await server.do("tell 20 50 3000")
            worst_mb = max(worst_mb, server.rss_mb())
        during_ms, growth_mb = latency(others), worst_mb - before_mb
        print(f"p99 {before_ms:.1f} → {during_ms:.1f} ms, {growth_mb:+.1f} MB while {deaf_ones} never read")
        # A transport holds back what it could not write: 64 KiB and the frame that went over it.
        assert growth_mb < 6 + deaf_ones * 0.2
        assert during_ms < 2 * before_ms + 50

        # They come back.
        for each in deaf:
            each.transport.abort()
        await asyncio.gather(*(each.lost.wait() for each in deaf))
        assert all(each.rule.mine is not None and each.rule.mine.seq < head for each in deaf)
        await asyncio.gather(*(each.connect(server.port) for each in deaf))
        await server.do("tell 5 20 100")
        last = await server.do("end")
        async with asyncio.timeout(20):
            await asyncio.gather(*(each.ended.wait() for each in members))
        story = dict.fromkeys(range(2, last), "updated") | {1: "queued", last: "completed"}
        for each in members:
            assert each.rule.applied == story
        for each in members:
            each.transport.abort()
