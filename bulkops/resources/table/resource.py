"""A table of any SQLite database as a resource: what can be done to its rows, and by which batches."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from bulkops.effects import Id, Making
from bulkops.errors import ConfigError, Halt, invalid_field
from bulkops.models import Caution, Impact
from bulkops.resources.contract import Batches, Browse, Found, ItemsPage, Query, Tally
from bulkops.resources.schema import Table, quote, read_tables
from bulkops.resources.storage import LocalStorage
from bulkops.resources.table import browsing, explaining, impacts
from bulkops.resources.table.actions import NAMES, Act, Actions
from bulkops.resources.table.batches import TableBatches
from bulkops.resources.table.bound import Bound
from bulkops.resources.table.explaining import Statement
from bulkops.resources.table.exporting import ArchiveBatches, ExportBatches
from bulkops.resources.table.filters import (
    Condition,
    TimeFormat,
    both,
    check_numbers,
    compile_filter,
    dated_columns,
    freeze,
    guess_time_format,
    place_instants,
    relative_columns,
)
from bulkops.resources.table.keys import Key
from bulkops.resources.table.layouts import layout_of, making_of
from bulkops.resources.table.selecting import Selector
from bulkops.resources.table.undo import TableUndo
from bulkops.resources.table.work import statements
from bulkops.resources.target import DeadlineError, Target
from bulkops.settings import ActionSettings, ResourceSettings

_SAMPLED_ROWS: Final = 10_000
_SAMPLED_TIMES: Final = 100
#: Items of one export where the settings say nothing.
_MAX_EXPORTED: Final = 10_000


class TableResource:
    """The `Resource` of ``kind = "table"``; usable once `open` has read the schema."""

    kind = "table"

    def __init__(
        self, name: str, settings: ResourceSettings, target: Target, storages: dict[str, LocalStorage]
    ) -> None:
        self.name = name
        self.settings = settings
        self.identity = _identity(settings, target.path)
        self._target = target
        self._storages = storages
        self._tables: dict[str, Table] = {}
        self._table: Table | None = None
        self._stale = False
        self._key: Key | None = None
        self._actions: Actions | None = None
        self._formats: dict[str, TimeFormat] = {}

    async def open(self) -> None:
        """Read the schema and check the settings against it.

        Raises:
            ConfigError: a table, column or key is not there, or cannot be what it is configured as.
            Halt: the database cannot be opened.
        """
        if self._table is not None and not self._stale:
            return
        self._stale = False
        self._tables = await self._target.read(read_tables)
        self._table = self._find_table()
        try:
            self._key = Key(self._table, self._key_columns())
        except (LookupError, ValueError) as error:
            raise ConfigError(f"resources.{self.name}.id", str(error.args[0])) from error
        self._actions = Actions(self.name, self.settings, self._table)
        self._check_columns()

    async def close(self) -> None:
        """Trust the schema no more, nor the file; the target is closed by whoever opened it."""
        self._stale = True
        self._target.accept_replacement()

    def _find_table(self) -> Table:
        wanted = self.settings.table or ""
        if wanted not in self._tables:
            known = ", ".join(sorted(self._tables)) or "none"
            raise ConfigError(
                f"resources.{self.name}.table", f"there is no table {wanted!r}; there are: {known}"
            )
        return self._tables[wanted]

    def _key_columns(self) -> list[str]:
        configured = self.settings.id
        if configured is None:
            assert self._table is not None
            return list(self._table.primary_key)
        return [configured] if isinstance(configured, str) else configured

    def _check_columns(self) -> None:
        table = self.table
        single = {"tenant": self.settings.tenant, "label": self.settings.label, "file": self.settings.file}
        wanted = [(key, name) for key, name in single.items() if name is not None]
        wanted += [(f"search[{index}]", name) for index, name in enumerate(self.settings.search)]
        wanted += [(f"set[{index}]", name) for index, name in enumerate(self.settings.set)]
        for key, name in wanted:
            try:
                table.column(name)
            except LookupError as error:
                raise ConfigError(f"resources.{self.name}.{key}", str(error.args[0])) from error
        for index, child in enumerate(self.settings.children):
            where = f"resources.{self.name}.children[{index}]"
            if child.table not in self._tables:
                raise ConfigError(f"{where}.table", f"there is no table {child.table!r}")
            columns = [child.key] if isinstance(child.key, str) else child.key
            if len(columns) != len(self.key.names):
                raise ConfigError(f"{where}.key", f"{len(self.key.names)} columns are needed, as in the key")
            for name in [*columns, *([child.file] if child.file else [])]:
                try:
                    self._tables[child.table].column(name)
                except LookupError as error:
                    raise ConfigError(f"{where}.key", str(error.args[0])) from error

    @property
    def table(self) -> Table:
        """Return the table; only after `open`."""
        assert self._table is not None
        return self._table

    @property
    def key(self) -> Key:
        """Return the key; only after `open`."""
        assert self._key is not None
        return self._key

    @property
    def actions(self) -> Actions:
        """Return the actions; only after `open`."""
        assert self._actions is not None
        return self._actions

    @property
    def target(self) -> Target:
        return self._target

    @property
    def tenanted(self) -> bool:
        return self.settings.tenant is not None

    def action_names(self) -> list[str]:
        return self.actions.names()

    def action_settings(self, action: str) -> ActionSettings:
        settings = self.settings.actions.get(action, ActionSettings())
        if action == "export" and settings.max_items is None:
            return msgspec.structs.replace(settings, max_items=_MAX_EXPORTED)
        return settings

    def option_schemas(self, action: str) -> dict[str, dict[str, Any]]:
        return self.actions.options(action)

    def is_final(self, action: str, options: dict[str, Any]) -> bool:
        return self.actions.is_final(action, options)

    def columns(self) -> list[dict[str, Any]]:
        return [
            {"name": each.name, "type": each.affinity, "filter": each.name in self.settings.search,
             "sort": each.name in self.settings.search or each.name in self.key.names}
            for each in self.table.columns
        ]  # fmt: skip

    def parse_id(self, wire: str | int) -> Id:
        return self.key.parse(wire)

    async def freeze_filter(self, filter_: dict[str, Any], now_ms: int) -> dict[str, Any]:
        compile_filter(filter_, self.table, self.settings.search)
        formats: dict[str, TimeFormat] = {}
        for name in relative_columns(filter_):
            try:
                formats[name] = await self._time_format(name)
            except ValueError as error:
                raise invalid_field(f"/filter/{name}", str(error)) from error
        for name in dated_columns(filter_):
            with suppress(ValueError):  # it holds no times: a date is a text, or no number, like any other
                formats[name] = await self._time_format(name)
        frozen = freeze(place_instants(filter_, formats), now_ms, lambda name: formats[name])
        check_numbers(frozen, self.table, {name for name, each in formats.items() if each.is_text})
        return frozen

    async def _time_format(self, name: str) -> TimeFormat:
        if name not in self._formats:
            column = self.table.column(name)
            sql = (
                f"SELECT t.{quote(name)} FROM (SELECT * FROM {quote(self.table.name)} LIMIT {_SAMPLED_ROWS}) AS t"
                f" WHERE t.{quote(name)} NOT IN (0, '') LIMIT {_SAMPLED_TIMES}"
            )
            rows = await self._target.read(lambda connection: connection.execute(sql).fetchall())
            found = guess_time_format(column, [row[0] for row in rows])
            if not rows:
                return found
            self._formats[name] = found
        return self._formats[name]

    async def check(self, query: Query) -> None:
        try:
            await self._stamp_format(query)
        except ValueError as error:
            raise invalid_field("/action", f"soft_delete: {error}") from error
        act = await self.act(query)
        if query.action in NAMES:
            await self._prepare(await self.bind(query), act)

    async def _prepare(self, bound: Bound, act: Act) -> None:
        """Let SQLite read every statement of a batch: a trigger may need a function that we do not have."""
        to = {f"to{index}": value for index, value in enumerate(act.assign.values())}
        params = bound.fit.params | to | {"ids": "[]"}

        def explain(connection: sqlite3.Connection) -> None:
            for _, sql in statements(bound):
                # Prepared, that is: what EXPLAIN would tell is not always text that can be read.
                connection.execute(f"EXPLAIN {sql}", params).close()

        try:
            await self._target.read(explain)
        except Halt as error:
            if error.code != "SCHEMA_CHANGED":
                raise
            raise invalid_field("/action", f"the database cannot do this here: {error.message}") from error

    async def act(self, query: Query) -> Act:
        """Bind the query's action to its options.

        Raises:
            Halt: (``CONFIG_CHANGED``) there is no such action any more, or no telling how it writes times.
        """
        if query.action not in self.actions.names():
            raise Halt("CONFIG_CHANGED", f"{self.name} has no action {query.action!r} any more")
        try:
            time_format = await self._stamp_format(query)
        except ValueError as error:
            raise Halt("CONFIG_CHANGED", f"soft_delete: {error}") from error
        return self.actions.build(
            query.action, query.options, stamp_ms=query.stamp_ms, time_format=time_format
        )

    async def _stamp_format(self, query: Query) -> TimeFormat | None:
        """Say how the time of a deletion is to be written, ``None`` where none is.

        Raises:
            ValueError: how the application writes times there is not known.
        """
        soft = self.actions.soft
        if soft is None or not soft.timestamp or query.action != "delete" or query.options.get("hard"):
            return None
        return await self._time_format(soft.column.name)

    def tenant_condition(self, tenant: str | None) -> Condition:
        """Return the condition of the tenant's rows; without a tenant all rows. NULL belongs to nobody."""
        name = self.settings.tenant
        if tenant is None or name is None:
            return Condition("1", {})
        column = self.table.column(name)
        value: str | int = tenant
        if column.affinity in ("integer", "numeric", "real"):
            canonical = tenant.lstrip("-").isdigit() and str(int(tenant)) == tenant
            if not canonical:
                return Condition("0", {})
            value = int(tenant)
        return Condition(f"t.{quote(name)} = :tenant COLLATE BINARY", {"tenant": value})

    async def selector(self, query: Query) -> Selector:
        """Bind a query to the table."""
        act = await self.act(query)
        scope = both(
            self.tenant_condition(query.tenant),
            compile_filter(query.filter, self.table, self.settings.search),
        )
        return Selector(self.table, self.key, act, scope, query)

    async def bound(self) -> str | int | None:
        column = self.table.rowid or (self.key.names[0] if self.key.single else None)
        if column is None:
            return None
        sql = f"SELECT max({quote(column)}) FROM {quote(self.table.name)}"
        row = await self._target.read(lambda connection: connection.execute(sql).fetchone())
        value = row[0]
        return value if isinstance(value, (int, str)) else None

    async def select(self, query: Query, limit: int) -> list[Found]:
        selector = await self.selector(query)
        return await self._target.read(lambda connection: selector.first(connection, limit))

    async def tally(self, query: Query, deadline_s: float) -> Tally:
        selector = await self.selector(query)
        try:
            return await self._target.read(selector.tally, deadline_s=deadline_s)
        except DeadlineError:
            return Tally(None, None)

    async def manifest(self, query: Query) -> AsyncGenerator[list[Found], None]:
        selector = await self.selector(query)
        async with self._target.snapshot() as database:
            walk = await database.run(selector.walk)
            while found := await database.run(lambda _: next(walk, None)):
                yield found

    async def impact(self, query: Query, deadline_s: float) -> tuple[Impact, list[Caution]]:
        selector = await self.selector(query)
        bound = await self.bind(query)
        return await impacts.measure(self._target, bound, selector, deadline_s)

    async def sample(self, query: Query, limit: int) -> list[dict[str, Any]]:
        selector = await self.selector(query)
        return await self._target.read(lambda connection: browsing.rows(connection, selector, limit))

    async def browse(self, browse: Browse) -> ItemsPage:
        scope = both(
            self.tenant_condition(browse.tenant),
            compile_filter(browse.filter, self.table, self.settings.search),
        )
        act = None
        if self.table.kind == "table":
            act = self.actions.build("delete", {}, stamp_ms=0, time_format=None)
        view = browsing.View(
            self.table, self.key, self.actions.soft, act, self.settings.label, self.settings.search
        )
        return await self._target.read(lambda connection: browsing.page(connection, view, scope, browse))

    async def counts(self, tenant: str | None, deadline_s: float) -> dict[str, Any]:
        status = self.settings.status.column if self.settings.status else None
        scope = self.tenant_condition(tenant)
        try:
            return await self._target.read(
                lambda connection: browsing.counts(connection, self.table, scope, self.actions.soft, status),
                deadline_s=deadline_s,
            )
        except DeadlineError:
            return {"total": None, "by_status": None, "deleted": None}

    async def bind(self, query: Query) -> Bound:
        """Bind the query's action to all that its batches need to know."""
        tenant = self.tenant_condition(query.tenant)
        return Bound(
            resource=self.name,
            target=self._target,
            tables=dict(self._tables),
            table=self.table,
            key=self.key,
            act=await self.act(query),
            scope=both(tenant, compile_filter(query.filter, self.table, self.settings.search)),
            tenant=tenant,
            label=self.settings.label,
            own_file=self.settings.file,
            storages=self._storages,
            ledger=self.settings.ledger == "app",
            foreign_keys=self.settings.foreign_keys,
        )

    async def batches(self, query: Query, *, undo: bool) -> Batches:
        bound = await self.bind(query)
        layout = layout_of(query.action, query.options, self.settings.children)
        if undo:
            return TableUndo(bound)
        if layout is None:
            return TableBatches(bound)
        return ExportBatches(bound, layout) if bound.act.reads else ArchiveBatches(bound, layout)

    def making(self, action: str, options: dict[str, Any]) -> Making | None:
        layout = layout_of(action, options, self.settings.children)
        return None if layout is None else making_of(self.name, action, layout)

    def auto_hold(self) -> float:
        return self._target.auto_hold()

    def auto_gap(self, hold_s: float) -> float:
        return self._target.auto_gap(hold_s)

    async def explain(self, query: Query) -> list[Statement]:
        """Return the statements of a job, each with SQLite's plan for it; nothing is run.

        Raises:
            Halt: the database cannot be read now.
        """
        bound, tenant = await self.bind(query), self.settings.tenant
        walks: dict[str | None, Selector] = {None: await self.selector(query)}
        for column in self.settings.search:
            value = 1 if self.table.column(column).affinity == "integer" else "x"
            walks[column] = await self.selector(msgspec.structs.replace(query, filter={column: value}))
        return await self._target.read(
            lambda connection: explaining.explain(connection, bound, walks, tenant)
        )

    async def shared_paths(self, storage: str, paths: Sequence[bytes]) -> set[bytes]:
        """Return which of the paths another row still names: those files stay.

        Raises:
            Halt: the database cannot be read now.
        """
        table, column = self._file_column(storage)
        return await self._target.read(lambda connection: _named_by_rows(connection, table, column, paths))

    async def shared_folders(self, storage: str, names: Sequence[bytes], *, below: bytes = b"") -> set[bytes]:
        """Return which of the folders directly ``below`` the root, or a folder of it, hold a file that a row names.

        Raises:
            Halt: the database cannot be read now.
        """
        table, column = self._file_column(storage)
        return await self._target.read(
            lambda connection: _above_named(connection, table, column, names, below)
        )

    def _file_column(self, storage: str) -> tuple[str, str]:
        if storage == self.name and self.settings.file is not None:
            return self.table.name, self.settings.file
        for child in self.settings.children:
            if child.file is not None and storage == f"{self.name}.{child.table}":
                return child.table, child.file
        raise Halt("CONFIG_CHANGED", f"storage {storage!r} is not configured any more")


def _named_by_rows(
    connection: sqlite3.Connection, table: str, column: str, paths: Sequence[bytes]
) -> set[bytes]:
    name = f"t.{quote(column)}"
    found: set[bytes] = set()
    for start in range(0, len(paths), 300):
        chunk = paths[start : start + 300]
        # A path may be stored as text or as the bytes it is.
        marks = ", ".join(["CAST(? AS TEXT), ?"] * len(chunk))
        sql = f"SELECT DISTINCT CAST({name} AS BLOB) FROM {quote(table)} AS t WHERE {name} IN ({marks})"
        both = [each for path in chunk for each in (path, path)]
        found |= {row[0] for row in connection.execute(sql, both)}
    return found


def _above_named(
    connection: sqlite3.Connection, table: str, column: str, names: Sequence[bytes], below: bytes
) -> set[bytes]:
    wanted = set(names)
    whole = f"CAST(t.{quote(column)} AS BLOB)"
    path = f"substr({whole}, {len(below) + 1})"
    sql = (
        f"SELECT DISTINCT substr({path}, 1, instr({path}, X'2F') - 1) FROM {quote(table)} AS t"
        f" WHERE instr({path}, X'2F') > 1 AND substr({whole}, 1, {len(below)}) = :below"
    )
    return {row[0] for row in connection.execute(sql, {"below": below}) if row[0] in wanted}


def _identity(settings: ResourceSettings, path: Path) -> str:
    parts = [
        settings.kind, str(path), settings.table, settings.id, settings.tenant, settings.root,
        [msgspec.structs.asdict(child) for child in settings.children],
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]
