"""The application under the benchmarks: tables of twelve columns with two indexes, and hand-written loops on one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

_NOTES: Final = """
CREATE TABLE progress (job TEXT PRIMARY KEY, done INTEGER NOT NULL, cursor INTEGER NOT NULL);
CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
"""
_TABLE: Final = """
CREATE TABLE {table} (
  id           INTEGER PRIMARY KEY,
  business_id  INTEGER NOT NULL,
  number       TEXT NOT NULL,
  vendor       TEXT NOT NULL,
  status       TEXT NOT NULL,
  amount_cents INTEGER NOT NULL,
  currency     TEXT NOT NULL,
  category     TEXT,
  note         TEXT,
  created_at   TEXT NOT NULL,
  updated_at   TEXT,
  is_deleted   INTEGER NOT NULL DEFAULT 0
);
"""
_FILL: Final = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO {table}
SELECT i, i % 50, printf('R-%08d', i), 'Vendor ' || (i * 7919 % 5000), iif(i % 10, 'closed', 'open'),
       i * 37 % 100000, 'EUR', 'office', 'a note about receipt ' || i,
       datetime(1700000000 + i, 'unixepoch'), NULL, 0
  FROM n
"""
_INDEXES: Final = """
CREATE INDEX {table}_business ON {table} (business_id, created_at);
CREATE INDEX {table}_status ON {table} (status);
"""
_BATCH: Final = 1000


def make(path: Path, rows: int, tables: Sequence[str] = ("receipts",)) -> None:
    """Write the application's database, all its tables alike: WAL, and nothing left to do for a checkpoint."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(_NOTES)
        for table in tables:
            connection.execute(_TABLE.format(table=table))
            connection.execute(_FILL.format(table=table), {"rows": rows})
            connection.executescript(_INDEXES.format(table=table))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def copy(original: Path, folder: Path) -> Path:
    """Put a fresh copy of the application into a folder made for it; return the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(original, folder / "app.db")
    os.sync()
    return folder


def connect(path: Path) -> sqlite3.Connection:
    """Open a database as durably as bulkops does."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


_PAGE: Final = "SELECT id FROM receipts WHERE id > :after AND is_deleted = 0 ORDER BY id LIMIT :limit"
_SOFT: Final = "UPDATE receipts SET is_deleted = 1 WHERE id BETWEEN :first AND :last AND is_deleted = 0"
_HARD: Final = "DELETE FROM receipts WHERE id BETWEEN :first AND :last AND is_deleted = 0"
_NOTE: Final = """
INSERT INTO progress (job, done, cursor) VALUES ('hand', :done, :cursor)
ON CONFLICT (job) DO UPDATE SET done = done + excluded.done, cursor = excluded.cursor
"""


def delete_by_hand(path: Path, *, hard: bool) -> int:
    """Delete everything as a careful person writes it: keyset pages of 1,000, a progress row, durable commits."""
    after = done = 0
    effect = _HARD if hard else _SOFT
    with closing(connect(path)) as connection:
        while True:
            connection.execute("BEGIN IMMEDIATE")
            ids = [row[0] for row in connection.execute(_PAGE, {"after": after, "limit": _BATCH})]
            if not ids:
                connection.execute("ROLLBACK")
                return done
            count = connection.execute(effect, {"first": ids[0], "last": ids[-1]}).rowcount
            connection.execute(_NOTE, {"done": count, "cursor": ids[-1]})
            connection.execute("COMMIT")
            after, done = ids[-1], done + count
