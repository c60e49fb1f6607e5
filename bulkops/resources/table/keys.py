"""A table's key: ids on the wire, in memory and in SQL.

On the wire an id is a string (composite keys: the parts, percent-encoded, joined by commas); in memory
it is native; in SQL a whole page of ids is one JSON parameter, so that statements never change.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from bulkops.effects import Id
from bulkops.resources.schema import Table, quote

_MAX_INT: Final = 2**63 - 1
_HALF_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")


class Key:
    """The key columns of one table, addressed as ``t``."""

    def __init__(self, table: Table, columns: list[str]) -> None:
        """Take the key columns in the configured order.

        Raises:
            LookupError: a column does not exist.
            ValueError: a column's type cannot be an id.
        """
        self.columns = [table.column(name) for name in columns]
        for column in self.columns:
            if column.affinity == "blob" and column.declared:
                raise ValueError(f"column {column.name!r} holds blobs; ids are integers or text")
        self._integer = [column.affinity == "integer" for column in self.columns]
        self._any_number = [column.affinity in ("numeric", "real", "blob") for column in self.columns]
        self.single = len(self.columns) == 1
        self.names = [column.name for column in self.columns]
        self.select = ", ".join(f"t.{quote(name)}" for name in self.names)
        self.order = self.select
        self.match = self.match_as("t")
        named = [
            f"typeof(t.{quote(column.name)}) IN ('integer', 'text')"
            for column in self.columns
            if column.name != table.integer_key
            and not (table.strict and column.notnull and column.affinity in ("integer", "text"))
        ]
        #: The condition of rows that have an id at all: no part is NULL, a float or a blob.
        self.named = " AND ".join(named) or "1"

    def match_as(self, alias: str) -> str:
        """Return the condition that a row under this alias is one of ``:ids``."""
        columns = ", ".join(f"{alias}.{quote(name)}" for name in self.names)
        if self.single:
            match = f"{columns} IN (SELECT value FROM json_each(:ids))"
            if self._integer[0]:
                return match
            # A NOCASE or RTRIM key would merge ids that are not the same.
            return f"{match} AND {columns} COLLATE BINARY IN (SELECT value FROM json_each(:ids))"
        parts = ", ".join(f"json_extract(value, '$[{index}]')" for index in range(len(self.columns)))
        return f"({columns}) IN (SELECT {parts} FROM json_each(:ids))"

    def native(self, row: tuple[Any, ...]) -> Id:
        """Build an id from the first columns of a row selected as ``select``.

        Raises:
            ValueError: a part is NULL, a float or a blob.
        """
        parts = row[: len(self.columns)]
        for part in parts:
            if not isinstance(part, (int, str)):
                raise ValueError(f"key value {part!r} is no id")  # noqa: TRY004  the row is wrong, not the type
        return parts[0] if self.single else list(parts)

    def is_sayable(self, row: tuple[Any, ...]) -> bool:
        """Say whether the key that a row begins with can be written: its bytes are UTF-8."""
        return not any(
            isinstance(part, str) and any("\ud800" <= character <= "\udfff" for character in part)
            for part in row[: len(self.columns)]
        )

    def parse(self, wire: str | int) -> Id:
        """Read an id of a request.

        Raises:
            ValueError: it is not in the canonical form of this key's type.
        """
        if self.single:
            return self._part(0, str(wire))
        parts = str(wire).split(",")
        if len(parts) != len(self.columns):
            raise ValueError(f"a key of {len(self.columns)} parts joined by commas is needed")
        if any(_HALF_ESCAPE.search(part) for part in parts):
            raise ValueError("each part is percent-encoded: a % in it is written %25")
        return [self._part(index, unquote(part, errors="strict")) for index, part in enumerate(parts)]

    def _part(self, index: int, text: str) -> int | str:
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError("an id holds no NUL and no lone surrogate")
        if self._integer[index]:
            return _canonical_integer(text)
        if self._any_number[index]:
            try:
                return _canonical_integer(text)
            except ValueError:
                return text
        if not text:
            raise ValueError("an id is not empty")
        return text


def _canonical_integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19 or str(int(text)) != text:
        raise ValueError("a whole number in its canonical form is needed")
    value = int(text)
    if not -_MAX_INT - 1 <= value <= _MAX_INT:
        raise ValueError("the number is beyond 64 bits")
    return value


def encode_ids(ids: list[Id]) -> str:
    """Write ids as the one JSON parameter that ``match`` expects."""
    return msgspec.json.encode(ids).decode()


def hashable(native: Id) -> int | str | tuple[int | str, ...]:
    """Return a form of an id that sets and dictionaries take."""
    return tuple(native) if isinstance(native, list) else native
