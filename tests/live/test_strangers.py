"""Clients that nobody here wrote follow the wire: each hears a whole job, and comes back to what it missed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkops.store.jobs import JobRow
from tests.live_house import House, client, open_house, served, until

NODE = shutil.which("node")
NPM = shutil.which("npm")
CURL = shutil.which("curl")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[House, int, str, JobRow]]:
    async with open_house(path) as house, served(house) as port:
        yield house, port, await house.key(), await house.new_job()


@asynccontextmanager
async def running(
    *command: str, cwd: Path | None = None, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=os.environ | environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """Read on to the line that has a text in it."""
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(20):
        while line := (await process.stdout.readline()).decode():
            seen += line
            if text in line:
                return line
    raise EOFError(seen)


# -- Python


async def test_the_websockets_command_speaks_it_by_hand(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port, key, job):
        caller = await house.credentials.verify(key)
        assert caller is not None
        ticket = await house.credentials.issue_ticket(caller)
        async with running(sys.executable, "-m", "websockets", f"ws://127.0.0.1:{port}/ws") as typed:
            assert typed.stdin is not None

            def say(**message: Any) -> None:
                assert typed.stdin is not None
                typed.stdin.write(json.dumps(message).encode() + b"\n")

            say(type="hello", id=1, ticket=ticket)
            await line_with(typed, '"type":"welcome"')
            say(type="subscribe", id=2, sub="a", topic={"kind": "job", "job": job.id}, since="earliest")
            await line_with(typed, '"kind":"queued"')
            await house.end(job)
            assert f'"cursor":"{house.store.epoch}:2"' in await line_with(typed, '"kind":"completed"')


async def test_httpx_sse_reads_a_job_to_its_end_and_comes_back_with_the_last_id(tmp_path: Path) -> None:
    httpx_sse = pytest.importorskip("httpx_sse", reason="httpx-sse is not installed")
    async with opened(tmp_path) as (house, port, key, job), client(port, key) as http:
        path = f"/api/jobs/{job.id}/events"
        async with httpx_sse.aconnect_sse(http, "GET", path, params={"since": "earliest"}) as source:
            async for event in source.aiter_sse():
                if event.event == "queued":
                    break
            assert event.json()["job"] == job.id
            last, retry = event.id, event.retry
        assert retry is None
        await house.tell(job, "started")
        await house.end(job)
        async with httpx_sse.aconnect_sse(http, "GET", path, headers={"Last-Event-ID": last}) as source:
            # httpx-sse shows the block that sets `retry` as an event without data; the standard has it pass.
            names = [event.event async for event in source.aiter_sse() if event.data]
        assert names == ["ready", "started", "completed", "end"]


# -- the shell


@pytest.mark.skipif(CURL is None, reason="there is no curl")
async def test_curl_shows_a_stream_as_it_comes_and_ends_with_the_job(tmp_path: Path) -> None:
    async with opened(tmp_path) as (house, port, key, job):
        url = f"http://127.0.0.1:{port}/api/jobs/{job.id}/events?since=earliest"
        for accept, first in (
            ("text/event-stream", "event: queued"),
            ("application/x-ndjson", '"kind":"queued"'),
        ):
            async with running(
                "curl", "-sN", "-H", f"X-API-Key: {key}", "-H", f"Accept: {accept}", url
            ) as curl:
                await line_with(curl, first)
                if accept == "text/event-stream":
                    continue
                await house.end(job)
                await line_with(curl, '"kind":"completed"')
                assert await curl.wait() == 0
        with_id = ["-H", f"Last-Event-ID: {house.store.epoch}:2", "-H", "Accept: text/event-stream"]
        shown = ["-so", "/dev/null", "-w", "%{http_code}\n"]
        async with running("curl", *shown, "-H", f"X-API-Key: {key}", *with_id, url) as curl:
            await line_with(curl, "204")


# -- Node


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the clients from npm; where that cannot be done there is nothing to try."""
    if NODE is None or NPM is None:
        pytest.skip("there is no node or no npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = [
        NPM,
        "install",
        "--no-audit",
        "--no-fund",
        "--silent",
        "ws@8",
        "partysocket@1",
        "eventsource@4",
    ]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install the packages: {error}")
    return folder


RULE = """
const { URL_, KEY, JOB, TICKETS } = process.env;
let mine = "earliest";
const seen = [];
const place = (cursor) => Number(cursor.split(":")[1]);
export function frame({ prev, cursor, items }) {
  if (mine !== "earliest" && place(prev) > place(mine)) throw new Error(`gap: ${prev} after ${mine}`);
  for (const item of items)
    if (mine === "earliest" || item.seq > place(mine)) { seen.push(item.kind); console.log(`heard ${item.kind}`); }
  mine = cursor;
  if (seen.includes("completed")) { console.log(`story ${seen.join(" ")}`); process.exit(0); }
}
export const hello = () => JSON.stringify({ type: "hello", id: 1 });
export const subscribe = () =>
  JSON.stringify({ type: "subscribe", id: 2, sub: "a", topic: { kind: "job", job: JOB }, since: mine });
export function hear(text, send) {
  const message = JSON.parse(text);
  if (message.type === "welcome") send(subscribe());
  if (message.type === "ping") send('{"type":"pong"}');
  if (message.type === "events") frame(message);
}
export { URL_, KEY, JOB, TICKETS };
"""
WS = """
import WebSocket from "ws";
import { URL_, KEY, hello, hear } from "./rule.js";
function connect() {
  const socket = new WebSocket(`${URL_.replace("http", "ws")}/ws`, "bulkops.v1", { headers: { "X-API-Key": KEY } });
  socket.on("open", () => socket.send(hello()));
  socket.on("message", (data) => hear(String(data), (text) => socket.send(text)));
  socket.on("close", (code) => { console.log(`closed ${code}`); setTimeout(connect, 100); });
  socket.on("error", () => {});
}
connect();
"""
PARTY = """
import WebSocket from "ws";
import { WebSocket as PartySocket } from "partysocket";
import { URL_, KEY, hello, hear } from "./rule.js";
const ticket = async () => {
  const answer = await fetch(`${URL_}/api/tickets`,
    { method: "POST", body: "{}", headers: { "X-API-Key": KEY, "Content-Type": "application/json" } });
  return (await answer.json()).ticket;
};
const socket = new PartySocket(`${URL_.replace("http", "ws")}/ws`,
  async () => ["bulkops.v1", `bulkops.ticket.${await ticket().catch(() => "none")}`],
  { WebSocket, minReconnectionDelay: 100, maxReconnectionDelay: 300 });
socket.addEventListener("open", () => socket.send(hello()));
socket.addEventListener("message", (event) => hear(event.data, (text) => socket.send(text)));
socket.addEventListener("close", (event) => console.log(`closed ${event.code}`));
"""
SOURCE = """
import { EventSource } from "eventsource";
import { URL_, KEY, JOB, frame } from "./rule.js";
const source = new EventSource(`${URL_}/api/jobs/${JOB}/events?since=earliest`,
  { fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, "X-API-Key": KEY } }) });
for (const kind of ["queued", "started", "paused", "resumed", "completed"])
  source.addEventListener(kind, (event) => {
    const data = JSON.parse(event.data);
    frame({ prev: data.prev, cursor: event.lastEventId, items: [{ ...data, kind }] });
  });
source.addEventListener("bye", () => console.log("closed 1012"));
"""


@pytest.mark.node
@pytest.mark.parametrize(("name", "script"), [("ws", WS), ("partysocket", PARTY), ("eventsource", SOURCE)])
async def test_a_node_client_follows_over_a_restart_to_the_end(
    tmp_path: Path, packages: Path, name: str, script: str
) -> None:
    assert NODE is not None
    (packages / "rule.js").write_text(RULE)
    (packages / f"{name}.js").write_text(script)
    async with open_house(tmp_path) as house:
        key, job = await house.key(), await house.new_job()
        async with AsyncExitStack() as stack:
            async with served(house) as port:
                environment = {"URL_": f"http://127.0.0.1:{port}", "KEY": key, "JOB": job.id}
                process = await stack.enter_async_context(
                    running(NODE, f"{name}.js", cwd=packages, **environment)
                )
                await line_with(process, "heard queued")
                await house.tell(job, "started")
                await line_with(process, "heard started")
            await line_with(process, "closed 1012")
            await house.tell(job, "paused")
            house.draining.clear()
            async with served(house, port=port):
                await line_with(process, "heard paused")
                await house.tell(job, "resumed")
                await house.end(job)
                assert await line_with(process, "story") == "story queued started paused resumed completed\n"
                assert await process.wait() == 0
        await until(lambda: house.feed.statistics().followers == 0)


async def test_httpx_alone_reads_lines(tmp_path: Path) -> None:
    """The shortest client there is: NDJSON over anybody's HTTP library."""
    async with opened(tmp_path) as (house, port, key, job):
        await house.end(job)
        async with httpx.AsyncClient(headers={"X-API-Key": key, "Accept": "application/x-ndjson"}) as http:
            answer = await http.get(f"http://127.0.0.1:{port}/api/jobs/{job.id}/events?since=earliest")
        assert [json.loads(line)["kind"] for line in answer.text.splitlines()] == ["queued", "completed"]
