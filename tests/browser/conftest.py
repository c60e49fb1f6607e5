"""A real Chromium, a real server on the demo's data, and a page that may not violate its own policy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bulkops.demo import prepare
from tests.browser.desk import Desk
from tests.js.demo_server import DemoServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module: while the driver runs, its event loop stands in every other test's way."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "demo"
    prepare(folder)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A demo of the test's own, not yet served."""
    return Path(shutil.copytree(template, tmp_path / "demo"))


@pytest.fixture
def server(folder: Path) -> Iterator[DemoServer]:
    with DemoServer(folder) as running:
        yield running


@pytest.fixture
def desk(chromium: Browser, server: DemoServer) -> Iterator[Desk]:
    """The page, logged in by the one-time link; at the end it must have kept its policy."""
    with Desk(chromium, server) as one:
        one.log_in()
        yield one


@pytest.fixture(scope="module")
def standing(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A server that the tests of one module share."""
    folder = tmp_path_factory.mktemp("standing") / "demo"
    with DemoServer(Path(shutil.copytree(template, folder))) as running:
        yield running


@pytest.fixture
def visit(chromium: Browser, standing: DemoServer) -> Iterator[Desk]:
    """The page of an owner on the module's server; at the end it must have kept its policy."""
    with Desk(chromium, standing) as one:
        one.log_in_by_key()
        yield one


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "axe-core@4"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode != 0:
        pytest.skip("npm cannot install axe-core here")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()
