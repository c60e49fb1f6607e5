"""A server of the live routes in a process of its own that does what it is told.

`python -m tests.live.told_server DIR USERS` prints one JSON line (port, keys, epoch, job), then obeys lines:
`tell COUNT GAP_MS BYTES` writes that many events, `end` ends the job; each is
answered with the head's seq and the number of followers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from starlette.routing import Router

from bulkops.store.jobs import JobRow
from bulkops.web.guard import Guard, gate
from bulkops.web.live import live_routes
from bulkops.web.live.sessions import Limits
from bulkops.web.problems import Boundary
from bulkops.web.server import serve
from tests.live_house import House, open_house

LIMITS = Limits(blocked_s=3, max_sessions=100)


async def obey(house: House, job: JobRow) -> None:
    """Do what the lines say until there are no more."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.split():
            case ["tell", count, gap_ms, size]:
                due = loop.time()
                for _ in range(int(count)):
                    seq = await house.tell(job, "updated", t=time.monotonic_ns(), pad="x" * int(size))
                    due += float(gap_ms) / 1000
                    await asyncio.sleep(max(0, due - loop.time()))
            case _:
                seq = await house.end(job)
        print(json.dumps({"seq": seq, "followers": house.feed.statistics().followers}), flush=True)


async def main(path: Path, users: int) -> None:
    async with open_house(path) as house:
        keys = [await house.key(user=f"u{number}", role="admin") for number in range(users)]
        job = await house.new_job()
        ready = {"keys": keys, "epoch": house.store.epoch, "job": job.id}
        async with asyncio.TaskGroup() as group:
            group.create_task(
                serve(
                    Guard(
                        Boundary(Router(routes=live_routes(house, house.authentication, limits=LIMITS))),
                        gate([], []),
                    ),
                    host="127.0.0.1",
                    port=0,
                    draining=house.draining,
                    on_ready=lambda _, port: print(json.dumps({"port": port, **ready}), flush=True),
                )
            )
            await obey(house, job)
            house.draining.set()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
