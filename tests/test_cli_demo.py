"""`bulkops demo` as people run it: a process, a folder, a page, and a way to stop."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.demo import prepare
from bulkops.demo_data import tables
from bulkops.demo_data.dossiers import DOSSIERS, MISSING, PURGED
from bulkops.demo_data.photos import DAMAGED, PROJECTS
from bulkops.web.listener import bind

pytestmark = pytest.mark.timeout(180)


def demo(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bulkops", "demo", "--json", "--dir", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_once(folder: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    process = demo(folder, "--once", *words)
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if out else {}, err


def ask(folder: Path, statement: str) -> Any:
    return rows(folder, "app.db", statement)[0][0]


def rows(folder: Path, file: str, statement: str) -> list[Any]:
    with closing(sqlite3.connect(folder / file)) as database:
        return database.execute(statement).fetchall()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo with few receipts, which a run that wants them makes more of."""
    folder = tmp_path_factory.mktemp("template") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        few = [msgspec.structs.replace(each, receipts=20) for each in tables.BUSINESSES]
        patch.setattr(tables, "BUSINESSES", few)
        prepare(folder)
    return folder


@pytest.fixture
def made(template: Path, tmp_path: Path) -> Path:
    """A demo that nobody has run yet."""
    return Path(shutil.copytree(template, tmp_path / "demo", symlinks=True))


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
        while process.poll() is None:  # asked again and again it ends once
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.count("stopped") == 1
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
    assert process.returncode == 130, err
    assert f"bulkops demo --dir {folder}" in err
    assert 0 < live(folder, "oak") <= 1200
    code, told, err = run_once(folder)
    assert code == 0, err
    assert (told["job"]["tenant"], told["job"]["succeeded"]) == ("oak", 1200)


def test_a_taken_port_is_no_obstacle(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(bind("127.0.0.1", 0)) as blocker:
        port = blocker.getsockname()[1]
        monkeypatch.setenv("BULKOPS_PORT", str(port))
        code, told, err = run_once(made, "--only", "images")
    assert code == 0, err
    assert f"port {port} is taken" in err
    assert not told["url"].endswith(f":{port}")


def test_all_shows_each_system_at_work_and_ends_well(made: Path) -> None:
    originals = names(made / "projects" / PROJECTS[0])
    code, told, err = run_once(made, "--all")
    assert code == 0, err
    systems = {each["system"]: each for each in told["systems"]}
    assert list(systems) == ["receipts", "dossiers", "photos", "sessions", "images"]
    assert all(job["status"] == "completed" for each in told["systems"] for job in each["jobs"])
    assert all(each["seconds"] > 0 for each in told["systems"])
    assert {name: each["failed"] for name, each in systems.items() if each["failed"]} == {"photos": 1}

    assert systems["receipts"]["items"] == 1200
    assert live(made, "oak") == 0

    purge = systems["dossiers"]["jobs"][0]
    assert (purge["succeeded"], purge["skipped"]) == (len(PURGED), 1)
    assert MISSING in systems["dossiers"]["did"]
    assert names(made / "dossiers_data") == set(DOSSIERS) - set(PURGED)

    project = made / "projects" / PROJECTS[0]
    removed = names(project / ".trash")
    assert len(removed) > 12
    assert removed == originals - names(project)
    uploaded = {f"IMG_{number:04}" for number in range(25, 37)}
    assert {
        Path(name).stem for name in names(project) - originals - {".trash", ".thumb", ".preview"}
    } == uploaded
    actions = [job["action"] for job in systems["photos"]["jobs"]]
    assert actions[0] == "file_removal"
    assert set(actions[1:4]) == {"manifest_check", "folder_check", "manifest_cleaning"}
    assert actions[4:] == ["upload_postprocess", "generate_derivatives"]
    thumbnails = {Path(name).stem for name in names(project / ".thumb")}
    assert uploaded <= thumbnails
    assert DAMAGED not in thumbnails
    assert DAMAGED in systems["photos"]["did"]

    assert ask(made, "SELECT count(*) FROM sessions WHERE status IN ('open', 'closed')") == 0
    assert [job["action"] for job in systems["sessions"]["jobs"]] == ["close", "export", "archive"]
    export = systems["sessions"]["jobs"][1]["artifacts"][0]
    assert export["rows"] == systems["sessions"]["jobs"][1]["succeeded"] > 100
    assert systems["sessions"]["back"][0] == f"bulkops download {export['id']}"

    assert systems["images"]["items"] == 1000
    assert ask(made, "SELECT count(*) FROM images WHERE client_id = 'aurora'") == 0
    assert names(made / "images" / "aurora") == set()


def test_a_second_time_the_same_systems_have_work_again(made: Path) -> None:
    words = [word for system in ("dossiers", "photos", "sessions", "images") for word in ("--only", system)]
    for _ in range(2):
        code, told, err = run_once(made, *words)
        assert code == 0, err
        purged, photos, sessions, images = told["systems"]
        assert purged["items"] == len(PURGED)
        assert photos["jobs"][0]["succeeded"] >= 12
        assert photos["jobs"][-2]["succeeded"] == 12
        assert sessions["jobs"][0]["succeeded"] > 30
        assert images["items"] == 1000


def test_every_way_back_that_it_names_works(made: Path) -> None:
    statuses = "SELECT id, status FROM sessions ORDER BY id"
    clients = "SELECT id, path FROM images ORDER BY id"
    photos = "SELECT base, keep_jpg, jpg_available, keep_raw, raw_available FROM photos WHERE id < 24"
    before = [rows(made, file, of) for file, of in (("app.db", statuses), ("app.db", clients))]
    kept = rows(made, "photos.db", photos)
    files = names(made / "projects" / PROJECTS[0])
    process = demo(made, "--only", "photos", "--only", "sessions", "--only", "images")
    try:
        told = read_document(process)
        assert [rows(made, "app.db", of) for of in (statuses, clients)] != before
        for command in [way for each in told["systems"] for way in each["back"]]:
            _, *words = command.split()
            wait = ["--wait"] if words[0] == "undo" else []
            done = subprocess.run(
                [sys.executable, "-m", "bulkops", *words, *wait],
                cwd=made,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert [rows(made, "app.db", of) for of in (statuses, clients)] == before
    assert len(names(made / "images" / "aurora")) == 1000
    assert rows(made, "photos.db", photos) == kept
    assert names(made / "projects" / PROJECTS[0]) >= files
    assert len(list(made.glob("sessions-export*.csv"))) == 1


def test_without_pillow_thumbnails_are_left_out_and_said_to_be(made: Path) -> None:
    code = "import sys; sys.modules['PIL'] = None; from bulkops.__main__ import main; main()"
    words = ["demo", "--only", "photos", "--once", "--dir", str(made)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'bulkops[photos]'" in done.stderr
    assert "Processing uploads completed 12 of 12" in done.stderr
    assert "Generating" not in done.stderr
    assert not (made / "projects" / PROJECTS[0] / ".thumb").exists()


def test_what_does_not_come_as_the_story_has_it_is_no_success(made: Path) -> None:
    (made / "projects" / PROJECTS[0] / ".trash").write_text("in the way")
    code, told, _ = run_once(made, "--only", "photos")
    assert code == 4
    assert told["systems"][0]["jobs"][0]["failed"] == 13


def test_on_a_terminal_there_are_bars_and_a_closing_table(made: Path) -> None:
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    command = [sys.executable, "-m", "bulkops", "demo", "--only", "images", "--once", "--dir", str(made)]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "140"}
    process = subprocess.Popen(command, stdout=far, stderr=far, env=environment)
    os.close(far)
    out = b""
    with open(near, "rb", buffering=0) as screen, suppress(OSError):  # the end of a terminal is an error
        while chunk := screen.read(65536):
            out += chunk
    assert process.wait(30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.decode())
    assert re.search(r"images +delete a client's images", text)
    assert re.search(r"✓ Delete images +━+ 1,000 of 1,000", text)
    assert re.search(r"✓ Files in the deletion queue +━+ 1,000 of 1,000", text)
    assert re.search(r"system +what it did, and the way back +items +failed +took", text)
    assert re.search(r"images +deleted client aurora: rows gone after \d+\.\d s.* 1,000 +0 ", text)
    assert "bulkops undo 01" in text


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, told, err = run_once(tmp_path)
    assert (code, told) == (1, {})
    assert "did not make" in err
    assert os.listdir(tmp_path) == ["mine.txt"]
