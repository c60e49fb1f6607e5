"""An undo that died in the midst, beside an application that went on: what is not ours is never taken for ours."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from bulkops import Bulkops
from bulkops.models import StartBody, UndoBody
from bulkops.testing.bench import OWNER, opened
from bulkops.testing.crashes import crashing
from tests.contract.subjects import TableSubject
from tests.engine_house import dump, execute, make_database, outcomes, run, undo
from tests.engine_house import opened as house


async def _crashed(subject: TableSubject, point: str) -> tuple[str, str]:
    """Undo a job over the nine notes until it dies at a point of its second batch, which has 60; return both ids."""
    async with opened(subject) as bench:
        job = await bench.run(all=True, batch_size=2)
    async with crashing(subject, point) as bench:
        undoing, _ = await bench.runtime.service.undo(OWNER, job.id, UndoBody())
        await anyio.sleep_forever()
    return job.id, undoing.id


@pytest.mark.parametrize("point", ["announced", "applied"])
@pytest.mark.parametrize(
    ("action", "change", "back"),
    [
        (
            "delete",
            "INSERT OR REPLACE INTO notes (id, title) VALUES (60, 'theirs')",
            "DELETE FROM notes WHERE id = 60",
        ),
        (
            "close",
            "UPDATE notes SET status = 'theirs' WHERE id = 60",
            "UPDATE notes SET status = 'closed' WHERE id = 60",
        ),
    ],
)
async def test_what_came_in_between_is_a_conflict_and_what_was_kept_stays_kept(
    tmp_path: Path, action: str, change: str, back: str, point: str
) -> None:
    subject = TableSubject(tmp_path, soft=False, ledger="own", action=action)
    before = subject.look()
    job_id, undo_id = await _crashed(subject, point)
    execute(tmp_path / "app.db", change, foreign_keys=False)
    theirs = execute(tmp_path / "app.db", "SELECT title, status FROM notes WHERE id = 60")
    async with opened(subject) as bench:
        done = await bench.rested(undo_id)
        assert (done.status, done.succeeded, done.failed, done.skipped) == ("completed", 8, 0, 1)
        assert (await bench.outcomes(undo_id))["60"] == ("skipped", "CONFLICT")
        assert execute(tmp_path / "app.db", "SELECT title, status FROM notes WHERE id = 60") == theirs
        execute(tmp_path / "app.db", back, foreign_keys=False)
        if (action, point) == ("delete", "applied"):
            execute(tmp_path / "app.db", "DELETE FROM pages WHERE note = 60")
        again = await bench.undone(job_id, ids=["60"])
        assert again.succeeded == 1
    assert subject.look() == before


@pytest.mark.parametrize("ledger", ["own", "app"])
@pytest.mark.parametrize("theirs", [False, True])
async def test_what_went_along_with_a_row_comes_back_though_somebody_restored_the_row(
    tmp_path: Path, ledger: str, theirs: bool
) -> None:
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
    notes = {"table": "notes", "id": "id", "soft_delete": "is_deleted", "children": [pages], "ledger": ledger}
    before = dump(path)
    async with house(tmp_path, {"notes": notes}) as runtime:
        gone = await run(runtime, "notes", "delete", all=True)
        if theirs:
            execute(path, "UPDATE notes SET is_deleted = 0 WHERE id <> 2")
        else:
            await run(runtime, "notes", "restore", ids=["1", "3"])
        back = await undo(runtime, gone.id)
        assert await outcomes(runtime, back.id) == {
            "1": "succeeded", "2": "succeeded", "3": "skipped CONFLICT",
        }  # fmt: skip
    assert dump(path) == before
    assert sorted(each.name for each in root.iterdir() if each.is_file()) == ["one.txt", "two.txt"]


@pytest.mark.parametrize("point", ["announced", "applied"])
async def test_after_a_crash_what_goes_along_tells_whether_a_restored_row_was_undone(
    tmp_path: Path, point: str
) -> None:
    subject = Tabbed(tmp_path, soft=True, ledger="own")
    before = subject.look()
    async with opened(subject) as bench:
        job = await bench.run(all=True, batch_size=2)
        await bench.runtime.service.start(OWNER, "notes", "restore", StartBody(ids=["70", "60"]))
    async with crashing(subject, point) as bench:
        undoing, _ = await bench.runtime.service.undo(OWNER, job.id, UndoBody())
        await anyio.sleep_forever()
    async with opened(subject) as bench:
        done = await bench.rested(undoing.id)
        assert (done.status, done.succeeded, done.failed, done.skipped) == ("completed", 9, 0, 0)
    assert subject.look() == before


class Tabbed(TableSubject):
    """Notes whose pages are declared to go along."""

    def house(self) -> Bulkops:
        return Bulkops(
            {
                "server": {"workers": 2},
                "resources": {
                    "notes": {
                        "kind": "table", "database": "app.db", "table": "notes", "id": "id",
                        "soft_delete": "is_deleted", "ledger": self._ledger,
                        "children": [{"table": "pages", "key": "note"}],
                    }
                },
            },
            base=self._folder,
        )  # fmt: skip


@pytest.mark.parametrize("default", ["1.5", "(2 + 2)", "TRUE", "x'41'", "-3", "'it''s'", '"word"', "NULL"])
async def test_a_reference_that_was_set_to_its_default_is_given_back(tmp_path: Path, default: str) -> None:
    path = make_database(
        tmp_path / "app.db",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, k UNIQUE);"
        f"CREATE TABLE pages (id INTEGER PRIMARY KEY, k DEFAULT {default} REFERENCES notes (k) ON DELETE SET DEFAULT);"
        "INSERT INTO pages DEFAULT VALUES; INSERT INTO notes (k) SELECT k FROM pages;"
        "INSERT INTO notes VALUES (7, 'seven'); INSERT INTO pages (k) VALUES ('seven')",
    )
    before = dump(path)
    async with house(tmp_path, {"notes": {"table": "notes", "id": "id"}}) as runtime:
        gone = await run(runtime, "notes", "delete", ids=["7"])
        assert execute(path, "SELECT count(DISTINCT k), count(*) FROM pages")[0][0] in (0, 1)
        assert (await undo(runtime, gone.id)).succeeded == 1
    assert dump(path) == before


@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_rows_that_need_each_other_come_back_in_one_whatever_the_size_of_a_batch(
    tmp_path: Path, ledger: str
) -> None:
    path = make_database(
        tmp_path / "app.db",
        "CREATE TABLE people (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES people ON DELETE CASCADE,"
        " friend INTEGER DEFAULT 1 REFERENCES people ON DELETE SET DEFAULT);"
        "CREATE TABLE pairs (a INTEGER REFERENCES people ON DELETE CASCADE,"
        " b INTEGER REFERENCES people ON DELETE CASCADE);"
        "CREATE INDEX people_boss ON people (boss); CREATE INDEX people_friend ON people (friend);"
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40)"
        " INSERT INTO people SELECT i, iif(i % 3 = 2, i - 1, NULL), iif(i % 2 = 0, i - 1, 1) FROM n;"
        "INSERT INTO pairs SELECT id, id - 1 FROM people WHERE id > 1;"
        "INSERT INTO pairs SELECT id - 1, id FROM people WHERE id > 1",
    )
    before = dump(path)
    people = {"table": "people", "id": "id", "protect": {"id": 1}, "ledger": ledger}
    async with house(tmp_path, {"people": people}) as runtime:
        gone = await run(runtime, "people", "delete", all=True, batch_size=8)
        # Some go along with their bosses, and are no more there when it is their turn.
        assert (gone.failed, gone.succeeded + gone.skipped) == (0, 40)
        back = await undo(runtime, gone.id)
        assert (back.succeeded, back.failed, back.skipped) == (gone.succeeded, 0, 0)
    assert dump(path) == before
