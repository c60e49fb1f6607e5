"""The JavaScript client under Node: its rule frame by frame, and real sockets, streams and polls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.js.demo_server import DemoServer, until

HERE = Path(__file__).parent
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.node,
    pytest.mark.timeout(240),
    pytest.mark.skipif(NODE is None, reason="there is no JavaScript runtime here"),
]
ENDS = {"completed", "failed", "cancelled"}


@pytest.mark.parametrize("name", ["protocol", "connection", "model"])
def test_the_client_keeps_the_protocol_frame_by_frame(name: str) -> None:
    command = [NODE or "", "--test", str(HERE / f"{name}.test.mjs")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout[-6000:]


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that a browser has built in, and with foreign clients."""
    npm = shutil.which("npm")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    wanted = ["ws@8", "eventsource@4", "partysocket@1"]
    command = [npm or "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *wanted]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        run = None
    if run is None or run.returncode != 0:
        pytest.skip("npm cannot install ws and eventsource here")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DemoServer]:
    with DemoServer(tmp_path / "demo") as running:
        yield running


class Script:
    """A JavaScript process and the lines it has told so far; a context manager."""

    def __init__(self, name: str, **environment: str) -> None:
        command = [NODE or "", "--unhandled-rejections=strict", str(HERE / name)]
        self.lines: list[Any] = []
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line) if line.startswith("{") else line.strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait(self) -> list[Any]:
        """Wait until it has ended well; returns all it has told."""
        assert self._process.wait(90) == 0, self.lines
        self._reader.join()
        return self.lines

    def has(self, key: str, least: int) -> bool:
        """Say whether it has told of ``key`` at least once with at least this much."""
        return any(isinstance(line, dict) and (line.get(key) or 0) >= least for line in list(self.lines))


def follow(
    server: DemoServer, job: dict[str, Any], modules: Path, transports: str, name: str = "follow.mjs"
) -> Script:
    return Script(
        name,
        URL=server.url,
        KEY=server.key,
        JOB=job["id"],
        SINCE=job["cursor"],
        TRANSPORTS=transports,
        MODULES=str(modules),
    )


def kept(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """List the events that the log keeps, up to the ending (what comes after it is nobody's business)."""
    kinds = [event["kind"] for event in events]
    upto = next(place for place, kind in enumerate(kinds) if kind in ENDS)
    return [(event["seq"], event["kind"]) for event in events[: upto + 1] if event["kind"] != "progress"]


def check_story(told: list[Any], story: list[dict[str, Any]], total: int) -> None:
    """One gapless story: everything but replaced progress, once, in order, with one ending."""
    events = [line for line in told if "seq" in line]
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    assert kept(events) == kept(story)
    assert [event["kind"] for event in events if event["kind"] in ENDS] == ["completed"]
    assert not [line for line in told if "reset" in line]
    processed = [event["processed"] for event in events if event.get("processed") is not None]
    assert processed == sorted(processed)
    finished = told[-1] if "finished" in told[-1] else told[-2]
    assert (finished["finished"], finished["total"], processed[-1]) == ("completed", total, total)


def test_a_server_killed_in_mid_job_is_one_gapless_story_on_every_transport(
    server: DemoServer, modules: Path
) -> None:
    job = server.delete_receipts("nordlicht")
    ways = ["ws", "sse", "poll", "ws,sse,poll"]
    scripts = [follow(server, job, modules, way) for way in ways]
    try:
        until(lambda: all(script.has("processed", 200) for script in scripts))
        server.kill()
        seen = [len(script.lines) for script in scripts]
        server.start()
        told = [script.wait() for script in scripts]
    finally:
        for script in scripts:
            script.__exit__()
    story = server.story(job)
    for lines, before in zip(told, seen, strict=True):
        check_story(lines, story, 1500)
        assert len([line for line in lines[before:] if "seq" in line]) > 3, "it was killed in mid-job"
        assert [line for line in lines if line.get("state") == "connecting"][1:], "it had to come back"


def test_a_job_that_is_started_while_the_server_is_away_is_started_once(server: DemoServer) -> None:
    body = json.dumps({"filter": {"status": "closed"}, "tenant": "oak", "confirm": "DELETE"})
    server.kill()
    with Script("start.mjs", URL=server.url, KEY=server.key, BODY=body) as script:
        until(lambda: script.lines)
        server.start()
        started = script.wait()[-1]
    found = server.ask("GET", "/api/jobs?resource=receipts&action=delete")["items"]
    assert [job["id"] for job in found] == [started["id"]]


def test_a_job_that_has_ended_is_told_to_have_ended_on_every_transport(
    server: DemoServer, modules: Path
) -> None:
    job = server.delete_receipts("oak", batch_size=1000, throttle_ms=0)
    ended = server.ask("GET", f"/api/jobs/{job['id']}?wait=30")
    assert ended["terminal"]
    for way in ("ws", "sse", "poll"):
        with follow(server, ended, modules, way) as script:
            told = script.wait()
        assert {"finished": "completed", "outcome": "ok", "succeeded": 1200, "total": 1200} in told


def test_clients_that_nobody_here_wrote_follow_a_job_to_its_end(server: DemoServer, modules: Path) -> None:
    job = server.delete_receipts("oak")
    with follow(server, job, modules, "", "foreign.mjs") as script:
        told = script.wait()[-1]
    for kinds in (told["socket"], told["stream"]):
        assert kinds.count("completed") == 1
        assert "progress" in kinds
