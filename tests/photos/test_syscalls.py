"""A kill -9 at system calls that change the disk, all through a commit and its undo: nothing lost, all counted."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.crashes import points
from tests.crashes.points import Point
from tests.photos.studio import CONFIG, Studio

pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
DRIVER = "tests.photos.driver"
BATCHES = "\n[resources.photos.actions.file_removal]\nbatch_size = 3\n"


def laid(folder: Path) -> Studio:
    """Lay out a project: seven photos that lose something, one of them a file that is missing, and one kept."""
    folder.mkdir()
    studio = Studio(folder, CONFIG + BATCHES)
    for number in range(8):
        if number != 5:
            studio.put("p", f"{number}.JPG", b"jpg" * (number + 1))
        studio.put("p", f"{number}.CR2", b"raw" * (number + 1))
        studio.put("p/.thumb", f"{number}.jpg", b"thumb")
        kept = int(number == 7)
        studio.add("p", str(number), keep_jpg=kept, keep_raw=int(number % 2 or kept), raw_available=1)
    return studio


GONE = {f"{number}.JPG" for number in range(7) if number != 5} | {f"{number}.CR2" for number in (0, 2, 4, 6)}


def counted(studio: Studio, *, undo: bool) -> tuple[Any, ...]:
    """Return how the removal, or its undo, stands in our database."""
    with closing(sqlite3.connect(studio.folder / "bulkops.db")) as connection:
        found = connection.execute(
            "SELECT status, total, succeeded, failed, skipped FROM jobs WHERE action = 'file_removal' AND kind = ?",
            ["undo" if undo else "act"],
        ).fetchall()
        assert len(found) == 1, found
        ends = "SELECT count(*) FROM events WHERE kind = 'task_completed'"
        assert connection.execute(ends).fetchone() == (1,)
        many = "SELECT action FROM jobs WHERE kind = 'act' GROUP BY action HAVING count(*) > 1"
        # The undo brings its own follow-up; no other action comes twice.
        assert connection.execute(many).fetchall() == []
        open_ = "SELECT (SELECT count(*) FROM intents), (SELECT count(*) FROM trash WHERE kept = 0)"
        assert connection.execute(open_).fetchone() == (0, 0)
        return tuple(found[0])


def check_nothing_lost(studio: Studio, before: dict[str, str]) -> None:
    here, trash = set(studio.names("p")), set(studio.names("p", ".trash"))
    assert here | trash == set(before), "a file is lost"
    assert not here & trash, "a file is there twice"
    for number in range(8):
        row = studio.row("p", str(number))
        if row is not None and number != 5 and row[1]:
            assert f"{number}.JPG" in here, "a row says a file is there which was taken"


def check_committed(studio: Studio, before: dict[str, str]) -> None:
    assert counted(studio, undo=False) == ("completed", 7, 7, 0, 0)
    assert studio.names("p") == sorted(set(before) - GONE)
    assert studio.names("p", ".trash") == sorted(GONE)
    assert studio.names("p", ".thumb") == ["7.jpg"]


def some(marks: Sequence[Point], count: int) -> list[Point]:
    """Choose points: those of the application's files and rows first, at random but the same each time."""
    theirs = [mark for mark in marks if mark.path.startswith(("projects", "photos.db"))]
    chance = random.Random(7)
    return chance.sample(theirs, min(len(theirs), count - 2)) + chance.sample(marks, 2)


def crash(tmp_path: Path, plan: str, count: int) -> int:
    """Carry out a plan with a kill at so many points, then to its end each time; return how many kills came."""
    folder, ready = tmp_path / "ground", tmp_path / "ready"
    studio = laid(folder)
    before, rows = studio.bytes_of("p"), studio.rows()
    if plan == "undo":
        assert points.run(points.command(folder, "commit", driver=DRIVER)).returncode == 0
    shutil.copytree(folder, ready)
    hits = 0
    for point in some(points.watch(folder, plan, driver=DRIVER), count):
        # Laid out in the same place again: a job knows its database by its path.
        shutil.rmtree(folder)
        shutil.copytree(ready, folder)
        hits += points.kill_at(folder, plan, point, driver=DRIVER)
        check_nothing_lost(studio, before)
        ended = points.run(points.command(folder, plan, driver=DRIVER))
        assert ended.returncode == 0, (point, ended.stdout + ended.stderr)
        check_nothing_lost(studio, before)
        if plan == "undo":
            assert counted(studio, undo=True) == ("completed", 7, 7, 0, 0), point
            assert studio.bytes_of("p") == before, point
            assert studio.rows() == rows, point
        else:
            check_committed(studio, before)
    return hits


@pytest.mark.parametrize("plan", ["commit", "undo"])
def test_a_kill_at_a_write_loses_nothing_and_counts_once(tmp_path: Path, plan: str) -> None:
    assert crash(tmp_path, plan, 4) >= 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("plan", ["commit", "undo"])
def test_a_kill_at_any_write_loses_nothing_and_counts_once(tmp_path: Path, plan: str) -> None:
    count = int(os.environ.get("BULKOPS_TEST_KILLS", "400"))
    assert crash(tmp_path, plan, count) >= count // 3
