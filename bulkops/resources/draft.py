"""A first bulkops.toml for a database never seen before.

What comes in: the path of an application's database; what goes out: the text of a configuration that works
unedited, with the reasons as comments. What could take more than the row itself, or could be a wrong
guess about whose a row is, is written as a comment only. It reads through SQLite, and changes nothing.
"""

from __future__ import annotations

import os
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from bulkops.errors import ConfigError
from bulkops.mistakes import explain_segment
from bulkops.operations import MAINTENANCE
from bulkops.places import quote_key, quote_text
from bulkops.resources.probe import (
    count_broken_links,
    delete_sql,
    has_null,
    insert_sql,
    is_about_schema,
    read_schema,
    reading,
    some_words,
    try_statement,
    value_kinds,
)
from bulkops.resources.schema import Column, ForeignKey, Table, quote
from bulkops.resources.table.actions import SoftDelete

_MAX_SEARCH: Final = 12
_SOFT_DELETE: Final = ("deleted_at", "deleted_on", "is_deleted", "deleted")
_MAYBE_SOFT_DELETE: Final = ("archived_at", "removed_at", "is_removed", "trashed_at", "discarded_at")
_TENANT: Final = (
    *("tenant_id", "tenant", "business_id", "organization_id", "organisation_id", "org_id"),
    *("account_id", "company_id", "workspace_id"),
)
_LABEL: Final = (
    *("label", "name", "title", "full_name", "display_name", "number", "subject", "username", "email"),
    *("filename", "file_name", "slug", "code", "sku", "reference", "description"),
)
_LABEL_END: Final = re.compile(r"_(name|title|number|path)$")
_MOMENT: Final = re.compile(
    r"(^|_)(created|updated|modified|date|timestamp)($|_(at|on|date|time)$)|_(at|date)$"
)
_FILE: Final = re.compile(r"(^|_)(path|file|filename|filepath|file_name)$")
_SECRET: Final = re.compile(r"(^|_)(password|passwd|secret|token|hash|salt|api_key|private_key)($|_)")
_CLOSED: Final = frozenset({"closed", "close", "done", "complete", "completed", "finished", "resolved"})
_ARCHIVED: Final = frozenset({"archived", "archive"})
_BUSY: Final = frozenset(
    {"processing", "running", "in_progress", "uploading", "importing", "busy", "syncing"}
)
_CODE_SIDE: Final = re.compile(r"[\w.~-]+")

_HEADER: Final = """\
# Written by `bulkops init` from {source}: a first draft, every line of it yours to change.
# `bulkops check` holds it against the database and says what is wrong, missing or slow.
#
# - A resource without `tenant` is for callers without a tenant only; `shared = true` opens it to all.
# - Deleted rows can be brought back for `trash_days`: where a table has no `soft_delete` column,
#   they wait in bulkops' own trash.
# - ledger: "own" puts nothing of bulkops into the application's database; "app" keeps two small
#   tables there, _bulkops_ledger and _bulkops_outbox, and is faster. Both survive a crash.

[server]
database = {own}
data_dir = "bulkops-data"
# host = "127.0.0.1"
# port = 8765
# workers = 4
# trash_days = 30
"""


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A table that becomes a resource."""

    name: str
    table: Table
    key: tuple[str, ...]
    database: str


class _UnfitError(Exception):
    """A table becomes no resource, and this is why."""


def draft(database: Path, base: Path | None = None) -> str:
    """Write a configuration for ``database``, to be saved in the folder ``base`` (default: the current one).

    Raises:
        ConfigError: (naming the path) the file is missing, empty, no SQLite database, or has no table.

    """
    place = os.path.relpath(database, base or Path.cwd())
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in place):
        raise ConfigError(ascii(str(database)), "its path cannot be written into a configuration")
    with reading(database) as connection:
        tables = {name: table for name, table in read_schema(connection).items() if not _is_ours(name)}
        if not tables:
            raise ConfigError(str(database), "has no tables: let the application make them first")
        return _write(connection, place, list(tables.values()))


def _is_ours(name: str) -> bool:
    return name.lower().startswith("_bulkops_")


def _write(connection: sqlite3.Connection, place: str, tables: list[Table]) -> str:
    own = "bulkops.db" if os.path.basename(place) != "bulkops.db" else "bulkops-jobs.db"
    parts = [_HEADER.format(source=quote_text(place), own=quote_text(own))]
    left_out: list[str] = []
    taken = {MAINTENANCE}
    for table in tables:
        name = _find_name(table.name, taken)
        try:
            subject = _Subject(name=name, table=table, key=_find_key(connection, table), database=place)
            parts.append("\n".join(_resource(connection, subject)) + "\n")
            taken.add(name)
        except _UnfitError as reason:
            left_out.append(f"# - {table.kind} {quote_text(table.name)}: {reason}")
    if left_out:
        parts.append("\n".join(["# Left out:", *left_out]) + "\n")
    # A name in a comment may hold bytes that are no UTF-8; names in settings never do.
    return "\n".join(parts).encode("utf-8", "backslashreplace").decode()


def _find_name(table: str, taken: set[str]) -> str:
    """Call the resource like its table where that can stand in a URL as it is."""
    name = table
    if not _CODE_SIDE.fullmatch(table) or explain_segment(table):
        name = re.sub(r"[^\w.~]+", "-", table).strip("-.")[:80] or "table"
    number, wanted = 1, name
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


# --- what a row is ---------------------------------------------------------------------------------------


def _find_key(connection: sqlite3.Connection, table: Table) -> tuple[str, ...]:
    """Return the columns that name a row.

    Raises:
        _UnfitError: there are none, or the table is none to act on.

    """
    if table.kind == "view":
        raise _UnfitError("a view is read-only")
    if table.kind == "virtual":
        raise _UnfitError("its rows belong to a module of SQLite")
    if "" in {table.name, *(column.name for column in table.columns)}:
        raise _UnfitError("it has an empty name in it")
    complaint = _find_complaint(connection, table)
    if complaint is not None:
        raise _UnfitError(f"the SQLite of bulkops cannot work with it: {complaint}")
    candidates = _key_candidates(table)
    reasons = [_explain_key(connection, table, key) for key in candidates]
    if None in reasons:
        return candidates[reasons.index(None)]
    reason = "it has no primary key, and no unique index over columns that are NOT NULL"
    raise _UnfitError(reasons[0] if reasons else reason)


def _find_complaint(
    connection: sqlite3.Connection, table: Table, *, foreign_keys: bool = False
) -> str | None:
    """Return what SQLite says against deleting rows and putting them back, ``None`` when it does not."""
    listed = ", ".join(f"t.{quote(column.name)}" for column in table.columns)
    ordered = f"SELECT {listed} FROM main.{quote(table.name)} AS t ORDER BY {listed}"
    connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
    complaints = (try_statement(connection, sql) for sql in (delete_sql(table), insert_sql(table), ordered))
    return next((quote_text(complaint) for complaint in complaints if complaint is not None), None)


def _key_candidates(table: Table) -> list[tuple[str, ...]]:
    candidates = [table.primary_key] if table.primary_key else []
    full = [index for index in table.indexes if index.unique and not index.partial]
    for index in sorted(full, key=lambda index: len(index.columns)):
        named = tuple(name for name in index.columns if name is not None)
        if len(named) == len(index.columns) and all(table.column(name).notnull for name in named):
            candidates.append(named)
    return candidates


def _explain_key(connection: sqlite3.Connection, table: Table, key: tuple[str, ...]) -> str | None:
    if key == (table.integer_key,):
        return None
    for name in key:
        column, shown = table.column(name), quote_text(name)
        if column.affinity == "real" or (column.affinity == "blob" and column.declared):
            return f"its key column {shown} is {column.declared}; ids are integers or texts"
        if not column.notnull and has_null(connection, table, name) is not False:
            return f"its key column {shown} holds NULL in some rows"
        kinds = value_kinds(connection, table, name)
        if kinds is None or len(kinds) > 1 or kinds & {"blob", "real"}:
            return f"its key column {shown} holds {' and '.join(sorted(kinds or {'too many values'}))}"
    return None


# --- one resource ----------------------------------------------------------------------------------------


def _resource(connection: sqlite3.Connection, subject: _Subject) -> Iterator[str]:
    table = subject.table
    yield f"[resources.{quote_key(subject.name)}]"
    yield 'kind = "table"'
    yield f"database = {quote_text(subject.database)}"
    yield f"table = {quote_text(table.name)}"
    yield f"id = {_list(subject.key) if len(subject.key) > 1 else quote_text(subject.key[0])}"
    yield from _tenant_lines(table)
    label = _find_label(table)
    if label:
        yield f"label = {quote_text(label)}"
    soft = _find_soft_delete(table)
    yield from _soft_delete_lines(table, soft)
    status, status_lines = _status(connection, table)
    yield from status_lines
    search = [name for name in _find_search(subject, label, status) if name != soft]
    if soft is not None and SoftDelete.of(table, soft).timestamp:
        search.append(soft)  # a purge goes by how long ago that was
    yield from _search_lines(subject, search)
    if status:
        yield f"# set = {_list([status])}"
    yield from _foreign_key_lines(connection, table)
    yield 'ledger = "own"'
    yield from _file_lines(table, subject.name)
    yield from _trigger_lines(table)
    for link in table.referenced_by:
        yield from _link_lines(subject, link, verb="be deleted" if soft is None else "be purged")
    yield ""
    yield f"[resources.{quote_key(subject.name)}.actions.delete]"
    yield '# confirm = "DELETE"'


def _list(names: Iterable[str]) -> str:
    return f"[{', '.join(quote_text(name) for name in names)}]"


def plain(name: str) -> str:
    """Write a name the way names are compared here: ``BusinessId`` is ``business_id``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower())


def _first_of(table: Table, wanted: Iterable[str]) -> str | None:
    known = {plain(column.name): column.name for column in reversed(table.columns)}
    return next((known[name] for name in wanted if name in known), None)


def _tenant_lines(table: Table) -> Iterator[str]:
    found = [column for column in table.columns if plain(column.name) in _TENANT]
    found = [column for column in found if table.primary_key != (column.name,)]
    if not found:
        return
    column = found[0]
    settled = column.notnull or column.pk or table.index_on(column.name) is not None
    typed = column.affinity in {"integer", "text"}
    if len(found) == 1 and settled and typed:
        yield "# Whose row it is, by its name. Callers with a tenant see only theirs, those without one all."
        yield f"tenant = {quote_text(column.name)}"
        return
    yield "# If one of these says whose row it is, name it: callers with a tenant then see only theirs."
    for column in found:
        yield f"# tenant = {quote_text(column.name)}"


def _find_label(table: Table) -> str | None:
    texts = [column for column in table.columns if column.affinity == "text"]
    named = _first_of(table, _LABEL)
    if named is not None and table.column(named).affinity != "blob":
        return named
    return next((column.name for column in texts if _LABEL_END.search(plain(column.name))), None)


def _find_soft_delete(table: Table) -> str | None:
    """Return the column that marks a row as deleted, where name and type leave no doubt."""
    name = _first_of(table, _SOFT_DELETE)
    if name is None or table.column(name).generated or table.column(name).pk:
        return None
    soft = SoftDelete.of(table, name)
    if soft.timestamp:
        return None if soft.column.notnull else name
    return name if soft.column.affinity in {"integer", "numeric"} else None


def _soft_delete_lines(table: Table, soft: str | None) -> Iterator[str]:
    if soft is not None:
        what = "the time it was deleted" if SoftDelete.of(table, soft).timestamp else "a flag"
        yield f"soft_delete = {quote_text(soft)}  # {what}; the row stays until it is purged"
        return
    maybe = _first_of(table, (*_SOFT_DELETE, *_MAYBE_SOFT_DELETE))
    if maybe is not None:
        yield f"# soft_delete = {quote_text(maybe)}  # if this is how the application marks deleted rows"


def _status(connection: sqlite3.Connection, table: Table) -> tuple[str | None, list[str]]:
    """Return the status column and the lines for it, none where there is no such column."""
    name = _first_of(table, ("status", "state"))
    if name is None or table.column(name).affinity != "text" or table.column(name).generated:
        return None, []
    words = some_words(connection, table, name) or []
    shown = {word: re.sub(r"[\s-]+", "_", word.strip().lower()) for word in words if word.isprintable()}
    closed = next((word for word, known in shown.items() if known in _CLOSED), None)
    archived = next((word for word, known in shown.items() if known in _ARCHIVED), None)
    busy = [word for word, known in shown.items() if known in _BUSY]
    if plain(name) == "state" and not (closed or archived or busy):
        return None, []  # a state of the union, as likely as not
    parts = [f"column = {quote_text(name)}"]
    parts += [f"closed = {quote_text(closed)}"] if closed else []
    parts += [f"archived = {quote_text(archived)}"] if archived else []
    parts += [f"busy = {_list(busy)}"] if busy else []
    return name, [*_missing_words(closed, archived), f"status = {{ {', '.join(parts)} }}"]


def _missing_words(closed: str | None, archived: str | None) -> list[str]:
    missing = [name for name, word in (("closed", closed), ("archived", archived)) if word is None]
    if not missing:
        return []
    actions = " and ".join({"closed": "close", "archived": "archive"}[name] for name in missing)
    keys = ", ".join(f'{name} = "…"' for name in missing)
    return [f"# No word for it was found in the data; add {keys} to have {actions}."]


def _find_search(subject: _Subject, label: str | None, status: str | None) -> list[str]:
    """Choose the columns for filters: label, status, moments, and what an index begins with."""
    table = subject.table
    moments = [column.name for column in table.columns if _MOMENT.search(plain(column.name))]
    indexed = [index.columns[0] for index in table.indexes if not index.partial]
    wanted = [label, status, *moments, *indexed]
    chosen = [name for name in dict.fromkeys(wanted) if name and _is_searchable(table.column(name))]
    if len(subject.key) == 1:
        chosen = [name for name in chosen if name != subject.key[0] or name == label]
    return chosen[:_MAX_SEARCH]


def _search_lines(subject: _Subject, chosen: list[str]) -> Iterator[str]:
    """Name the columns for filters; where none suggests itself, those there are, to choose from."""
    if chosen:
        yield f"search = {_list(chosen)}"
        return
    names = [column.name for column in subject.table.columns if _is_searchable(column)]
    others = [name for name in names if name not in subject.key][:_MAX_SEARCH]
    if others:
        yield f"# search = {_list(others)}  # columns that filters may use"


def _is_searchable(column: Column) -> bool:
    return "BLOB" not in column.declared.upper() and not _SECRET.search(plain(column.name))


def _foreign_key_lines(connection: sqlite3.Connection, table: Table) -> Iterator[str]:
    if not table.foreign_keys and not table.referenced_by:
        return
    complaint = _find_complaint(connection, table, foreign_keys=True)
    counts = [] if complaint else [_count_broken(connection, name) for name in _linked_tables(table)]
    if complaint or any(counts):
        said = f" ({complaint})" if complaint else ""
        yield f"# The data breaks foreign keys already{said}, so the application works with them off."
        yield "# Off means: no cascades, and rows that others point at can go. Mend the data, then set it to true."
        yield "foreign_keys = false"
        return
    why = "too much data to check whether they hold" if None in counts else "they hold in the data as it is"
    yield f"foreign_keys = true  # {why}"


def _linked_tables(table: Table) -> list[str]:
    own = [table.name] if table.foreign_keys else []
    return list(dict.fromkeys([*own, *(link.table for link in table.referenced_by)]))


def _count_broken(connection: sqlite3.Connection, table: str) -> int | None:
    try:
        return count_broken_links(connection, table)
    except sqlite3.OperationalError as error:
        if not is_about_schema(error):
            raise
        return 1  # a key that does not fit its parent holds for no row


def _file_lines(table: Table, folder: str) -> Iterator[str]:
    for name in _find_files(table):
        yield "# If this names a file, it can go with its row, after the commit, and come back with it:"
        yield f"# file = {quote_text(name)}"
        yield f"# root = {quote_text(folder)}  # the folder its names are under"


def _find_files(table: Table) -> list[str]:
    return [
        column.name
        for column in table.columns
        if column.affinity == "text" and _FILE.search(plain(column.name)) and not column.generated
    ][:1]


def _trigger_lines(table: Table) -> Iterator[str]:
    names = [quote_text(trigger.name) for trigger in table.triggers]
    if names:
        yield f"# Its triggers run as ever; an undo does not undo what they did: {', '.join(names)}"


def _link_lines(subject: _Subject, link: ForeignKey, *, verb: str) -> Iterator[str]:
    child = f"{quote_text(link.table)} ({', '.join(quote_text(name) for name in link.columns)})"
    yield ""
    if link.on_delete == "CASCADE":
        yield f"# Rows of {child} go with these: ON DELETE CASCADE."
        return
    if link.on_delete.startswith("SET"):
        yield f"# Rows of {child} lose their hold on these: ON DELETE {link.on_delete}."
        return
    yield f"# Rows of {child} point at these. With foreign_keys on, what is pointed at cannot {verb}: CONSTRAINT."
    if link.table == subject.table.name or set(link.parent_columns) != set(subject.key):
        return
    key = [link.columns[link.parent_columns.index(name)] for name in subject.key]
    yield "# To let them go along, and come back with an undo:"
    yield f"# [[resources.{quote_key(subject.name)}.children]]"
    yield f"# table = {quote_text(link.table)}"
    yield f"# key = {_list(key) if len(key) > 1 else quote_text(key[0])}"
