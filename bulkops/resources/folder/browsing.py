"""Lists of a root's entries for people to look at, and what a selection of them amounts to.

Everything waits for the disk: call it in a thread. Adding up a folder ends at a deadline; a number that is not
known by then is ``None``.
"""

from __future__ import annotations

import sqlite3
import stat
import time
from typing import Any, Final

import msgspec

from bulkops.models import Caution, Impact
from bulkops.resources.contract import Browse, ItemsPage
from bulkops.resources.folder.entries import UNFIT, odd_of
from bulkops.resources.folder.listing import COLUMNS, KEY, TABLE, act_on, laid_out, mtime_of
from bulkops.resources.folder.names import name_of
from bulkops.resources.folder.walking import entries, measure_tree
from bulkops.resources.folder.yard import Yard
from bulkops.resources.table import browsing as tables
from bulkops.resources.table.filters import both, compile_filter, search
from bulkops.resources.table.selecting import Selector
from bulkops.resources.target import DeadlineError

#: How long one page may add up folders.
_SIZES_S: Final = 0.25
PARTIAL: Final = Caution("IMPACT_PARTIAL", "counting everything would take too long; some numbers are null")


def page(yard: Yard, browse: Browse) -> ItemsPage:
    """Return one page of entries, with what is in the folders among them.

    Raises:
        Refusal: (422) a column that cannot be filtered or sorted by.
    """
    needs = {*browse.filter, (browse.sort or "").removeprefix("-")}
    scope = compile_filter(browse.filter, TABLE, list(COLUMNS))
    if browse.q:
        scope = both(scope, search(browse.q, ["name"]))
    view = tables.View(TABLE, KEY, None, act_on("delete"), "name", list(COLUMNS))
    with laid_out(yard.root, yard.ground, needs=needs) as connection:
        found = tables.page(connection, view, scope, msgspec.structs.replace(browse, q=None))
    until = time.monotonic() + _SIZES_S
    items = [_complete(yard, item, until) for item in found.items]
    return ItemsPage(items, found.after, found.total, found.total_capped)


def _complete(yard: Yard, item: dict[str, Any], until: float) -> dict[str, Any]:
    """Add to a listed entry what only a look at it tells."""
    name = name_of(item["id"])
    row = {key: value for key, value in item["row"].items() if key in COLUMNS} | {"files": None}
    try:
        found = yard.look(name)
    except OSError:
        found = None
    if found is None:  # gone since it was listed
        return {**item, "row": row}
    odd = odd_of(found, yard.ground)
    row["mtime"] = mtime_of(found)
    if row["kind"] == "file":
        row |= {"size": found.st_size, "files": 1}
    elif row["kind"] == "folder" and odd is None:
        files, size = measured(yard, name, until) or (None, None)
        row |= {"size": size, "files": files}
    code = None if odd is None else UNFIT[odd][0]
    return {**item, "eligible": odd is None, "code": code, "row": row}


def measured(yard: Yard, name: bytes, until: float) -> tuple[int, int] | None:
    """Count a folder's files and their bytes; ``None`` when time is over, or a part of it cannot be read."""
    if time.monotonic() > until:
        return None
    try:
        return measure_tree(yard.root, name, until=until)
    except OSError:
        return None


def impact(
    yard: Yard, connection: sqlite3.Connection, selector: Selector, until: float
) -> tuple[Impact, list[Caution]]:
    """Add up what goes with the fit ones of a selection: files and bytes."""
    files = size = 0
    for found in selector.walk(connection):
        for each in found:
            if each.code is not None:
                continue
            counted = _weight(yard, name_of(str(each.id)), until)
            if counted is None:
                return Impact({}, None, None), [PARTIAL]
            files += counted[0]
            size += counted[1]
    return Impact({}, files, size), []


def _weight(yard: Yard, name: bytes, until: float) -> tuple[int, int] | None:
    found = yard.look(name)
    if found is None or odd_of(found, yard.ground) is not None:
        return 0, 0
    if time.monotonic() > until:
        return None
    return measured(yard, name, until) if stat.S_ISDIR(found.st_mode) else (1, found.st_size)


def sample(
    yard: Yard, connection: sqlite3.Connection, selector: Selector, limit: int
) -> list[dict[str, Any]]:
    """Return the first fit entries of a selection, with what is in them."""
    rows = tables.rows(connection, selector, limit)
    until = time.monotonic() + _SIZES_S
    return [_complete(yard, {"id": row["id"], "row": row}, until)["row"] for row in rows]


def counts(yard: Yard, deadline_s: float) -> dict[str, Any]:
    """Count entries by kind, and what is in the trash; null where that takes too long."""
    until = time.monotonic() + deadline_s
    try:
        with laid_out(yard.root, yard.ground, needs=set(), until=until) as connection:
            by_kind = dict(connection.execute("SELECT kind, count(*) FROM entries GROUP BY 1").fetchall())
    except DeadlineError:
        return {"total": None, "by_status": None, "deleted": None}
    deleted = sum(1 for _ in entries(yard.trash))  # what is being purged included
    return {"total": sum(by_kind.values()), "by_status": by_kind, "deleted": deleted}
