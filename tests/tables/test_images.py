"""Before-images: whatever a row holds and whoever hangs on it, taking and putting back changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkops.errors import ItemRefused
from bulkops.resources.schema import read_tables
from bulkops.resources.table import images
from bulkops.resources.table.images import Closure, Record, Shape

SCHEMA = """
CREATE TABLE p (id INTEGER PRIMARY KEY, a, b TEXT, c REAL, d AS (a) VIRTUAL);
CREATE TABLE k (x TEXT, p INTEGER REFERENCES p ON DELETE CASCADE, v);
CREATE TABLE g (k INTEGER, n INTEGER DEFAULT 0 REFERENCES p (id) ON DELETE SET NULL, PRIMARY KEY (k)) WITHOUT ROWID;
"""


def dump(connection: sqlite3.Connection) -> list[list[Any]]:
    connection.text_factory = bytes
    try:
        return [
            sorted(map(repr, connection.execute(f"SELECT {columns} FROM {table}").fetchall()))
            for table, columns in (("p", "*"), ("k", "rowid, *"), ("g", "*"))
        ]
    finally:
        connection.text_factory = str


class Broken:
    """A text that is no UTF-8."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(max_size=400)
    | st.builds(Broken, st.binary(min_size=1, max_size=40))
)
rows = st.lists(st.tuples(values, values, values), min_size=1, max_size=6)


def bind(value: Any) -> Any:
    return value.raw if isinstance(value, Broken) else value


def mark(value: Any) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, Broken) else "?"


def shape(connection: sqlite3.Connection) -> Shape:
    return images.shape_of(read_tables(connection)["p"])


def take(connection: sqlite3.Connection) -> dict[int, bytes]:
    """Read every parent's image, as bytes."""
    tables = read_tables(connection)
    parent = images.shape_of(tables["p"])
    sql = f"SELECT {parent.select} FROM p AS t ORDER BY t.id"
    own = [(place, parent.record(row)) for place, row in enumerate(images.fetch(connection, sql, {}))]
    closure = Closure(connection, tables, own, keep_own=True)
    closure.cascade()
    return {place: images.encode(records) for place, records in closure.images.items()}


@settings(max_examples=60)
@given(rows, st.lists(st.tuples(st.integers(1, 6), values), max_size=8))
def test_what_was_taken_is_put_back_to_the_last_byte(
    parents: list[tuple[Any, Any, Any]], children: list[tuple[int, Any]]
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        connection.execute("PRAGMA foreign_keys = ON")
        for held in parents:
            marks = ", ".join(mark(value) for value in held)
            connection.execute(f"INSERT INTO p (a, b, c) VALUES ({marks})", [bind(value) for value in held])
        for place, (parent, value) in enumerate(children):
            owner = min(parent, len(parents))
            connection.execute(
                f"INSERT INTO k (rowid, x, p, v) VALUES (?, ?, ?, {mark(value)})",
                [100 - place, str(place), owner, bind(value)],
            )
            connection.execute("INSERT INTO g VALUES (?, ?)", [place, owner])
        before = dump(connection)
        taken = take(connection)
        connection.execute("DELETE FROM p")
        tables = read_tables(connection)
        for place in reversed(taken):
            images.put_back(connection, tables, images.decode(taken[place]))
        assert dump(connection) == before


def test_an_item_that_takes_too_much_along_is_refused() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA + "INSERT INTO p (id) VALUES (1);")
        connection.executemany("INSERT INTO k (p) VALUES (?)", [(1,)] * 11)
        tables = read_tables(connection)
        own = [(0, Record("row", "p", [1], ["id"], [1]))]
        Closure(connection, tables, own, keep_own=True, max_rows=11).cascade()
        with pytest.raises(ItemRefused):
            Closure(connection, tables, own, keep_own=True, max_rows=10).cascade()


def test_a_row_whose_place_is_taken_or_whose_column_is_gone_is_not_put_back() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA + "INSERT INTO p (id) VALUES (1);")
        tables = read_tables(connection)
        with pytest.raises(sqlite3.IntegrityError):
            images.put_back(connection, tables, [Record("row", "p", [1], ["id"], [1])])
        for record in (
            Record("row", "p", [2], ["id", "lost"], [2, 0]),
            Record("row", "nowhere", [2], ["id"], [2]),
        ):
            with pytest.raises(ItemRefused):
                images.put_back(connection, tables, [record])


def test_a_changed_reference_is_given_back_only_while_nobody_changed_it_since(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            SCHEMA + "INSERT INTO p (id) VALUES (1), (2); INSERT INTO g VALUES (7, NULL), (8, 2);"
        )
        tables = read_tables(connection)
        records = [Record("set", "g", [key], ["n"], [1], [None]) for key in (7, 8)]
        images.put_back(connection, tables, records)
        assert connection.execute("SELECT k, n FROM g ORDER BY k").fetchall() == [(7, 1), (8, 2)]


def test_small_images_stay_plain_and_large_ones_are_compressed() -> None:
    small = [Record("row", "p", [1], ["id"], [1])]
    large = [Record("row", "p", [1], ["id", "b"], [1, "x" * 10_000])]
    assert images.encode(small)[:1] == b"\0"
    assert len(images.encode(large)) < 200
    for records in (small, large):
        assert images.decode(images.encode(records)) == records
