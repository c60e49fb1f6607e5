"""Grounds to crash on: a world that is put back to its beginning for each run, at the same path.

The path stays, because a job remembers which file it works on. Two grounds let two runs go side by side.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

from tests.crashes import checks, points, world
from tests.crashes.checks import Violation
from tests.crashes.points import Point

ACT: Final = "receipts,notes"
UNDO: Final = "undo-receipts,undo-notes"
CANCEL: Final = "cancel-receipts"
CANCEL_NOTES: Final = "cancel-notes"
_SIDE_BY_SIDE: Final = 2
#: Every so often the deletes are undone as well after a crash, to see that nothing of it was lost.
_UNDO_EVERY: Final = 8


class Ground:
    """A folder with a world, and how it was in the beginning."""

    def __init__(self, place: Path, *, journal: str, ledger: str, plan: str) -> None:
        self.folder = place / "world"
        self.plan = plan
        self._seed = place / "seed"
        self.folder.mkdir(parents=True)
        world.build(self.folder, journal=journal, ledger=ledger)
        self.rows = world.dump(self.folder / "app.db")
        self.files = world.file_hashes(self.folder / "files")
        if plan == UNDO:
            self.finish(ACT)
        self.folder.rename(self._seed)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._seed, self.folder)

    def finish(self, plan: str | None = None) -> None:
        """Start again and again until the plan is carried out."""
        done = points.run(points.command(self.folder, plan or self.plan, "--resume"))
        checks.must(done.returncode == 0, f"it ended {done.returncode}: {done.stdout}{done.stderr}")

    def look_restored(self) -> None:
        """Let the marker remember more starts than the database does."""
        marker = self.folder / "bulkops-data" / "instance.json"
        told = json.loads(marker.read_text())
        marker.write_text(json.dumps({**told, "generation": told["generation"] + 5}))

    def check(self, *, undo: bool = False) -> None:
        """Check the end of the plan; ``undo`` goes on and turns everything back."""
        if self.plan in (CANCEL, CANCEL_NOTES):
            checks.check_cancelled(self.folder)
            return
        if self.plan == ACT:
            checks.check_acted(self.folder, ["receipts", "notes"])
            if undo:
                self.finish(UNDO)
        if self.plan == UNDO or undo:
            checks.check_undone(self.folder, self.rows, self.files)


class Finding(NamedTuple):
    """What one run came to: whether the kill came, and what was wrong."""

    point: Point
    hit: bool
    wrong: str | None


def crash_everywhere(
    place: Path,
    chosen: Callable[[list[Point]], Sequence[Point]],
    *,
    journal: str,
    ledger: str,
    plan: str,
    restored: bool = False,
) -> list[Finding]:
    """Carry out a plan once for each chosen point with a kill there, then to its end; return the findings.

    ``restored``: after the kill the database looks like one put back from a copy, so that every job is
    paused at first.
    """
    free: SimpleQueue[Ground] = SimpleQueue()
    for index in range(_SIDE_BY_SIDE):
        free.put(Ground(place / f"ground{index}", journal=journal, ledger=ledger, plan=plan))
    first = free.get()
    marks = chosen(points.watch(first.folder, plan))
    free.put(first)

    def visit(numbered: tuple[int, Point]) -> Finding:
        index, point = numbered
        ground = free.get()
        try:
            ground.reset()
            return _crash_once(ground, point, undo=index % _UNDO_EVERY == 0, restored=restored)
        finally:
            free.put(ground)

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return list(pool.map(visit, enumerate(marks)))


def _crash_once(ground: Ground, point: Point, *, undo: bool, restored: bool) -> Finding:
    hit = False
    try:
        hit = points.kill_at(ground.folder, ground.plan, point)
        checks.check_crashed(ground.folder)
        if restored:
            ground.look_restored()
        ground.finish()
        ground.check(undo=undo)
    except (Violation, AssertionError) as error:
        return Finding(point, hit, str(error))
    return Finding(point, hit, None)


def thinned(marks: Sequence[Point]) -> list[Point]:
    """Leave out the middle of long runs of writes to one file: until its last write nothing counts."""
    kept: list[Point] = []
    run: list[Point] = []
    for mark in [*marks, None]:
        if mark is not None and run and mark.call == "pwrite64" and mark[:2] == run[0][:2]:
            run.append(mark)
            continue
        kept += run if len(run) <= 3 else [run[0], run[len(run) // 2], run[-1]]
        run = [] if mark is None else [mark]
    return kept


def between_commits(marks: Sequence[Point]) -> list[Point]:
    """Choose the instants at which the application's database has a batch that ours knows nothing of."""
    kept: list[Point] = []
    waiting = False
    for mark in marks:
        if mark.path.startswith("app.db") and mark.call in ("fdatasync", "unlink"):
            waiting = True
        elif waiting and mark.path == "bulkops.db-wal" and mark.call == "pwrite64":
            kept.append(mark)
            waiting = False
    return kept


def some(count: int, seed: int) -> Callable[[list[Point]], list[Point]]:
    """Return a choice of ``count`` points, always the same for a seed."""

    def choose(marks: list[Point]) -> list[Point]:
        slim = thinned(marks)
        return random.Random(seed).sample(slim, min(count, len(slim)))

    return choose
