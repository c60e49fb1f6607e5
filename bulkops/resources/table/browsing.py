"""Lists of a table's rows for people to look at: filtered, sorted, in keyset pages, never by OFFSET."""

from __future__ import annotations

import base64
import math
import sqlite3
from typing import Any, Final

import msgspec

from bulkops.errors import invalid_field
from bulkops.ids import wire_id
from bulkops.resources.contract import Browse, ItemsPage
from bulkops.resources.schema import Table, quote
from bulkops.resources.table.actions import Act, SoftDelete
from bulkops.resources.table.filters import Condition, both, search
from bulkops.resources.table.images import fetch, tolerant_text
from bulkops.resources.table.keys import Key
from bulkops.resources.table.selecting import Selector

_TOTAL_CAP: Final = 10_000
_MAX_TEXT: Final = 10_000


class View(msgspec.Struct, frozen=True):
    """What a list of a table shows; ``act`` judges which rows can be deleted."""

    table: Table
    key: Key
    soft: SoftDelete | None
    act: Act | None
    label: str | None
    search: list[str]


def rows(connection: sqlite3.Connection, selector: Selector, limit: int) -> list[dict[str, Any]]:
    """Return the first fit rows of a selection, in key order."""
    connection.text_factory = tolerant_text
    try:
        cursor = connection.execute(
            f"{selector.rows_sql('t.*')} ORDER BY {selector.key.order} LIMIT :limit",
            {**selector.params, "limit": limit},
        )
        names = [column[0] for column in cursor.description]
        return [_show(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
    finally:
        connection.text_factory = str


def page(connection: sqlite3.Connection, view: View, scope: Condition, browse: Browse) -> ItemsPage:
    """Return one page of rows and how many there are in all, counted up to 10,000.

    Raises:
        Refusal: (422) the table cannot be sorted by that column, or there are no deleted rows to show.
    """
    where = _where(view, scope, browse)
    order = _Order(view, browse.sort)
    after = order.after(browse.after) if browse.after else Condition("1", {})
    condition = both(where, after)
    states = view.act.states if view.act and not browse.deleted else []
    unfit = " ".join(f"WHEN {state.condition.sql} THEN {index}" for index, state in enumerate(states))
    params = condition.params | {
        name: value for state in states for name, value in state.condition.params.items()
    }
    columns = ", ".join(f"t.{quote(column.name)}" for column in view.table.columns)
    sql = (
        f"SELECT {view.key.select}, {f'CASE {unfit} END' if unfit else 'NULL'}, {columns}"
        f" FROM {quote(view.table.name)} AS t WHERE {condition.sql} ORDER BY {order.sql} LIMIT :limit"
    )
    connection.text_factory = tolerant_text
    try:
        found = connection.execute(sql, {**params, "limit": browse.limit + 1}).fetchall()
        total = _total(connection, view.table, where)
    finally:
        connection.text_factory = str
    items = [_item(view, row, states) for row in found[: browse.limit] if view.key.is_sayable(row)]
    last = order.mark(found[browse.limit - 1]) if len(found) > browse.limit else None
    return ItemsPage(items, last, min(total, _TOTAL_CAP), total > _TOTAL_CAP)


def _where(view: View, scope: Condition, browse: Browse) -> Condition:
    parts = [scope, Condition(view.key.named, {})]
    if view.soft is not None:
        parts.append(view.soft.deleted() if browse.deleted else view.soft.live())
    elif browse.deleted:
        raise invalid_field("/deleted", "deleted rows of this resource are in the trash: see /api/trash")
    if browse.q:
        parts.append(search(browse.q, view.search))
    return both(*parts)


class _Order:
    """An order of rows that a page can be resumed in: one column (NULLs last), then the key."""

    def __init__(self, view: View, sort: str | None) -> None:
        self._key = view.key
        self._view = view
        self.column: str | None = None
        self._down = False
        direction = ""
        if sort is not None:
            self._down = sort.startswith("-")
            name = sort.removeprefix("-")
            if name not in view.search and name not in view.key.names:
                raise invalid_field("/sort", f"cannot sort by {name!r}; by these: {', '.join(view.search)}")
            self.column = name
            direction = " DESC" if self._down else ""
        keys = ", ".join(f"t.{quote(name)}{direction}" for name in view.key.names)
        column = f"t.{quote(self.column)}" if self.column else ""
        self.sql = f"{column} IS NULL, {column}{direction}, {keys}" if self.column else keys

    def mark(self, row: tuple[Any, ...]) -> list[Any]:
        """Return where a page ended: the sorted value and the key's parts."""
        width = len(self._key.names)
        names = [column.name for column in self._view.table.columns]
        value = row[width + 1 + names.index(self.column)] if self.column else None
        return [_write_mark(each) for each in (value, *row[:width])]

    def after(self, mark: list[Any]) -> Condition:
        """Return the condition of what comes after a mark."""
        if len(mark) != 1 + len(self._key.names):
            raise invalid_field("/page", "the token does not belong to this list")
        value, *parts = [_read_mark(each) for each in mark]
        sign = "<" if self._down else ">"
        params = {f"after{index}": part for index, (_, part) in enumerate(parts)}
        marks = ", ".join(sql.format(f":after{index}") for index, (sql, _) in enumerate(parts))
        beyond = f"({self._key.select}) {sign} ({marks})"
        if self.column is None:
            return Condition(beyond, params)
        column = f"t.{quote(self.column)}"
        form, held = value
        if held is None:
            return Condition(f"{column} IS NULL AND {beyond}", params)
        at = form.format(":sorted")
        sql = f"{column} {sign} {at} OR ({column} = {at} AND {beyond}) OR {column} IS NULL"
        return Condition(sql, {**params, "sorted": held})


def _write_mark(value: Any) -> Any:
    """Write a value so that a token keeps it exactly; JSON has neither bytes nor infinities."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, str) and not value.isascii():
        return {"text": base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()}
    return value


def _read_mark(value: Any) -> tuple[str, Any]:
    """Return how a mark is written in SQL and what to bind: a text that is no UTF-8 goes as its bytes."""
    try:
        match value:
            case {"bytes": str(text)}:
                return "{}", base64.b64decode(text, validate=True)
            case {"float": str(text)}:
                return "{}", float.fromhex(text)
            case {"text": str(text)}:
                return "CAST({} AS TEXT)", base64.b64decode(text, validate=True)
            case int() | str() | None:
                return "{}", value
    except (ValueError, OverflowError):
        pass
    raise invalid_field("/page", "the token does not belong to this list")


def _total(connection: sqlite3.Connection, table: Table, where: Condition) -> int:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {quote(table.name)} AS t WHERE {where.sql} LIMIT {_TOTAL_CAP + 1})"
    return int(connection.execute(sql, where.params).fetchone()[0])


def _item(view: View, row: tuple[Any, ...], states: list[Any]) -> dict[str, Any]:
    width = len(view.key.names)
    values = dict(zip([column.name for column in view.table.columns], row[width + 1 :], strict=True))
    item = wire_id(view.key.native(row))
    label = values.get(view.label) if view.label else None
    unfit = row[width]
    return {
        "id": item,
        "label": item if label is None else str(_plain(label)),
        "eligible": view.act is not None and unfit is None,
        "code": None if unfit is None else states[unfit].code,
        "row": _show(values),
    }


def _show(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Return a value JSON can carry: blobs as their size, odd numbers and long or broken text as safe text."""
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def _word(value: Any) -> str:
    return "" if value is None else str(_plain(value))


def counts(
    connection: sqlite3.Connection,
    table: Table,
    scope: Condition,
    soft: SoftDelete | None,
    status: str | None,
) -> dict[str, Any]:
    """Count rows: in all, by status, deleted ones apart."""
    live = both(scope, soft.live()) if soft else scope
    from_ = f"FROM {quote(table.name)} AS t WHERE"
    by_status: dict[str, int] = {}
    if status is not None:
        sql = f"SELECT t.{quote(status)}, count(*) {from_} {live.sql} GROUP BY 1 ORDER BY 2 DESC LIMIT 100"
        by_status = {_word(word): number for word, number in fetch(connection, sql, live.params)}
    total = connection.execute(f"SELECT count(*) {from_} {live.sql}", live.params).fetchone()[0]
    deleted = None
    if soft is not None:
        gone = both(scope, soft.deleted())
        deleted = connection.execute(f"SELECT count(*) {from_} {gone.sql}", gone.params).fetchone()[0]
    return {"total": total, "by_status": by_status, "deleted": deleted}
