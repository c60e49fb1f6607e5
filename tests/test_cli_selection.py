"""SELECTION on the command line, read into the members of a request body."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.cli.selection import Selected, body_of, read_conditions, read_options, read_value


class Upload:
    """Counts what is uploaded."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, ids: Iterable[str]) -> dict[str, Any]:
        self.ids = list(ids)
        return {"selection_id": "sel", "count": len(self.ids)}


def select(upload: Upload | None = None, **given_options: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"ids": (), "ids_from": None, "where": (), "everything": False, "exclude": ()}
    return body_of(Selected(**{**empty, **given_options}), upload or Upload())


def test_ids_stay_text_whatever_they_look_like() -> None:
    assert select(ids=("1", "007", "true", "1,3402")) == {"ids": ["1", "007", "true", "1,3402"]}


def test_everything_may_leave_something_out() -> None:
    assert select(everything=True, exclude=("4", "5")) == {"all": True, "exclude_ids": ["4", "5"]}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exclude": ("1",)},
        {"ids": ("1",), "everything": True},
        {"where": ("a=1",), "everything": True},
        {"ids_from": "-", "where": ("a=1",)},
    ],
)
def test_a_selection_is_made_in_exactly_one_way(options: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError, match="one way"):
        select(**options)


def test_ids_come_from_a_file_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    file.write_bytes(b"\xef\xbb\xbf1\r\n\n  2 \nx,y\n")
    assert select(ids=("0",), ids_from=str(file)) == {"ids": ["0", "1", "2", "x,y"]}


def test_ids_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff1\n2\n"))
    assert select(ids_from="-") == {"ids": ["1", "2"]}


def test_an_absent_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="No such file"):
        select(ids_from=str(tmp_path / "absent"))


def test_a_thousand_ids_are_named_and_one_more_is_uploaded(tmp_path: Path) -> None:
    upload, file = Upload(), tmp_path / "ids"
    file.write_text("\n".join(str(n) for n in range(1000)))
    assert len(select(upload, ids_from=str(file))["ids"]) == 1000
    assert upload.ids == []
    body = select(upload, ids=("x",), ids_from=str(file), exclude=("3",))
    assert body == {"selection_id": "sel", "exclude_ids": ["3"]}
    assert upload.ids == ["x", *(str(n) for n in range(1000))]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["status=closed"], {"status": "closed"}),
        (["a = b"], {"a": "b"}),
        (["n=12"], {"n": 12}),
        (["n=-1.5"], {"n": -1.5}),
        (["zip=007"], {"zip": "007"}),
        (['zip="12"'], {"zip": "12"}),
        (["flag=true"], {"flag": True}),
        (["x=null"], {"x": {"is_null": True}}),
        (["x!=null"], {"x": {"is_null": False}}),
        (["a!=b"], {"a": {"ne": "b"}}),
        (["at<2026-01-01"], {"at": {"lt": "2026-01-01"}}),
        (["at>=2025-01-01", "at<2026-01-01"], {"at": {"gte": "2025-01-01", "lt": "2026-01-01"}}),
        (["n<=3", "m>4"], {"n": {"lte": 3}, "m": {"gt": 4}}),
        (["name~%af%"], {"name": {"like": "%af%"}}),
        (["name~12"], {"name": {"like": "12"}}),
        (["my column=a=b<c"], {"my column": "a=b<c"}),
        (["at<-30d"], {"at": {"lt": "-30d"}}),
        (["empty="], {"empty": ""}),
        (["tags=[1,2]"], {"tags": [1, 2]}),
    ],
)
def test_conditions_become_a_filter(conditions: list[str], expected: dict[str, Any]) -> None:
    assert read_conditions(conditions) == expected


@pytest.mark.parametrize("conditions", [["nothing"], ["=1"], ["a=1", "a=2"], ["a<null"], ["  =x"]])
def test_a_condition_that_cannot_be_meant_is_a_usage_error(conditions: list[str]) -> None:
    with pytest.raises(click.UsageError, match="--where"):
        read_conditions(conditions)


def test_options_are_read_like_values() -> None:
    pairs = ["hard=true", "format=csv", "n=3", 'set={"status":"closed"}', "note=a=b", "empty="]
    assert read_options(pairs) == {
        "hard": True,
        "format": "csv",
        "n": 3,
        "set": {"status": "closed"},
        "note": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize("pairs", [["hard"], ["=1"], ["a=1", "a=1"]])
def test_an_option_that_is_no_pair_is_a_usage_error(pairs: list[str]) -> None:
    with pytest.raises(click.UsageError, match="--option"):
        read_options(pairs)


@pytest.mark.parametrize(
    "text", ["1e400", "NaN", "Infinity", "1e5", "1.50", "+1", "0x10", "9" * 5000, "\ud800", "{"]
)
def test_what_json_would_change_stays_text(text: str) -> None:
    assert read_value(text) == text


@given(st.text())
def test_any_text_is_a_value(text: str) -> None:
    read_value(text)


@given(st.integers())
def test_whole_numbers_are_numbers_or_text_but_never_another_number(number: int) -> None:
    assert str(read_value(str(number))) == str(number)
