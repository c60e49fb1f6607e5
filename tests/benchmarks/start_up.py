"""From the start of the process to its ready line, against the bare stack it is built on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks import application
from tests.benchmarks.houses import configure
from tests.benchmarks.measuring import Finding, Found, Scale, spread, stopwatch
from tests.benchmarks.servers import read_line

_BARE = """
import asyncio, sys
import aiosqlite, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

async def hello(request):
    return PlainTextResponse("hello")

async def main():
    async with aiosqlite.connect(sys.argv[1]) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        app = Starlette(routes=[Route("/", hello)])
        config = uvicorn.Config(
            app, port=0, loop="asyncio", http="httptools", ws="websockets-sansio", log_level="warning"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        print("ready", flush=True)
        server.should_exit = True
        await serving

asyncio.run(main())
"""
_START = '{"type":"start"}\n'


def _ready_s(command: list[str], compiled: Path, told: str = "") -> float:
    # As installed programs do, both find their bytecode written, whatever this environment says.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(compiled)
    pipe = subprocess.PIPE
    with stopwatch() as watch, subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environ) as process:
        assert process.stdin is not None
        process.stdin.write(told.encode())
        process.stdin.flush()
        read_line(process.stdout)
        ready_s = watch.so_far()
        process.terminate()
        process.wait()
    return ready_s


def ready(folder: Path, scale: Scale) -> Found:
    """Start both in turn, several times."""
    application.make(folder / "app.db", 1000)
    config = configure(folder)
    ours = [sys.executable, "-m", "bulkops", "--config", str(config), "serve", "--json"]
    bare = [sys.executable, "-c", _BARE, str(folder / "bare.db")]
    compiled = folder / "compiled"
    sidecar = [
        sys.executable,
        "-m",
        "bulkops",
        "sidecar",
        "--config",
        str(config),
        "--data-dir",
        str(folder / "data"),
    ]

    def once() -> tuple[float, float, float]:
        return _ready_s(ours, compiled), _ready_s(sidecar, compiled, _START), _ready_s(bare, compiled)

    once()  # writes the bytecode, and our databases
    times = [once() for _ in range(scale.pick(15, 7))]
    ours_s, sidecar_s, bare_s = (median(column) for column in zip(*times, strict=True))
    return [
        Finding(
            what="start to ready against the bare stack", value=ours_s / bare_s, unit="x", goal=1.6, sense="<=",
            baseline=f"{bare_s * 1000:.0f} ms",
            detail=f"{ours_s * 1000:.0f} ms; runs {spread([each[0] / each[2] for each in times])}",
        ),
        Finding(
            what="sidecar, start to ready against the bare stack", value=sidecar_s / bare_s, unit="x", goal=1.6,
            sense="<=", baseline=f"{bare_s * 1000:.0f} ms",
            detail=f"{sidecar_s * 1000:.0f} ms; runs {spread([each[1] / each[2] for each in times])}",
        ),
    ]  # fmt: skip
