"""`check --explain`: the statements that jobs run, the index of each, and the one that is missing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bulkops.cli import main
from bulkops.configuration import from_dict
from bulkops.errors import ConfigError
from bulkops.resources.explanation import explain
from bulkops.resources.table.explaining import Statement

SCHEMA = """
CREATE TABLE receipts (
  id INTEGER PRIMARY KEY, business TEXT COLLATE NOCASE, number TEXT, status TEXT, is_deleted INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX receipts_number ON receipts (business COLLATE BINARY, number);
CREATE TABLE drafts (id INTEGER PRIMARY KEY, owner TEXT COLLATE NOCASE);
CREATE INDEX drafts_owner ON drafts (owner, id);
CREATE TABLE attachments (id INTEGER PRIMARY KEY, receipt_id INTEGER, path TEXT);
CREATE TABLE lines (
  id INTEGER PRIMARY KEY, receipt_id INTEGER REFERENCES receipts (id), other INTEGER REFERENCES receipts (id)
);
CREATE INDEX lines_other ON lines (other);
CREATE TABLE pairs (a TEXT, b INTEGER, note TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE loose (code TEXT, word TEXT);
"""

RESOURCES: dict[str, Any] = {
    "receipts": {
        "kind": "table", "database": "app.db", "table": "receipts", "id": "id", "tenant": "business",
        "soft_delete": "is_deleted", "search": ["number", "status"], "set": ["status"],
        "children": [{"table": "attachments", "key": "receipt_id"}],
    },
    "drafts": {"kind": "table", "database": "app.db", "table": "drafts", "id": "id", "tenant": "owner"},
    "pairs": {"kind": "table", "database": "app.db", "table": "pairs", "id": ["a", "b"], "search": ["note", "a"]},
    "loose": {"kind": "table", "database": "app.db", "table": "loose", "id": "code"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.executescript(SCHEMA)
    return tmp_path


async def explained(folder: Path) -> dict[str, dict[str, Statement]]:
    found = await explain(from_dict({"resources": RESOURCES}, folder, {}))
    return {
        f"{each.resource}.{each.action}": {statement.when: statement for statement in each.statements}
        for each in found
    }


async def test_every_action_of_every_table_is_explained(folder: Path) -> None:
    assert set(await explained(folder)) == {
        *(f"receipts.{action}" for action in ("delete", "restore", "purge", "set")),
        *(f"{resource}.export" for resource in RESOURCES),
        "drafts.delete",
        "pairs.delete",
        "loose.delete",
    }


async def test_walks_are_explained_by_each_column_that_filters_use(folder: Path) -> None:
    delete = (await explained(folder))["receipts.delete"]
    assert delete["to freeze the items, filtered by number"].index == "receipts_number"
    assert delete["to freeze the items, filtered by number"].missing is None
    pairs = (await explained(folder))["pairs.delete"]
    assert pairs["to freeze the items"].index is None
    assert pairs["to freeze the items"].missing is None, "all of them are wanted"
    assert pairs["to freeze the items, filtered by note"].missing == (
        'CREATE INDEX "pairs_note_a_b" ON "pairs" ("note", "a", "b")'
    )
    assert pairs["to freeze the items, filtered by a"].index == "PRIMARY KEY"


async def test_batches_and_what_goes_with_them_are_explained(folder: Path) -> None:
    found = await explained(folder)
    delete, purge = found["receipts.delete"], found["receipts.purge"]
    assert delete["each batch"].sql.startswith('UPDATE "receipts" AS t SET "is_deleted" = :to0 WHERE')
    assert delete["each batch"].index == "INTEGER PRIMARY KEY"
    child = purge["each batch, before: what goes with it in attachments"]
    assert child.sql.startswith('DELETE FROM "attachments" AS t')
    assert child.missing == 'CREATE INDEX "attachments_receipt_id" ON "attachments" ("receipt_id")'
    assert found["loose.delete"]["each batch"].missing == 'CREATE INDEX "loose_code" ON "loose" ("code")'


async def test_a_batch_looks_rows_up_by_their_ids_whatever_other_indexes_there_are(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        for columns in ("business", "is_deleted", "status", "is_deleted, status"):
            name = columns.replace(", ", "_")
            connection.execute(f"CREATE INDEX by_{name} ON receipts ({columns})")
        connection.execute("CREATE INDEX by_owner ON drafts (owner COLLATE BINARY)")
    for action, found in (await explained(folder)).items():
        if not action.startswith("loose"):
            assert found["each batch"].index in {"INTEGER PRIMARY KEY", "PRIMARY KEY"}, action


async def test_rows_that_refer_to_a_deleted_one_are_looked_for_by_an_index(folder: Path) -> None:
    found = await explain(from_dict({"resources": RESOURCES}, folder, {}))
    (purge,) = [each for each in found if (each.resource, each.action) == ("receipts", "purge")]
    links = [each for each in purge.statements if each.when == "each row: what refers to it in lines"]
    assert {(each.index, each.missing) for each in links} == {
        ("lines_other", None),
        (None, 'CREATE INDEX "lines_receipt_id" ON "lines" ("receipt_id")'),
    }


async def test_no_row_is_looked_for_when_foreign_keys_are_off_or_nothing_is_deleted(folder: Path) -> None:
    assert not any("refers" in when for when in (await explained(folder))["receipts.delete"])
    resources = {"receipts": {**RESOURCES["receipts"], "foreign_keys": False}}
    for action in await explain(from_dict({"resources": resources}, folder, {})):
        assert not any("refers" in statement.when for statement in action.statements)


async def test_where_foreign_keys_are_off_one_that_leads_nowhere_is_in_nobodys_way(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("CREATE TABLE lost (id INTEGER PRIMARY KEY, it REFERENCES gone (id))")
    lost = {"kind": "table", "database": "app.db", "table": "lost", "id": "id", "foreign_keys": False}
    found = await explain(from_dict({"resources": {"lost": lost}}, folder, {}))
    assert [(each.action, each.statements[-1].index) for each in found] == [
        ("delete", "INTEGER PRIMARY KEY"),
        ("export", "INTEGER PRIMARY KEY"),
    ]


async def test_each_missing_index_is_used_once_it_is_there(folder: Path) -> None:
    missing = {
        statement.missing
        for statements in (await explained(folder)).values()
        for statement in statements.values()
        if statement.missing
    }
    assert 'CREATE INDEX "drafts_owner_id" ON "drafts" ("owner" COLLATE BINARY, "id")' in missing
    assert len(missing) >= 5
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        for statement in missing:
            connection.execute(statement)
    for statements in (await explained(folder)).values():
        for when, explanation in statements.items():
            assert explanation.missing is None, (when, explanation)
            assert explanation.index is not None or when == "to freeze the items", (when, explanation)


async def test_no_index_is_missed_on_a_view(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("CREATE VIEW named AS SELECT code, code || '' AS name FROM loose")
    named = {"kind": "table", "database": "app.db", "table": "named", "id": "code", "search": ["name"]}
    found = await explain(from_dict({"resources": {"named": named}}, folder, {}))
    assert [each.action for each in found] == ["export"]
    assert [each.missing for each in found[0].statements] == [None] * 3


async def test_it_only_looks(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "app.db")) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO loose VALUES ('a', 'b')")
        writer.commit()
        before = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
        await explained(folder)
        after = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
    assert after == before


async def test_a_database_that_is_gone_is_a_mistake_of_the_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be found"):
        await explained(tmp_path)


def _write_config(folder: Path) -> str:
    lines = ["[resources.pairs]", 'kind = "table"', 'database = "app.db"', 'table = "pairs"']
    lines += ['id = ["a", "b"]', 'search = ["note"]']
    (folder / "bulkops.toml").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "bulkops.toml")


def test_people_read_it_as_text_and_programs_as_json(folder: Path) -> None:
    config = _write_config(folder)
    text = CliRunner().invoke(main, ["check", "--explain", "--config", config])
    assert text.exit_code == 0
    lines = [line.strip() for line in text.stdout.splitlines()]
    assert lines[0] == "pairs delete"
    place = lines.index("to freeze the items, filtered by note:")
    assert lines[place + 1].startswith("SELECT ")
    assert lines[place + 2 : place + 4] == [
        "index: none, all rows are read",
        'misses: CREATE INDEX "pairs_note_a_b" ON "pairs" ("note", "a", "b")',
    ]
    document = json.loads(
        CliRunner().invoke(main, ["check", "--explain", "--json", "--config", config]).stdout
    )
    action, export = document["actions"]
    assert (action["resource"], action["action"]) == ("pairs", "delete")
    assert (export["resource"], export["action"]) == ("pairs", "export")
    assert {"when", "sql", "plan", "index", "missing"} == set(action["statements"][0])
