"""What goes along with a selection: rows of other tables, files, bytes; counted under a deadline."""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final

from bulkops.models import Caution, Impact
from bulkops.resources.paths import Identity
from bulkops.resources.schema import ForeignKey, quote
from bulkops.resources.storage import LocalStorage
from bulkops.resources.table.bound import Bound
from bulkops.resources.table.selecting import Selector
from bulkops.resources.target import DeadlineError, Target

#: Up to so many files are looked at for their size.
_MAX_SIZED: Final = 2000


async def measure(
    target: Target, bound: Bound, selector: Selector, deadline_s: float
) -> tuple[Impact, list[Caution]]:
    """Count rows by table and files; what is not counted in time is ``None`` and cautioned about."""
    until = time.monotonic() + deadline_s
    cautions = _cautions(bound, selector)
    rows: dict[str, int | None] = {}
    for table, sql in _row_counts(bound, selector):
        counted = await _count(target, sql, selector.params, until)
        rows[table] = None if counted is None else (rows.get(table) or 0) + counted
    files, size = await _files(target, bound, selector, until)
    if None in rows.values() or files is None:
        cautions.append(
            Caution("IMPACT_PARTIAL", "counting everything would take too long; some numbers are null")
        )
    holders = [
        quote(link.table)
        for link in _holding_links(bound)
        if await _count(target, f"SELECT EXISTS ({_child_rows('1', link, selector)})", selector.params, until)
    ]
    if holders:
        named = ", ".join(dict.fromkeys(holders))
        cautions.append(Caution("CONSTRAINT", f"rows of {named} point at some of these, which fail then"))
    return Impact(rows, files, size), cautions


async def _count(target: Target, sql: str, params: dict[str, Any], until: float) -> int | None:
    left_s = until - time.monotonic()
    if left_s <= 0:
        return None
    try:
        row = await target.read(
            lambda connection: connection.execute(sql, params).fetchone(), deadline_s=left_s
        )
    except DeadlineError:
        return None
    return int(row[0])


def _row_counts(bound: Bound, selector: Selector) -> list[tuple[str, str]]:
    counts = [(bound.table.name, f"SELECT count(*) FROM ({selector.keys_sql()})")]
    counts += [(child.table, _child_count(bound.child_link(child), selector)) for child in bound.act.children]
    if bound.act.deletes and bound.foreign_keys:
        declared = {child.table for child in bound.act.children}
        counts += [
            (link.table, _child_count(link, selector))
            for link in bound.table.referenced_by
            if link.on_delete == "CASCADE" and link.table not in declared and link.table != bound.table.name
        ]
    return counts


def _holding_links(bound: Bound) -> list[ForeignKey]:
    """Return the foreign keys that keep rows from being deleted; rows of the same table may go in one batch."""
    if not (bound.act.deletes and bound.foreign_keys):
        return []
    own = {bound.table.name, *(child.table for child in bound.act.children)}
    holding = {"NO ACTION", "RESTRICT"}
    return [link for link in bound.table.referenced_by if link.on_delete in holding and link.table not in own]


def _child_count(link: ForeignKey, selector: Selector) -> str:
    return _child_rows("count(*)", link, selector)


def _child_rows(columns: str, link: ForeignKey, selector: Selector) -> str:
    return f"SELECT {columns} FROM {quote(link.table)} AS c WHERE {_belongs(link, selector)}"


def _belongs(link: ForeignKey, selector: Selector) -> str:
    columns = ", ".join(f"c.{quote(name)}" for name in link.columns)
    parents = ", ".join(f"t.{quote(name)}" for name in link.parent_columns)
    left = columns if len(link.columns) == 1 else f"({columns})"
    return f"{left} IN ({selector.rows_sql(parents)})"


async def _files(
    target: Target, bound: Bound, selector: Selector, until: float
) -> tuple[int | None, int | None]:
    total, size = 0, 0
    sized = True
    for storage, sql in _path_queries(bound, selector):
        counted = await _count(target, f"SELECT count(*) FROM ({sql})", selector.params, until)
        if counted is None:
            return None, None
        total += counted
        local = bound.storages.get(storage)
        if local is None or total > _MAX_SIZED:
            sized = False
        else:
            size += await target.read(_sizes(sql, selector.params, local))
    return total, size if sized else None


def _sizes(sql: str, params: dict[str, Any], local: LocalStorage) -> Any:
    def work(connection: sqlite3.Connection) -> int:
        paths = [bytes(row[0]) for row in connection.execute(sql, params)]
        return sum(seen.size for seen in local.identify_many(paths) if isinstance(seen, Identity))

    return work


def _path_queries(bound: Bound, selector: Selector) -> list[tuple[str, str]]:
    queries: list[tuple[str, str]] = []
    if bound.act.reads:
        return queries
    if bound.own_file is not None and bound.act.hides:
        column = f"t.{quote(bound.own_file)}"
        sql = selector.rows_sql(f"CAST({column} AS BLOB)") + f" AND {column} <> ''"
        queries.append((bound.resource, sql))
    for child in bound.act.children:
        if child.file is not None:
            column = f"c.{quote(child.file)}"
            sql = (
                f"SELECT CAST({column} AS BLOB) FROM {quote(child.table)} AS c"
                f" WHERE {column} <> '' AND {_belongs(bound.child_link(child), selector)}"
            )
            queries.append((f"{bound.resource}.{child.table}", sql))
    return queries


def _cautions(bound: Bound, selector: Selector) -> list[Caution]:
    cautions = []
    event = "DELETE" if bound.act.deletes else "UPDATE"
    triggers = [trigger.name for trigger in bound.table.triggers if trigger.event == event]
    if triggers and bound.act.reversible:
        cautions.append(
            Caution("TRIGGERS_NOT_UNDONE", f"what these triggers do is not undone: {', '.join(triggers)}")
        )
    if bound.act.reversible and any(
        storage not in bound.storages for storage, _ in _path_queries(bound, selector)
    ):
        message = "files in a storage of the application's own come back only while they wait to be deleted"
        cautions.append(Caution("FILES_NOT_UNDONE", message))
    if bound.act.final:
        cautions.append(Caution("FINAL", "this cannot be undone"))
    return cautions
