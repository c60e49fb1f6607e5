"""The schema's versions: from every old one to the newest, a step a transaction, whatever happens between."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bulkops.database import open_connection
from bulkops.store import meta, migrations

#: Steps such as a later version may bring.
STEPS = (
    "ALTER TABLE jobs ADD COLUMN colour TEXT;",
    """
    CREATE TABLE colours (name TEXT PRIMARY KEY) STRICT;
    CREATE TRIGGER painted AFTER INSERT ON colours BEGIN UPDATE jobs SET colour = new.name; SELECT 1; END;
    """,
    "INSERT INTO colours VALUES ('red; or -- not');",
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_connection(tmp_path / "b.db", create=True)) as opened:
        migrations.create(opened, meta.first_values(0))
        yield opened


def version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_a_new_database_has_the_newest_version_and_our_mark(connection: sqlite3.Connection) -> None:
    assert version(connection) == migrations.VERSION
    assert connection.execute("PRAGMA application_id").fetchone()[0] == migrations.APPLICATION_ID
    assert meta.read(connection, "generation") == "0"
    strict = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict"
    ).fetchall()
    assert [name for (name,) in strict if not name.startswith("sqlite_")] == []


@pytest.mark.parametrize("done", range(len(STEPS) + 1))
def test_every_old_version_reaches_the_newest(connection: sqlite3.Connection, done: int) -> None:
    migrations.migrate(connection, steps=migrations.STEPS + STEPS[:done])
    steps = migrations.STEPS + STEPS
    assert migrations.migrate(connection, steps=steps) == len(STEPS) - done
    assert version(connection) == migrations.VERSION + len(STEPS)
    assert connection.execute("SELECT name FROM colours").fetchall() == [("red; or -- not",)]
    assert migrations.migrate(connection, steps=steps) == 0


def test_a_step_that_fails_leaves_the_version_before_it_whole(connection: sqlite3.Connection) -> None:
    broken = (*migrations.STEPS, STEPS[0], "CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);", STEPS[1])
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(connection, steps=broken)
    assert version(connection) == migrations.VERSION + 1
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)
    assert not connection.in_transaction


def test_a_process_that_dies_within_a_step_leaves_the_old_version(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(open_connection(path, create=True)) as connection:
        migrations.create(connection, meta.first_values(0))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(STEPS[0])
        connection.execute(f"PRAGMA user_version = {migrations.VERSION + 1}")
        # Closed without COMMIT, as by kill -9.
    with closing(open_connection(path)) as connection:
        assert version(connection) == migrations.VERSION
        assert migrations.migrate(connection, steps=migrations.STEPS + STEPS) == len(STEPS)


def test_a_script_is_cut_into_statements_also_where_triggers_hold_some() -> None:
    assert len(migrations.split("\n".join(STEPS))) == 4
    assert migrations.split("SELECT 1") == ["SELECT 1"]
    assert migrations.split("") == []


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


@pytest.mark.parametrize("old", range(1, migrations.VERSION))
def test_an_old_schema_becomes_the_very_one_that_is_laid_today(
    connection: sqlite3.Connection, tmp_path: Path, old: int
) -> None:
    script = (Path(__file__).parent / "data" / f"schema-{old}.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as older:
        older.executescript(f"{script}\nPRAGMA user_version = {old};")
        assert migrations.migrate(older) == migrations.VERSION - old
        assert _schema(older) == _schema(connection)
