"""Items as rows in memory: every value has a cell, and what matches is decided as in a table."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from bulkops import Item
from bulkops.resources.custom.mirror import Mirror, Shape
from bulkops.resources.table.filters import Condition

COLUMNS: dict[str, type] = {"n": int, "x": float, "t": str, "at": datetime, "on": bool, 'odd "name"': str}


def held(column: str, value: Any) -> Any:
    with closing(Mirror(Shape(COLUMNS))) as mirror:
        mirror.load([Item("a", {column: value})])
        quoted = column.replace('"', '""')
        return mirror.connection.execute(f'SELECT "{quoted}" FROM items').fetchone()[0]


@pytest.mark.parametrize(
    ("column", "value", "cell"),
    [
        ("n", 7, 7),
        ("n", "7", 7),
        ("n", 2**63, float(2**63)),
        ("n", None, None),
        ("x", 1, 1.0),
        ("x", Decimal("1.5"), 1.5),
        ("t", "é\ud800", "é?"),
        ("t", [1, 2], "[1, 2]"),
        ("t", b"\0", b"\0"),
        ("on", True, 1),
        ("at", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000Z"),
        ("at", datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00.000Z"),
        ("at", datetime(2026, 1, 2), "2026-01-02T00:00:00.000Z"),  # noqa: DTZ001  a naive one counts as UTC
        ("at", date(2026, 1, 2), "2026-01-02"),
        ('odd "name"', "v", "v"),
    ],
    ids=repr,
)
def test_every_value_has_its_cell(column: str, value: Any, cell: Any) -> None:
    assert held(column, value) == cell


def test_an_id_is_its_own_column_whatever_the_row_says() -> None:
    shape = Shape({"ID": int, "n": int})
    assert [column.name for column in shape.table.columns] == ["id", "n"]
    with closing(Mirror(shape)) as mirror:
        mirror.load([Item("0012", {"ID": 5, "n": 1})])
        assert mirror.connection.execute("SELECT id FROM items").fetchall() == [("0012",)]


def test_a_shape_without_columns_holds_ids() -> None:
    with closing(Mirror(Shape({}))) as mirror:
        mirror.load([Item("a"), Item("b"), Item("a")])
        assert sorted(mirror.items) == ["a", "b"]


def test_what_does_not_match_is_forgotten_null_included() -> None:
    with closing(Mirror(Shape(COLUMNS))) as mirror:
        mirror.load([Item("a", {"n": 1}), Item("b", {"n": 2}), Item("c")])
        assert mirror.keep(Condition("t.n > :low", {"low": 1})) == 1
        assert list(mirror.items) == ["b"]
        mirror.clear()
        assert mirror.items == {}
        assert mirror.keep(Condition("1", {})) == 0
