"""Filters: only allowed columns and named operators, values bound, times resolved once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.errors import Refusal
from bulkops.resources.schema import Column, Table, read_table
from bulkops.resources.table.filters import (
    Condition,
    TimeFormat,
    both,
    check_numbers,
    compile_filter,
    dated_columns,
    freeze,
    guess_time_format,
    place_instants,
    relative_columns,
    search,
)

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ROWS = [(1, "a", 1.5), (2, "B%", None), (3, None, -2.0), (4, "a_c", 0.0), (5, "it's \\", 9e9)]


def table() -> Table:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n REAL, secret TEXT)")
        return read_table(connection, "t")


TABLE = table()
ALLOWED = ["id", "s", "n"]


def ids(condition: Condition) -> list[int]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n REAL, secret TEXT)")
        connection.executemany("INSERT INTO t (id, s, n) VALUES (?, ?, ?)", ROWS)
        sql = f"SELECT id FROM t AS t WHERE {condition.sql} ORDER BY id"
        return [row[0] for row in connection.execute(sql, condition.params)]


def match(filter_: dict[str, Any]) -> list[int]:
    return ids(compile_filter(filter_, TABLE, ALLOWED))


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"id": 1}, [1]),
        ({"id": [1, 3, 99]}, [1, 3]),
        ({"s": None}, [3]),
        ({"s": ["a", None]}, [1, 3]),
        ({"s": {"ne": None}}, [1, 2, 4, 5]),
        ({"s": {"ne": "a"}}, [2, 4, 5]),
        ({"n": {"gt": 0}}, [1, 5]),
        ({"n": {"gte": 0, "lt": 2}}, [1, 4]),
        ({"n": {"lte": -2}}, [3]),
        ({"n": {"is_null": True}}, [2]),
        ({"n": {"is_null": False}, "s": {"is_null": False}}, [1, 4, 5]),
        ({"s": {"like": "a%"}}, [1, 4]),
        ({"s": {"like": "it's"}}, [5]),
        ({"s": {"like": "\\"}}, [5]),
        ({"s": {"in": ["B%"]}}, [2]),
        ({"s": "x' OR '1'='1"}, []),
        ({"id": True}, [1]),
    ],
)
def test_each_operator_finds_what_it_says(filter_: dict[str, Any], expected: list[int]) -> None:
    assert match(filter_) == expected


@pytest.mark.parametrize(
    ("filter_", "pointer"),
    [
        ({"secret": 1}, "/filter/secret"),
        ({"S": 1}, "/filter/S"),
        ({'s" OR 1 --': 1}, '/filter/s" OR 1 --'),
        ({"s": {}}, "/filter/s"),
        ({"s": {"glob": "*"}}, "/filter/s/glob"),
        ({"s": {"eq": {"a": 1}}}, "/filter/s/eq"),
        ({"s": {"in": []}}, "/filter/s/in"),
        ({"s": {"in": "a"}}, "/filter/s/in"),
        ({"s": {"in": list(range(1001))}}, "/filter/s/in"),
        ({"s": ["a", ["b"]]}, "/filter/s/1"),
        ({"s": {"like": 1}}, "/filter/s/like"),
        ({"s": {"like": "x" * 201}}, "/filter/s/like"),
        ({"s": {"is_null": 1}}, "/filter/s/is_null"),
        ({"n": {"gt": None}}, "/filter/n/gt"),
        ({"id": 2**63}, "/filter/id"),
    ],
)
def test_what_is_not_allowed_is_refused_at_its_place(filter_: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Refusal) as raised:
        compile_filter(filter_, TABLE, ALLOWED)
    assert raised.value.code == "INVALID_FIELD"
    assert raised.value.extra["errors"][0]["pointer"] == pointer


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
operators = st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte", "in", "like", "is_null", "or 1"])
filters = st.dictionaries(
    st.sampled_from(["id", "s", "n"]) | st.text(max_size=5),
    anything | st.dictionaries(operators, anything, max_size=3),
    max_size=3,
)


@given(filters)
def test_any_filter_is_a_refusal_or_a_statement_that_runs(filter_: dict[str, Any]) -> None:
    try:
        condition = compile_filter(filter_, TABLE, ALLOWED)
    except Refusal:
        return
    if any(
        isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value)
        for value in condition.params.values()
    ):
        return
    assert set(ids(condition)) <= {row[0] for row in ROWS}


@given(scalars.filter(lambda value: not isinstance(value, (bool, str))))
def test_a_frozen_filter_is_the_filter_where_no_time_is_relative(value: Any) -> None:
    filter_ = {"n": {"gt": value}, "s": [value, "plain"]}
    assert freeze(filter_, NOW_MS, lambda _: TimeFormat("iso")) == filter_


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("iso", "2025-12-31T00:00:00.000Z"),
        ("sql", "2025-12-31 00:00:00"),
        ("s", 1_767_139_200),
        ("ms", 1_767_139_200_000),
        ("us", 1_767_139_200_000_000),
        ("ns", 1_767_139_200_000_000_000),
    ],
)
def test_a_relative_time_is_written_as_the_column_writes_times(name: str, written: object) -> None:
    filter_ = {"s": {"lt": "-1d", "in": ["-24h", "x"]}}
    frozen = freeze(filter_, NOW_MS, lambda _: TimeFormat(name))
    assert frozen == {"s": {"lt": written, "in": [written, "x"]}}


@pytest.mark.parametrize(
    ("sample", "affinity", "name"),
    [
        (1_767_225_600, "integer", "s"),
        (1_767_225_600_000, "integer", "ms"),
        (1_767_225_600_000_000, "integer", "us"),
        (1_767_225_600_000_000_000, "integer", "ns"),
        (1_767_225_600.25, "real", "s"),
        ("2026-01-01", "text", "sql"),
        ("2026-01-01T00:00:00Z", "text", "iso"),
        ("2026-01-01 00:00:00", "text", "sql"),
        (None, "integer", "s"),
        (None, "text", "sql"),
    ],
)
def test_a_columns_way_of_writing_times_is_guessed_from_the_first_that_is_one(
    sample: Any, affinity: Any, name: str
) -> None:
    column = Column(
        name="at", declared="", affinity=affinity, notnull=False, default=None, generated=False, pk=0
    )
    samples = [] if sample is None else [sample]
    assert guess_time_format(column, samples) == TimeFormat(name)
    if samples:
        assert guess_time_format(column, ["n/a", 7, *samples]) == TimeFormat(name)


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(2_461_041.5, id="Julian days"),
        pytest.param(789_000_000, id="seconds since 2001, as Apple counts"),
        pytest.param(13_400_000_000_000_000, id="microseconds since 1601, as Chromium counts"),
        pytest.param("1767225600", id="seconds as text"),
        pytest.param("01/02/2026", id="a date that does not sort"),
        pytest.param("a title", id="no time at all"),
        pytest.param(b"\x00", id="a blob"),
    ],
)
def test_times_that_are_not_understood_are_not_guessed(sample: Any) -> None:
    column = Column(
        name="at", declared="", affinity="blob", notnull=False, default=None, generated=False, pk=0
    )
    with pytest.raises(ValueError, match="'at' holds neither dates nor") as refused:
        guess_time_format(column, [sample, "n/a"])
    assert str(sample) not in str(refused.value)


def test_the_columns_with_a_relative_time_are_found() -> None:
    filter_ = {"a": "-30d", "b": {"lt": "-1h"}, "c": ["x", "+2d"], "d": {"in": ["-d"]}, "e": 3, "f": None}
    assert relative_columns(filter_) == ["a", "b", "c"]


def test_a_search_takes_its_text_literally() -> None:
    assert ids(search("%", ["s"])) == [2]
    assert ids(search("_", ["s"])) == [4]
    assert ids(search("\\", ["s"])) == [5]
    assert ids(search("A", ["s"])) == [1, 4]
    assert ids(search("a", [])) == []


def test_conditions_are_joined_and_none_is_always_true() -> None:
    assert ids(both()) == [1, 2, 3, 4, 5]
    assert ids(both(Condition("t.id > :a", {"a": 1}), Condition("t.id < :b OR 0", {"b": 3}))) == [2]


@pytest.mark.parametrize(
    ("name", "operator", "text", "written"),
    [
        ("s", "lt", "2026-01-01T00:00:00Z", 1_767_225_600),
        ("s", "lt", "2026-01-01", 1_767_225_600),
        ("ms", "gte", "2026-01-01T01:00:00+01:00", 1_767_225_600_000),
        ("sql", "lt", "2026-01-01T00:00:00Z", "2026-01-01"),
        ("sql", "lte", "2026-01-01T00:00:00Z", "2026-01-01 00:00:00"),
        ("sql", "gt", "2026-01-01T10:00:00+02:00", "2026-01-01 08:00:00"),
        ("sql", "lt", "2026-01-01", "2026-01-01"),
        ("iso", "lt", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("iso", "lt", "2026-01-01 00:00:00", "2026-01-01T00:00:00.000Z"),
        ("iso", "lt", "2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00.000Z"),
        ("s", "eq", "2026-01-01", "2026-01-01"),
        ("s", "lt", "2026-13-45", "2026-13-45"),
        ("s", "lt", "12", "12"),
    ],
)
def test_an_instant_is_compared_as_the_column_writes_instants(
    name: str, operator: str, text: str, written: object
) -> None:
    filter_ = {"s": {operator: text}, "n": text, "id": [text]}
    assert place_instants(filter_, {"s": TimeFormat(name)}) == filter_ | {"s": {operator: written}}
    assert dated_columns(filter_) == (["s"] if operator != "eq" and "-" in text else [])


@pytest.mark.parametrize(
    ("filter_", "pointer"),
    [
        ({"n": {"lt": "abc"}}, "/filter/n/lt"),
        ({"id": {"gte": "2026-01-01"}}, "/filter/id/gte"),
        ({"n": {"gt": 1, "lte": ""}}, "/filter/n/lte"),
        ({"n": {"lt": "1e400x"}}, "/filter/n/lt"),
        ({"n": {"lt": " -1.5e3 ", "ne": "abc", "like": "a"}, "id": ["x"], "s": {"lt": "abc"}}, None),
    ],
)
def test_no_text_is_held_against_numbers(filter_: dict[str, Any], pointer: str | None) -> None:
    if pointer is None:
        check_numbers(filter_, TABLE)
        return
    with pytest.raises(Refusal) as refused:
        check_numbers(filter_, TABLE)
    assert refused.value.extra["errors"][0]["pointer"] == pointer
    check_numbers(filter_, TABLE, {pointer.split("/")[2]})
