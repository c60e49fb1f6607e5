"""What each action does to a table's rows: there where its columns are, with options that are checked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import msgspec
import pytest

from bulkops.errors import ConfigError, Refusal
from bulkops.resources.schema import Table, read_table
from bulkops.resources.table.actions import Act, Actions, SoftDelete
from bulkops.resources.table.filters import TimeFormat
from bulkops.settings import ResourceSettings

COLUMNS = (
    "id INTEGER PRIMARY KEY, status TEXT, n INTEGER, gone INTEGER NOT NULL, maybe INTEGER, word TEXT,"
    " deleted_at TEXT, removed DATETIME, pinned INTEGER"
)


def table(kind: str = "TABLE") -> Table:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({COLUMNS})")
        connection.execute("CREATE VIEW v AS SELECT * FROM t")
        return read_table(connection, "t" if kind == "TABLE" else "v")


def actions(kind: str = "TABLE", **settings: Any) -> Actions:
    return Actions("things", msgspec.convert({"kind": "table", **settings}, ResourceSettings), table(kind))


def build(made: Actions, name: str, **options: Any) -> Act:
    return made.build(name, options, stamp_ms=1_767_225_600_000, time_format=TimeFormat("sql"))


STATUS = {"column": "status", "closed": "closed", "archived": "archived", "busy": ["working"]}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["delete", "export"]),
        ({"soft_delete": "gone"}, ["delete", "restore", "purge", "export"]),
        ({"status": {"column": "status"}}, ["delete", "export"]),
        ({"status": STATUS, "set": ["n"]}, ["delete", "close", "archive", "set", "export"]),
    ],
)
def test_an_action_is_there_where_its_columns_are(settings: dict[str, Any], names: list[str]) -> None:
    assert actions(**settings).names() == names


def test_a_view_is_read_only() -> None:
    assert actions("VIEW", status=STATUS, set=["n"], soft_delete="gone").names() == ["export"]


@pytest.mark.parametrize(
    "settings",
    [
        {"soft_delete": "gon"},
        {"status": {"column": "stat"}},
        {"protect": {"pined": 1}},
    ],
)
def test_a_column_that_is_not_there_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        actions(**settings)


@pytest.mark.parametrize(
    ("column", "timestamp", "mark", "unmarked"),
    [
        ("gone", False, 1, 0),
        ("maybe", False, 1, 0),
        ("word", False, "1", "0"),
        ("deleted_at", True, "stamp", None),
        ("removed", True, "stamp", None),
    ],
)
def test_a_soft_delete_is_a_flag_or_a_time(column: str, timestamp: bool, mark: Any, unmarked: Any) -> None:
    soft = SoftDelete.of(table(), column)
    assert (soft.timestamp, soft.mark("stamp"), soft.unmarked()) == (timestamp, mark, unmarked)


VALUES = [None, 0, 1, "", "0", "1", "false", "no", "yes", "2026-01-01"]


@pytest.mark.parametrize("column", ["maybe", "word", "deleted_at"])
@pytest.mark.parametrize("value", VALUES)
def test_every_row_is_either_live_or_deleted(column: str, value: Any) -> None:
    soft = SoftDelete.of(table(), column)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({COLUMNS})")
        connection.execute(f"INSERT INTO t (id, gone, {column}) VALUES (1, 0, ?)", [value])
        sql = f"SELECT count(*) FILTER (WHERE {soft.live().sql}), count(*) FILTER (WHERE {soft.deleted().sql}) FROM t"
        assert sorted(connection.execute(sql).fetchone()) == [0, 1]


def test_a_delete_is_soft_where_it_can_be_and_hard_when_asked() -> None:
    made = actions(soft_delete="gone")
    soft, hard = build(made, "delete"), build(made, "delete", hard=True)
    assert (soft.deletes, soft.final, soft.assign, soft.prior) == (False, False, {"gone": 1}, {"gone": 0})
    assert (hard.deletes, hard.final) == (True, True)
    assert build(actions(), "delete").reversible
    assert made.is_final("purge", {})
    assert made.is_final("delete", {"hard": True})
    assert not made.is_final("delete", {})


def test_optional_children_go_only_when_asked() -> None:
    made = actions(children=[{"table": "a", "key": "t"}, {"table": "b", "key": "t", "optional": True}])
    assert [child.table for child in build(made, "delete").children] == ["a"]
    assert [child.table for child in build(made, "delete", cascade=True).children] == ["a", "b"]
    assert "cascade" not in actions().options("delete")


@pytest.mark.parametrize(
    ("name", "options", "pointer"),
    [
        ("delete", {"hrad": True}, "/options/hrad"),
        ("delete", {"hard": 1}, "/options/hard"),
        ("close", {"hard": True}, "/options/hard"),
        ("set", {}, "/options/set"),
        ("set", {"set": {}}, "/options/set"),
        ("set", {"set": {"id": 5}}, "/options/set/id"),
        ("set", {"set": {"n": [1]}}, "/options/set/n"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_its_place(name: str, options: Any, pointer: str) -> None:
    made = actions(status=STATUS, set=["n"])
    with pytest.raises(Refusal) as raised:
        made.build(name, options, stamp_ms=0, time_format=None)
    assert raised.value.extra["errors"][0]["pointer"] == pointer


def test_set_takes_booleans_as_numbers_and_remembers_what_was() -> None:
    act = build(actions(set=["n"]), "set", set={"n": True})
    assert (act.assign, act.remember) == ({"n": 1}, ["n"])


def test_protected_and_busy_rows_are_unfit_for_every_action_and_the_first_reason_counts() -> None:
    made = actions(status=STATUS, protect={"pinned": 1}, set=["n"], soft_delete="gone")
    for name in made.names():
        options = {"set": {"n": 1}} if name == "set" else {}
        codes = [state.code for state in build(made, name, **options).states]
        assert codes[:2] == ["PROTECTED", "INELIGIBLE"]
