"""A photo project from upload to undo, through HTTP, on real photos."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.crashes.servers import TERMINAL, Server, until
from tests.photos.studio import Studio, damaged, samples


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


@pytest.fixture
def server(studio: Studio) -> Iterator[Server]:
    with Server(studio.folder) as server:
        yield server


def start_task(server: Server, task_type: str, **body: Any) -> str:
    status, task = server.ask("POST", f"/api/tasks/{task_type}", body)
    assert status == 202, (status, task)
    assert task["type"] == task_type
    assert [job["status"] for job in task["jobs"]] != []
    return str(task["id"])


def end_of(server: Server, task: str) -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: (view := server.get(f"/api/tasks/{task}"))["status"] in TERMINAL and view, within_s=60
    )
    return found


def told(server: Server, task: str) -> list[dict[str, Any]]:
    """Return the events of a task from its beginning."""
    page = server.get(f"/api/events?topic=task:{task}&since=earliest&limit=200")
    return list(page["items"])


def upright(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")


def stands_like(picture: Image.Image, reference: Image.Image) -> bool:
    """Say whether a picture is more like the reference than like the reference turned or flipped."""
    method = Image.Transpose
    others = [
        reference.transpose(turn)
        for turn in (method.FLIP_LEFT_RIGHT, method.FLIP_TOP_BOTTOM, method.ROTATE_180)
    ]
    apart = [sum(ImageStat.Stat(ImageChops.difference(picture, each)).mean) for each in (reference, *others)]
    return apart[0] * 1.5 < min(apart[1:])


def test_photos_uploaded_processed_committed_and_undone(studio: Studio, server: Server) -> None:
    photos = samples()
    assert len(photos) == 16
    for photo in photos:
        studio.put("summer", photo.name.upper(), photo)
        studio.put("summer", f"{photo.stem.upper()}.RAW", os.urandom(5000))
    studio.put("summer", "CORRUPTED.JPG", damaged(photos[0]))
    before = studio.bytes_of("summer")

    # Uploaded and processed.
    task = start_task(server, "upload_processing", project="summer")
    view = end_of(server, task)
    assert [(job["action"], job["source"], job["total"]) for job in view["jobs"]] == [
        ("upload_postprocess", "user", 17),
        ("generate_derivatives", "user", 17),
    ]
    assert (view["project"], view["failed"], view["percent"]) == ("summer", 1, 100.0)
    failures = server.get(f"/api/jobs/{view['jobs'][1]['id']}/errors")["items"]
    assert [(each["code"], each["count"]) for each in failures] == [("CORRUPT", 1)]
    assert "CORRUPTED.JPG: damaged: the reserved marker 0x9F" in failures[0]["sample_message"]
    assert studio.row("summer", "LANDSCAPE_6") == (1, 1, 1, 1)
    assert studio.row("summer", "CORRUPTED") == (1, 1, 0, 0)
    for folder in (".thumb", ".preview"):
        assert studio.names("summer", folder) == sorted(f"{photo.stem.upper()}.jpg" for photo in photos)

    # Upright for all eight orientations.
    for kind in ("LANDSCAPE", "PORTRAIT"):
        reference = upright(studio.projects / "summer" / ".thumb" / f"{kind}_1.jpg")
        assert (reference.width > reference.height) == (kind == "LANDSCAPE")
        for number in range(2, 9):
            picture = upright(studio.projects / "summer" / ".thumb" / f"{kind}_{number}.jpg")
            assert picture.size == reference.size, number
            assert stands_like(picture, reference), (kind, number)

    # Half marked not kept, committed.
    studio.sql("UPDATE photos SET keep_jpg = 0, keep_raw = 0 WHERE base LIKE 'LANDSCAPE%'")
    rows = studio.rows()
    task = start_task(server, "change_commit", project="summer")
    view = end_of(server, task)
    assert view["status"] == "completed"
    assert view["label"] == "Commit changes"
    assert [(job["action"], job["source"]) for job in view["jobs"]] == [
        ("file_removal", "user"),
        ("manifest_check", "maintenance"),
        ("folder_check", "maintenance"),
        ("manifest_cleaning", "maintenance"),
    ]
    gone = [name for name in before if name.startswith("LANDSCAPE")]
    assert len(gone) == 16
    assert studio.names("summer") == sorted(set(before) - set(gone))
    assert studio.names("summer", ".trash") == sorted(gone)
    assert studio.names("summer", ".thumb") == sorted(f"PORTRAIT_{number}.jpg" for number in range(1, 9))
    assert studio.row("summer", "LANDSCAPE_1") is None, "a row without files is cleaned away"
    events = told(server, task)
    (end,) = [each for each in events if each["kind"] == "task_completed"]
    assert end is events[-1]
    assert end["data"]["message"] == "Files removed"
    assert all(each["task_type"] == "change_commit" and each["project"] == "summer" for each in events)
    assert {each["source"] for each in events} == {"user", "maintenance"}

    # Undone: the same bytes, the same rows, and thumbnails again.
    removal = view["jobs"][0]["id"]
    undo = server.verb(removal, "undo")["id"]
    ended = server.end(undo)
    assert (ended["outcome"], ended["succeeded"]) == ("ok", 8)
    assert studio.bytes_of("summer") == before
    assert studio.rows() == rows
    assert studio.names("summer", ".trash") == []
    until(lambda: len(studio.names("summer", ".thumb")) == 16, within_s=20)
    again = server.verb(removal, "undo")
    assert again["id"] == undo
    until(lambda: end_of(server, task), within_s=20)
    assert [each["kind"] for each in told(server, task)].count("task_completed") == 1


@pytest.mark.skipif(
    "BULKOPS_TEST_PHOTOS" not in os.environ, reason="BULKOPS_TEST_PHOTOS names no folder of photos"
)
def test_every_photo_of_a_whole_collection_is_processed_but_the_corrupted_one(
    studio: Studio, server: Server
) -> None:
    photos = samples("*.jpg")
    for photo in photos:
        studio.put("all", photo.name, photo)
    view = end_of(server, start_task(server, "upload_processing", project="all"))
    corrupted = [photo.name for photo in photos if "corrupted" in photo.name]
    assert view["failed"] == len(corrupted)
    assert studio.names("all", ".thumb") == sorted(
        f"{photo.stem}.jpg" for photo in photos if photo.name not in corrupted
    )


def test_a_task_is_started_and_followed_from_the_command_line(studio: Studio, server: Server) -> None:
    studio.put("p", "good.jpg", samples()[0])
    studio.put("p", "bad.jpg", b"no picture")

    def bulkops(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bulkops", "--config", str(studio.folder / "bulkops.toml"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = bulkops("task", "upload_processing", "--project", "p", "--wait")
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("Upload processing: completed")
    assert lines[2].endswith("Generating thumbnails and previews: completed, partial, 2 done, 1 failed")
    fine = bulkops("--json", "task", "upload_processing", "--project", "p", "--file", "good.jpg", "--wait")
    assert fine.returncode == 0, fine.stdout
    listed = bulkops("--json", "tasks", "--project", "p")
    assert [each["type"] for each in json.loads(listed.stdout)["items"]] == ["upload_processing"] * 2
    assert "Upload processing" in bulkops("tasks").stdout
    assert bulkops("task", "nonsense", "--project", "p").returncode == 1
    assert bulkops("task", "change_commit").returncode == 2


def test_a_task_asked_for_twice_under_one_key_is_one_task(studio: Studio, server: Server) -> None:
    studio.put("p", "x.jpg", samples()[0])

    def post(key: str, **body: Any) -> tuple[int, str | None, Any]:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=15)
        headers = {"Authorization": f"Bearer {server._key}", "Content-Type": "application/json"}
        headers["Idempotency-Key"] = f'"{key}"'
        try:
            connection.request("POST", "/api/tasks/upload_processing", json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Location"), json.loads(answer.read())
        finally:
            connection.close()

    first = post("one", project="p")
    assert first[:2] == (202, f"/api/tasks/{first[2]['id']}")
    assert post("one", project="p") == first
    assert post("one", project="q")[2]["code"] == "IDEMPOTENCY_MISMATCH"
    assert len(server.get("/api/tasks")["items"]) == 1
    status, problem = server.ask("POST", "/api/tasks/upload_processing", {"project": "p", "extra": 1})
    assert (status, problem["code"]) == (422, "INVALID_FIELD")
    status, problem = server.ask("POST", "/api/tasks/nonsense", {"project": "p"})
    assert (status, problem["code"]) == (404, "NOT_FOUND")
