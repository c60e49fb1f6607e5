"""Which rows a query means, and which of them are unfit: for previews, starts and frozen manifests.

A row is *matched* when it is the tenant's, visible to the action and within filter and bound; a matched
row that is protected, busy or done already is *unfit* and carries the first reason that is true of it. A
row whose key is NULL, a float, a blob or no UTF-8 has no id and is never matched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from bulkops.effects import Id
from bulkops.resources.contract import Found, Query, Tally
from bulkops.resources.schema import Table, quote
from bulkops.resources.table.actions import Act, Unfit, negate
from bulkops.resources.table.filters import Condition, both, unindexed
from bulkops.resources.table.images import fetch, is_undecodable, tolerant_text
from bulkops.resources.table.keys import Key, encode_ids, hashable

_FETCH: Final = 20_000
_MISSING: Final = ("NOT_FOUND", "there is no such item")


class Selector:
    """A query bound to a table; its methods run in a connection's thread."""

    def __init__(self, table: Table, key: Key, act: Act, scope: Condition, query: Query) -> None:
        self._key = key
        self._query = query
        self._from = f"FROM {quote(table.name)} AS t"
        self._unfit: list[Unfit] = list(act.states)
        where = [scope, Condition(key.named, {})]
        if query.ids is not None:
            where = [unindexed(scope), Condition(key.named, {})]
            where.append(Condition(key.match, {"ids": encode_ids(query.ids)}))
            self._unfit.append(Unfit("INELIGIBLE", "it is deleted", negate(act.visible)))
        else:
            where.append(act.visible)
            if query.bound is not None:
                column = table.rowid or key.names[0]
                where.append(Condition(f"t.{quote(column)} <= :bound", {"bound": query.bound}))
        if query.exclude:
            excluded = Condition(
                key.match.replace(":ids", ":excluded"), {"excluded": encode_ids(query.exclude)}
            )
            where.append(negate(excluded))
        self.where = both(*where)

    @property
    def key(self) -> Key:
        return self._key

    def unfit_sql(self) -> str:
        """Return an expression that is the index of the first reason a row is unfit, NULL when it is fit."""
        if not self._unfit:
            return "NULL"
        cases = " ".join(
            f"WHEN {unfit.condition.sql} THEN {index}" for index, unfit in enumerate(self._unfit)
        )
        return f"CASE {cases} END"

    @property
    def params(self) -> dict[str, Any]:
        """Return what every statement with `where` and `unfit_sql` binds."""
        params = dict(self.where.params)
        for unfit in self._unfit:
            params |= unfit.condition.params
        return params

    def found(self, item: Id, reason: int | None) -> Found:
        """Build the value of a selected row."""
        if reason is None:
            return Found(item)
        return Found(item, self._unfit[reason].code, self._unfit[reason].reason)

    def _select(self) -> str:
        return f"SELECT {self._key.select}, {self.unfit_sql()} {self._from} WHERE {self.where.sql}"

    def first(self, connection: sqlite3.Connection, limit: int) -> list[Found]:
        """Return the first matches in key order; for ids every one asked for, in that order."""
        only = f" AND {self.unfit_sql()} IS NOT NULL" if self._query.unfit_only else ""
        sql = f"{self._select()}{only} ORDER BY {self._key.order} LIMIT :limit"
        rows = fetch(connection, sql, {**self.params, "limit": limit})
        found = [self.found(self._key.native(row), row[-1]) for row in rows if self._key.is_sayable(row)]
        if self._query.ids is None:
            return found
        by_id = {hashable(each.id): each for each in found}
        left_out = {hashable(item) for item in self._query.exclude}
        return [
            by_id.get(hashable(item), Found(item, *_MISSING))
            for item in self._query.ids
            if hashable(item) not in left_out
        ]

    def walk(self, connection: sqlite3.Connection) -> Iterator[list[Found]]:
        """Walk all matches in key order, in lists; a key that is no UTF-8 costs its own row only."""
        passed = 0
        try:
            for rows in self._lists(connection):
                passed += len(rows)
                yield self._all_found(rows)
            return
        except sqlite3.OperationalError as error:
            if not is_undecodable(error):
                raise
        # The same snapshot in the same order once more, in a way that reads every text.
        connection.text_factory = tolerant_text
        for rows in self._lists(connection):
            fresh = rows[passed:]
            passed = max(0, passed - len(rows))
            found = self._all_found([row for row in fresh if self._key.is_sayable(row)])
            if found:
                yield found

    def _lists(self, connection: sqlite3.Connection) -> Iterator[list[Any]]:
        cursor = connection.execute(self.walk_sql(), self.params)
        while rows := cursor.fetchmany(_FETCH):
            yield rows

    def _all_found(self, rows: list[Any]) -> list[Found]:
        native = self._key.native
        return [Found(native(row)) if row[-1] is None else self.found(native(row), row[-1]) for row in rows]

    def walk_sql(self) -> str:
        """Return the query of all matches in key order."""
        return f"{self._select()} ORDER BY {self._key.order}"

    def tally(self, connection: sqlite3.Connection) -> Tally:
        """Count matches and fit ones; for ids the missing ones are matched and unfit."""
        sql = f"SELECT count(*), count(*) FILTER (WHERE {self.unfit_sql()} IS NULL) {self._from} WHERE {self.where.sql}"
        matched, eligible = connection.execute(sql, self.params).fetchone()
        if self._query.ids is not None:
            left_out = {hashable(item) for item in self._query.exclude}
            matched = sum(hashable(item) not in left_out for item in self._query.ids)
        return Tally(matched, eligible)

    def keys_sql(self) -> str:
        """Return a subquery of the fit rows' keys."""
        fit = "" if not self._unfit else f" AND {self.unfit_sql()} IS NULL"
        return f"SELECT {self._key.select} {self._from} WHERE {self.where.sql}{fit}"

    def rows_sql(self, columns: str) -> str:
        """Return a query of the fit rows, showing ``columns``."""
        return self.keys_sql().replace(f"SELECT {self._key.select}", f"SELECT {columns}", 1)
