"""The demo's photo projects: files as cameras write them, and the table that says which are kept.

What comes in: the demo's folder; what goes out: photos with their rows, more of them to upload, and decisions on
which files not to keep, as somebody who sorts photos takes them. Files are only added.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

from bulkops.demo_data.writing import dice_of, new_database, write
from bulkops.demo_pictures import photo

_SCHEMA: Final = """
CREATE TABLE photos (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  project       TEXT NOT NULL,
  base          TEXT NOT NULL,
  keep_jpg      INTEGER NOT NULL DEFAULT 1,
  jpg_available INTEGER NOT NULL DEFAULT 0,
  keep_raw      INTEGER NOT NULL DEFAULT 1,
  raw_available INTEGER NOT NULL DEFAULT 0,
  UNIQUE (project, base)
);
"""

#: The first is the one that the demo works on.
PROJECTS: Final = ("2024-harvest", "2024-wedding-lund", "2025-catalogue")
#: A photo of that project which cannot be decoded.
DAMAGED: Final = "IMG_0013"
_COUNT: Final = 24
_UPLOADED: Final = 12
#: How many photos the demo's commit has something to remove of.
_UNKEPT: Final = 12
_JPG: Final = ("JPG", "jpg", "JPEG")
_RAW: Final = ("CR2", "nef", "RAW")
_BASE: Final = re.compile(r"IMG_([0-9]{4,9})")


def make_photos(folder: Path) -> None:
    """Make the projects and their database."""
    dice = dice_of("photos")
    with closing(new_database(folder / "photos.db", _SCHEMA)) as photos, photos:
        for project in PROJECTS:
            for number in range(1, _COUNT + 1):
                has_raw = number % 4 != 0
                _shoot(folder / "projects" / project, number, has_raw=has_raw)
                # A row may believe in a file that somebody removed by hand: a check puts it right.
                claims_raw = has_raw or number == _COUNT
                # Nobody keeps everything: some photos lose a file at the next commit, a few both.
                keep_jpg, keep_raw = dice.random() < 0.75, claims_raw and dice.random() < 0.6
                photos.execute(
                    "INSERT INTO photos (project, base, keep_jpg, jpg_available, keep_raw, raw_available)"
                    " VALUES (?, ?, ?, 1, ?, ?)",
                    (project, _base(number), keep_jpg or _base(number) == DAMAGED, keep_raw, claims_raw),
                )


def decide(folder: Path) -> int:
    """Choose files that are not kept, until the demo's commit has enough to do; returns of how many photos."""
    with closing(sqlite3.connect(folder / "photos.db")) as photos, photos:
        query = (
            "SELECT count(*) FROM photos WHERE project = ?"
            " AND (keep_jpg < jpg_available OR keep_raw < raw_available)"
        )
        wanting = _UNKEPT - int(photos.execute(query, PROJECTS[:1]).fetchone()[0])
        # The oldest photos first: every second one keeps nothing, the others their JPG.
        done = photos.execute(
            "UPDATE photos SET keep_raw = 0, keep_jpg = jpg_available AND raw_available AND id % 2"
            " WHERE id IN (SELECT id FROM photos WHERE project = ? AND base <> ? AND keep_jpg >= jpg_available"
            " AND keep_raw >= raw_available AND (jpg_available OR raw_available) ORDER BY id LIMIT ?)",
            (PROJECTS[0], DAMAGED, max(wanting, 0)),
        )
        return done.rowcount


def upload(folder: Path) -> list[str]:
    """Put new photos into the demo's project, without rows: those an upload makes; returns the files' names."""
    project = folder / "projects" / PROJECTS[0]
    with closing(sqlite3.connect(folder / "photos.db")) as photos:
        known = [base for (base,) in photos.execute("SELECT base FROM photos")]
    known += [path.stem for path in project.rglob("IMG_*")]
    last = max((int(found[1]) for base in known if (found := _BASE.match(base))), default=0)
    return [
        name
        for number in range(last + 1, last + 1 + _UPLOADED)
        for name in _shoot(project, number, has_raw=number % 2 == 0)
    ]


def _shoot(project: Path, number: int, *, has_raw: bool) -> list[str]:
    """Write the files of a photo; returns their names."""
    files = dict(_files(project.name, number, has_raw=has_raw))
    for name, content in files.items():
        write(project / name, content)
    return list(files)


def _files(project: str, number: int, *, has_raw: bool) -> Iterator[tuple[str, bytes]]:
    base = _base(number)
    picture = _picture(number % 6, number % 8 + 1)
    whole = (project, base) != (PROJECTS[0], DAMAGED)
    yield f"{base}.{_JPG[number % 3]}", picture if whole else picture[: len(picture) // 2]
    if has_raw:
        yield f"{base}.{_RAW[number % 3]}", dice_of(f"{project} {base}").randbytes(2048)


@cache
def _picture(scene: int, orientation: int) -> bytes:
    return photo(72, 48, scene, orientation)


def _base(number: int) -> str:
    return f"IMG_{number:04}"
