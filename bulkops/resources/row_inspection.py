"""What is wrong, missing or slow about a resource whose items are rows.

What comes in: a connection that only reads, all tables, one resource's settings; what goes out: remarks.
No row is changed: statements are prepared with EXPLAIN, never run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from bulkops.errors import did_you_mean
from bulkops.places import KeyPath
from bulkops.resources.findings import Remark, error, note, warning
from bulkops.resources.photos.rows import BASES, explain_key
from bulkops.resources.probe import (
    count_broken_links,
    delete_sql,
    has_null,
    insert_sql,
    is_about_schema,
    some_words,
    try_statement,
    value_kinds,
)
from bulkops.resources.schema import ForeignKey, Table, quote, read_collation
from bulkops.resources.table.actions import NAMES, SoftDelete
from bulkops.resources.table.keys import Key
from bulkops.settings import ChildSettings, ResourceSettings, as_tuple

#: Columns that a photos resource works on.
_PHOTO_COLUMNS: Final = ("project", "keep_jpg", "jpg_available", "keep_raw", "raw_available")
_ACTIONS: Final = (*NAMES, "export")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at: ``path`` is the resource's place in the file."""

    connection: sqlite3.Connection
    tables: dict[str, Table]
    path: KeyPath
    resource: ResourceSettings

    @property
    def table(self) -> Table:
        return self.tables[self.resource.table or ""]

    def at(self, *keys: str | int) -> KeyPath:
        return (*self.path, *keys)


def inspect_rows(view: View) -> Iterator[Remark]:
    """Inspect a resource of kind ``table``; what later checks need comes first.

    Raises:
        sqlite3.Error: a question could not be asked.

    """
    found = [*_find_table(view)]
    if not found:
        found = [*_find_columns(view), *_find_children(view)]
    yield from found
    if any(severity == "error" for severity, _, _ in found) or view.resource.table not in view.tables:
        return
    yield from _guarded(view, _inspect_key)
    if view.table.kind == "view":
        yield note(view.at("table"), "a view is read-only: its rows can be looked at and exported, no more")
        return
    for check in _CHECKS:
        yield from _guarded(view, check)


def _guarded(view: View, check: Callable[[View], Iterator[Remark]]) -> Iterator[Remark]:
    """Let what SQLite cannot do with this table be a finding, and the other checks go on."""
    try:
        yield from check(view)
    except sqlite3.OperationalError as fault:
        if not is_about_schema(fault):
            raise
        yield error(view.at("table"), f"SQLite cannot work with it: {fault}")


def inspect_photos(view: View) -> Iterator[Remark]:
    """Inspect a resource of kind ``photos``: its table and the columns that mirror the files."""
    found = [*_find_table(view)]
    yield from found
    if found:
        return
    known = [column.name for column in view.table.columns]
    for name in _PHOTO_COLUMNS:
        if name not in known:
            yield error(view.at("table"), f'it needs a column "{name}"{did_you_mean(name, known)}')
    base = next((name for name in BASES if name in known), None)
    if base is None:
        yield error(view.at("table"), 'it needs a column "base" or "name": a photo without its ending')
        return
    key = as_tuple(view.resource.id or ()) or view.table.primary_key
    if (why := explain_key(key, base)) is not None:
        yield error(view.at("id"), why)


# --- do the names exist ----------------------------------------------------------------------------------


def _find_table(view: View) -> Iterator[Remark]:
    name = view.resource.table or ""
    table = view.tables.get(name)
    if table is None:
        yield error(view.at("table"), f'there is no table "{name}"{did_you_mean(name, view.tables)}')
    elif table.kind == "virtual":
        yield error(view.at("table"), f'"{name}" is a virtual table: its rows belong to a module of SQLite')
    elif not table.columns:
        yield error(view.at("table"), f'the view "{name}" cannot be read: what it is made of is gone')
    elif name.lower().startswith("_bulkops_"):
        yield error(view.at("table"), f'"{name}" is a table of bulkops itself')


def _named_columns(view: View) -> Iterator[tuple[KeyPath, str]]:
    resource = view.resource
    yield from ((view.at("id"), name) for name in as_tuple(resource.id or ()))
    for key in ("tenant", "label", "soft_delete", "file"):
        if (name := getattr(resource, key)) is not None:
            yield view.at(key), name
    if resource.status is not None:
        yield view.at("status", "column"), resource.status.column
    for key in ("search", "set"):
        yield from ((view.at(key), name) for name in getattr(resource, key))
    yield from ((view.at("protect", name), name) for name in resource.protect)


def _find_columns(view: View) -> Iterator[Remark]:
    for path, name in _named_columns(view):
        try:
            view.table.column(name)
        except LookupError as fault:
            yield error(path, str(fault))


def _find_children(view: View) -> Iterator[Remark]:
    for place, child in enumerate(view.resource.children):
        path = view.at("children", place)
        table = view.tables.get(child.table)
        if table is None:
            hint = did_you_mean(child.table, view.tables)
            yield error((*path, "table"), f'there is no table "{child.table}"{hint}')
        elif table.kind != "table":
            yield error((*path, "table"), f'"{child.table}" is a {table.kind}; rows go from tables only')
        else:
            yield from _find_child_columns(path, table, child)


def _find_child_columns(path: KeyPath, table: Table, child: ChildSettings) -> Iterator[Remark]:
    names = [("key", name) for name in as_tuple(child.key)] + ([("file", child.file)] if child.file else [])
    for key, name in names:
        try:
            table.column(name)
        except LookupError as fault:
            yield error((*path, key), str(fault))


# --- what a row is, and whose ----------------------------------------------------------------------------


def _inspect_key(view: View) -> Iterator[Remark]:
    table, names, path = view.table, as_tuple(view.resource.id or ()), view.at("id")
    try:
        Key(table, list(names))
    except ValueError as fault:
        yield error(path, str(fault))
        return
    if table.kind == "table" and not _is_unique(table, names):
        yield error(path, f"{_columns(names)} is no unique key: one id could name several rows")
    for name in names:
        if name != table.integer_key:
            yield from _inspect_key_column(view, name)


def _is_unique(table: Table, names: tuple[str, ...]) -> bool:
    if table.primary_key and set(table.primary_key) <= set(names):
        return True
    return any(
        index.unique and not index.partial and set(index.columns) <= set(names) for index in table.indexes
    )


def _inspect_key_column(view: View, name: str) -> Iterator[Remark]:
    table, path = view.table, view.at("id")
    column = table.column(name)
    if column.affinity == "real":
        yield error(path, f'"{name}" is {column.declared}: floating-point numbers are no ids')
        return
    kinds = value_kinds(view.connection, table, name)
    if kinds is None:
        yield note(path, f'too many rows to look at every "{name}"')
    elif kinds & {"blob", "real"}:
        yield error(path, f'"{name}" holds {" and ".join(sorted(kinds))}; ids are integers or texts')
    elif len(kinds) > 1:
        yield warning(path, f'"{name}" holds numbers and texts; an id reaches only those of one kind')
    if not column.notnull and has_null(view.connection, table, name):
        yield error(path, f'"{name}" is NULL in some rows: no id could name them')
    yield from _inspect_collation(view, path, name, "ids that differ only in {} may be taken for one")


def _inspect_collation(view: View, path: KeyPath, name: str, consequence: str) -> Iterator[Remark]:
    collation = read_collation(view.connection, view.table.name, name)
    if collation == "OTHER":
        yield error(path, f'"{name}" compares by a collation of the application\'s own')
    elif collation != "BINARY":
        what = "case" if collation == "NOCASE" else "blanks at their end"
        yield warning(path, f'"{name}" compares by {collation}: {consequence.format(what)}')


def _inspect_tenant(view: View) -> Iterator[Remark]:
    name = view.resource.tenant
    if name is None:
        return
    path = view.at("tenant")
    if view.table.column(name).affinity in {"real", "blob"}:
        yield warning(
            path, f'"{name}" is {view.table.column(name).declared or "of no type"}; a tenant is a text'
        )
    if has_null(view.connection, view.table, name):
        yield note(
            path,
            f'"{name}" is NULL in some rows: they belong to nobody, only callers without tenant see them',
        )
    yield from _inspect_collation(view, path, name, "tenants are told apart by {} all the same")
    yield from _inspect_index(view, path, name, "each question of a tenant's reads the whole table")


def _inspect_index(view: View, path: KeyPath, name: str, consequence: str) -> Iterator[Remark]:
    table = view.table
    if table.index_on(name) is None and name != table.integer_key:
        yield note(path, f'"{name}" has no index: {consequence}; {create_index(table.name, (name,))}')


def create_index(table: str, columns: tuple[str, ...]) -> str:
    """Write the statement that makes the index which is missing."""
    name = "_".join([table, *columns])
    return f"CREATE INDEX {quote(name)} ON {quote(table)} ({', '.join(quote(column) for column in columns)})"


# --- what actions change ---------------------------------------------------------------------------------


def _inspect_soft_delete(view: View) -> Iterator[Remark]:
    name = view.resource.soft_delete
    if name is None:
        return
    path, soft = view.at("soft_delete"), SoftDelete.of(view.table, name)
    if soft.column.generated:
        yield error(path, f'"{name}" is generated: nobody can set it')
    if soft.timestamp and soft.column.notnull:
        yield error(
            path, f'"{name}" is taken for the time of deletion, but NOT NULL: every row would be deleted'
        )
    kinds = value_kinds(view.connection, view.table, name) or frozenset()
    if soft.timestamp and kinds == {"integer"}:
        yield note(path, f'"{name}" holds numbers: times are written as bulkops finds them there')
    if not soft.timestamp and "text" in kinds and soft.column.affinity != "text":
        yield error(path, f'"{name}" is taken for a flag, but holds texts')


def _inspect_status(view: View) -> Iterator[Remark]:
    status = view.resource.status
    if status is None:
        return
    if view.table.column(status.column).generated:
        yield error(view.at("status", "column"), f'"{status.column}" is generated: nobody can set it')
    words = some_words(view.connection, view.table, status.column)
    if not words:
        return
    named = [("closed", status.closed), ("archived", status.archived)]
    for key, word in [*named, *(("busy", word) for word in status.busy)]:
        if word is not None and word not in words:
            hint = did_you_mean(word, words)
            weight = warning if hint else note
            yield weight(view.at("status", key), f"{word!r} was not found in the data{hint}")


def _inspect_search(view: View) -> Iterator[Remark]:
    for name in view.resource.search:
        yield from _inspect_index(view, view.at("search"), name, "a filter by it reads the whole table")


def _inspect_set(view: View) -> Iterator[Remark]:
    unique = {name for index in view.table.indexes if index.unique for name in index.columns}
    for name in view.resource.set:
        if view.table.column(name).generated:
            yield error(view.at("set"), f'"{name}" is generated: nobody can set it')
        if name in unique:
            yield warning(
                view.at("set"), f'"{name}" is part of a unique index: one value for many rows fails'
            )


def _inspect_generated(view: View) -> Iterator[Remark]:
    names = [column.name for column in view.table.columns if column.generated]
    if names:
        yield note(view.path, f"{_columns(names)}: generated; an undo lets the database work them out again")


def _inspect_children(view: View) -> Iterator[Remark]:
    for place, child in enumerate(view.resource.children):
        table, key = view.tables[child.table], as_tuple(child.key)
        path = view.at("children", place)
        if not _has_index(table, key):
            yield warning(
                (*path, "key"),
                f'no index on {_columns(key)}: every batch reads all of "{table.name}"; '
                f"{create_index(table.name, key)}",
            )
        if not any(
            set(link.columns) == set(key) for link in view.table.referenced_by if link.table == table.name
        ):
            yield note((*path, "key"), f"no foreign key says that {_columns(key)} points at these rows")
        yield from _explain(view, (*path, "table"), "deleted", delete_sql(table))


def _has_index(table: Table, columns: tuple[str, ...]) -> bool:
    if columns == (table.integer_key,):
        return True
    wanted = set(columns)
    return any(not index.partial and set(index.columns[: len(wanted)]) == wanted for index in table.indexes)


# --- what else happens to the database -------------------------------------------------------------------


def _inspect_links(view: View) -> Iterator[Remark]:
    table, resource = view.table, view.resource
    if not table.foreign_keys and not table.referenced_by:
        return
    path = view.at("foreign_keys")
    if not resource.foreign_keys:
        yield warning(
            path, "off while the tables have foreign keys: no cascades, and orphans may be left behind"
        )
    for name in dict.fromkeys([table.name, *(link.table for link in table.referenced_by)]):
        yield from _inspect_broken(view, path, name)
    children = {child.table for child in resource.children}
    for link in table.referenced_by:
        yield from _inspect_reference(view, link, is_child=link.table in children)


def _inspect_broken(view: View, path: KeyPath, name: str) -> Iterator[Remark]:
    try:
        count = count_broken_links(view.connection, name)
    except sqlite3.OperationalError as fault:
        yield error(path, f'the foreign keys of "{name}" do not fit: {fault}')
        return
    if count is None:
        yield note(path, f'"{name}" has too many rows to check its foreign keys here')
    elif count:
        yield warning(
            path, f'"{name}" breaks its foreign keys already (PRAGMA foreign_key_check shows {count})'
        )


def _inspect_reference(view: View, link: ForeignKey, *, is_child: bool) -> Iterator[Remark]:
    if not view.resource.foreign_keys:
        return
    child, path = view.tables.get(link.table), view.at("foreign_keys")
    if child is not None and not _has_index(child, link.columns):
        yield warning(
            path,
            f'each delete reads all of "{link.table}" to keep its foreign key: '
            f"{create_index(link.table, link.columns)}",
        )
    if not is_child and link.on_delete in {"NO ACTION", "RESTRICT"}:
        done = "purged" if view.resource.soft_delete else "deleted"
        yield note(path, f'rows that "{link.table}" points at are not {done}: they fail as CONSTRAINT')


def _inspect_triggers(view: View) -> Iterator[Remark]:
    for trigger in view.table.triggers:
        yield note(
            view.at("table"),
            f'trigger "{trigger.name}" runs {trigger.timing} {trigger.event}; no undo undoes what it did',
        )


def _inspect_statements(view: View) -> Iterator[Remark]:
    """Have SQLite prepare what actions will run: functions, collations and modules it lacks show here."""
    table, resource = view.table, view.resource
    view.connection.execute(f"PRAGMA foreign_keys = {int(resource.foreign_keys)}")
    yield from _explain(view, view.at("table"), "deleted", delete_sql(table))
    changed = [resource.soft_delete, resource.status.column if resource.status else None, *resource.set]
    names = [name for name in dict.fromkeys(changed) if name and not table.column(name).generated]
    if names:
        assign = ", ".join(f"{quote(name)} = NULL" for name in names)
        yield from _explain(
            view, view.at("table"), "changed", f"UPDATE main.{quote(table.name)} SET {assign}"
        )
    yield from _explain(view, view.at("table"), "put back by an undo", insert_sql(table))


def _explain(view: View, path: KeyPath, what: str, sql: str) -> Iterator[Remark]:
    complaint = try_statement(view.connection, sql)
    if complaint is not None:
        yield error(path, f"its rows cannot be {what} by bulkops: {complaint}")


def _inspect_actions(view: View) -> Iterator[Remark]:
    status = view.resource.status
    missing = {
        "close": "status.closed" if status is None or status.closed is None else "",
        "archive": "status.archived" if status is None or status.archived is None else "",
        "set": "" if view.resource.set else "set",
        "restore": "" if view.resource.soft_delete else "soft_delete",
        "purge": "" if view.resource.soft_delete else "soft_delete",
    }
    for name in view.resource.actions:
        if missing.get(name):
            yield warning(view.at("actions", name), f"there is no such action without {missing[name]!r}")
        elif name not in _ACTIONS and (hint := did_you_mean(name, _ACTIONS)):
            yield warning(view.at("actions", name), f"no built-in action is called that{hint}")


def _columns(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_CHECKS: Final = (
    _inspect_tenant,
    _inspect_soft_delete,
    _inspect_status,
    _inspect_search,
    _inspect_set,
    _inspect_generated,
    _inspect_statements,
    _inspect_children,
    _inspect_links,
    _inspect_triggers,
    _inspect_actions,
)
