"""How the demo's data are written: new files, new databases, moments. What exists is never replaced."""

from __future__ import annotations

import os
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bulkops.demo_pictures import jpeg

_FIRST_DAY: Final = datetime(2024, 1, 2, 8, tzinfo=UTC)
_DAYS: Final = 720


def new_database(path: Path, schema: str) -> sqlite3.Connection:
    """Make a database with this schema."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(schema)
    return connection


def dice_of(seed: str) -> random.Random:
    """Return dice that fall the same way for the same seed."""
    return random.Random(seed)  # noqa: S311  a demo wants the same dice every time


def moment(dice: random.Random) -> str:
    """Choose a moment of two years."""
    at = _FIRST_DAY + timedelta(days=dice.randrange(_DAYS), seconds=dice.randrange(36_000))
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def small_pictures() -> list[bytes]:
    """Draw what scans and images of the demo look like."""
    return [jpeg(24, 16, seed) for seed in range(12)]


def write(path: Path, content: bytes) -> None:
    """Write a new file; one that is there already is left as it is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        fd = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o644)
    except FileExistsError:
        return
    with os.fdopen(fd, "wb") as file:
        file.write(content)
