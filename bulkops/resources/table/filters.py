"""Filters of requests as SQL: allow-listed columns, named operators, bound values.

Relative times (``-30d``) are resolved once, when the filter is frozen; what is frozen is what every
later batch checks again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from bulkops.errors import invalid_field
from bulkops.resources.schema import Column, Table, quote
from bulkops.timing import parse_relative

_COMPARE: Final = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_MAX_VALUES: Final = 1000
_MAX_CONDITIONS: Final = 50


class Condition(msgspec.Struct, frozen=True):
    """A piece of SQL about row ``t`` and the values it binds."""

    sql: str
    params: dict[str, Any]


def both(*conditions: Condition) -> Condition:
    """Join conditions with AND; none at all is always true."""
    sql = " AND ".join(f"({condition.sql})" for condition in conditions if condition.sql)
    params: dict[str, Any] = {}
    for condition in conditions:
        params |= condition.params
    return Condition(sql or "1", params)


def unindexed(condition: Condition) -> Condition:
    """Return the same condition in a form by which SQLite looks no row up.

    For statements that name rows by their ids: beside an index on the tenant or a filtered column SQLite may
    think little of the ids, whose number it cannot know, and then each batch reads all of a tenant's rows.
    """
    return Condition(f"coalesce(({condition.sql}), 0)", condition.params)


class TimeFormat(msgspec.Struct, frozen=True):
    """How a column writes instants.

    ``iso`` 2026-01-01T00:00:00.000Z, ``sql`` 2026-01-01 00:00:00, ``s`` and ``ms`` since 1970; all UTC.
    """

    name: str

    def write(self, at_ms: int) -> str | int:
        """Write an instant as this column would."""
        if self.name == "ms":
            return at_ms
        if self.name == "s":
            return at_ms // 1000
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        if self.name == "sql":
            return at.strftime("%Y-%m-%d %H:%M:%S")
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def guess_time_format(column: Column, sample: Any) -> TimeFormat:
    """Guess from the column's type and one value of it."""
    if isinstance(sample, (int, float)) and not isinstance(sample, bool):
        return TimeFormat("ms" if sample > 100_000_000_000 else "s")
    if isinstance(sample, str):
        return TimeFormat("iso" if "T" in sample else "sql")
    return TimeFormat("s" if column.affinity == "integer" else "sql")


def freeze(filter_: dict[str, Any], now_ms: int, time_format: Callable[[str], TimeFormat]) -> dict[str, Any]:
    """Resolve relative times to what the column would hold at ``now_ms`` plus the offset."""

    def resolve(column: str, value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(column, each) for each in value]
        if isinstance(value, dict):
            return {name: resolve(column, each) for name, each in value.items()}
        offset = parse_relative(value) if isinstance(value, str) else None
        if offset is None:
            return value
        return time_format(column).write(now_ms + int(offset.total_seconds() * 1000))

    return {column: resolve(column, value) for column, value in filter_.items()}


def compile_filter(filter_: dict[str, Any], table: Table, allowed: list[str]) -> Condition:
    """Turn a filter into a condition.

    Raises:
        Refusal: (422) a column is not searchable, an operator unknown, a value of the wrong kind; the
            pointer names the place.
    """
    conditions: list[Condition] = []
    for name, wanted in filter_.items():
        pointer = f"/filter/{name}"
        if name not in allowed:
            raise invalid_field(
                pointer, f"column {name!r} cannot be filtered by; those are: {', '.join(allowed)}"
            )
        column = table.column(name)
        operators = (
            wanted if isinstance(wanted, dict) else {"in" if isinstance(wanted, list) else "eq": wanted}
        )
        if not operators:
            raise invalid_field(pointer, "an operator is needed")
        for operator, value in operators.items():
            place = f"{pointer}/{operator}" if isinstance(wanted, dict) else pointer
            conditions.append(_one(column, operator, value, f"f{len(conditions)}", place))
    if len(conditions) > _MAX_CONDITIONS:
        raise invalid_field("/filter", f"at most {_MAX_CONDITIONS} conditions")
    return both(*conditions)


def _one(column: Column, operator: str, value: Any, name: str, pointer: str) -> Condition:
    sql = f"t.{quote(column.name)}"
    if operator == "is_null":
        if not isinstance(value, bool):
            raise invalid_field(pointer, "true or false is needed")
        return Condition(f"{sql} IS {'NULL' if value else 'NOT NULL'}", {})
    if operator == "in":
        return _in(sql, value, name, pointer)
    if operator == "like":
        if not isinstance(value, str) or len(value) > 200:
            raise invalid_field(pointer, "text of at most 200 characters is needed")
        return Condition(f"{sql} LIKE :{name} ESCAPE '\\'", {name: _like(value)})
    if operator not in _COMPARE:
        raise invalid_field(
            pointer, f"operator {operator!r} is not one of {', '.join([*_COMPARE, 'in', 'like', 'is_null'])}"
        )
    if value is None:
        if operator not in ("eq", "ne"):
            raise invalid_field(pointer, "null can be compared with eq and ne only")
        return Condition(f"{sql} IS {'' if operator == 'eq' else 'NOT '}NULL", {})
    return Condition(f"{sql} {_COMPARE[operator]} :{name}", {name: _scalar(value, pointer)})


def _in(sql: str, values: Any, name: str, pointer: str) -> Condition:
    if not isinstance(values, list) or not values or len(values) > _MAX_VALUES:
        raise invalid_field(pointer, f"a list of 1 to {_MAX_VALUES} values is needed")
    scalars = [_scalar(value, f"{pointer}/{index}") for index, value in enumerate(values)]
    bound = [value for value in scalars if value is not None]
    names = [f"{name}_{index}" for index in range(len(bound))]
    condition = f"{sql} IN ({', '.join(':' + each for each in names)})"
    if len(bound) < len(scalars):
        condition = f"{condition} OR {sql} IS NULL"
    return Condition(condition, dict(zip(names, bound, strict=True)))


def _scalar(value: Any, pointer: str) -> Any:
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, (int, float, str)):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise invalid_field(pointer, "the number is beyond 64 bits")
        return value
    raise invalid_field(pointer, "a text, number, boolean or null is needed")


def _like(text: str) -> str:
    """Treat ``%`` and ``_`` of a request as the wildcards they are; without any, search inside."""
    if "%" in text or "_" in text:
        return text
    return f"%{text.replace(chr(92), chr(92) * 2)}%"


def search(text: str, columns: list[str]) -> Condition:
    """Find a text inside any of the columns, taken literally; no columns find nothing."""
    if not columns:
        return Condition("0", {})
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    sql = " OR ".join(f"t.{quote(name)} LIKE :q ESCAPE '\\'" for name in columns)
    return Condition(sql, {"q": f"%{escaped}%"})
