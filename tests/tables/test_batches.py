"""Batches on a table beside an application that goes on: after a crash, between a look and its deed, and over again."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from bulkops.models import UndoBody
from bulkops.resources.table.batches import TableBatches
from bulkops.testing.bench import OWNER as WORKER
from bulkops.testing.bench import opened as opened_over
from bulkops.testing.crashes import crashing
from tests.contract.subjects import TableSubject
from tests.engine_house import counts, dump, execute, make_database, opened, outcomes, run, undo, until

NOTES = {"table": "notes", "id": "id"}
IMAGES = {"table": "images", "id": "id", "file": "path", "root": "files"}


async def _crashed(subject: TableSubject, point: str) -> str:
    """Run a job over the nine notes until it dies at a point of the batch of 40 and 50; return its id."""
    async with opened_over(subject) as bench:
        job = await bench.run(all=True, canary=1, batch_size=2)
    async with crashing(subject, point) as bench:
        await bench.runtime.service.resume(WORKER, job.id)
        await anyio.sleep_forever()
    return job.id


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("ledger", ["own", "app"])
@pytest.mark.parametrize("anew", [[40], [40, 50]])
async def test_rows_made_after_a_crash_under_the_ids_of_deleted_ones_are_nobodys_to_take(
    tmp_path: Path, ledger: str, hard: bool, anew: list[int]
) -> None:
    subject = TableSubject(tmp_path, soft=False, ledger=ledger, hard=hard)
    job_id = await _crashed(subject, "applied")
    for item in anew:
        execute(tmp_path / "app.db", "INSERT INTO notes (id, title) VALUES (?, 'made since')", item)
    async with opened_over(subject) as bench:
        job = await bench.rested(job_id)
        assert (job.status, job.processed, job.failed) == ("completed", 9, 0)
        assert job.succeeded == (7 if ledger == "own" and len(anew) == 2 else 9)
    left = execute(tmp_path / "app.db", "SELECT id, title FROM notes")
    assert left == [(item, "made since") for item in anew]


async def test_a_row_changed_between_the_announcement_and_a_crash_is_left_alone(tmp_path: Path) -> None:
    subject = TableSubject(tmp_path, soft=False, ledger="own")
    job_id = await _crashed(subject, "announced")
    execute(tmp_path / "app.db", "UPDATE notes SET title = 'mine' WHERE id = 40")
    async with opened_over(subject) as bench:
        job = await bench.rested(job_id)
        assert (job.succeeded, job.failed, job.skipped) == (8, 0, 1)
        assert (await bench.outcomes(job_id))["40"] == ("skipped", "CONFLICT")
    assert execute(tmp_path / "app.db", "SELECT id, title FROM notes") == [(40, "mine")]


@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_a_file_that_a_row_names_only_since_the_look_goes_with_it_and_the_other_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    path = make_database(
        tmp_path / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT);"
        "CREATE TABLE parts (id INTEGER PRIMARY KEY, image INTEGER, path TEXT);"
        "INSERT INTO images VALUES (1, 'one.jpg'), (2, 'two.jpg'), (3, 'three.jpg')",
    )
    root = tmp_path / "files"
    root.mkdir()
    for name in ("one.jpg", "two.jpg", "three.jpg", "new.jpg", "part.jpg"):
        (root / name).write_text(name)
    plain = TableBatches.apply
    changes = [
        "UPDATE images SET path = 'new.jpg' WHERE id = 2",
        "INSERT INTO parts VALUES (1, 3, 'part.jpg')",
    ]

    async def late(*args: object) -> object:
        while changes:
            execute(path, changes.pop())
        return await plain(*args)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(TableBatches, "apply", late)
    parts = {"table": "parts", "key": "image", "file": "path", "root": "files"}
    images = {**IMAGES, "ledger": ledger, "children": [parts]}
    async with opened(tmp_path, {"images": images}) as runtime:
        job = await run(runtime, "images", "delete", all=True, options={"hard": True})
        assert counts(job) == (3, 0, 0)
        await until(lambda: [each.name for each in root.iterdir() if each.is_file()] == ["two.jpg"])
    assert (root / "two.jpg").read_text() == "two.jpg"


async def test_a_file_that_another_row_names_in_bytes_stays(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, path);"
        "INSERT INTO images VALUES (1, 'both.jpg'), (2, CAST('both.jpg' AS BLOB)), (3, CAST('own.jpg' AS BLOB))",
    )
    root = tmp_path / "files"
    root.mkdir()
    for name in ("both.jpg", "own.jpg"):
        (root / name).write_text(name)
    async with opened(tmp_path, {"images": IMAGES}) as runtime:
        job = await run(runtime, "images", "delete", ids=["1", "3"])
        assert counts(job) == (2, 0, 0)
        await until(lambda: not (root / "own.jpg").exists())

        async def none_waits() -> bool:
            return bool((await runtime.service.cleanup_stats(WORKER))["pending"] == 0)

        await until(none_waits)
        assert (root / "both.jpg").read_text() == "both.jpg"


async def test_a_file_that_a_row_names_from_another_root_stays(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT);"
        "CREATE TABLE scans (id INTEGER PRIMARY KEY, path TEXT);"
        "INSERT INTO images VALUES (1, 'scans/both.jpg'), (2, 'scans/own.jpg'), (3, 'scans/two.jpg');"
        "INSERT INTO scans VALUES (1, 'both.jpg'), (2, 'two.jpg'), (3, 'mine.jpg')",
    )
    root = tmp_path / "files" / "scans"
    root.mkdir(parents=True)
    for name in ("both.jpg", "own.jpg", "two.jpg", "mine.jpg"):
        (root / name).write_text(name)
    scans = {"table": "scans", "id": "id", "file": "path", "root": "files/scans"}
    async with opened(tmp_path, {"images": IMAGES, "scans": scans}) as runtime:
        await run(runtime, "images", "delete", ids=["1", "2"])
        await run(runtime, "scans", "delete", ids=["2", "3"])

        async def none_waits() -> bool:
            return bool((await runtime.service.cleanup_stats(WORKER))["pending"] == 0)

        await until(none_waits)
        assert {each.name for each in root.iterdir()} == {"both.jpg", "two.jpg"}


@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_what_an_earlier_undo_put_back_is_no_matter_of_the_next(tmp_path: Path, ledger: str) -> None:
    path = make_database(
        tmp_path / "app.db",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, is_deleted INTEGER NOT NULL DEFAULT 0);"
        "CREATE TABLE pages (id INTEGER PRIMARY KEY, note INTEGER, path TEXT);"
        "INSERT INTO notes (id, body) VALUES (1, 'a'), (2, 'b'), (3, 'c');"
        "INSERT INTO pages VALUES (1, 1, 'one.txt'), (2, 2, 'two.txt')",
    )
    root = tmp_path / "files"
    root.mkdir()
    for name in ("one.txt", "two.txt"):
        (root / name).write_text(name)
    pages = {"table": "pages", "key": "note", "file": "path", "root": "files"}
    notes = {**NOTES, "soft_delete": "is_deleted", "children": [pages], "ledger": ledger}
    before = dump(path)
    async with opened(tmp_path, {"notes": notes}) as runtime:
        first = await run(runtime, "notes", "delete", all=True)
        assert counts(await undo(runtime, first.id, ids=["1"])) == (1, 0, 0)
        again = await run(runtime, "notes", "delete", ids=["1"])
        rest = await undo(runtime, first.id)
        assert await outcomes(runtime, rest.id) == {
            "1": "skipped ALREADY_DONE", "2": "succeeded", "3": "succeeded",
        }  # fmt: skip
        assert execute(path, "SELECT is_deleted FROM notes WHERE id = 1") == [(1,)]
        assert counts(await undo(runtime, again.id)) == (1, 0, 0)
        assert dump(path) == before
        view, fresh = await runtime.service.undo(WORKER, first.id, UndoBody())
        assert (view.id, fresh) == (rest.id, False)
    assert sorted(each.name for each in root.iterdir() if each.is_file()) == ["one.txt", "two.txt"]
