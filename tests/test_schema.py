"""What tables look like: every answer is held against a real SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bulkops.resources.schema import (
    ForeignKey,
    Table,
    affinity_of,
    fold,
    quote,
    read_collation,
    read_table,
    read_tables,
)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def make(connection: sqlite3.Connection, *statements: str) -> dict[str, Table]:
    for statement in statements:
        connection.execute(statement)
    return read_tables(connection)


# --- columns and keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("INT", "'1'", "integer"),
        ("CHARINT", "'1'", "integer"),
        ("FLOATING POINT", "'1'", "integer"),
        ("varchar(20)", "1", "text"),
        ("CLOB", "1", "text"),
        ("", "'1'", "blob"),
        ("BLOB", "'1'", "blob"),
        ("DOUBLE", "1", "real"),
        ("float", "1", "real"),
        ("STRING", "'1'", "numeric"),
        ("DECIMAL(10,5)", "'1'", "numeric"),
        ("BOOLEAN", "'1'", "numeric"),
        ("ANY", "'1'", "numeric"),
    ],
)
def test_affinity_is_what_sqlite_does_with_a_value(
    connection: sqlite3.Connection, declared: str, value: str, expected: str
) -> None:
    connection.execute(f"CREATE TABLE t (c {declared})")
    connection.execute(f"INSERT INTO t VALUES ({value})")
    stored = connection.execute("SELECT typeof(c) FROM t").fetchone()[0]
    meaning = {"integer": "integer", "numeric": "integer", "text": "text", "real": "real", "blob": "text"}
    assert meaning[expected] == stored
    assert read_table(connection, "t").column("c").affinity == expected == affinity_of(declared)


def test_any_converts_nothing_in_a_strict_table(connection: sqlite3.Connection) -> None:
    tables = make(connection, "CREATE TABLE t (a ANY, b TEXT) STRICT")
    assert tables["t"].strict
    assert tables["t"].column("a").affinity == "blob"


def test_columns_carry_default_not_null_generated_and_key_place(
    connection: sqlite3.Connection,
) -> None:
    table = make(
        connection,
        "CREATE TABLE t (a TEXT NOT NULL DEFAULT 'x''y', b INT AS (length(a)), c AS (b + 1) STORED, d,"
        " PRIMARY KEY (d, a))",
    )["t"]
    assert [(c.name, c.notnull, c.default, c.generated, c.pk) for c in table.columns] == [
        ("a", True, "'x''y'", False, 2),
        ("b", False, None, True, 0),
        ("c", False, None, True, 0),
        ("d", False, None, False, 1),
    ]
    assert table.primary_key == ("d", "a")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE t (id INTEGER PRIMARY KEY)", "id"),
        ("CREATE TABLE t (id integer, PRIMARY KEY (ID))", "id"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", "id"),
        ("CREATE TABLE t (id INTEGER, PRIMARY KEY (id DESC))", "id"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY) STRICT", "id"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY UNIQUE)", "id"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY DESC)", None),
        ("CREATE TABLE t (id INT PRIMARY KEY)", None),
        ("CREATE TABLE t (id BIGINTEGER PRIMARY KEY)", None),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY) WITHOUT ROWID", None),
        ("CREATE TABLE t (id INTEGER UNIQUE)", None),
        ("CREATE TABLE t (id INTEGER, b, PRIMARY KEY (id, b))", None),
    ],
)
def test_the_integer_key_is_the_column_that_is_the_rowid(
    connection: sqlite3.Connection, sql: str, expected: str | None
) -> None:
    table = make(connection, sql)["t"]
    assert table.integer_key == expected
    if not table.without_rowid and table.rowid:
        more = ", b" if len(table.columns) > 1 else ""
        connection.execute(f"INSERT INTO t (rowid, id{more}) VALUES (7, 9{', 1' if more else ''})")
        same = connection.execute("SELECT rowid = id FROM t").fetchone()[0]
        assert bool(same) == (expected is not None)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE t (a)", "rowid"),
        ("CREATE TABLE t (RowID)", "_rowid_"),
        ("CREATE TABLE t (rowid, _ROWID_)", "oid"),
        ("CREATE TABLE t (rowid, _rowid_, oid)", None),
        ("CREATE TABLE t (a PRIMARY KEY) WITHOUT ROWID", None),
        ("CREATE VIEW t AS SELECT 1 AS a", None),
        ("CREATE VIRTUAL TABLE t USING fts5(a)", None),
    ],
)
def test_the_rowid_name_is_one_that_no_column_shadows(
    connection: sqlite3.Connection, sql: str, expected: str | None
) -> None:
    assert make(connection, sql)["t"].rowid == expected


def test_a_key_of_a_table_without_rowid_is_not_null(connection: sqlite3.Connection) -> None:
    tables = make(
        connection, "CREATE TABLE t (a TEXT PRIMARY KEY) WITHOUT ROWID", "CREATE TABLE u (a TEXT PRIMARY KEY)"
    )
    assert tables["t"].column("a").notnull
    assert not tables["u"].column("a").notnull


# --- which tables there are ------------------------------------------------------------------------------


def test_sqlites_own_and_shadow_tables_are_left_out(connection: sqlite3.Connection) -> None:
    tables = make(
        connection,
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "CREATE VIEW v AS SELECT id FROM t",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
    )
    assert {name: table.kind for name, table in tables.items()} == {"f": "virtual", "t": "table", "v": "view"}
    assert [column.name for column in tables["f"].columns] == ["body"]
    for name in ("sqlite_master", "sqlite_sequence", "f_data"):
        with pytest.raises(LookupError, match="there is no table"):
            read_table(connection, name)


def test_an_empty_database_has_no_tables(connection: sqlite3.Connection) -> None:
    assert read_tables(connection) == {}


def test_a_view_of_what_is_gone_has_no_columns(connection: sqlite3.Connection) -> None:
    table = make(connection, "CREATE VIEW v AS SELECT x FROM nowhere")["v"]
    assert (table.kind, table.columns) == ("view", ())


def test_a_table_called_like_a_pragma_does_not_stand_before_it(
    connection: sqlite3.Connection,
) -> None:
    tables = make(
        connection,
        "CREATE TABLE pragma_table_list (schema, name, type, ncol, wr, strict)",
        "CREATE TABLE pragma_table_xinfo (a)",
        "CREATE TABLE t (b)",
    )
    assert [column.name for column in tables["t"].columns] == ["b"]
    assert len(tables) == 3


def test_a_near_miss_is_a_lookup_error_with_a_suggestion(connection: sqlite3.Connection) -> None:
    table = make(connection, "CREATE TABLE Receipts (Deleted_At)")["Receipts"]
    for wrong in ("receipts", "Receipt"):
        with pytest.raises(LookupError, match='did you mean "Receipts"'):
            read_table(connection, wrong)
    for wrong in ("deleted_at", "Deletd_At"):
        with pytest.raises(LookupError, match='did you mean "Deleted_At"'):
            table.column(wrong)
    with pytest.raises(LookupError, match=r'has no column "rowid"$'):
        table.column("rowid")


# --- foreign keys ----------------------------------------------------------------------------------------


def test_foreign_keys_name_real_spellings_and_resolve_the_parents_key(connection: sqlite3.Connection) -> None:
    tables = make(
        connection,
        "CREATE TABLE Parent (Id INTEGER PRIMARY KEY, Code UNIQUE)",
        "CREATE TABLE pair (x, Y, PRIMARY KEY (Y, x))",
        """CREATE TABLE child (
             a REFERENCES parent,
             b REFERENCES PARENT (CODE) ON DELETE set null,
             c, d,
             e REFERENCES gone (id),
             FOREIGN KEY (C, d) REFERENCES pair ON DELETE CASCADE
           )""",
    )
    links = {link.columns: link for link in tables["child"].foreign_keys}
    assert links[("a",)] == ForeignKey(
        table="child",
        columns=("a",),
        parent="Parent",
        parent_columns=("Id",),
        on_delete="NO ACTION",
        deferred=False,
    )
    assert (links[("b",)].parent_columns, links[("b",)].on_delete) == (("Code",), "SET NULL")
    assert (links[("c", "d")].parent_columns, links[("c", "d")].on_delete) == (("Y", "x"), "CASCADE")
    assert (links[("e",)].parent, links[("e",)].parent_columns) == ("gone", ())
    assert {link.columns for link in tables["Parent"].referenced_by} == {("a",), ("b",)}
    assert read_table(connection, "pair").referenced_by == (links[("c", "d")],)


DEFERRED = [
    ("REFERENCES p DEFERRABLE INITIALLY DEFERRED", True),
    ("REFERENCES p ON DELETE CASCADE deferrable /* now */ initially -- soon\n deferred", True),
    ("REFERENCES p NOT DEFERRABLE INITIALLY DEFERRED", False),
    ("REFERENCES p DEFERRABLE INITIALLY IMMEDIATE", False),
    ("REFERENCES p DEFERRABLE", False),
    ("REFERENCES p CHECK (c <> 'DEFERRABLE INITIALLY DEFERRED')", False),
]


@pytest.mark.parametrize(("clause", "expected"), DEFERRED)
def test_deferred_keys_are_those_that_fail_at_commit_only(
    connection: sqlite3.Connection, clause: str, *, expected: bool
) -> None:
    connection.execute("PRAGMA foreign_keys = 1")
    make(connection, "CREATE TABLE p (id INTEGER PRIMARY KEY)", f"CREATE TABLE t (c INT {clause})")
    connection.execute("BEGIN")
    try:
        connection.execute("INSERT INTO t VALUES (99)")
        late = True
    except sqlite3.IntegrityError:
        late = False
    connection.execute("ROLLBACK")
    assert late == expected
    assert read_table(connection, "t").foreign_keys[0].deferred == expected


def test_each_of_several_keys_is_deferred_or_not(connection: sqlite3.Connection) -> None:
    tables = make(
        connection,
        'CREATE TABLE p (id INTEGER PRIMARY KEY, "references")',
        """CREATE TABLE t (
             "REFERENCES deferrable initially deferred" REFERENCES p,
             b REFERENCES p DEFERRABLE INITIALLY DEFERRED,
             c REFERENCES p,
             FOREIGN KEY (c, b) REFERENCES p (id, "references") DEFERRABLE INITIALLY DEFERRED)""",
        "ALTER TABLE t ADD COLUMN d REFERENCES p",
    )
    by_columns = {
        link.columns[-1]: link.deferred for link in tables["t"].foreign_keys if len(link.columns) == 1
    }
    assert by_columns == {
        "REFERENCES deferrable initially deferred": False,
        "b": True,
        "c": False,
        "d": False,
    }
    assert [link.deferred for link in tables["t"].foreign_keys if len(link.columns) == 2] == [True]


# --- triggers and indexes --------------------------------------------------------------------------------


def test_triggers_are_found_whatever_they_are_called(connection: sqlite3.Connection) -> None:
    tables = make(
        connection,
        "CREATE TABLE Orders (a, b)",
        "CREATE VIEW shown AS SELECT a FROM Orders",
        "CREATE TRIGGER before AFTER DELETE ON orders BEGIN SELECT 1; END",
        'CREATE TRIGGER IF NOT EXISTS main."a /* b" UPDATE OF b ON Orders BEGIN SELECT 1; END',
        "CREATE TRIGGER [c d] /* x */ before insert ON ORDERS BEGIN SELECT 1; END",
        "CREATE TRIGGER e INSTEAD OF DELETE ON shown BEGIN SELECT 1; END",
    )
    assert [(t.name, t.timing, t.event) for t in tables["Orders"].triggers] == [
        ("before", "AFTER", "DELETE"),
        ("a /* b", "BEFORE", "UPDATE"),
        ("c d", "BEFORE", "INSERT"),
    ]
    assert [(t.timing, t.event) for t in tables["shown"].triggers] == [("INSTEAD OF", "DELETE")]


def test_indexes_say_what_they_can_be_used_for(connection: sqlite3.Connection) -> None:
    table = make(
        connection,
        "CREATE TABLE t (a TEXT COLLATE NOCASE, b UNIQUE, c, d PRIMARY KEY)",
        "CREATE INDEX i ON t (a, lower(c))",
        "CREATE UNIQUE INDEX p ON t (c) WHERE b > 1",
    )["t"]
    assert {i.name: (i.columns, i.unique, i.partial, i.origin) for i in table.indexes} == {
        "i": (("a", None), False, False, "c"),
        "p": (("c",), True, True, "c"),
        "sqlite_autoindex_t_1": (("b",), True, False, "u"),
        "sqlite_autoindex_t_2": (("d",), True, False, "pk"),
    }
    found = table.index_on("a")
    assert found is not None
    assert found.collations == ("NOCASE", "BINARY")
    assert table.index_on("c") is None
    assert table.index_on("a", "c") is None


def test_collations_are_found_without_an_index(connection: sqlite3.Connection) -> None:
    for name in ("upside", "lost"):
        connection.create_collation(name, lambda a, b: (a < b) - (a > b))
    make(
        connection,
        "CREATE TABLE t (a, b TEXT COLLATE NOCASE, c COLLATE RTRIM, d INTEGER, e COLLATE upside,"
        " f COLLATE lost)",
        "INSERT INTO t (a) VALUES (1)",
    )
    connection.create_collation("lost", None)
    found = {name: read_collation(connection, "t", name) for name in "abcde"}
    assert found == {"a": "BINARY", "b": "NOCASE", "c": "RTRIM", "d": "BINARY", "e": "OTHER"}
    with pytest.raises(sqlite3.OperationalError, match="no such collation"):
        read_collation(connection, "t", "f")


# --- names -----------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
HOSTILE = 'x" ; DROP TABLE "y'


@pytest.mark.parametrize("name", ["a\0b", "\udcff"])
def test_a_name_that_no_statement_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        quote(name)


def test_a_misspelled_name_behind_an_alias_is_an_error_and_no_text(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t (deleted_at)")
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        connection.execute(f"DELETE FROM t AS t WHERE t.{quote('deletd_at')} IS NOT NULL")


@settings(max_examples=150, deadline=None)
@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique_by=fold))
@example(HOSTILE, [HOSTILE, "select", "a b", "`", "[x]", "'", '"', "ß", "\n", "--", "Ä", "ä"])
@example("order", ["rowid", "oid", "_rowid_"])
def test_any_name_goes_through_sqlite_and_comes_back(name: str, columns: list[str]) -> None:
    assume(not fold(name).startswith("sqlite_"))
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        key = quote(columns[0])
        body = ", ".join(quote(column) for column in columns)
        connection.execute(f"CREATE TABLE {quote(name)} ({body}, PRIMARY KEY ({key}))")
        connection.execute(f'CREATE TABLE "the other one" (c REFERENCES {quote(name)})')
        table = read_table(connection, name)
        assert [column.name for column in table.columns] == columns
        assert table.primary_key == (columns[0],)
        assert [link.parent_columns for link in table.referenced_by] == [(columns[0],)]
        connection.execute(f"INSERT INTO {quote(table.name)} ({key}) VALUES (5)")
        row = connection.execute(f"SELECT t.{quote(columns[0])} FROM {quote(name)} AS t").fetchone()
        assert row == (5,)
        assert read_collation(connection, name, columns[0]) == "BINARY"
    finally:
        connection.close()


def test_the_sample_database_reads_as_it_is_documented(chinook: Path) -> None:
    connection = sqlite3.connect(chinook)
    try:
        tables = read_tables(connection)
    finally:
        connection.close()
    assert len(tables) == 11
    assert tables["PlaylistTrack"].primary_key == ("PlaylistId", "TrackId")
    assert tables["PlaylistTrack"].integer_key is None
    assert tables["Track"].integer_key == "TrackId"
    assert {link.table for link in tables["Track"].referenced_by} == {"InvoiceLine", "PlaylistTrack"}
