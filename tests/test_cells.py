"""CSV cells: read back they are what they were, and no spreadsheet calculates them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.cells import cell, line


@pytest.mark.parametrize("first", [*"=+-@\t\r\n", "＝", "＋", "－", "＠", " =", "\ufeff="])
def test_a_formula_becomes_text(first: str) -> None:
    (row,) = csv.reader(io.StringIO(cell(first + "cmd|'/c calc'!A1"), newline=""))
    assert row == ["'" + first + "cmd|'/c calc'!A1"]


@pytest.mark.parametrize("text", ["-5", "0", "12", "plain", "a=b", "x-1", ""])
def test_numbers_and_plain_texts_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


def test_nothing_is_an_empty_cell_and_a_number_is_itself() -> None:
    assert line([None, -7, "a"]) == ",-7,a\r\n"


def test_a_nul_does_not_end_the_cell() -> None:
    assert cell("a\0b") == "a\ufffdb"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2))
def test_a_line_read_back_is_what_was_written(texts: list[str]) -> None:
    (row,) = csv.reader(io.StringIO(line(texts), newline=""))
    assert [found.removeprefix("'") for found in row] == [text.removeprefix("'") for text in texts]
