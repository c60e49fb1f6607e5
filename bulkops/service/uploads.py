"""Uploads of id lists too long for a request: a stream of ids comes in, a stored selection goes out.

Each chunk is a short transaction of its own, and repetitions are told by a scratch database on disk, so a
list of millions costs little memory and holds no lock. An upload that breaks off leaves nothing usable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import anyio

from bulkops.database import Database, open_scratch
from bulkops.errors import Refusal, invalid_field
from bulkops.ids import new_id
from bulkops.models import Caller, SelectionReceipt
from bulkops.service.access import require
from bulkops.store import selections
from bulkops.store.selections import CHUNK, SelectionRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339

MAX_UPLOADED: Final = 10_000_000
MAX_ID: Final = 1000


async def upload(store: Store, caller: Caller, ids: AsyncIterator[list[str]]) -> SelectionReceipt:
    """Store a caller's ids and return how to refer to them for a day.

    Raises:
        Refusal: ``FORBIDDEN`` below operator, ``EMPTY_SELECTION`` without any id, ``TOO_MANY_ITEMS`` above ten
            million, ``INVALID_FIELD`` at ``/<n>`` (from 0) for what can be no id.

    """
    require(caller, "operator")
    selection_id = new_id()
    await store.write(
        lambda tx: selections.begin(tx, selection_id, tenant=caller.tenant, requested_by=caller.user)
    )
    scratch = await Database.open(open_scratch)
    try:
        received = await _store_all(store, scratch, selection_id, ids)
        row = await store.read(lambda connection: selections.get(connection, selection_id))
    except BaseException:
        # Where even this cannot be written, the list ends with its day.
        with anyio.CancelScope(shield=True), suppress(sqlite3.Error, ValueError):
            await store.write(lambda tx: selections.abandon(tx, selection_id))
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await scratch.close()
    return _receipt(row, received)


def _receipt(row: SelectionRow | None, received: int) -> SelectionReceipt:
    assert row is not None
    return SelectionReceipt(
        selection_id=row.id,
        count=row.count,
        duplicates=received - row.count,
        expires_at=rfc3339(row.expires_ms) or "",
    )


async def _store_all(
    store: Store, scratch: Database, selection_id: str, ids: AsyncIterator[list[str]]
) -> int:
    """Write all ids in chunks; return how many came, repetitions included."""
    await scratch.run(selections.begin_unseen)
    received, pending = 0, list[str]()
    async for some in ids:
        _check(some, received)
        received += len(some)
        pending += some
        while len(pending) >= CHUNK:
            await _store_chunk(store, scratch, selection_id, pending[:CHUNK])
            del pending[:CHUNK]
    await _store_chunk(store, scratch, selection_id, pending)
    if received == 0:
        raise Refusal("EMPTY_SELECTION", "the list holds no id")
    return received


def _check(ids: list[str], before: int) -> None:
    if before + len(ids) > MAX_UPLOADED:
        raise Refusal("TOO_MANY_ITEMS", f"a selection holds at most {MAX_UPLOADED} ids")
    for place, each in enumerate(ids, start=before):
        if not each or len(each) > MAX_ID or not _is_text(each):
            raise invalid_field(f"/{place}", f"an id has 1 to {MAX_ID} characters, none of them NUL")


def _is_text(text: str) -> bool:
    return (text.isascii() and "\0" not in text) or not any(
        character == "\0" or "\ud800" <= character <= "\udfff" for character in text
    )


async def _store_chunk(store: Store, scratch: Database, selection_id: str, ids: list[str]) -> None:
    if not ids:
        return
    fresh = await scratch.run(lambda connection: selections.unseen(connection, ids))

    def add(tx: Tx) -> None:
        selections.add(tx, selection_id, fresh)

    await store.write(add)
