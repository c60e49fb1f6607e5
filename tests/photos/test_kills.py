"""A server killed in the middle of a task on photos: what it does after its next start is what it would have done."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.crashes.servers import Server, until
from tests.photos.studio import CONFIG, Studio, samples
from tests.photos.test_story import end_of, start_task, told

PHOTOS = 60
SLOW = "".join(
    f"\n[resources.photos.actions.{action}]\nbatch_size = {size}\nthrottle_ms = 5\n"
    for action, size in (
        ("file_removal", 4), ("manifest_cleaning", 7), ("upload_postprocess", 5), ("generate_derivatives", 3)
    )
)  # fmt: skip


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path, CONFIG + SLOW)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filled(studio: Studio) -> dict[str, str]:
    """Put photos of two files each into a project, none of them kept but every tenth; return their digests."""
    for number in range(PHOTOS):
        for ending in ("JPG", "CR2"):
            studio.put("p", f"IMG_{number:03}.{ending}", os.urandom(200))
        kept = int(number % 10 == 0)
        studio.add("p", f"IMG_{number:03}", keep_jpg=kept, keep_raw=kept, raw_available=1, stars=number)
    return studio.bytes_of("p")


def killed_when(studio: Studio, server: Server, folder: str, files: int) -> None:
    """Kill the server as soon as a folder of the project holds so many files."""
    path = studio.projects / "p" / folder
    until(lambda: path.is_dir() and len(os.listdir(path)) >= files, every_s=0.0005, within_s=30)
    server.kill()


def jobs_of(view: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    return {job["action"]: (job["total"], job["processed"], job["failed"]) for job in view["jobs"]}


def test_a_commit_killed_again_and_again_removes_every_file_once_and_is_undone_exactly(
    studio: Studio,
) -> None:
    before, rows = filled(studio), studio.rows()
    gone = {name for name in before if int(name[4:7]) % 10}
    task = ""
    for files in (1, 13, 40, 71, 100):
        with Server(studio.folder) as server:
            task = task or start_task(server, "change_commit", project="p")
            killed_when(studio, server, ".trash", files)
        here, trash = set(studio.names("p")), set(studio.names("p", ".trash"))
        assert here | trash == set(before), "no file is ever lost"
        assert not here & trash
        # Never a row that says a file is there which we took.
        told_there = studio.sql("SELECT base FROM photos WHERE jpg_available = 1")
        assert {f"{base}.JPG" for (base,) in told_there} <= here
    with Server(studio.folder) as server:
        view = end_of(server, task)
        assert view["status"] == "completed"
        assert jobs_of(view)["file_removal"] == (54, 54, 0)
        removal = server.job(view["jobs"][0]["id"])
        assert (removal["succeeded"], removal["skipped"]) == (54, 0)
        assert jobs_of(view)["manifest_cleaning"] == (54, 54, 0)
        assert len(view["jobs"]) == 4
        assert [each["kind"] for each in told(server, task)].count("task_completed") == 1
        folder = studio.projects / "p" / ".trash"
        assert {name: digest(folder / name) for name in studio.names("p", ".trash")} == {
            name: before[name] for name in gone
        }
        assert studio.names("p") == sorted(set(before) - gone)
        assert len(studio.rows()) == 6
        undo = server.verb(removal["id"], "undo")["id"]
        until(lambda: len(studio.names("p", ".trash")) <= 80, every_s=0.0005)
        server.kill()
    with Server(studio.folder) as server:
        until(lambda: len(studio.names("p", ".trash")) <= 30, every_s=0.0005)
        server.kill()
    with Server(studio.folder) as server:
        ended = server.end(undo)
        assert (ended["outcome"], ended["succeeded"], ended["skipped"]) == ("ok", 54, 0)
        assert studio.bytes_of("p") == before
        assert studio.rows() == rows
        assert studio.names("p", ".trash") == []


def test_an_upload_killed_on_the_way_ends_once_with_every_picture_whole(studio: Studio) -> None:
    photos = samples()[:8]
    for number in range(24):
        studio.put("p", f"IMG_{number:03}.JPG", photos[number % len(photos)])
    task = ""
    for files in (1, 7, 13, 20):
        with Server(studio.folder) as server:
            task = task or start_task(server, "upload_processing", project="p")
            killed_when(studio, server, ".preview", files)
    with Server(studio.folder) as server:
        view = end_of(server, task)
        assert view["status"] == "completed"
        assert jobs_of(view) == {"upload_postprocess": (24, 24, 0), "generate_derivatives": (24, 24, 0)}
        for job in view["jobs"]:
            assert server.job(job["id"])["succeeded"] == 24
        (end,) = [each for each in told(server, task) if each["kind"] == "task_completed"]
        assert end["data"]["message"] == "Upload processing completed"
    for folder in (".thumb", ".preview"):
        assert os.listdir(studio.projects / "p" / folder) != []
        names = sorted(os.listdir(studio.projects / "p" / folder))
        assert names == [f"IMG_{number:03}.jpg" for number in range(24)], "nothing unfinished is left"
        for name in names:
            with Image.open(studio.projects / "p" / folder / name) as made:
                made.load()
    assert studio.sql("SELECT count(*), sum(jpg_available) FROM photos") == [(24, 24)]
