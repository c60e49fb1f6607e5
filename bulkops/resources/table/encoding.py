"""How values of a table are written into exports: SQL that writes whole lines, and the same in Python.

What comes in: a table's columns and how they are to be written; what goes out: one SQL expression for a row,
built by SQLite's JSON functions since nothing else there joins texts as fast, and functions that write a
row's values where that expression cannot (NUL, bytes that are no UTF-8, a row too long for SQLite).

CSV is RFC 4180: CRLF, every text in quotes, numbers bare, NULL nothing at all and so unlike an empty text, a
blob as ``base64:…``. A text that a spreadsheet would calculate begins with ``'`` (see `cells`), unless it is a
plain number. JSON: a blob is ``{"$base64": "…"}``, a number that is not finite ``{"$real": "Infinity"}``; an
integer beyond 2^53 is a string, since most readers would round it. *Exact* JSON, for archives, is what rows
can be made of again: every integer a number, a text that is no UTF-8 ``{"$text": base64}``.
"""

from __future__ import annotations

import base64
import math
import re
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bulkops.resources.schema import Column, Table, quote

#: JSON that stands for NULL on the way to CSV: a text cannot look like it, its quotes would be escaped.
_NULL: Final = '{"":0}'
_SAFE_INTEGER: Final = 2**53 - 1
#: Blanks and marks that spreadsheets pass over before they look for a formula's first character.
_BLANK: Final = r"\s\ufeff\u200b-\u200f\u2060"
_SIGN: Final = r"=+\-@＝＋－＠"
_DIGITS: Final = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_FORMULA: Final = re.compile(rf"[\t\r\n]|[{_BLANK}]*[{_SIGN}]")
_NUMBER: Final = re.compile(_DIGITS)
#: The quote that opens such a text in a JSON array, where blanks may be escapes: of all quotes only an opening
#: one stands behind these marks and before such a character. What rules most quotes out comes first.
_OPENS_FORMULA: Final = (
    rf'"(?=[\\{_BLANK}{_SIGN}])(?<=[\[,]")(?=\\[trn]|(?:[{_BLANK}]|\\[trnf])*[{_SIGN}])(?!{_DIGITS}")'
)
_REPLACED: Final = "\ufffd"


class Writing(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are written: ``csv`` or JSON objects; ``safe``: no formulas; ``exact``: to be read back."""

    csv: bool
    safe: bool = True
    exact: bool = False


class OddError(Exception):
    """Lines that SQLite wrote hold something that they cannot tell; Python has to write them."""


def stored(table: Table) -> list[Column]:
    """Return the columns that are written: all that rows hold, computed ones left out."""
    return [column for column in table.columns if not column.generated]


def register(connection: sqlite3.Connection, writing: Writing) -> None:
    """Give a connection the function that line expressions call for values that are out of the ordinary."""
    connection.create_function("bulkops_json", 1, lambda value: json_text(value, writing), deterministic=True)


def line_sql(table: Table, writing: Writing) -> str:
    """Return the expression of a row ``t``, after `register`: a JSON array for CSV, else a JSON object."""
    columns = stored(table)
    values = [_value_sql(table, column, writing) for column in columns]
    if writing.csv:
        return f"json_array({', '.join(values)})"
    pairs = [f"{_literal(column.name)}, {value}" for column, value in zip(columns, values, strict=True)]
    return f"json_object({', '.join(pairs)})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _value_sql(table: Table, column: Column, writing: Writing) -> str:
    name = f"t.{quote(column.name)}"
    null = f"json('{_NULL}')" if writing.csv else "NULL"
    if column.name == table.integer_key:
        return _integer_sql(name, writing)
    if column.affinity == "text":
        # A blob here makes the JSON function fail, and Python writes the lines.
        return _text_sql(name, null, writing)
    odd = f"json(bulkops_json({name}))"
    integer, real = _integer_sql(name, writing), odd if writing.exact else _real_sql(name, odd)
    whens = (
        {"integer": integer, "real": real}
        if column.affinity != "real"
        else {"real": real, "integer": integer}
    )
    whens |= {"text": name, "null": null}
    cases = " ".join(f"WHEN '{kind}' THEN {sql}" for kind, sql in whens.items())
    return f"CASE typeof({name}) {cases} ELSE {odd} END"


def _integer_sql(name: str, writing: Writing) -> str:
    if writing.csv or writing.exact:
        return name
    return f"iif({name} BETWEEN -{_SAFE_INTEGER} AND {_SAFE_INTEGER}, {name}, CAST({name} AS TEXT))"


def _real_sql(name: str, odd: str) -> str:
    """Let SQLite write what its 15 digits tell exactly; Python writes the rest, shortest.

    SQLite reads numbers back by multiplying with powers of ten, which is exact for small ones only.
    """
    small = f"({name} = 0 OR abs({name}) BETWEEN 1e-5 AND 1e15)"
    return f"CASE WHEN CAST(CAST({name} AS TEXT) AS REAL) = {name} AND {small} THEN {name} ELSE {odd} END"


def _text_sql(name: str, null: str, writing: Writing) -> str:
    return f"coalesce({name}, {null})" if writing.csv else name


def csv_bytes(lines: str, writing: Writing) -> bytes:
    """Turn JSON arrays as `line_sql` writes them, a line each, into CSV; without lines nothing.

    Raises:
        OddError: a control character is in them, which CSV readers stumble over.
    """
    if not lines:
        return b""
    if writing.safe:
        lines = re.sub(_OPENS_FORMULA, "\"'", lines)  # compiled once, when it is first needed
    # No text holds a raw line end or an unescaped quote, so that these ends are those of lines. Cutting and
    # joining is faster than replacing, which looks through a text twice.
    text = "\r\n".join(lines[1:-1].split("]\n[")) + "\r\n"
    if "\\" in text:
        text = _unescape(text)
    return "".join(text.split(_NULL)).encode()


def _unescape(text: str) -> str:
    """Turn JSON's escapes (RFC 8259, 7) into what CSV has for them; no JSON text holds a raw control character."""
    text = text.replace("\\\\", "\x01").replace('\\"', '""')
    if "\\" in text:
        for escape, meant in (("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t"), ("\\b", "\b"), ("\\f", "\f")):
            text = text.replace(escape, meant)
        if "\\" in text:
            raise OddError
    return text.replace("\x01", "\\")


# --- the same in Python ------------------------------------------------------------------------------


def csv_line(values: Sequence[Any], writing: Writing) -> bytes:
    """Write one row of CSV; texts may hold lone surrogates for bytes that are no UTF-8."""
    return (",".join(csv_cell(value, writing) for value in values) + "\r\n").encode()


def csv_cell(value: Any, writing: Writing) -> str:
    """Write one cell; ``None`` is nothing."""
    if value is None:
        return ""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return repr(value)
    text = guard(tell(value), writing) if isinstance(value, str) else tell(value)
    return '"' + (text or "").replace('"', '""') + '"'


def tell(value: str | bytes | float) -> str:
    """Say in a text what is no plain text or number."""
    if isinstance(value, bytes):
        return "base64:" + base64.b64encode(value).decode()
    if isinstance(value, float):
        return _infinity(value)
    raw = value.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace").replace("\x00", _REPLACED)


def guard(value: Any, writing: Writing) -> Any:
    """Put ``'`` before a text that a spreadsheet would take for a formula."""
    if not isinstance(value, str) or not writing.safe:
        return value
    if _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def json_line(columns: Sequence[Column], values: Sequence[Any], writing: Writing) -> bytes:
    """Write one row as a JSON object, without a line end."""
    pairs = {column.name: json_value(value, writing) for column, value in zip(columns, values, strict=True)}
    return msgspec.json.encode(pairs)


def json_value(value: Any, writing: Writing) -> Any:
    """Return what JSON tells a value by."""
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$real": _infinity(value)}
    if isinstance(value, int) and not writing.exact and abs(value) > _SAFE_INTEGER:
        return str(value)
    if isinstance(value, str) and not value.isascii():
        return _json_text(value, writing)
    return value


def _json_text(value: str, writing: Writing) -> Any:
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        if writing.exact:
            return {"$text": base64.b64encode(raw).decode()}
        return raw.decode("utf-8", "replace")


def json_text(value: Any, writing: Writing) -> str:
    """Write what stands in a line for a value that SQLite's JSON cannot tell: for CSV a text, or a number."""
    if writing.csv and not (isinstance(value, float) and math.isfinite(value)):
        value = tell(value)
        if guard(value, writing) != value:
            # Minus infinity would be taken for a formula among the texts.
            raise OddError
    return msgspec.json.encode(json_value(value, writing)).decode()


def _infinity(value: float) -> str:
    return "Infinity" if value > 0 else "-Infinity"


def read_back(value: Any) -> Any:
    """Turn a value of exact JSON into what the row held: for those who make rows of an archive again."""
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    if kind == "$real":
        return float(text)
    raw = base64.b64decode(text)
    return raw if kind == "$base64" else raw.decode("utf-8", "surrogateescape")
