"""The README's section for pages, word by word, under a real Vite dev server and in a real Chromium."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bulkops
from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

README = (Path(bulkops.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## In a page\n")[2].partition("\n## ")[0]
PLAIN_IMPORT = 'import { connect } from "/static/bulkops.js";\n'
pytestmark = [pytest.mark.browser, pytest.mark.node, pytest.mark.timeout(120)]

FOLLOW_BY_STREAM = """async () => {
  const { connect } = await import("/static/bulkops.js");
  const client = connect({ transports: ["sse"] });
  const job = await client.start("receipts", "restore", { all: true });
  const ending = await client.subscribe({ kind: "job", job: job.id }, { since: job.cursor }).finished();
  client.disconnect();
  return ending.status;
}"""


def block(sign: str) -> str:
    """Return the one code block of the section that has ``sign`` in it."""
    blocks: list[str] = re.findall(r"```\w+\n(.*?)```", SECTION, re.DOTALL)
    (found,) = [each for each in blocks if sign in each]
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Vite is installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no JavaScript runtime here")
    folder = tmp_path_factory.mktemp("vite")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "vite@8"]
    try:
        installed = subprocess.run(command, cwd=folder, capture_output=True, timeout=45, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot install vite here in time")
    tried = [node, "node_modules/vite/bin/vite.js", "--version"]
    if installed.returncode or subprocess.run(tried, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("npm cannot install a vite that runs here")
    return folder


def write_project(project: Path, server: DemoServer) -> None:
    """Write the files of the README, changed only where its words say so."""
    config = block("defineConfig")
    assert "http://127.0.0.1:8765" in config
    (project / "vite.config.js").write_text(config.replace("http://127.0.0.1:8765", server.url))
    script = block("client.start")
    assert script.startswith(PLAIN_IMPORT)
    (project / "main.js").write_text(script.replace(PLAIN_IMPORT, block("@vite-ignore")))
    page = block("<bulk-action").replace("<script ", "<script vite-ignore ")
    (project / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">{page}'
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def vite(project: Path, server: DemoServer) -> Iterator[str]:
    """Where Vite serves the project; its key is that of one tenant's admin."""
    write_project(project, server)
    key = server.ask("POST", "/api/keys", {"user": "ana", "tenant": "nordlicht", "role": "admin"})["key"]
    environment = {**os.environ, "BULKOPS_KEY": key, "NO_COLOR": "1"}
    command = ["node", "node_modules/vite/bin/vite.js", "--strictPort", "--port", str(free_port())]
    told = project / "vite.log"
    with told.open("w") as log:
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
    try:
        found = until(lambda: re.search(r"Local:\s+(http://localhost:\d+)/", told.read_text()), within_s=30)
        yield str(found[1])
        assert "error" not in told.read_text().lower(), told.read_text()
    finally:
        process.terminate()
        process.wait(20)


def test_a_page_behind_vite_starts_jobs_and_follows_them_to_their_end(
    vite: str, chromium: Browser, server: DemoServer
) -> None:
    with Desk(chromium, server) as desk:
        page, sockets, told = desk.page, list[str](), list[str]()
        page.on("websocket", lambda opened: sockets.append(opened.url))
        page.on("console", lambda message: told.append(message.text))
        page.goto(vite)
        page.get_by_role("button", name="Archive closed…").click()
        page.get_by_role("dialog").get_by_role("button", name="receipts").click()
        page.locator("bulk-action bulk-progress").get_by_text("Done", exact=True).wait_for()
        page.evaluate("() => import('/main.js')")
        (finished,) = [line for line in told if line.startswith("finished ")]
        assert re.fullmatch(r"finished completed [1-9]\d* 0", finished)
        assert [line for line in told if line.startswith("progress ")]
        assert f"{vite.replace('http', 'ws')}/ws" in sockets
        page.locator("body > bulk-progress").get_by_text("Done", exact=True).wait_for()
        assert page.evaluate(FOLLOW_BY_STREAM) == "completed"
    jobs = server.ask("GET", "/api/jobs?resource=receipts")["items"]
    assert [(job["action"], job["tenant"]) for job in jobs] == [
        (action, "nordlicht") for action in ("restore", "delete", "archive")
    ]
