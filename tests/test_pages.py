"""Page tokens: what goes in comes out, and nothing else does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.errors import Refusal
from bulkops.service.pages import Whole, check_limit, page_of, read_token, write_token


@given(st.text(max_size=60), st.integers(0, 2**63 - 1))
def test_a_token_gives_back_its_key(text: str, number: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    token = write_token("trash", text, number)
    if len(token) <= 512:
        assert read_token(token, "trash", tuple[str, Whole]) == (text, number)


def test_no_token_is_the_first_page() -> None:
    assert read_token(None, "jobs", tuple[str]) is None


def test_a_token_fits_into_a_query_as_it_is() -> None:
    token = write_token("jobs", "ÿ>?ÿ" * 9)
    assert token.isascii()
    assert not set(token) & set("+/=&%")


def _refused(token: str) -> bool:
    with pytest.raises(Refusal) as refusal:
        read_token(token, "jobs", tuple[Whole])
    return refusal.value.code == "INVALID_FIELD" and refusal.value.extra["errors"][0]["pointer"] == "/page"


def _wrapped(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "*",
        "ÿ",
        "a",
        _wrapped(b""),
        _wrapped(b"{}"),
        _wrapped(b'["jobs",["one"]]'),
        _wrapped(b'["jobs",[-1]]'),
        _wrapped(b'["jobs",[9223372036854775808]]'),
        _wrapped(b'["jobs",[1,2]]'),
        _wrapped(b'["jobs",[1],3]'),
        _wrapped(b'["jobs",["\xff"]]'),
        _wrapped(b"[" * 300),
        write_token("tasks", 1),
        write_token("jobs", 1) + "A" * 600,
    ],
)
def test_a_foreign_or_damaged_token_is_an_invalid_page(token: str) -> None:
    assert _refused(token)


@given(st.text(max_size=80))
def test_no_text_at_all_breaks_the_reader(text: str) -> None:
    try:
        read_token(text, "jobs", tuple[Whole])
    except Refusal as refusal:
        assert refusal.code == "INVALID_FIELD"  # noqa: PT017  success is as good


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_one_to_a_thousand_items(limit: int) -> None:
    assert check_limit(1) == 1
    assert check_limit(1000) == 1000
    with pytest.raises(Refusal) as refusal:
        check_limit(limit)
    assert refusal.value.extra["errors"][0]["pointer"] == "/limit"


def test_a_page_is_its_items_and_the_next_token() -> None:
    assert page_of([1], "t") == {"items": [1], "next": "t"}
