"""A root as rows: its entries laid out in a table in memory, so that filters, search, order and pages are tables'.

What comes in: a root, or some names in it; what goes out: a connection to a table of entries. Their sizes and
times are read only where a question needs them; the size of a folder is what lies in it, which takes long, and
is therefore known for the rows of a page only, as far as a deadline allows. No filter sees it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, Final

from bulkops.resources.folder.entries import UNFIT, Ground, kind_of, odd_of
from bulkops.resources.folder.names import is_ours, name_of, shown, write_id
from bulkops.resources.folder.walking import entries
from bulkops.resources.schema import Column, Table
from bulkops.resources.table.actions import Act, Unfit
from bulkops.resources.table.filters import Condition
from bulkops.resources.table.keys import Key
from bulkops.resources.target import DeadlineError
from bulkops.timing import rfc3339

#: What a filter, a search and an order may name.
COLUMNS: Final = ("name", "kind", "size", "mtime")
#: Columns for which every entry has to be looked at; the kind alone is known from the listing.
_LOOKED_AT: Final = frozenset({"size", "mtime"})
_DDL: Final = (
    "CREATE TABLE entries (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER,"
    " mtime TEXT, odd TEXT) WITHOUT ROWID, STRICT"
)
_INSERT: Final = "INSERT INTO entries (id, name, kind, size, mtime, odd) VALUES (?, ?, ?, ?, ?, ?)"
_CHUNK: Final = 5_000
#: The last instant that can be written; a file may claim any.
_LAST_MS: Final = 253_402_300_799_999


def _column(name: str, affinity: Any) -> Column:
    declared = str(affinity).upper()
    return Column(
        name=name, declared=declared, affinity=affinity, notnull=name in ("id", "name", "kind"), default=None,
        generated=False, pk=int(name == "id"),
    )  # fmt: skip


TABLE: Final = Table(
    name="entries", kind="table", strict=True, primary_key=("id",), rowid=None, integer_key=None,
    without_rowid=True, triggers=(), indexes=(), foreign_keys=(), referenced_by=(),
    columns=tuple(
        _column(name, "integer" if name == "size" else "text")
        for name in ("id", "name", "kind", "size", "mtime", "odd")
    ),
)  # fmt: skip
KEY: Final = Key(TABLE, ["id"])


def act_on(action: str) -> Act:
    """Build an act that does nothing in the table: it says which entries are unfit, and why."""
    states = [
        Unfit(code, reason, Condition("t.odd = :odd_" + odd, {"odd_" + odd: odd}))
        for odd, (code, reason) in UNFIT.items()
    ]
    return Act(name=action, final=True, states=states)


def looked_at(needs: Collection[str]) -> bool:
    """Say whether a question about these columns needs a look at every entry."""
    return not _LOOKED_AT.isdisjoint(needs)


@contextmanager
def laid_out(
    root: int,
    ground: Ground,
    *,
    items: Sequence[str] | None = None,
    needs: set[str],
    until: float | None = None,
) -> Iterator[sqlite3.Connection]:
    """Do as `lay_out` does, for the length of the block."""
    with closing(lay_out(root, ground, items=items, needs=needs, until=until)) as connection:
        yield connection


def lay_out(
    root: int,
    ground: Ground,
    *,
    items: Sequence[str] | None = None,
    needs: set[str],
    until: float | None = None,
    since_ns: int | None = None,
) -> sqlite3.Connection:
    """Lay out the entries of an open root, or those of the named items that are there; any thread may read them.

    ``needs`` are the columns that the question is about. What was made, moved or changed after ``since_ns``
    (by its ctime) is left out.

    Raises:
        DeadlineError: it takes longer than until ``until`` (monotonic).
        OSError: the root cannot be read.
    """
    if items is not None:
        rows = _named(root, ground, items)
    elif since_ns is not None:
        rows = _unchanged(root, ground, since_ns)
    else:
        rows = _listed(root, ground, look=looked_at(needs))
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.execute(_DDL)
        connection.execute("BEGIN")
        while batch := list(islice(rows, _CHUNK)):
            connection.executemany(_INSERT, batch)
            if until is not None and time.monotonic() > until:
                raise DeadlineError
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _unchanged(root: int, ground: Ground, since_ns: int) -> Iterator[tuple[Any, ...]]:
    for name, _ in entries(root):
        if is_ours(name):
            continue
        try:
            found = os.stat(name, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if found.st_ctime_ns <= since_ns:
            yield _row(name, found, ground)


def _listed(root: int, ground: Ground, *, look: bool) -> Iterator[tuple[Any, ...]]:
    with os.scandir(root) as found:
        for each in found:
            name = os.fsencode(each.name)
            if is_ours(name):
                continue
            try:
                if look or not (each.is_file(follow_symlinks=False) or each.is_dir(follow_symlinks=False)):
                    yield _row(name, os.stat(name, dir_fd=root, follow_symlinks=False), ground)
                    continue
            except FileNotFoundError:
                continue
            folder = each.is_dir(follow_symlinks=False)
            # The inode is in the listing already; a mount point hides another one, and is told when looked at.
            odd = "ours" if (ground.dev, each.inode()) in ground.forbidden else None
            yield write_id(name), shown(name), "folder" if folder else "file", None, None, odd


def _named(root: int, ground: Ground, items: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for item in dict.fromkeys(items):
        name = name_of(item)
        if is_ours(name):
            continue
        try:
            found = os.stat(name, dir_fd=root, follow_symlinks=False)
        except OSError:  # not there, or the name is longer than this file system's may be
            continue
        yield _row(name, found, ground)


def _row(name: bytes, found: os.stat_result, ground: Ground) -> tuple[Any, ...]:
    kind = kind_of(found)
    size = found.st_size if kind == "file" else None
    return write_id(name), shown(name), kind, size, mtime_of(found), odd_of(found, ground)


def mtime_of(found: os.stat_result) -> str | None:
    """Write when something was last written to; what lies outside of what can be written is clipped."""
    return rfc3339(min(max(0, found.st_mtime_ns // 1_000_000), _LAST_MS))
