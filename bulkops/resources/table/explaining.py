"""What an action does, in SQLite's own words: each statement, the index it uses and the one it misses.

What comes in: an action bound to its table; what goes out: statements and plans. The statements are those that
jobs run, and nothing is run but EXPLAIN.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from bulkops.resources.schema import ForeignKey, Table, quote, read_collation
from bulkops.resources.table import images
from bulkops.resources.table.bound import Bound
from bulkops.resources.table.selecting import Selector
from bulkops.resources.table.work import statements

#: A line of a plan that reads by an index; one that SQLite has to make for itself first is none.
_USES: Final = re.compile(r"^SEARCH t USING (?!AUTOMATIC)(?:COVERING )?(?:INDEX )?(.+?)(?: \(|$)")
_READS_ALL: Final = re.compile(r"^SCAN t\b|^SEARCH t USING AUTOMATIC")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One statement of an action: when it runs, its text and plan, the index it uses, the one it misses.

    ``index`` is ``None`` where all rows are read; ``missing`` creates the index that would spare that.
    """

    when: str
    sql: str
    plan: list[str]
    index: str | None
    missing: str | None


def explain(
    connection: sqlite3.Connection,
    bound: Bound,
    walks: Mapping[str | None, Selector],
    tenant: str | None,
) -> list[Statement]:
    """Explain the walks that freeze a job's items, then each statement of a batch, in order.

    ``walks`` are selections by one column each, ``None`` that of all. ``tenant`` is the column that says
    whose a row is, ``None`` where there is none: the walk of all then reads all rows, as it must.
    """
    found = [_look_at_walk(connection, bound, column, selector, tenant) for column, selector in walks.items()]
    held = {f"to{index}": value for index, value in enumerate(bound.act.assign.values())}
    params = bound.fit.params | held | {"ids": "[]"}
    for child, sql in statements(bound):
        if child is None:
            columns, table, when = bound.key.names, bound.table, "each batch"
        else:
            columns = list(bound.child_link(child).columns)
            table, when = bound.tables[child.table], f"each batch, before: what goes with it in {child.table}"
        found.append(_look(connection, when, sql, params, table, columns))
    return [*found, *_look_at_links(connection, bound)]


def _look_at_walk(
    connection: sqlite3.Connection, bound: Bound, column: str | None, selector: Selector, tenant: str | None
) -> Statement:
    when = "to freeze the items" + (f", filtered by {column}" if column else "")
    leading = [name for name in (tenant, column) if name is not None]
    wanted = list(dict.fromkeys([*leading, *bound.key.names])) if leading else []
    binary = tenant if tenant and read_collation(connection, bound.table.name, tenant) != "BINARY" else None
    return _look(connection, when, selector.walk_sql(), selector.params, bound.table, wanted, binary=binary)


def _look_at_links(connection: sqlite3.Connection, bound: Bound) -> Iterator[Statement]:
    """Explain how rows that refer to a deleted one are found: by us for its image, by SQLite in any case."""
    if not bound.act.deletes or not bound.foreign_keys:
        return
    declared = {(child.table, bound.child_link(child).columns) for child in bound.act.children}
    for link in bound.table.referenced_by:
        if (link.table, link.columns) not in declared and link.table in bound.tables:
            yield _look_at_link(connection, link, bound.tables[link.table])


def _look_at_link(connection: sqlite3.Connection, link: ForeignKey, table: Table) -> Statement:
    when = f"each row: what refers to it in {link.table}"
    sql = images.referencing_sql(images.shape_of(table), link, 1)
    return _look(connection, when, sql, [None] * len(link.columns), table, list(link.columns))


def _look(
    connection: sqlite3.Connection,
    when: str,
    sql: str,
    params: dict[str, Any] | Sequence[Any],
    table: Table,
    wanted: list[str],
    *,
    binary: str | None = None,
) -> Statement:
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", params)]
    used = next((found[1] for line in plan if (found := _USES.match(line))), None)
    # Where the index is there and not used, SQLite has its reasons (few rows, by its statistics).
    # A view can have none.
    there = table.kind != "table" or (binary is None and table.index_on(*wanted) is not None)
    misses = any(_READS_ALL.match(line) for line in plan) and wanted and not there
    missing = _create(table.name, wanted, binary) if misses else None
    return Statement(when=when, sql=sql, plan=plan, index=used, missing=missing)


def _create(table: str, columns: list[str], binary: str | None) -> str:
    name = quote("_".join([table, *columns]))
    parts = [quote(column) + (" COLLATE BINARY" if column == binary else "") for column in columns]
    return f"CREATE INDEX {name} ON {quote(table)} ({', '.join(parts)})"
