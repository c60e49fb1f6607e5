"""The real server is killed in mid-job and started again, while clients of every face follow by the rule."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from bulkops import runtime_file
from bulkops.store.events import TERMINAL_KINDS, Cursor
from tests.client_rule import ClientRule, Gap
from tests.test_cli import CONFIG, App

LOST = (OSError, EOFError, ConnectionClosed, InvalidHandshake, httpx.TransportError)


class Fixed(App):
    """An application whose server always comes back at the same address, as behind a name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with closing(socket.create_server(("127.0.0.1", 0))) as found:
            self.port = found.getsockname()[1]
        self.config.write_text(CONFIG.replace("port = 0", f"port = {self.port}"))

    @contextmanager
    def killed(self) -> Iterator[subprocess.Popen[str]]:
        """Serve until the block ends with a kill, unless it was ended before."""
        process = self.process("serve", "--json")
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield process
        finally:
            process.kill()
            process.communicate()

    def key(self) -> str:
        running = runtime_file.find_running(self.folder / "bulkops-data")
        assert running is not None
        return running.key

    def make_keys(self, count: int) -> list[str]:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"X-API-Key": self.key()}
        ) as http:
            made = [
                http.post("/api/keys", json={"user": f"u{number}", "role": "owner"})
                for number in range(count)
            ]
        return [each.raise_for_status().json()["key"] for each in made]


class Follower:
    """A client of one face, which comes back until its job has ended."""

    face: str

    def __init__(self, port: int, key: str, job: str, cursor: str) -> None:
        self.url = f"127.0.0.1:{port}"
        self.headers = {"X-API-Key": key}
        self.job = job
        self.rule = ClientRule()
        self.rule.fetched(Cursor.parse(cursor))
        self.connected = 0
        self.ended = False

    async def run(self) -> None:
        while not self.ended:
            try:
                await self.follow()
            except (*LOST, Gap):
                await asyncio.sleep(0.1)

    async def follow(self) -> None:
        raise NotImplementedError

    def take(self, prev: str, cursor: str, items: list[dict[str, Any]]) -> None:
        self.rule.take(
            Cursor.parse(prev), Cursor.parse(cursor), [(each["seq"], each["kind"]) for each in items]
        )
        self.ended = self.ended or any(each["kind"] in TERMINAL_KINDS for each in items)


class OverSocket(Follower):
    async def follow(self) -> None:
        protocols = [Subprotocol("bulkops.v1")]
        async with connect(
            f"ws://{self.url}/ws", subprotocols=protocols, additional_headers=self.headers, close_timeout=1
        ) as wire:
            topic, since = {"kind": "job", "job": self.job}, str(self.rule.mine)
            await wire.send('{"type":"hello"}')
            await wire.send(json.dumps({"type": "subscribe", "sub": "a", "topic": topic, "since": since}))
            async for text in wire:
                message = json.loads(text)
                assert message["type"] not in {"reset", "error"}, message
                if message["type"] == "subscribed":
                    assert message["recovered"], message
                    self.connected += 1
                elif message["type"] == "events":
                    self.take(message["prev"], message["cursor"], message["items"])
                    if self.ended:
                        return


class OverHttp(Follower):
    async def follow(self) -> None:
        async with httpx.AsyncClient(base_url=f"http://{self.url}", headers=self.headers, timeout=15) as http:
            await self.ask(http)

    async def ask(self, http: httpx.AsyncClient) -> None:
        raise NotImplementedError


class OverStream(OverHttp):
    async def ask(self, http: httpx.AsyncClient) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.rule.mine)}
        async with http.stream("GET", f"/api/jobs/{self.job}/events", headers=headers) as answer:
            self.connected += 1
            async for name, at, data in events_of(answer):
                assert name != "reset"
                if name == "ready":
                    assert data["recovered"], data
                elif at is not None:
                    self.take(data["prev"], at, [{**data, "kind": name}])


class OverPolls(OverHttp):
    async def ask(self, http: httpx.AsyncClient) -> None:
        self.connected += 1
        while not self.ended:
            params = {"topic": f"job:{self.job}", "since": str(self.rule.mine), "wait": "5"}
            page = (await http.get("/api/events", params=params)).json()
            self.take(page["prev"], page["cursor"], page["items"])


async def events_of(answer: httpx.Response) -> AsyncIterator[tuple[str, str | None, dict[str, Any]]]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, colon, value = line.partition(": ")
        if colon:
            fields[name] = value
        elif not line:
            if "data" in fields:
                yield fields["event"], fields.get("id"), json.loads(fields["data"])
            fields = {}


def lasting(folder: Path, job: str) -> dict[int, str]:
    """Return what the log itself has of a job, but for progress, which is replaced."""
    with closing(sqlite3.connect(folder / "bulkops.db")) as database:
        rows = database.execute("SELECT seq, kind FROM events WHERE job = ? AND kind <> 'progress'", [job])
        return dict(rows.fetchall())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "kill",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)],
    ids=["killed", "restarted"],
)
async def test_fifty_clients_see_one_story_over_two_ends_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: signal.Signals
) -> None:
    monkeypatch.delenv("BULKOPS_KEY", raising=False)
    app = Fixed(tmp_path)
    async with asyncio.TaskGroup() as group:
        with app.killed() as first:
            keys = app.make_keys(5)
            job = app.json("start", "notes", "close", "--all", "--tenant", "a", "--throttle-ms", "60")
            faces: list[type[Follower]] = [OverSocket, OverStream, OverPolls]
            followers = [
                faces[number % 3](app.port, keys[number % 5], job["id"], job["cursor"])
                for number in range(50)
            ]
            # A poll may be answered by one server and ask the next; it notices no restart then.
            held = [each for each in followers if not isinstance(each, OverPolls)]
            for each in followers:
                group.create_task(each.run())
            await until(lambda: all(each.connected and len(each.rule.applied) > 1 for each in followers))
            first.send_signal(kill)
            await asyncio.to_thread(first.wait)
        with app.killed() as second:
            await until(lambda: all(each.connected > 1 for each in held))
            before = [len(each.rule.applied) for each in followers]
            await until(
                lambda: all(len(each.rule.applied) > n for each, n in zip(followers, before, strict=True))
            )
            second.send_signal(kill)
            await asyncio.to_thread(second.wait)
        with app.killed():
            async with asyncio.timeout(40):
                while not all(each.ended for each in followers):
                    await asyncio.sleep(0.05)
            done = app.json("watch", job["id"])
    assert (done["succeeded"], done["failed"], done["skipped"]) == (96, 0, 4)
    story = lasting(tmp_path, job["id"])
    end = max(seq for seq, kind in story.items() if kind == "completed")
    promised = {seq: kind for seq, kind in story.items() if Cursor.parse(job["cursor"]).seq < seq <= end}
    for each in followers:
        applied = {seq: kind for seq, kind in each.rule.applied.items() if kind != "progress" and seq <= end}
        assert applied == promised
    assert all(each.connected >= 3 for each in held)
