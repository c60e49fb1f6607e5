"""Cells of CSV files (RFC 4180) that no spreadsheet takes for a formula.

Texts and numbers come in, UTF-8 lines that end in CRLF go out. Numbers are left as they are.

Source: OWASP, CSV Injection: ``= + - @``, TAB, CR, LF and the full-width forms begin a formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# Blanks and marks that spreadsheets pass over before they look for a formula's first character.
_FORMULA: Final = re.compile(r"[\t\r\n]|[\s\ufeff\u200b-\u200f\u2060]*[=+\-@＝＋－＠]")
#: What most cells are: looked for first, since a report has millions.
_PLAIN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_ .:/-]*")
_NUMBER: Final = re.compile(r"-?[0-9]+", re.ASCII)
_SPECIAL: Final = re.compile(r'[",\r\n]')


def cell(value: str | int | None) -> str:
    """Write one cell; ``None`` is an empty one.

    A text that a spreadsheet would calculate gets a ``'`` before it, NUL (which ends a text for many
    readers) becomes U+FFFD.
    """
    if value is None:
        return ""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = "'" + text
    text = text.replace("\x00", "\ufffd")
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def line(values: Iterable[str | int | None]) -> str:
    """Write one line, its end included."""
    return ",".join(map(cell, values)) + "\r\n"
