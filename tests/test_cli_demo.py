"""`bulkops demo` as people run it: a process, a folder, a page, and a way to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bulkops.web.server import bind

pytestmark = pytest.mark.timeout(180)


def demo(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bulkops", "demo", "--json", "--dir", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_once(folder: Path) -> tuple[int, dict[str, Any], str]:
    process = demo(folder, "--once")
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if out else {}, err


def ask(folder: Path, statement: str) -> Any:
    with closing(sqlite3.connect(folder / "app.db")) as database:
        return database.execute(statement).fetchone()[0]


def read_document(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    told: dict[str, Any] = json.loads(text)
    return told


def live(folder: Path, business: str) -> int:
    count: int = ask(
        folder, f"SELECT count(*) FROM receipts WHERE business_id = '{business}' AND is_deleted = 0"
    )
    return count


def test_once_it_deletes_a_business_and_ends_with_the_jobs_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    code, told, err = run_once(folder)
    assert code == 0, err
    assert (told["job"]["outcome"], told["job"]["succeeded"], told["job"]["total"]) == ("ok", 1200, 1200)
    assert [live(folder, name) for name in ("oak", "nordlicht", "harbor")] == [0, 1500, 2300]
    assert len(told["curl"]) == 3
    assert not (folder / "bulkops-data" / "runtime.json").exists()
    first = told["job"]["id"]

    # Again: the same folder; the rate keeps the first business waiting, so the second one goes.
    code, told, err = run_once(folder)
    assert code == 0, err
    assert f"going on with the demo in {folder}" in err
    assert told["job"]["id"] != first
    assert told["job"]["tenant"] == "nordlicht"
    assert told["job"]["failed"] == 0
    assert told["job"]["skipped"] > 0
    assert live(folder, "oak") == 1200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_it_serves_on_and_its_curl_lines_work_until_it_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "demo folder"
    process = demo(folder)
    try:
        told = read_document(process)
        key_file = folder / "demo.key"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert key_file.read_text().removeprefix("X-API-Key: ").strip() not in " ".join(told["curl"])
        with urllib.request.urlopen(f"{told['url']}/healthz") as answer:
            assert answer.status == 200
        undo, events, preview = told["curl"]
        again = subprocess.run(undo, shell=True, capture_output=True, text=True, check=True)
        assert json.loads(again.stdout)["undo_of"] == told["job"]["id"]
        found = subprocess.run(preview, shell=True, capture_output=True, text=True, check=True)
        assert json.loads(found.stdout)["matched"] > 100
        followed = subprocess.run(
            f"{events} --max-time 2", shell=True, capture_output=True, text=True, check=False
        )
        assert "event: completed" in followed.stdout
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "goes on at the next start" in err


def test_stopped_while_the_job_runs_it_is_no_success_and_the_next_demo_goes_on_with_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    process = demo(folder, "--once")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("deleting"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"bulkops demo --dir {folder}" in err
    assert 0 < live(folder, "oak") <= 1200
    code, told, err = run_once(folder)
    assert code == 0, err
    assert (told["job"]["tenant"], told["job"]["succeeded"]) == ("oak", 1200)


def test_a_taken_port_is_no_obstacle(tmp_path: Path) -> None:
    try:
        blocker = bind("127.0.0.1", 8765)
    except Exception:  # noqa: BLE001  somebody has it already, which is just as well
        blocker = None
    try:
        code, told, err = run_once(tmp_path / "demo")
    finally:
        if blocker is not None:
            blocker.close()
    assert code == 0, err
    assert "port 8765 is taken" in err
    assert not told["url"].endswith(":8765")


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, told, err = run_once(tmp_path)
    assert (code, told) == (1, {})
    assert "did not make" in err
    assert os.listdir(tmp_path) == ["mine.txt"]
