"""Freezes a job's manifest: what was selected at acceptance becomes the list that is worked off.

One snapshot of the target, written in chunks; a crash begins it anew, and the bound recorded at
acceptance keeps out whatever came later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final

import msgspec

from bulkops import accounting
from bulkops.effects import Id, ItemException
from bulkops.errors import JobFailed
from bulkops.house import House, query_of
from bulkops.ids import wire_id
from bulkops.operations import MAX_ATOMIC_ITEMS
from bulkops.resources.contract import Found, Resource
from bulkops.states import Status
from bulkops.store import claims, exceptions, jobs, manifests, selections
from bulkops.store.jobs import JobRow
from bulkops.store.transaction import Tx

_CHUNK: Final = 20_000


class Frozen(msgspec.Struct, frozen=True):
    """A piece of a manifest: the ids, why some are unfit, and (for undo) where they stood before."""

    found: list[Found]
    origins: list[int] | None = None


async def freeze(house: House, job: JobRow) -> None:
    """Write the manifest of a job in ``preparing``, then put it in line.

    Raises:
        JobFailed: (``COUNT_CHANGED``) not as many items as were confirmed, or too many for an atomic job.
        Halt: the target cannot be read now.
    """
    resource = house.resource_of(job)
    await resource.open()
    await house.store.write(lambda tx: _begin_anew(tx, job.id))
    position = 0
    async with aclosing(_pieces(house, job, resource)) as pieces:
        async for piece in pieces:
            if house.stopping:
                await house.store.write(lambda tx: claims.release(tx, job))
                return
            _check_size(job, resource, position + len(piece.found))
            status = await house.store.write(partial(write, job_id=job.id, first=position, piece=piece))
            position += len(piece.found)
            if status is not Status.PREPARING:
                await house.store.write(lambda tx: _give_way(tx, job))
                return
    _check_count(job, position)
    await house.store.write(lambda tx: jobs.freeze(tx, job.id, total=position))


def _begin_anew(tx: Tx, job_id: str) -> None:
    manifests.clear(tx, job_id)
    exceptions.clear(tx, job_id)


def write(tx: Tx, job_id: str, first: int, piece: Frozen) -> Status | None:
    """Write a piece of a manifest from position ``first`` on; return the job's status."""
    manifests.append(tx, job_id, first, [each.id for each in piece.found], piece.origins)
    exceptions.record(
        tx,
        job_id,
        [
            ItemException(first + index, wire_id(each.id), "skipped", each.code, each.reason or "")
            for index, each in enumerate(piece.found)
            if each.code is not None
        ],
    )
    job = jobs.get(tx.connection, job_id)
    return None if job is None else job.status


def _give_way(tx: Tx, held: JobRow) -> None:
    """Pause or cancel a job that was asked to stop while it was frozen; what was written is begun anew."""
    job = jobs.get(tx.connection, held.id)
    if job is None or job.terminal:
        return
    if job.status in (Status.CANCELLING, Status.PAUSING):
        accounting.settle_request(tx, job)
    else:
        # Resumed in between: back in line, or nobody would ever look at it again.
        claims.release(tx, held)


def _check_size(job: JobRow, resource: Resource, count: int) -> None:
    """Refuse what acceptance could not count in time: more than the action, or an atomic job, may take."""
    if job.knobs.atomic and count > MAX_ATOMIC_ITEMS:
        raise JobFailed("TOO_MANY_ITEMS", f"an atomic job takes at most {MAX_ATOMIC_ITEMS:,} items")
    limit = resource.action_settings(job.action).max_items
    if job.kind == "act" and limit is not None and count > limit:
        raise JobFailed("TOO_MANY_ITEMS", f"this action takes at most {limit:,} items")


def _check_count(job: JobRow, count: int) -> None:
    expected = job.selection.expected_count
    if expected is not None and expected != count:
        raise JobFailed(
            "COUNT_CHANGED", f"{count} items match, {expected} were expected; nothing was touched"
        )


def _pieces(house: House, job: JobRow, resource: Resource) -> AsyncGenerator[Frozen, None]:
    if job.undo_of is not None and job.kind == "undo" and job.retry_of is None:
        return _taken_by(house, job, job.undo_of)
    if job.retry_of is not None:
        return _failed_in(house, job, job.retry_of, resource)
    if job.selection.selection_id is not None:
        return _uploaded(house, job, resource, job.selection.selection_id)
    return _matching(job, resource)


async def _matching(job: JobRow, resource: Resource) -> AsyncGenerator[Frozen, None]:
    query = msgspec.structs.replace(query_of(job), exclude=_parsed(resource, job.selection.exclude_ids))
    # Closed at once when freezing ends early: a forgotten snapshot would pin the application's WAL.
    async with aclosing(resource.manifest(query)) as manifest:
        async for found in manifest:
            yield Frozen(found)


def _parsed(resource: Resource, wires: list[str | int]) -> list[Id]:
    return [resource.parse_id(wire) for wire in wires]


async def _uploaded(
    house: House, job: JobRow, resource: Resource, selection_id: str
) -> AsyncGenerator[Frozen, None]:
    excluded = _parsed(resource, job.selection.exclude_ids)
    first = 0
    while True:
        wires = await house.store.read(partial(selections.chunk_at, selection_id=selection_id, first=first))
        if not wires:
            return
        first += len(wires)
        ids, unreadable = readable(resource, wires)
        query = msgspec.structs.replace(query_of(job), ids=ids, exclude=excluded)
        yield Frozen(await resource.select(query, len(ids)) + unreadable)


def readable(resource: Resource, wires: list[str]) -> tuple[list[Id], list[Found]]:
    """Tell the ids of an uploaded list that can be read from those that name nothing."""
    ids: list[Id] = []
    unreadable: list[Found] = []
    for wire in wires:
        try:
            ids.append(resource.parse_id(wire))
        except ValueError:
            unreadable.append(Found(wire, "NOT_FOUND", "there is no such item"))
    return ids, unreadable


async def _taken_by(house: House, job: JobRow, origin: str) -> AsyncGenerator[Frozen, None]:
    """Walk what a job did succeed with, last done first; ``selection.ids`` narrows it down.

    What was done first is put back last: a row may refer to one that went after it.
    """
    wanted = None if job.selection.ids is None else {str(item) for item in job.selection.ids}
    done = await house.store.read(lambda connection: jobs.get(connection, origin))
    end = 0 if done is None else done.cursor
    back = await _put_back_before(house, job, origin, end)
    while end > 0:
        first = max(0, end - _CHUNK)
        frozen = await house.store.read(
            partial(_succeeded, origin=origin, first=first, end=end, wanted=wanted, back=back)
        )
        end = first
        if frozen.found:
            yield frozen


async def _put_back_before(house: House, job: JobRow, origin: str, end: int) -> bytearray:
    """Mark the positions of a job that other undos of it have put back already.

    What became of those items since is not that job's doing, though it may look like it: who deletes a row again
    sets the very same flag.
    """
    back = bytearray(end)
    for undo, cursor in await house.store.read(lambda connection: jobs.undos(connection, origin, but=job.id)):
        for first in range(0, cursor, _CHUNK):
            limit = min(_CHUNK, cursor - first)
            for place in await house.store.read(partial(_put_back_by, undo=undo, first=first, limit=limit)):
                back[place] = 1
    return back


def _put_back_by(connection: sqlite3.Connection, undo: str, first: int, limit: int) -> list[int]:
    page = manifests.page(connection, undo, first, limit)
    odd = {each.position for each in exceptions.within(connection, undo, first, limit)}
    return [place for index, place in enumerate(page.origins) if first + index not in odd]


def _returning(item: Id, *, back: int) -> Found:
    return Found(item, "ALREADY_DONE", "an earlier undo put it back") if back else Found(item)


def _succeeded(
    connection: sqlite3.Connection,
    origin: str,
    first: int,
    end: int,
    wanted: set[str] | None,
    back: bytearray,
) -> Frozen:
    page = manifests.page(connection, origin, first, end - first)
    odd = {each.position for each in exceptions.within(connection, origin, first, end - first)}
    kept = [
        (first + index, item)
        for index, item in enumerate(page.ids)
        if first + index not in odd and (wanted is None or wire_id(item) in wanted)
    ]
    kept.reverse()
    return Frozen(
        [_returning(item, back=back[position]) for position, item in kept], [position for position, _ in kept]
    )


async def _failed_in(
    house: House, job: JobRow, earlier: str, resource: Resource
) -> AsyncGenerator[Frozen, None]:
    """Walk the failed items of an earlier job, only those with the wanted codes."""
    codes = job.selection.codes
    after = -1
    back = bytearray()
    if job.undo_of is not None:
        origin = await house.store.read(partial(jobs.get, job_id=job.undo_of))
        back = await _put_back_before(house, job, job.undo_of, origin.cursor if origin else 0)
    while True:
        rows = await house.store.read(
            partial(exceptions.failed_after, job_id=earlier, codes=codes, after=after, limit=_CHUNK)
        )
        if not rows:
            return
        after = rows[-1].position
        positions = [row.position for row in rows]
        frozen = await house.store.read(partial(_items_at, job_id=earlier, positions=positions))
        if job.undo_of is None:
            ids = [each.id for each in frozen.found]
            frozen = Frozen(await resource.select(msgspec.structs.replace(query_of(job), ids=ids), len(ids)))
        elif frozen.origins is not None:
            found = [
                _returning(each.id, back=back[place])
                for each, place in zip(frozen.found, frozen.origins, strict=True)
            ]
            frozen = Frozen(found, frozen.origins)
        yield frozen


def _items_at(connection: sqlite3.Connection, job_id: str, positions: list[int]) -> Frozen:
    """Return the items at rising positions of a manifest, reading each of its chunks once."""
    found: list[Found] = []
    origins: list[int] = []
    page = manifests.page(connection, job_id, 0, 0)
    for position in positions:
        if position >= page.first + len(page.ids):
            page = manifests.page(connection, job_id, position, manifests.CHUNK)
        found.append(Found(page.ids[position - page.first]))
        if page.origins:
            origins.append(page.origins[position - page.first])
    return Frozen(found, origins or None)
