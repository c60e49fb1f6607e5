"""The resources that the contract suite is run over, each with a small world of its own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from bulkops import Bulkops
from bulkops.testing import Subject, Unsupported
from tests.contract.mailbox_api import MailboxApi

_ROWS: Final = """
CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'open',
  is_deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE pages (id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes (id) ON DELETE CASCADE, body TEXT);
CREATE TABLE spoilt (id INTEGER PRIMARY KEY);
CREATE TRIGGER notes_kept BEFORE DELETE ON notes WHEN old.id IN (SELECT id FROM spoilt)
BEGIN SELECT RAISE(ABORT, 'it is kept'); END;
CREATE TRIGGER notes_fixed BEFORE UPDATE ON notes WHEN old.id IN (SELECT id FROM spoilt)
BEGIN SELECT RAISE(ABORT, 'it is fixed'); END;
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9)
INSERT INTO notes (id, title) SELECT i * 10, 'Note ' || i FROM n;
INSERT INTO pages (note, body) SELECT id, 'page of ' || id FROM notes;
"""


class TableSubject(Subject):
    """Notes with pages in a table: hidden by a flag, taken to the trash, deleted for good, or closed."""

    resource = "notes"

    def __init__(
        self, folder: Path, *, soft: bool, ledger: str, action: str = "delete", hard: bool = False
    ) -> None:
        self._folder = folder
        self._soft = soft
        self._ledger = ledger
        self.action = action
        self.options = {"hard": True} if hard else {}
        self.reversible = not hard
        with closing(sqlite3.connect(folder / "app.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"PRAGMA synchronous = OFF; BEGIN; {_ROWS} COMMIT;")

    def house(self) -> Bulkops:
        notes: dict[str, Any] = {
            "kind": "table", "database": "app.db", "table": "notes", "id": "id", "label": "title",
            "status": {"column": "status", "closed": "closed"}, "ledger": self._ledger,
        }  # fmt: skip
        if self._soft:
            notes["soft_delete"] = "is_deleted"
        return Bulkops({"server": {"workers": 2}, "resources": {"notes": notes}}, base=self._folder)

    def _run(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(
            sqlite3.connect(self._folder / "app.db", timeout=10, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            return connection.execute(sql, parameters).fetchall()

    def look(self) -> dict[str, Any]:
        rows = self._run(
            "SELECT n.id, n.title, n.status, group_concat(p.id || p.body) FROM notes AS n"
            " LEFT JOIN pages AS p ON p.note = n.id WHERE NOT n.is_deleted GROUP BY n.id ORDER BY n.id"
        )
        return {str(row[0]): row[1:] for row in rows}

    def add(self) -> str:
        (found,) = self._run("INSERT INTO notes (id, title) VALUES (1000, 'late') RETURNING id")
        return str(found[0])

    def take_away(self, item: str) -> None:
        self._run("DELETE FROM notes WHERE id = ?", int(item))

    def spoil(self, item: str) -> None:
        self._run("INSERT INTO spoilt VALUES (?)", int(item))


class FolderSubject(Subject):
    """Dossiers: folders with images, and files."""

    resource = "dossiers"
    action = "delete"
    unknown = "nobody"

    def __init__(self, folder: Path, *, hard: bool) -> None:
        self._folder = folder
        self._root = folder / "dossiers_data"
        self.options = {"hard": True} if hard else {}
        self.reversible = not hard
        for number in range(8):
            self._make(f"dossier {number}")
        (self._root / "plain.txt").write_bytes(b"an item may be a file")

    def _make(self, name: str) -> None:
        place = self._root / name / "pages" / "scans"
        place.mkdir(parents=True)
        (place / "1.jpg").write_bytes(name.encode() * 9)
        (place.parent / "index.txt").write_bytes(b"of " + name.encode())
        (place / "link").symlink_to("../index.txt")

    def house(self) -> Bulkops:
        dossiers = {"kind": "folder", "root": "dossiers_data", "shared": True}
        return Bulkops({"server": {"workers": 2}, "resources": {"dossiers": dossiers}}, base=self._folder)

    def look(self) -> dict[str, Any]:
        return {
            item.name: _content_of(item)
            for item in sorted(self._root.iterdir())
            if not item.name.startswith(".bulkops")
        }

    def add(self) -> str:
        self._make("late")
        return "late"

    def take_away(self, item: str) -> None:
        place = self._root / item
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()

    def spoil(self, item: str) -> None:
        place = self._root / item
        done = subprocess.run(["chattr", "+i", str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unsupported(f"nothing can be made immutable here: {done.stderr.strip()}")

    def mend(self) -> None:
        """Let what was spoilt be removed."""
        subprocess.run(["chattr", "-R", "-i", str(self._root)], capture_output=True, check=False)


def _content_of(place: Path) -> dict[str, tuple[str, bytes]]:
    """Return whatever is below a place, and the place itself, by path."""
    found = {}
    for path in [place, *sorted(place.rglob("*"))]:
        if path.is_symlink():
            told = ("link", os.readlink(path).encode())
        elif path.is_dir():
            told = ("folder", b"")
        else:
            told = ("file", path.read_bytes())
        found[str(path.relative_to(place))] = told
    return found


class MailboxSubject(Subject):
    """The README's mailboxes, behind somebody else's service."""

    resource = "mailboxes"
    action = "delete"
    unknown = "nobody"

    def __init__(self, folder: Path, api: MailboxApi) -> None:
        """Take a folder whose ``mailboxes.py`` is importable, and the service."""
        self._folder = folder
        self._api = api
        api.fill(8)

    def house(self) -> Bulkops:
        mailboxes = {"kind": "mailboxes:Mailboxes", "settings": {"url": self._api.url}}
        return Bulkops({"server": {"workers": 2}, "resources": {"mailboxes": mailboxes}}, base=self._folder)

    def look(self) -> dict[str, Any]:
        return {mailbox: dict(row) for mailbox, row in self._api.mailboxes.items()}

    def add(self) -> str:
        self._api.add("late", customer="acme", megabytes=0)
        return "late"

    def take_away(self, item: str) -> None:
        del self._api.mailboxes[item]

    def spoil(self, item: str) -> None:
        self._api.in_use.add(item)
