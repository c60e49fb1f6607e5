"""The process that sends: the real house behind its real server, or a bare Starlette loop, told what to do by lines.

`python -m tests.benchmarks.socket_server house FOLDER` or `… bare`. It prints one JSON line with its port
and keys, then obeys lines of standard input: `send COUNT GAP_MS` writes that many events, one after another.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bulkops.configuration import load
from bulkops.ids import new_id
from bulkops.runtime import Runtime, open_runtime
from bulkops.states import Source, Status
from bulkops.store import credentials, events
from bulkops.store.jobs import JobRow, Knobs, Selection
from bulkops.store.transaction import Tx
from bulkops.web.app import build_app
from bulkops.web.server import serve

_SOCKETS_A_USER: Final = 10
_PAD: Final = "x" * 60


def _data(number: int) -> dict[str, Any]:
    return {"n": number, "t": time.monotonic_ns(), "pad": _PAD}


def _a_job() -> JobRow:
    return JobRow(
        id=new_id(), resource="receipts", action="delete", requested_by="local", source=Source.USER,
        status=Status.QUEUED, priority=100, selection=Selection(kind="all"), options={}, knobs=Knobs(),
        identity="-", total=10, queued_ms=0, created_ms=0, updated_ms=0,
    )  # fmt: skip


async def _obey(send: Callable[[int], Awaitable[None]]) -> None:
    """Do what the lines say until there are no more."""
    loop = asyncio.get_running_loop()
    number = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, count, gap_ms = line.split()
        due = loop.time()
        for _ in range(int(count)):
            number += 1
            await send(number)
            due += float(gap_ms) / 1000
            await asyncio.sleep(max(0, due - loop.time()))


async def _keys(runtime: Runtime, sockets: int) -> list[str]:
    def create(tx: Tx) -> list[str]:
        users = range(-(-sockets // _SOCKETS_A_USER))
        return [credentials.create_key(tx, user=f"u{index}", role="owner")[1] for index in users]

    return await runtime.store.write(create)


async def _serve_house(folder: Path, sockets: int) -> None:
    async with open_runtime(load(folder / "bulkops.toml", environ={})) as runtime:
        keys, job = await _keys(runtime, sockets), _a_job()

        async def send(number: int) -> None:
            await runtime.store.write(lambda tx: events.append(tx, job, "updated", _data(number)))

        await _serve(build_app(runtime), runtime.draining, keys, send)


async def _serve_bare() -> None:
    sockets: set[WebSocket] = set()

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        sockets.add(socket)
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(socket)

    async def send(number: int) -> None:
        text = msgspec.json.encode({**_envelope(number), "data": _data(number)}).decode()
        for socket in sockets:
            await socket.send_text(text)

    await _serve(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), asyncio.Event(), ["-"], send)


def _envelope(number: int) -> dict[str, Any]:
    """Return what else the house's frames say, so that both send as many bytes."""
    return {
        "type": "events", "sub": "a", "prev": f"0123456789:{number}", "cursor": f"0123456789:{number}",
        "items": [{"seq": number, "kind": "updated", "at": "2026-01-01T00:00:00.000Z", "job": new_id(),
                   "task_id": None, "task_type": None, "project": None, "source": "user",
                   "resource": "receipts", "action": "delete"}],
    }  # fmt: skip


async def _serve(
    app: Any, draining: asyncio.Event, keys: list[str], send: Callable[[int], Awaitable[None]]
) -> None:
    def ready(_: str, port: int) -> None:
        print(msgspec.json.encode({"port": port, "keys": keys}).decode(), flush=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(serve(app, host="127.0.0.1", port=0, draining=draining, on_ready=ready))
        await _obey(send)
        draining.set()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        asyncio.run(_serve_bare())
    else:
        asyncio.run(_serve_house(Path(sys.argv[2]), int(sys.argv[3])))
