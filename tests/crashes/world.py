"""A small application: its database, its files, a config for bulkops, and what must become of each row.

What comes in: an empty folder, a journal mode and a ledger; what goes out: rows of every kind that a bulk
delete meets (good ones, ones with files, ones that a foreign key, a trigger or a path keeps) and the right
outcome of each, as a person would write it down without reading the engine.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

TENANT: Final = "acme"

_SCHEMA: Final = """
CREATE TABLE receipts (
  id INTEGER PRIMARY KEY, business TEXT NOT NULL, name TEXT NOT NULL, amount REAL, keep INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE attachments (
  id INTEGER PRIMARY KEY, receipt INTEGER NOT NULL REFERENCES receipts (id) ON DELETE CASCADE, path TEXT
);
CREATE INDEX attachments_receipt ON attachments (receipt);
CREATE TABLE invoice_lines (
  id INTEGER PRIMARY KEY, receipt INTEGER NOT NULL REFERENCES receipts (id) ON DELETE RESTRICT
);
CREATE INDEX invoice_lines_receipt ON invoice_lines (receipt);
CREATE TRIGGER receipts_locked BEFORE DELETE ON receipts WHEN old.name = 'locked'
BEGIN SELECT RAISE(ABORT, 'a locked receipt stays'); END;
CREATE TRIGGER receipts_ignored BEFORE DELETE ON receipts WHEN old.name = 'ignored'
BEGIN SELECT RAISE(IGNORE); END;
CREATE TABLE notes (
  code TEXT PRIMARY KEY, business TEXT NOT NULL, body TEXT, is_deleted INTEGER NOT NULL DEFAULT 0
);
CREATE TRIGGER notes_pinned BEFORE UPDATE ON notes WHEN old.body = 'pinned'
BEGIN SELECT RAISE(ABORT, 'a pinned note stays'); END;
CREATE TABLE journal (id INTEGER PRIMARY KEY, entry TEXT NOT NULL);
"""

Outcome = tuple[str, str | None]
OK: Final[Outcome] = ("succeeded", None)
CONSTRAINT: Final[Outcome] = ("failed", "CONSTRAINT")


class Receipt(NamedTuple):
    """A receipt, the files it names, and what a delete of it comes to."""

    id: int
    business: str
    name: str
    paths: list[str]
    outcome: Outcome
    keep: int = 0


RECEIPTS: Final = [
    Receipt(1, TENANT, "plain", [], OK),
    Receipt(2, TENANT, "one file", ["two.pdf"], OK),
    Receipt(3, TENANT, "two files", ["three.pdf", "deep/er/three.png"], OK),
    Receipt(4, TENANT, "invoiced", ["four.pdf"], CONSTRAINT),
    Receipt(5, TENANT, "locked", ["five.pdf"], CONSTRAINT),
    Receipt(6, TENANT, "hostile", ["../app.toml"], ("failed", "REFUSED_PATH")),
    Receipt(7, TENANT, "its file is missing", ["nowhere.pdf"], OK),
    Receipt(8, TENANT, "ignored", ["eight.pdf"], ("skipped", "CONFLICT")),
    Receipt(9, TENANT, "shares a file", ["common.pdf"], OK),
    Receipt(10, TENANT, "protected", ["ten.pdf"], ("skipped", "PROTECTED"), 1),
    Receipt(11, TENANT, "plain too", [], OK),
    Receipt(12, TENANT, "last", ["twelve.pdf"], OK),
    Receipt(101, "other", "bystander", ["bystander.pdf"], OK),
    Receipt(102, "other", "bystander", ["common.pdf"], OK),
    Receipt(103, "other", "bystander", [], OK),
]
#: code, business, body, deleted already, outcome
NOTES: Final[list[tuple[str, str, str, int, Outcome]]] = [
    ("a", TENANT, "good", 0, OK),
    ("b'q", TENANT, "good", 0, OK),
    ("c", TENANT, "pinned", 0, CONSTRAINT),
    ("d e", TENANT, "good", 0, OK),
    ("é", TENANT, "good", 0, OK),
    ("z", "other", "bystander", 0, OK),
]
MISSING: Final = frozenset({"nowhere.pdf"})
SHARED: Final = frozenset({"common.pdf"})
HOSTILE: Final = frozenset({"../app.toml"})

_CONFIG: Final = """\
[server]
port = 0

[resources.receipts]
kind = "table"
database = "app.db"
table = "receipts"
id = "id"
tenant = "business"
label = "name"
protect = {{ keep = 1 }}
ledger = "{ledger}"
children = [{{ table = "attachments", key = "receipt", file = "path", root = "files" }}]

[resources.notes]
kind = "table"
database = "app.db"
table = "notes"
id = "code"
tenant = "business"
soft_delete = "is_deleted"
ledger = "{ledger}"
"""


def content_of(path: str) -> bytes:
    """Return what a file of the world holds."""
    return f"the file {path}\n".encode() * 3


def build(folder: Path, *, journal: str, ledger: str) -> None:
    """Make the application and bulkops' config in ``folder``; bulkops' own database is not there yet."""
    (folder / "files" / "deep" / "er").mkdir(parents=True)
    (folder / "app.toml").write_bytes(b"not yours")
    for receipt in RECEIPTS:
        for path in receipt.paths:
            if path not in MISSING | HOSTILE:
                (folder / "files" / path).write_bytes(content_of(path))
    with closing(sqlite3.connect(folder / "app.db", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        for receipt in RECEIPTS:
            connection.execute(
                "INSERT INTO receipts VALUES (?, ?, ?, ?, ?)",
                (receipt.id, receipt.business, receipt.name, receipt.id * 1.5, receipt.keep),
            )
            for path in receipt.paths:
                connection.execute(
                    "INSERT INTO attachments (receipt, path) VALUES (?, ?)", (receipt.id, path)
                )
        connection.execute("INSERT INTO invoice_lines VALUES (1, 4)")
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", [note[:4] for note in NOTES])
        connection.execute("INSERT INTO journal (entry) VALUES ('the application was here')")
        connection.execute("COMMIT")
    (folder / "bulkops.toml").write_text(_CONFIG.format(ledger=ledger))


def dump(database: Path) -> str:
    """Return all the application's schema and rows as text, ours left out."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return "\n".join(line for line in connection.iterdump() if "_bulkops_" not in line)


def file_hashes(folder: Path) -> dict[str, str]:
    """Return a hash of every file below ``folder``, by relative path."""
    return {
        os.path.relpath(os.path.join(root, name), folder): hashlib.sha256(
            Path(root, name).read_bytes()
        ).hexdigest()
        for root, _, names in os.walk(folder)
        for name in names
    }
