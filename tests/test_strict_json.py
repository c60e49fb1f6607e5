"""Strict JSON: what a lenient parser lets pass is refused, with a code or a pointer, never an exception."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.errors import Refusal
from bulkops.models import Id, Input, StartBody, ValidateBody, WebhookBody
from bulkops.web import strict_json

HOSTILE = {
    "empty": b"",
    "white space": b"  \n ",
    "not JSON": b"ids=1",
    "half": b'{"ids": [1, 2',
    "two values": b'{"all": true} {"all": true}',
    "single quotes": b"{'all': true}",
    "trailing comma": b'{"all": true,}',
    "comment": b'{"all": true} // all of them',
    "NaN": b'{"canary": NaN}',
    "Infinity": b'{"canary": Infinity}',
    "minus Infinity": b'{"canary": -Infinity}',
    "out of range": b'{"canary": 1e999}',
    "minus out of range": b'{"canary": -1e999}',
    "huge integer": b'{"canary": ' + b"9" * 4301 + b"}",
    "huge negative integer": b'{"canary": -' + b"9" * 5000 + b"}",
    "BOM": b'\xef\xbb\xbf{"all": true}',
    "UTF-16": '{"all": true}'.encode("utf-16"),
    "invalid UTF-8": b'{"reason": "\xff"}',
    "overlong UTF-8": b'{"reason": "\xc0\xaf"}',
    "surrogate as UTF-8": b'{"reason": "\xed\xa0\x80"}',
    "lone surrogate": b'{"reason": "\\ud800"}',
    "reversed pair": b'{"reason": "\\udc00\\ud800"}',
    "lone surrogate in a key": b'{"\\udfff": 1}',
    "raw control character": b'{"reason": "a\x00b"}',
    "duplicate key": b'{"ids": ["1"], "ids": ["2"]}',
    "duplicate key, escaped": b'{"all": true, "\\u0061ll": false}',
    "duplicate key within": b'{"filter": {"status": "a", "status": "b"}}',
    "deep arrays": b"[" * 65 + b"]" * 65,
    "deep objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "deep and open": b"[" * 100_000,
    "deep behind a string": b'["' + b"x" * 50 + b'",' + b"[" * 70 + b"]" * 71,
    "quotes without end": b"[" * 65 + b'"\\"' * 40_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_bodies_are_invalid_json(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.decode(body, StartBody)
    assert refused.value.code == "INVALID_JSON"
    assert refused.value.status == 400


def test_what_is_at_the_limits_passes() -> None:
    assert strict_json.parse(b"[" * 64 + b"]" * 64)
    assert strict_json.parse(b'{"a": ' + b"9" * 4300 + b"}")["a"] > 0
    assert strict_json.parse(b'["\\ud83d\\ude00", "\xf0\x9f\x98\x80"]') == ["😀", "😀"]
    assert strict_json.parse(b'{"a": {"x": 1}, "b": {"x": 1}}') == {"a": {"x": 1}, "b": {"x": 1}}


def test_brackets_inside_strings_are_no_depth() -> None:
    assert strict_json.parse(msgspec.json.encode(["[{" * 200, '"[' * 200, "\\" * 100])) is not None


FIELDS = {
    b'{"ids": [true]}': "/ids/0",
    b'{"ids": ["1", false]}': "/ids/1",
    b'{"ids": [1.0]}': "/ids/0",
    b'{"ids": ["a", "b", "c", 1.5]}': "/ids/3",
    b'{"ids": [null]}': "/ids/0",
    b'{"ids": [["1"]]}': "/ids/0",
    b'{"ids": {"0": "1"}}': "/ids",
    b'{"ids": "1"}': "/ids",
    b'{"exclude_ids": [true]}': "/exclude_ids/0",
    b'{"all": 1}': "/all",
    b'{"all": "true"}': "/all",
    b'{"filter": []}': "/filter",
    b'{"expected_count": 1.0}': "/expected_count",
    b'{"expected_count": "10"}': "/expected_count",
    b'{"failure_threshold": {"min_items": "x"}}': "/failure_threshold/min_items",
    b'{"failure_threshold": {"min_item": 1}}': "/failure_threshold/min_item",
    b'{"tenant_id": "other"}': "/tenant_id",
    b'{"state": "done"}': "/state",
    b'{"done": 1}': "/done",
    b'{"epoch": 1}': "/epoch",
    b'{"role": "owner"}': "/role",
    b'{"a/b~c": 1}': "/a~1b~0c",
    b"[]": "",
    b'"all"': "",
    b"1": "",
    b"null": "",
    b"true": "",
}


@pytest.mark.parametrize(("body", "pointer"), FIELDS.items(), ids=[key.decode() for key in FIELDS])
def test_what_does_not_fit_is_named_by_a_pointer(body: bytes, pointer: str) -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.decode(body, StartBody)
    assert (refused.value.status, refused.value.code) == (422, "INVALID_FIELD")
    assert [each["pointer"] for each in refused.value.extra["errors"]] == [pointer]


def test_a_missing_field_is_named_by_a_pointer() -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.decode(b"{}", ValidateBody)
    assert refused.value.extra["errors"] == [{"pointer": "/action", "detail": "is required"}]


def test_a_name_that_a_stranger_made_up_is_said_back_in_part_only() -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.decode(b'{"' + b"x" * 100_000 + b'": 1}', StartBody)
    assert len(str(refused.value)) < 300


def test_strings_and_integers_are_ids_and_stay_what_they_are() -> None:
    body = strict_json.decode(b'{"ids": ["01", 1, -5, 9007199254740993]}', StartBody)
    assert body.ids == ["01", 1, -5, 9007199254740993]


@pytest.mark.parametrize(
    "header",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/merge-patch+json",
        "application/vnd.example.v1+json",
    ],
)
def test_json_is_known_by_its_content_type(header: str) -> None:
    strict_json.check_content_type(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json, text/html",
        "xapplication/json",
        "application/+json",
    ],
)
def test_any_other_content_type_is_415(header: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.check_content_type(header)
    assert refused.value.status == 415


def test_equal_requests_are_equal_bytes() -> None:
    one = strict_json.parse(b'{"ids": ["1", "2"], "filter": {"a": 1, "b": 2}}')
    other = strict_json.parse(b'{"filter":{"b":2,\n"a":1},"ids":["1","2"]}')
    swapped = strict_json.parse(b'{"filter":{"b":2,"a":1},"ids":["2","1"]}')
    assert strict_json.canonical(one) == strict_json.canonical(other) != strict_json.canonical(swapped)


class Nested(Input, frozen=True, kw_only=True):
    ids: list[Id] = msgspec.field(default_factory=list)
    more: list[dict[str, int]] = msgspec.field(default_factory=list)


def _refusal_of(act: Callable[[], object]) -> Refusal | None:
    try:
        act()
    except Refusal as refused:
        return refused
    return None


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    refused = _refusal_of(lambda: strict_json.decode(body, Nested))
    assert refused is None or refused.code in {"INVALID_JSON", "INVALID_FIELD"}


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(_values)
def test_what_any_writer_writes_is_read_as_it_was(value: object) -> None:
    written = msgspec.json.encode(value)
    assert strict_json.parse(written) == msgspec.json.decode(written)


@given(_values)
def test_no_value_makes_conversion_raise_anything_but_a_refusal(value: object) -> None:
    refused = _refusal_of(lambda: strict_json.convert(value, Nested))
    if refused is not None:
        assert refused.code == "INVALID_FIELD"
        assert refused.extra["errors"][0]["pointer"] in {"", *_pointers(value)}


def _pointers(value: object) -> set[str]:
    """List every pointer into a value; unknown fields included."""
    found = set()
    if isinstance(value, dict):
        for key, inner in value.items():
            step = "/" + str(key).replace("~", "~0").replace("/", "~1")
            found |= {step, f"{step}/..."} | {step + each for each in _pointers(inner)}
    if isinstance(value, list):
        for place, inner in enumerate(value):
            found |= {f"/{place}", f"/{place}/..."} | {f"/{place}{each}" for each in _pointers(inner)}
    return found


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"ids": ["1"], "ids": ["2"]}', "/ids"),
        (b'{"filter": {"status": "a", "status": "b"}}', "/filter/status"),
        (b'{"ids": [1, {"a/b": {"x": 1, "x": 2}}]}', "/ids/1/a~1b/x"),
        (b'{"a": {"x": 1, "x": 2}, "a": {}}', "/a"),
        (b'{"a": [{"x": 1, "x": 2}], "b": {"y": 1, "y": 2}}', "/b/y"),
    ],
)
def test_a_key_that_stands_twice_is_named(body: bytes, pointer: str) -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.parse(body)
    assert refused.value.code == "INVALID_JSON"
    assert refused.value.extra["errors"] == [{"pointer": pointer, "detail": "stands twice"}]


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (b'{"ids": [true]}', "/ids/0", "expected a whole number or a text, got true or false"),
        (b'{"options": []}', "/options", "expected an object, got a list"),
        (b'{"expected_cuont": 1}', "/expected_cuont", 'unknown field; did you mean "expected_count"?'),
        (b'{"failure_threshold": {"x": 1}}', "/failure_threshold/x", "unknown field"),
        (b'{"zzz": 1}', "/zzz", "unknown field"),
    ],
)
def test_what_does_not_fit_is_told_in_words(body: bytes, pointer: str, detail: str) -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.decode(body, StartBody)
    assert refused.value.extra["errors"] == [{"pointer": pointer, "detail": detail}]


def test_a_word_that_is_none_of_a_few_is_answered_with_those() -> None:
    with pytest.raises(Refusal) as refused:
        strict_json.decode(b'{"url": "x", "events": ["paused", "y"]}', WebhookBody)
    assert refused.value.extra["errors"] == [
        {
            "pointer": "/events/1",
            "detail": "one of these is needed: started, progress, paused, completed, failed, cancelled",
        }
    ]
