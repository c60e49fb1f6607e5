"""Filters of requests as SQL: allow-listed columns, named operators, bound values.

Relative times (``-30d``) are resolved once, when the filter is frozen; what is frozen is what every
later batch checks again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any, Final

import msgspec

from bulkops.errors import invalid_field
from bulkops.resources.schema import Column, Table, quote
from bulkops.timing import parse_relative

_COMPARE: Final = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_MAX_VALUES: Final = 1000
_MAX_CONDITIONS: Final = 50
#: From the year 2000 to 2100, in seconds since 1970: a number beyond counts another unit, or from another day.
_PLAUSIBLE_S: Final = (946_684_800, 4_102_444_800)
#: What numbers may count since 1970, and how many make a second.
_UNITS: Final = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)
_ZULU: Final = re.compile(r"[\d-]+T[\d:.]+Z")
#: A text that SQLite makes a number of to compare it with one.
_NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_ORDERS: Final = frozenset({"lt", "lte", "gt", "gte"})


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

    ``iso`` 2026-01-01T00:00:00.000Z, ``sql`` 2026-01-01 00:00:00, ``s`` ``ms`` ``us`` ``ns`` since 1970; all UTC.
    """

    name: str

    @property
    def is_text(self) -> bool:
        return self.name not in _UNITS

    def write(self, at_ms: int) -> str | int:
        """Write an instant as this column would."""
        if self.name in _UNITS:
            return at_ms * _UNITS[self.name] // 1000
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        if self.name == "sql":
            return at.strftime("%Y-%m-%d %H:%M:%S")
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def guess_time_format(column: Column, samples: Sequence[Any]) -> TimeFormat:
    """Guess from the first of some values that is a time; without any value from the column's type.

    Raises:
        ValueError: none is a time that is known here: by a wrong guess all rows would be old, or none.

    """
    if not samples:
        return TimeFormat("s" if column.affinity == "integer" else "sql")
    for name in map(_time_format_of, samples):
        if name is not None:
            return TimeFormat(name)
    # What it holds is not told: the row that was looked at may be another tenant's.
    raise ValueError(
        f"{column.name!r} holds neither dates nor the seconds (milli-, micro-, nanoseconds) from 1970 to a day "
        "since 2000: how times are written there is not known; name a value as it holds them"
    )


def _time_format_of(sample: Any) -> str | None:
    if isinstance(sample, str) and _DATE.match(sample):
        return "iso" if "T" in sample else "sql"
    if isinstance(sample, (int, float)):
        low, high = _PLAUSIBLE_S
        return next((name for name, each in _UNITS.items() if low * each <= sample < high * each), None)
    return None


def relative_columns(filter_: dict[str, Any]) -> list[str]:
    """Name the columns of a filter that a relative time is compared with."""

    def has_one(value: Any) -> bool:
        if isinstance(value, (list, dict)):
            return any(map(has_one, value.values() if isinstance(value, dict) else value))
        return isinstance(value, str) and parse_relative(value) is not None

    return [name for name, wanted in filter_.items() if has_one(wanted)]


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


def dated_columns(filter_: dict[str, Any]) -> list[str]:
    """Name the columns of a filter whose rows are to lie before or after a date or an instant."""
    return [
        name
        for name, wanted in filter_.items()
        if isinstance(wanted, dict)
        and any(operator in _ORDERS and _is_instant(wanted[operator]) for operator in wanted)
    ]


def _is_instant(value: Any) -> bool:
    return isinstance(value, str) and _INSTANT.fullmatch(value) is not None


def place_instants(filter_: dict[str, Any], formats: Mapping[str, TimeFormat]) -> dict[str, Any]:
    """Write each date or instant that rows are ordered by as its column writes them.

    Compared as they come, 2026-01-01T00:00:00Z is after all of 2026-01-01 where a blank stands for the T, and
    after every number of seconds.
    """

    def placed(name: str, operator: str, value: Any) -> Any:
        if operator not in _ORDERS or not _is_instant(value):
            return value
        return _as_written(formats[name], operator, value)

    return {
        name: {operator: placed(name, operator, each) for operator, each in wanted.items()}
        if name in formats and isinstance(wanted, dict)
        else wanted
        for name, wanted in filter_.items()
    }


def _as_written(time_format: TimeFormat, operator: str, text: str) -> str | int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if time_format.is_text:
        if _DATE.fullmatch(text) or (time_format.name == "iso" and _ZULU.fullmatch(text)):
            return text
        # A mere date sorts right before whatever the column has of its day, times or none.
        if time_format.name == "sql" and operator in ("lt", "gte") and at.time() == time():
            return at.strftime("%Y-%m-%d")
    return time_format.write(round(at.timestamp() * 1000))


def check_numbers(filter_: dict[str, Any], table: Table, texts: Collection[str] = ()) -> None:
    """Refuse to order numbers by a text: to SQLite each is less than any text, so that ``lt`` would take all rows.

    ``texts`` are columns that are known to hold texts, whatever they are declared as.

    Raises:
        Refusal: (422) naming the place.
    """
    for name, wanted in filter_.items():
        if not isinstance(wanted, dict) or name in texts or not _counts(table.column(name)):
            continue
        for operator, value in wanted.items():
            if operator in _ORDERS and isinstance(value, str) and not _NUMBER.fullmatch(value):
                raise invalid_field(
                    f"/filter/{name}/{operator}", f"{name!r} holds numbers: a number is needed"
                )


def _counts(column: Column) -> bool:
    if column.affinity == "numeric":
        return not any(word in column.declared.upper() for word in ("DATE", "TIME"))
    return column.affinity in ("integer", "real")


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
            known = f"columns that can: {', '.join(allowed)}" if allowed else "no column can"
            raise invalid_field(
                pointer, f"column {name!r} cannot be filtered by; {known} (search, in the configuration)"
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
