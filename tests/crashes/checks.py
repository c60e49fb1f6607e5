"""What must be true of the small world: at any crash, and once its plan is carried out.

Nothing here knows how the engine works; it looks at the application's rows and files and at what bulkops
says about them. Databases are looked at in a copy, so that looking repairs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.crashes import world
from tests.crashes.world import HOSTILE, MISSING, NOTES, OK, RECEIPTS, SHARED, TENANT, content_of

_LIVE = {
    "receipts": "SELECT id FROM receipts WHERE business = ?",
    "notes": "SELECT code FROM notes WHERE business = ? AND is_deleted = 0",
}


class Violation(AssertionError):
    """A promise was broken."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@contextmanager
def copied(folder: Path, name: str) -> Iterator[sqlite3.Connection | None]:
    """Open a copy of a database with its journals; ``None`` when there is none yet."""
    if not (folder / name).exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        for suffix in ("", "-wal", "-journal"):
            if (folder / f"{name}{suffix}").exists():
                shutil.copyfile(folder / f"{name}{suffix}", os.path.join(place, f"{name}{suffix}"))
        with closing(sqlite3.connect(os.path.join(place, name), isolation_level=None)) as connection:
            must(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok", f"{name} is damaged")
            yield connection


def _known_files(ours: sqlite3.Connection | None) -> list[tuple[str, str, str]]:
    if ours is None:
        return []
    rows = ours.execute("SELECT path, trash, state FROM deletions")
    return [(os.fsdecode(path), trash, state) for path, trash, state in rows]


def _trash(folder: Path) -> dict[str, str]:
    return {
        os.path.basename(path): digest
        for path, digest in world.file_hashes(folder / "bulkops-data" / "trash").items()
    }


def check_crashed(folder: Path) -> None:
    """Check what holds at every instant: no live row without its file, no file that nobody knows of."""
    with copied(folder, "app.db") as app, copied(folder, "bulkops.db") as ours:
        assert app is not None
        _check_bystanders(app, folder)
        live = {path for (path,) in app.execute("SELECT path FROM attachments")}
        known = _known_files(ours)
        for path in {path for receipt in RECEIPTS for path in receipt.paths} - MISSING - HOSTILE:
            there = (folder / "files" / path).exists()
            if path in live:
                must(there, f"a live row lacks its file {path}")
            else:
                must(any(path == each for each, _, _ in known), f"nobody knows of the file {path}")
        if ours is not None:
            _check_counts(ours)


def _check_bystanders(app: sqlite3.Connection, folder: Path) -> None:
    rows = app.execute("SELECT id, name, amount, keep FROM receipts WHERE business = 'other' ORDER BY id")
    expected = [(r.id, r.name, r.id * 1.5, r.keep) for r in RECEIPTS if r.business == "other"]
    must(rows.fetchall() == expected, "a bystander's receipt changed")
    notes = app.execute("SELECT code, body, is_deleted FROM notes WHERE business = 'other'").fetchall()
    must(notes == [(n[0], n[2], n[3]) for n in NOTES if n[1] == "other"], "a bystander's note changed")
    for receipt in RECEIPTS:
        if receipt.business == "other":
            for path in receipt.paths:
                found = (folder / "files" / path).read_bytes()
                must(found == content_of(path), f"the bystander's file {path} changed")
    must((folder / "app.toml").read_bytes() == b"not yours", "a file outside the root changed")
    must(app.execute("SELECT count(*) FROM journal").fetchone()[0] >= 1, "the journal lost rows")


def _check_counts(ours: sqlite3.Connection) -> None:
    for status, total, cursor, *counts in ours.execute(
        "SELECT status, total, cursor, succeeded, failed, skipped FROM jobs"
    ):
        must(sum(counts) == cursor, f"{counts} do not add up to {cursor}")
        if status == "completed":
            must(cursor == total, f"completed at {cursor} of {total}")


def check_settled(ours: sqlite3.Connection) -> None:
    """Check that nothing is left half done in our database."""
    _check_counts(ours)
    for table, condition in (
        ("intents", "1"),
        ("trash", "kept = 0"),
        ("deletions", "state IN ('tentative', 'queued', 'moving', 'purging', 'restoring', 'dead')"),
    ):
        left = ours.execute(f"SELECT * FROM {table} WHERE {condition}").fetchall()
        must(not left, f"left in {table}: {left}")


def check_acted(folder: Path, resources: list[str]) -> None:
    """Check the world after its deletes: outcomes, rows, files, trash."""
    with copied(folder, "app.db") as app, copied(folder, "bulkops.db") as ours:
        assert app is not None
        assert ours is not None
        check_settled(ours)
        _check_bystanders(app, folder)
        expected: dict[str, dict[str, Any]] = {
            "receipts": {str(r.id): r.outcome for r in RECEIPTS if r.business == TENANT},
            "notes": {note[0]: note[4] for note in NOTES if note[1] == TENANT},
        }
        for resource in resources:
            _check_job(ours, resource, expected[resource])
        if "receipts" in resources:
            _check_receipts(app)
            _check_files(folder, ours)
        if "notes" in resources:
            _check_notes(app)


def check_cancelled(folder: Path) -> None:
    """Check that a job cancelled on its way did exactly what it says: no more, no less."""
    with copied(folder, "app.db") as app, copied(folder, "bulkops.db") as ours:
        assert app is not None
        assert ours is not None
        check_settled(ours)
        _check_bystanders(app, folder)
        job, resource, status, cursor, *counts = ours.execute(
            "SELECT id, resource, status, cursor, succeeded, failed, skipped FROM jobs"
        ).fetchone()
        must(status in ("cancelled", "completed"), f"the job is {status}")
        chunks = ours.execute("SELECT ids FROM manifest WHERE job = ? ORDER BY first", [job])
        ids = [item for (chunk,) in chunks for item in json.loads(chunk)]
        odd = dict(ours.execute("SELECT position, outcome FROM exceptions WHERE job = ?", [job]).fetchall())
        gone = {item for place, item in enumerate(ids[:cursor]) if place not in odd}
        live = {item for (item,) in app.execute(_LIVE[resource], [TENANT])}
        must(live == set(ids) - gone, f"{sorted(live)} are there, {sorted(gone)} are said to be gone")
        passed = [outcome for place, outcome in odd.items() if place < cursor]
        must(
            counts == [len(gone), passed.count("failed"), passed.count("skipped")],
            f"{counts} is not what the exceptions {odd} come to at {cursor}",
        )
        right: dict[Any, str] = {r.id: r.outcome[0] for r in RECEIPTS} | {n[0]: n[4][0] for n in NOTES}
        for place, item in enumerate(ids[:cursor]):
            must(odd.get(place, "succeeded") == right[item], f"{item} is {odd.get(place)}")
        known = {path for path, _, _ in _known_files(ours)}
        named = {path for r in RECEIPTS if r.id in gone for path in r.paths}
        must(known == named, f"the queue has {known}, {named} is right")


def _check_job(ours: sqlite3.Connection, resource: str, expected: dict[str, Any]) -> None:
    rows = ours.execute(
        "SELECT id, status, total, succeeded, failed, skipped FROM jobs WHERE resource = ? AND kind = 'act'",
        [resource],
    ).fetchall()
    must(len(rows) == 1, f"{len(rows)} jobs on {resource}")
    job, status, total, *counts = rows[0]
    must(status == "completed" and total == len(expected), f"{resource} is {status} with {total} items")
    wanted = [sum(o[0] == word for o in expected.values()) for word in ("succeeded", "failed", "skipped")]
    must(counts == wanted, f"{resource} counted {counts}, {wanted} is right")
    found = {
        item: (outcome, code)
        for item, outcome, code in ours.execute(
            "SELECT item, outcome, code FROM exceptions WHERE job = ?", [job]
        )
    }
    odd = {item: outcome for item, outcome in expected.items() if outcome != OK}
    must(found == odd, f"{resource} has exceptions {found}, {odd} is right")
    audited = ours.execute(
        "SELECT sum(detail ->> 'count') FROM audit WHERE job = ? AND verb = 'batch'", [job]
    )
    must(audited.fetchone()[0] == total, "the audit's batches do not add up")
    images = {item for (item,) in ours.execute("SELECT item FROM trash WHERE job = ? AND kept = 1", [job])}
    if resource == "receipts":
        must(images == set(expected) - set(odd), f"images are kept of {images}")


def _check_receipts(app: sqlite3.Connection) -> None:
    stay = [r for r in RECEIPTS if r.business == "other" or r.outcome != OK]
    rows = app.execute("SELECT id, name FROM receipts ORDER BY id").fetchall()
    must(rows == [(r.id, r.name) for r in stay], f"the receipts are {rows}")
    paths = app.execute("SELECT receipt, path FROM attachments ORDER BY receipt, path").fetchall()
    must(paths == [(r.id, p) for r in stay for p in sorted(r.paths)], f"the attachments are {paths}")


def _check_notes(app: sqlite3.Connection) -> None:
    rows = dict(app.execute("SELECT code, is_deleted FROM notes").fetchall())
    wanted = {n[0]: int(n[1] == TENANT and n[4] == OK) for n in NOTES}
    must(rows == wanted, f"the notes are {rows}")


def _check_files(folder: Path, ours: sqlite3.Connection) -> None:
    known = _known_files(ours)
    trash = _trash(folder)
    gone = [p for r in RECEIPTS if r.business == TENANT and r.outcome == OK for p in r.paths]
    wanted = {p: "missing" if p in MISSING else "shared" if p in SHARED else "trashed" for p in gone}
    must(
        sorted((p, s) for p, _, s in known) == sorted(wanted.items()),
        f"the queue says {known}, {wanted} is right",
    )
    names = {name: path for path, name, state in known if state == "trashed"}
    right = {name: hashlib.sha256(content_of(path)).hexdigest() for name, path in names.items()}
    must(trash == right, f"the trash holds {trash}, {right} is right")
    for receipt in RECEIPTS:
        for path in set(receipt.paths) - MISSING - HOSTILE:
            there = (folder / "files" / path).exists()
            must(there == (wanted.get(path) != "trashed"), f"{path} is there: {there}")


def check_undone(folder: Path, before: str, files: dict[str, str]) -> None:
    """Check that the application's database and files are what they were."""
    with copied(folder, "app.db") as app, copied(folder, "bulkops.db") as ours:
        assert app is not None
        assert ours is not None
        check_settled(ours)
        bad = ours.execute("SELECT status, outcome, failed, skipped FROM jobs WHERE kind = 'undo'").fetchall()
        must(all(row == ("completed", "ok", 0, 0) for row in bad), f"the undo jobs are {bad}")
        now = "\n".join(line for line in app.iterdump() if "_bulkops_" not in line)
        must(now == before, "the application's rows are not what they were")
    must(world.file_hashes(folder / "files") == files, "the files are not what they were")
    must(_trash(folder) == {}, f"the trash still holds {_trash(folder)}")
