"""Giving files back when a job is undone: out of the queue, or out of the trash, before their rows return.

Files come first: never is there a live row whose file we removed. A file whose row could not return after
all is put back in line for deletion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import anyio.to_thread

from bulkops.cleaner import Depot
from bulkops.effects import ItemException, Todo
from bulkops.errors import Transient
from bulkops.ids import wire_id
from bulkops.resources.paths import Identity
from bulkops.resources.storage import LocalStorage
from bulkops.resources.verdicts import Entry, Result, Verdict
from bulkops.store import deletions
from bulkops.store.deletions import DeletionRow, Settled
from bulkops.store.store import Store

_GONE = "its file is gone for good"
_OCCUPIED = "another file stands where its file was"


class FileReturn:
    """Moves the files of undone items back; made once, shared by all undo jobs."""

    def __init__(self, store: Store, depots: Mapping[str, Depot]) -> None:
        self._store = store
        self._depots = depots

    async def give_back(self, origin: str, todo: Todo) -> list[ItemException]:
        """Give back the files of the items at ``todo.origins`` of job ``origin``; without files a no-op.

        Returns the items that cannot return for their files' sake; accounting for the batch takes the
        files of all that did not return again.

        Raises:
            Transient: the cleaner is at one of the files this very moment, or the disk balks.
        """
        rows = await self._store.read(
            lambda connection: deletions.for_items(connection, origin, todo.origins)
        )
        if not rows:
            return []
        rows = await self._store.write(lambda tx: deletions.take_back(tx, origin, todo.origins))
        if any(row.state == "moving" for row in rows):
            raise Transient("IO_ERROR", "a file is just being moved to the trash")
        places = dict(zip(todo.origins, zip(todo.positions, todo.ids, strict=True), strict=True))
        troubles = {row.position: _GONE for row in rows if row.state in ("purging", "purged")}
        waiting = [row for row in rows if row.state == "restoring" and row.position not in troubles]
        troubles |= await self._restore(waiting)
        return [
            ItemException(position, wire_id(item), "skipped", "CONFLICT", troubles[origin_position])
            for origin_position, (position, item) in places.items()
            if origin_position in troubles
        ]

    async def _restore(self, rows: Sequence[DeletionRow]) -> dict[int, str]:
        troubles: dict[int, str] = {}
        settled: list[Settled] = []
        for name in dict.fromkeys(row.storage for row in rows):
            mine = [row for row in rows if row.storage == name]
            for row, result in zip(mine, await self._ask(name, mine), strict=True):
                if result.verdict is Verdict.RETRY:
                    raise Transient("IO_ERROR", f"a file cannot be moved back now: {result.reason}")
                state, trouble = _judge(result)
                if trouble is not None:
                    troubles[row.position] = trouble
                settled.append(
                    Settled(row.id, state, result.reason or None, identity=_parts(result.identity))
                )
        if settled:
            await self._store.write(lambda tx: deletions.give_back_done(tx, settled))
        return troubles

    async def _ask(self, name: str, rows: list[DeletionRow]) -> list[Result]:
        depot = self._depots.get(name)
        if depot is None or not isinstance(depot.storage, LocalStorage):
            return [Result(Verdict.MISSING, "the storage has no trash")] * len(rows)
        storage = depot.storage
        entries = [
            Entry(row.path, row.trash.encode(), Identity(*row.identity) if row.identity else None)
            for row in rows
        ]
        return await anyio.to_thread.run_sync(lambda: storage.restore(entries))


def _judge(result: Result) -> tuple[str, str | None]:
    if result.verdict is Verdict.RESTORED:
        return "restored", None
    if result.verdict is Verdict.CONFLICT:
        return "trashed", _OCCUPIED
    if result.verdict is Verdict.MISSING:
        return "missing", _GONE
    return "refused", result.reason or "its file cannot be moved back"


def _parts(identity: Identity | None) -> tuple[int, int, int, int] | None:
    return None if identity is None else (identity.dev, identity.ino, identity.size, identity.mtime_ns)
