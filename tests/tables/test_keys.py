"""Ids: the same on the wire, in memory and in SQL, for every kind of key."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.effects import Id
from bulkops.ids import wire_id
from bulkops.resources.schema import read_table
from bulkops.resources.table.keys import Key, encode_ids, hashable

TABLES = """
CREATE TABLE i (id INTEGER PRIMARY KEY);
CREATE TABLE x (id TEXT PRIMARY KEY);
CREATE TABLE c (a INTEGER, b TEXT, PRIMARY KEY (a, b));
CREATE TABLE n (id NUMERIC PRIMARY KEY);
CREATE TABLE k (id TEXT COLLATE NOCASE PRIMARY KEY);
CREATE TABLE b (id BLOB PRIMARY KEY);
CREATE TABLE s (id TEXT NOT NULL PRIMARY KEY) STRICT;
"""


def key_of(table: str, *columns: str) -> Key:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        return Key(read_table(connection, table), list(columns or ("id",)))


INTEGER, TEXT, BOTH, NUMERIC = key_of("i"), key_of("x"), key_of("c", "a", "b"), key_of("n")
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(integers)
def test_an_integer_survives_the_wire_in_its_only_form(number: int) -> None:
    assert INTEGER.parse(wire_id(number)) == number
    assert INTEGER.parse(number) == number
    for other in (f"+{number}", f"0{number}", f" {number}", f"{number} ", f"{number}.0", f"{number}_"):
        with pytest.raises(ValueError, match=r"\w"):
            INTEGER.parse(other)


@given(texts)
def test_a_text_survives_the_wire(text: str) -> None:
    assert TEXT.parse(wire_id(text)) == text


@given(integers, texts)
def test_a_composite_key_survives_the_wire_whatever_its_parts_hold(number: int, text: str) -> None:
    assert BOTH.parse(wire_id([number, text])) == [number, text]


@given(st.text())
def test_reading_an_id_raises_nothing_but_value_errors(wire: str) -> None:
    for key in (INTEGER, TEXT, BOTH, NUMERIC):
        try:
            native = key.parse(wire)
        except ValueError:
            continue
        assert key.parse(wire_id(native)) == native


@given(st.lists(st.tuples(integers, texts), unique=True, max_size=20), st.tuples(integers, texts))
def test_the_one_parameter_of_sql_finds_exactly_the_rows_meant(
    rows: list[tuple[int, str]], stranger: tuple[int, str]
) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        connection.executemany("INSERT INTO c VALUES (?, ?)", rows)
        connection.executemany("INSERT OR IGNORE INTO x VALUES (?)", [(text,) for _, text in rows])
        connection.executemany("INSERT OR IGNORE INTO i VALUES (?)", [(number,) for number, _ in rows])
        cases: list[tuple[Key, str, list[Id]]] = [
            (BOTH, "c", [list(row) for row in rows]),
            (TEXT, "x", [text for _, text in rows]),
            (INTEGER, "i", [number for number, _ in rows]),
        ]
        for key, table, natives in cases:
            wanted = natives[::2]
            foreign: Id = list(stranger) if key is BOTH else stranger[1] if key is TEXT else stranger[0]
            sql = f"SELECT {key.select} FROM {table} AS t WHERE {key.match}"
            found = {
                hashable(key.native(row))
                for row in connection.execute(sql, {"ids": encode_ids([*wanted, foreign])})
            }
            expected = {hashable(each) for each in wanted}
            if hashable(foreign) in {hashable(each) for each in natives}:
                expected.add(hashable(foreign))
            assert found == expected


@pytest.mark.parametrize("wire", ["", "\0", "a\0b", "\ud800"])
def test_a_text_that_is_no_id_is_refused(wire: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        TEXT.parse(wire)


@pytest.mark.parametrize(
    "wire", ["1", "1,2,3", "x,y", "1,%00", "1,%ff", "1,50%", "1,%zz", "1,", "9223372036854775808,x"]
)
def test_a_composite_id_has_all_its_parts(wire: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        BOTH.parse(wire)


def test_a_key_that_ignores_case_does_not_merge_ids() -> None:
    key = key_of("k")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        connection.execute("INSERT INTO k VALUES ('Ann')")
        sql = f"SELECT t.id FROM k AS t WHERE {key.match}"
        assert connection.execute(sql, {"ids": encode_ids(["ann"])}).fetchall() == []
        assert connection.execute(sql, {"ids": encode_ids(["Ann"])}).fetchall() == [("Ann",)]


def test_a_numeric_key_takes_numbers_and_words() -> None:
    assert NUMERIC.parse("5") == 5
    assert NUMERIC.parse("05") == "05"


def test_a_declared_blob_and_an_unknown_column_are_no_keys() -> None:
    with pytest.raises(ValueError, match="blob"):
        key_of("b")
    with pytest.raises(LookupError, match="id"):
        key_of("i", "idd")


def test_only_keys_that_may_hold_something_else_are_looked_at_row_by_row() -> None:
    assert INTEGER.named == "1"
    assert key_of("s").named == "1"
    assert "typeof" in TEXT.named


def test_a_row_whose_key_is_no_id_is_refused_and_bad_bytes_are_seen() -> None:
    for value in (None, 1.5, b"x"):
        with pytest.raises(ValueError, match="no id"):
            TEXT.native((value,))
    assert not TEXT.is_sayable(("\udcff", 1))
    assert TEXT.is_sayable(("ok", "\udcff"))
