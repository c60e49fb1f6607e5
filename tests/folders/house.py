"""Dossiers on disk: folders with pictures, files, odd names; and what a test asks of them again and again."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bulkops.runtime import Runtime
from bulkops.timing import Clock
from tests.engine_house import opened

DOSSIERS: dict[str, Any] = {"kind": "folder", "database": None, "root": "dossiers_data", "shared": True}


def make_dossier(root: Path, name: str | bytes, files: dict[str, bytes] | None = None) -> Path:
    """Make a folder with files in it, by their paths."""
    folder = root / os.fsdecode(name)
    folder.mkdir(parents=True)
    for path, content in (files or {"a.jpg": b"\xff\xd8 picture", "sub/b.txt": b"text"}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def make_deep(root: Path, name: str, depth: int) -> None:
    """Make a folder so deep that no path reaches its bottom, with a file on every hundredth level."""
    here = os.open(root, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
        if level % 100 == 99:
            os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def tree_of(folder: Path) -> dict[str, Any]:
    """Return all that is below a folder: kinds, contents, modes and times, by path; our own things left out."""
    found: dict[str, Any] = {}
    for above, folders, files in os.walk(os.fsencode(folder)):
        if above == os.fsencode(folder):
            folders[:] = [each for each in folders if not each.startswith(b".bulkops-")]
        for name in (*folders, *files):
            path = os.path.join(above, name)
            look = os.lstat(path)
            content: Any = None
            if stat.S_ISREG(look.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(look.st_mode):
                content = os.readlink(path)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            found[key] = (stat.filemode(look.st_mode), look.st_mtime_ns, content)
    return found


def trash_of(folder: Path, name: str = "dossiers") -> list[str]:
    """List what lies in a resource's trash."""
    return sorted(os.listdir(folder / "bulkops-data" / "trash" / name))


@asynccontextmanager
async def dossiers(
    folder: Path, *, clock: Clock | None = None, more: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Runtime]:
    """Run a house over ``dossiers_data``; ``settings`` are the resource's own."""
    server = settings.pop("server", {})
    resources = {"dossiers": {**DOSSIERS, **settings}, **(more or {})}
    (folder / "dossiers_data").mkdir(exist_ok=True)
    async with opened(folder, resources, clock=clock, **server) as runtime:
        yield runtime
