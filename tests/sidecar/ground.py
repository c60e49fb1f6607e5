"""An application's data for a sidecar: rows to delete, a journal that says what was deleted, and how to ask.

Every deletion of a row writes a line into the journal, in the same transaction: a row that was deleted twice,
or never, shows.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from bulkops.errors import StartRefused
from bulkops.store.instance import InstanceLock
from tests.sidecar.host import TOKEN, until

ROWS: Final = 150
_CONFIG: Final = """
[resources.notes]
kind = "table"
database = "app.db"
table = "notes"
id = "id"

[resources.notes.actions.delete]
batch_size = 10
throttle_ms = 30
"""
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE journal (note INTEGER NOT NULL);
CREATE TRIGGER notes_journal AFTER DELETE ON notes BEGIN INSERT INTO journal VALUES (old.id); END;
"""


def lay(folder: Path, *, afresh: bool = False) -> Path:
    """Make a data directory with a config and an application's database in it; ``afresh``: its rows again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bulkops.toml").write_text(_CONFIG)
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        if afresh and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.executescript("DELETE FROM notes; DELETE FROM journal;")
        else:
            connection.executescript(_SCHEMA)
        connection.executemany("INSERT INTO notes VALUES (?, 'a note')", [(n,) for n in range(1, ROWS + 1)])
        connection.commit()
    return folder


def deleted(folder: Path) -> list[int]:
    """Return the ids of all deletions there were, in order of id."""
    with closing(sqlite3.connect(folder / "app.db", timeout=10)) as connection:
        return [row[0] for row in connection.execute("SELECT note FROM journal ORDER BY note")]


def change(folder: Path, sql: str) -> None:
    """Change the application's database as the application would."""
    with closing(sqlite3.connect(folder / "app.db", timeout=10)) as connection:
        connection.executescript(sql)


def is_free(folder: Path) -> bool:
    """Say whether nobody holds the lock of a data directory."""
    lock = InstanceLock(folder)
    try:
        lock.acquire()
    except StartRefused:
        return False
    lock.release()
    return True


def ask(
    ready: dict[str, Any],
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = TOKEN,
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """Ask a sidecar; returns status, headers in lower case, and JSON (text where it is none)."""
    connection = http.client.HTTPConnection(ready["host"], ready["port"], timeout=15)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    if body is not None:
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    told = {name.lower(): value for name, value in answer.getheaders()}
    try:
        return answer.status, told, json.loads(text)
    except ValueError:
        return answer.status, told, text


def start_job(ready: dict[str, Any], *, begun: bool = True) -> str:
    """Start to delete all notes; returns the job's id once some of them are gone."""
    status, _, job = ask(ready, "POST", "/api/bulk/notes/delete", {"all": True, "options": {"hard": True}})
    assert status == 202, job
    if begun:
        until(
            lambda: ask(ready, "GET", f"/api/jobs/{job['id']}")[2]["processed"],
            within_s=10,
            what="a first batch",
        )
    return str(job["id"])


def ended_exactly(ready: dict[str, Any], folder: Path, job_id: str) -> None:
    """Wait for the job's end: each note was deleted once and counted once."""
    _, _, job = ask(ready, "GET", f"/api/jobs/{job_id}?wait=20")
    assert (job["status"], job["succeeded"], job["processed"]) == ("completed", ROWS, ROWS), job
    assert deleted(folder) == list(range(1, ROWS + 1))
