"""A process of its own that serves the live routes: `python -m tests.live_server DIR [MAX_FILES]`.

Prints one JSON line when it is ready (port, key) and one when it has ended (signal).
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from starlette.routing import Router

from bulkops.web.guard import Guard, gate
from bulkops.web.live import live_routes
from bulkops.web.problems import Boundary
from bulkops.web.server import serve
from tests.live_house import open_house


async def main(path: Path) -> None:
    async with open_house(path) as house:
        key = await house.key()
        caught = await serve(
            Guard(Boundary(Router(routes=live_routes(house, house.authentication))), gate([], [])),
            host="127.0.0.1",
            port=0,
            draining=house.draining,
            on_ready=lambda _, port: print(json.dumps({"port": port, "key": key}), flush=True),
        )
    print(json.dumps({"signal": caught}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
    asyncio.run(main(Path(sys.argv[1])))
