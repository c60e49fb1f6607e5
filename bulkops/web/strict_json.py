"""Bodies of JSON, read strictly: what a lenient parser would let pass as something else is refused.

Bytes come in, a frozen struct goes out. Duplicate keys, NaN and Infinity, lone surrogates, a BOM, bad
UTF-8, huge numbers and deep nesting are ``INVALID_JSON``; what is JSON but not what the struct says is
``INVALID_FIELD`` with a pointer (RFC 6901). Nothing here may raise anything else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NoReturn, TypeVar, get_args

import msgspec

from bulkops.errors import Refusal, did_you_mean, invalid_field
from bulkops.shapes import whole

T = TypeVar("T")

MAX_DEPTH: Final = 64
#: Integers beyond this many digits cost quadratic time to read; the interpreter has the same limit.
MAX_DIGITS: Final = 4300

#: Of a name that a stranger made up, so much is said back.
_MAX_NAME: Final = 200
_BOM: Final = b"\xef\xbb\xbf"
#: An unfinished string reaches to the end: starting anew at each of its quotes would take quadratic time.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_MEDIA_TYPE = re.compile(r"application/(?:[a-z0-9!#$&^_.+-]+\+)?json", re.IGNORECASE)
_AT = re.compile(r" - at `(?:key in )?\$(.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_TYPES = re.compile(r"`([^`]*)`")
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def check_content_type(header: str | None) -> None:
    """Hold a request to JSON.

    Raises:
        Refusal: (``UNSUPPORTED_MEDIA_TYPE``) the type is absent, not JSON, or in another charset.

    """
    media, _, parameters = (header or "").partition(";")
    charset = parameters.lower().replace('"', "").strip()
    if _MEDIA_TYPE.fullmatch(media.strip()) is None or charset not in {"", "charset=utf-8"}:
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", "the body must be application/json in UTF-8")


def parse(body: bytes) -> Any:
    """Read a whole body of JSON into plain values.

    Raises:
        Refusal: (``INVALID_JSON``) it is no JSON, or only to a lenient reader.

    """
    if body.startswith(_BOM):
        raise _invalid("the body begins with a byte order mark")
    _check_depth(body)
    twice: list[_Twice] = []
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=partial(_object, twice),
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except UnicodeDecodeError as error:
        raise _invalid("the body is not valid UTF-8") from error
    except json.JSONDecodeError as error:
        raise _invalid(f"line {error.lineno} column {error.colno} is not JSON") from error
    except (ValueError, RecursionError) as error:
        raise _invalid("the body cannot be read as JSON") from error
    if twice:
        # Inner objects are made first: the last of these stands in the value, whatever keys outside it took away.
        raise _stands_twice(value, twice[-1])
    if b"\\u" in body:
        _check_surrogates(value)
    return value


def _invalid(detail: str) -> Refusal:
    return Refusal("INVALID_JSON", detail)


def _check_depth(body: bytes) -> None:
    # Fewer brackets than levels: a long list of ids need not be scanned.
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _BRACKETS.finditer(body):
        first = found[0][0]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _invalid(f"the body is nested more than {MAX_DEPTH} levels deep")
        elif first in b"]}":
            depth -= 1


class _Twice(dict[str, Any]):
    """An object in which the key ``name`` stands twice."""

    name = ""


def _object(twice: list[_Twice], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    marked = _Twice(made)
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            marked.name = name[:_MAX_NAME]
            break
        seen.add(name)
    twice.append(marked)
    return marked


def _stands_twice(value: Any, found: _Twice) -> Refusal:
    pointer = f"{_path_to(value, found) or ''}/{_escape(found.name)}"
    return Refusal(
        "INVALID_JSON",
        f"the key {json.dumps(found.name)} stands twice in one object",
        errors=[{"pointer": pointer, "detail": "stands twice"}],
    )


def _path_to(value: Any, wanted: Any) -> str | None:
    if value is wanted:
        return ""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inside:
        below = _path_to(each, wanted)
        if below is not None:
            return f"/{_escape(str(name)[:_MAX_NAME])}{below}"
    return None


def _no_constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _invalid("a number is out of range")
    return value


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _invalid(f"a number has more than {MAX_DIGITS} digits")
    return int(text)


def _check_surrogates(value: Any) -> None:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise _invalid("a string holds half of a surrogate pair") from error


def convert(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """Turn plain values into ``kind``; without ``strict``, text of a query counts as the number it spells.

    Raises:
        Refusal: (``INVALID_FIELD``) with a pointer to the field that does not fit.

    """
    try:
        return msgspec.convert(value, whole(kind), strict=strict)
    except msgspec.ValidationError as error:
        raise invalid_field(*_place(str(error), kind)) from error


def decode(body: bytes, kind: type[T]) -> T:
    """Read a body strictly into ``kind``.

    Raises:
        Refusal: as in `parse` and `convert`.

    """
    return convert(parse(body), kind)


def canonical(value: Any) -> bytes:
    """Write plain values so that equal requests are equal bytes: keys sorted, no white space."""
    return msgspec.json.encode(value, order="sorted")


def _place(message: str, kind: Any) -> tuple[str, str]:
    """Split a message of msgspec about a ``kind`` into pointer and sentence."""
    at = _AT.search(message)
    pointer = "" if at is None else _pointer(at[1])
    sentence = message if at is None else message[: at.start()]
    if unknown := _UNKNOWN.fullmatch(sentence):
        meant = "" if pointer else did_you_mean(unknown[1][:_MAX_NAME], kind.__struct_fields__)
        return f"{pointer}/{_escape(unknown[1][:_MAX_NAME])}", f"unknown field{meant}"
    if missing := _MISSING.fullmatch(sentence):
        return f"{pointer}/{_escape(missing[1])}", "is required"
    if sentence.startswith("Invalid enum value"):
        return pointer, f"one of these is needed: {', '.join(_choices(kind, pointer))}"
    return pointer, _TYPES.sub(_in_words, sentence[:1].lower() + sentence[1:])


def _in_words(found: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(each, each) for each in found[1].split(" | "))


def _choices(kind: Any, pointer: str) -> Iterator[str]:
    """List what a field that takes some texts only may hold; a struct of ours has no such fields deeper inside."""
    name = pointer.split("/")[1]
    for field in msgspec.structs.fields(kind):
        if field.name == name:
            yield from _literals(field.type)


def _literals(kind: Any) -> Iterator[str]:
    for each in get_args(kind):
        if isinstance(each, str):
            yield each
        else:
            yield from _literals(each)


def _pointer(path: str) -> str:
    return "".join(f"/{_escape(name or index)}" for name, index in _STEP.findall(path))


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
