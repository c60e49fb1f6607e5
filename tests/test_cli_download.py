"""`bulkops download`: what a job made, with a server and without one, checked on the way in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bulkops.cli import main
from tests.crashes.servers import Server
from tests.engine_house import make_database
from tests.test_stories import ROWS

CONFIG = """
[resources.things]
kind = "table"
database = "app.db"
table = "t"
id = "id"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("download")
    make_database(made / "app.db", ROWS.format(count=50))
    (made / "bulkops.toml").write_text(CONFIG)
    return made


@pytest.fixture(scope="module")
def job(folder: Path) -> Iterator[dict[str, Any]]:
    with Server(folder):
        result = run(folder, "--json", "start", "things", "export", "--all", "--wait")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        yield found


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(folder / "bulkops.toml"), *words])


def content_of(folder: Path, job: dict[str, Any]) -> bytes:
    path: Path = folder / "bulkops-data" / "artifacts" / job["artifacts"][0]["id"]
    return path.read_bytes()


def test_a_start_that_waits_says_what_was_made_and_how_to_have_it(folder: Path, job: dict[str, Any]) -> None:
    result = run(folder, "start", "things", "export", "--id", "1", "--wait")
    assert "bulkops download " in result.stdout
    assert result.stdout.count("things-export-") == 1
    assert job["artifacts"][0]["status"] == "ready"


def test_a_download_is_named_by_the_job_or_by_the_artifact(
    folder: Path, job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (artifact,) = job["artifacts"]
    for word in (job["id"], artifact["id"]):
        out = tmp_path / word
        result = run(folder, "download", word, "--output", str(out))
        assert result.exit_code == 0, result.output
        assert hashlib.sha256(out.read_bytes()).hexdigest() == artifact["sha256"]
    monkeypatch.chdir(tmp_path)
    assert run(folder, "download", job["id"]).exit_code == 0
    assert (tmp_path / artifact["name"]).read_bytes() == content_of(folder, job)
    told = json.loads(run(folder, "--json", "download", job["id"], "--output", "again.csv").stdout)
    assert (told["path"], told["id"]) == ("again.csv", artifact["id"])


def test_a_download_goes_to_standard_output_too(folder: Path, job: dict[str, Any]) -> None:
    result = run(folder, "download", job["id"], "--output", "-")
    assert result.stdout_bytes == content_of(folder, job)


def test_nothing_is_overwritten(folder: Path, job: dict[str, Any], tmp_path: Path) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine")
    result = run(folder, "download", job["id"], "--output", str(there))
    assert result.exit_code == 2
    assert there.read_text() == "mine"


def test_what_came_otherwise_than_recorded_is_not_kept(
    folder: Path, job: dict[str, Any], tmp_path: Path
) -> None:
    path = folder / "bulkops-data" / "artifacts" / job["artifacts"][0]["id"]
    before = path.read_bytes()
    try:
        with path.open("r+b") as file:
            file.write(b"X")
        result = run(folder, "download", job["id"], "--output", str(tmp_path / "out"))
        assert result.exit_code == 4
        assert "its hash is another" in result.stderr
        assert not (tmp_path / "out").exists()
    finally:
        path.write_bytes(before)


def test_a_job_that_made_nothing_and_what_never_was_are_refused(folder: Path, job: dict[str, Any]) -> None:
    del job
    plain = json.loads(run(folder, "--json", "start", "things", "delete", "--id", "50", "--wait").stdout)
    refused = run(folder, "download", plain["id"])
    assert refused.exit_code == 1
    assert "none was made" in refused.stderr
    assert run(folder, "download", "01ARZ3NDEKTSV4RRFFQ69G5FAV").exit_code == 1


def test_without_a_server_a_download_works_in_this_process(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", ROWS.format(count=5))
    (tmp_path / "bulkops.toml").write_text(CONFIG)
    with Server(tmp_path) as server:
        made = server.end(server.start("things", "export", all=True))
        server.stop()
    before = set(os.listdir("/proc/self/fd"))
    result = run(tmp_path, "download", made["id"], "--output", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out").read_bytes() == content_of(tmp_path, made)
    assert set(os.listdir("/proc/self/fd")) <= before
