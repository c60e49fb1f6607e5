"""How long people wait: for an acceptance, and for a small job beside large ones."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.benchmarks import application, noise
from tests.benchmarks.background import busy
from tests.benchmarks.houses import configure
from tests.benchmarks.measuring import Finding, Found, Scale, percentile
from tests.benchmarks.servers import Server, serving

_SMALL = "receipts"


def _accept(server: Server) -> float:
    """Start a job selected through an index and cancel it again; return how long the 202 took."""
    began = time.perf_counter()
    job = server.start(_SMALL, "delete", filter={"status": "closed"})
    waited_s = time.perf_counter() - began
    server.ask("POST", f"/api/jobs/{job}/cancel", {})
    server.wait(job)
    return waited_s


def _accepted(what: str, goal: float, waits: list[float], machine: str) -> Finding:
    return Finding(
        what=what, value=percentile(waits, 0.99) * 1000, unit="ms", goal=goal, sense="<=", baseline=machine,
        detail=f"p50 {percentile(waits, 0.5) * 1000:.1f} ms, worst {max(waits) * 1000:.1f} ms of {len(waits)}",
    )  # fmt: skip


def acceptance(folder: Path, scale: Scale) -> Found:
    """Time `POST` → 202 of jobs over a million rows, alone and beside another such job."""
    tables = [_SMALL, "receipts1"]
    application.make(folder / "app.db", scale.pick(1_120_000, 250_000), tables)
    samples = scale.pick(100, 30)
    with serving(configure(folder, tables=tables)) as server:
        _accept(server)
        idle = [_accept(server) for _ in range(samples)]
        with busy(server, tables[1:]):
            beside = [_accept(server) for _ in range(samples)]
    machine = noise.of_this_machine(folder)
    return [
        _accepted("accepting a 1 M-row job, idle, p99", 20, idle, machine),
        _accepted("accepting a 1 M-row job beside another one, p99", 50, beside, machine),
    ]


def _ask(socket: ClientConnection, **command: object) -> None:
    socket.send(msgspec.json.encode(command).decode())
    socket.recv()


def _follow(server: Server) -> ClientConnection:
    socket = connect(
        f"ws://127.0.0.1:{server.port}/ws",
        additional_headers={"Authorization": f"Bearer {server.key}"},
        subprotocols=[Subprotocol("bulkops.v1")],
        compression=None,
    )
    _ask(socket, type="hello", id=1)
    _ask(socket, type="subscribe", id=2, sub="a", topic={"kind": "all"}, since="now")
    return socket


def _see_through(server: Server, socket: ClientConnection, first: int) -> float:
    began = time.perf_counter()
    job = server.start(_SMALL, "delete", ids=[str(first), str(first + 1), str(first + 2)])
    while True:
        frame = msgspec.json.decode(socket.recv(timeout=30))
        if frame["type"] == "ping":
            socket.send('{"type":"pong"}')
        for event in frame.get("items", ()):
            if event["job"] == job and event["kind"] == "completed":
                return time.perf_counter() - began


def small_job(folder: Path, scale: Scale) -> Found:
    """Time `POST` → completed at a WebSocket client, alone and while four large jobs run."""
    large = [f"receipts{index}" for index in range(1, 5)]
    application.make(folder / "app.db", scale.pick(1_000_000, 200_000), [_SMALL, *large])
    samples = scale.pick(100, 30)
    with serving(configure(folder, tables=[_SMALL, *large])) as server, _follow(server) as socket:
        alone = [_see_through(server, socket, 1 + 3 * index) for index in range(20)]
        with busy(server, large):
            waits = [_see_through(server, socket, 1000 + 3 * index) for index in range(samples)]
    return [
        Finding(
            what="3-item job, POST → completed at a socket, beside four 1 M-row jobs, p99",
            value=percentile(waits, 0.99) * 1000, unit="ms", goal=300, sense="<=",
            baseline=f"p50 {percentile(alone, 0.5) * 1000:.1f} ms alone; {noise.of_this_machine(folder)}",
            detail=f"p50 {percentile(waits, 0.5) * 1000:.1f} ms, worst {max(waits) * 1000:.1f} ms of {len(waits)}",
        )
    ]  # fmt: skip
