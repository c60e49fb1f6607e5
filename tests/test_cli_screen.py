"""What people see: safe text, aligned tables, one line for an error and a hint."""

from __future__ import annotations

import json

import pytest

from bulkops.cli import screen
from bulkops.errors import Refusal, invalid_field


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        ("plain ü 漢", "plain ü 漢"),
        ("a\x1b[31mred\x07", "a[31mred"),
        ("two\nlines\tand\rmore", "two lines and more"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x9b31m", "31m"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (["pause", "cancel"], "pause cancel"),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_no_value_can_command_the_terminal(value: object, shown: str) -> None:
    assert screen.clean(value) == shown


def test_a_table_in_a_pipe_is_aligned_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    screen.table(["name", "items"], [["a", 1], ["long name", 12345]], right=frozenset({1}))
    assert capsys.readouterr().out == "name        items\na               1\nlong name  12,345\n"


def test_a_table_without_rows_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen.table(["name"], [])
    assert capsys.readouterr().out == ""


def test_a_refusal_is_one_line_and_a_hint_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    screen.refusal(Refusal("JOB_ACTIVE", "job 7 is active", job="7"), as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "JOB_ACTIVE: job 7 is active\n  follow it with: bulkops watch 7\n"


def test_a_pointer_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen.refusal(invalid_field("/ids/3", "must be an integer"), as_json=False)
    assert capsys.readouterr().err == "INVALID_FIELD: /ids/3: must be an integer\n"


def test_errors_that_the_detail_does_not_tell_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"pointer": "/a", "detail": "no"}, {"pointer": "/b", "detail": "neither"}]
    screen.refusal(Refusal("INVALID_FIELD", "two fields are wrong", errors=errors), as_json=False)
    assert capsys.readouterr().err == "INVALID_FIELD: two fields are wrong; /a: no; /b: neither\n"


def test_a_time_to_wait_is_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    screen.refusal(Refusal("RATE_LIMITED", "too many", headers={"retry-after": "42"}), as_json=False)
    assert capsys.readouterr().err.endswith("try again in 42 s\n")


def test_with_json_a_refusal_is_a_problem_document(capsys: pytest.CaptureFixture[str]) -> None:
    screen.refusal(Refusal("JOB_ACTIVE", "job 7 is active", job="7"), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "status": 409,
        "code": "JOB_ACTIVE",
        "title": "Another job is active",
        "detail": "job 7 is active",
        "job": "7",
    }


def test_facts_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    screen.facts([("id", "1"), ("nothing", None), ("failed", 0), ("status", "x")])
    assert capsys.readouterr().out == "id      1\nfailed  0\nstatus  x\n"


class Terminal:
    def isatty(self) -> bool:
        return True


def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen.colours(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not screen.colours(Terminal())
