"""The wheel: it holds the schema and the page, installs into an empty environment, and starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bulkops

ROOT = Path(bulkops.__file__).parents[1]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("this is not a checkout: there is nothing to build a wheel from")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("bulkops-*.whl"))


def test_the_wheel_contains_the_schema_and_the_static_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "bulkops/schema.sql" in names
    assert "bulkops/py.typed" in names
    tracked = {path.name for path in (ROOT / "static").iterdir() if path.is_file()}
    assert {f"bulkops/static/{name}" for name in tracked} <= names


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[dict[str, str]]:
    command = [str(python), "-m", "bulkops", "serve", "--port", "0"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    runtime = folder / "bulkops-data" / "runtime.json"
    try:
        deadline = time.monotonic() + 60
        while not runtime.exists():
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not get ready"
            time.sleep(0.05)  # a process to wait for, which rings no bell
        yield json.loads(runtime.read_text())
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_the_wheel_installs_into_an_empty_environment_and_serves(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "bulkops.toml").write_text("[server]\n")
    with serving(python, folder) as running:
        request = urllib.request.Request(f"{running['url']}/api/me", headers={"X-API-Key": running["key"]})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["user"] == "local"
