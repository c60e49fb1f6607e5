"""A kill -9 between any two system calls of a job on folders, and what the next start makes of it."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest

from tests.crashes.checks import Violation, check_settled, copied, must
from tests.crashes.points import injected, run
from tests.folders.house import make_dossier, tree_of

pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
_CONFIG = """\
[server]
port = 0

[resources.dossiers]
kind = "folder"
root = "dossiers_data"
"""
#: What changes the disk, with how often one thread does it at most in these plans.
_CALLS = {"renameat2": 9, "unlinkat": 24, "fsync": 12}
_OURS = {"pwrite64": 60, "fdatasync": 24}
_DOSSIERS = 7
_SIDE_BY_SIDE = 2


class Point(NamedTuple):
    call: str
    nth: int
    ours: bool  # on the journal of our own database


def points() -> Iterator[Point]:
    for calls, ours in ((_CALLS, False), (_OURS, True)):
        for call, most in calls.items():
            yield from (Point(call, nth, ours) for nth in range(1, most + 1))


def build(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "bulkops.toml").write_text(_CONFIG)
    root = folder / "dossiers_data"
    outside = make_dossier(folder, "outside")
    for number in range(_DOSSIERS):
        files = {"a.jpg": b"\xff" * number, "sub/b.txt": b"text", "sub/deep/c": b"c"}
        (make_dossier(root, f"d{number}", files) / "sub" / "to").symlink_to(outside)
    (root / "loose.pdf").write_bytes(b"%PDF")
    (root / "link").symlink_to(outside)


def command(folder: Path, plan: str) -> list[str]:
    return [sys.executable, "-X", "frozen_modules=on", "-m", "tests.folders.driver", str(folder), plan]


def finish(folder: Path, plan: str) -> None:
    done = run(command(folder, plan))
    must(done.returncode == 0, f"it ended {done.returncode}: {done.stdout}{done.stderr}")


def digest(folder: Path) -> str:
    return hashlib.sha256(repr(sorted(tree_of(folder).items())).encode()).hexdigest()


class World:
    """A folder that is put back to its beginning for each run, at the same path."""

    def __init__(self, place: Path, plan: str) -> None:
        self.folder, self.plan, self._seed = place / "world", plan, place / "seed"
        build(self.folder)
        root = self.folder / "dossiers_data"
        self.whole = tree_of(root)
        self.dossiers = {each.name: digest(each) for each in root.iterdir() if each.name[0] == "d"}
        self.outside = digest(self.folder / "outside")
        if plan == "undo":
            finish(self.folder, "delete")
        self.folder.rename(self._seed)
        self.reset()

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._seed, self.folder, symlinks=True)

    @property
    def root(self) -> Path:
        return self.folder / "dossiers_data"

    @property
    def trash(self) -> dict[str, str]:
        place = self.folder / "bulkops-data" / "trash" / "dossiers"
        found = sorted(place.iterdir()) if place.exists() else []
        return {each.name: digest(each) for each in found if each.is_dir()}

    def check_crashed(self) -> None:
        """Check what holds at every instant: a dossier is whole in one place, or being purged in the trash."""
        must(digest(self.folder / "outside") == self.outside, "something outside was touched")
        must((self.root / "link").is_symlink(), "the link was touched")
        here = {each.name: digest(each) for each in self.root.iterdir() if each.name[0] == "d"}
        for name, found in here.items():
            must(found == self.dossiers[name], f"{name} is not whole")
        if self.plan == "archive":
            must(tree_of(self.root) == self.whole, "reading has changed something")
        elif self.plan != "purge":
            both = [*here.values(), *self.trash.values()]
            must(
                sorted(both) == sorted(self.dossiers.values()),
                f"{here} and {self.trash} are not all dossiers",
            )

    def check_done(self) -> None:
        with copied(self.folder, "bulkops.db") as ours:
            assert ours is not None
            check_settled(ours)
            kind = "undo" if self.plan == "undo" else "act"
            sql = "SELECT status, total, succeeded, failed, skipped FROM jobs WHERE kind = ?"
            found = ours.execute(sql, [kind]).fetchall()
            wanted = ("completed", _DOSSIERS + 2, _DOSSIERS + 1, 0, 1)
            if self.plan == "undo":
                wanted = ("completed", _DOSSIERS + 1, _DOSSIERS + 1, 0, 0)
            must(found == [wanted], f"{found} is not {wanted}")
            trashed = {
                name for (name,) in ours.execute("SELECT trash FROM deletions WHERE state = 'trashed'")
            }
            images = ours.execute("SELECT count(*) FROM trash WHERE kept = 1").fetchone()[0]
            made = ours.execute("SELECT id, status, bytes, sha256 FROM artifacts").fetchall()
        kept = sorted(each.name for each in (self.folder / "bulkops-data" / "trash" / "dossiers").iterdir())
        must(sorted(trashed) == kept, f"the queue knows {trashed}, the trash holds {kept}")
        must(images == len(kept), f"{images} images of {len(kept)} entries")
        must(digest(self.folder / "outside") == self.outside, "something outside was touched")
        if self.plan == "archive":
            self._check_archive(made)
        elif self.plan == "undo":
            must(tree_of(self.root) == self.whole, "not everything is back as it was")
            must(kept == [], f"left in the trash: {kept}")
        else:
            must([each.name for each in self.root.iterdir()] == ["link"], "not everything is gone")
            must(len(kept) == (0 if self.plan == "purge" else _DOSSIERS + 1), f"the trash holds {kept}")

    def _check_archive(self, made: list[tuple[str, str, int, str]]) -> None:
        must(tree_of(self.root) == self.whole, "reading has changed something")
        must([each[1] for each in made] == ["ready"], f"the archive is {made}")
        folder = self.folder / "bulkops-data" / "artifacts"
        must(sorted(each.name for each in folder.iterdir()) == [made[0][0]], "a part is left behind")
        content = (folder / made[0][0]).read_bytes()
        told = (len(content), hashlib.sha256(content).hexdigest())
        must(told == made[0][2:], f"{told} is not {made}")
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            must(zipped.testzip() is None, "the archive is damaged")
            names = sorted(each.rstrip("/") for each in zipped.namelist())
        must(names == sorted(set(self.whole) - {"link"}), f"the archive holds {names}")


def crash(world: World, point: Point) -> str | None:
    """Carry out the plan with a kill at a point, then to its end; say what was wrong, ``"missed"`` for no kill."""
    world.reset()
    paths = [world.folder / "bulkops.db-wal"] if point.ours else []
    fault = f"{point.call}:signal=KILL:when={point.nth}"
    try:
        died = run(injected([fault], paths, command(world.folder, world.plan))).returncode
        world.check_crashed()
        finish(world.folder, world.plan)
        world.check_done()
    except Violation as error:
        return f"{point}: {error}"
    return "missed" if died == 0 else None


def crash_at(place: Path, plan: str, chosen: list[Point]) -> None:
    free: SimpleQueue[World] = SimpleQueue()
    for index in range(_SIDE_BY_SIDE):
        free.put(World(place / f"ground{index}", plan))

    def visit(point: Point) -> str | None:
        world = free.get()
        try:
            return crash(world, point)
        finally:
            free.put(world)

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        found = list(pool.map(visit, chosen))
    wrong = [each for each in found if each not in (None, "missed")]
    assert not wrong, "\n".join(map(str, wrong))
    hits = found.count(None)
    assert hits >= len(chosen) // 3, f"only {hits} of {len(chosen)} kills came"
    print(f"{len(chosen)} kill points, {hits} kills, 0 violations")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plan", ["delete", "purge", "undo"])
def test_a_job_killed_at_some_instants_counts_every_dossier_once(tmp_path: Path, plan: str) -> None:
    near = [point for point in points() if point.call == "renameat2" and point.nth in (2, 5)]
    others = [point for point in points() if point not in near]
    crash_at(tmp_path, plan, near + random.Random(plan).sample(others, 6))


@pytest.mark.timeout(300)
def test_an_archive_killed_at_some_instants_is_whole_in_the_end(tmp_path: Path) -> None:
    ours = [point for point in points() if point.ours and point.nth > 8]
    crash_at(tmp_path, "archive", random.Random("archive").sample(ours, 6))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("plan", ["delete", "purge", "undo", "archive"])
def test_a_job_killed_at_any_instant_counts_every_dossier_once(tmp_path: Path, plan: str) -> None:
    crash_at(tmp_path, plan, list(points()))
