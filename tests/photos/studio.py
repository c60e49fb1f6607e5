"""A photographer's application: a database, project folders with real photos, and the server over both."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

SAMPLES: Final = Path(os.environ.get("BULKOPS_TEST_PHOTOS", Path(__file__).parents[1] / "data" / "photos"))
TABLE: Final = """
CREATE TABLE photos (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  base TEXT NOT NULL,
  keep_jpg INTEGER NOT NULL DEFAULT 1,
  jpg_available INTEGER NOT NULL DEFAULT 0,
  keep_raw INTEGER NOT NULL DEFAULT 1,
  raw_available INTEGER NOT NULL DEFAULT 0,
  stars INTEGER,
  UNIQUE (project, base)
);
CREATE TABLE tags (photo INTEGER NOT NULL REFERENCES photos (id) ON DELETE CASCADE, tag TEXT NOT NULL);
"""
CONFIG: Final = """
[server]
workers = 2

[resources.photos]
kind = "photos"
database = "photos.db"
table = "photos"
id = "id"
root = "projects"
search = ["project", "base", "stars", "keep_jpg"]
"""


class Studio:
    """One folder with everything in it; files and rows are looked at as the application would."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder = folder
        self.projects = folder / "projects"
        self.projects.mkdir()
        (folder / "bulkops.toml").write_text(config)
        with closing(sqlite3.connect(folder / "photos.db")) as connection:
            connection.executescript(f"PRAGMA journal_mode = wal; {TABLE}")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "photos.db", timeout=10)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return connection.execute(statement, values).fetchall()

    def add(self, project: str, base: str, **flags: Any) -> int:
        """Insert a row; without flags all is there and kept."""
        values = {"keep_jpg": 1, "jpg_available": 1, "keep_raw": 1, "raw_available": 0, **flags}
        names = ", ".join(["project", "base", *values])
        marks = ", ".join("?" * (len(values) + 2))
        self.sql(f"INSERT INTO photos ({names}) VALUES ({marks})", project, base, *values.values())
        return int(self.sql("SELECT id FROM photos WHERE project = ? AND base = ?", project, base)[0][0])

    def row(self, project: str, base: str) -> tuple[int, int, int, int] | None:
        """Return keep_jpg, jpg_available, keep_raw, raw_available."""
        found = self.sql(
            "SELECT keep_jpg, jpg_available, keep_raw, raw_available FROM photos WHERE project = ? AND base = ?",
            project, base,
        )  # fmt: skip
        return found[0] if found else None

    def rows(self) -> list[Any]:
        return self.sql("SELECT * FROM photos ORDER BY id")

    def put(self, project: str, name: str, content: bytes | Path) -> Path:
        """Put a file where the application's upload would."""
        path = self.projects / project / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content)
        return path

    def names(self, project: str, folder: str = ".") -> list[str]:
        """Name the files in a folder of a project."""
        path = self.projects / project / folder
        return sorted(each.name for each in path.iterdir() if each.is_file()) if path.is_dir() else []

    def bytes_of(self, project: str) -> dict[str, str]:
        """Return the digest of every file of a project that is no derivative and not in the trash."""
        path = self.projects / project
        return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in self.names(project)}


def samples(pattern: str = "*_[1-8].jpg") -> list[Path]:
    """Return the sample photos; the same that the data folder holds, wherever they come from."""
    return sorted(SAMPLES.glob(pattern))


def damaged(photo: Path) -> bytes:
    """Return a photo with a byte pair in its picture that cannot stand there; decoders draw over it."""
    content = bytearray(photo.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 2] = b"\xff\x9f"
    return bytes(content)
