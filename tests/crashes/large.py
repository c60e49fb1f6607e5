"""A table with many rows of two tenants, and what a delete of one tenant's rows must leave."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

_CONFIG: Final = """\
[server]
port = 0

[resources.things]
kind = "table"
database = "app.db"
table = "things"
id = "id"
tenant = "business"
ledger = "{ledger}"

[resources.flags]
kind = "table"
database = "app.db"
table = "flags"
id = "id"
soft_delete = "is_deleted"
ledger = "{ledger}"
"""
_SCHEMA: Final = """
CREATE TABLE things (id INTEGER PRIMARY KEY, business TEXT NOT NULL, name TEXT NOT NULL);
CREATE TRIGGER things_locked BEFORE DELETE ON things WHEN old.name = 'locked'
BEGIN SELECT RAISE(ABORT, 'a locked thing stays'); END;
CREATE TABLE flags (id INTEGER PRIMARY KEY, name TEXT, is_deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE journal (id INTEGER PRIMARY KEY, entry TEXT NOT NULL, at REAL NOT NULL);
"""
_LOCKED_EVERY: Final = 9_973


class Large(NamedTuple):
    """How many rows there are of each kind."""

    folder: Path
    total: int
    locked: int
    bystanders: int

    @property
    def database(self) -> Path:
        return self.folder / "app.db"

    def digest(self, business: str | None = None) -> str:
        """Return a hash of all things, or of one tenant's."""
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(
                "SELECT id, business, name FROM things WHERE ?1 IS NULL OR business = ?1 ORDER BY id",
                [business],
            )
            digest = hashlib.sha256()
            for row in rows:
                digest.update(repr(row).encode())
            return digest.hexdigest()

    def left(self) -> tuple[int, int]:
        """Count what is left of the tenant's rows: locked ones and others."""
        with closing(sqlite3.connect(self.database)) as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE name = 'locked'), count(*) FILTER (WHERE name <> 'locked')"
                " FROM things WHERE business = 'acme'"
            ).fetchone()
            return row[0], row[1]


def build(folder: Path, rows: int, *, journal: str = "wal", ledger: str = "own", flags: int = 0) -> Large:
    """Make the database and the config; every tenth row is a bystander's, some of the others are locked."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "app.db", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO things VALUES (?, ?, ?)",
            (
                (n, "acme" if n % 10 else "other", "thing" if n % _LOCKED_EVERY else "locked")
                for n in range(1, rows + 1)
            ),
        )
        connection.executemany(
            "INSERT INTO flags (id, name) VALUES (?, 'flag')", ((n,) for n in range(1, flags + 1))
        )
        connection.execute("COMMIT")
    (folder / "bulkops.toml").write_text(_CONFIG.format(ledger=ledger))
    numbers = range(1, rows + 1)
    locked = sum(n % 10 != 0 for n in numbers[_LOCKED_EVERY - 1 :: _LOCKED_EVERY])
    bystanders = rows // 10
    return Large(folder, rows - bystanders, locked, bystanders)
