"""Bounded questions to real database files: answered, or given up in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bulkops.database import open_connection
from bulkops.errors import ConfigError
from bulkops.resources import probe
from bulkops.resources.schema import Table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def theirs(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, isolation_level=None)
    yield connection
    connection.close()


def read_one(connection: sqlite3.Connection, name: str = "t") -> Table:
    return probe.read_schema(connection)[name]


def refused(file: Path) -> str:
    with pytest.raises(ConfigError) as caught, probe.reading(file):
        pass
    assert caught.value.where == str(file)
    return caught.value.message


def test_a_file_that_is_no_database_is_refused_in_words(file: Path) -> None:
    assert "No such file" in refused(file)
    assert not file.exists()
    file.write_bytes(b"")
    assert "is empty" in refused(file)
    file.write_bytes(b"x" * 4096)
    assert "is no SQLite database" in refused(file)
    assert file.read_bytes() == b"x" * 4096
    assert "is a folder" in refused(file.parent)


def test_a_locked_database_is_refused_in_words(
    file: Path, theirs: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bulkops.resources.probe.open_connection", partial(open_connection, busy_timeout_ms=1)
    )
    theirs.execute("CREATE TABLE t (a)")
    theirs.execute("BEGIN EXCLUSIVE")
    assert "is locked" in refused(file)


def test_nothing_can_be_written(file: Path, theirs: sqlite3.Connection) -> None:
    theirs.execute("CREATE TABLE t (a)")
    with pytest.raises(ConfigError, match="readonly"), probe.reading(file) as connection:
        connection.execute("INSERT INTO t VALUES (1)")


def test_bytes_that_are_no_utf8_neither_raise_nor_hide_other_tables(
    file: Path, theirs: sqlite3.Connection
) -> None:
    theirs.execute("CREATE TABLE t (a TEXT)")
    theirs.execute("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT)), ('b')")
    theirs.execute("CREATE TABLE bad (c)")
    theirs.execute("PRAGMA writable_schema = 1")
    theirs.execute(
        "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT), tbl_name = CAST(x'ff' AS TEXT),"
        " sql = 'CREATE TABLE \"' || CAST(x'ff' AS TEXT) || '\" (c)' WHERE name = 'bad'"
    )
    with probe.reading(file) as connection:
        assert list(probe.read_schema(connection)) == ["t"]
        assert probe.some_words(connection, read_one(connection), "a") == ["b", "\udcffA"]


def test_a_question_that_takes_too_long_has_no_answer(file: Path, theirs: sqlite3.Connection) -> None:
    theirs.execute("CREATE TABLE t (a)")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with probe.reading(file) as connection:
        assert probe.ask(connection, endless, deadline_s=0.01) is None
        assert probe.ask(connection, "SELECT count(*) FROM t") == [(0,)]


def test_kinds_of_values_are_found_at_both_ends_of_a_big_table(
    file: Path, theirs: sqlite3.Connection
) -> None:
    theirs.execute("CREATE TABLE t (a, b INTEGER)")
    theirs.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500)"
        " INSERT INTO t SELECT i, i FROM n"
    )
    with probe.reading(file) as connection:
        assert probe.value_kinds(connection, read_one(connection), "a") == frozenset({"integer"})
    theirs.execute("INSERT INTO t VALUES ('x', NULL)")
    with probe.reading(file) as connection:
        table = read_one(connection)
        assert probe.value_kinds(connection, table, "a") == frozenset({"integer", "text"})
        assert probe.value_kinds(connection, table, "b") == frozenset({"integer"})
        assert probe.has_null(connection, table, "b") is True
        assert probe.has_null(connection, table, "a") is False


def test_words_are_texts_from_the_first_and_the_last_rows(file: Path, theirs: sqlite3.Connection) -> None:
    theirs.execute("CREATE TABLE t (a)")
    theirs.execute("INSERT INTO t VALUES ('first'), (1), (NULL), (x'00')")
    theirs.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500)"
        " INSERT INTO t SELECT 'middle' FROM n"
    )
    theirs.execute("INSERT INTO t VALUES ('last')")
    theirs.execute("CREATE VIEW v AS SELECT a FROM t")
    with probe.reading(file) as connection:
        assert probe.some_words(connection, read_one(connection), "a") == ["first", "last", "middle"]
        assert probe.some_words(connection, read_one(connection, "v"), "a") == ["first", "middle"]


def test_broken_links_are_counted(file: Path, theirs: sqlite3.Connection) -> None:
    theirs.execute("CREATE TABLE p (id INTEGER PRIMARY KEY, x)")
    theirs.execute("CREATE TABLE t (a REFERENCES p)")
    theirs.execute("CREATE TABLE bad (a REFERENCES p (x))")
    theirs.execute("INSERT INTO t VALUES (1), (2), (NULL)")
    theirs.execute("INSERT INTO p (id) VALUES (1)")
    with probe.reading(file) as connection:
        assert probe.count_broken_links(connection, "t") == 1
        assert probe.count_broken_links(connection, "p") == 0
        with pytest.raises(sqlite3.OperationalError, match="mismatch"):
            probe.count_broken_links(connection, "bad")


def test_a_statement_is_prepared_and_never_run(file: Path, theirs: sqlite3.Connection) -> None:
    theirs.execute("CREATE TABLE t (a, b AS (a))")
    theirs.execute("CREATE TRIGGER r AFTER DELETE ON t BEGIN SELECT lost(1); END")
    with probe.reading(file) as connection:
        table = read_one(connection)
        assert probe.try_statement(connection, probe.delete_sql(table)) == "no such function: lost"
        assert probe.try_statement(connection, probe.insert_sql(table)) is None
        assert probe.ask(connection, "SELECT count(*) FROM t") == [(0,)]
