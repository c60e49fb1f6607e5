"""Rows of `deletions`: the durable queue of files that go, and the index of those in the trash.

::

    tentative ──settle──▶ queued ──claim──▶ moving ──▶ trashed ──retention──▶ purging ──▶ purged
        │ withdraw          ▲ └──claim, final──▶ purging        │
        ▼                   │ requeue        │                  └─take_back─▶ restoring ─▶ restored
      (no row)            dead ◀─attempts────┴──▶ missing | superseded | shared | refused

What comes in: files that rows took with them, and verdicts of who moved them; what goes out: entries to
work on, each held by one claim at a time. `moving` and `purging` survive a crash and are due again, which
is harmless: working an entry twice ends where working it once does. `restoring` goes back to `queued` when its
undo has ended without it. No file is touched here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from bulkops.effects import FileTaken
from bulkops.ids import new_id
from bulkops.store.transaction import Tx

#: No wait is longer than this; an entry due later than that was written before the clock was set back.
MAX_WAIT_MS: Final = 60 * 60 * 1000
#: What the admin's list shows when it is not asked for one state.
OPEN_STATES: Final = (
    "queued",
    "moving",
    "purging",
    "restoring",
    "dead",
    "refused",
    "superseded",
    "shared",
    "missing",
)

_COLUMNS: Final = (
    "id, job, position, resource, tenant, storage, path, dev, ino, size, mtime_ns, trash, final, state, "
    "attempts, not_before_ms, error, created_ms, updated_ms"
)


class DeletionRow(msgspec.Struct, frozen=True):
    """A row of `deletions`; see schema.sql for what each column means."""

    id: int
    job: str
    position: int
    resource: str
    tenant: str | None
    storage: str
    path: bytes
    identity: tuple[int, int, int, int] | None
    trash: str
    final: bool
    state: str
    attempts: int
    not_before_ms: int
    error: str | None
    created_ms: int
    updated_ms: int


class Claimed(msgspec.Struct, frozen=True):
    """An entry to be worked: ``moving`` into the trash, or ``purging`` for good.

    A ``purging`` one goes from its source when it is ``final``, else from the trash.
    """

    id: int
    storage: str
    path: bytes
    identity: tuple[int, int, int, int] | None
    trash: str
    final: bool
    state: str
    attempts: int
    error: str | None


class Settled(msgspec.Struct, frozen=True):
    """What became of a claimed entry: its next state, and a new identity where the file was copied."""

    id: int
    state: str
    error: str | None = None
    not_before_ms: int = 0
    identity: tuple[int, int, int, int] | None = None
    untried: bool = False  # the attempt does not count


class DeletionStats(msgspec.Struct, frozen=True):
    """The queue at a glance; ``pending`` is all that is still to do, ``retrying`` the part that failed before."""

    pending: int
    retrying: int
    dead: int
    bytes: int
    oldest_ms: int | None


def _from_row(row: tuple[Any, ...]) -> DeletionRow:
    before, (dev, ino, size, mtime_ns), (trash, final), after = row[:7], row[7:11], row[11:13], row[13:]
    identity = None if dev is None else (dev, ino, size, mtime_ns)
    return DeletionRow(*(*before, identity, trash, bool(final), *after))


def _array(values: Collection[int]) -> str:
    return msgspec.json.encode(list(values)).decode()


# --- written with the batch --------------------------------------------------------------------------

_FORGET_TENTATIVE: Final = """
DELETE FROM deletions
 WHERE job = :job AND position IN (SELECT value FROM json_each(:positions)) AND state = 'tentative'
"""
_INSERT: Final = """
INSERT INTO deletions (job, position, resource, tenant, storage, path, dev, ino, size, mtime_ns, trash, final,
                       state, created_ms, updated_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def insert_tentative(
    tx: Tx, job_id: str, files: Sequence[FileTaken], *, resource: str, tenant: str | None
) -> None:
    """Announce the files of a batch; announcing its items again replaces what was announced before."""
    if not files:
        return
    positions = _array(sorted({each.position for each in files}))
    tx.connection.execute(_FORGET_TENTATIVE, {"job": job_id, "positions": positions})
    rows = [
        _new_row(tx, job_id, each, resource, tenant, final=each.final, state="tentative") for each in files
    ]
    tx.connection.executemany(_INSERT, rows)


def insert_trashed(
    tx: Tx, job_id: str, files: Sequence[FileTaken], *, resource: str, tenant: str | None
) -> None:
    """Take over what a batch moved into the trash itself: kept there, or removed from there if it is final."""
    # Not final in the queue's sense, which would look for it at its source.
    rows = [
        _new_row(
            tx, job_id, each, resource, tenant, final=False, state="purging" if each.final else "trashed"
        )
        for each in files
    ]
    tx.connection.executemany(_INSERT, rows)
    if any(each.final for each in files):
        tx.ring(deletions=True)


def _new_row(
    tx: Tx, job_id: str, each: FileTaken, resource: str, tenant: str | None, *, final: bool, state: str
) -> tuple[Any, ...]:
    now = tx.now_ms
    identity = each.identity or (None, None, None, None)
    before = (job_id, each.position, resource, tenant, each.storage, each.path)
    return (*before, *identity, each.trash or new_id(), int(final), state, now, now)


_QUEUE: Final = """
UPDATE deletions SET state = 'queued', updated_ms = :now
 WHERE job = :job AND position >= :first AND position < :last AND state = 'tentative'
"""


def settle(tx: Tx, job_id: str, first: int, count: int, *, untouched: Sequence[int]) -> None:
    """Put the files of a batch that is accounted for in line, but for items that did not succeed."""
    if untouched:
        tx.connection.execute(_FORGET_TENTATIVE, {"job": job_id, "positions": _array(untouched)})
    values = {"job": job_id, "first": first, "last": first + count, "now": tx.now_ms}
    if tx.connection.execute(_QUEUE, values).rowcount:
        tx.ring(deletions=True)


_WITHDRAW: Final = """
DELETE FROM deletions
 WHERE job = :job AND position >= :first AND position < :last AND state = 'tentative'
"""


def withdraw(tx: Tx, job_id: str, first: int, count: int) -> None:
    """Forget the files of an announced batch that did not happen."""
    tx.connection.execute(_WITHDRAW, {"job": job_id, "first": first, "last": first + count})


# --- worked by the cleaner ---------------------------------------------------------------------------

# Left to itself SQLite takes the index on `state` and sorts the whole queue for every claim.

_WAITS: Final = """
SELECT (SELECT min(not_before_ms) FROM deletions INDEXED BY deletions_due
         WHERE state IN ('queued', 'moving', 'purging') AND id NOT IN (SELECT value FROM json_each(:held))),
       (SELECT max(not_before_ms) FROM deletions INDEXED BY deletions_due
         WHERE state IN ('queued', 'moving', 'purging'))
"""


def next_due_ms(connection: sqlite3.Connection, now_ms: int, *, held: Collection[int] = ()) -> int | None:
    """Say when the next entry is due that nobody holds, ``None`` without one."""
    first, last = connection.execute(_WAITS, {"held": _array(held)}).fetchone()
    if first is None:
        return None
    return now_ms if last > now_ms + MAX_WAIT_MS else int(first)


_THAW: Final = """
UPDATE deletions INDEXED BY deletions_due SET not_before_ms = :now
 WHERE state IN ('queued', 'moving', 'purging') AND not_before_ms > :far
"""
_CLAIM: Final = """
UPDATE deletions
   SET state = CASE WHEN final = 1 OR state = 'purging' THEN 'purging' ELSE 'moving' END,
       attempts = attempts + 1, updated_ms = :now
 WHERE id IN (SELECT id FROM deletions INDEXED BY deletions_due
               WHERE state IN ('queued', 'moving', 'purging') AND not_before_ms <= :now
                 AND id NOT IN (SELECT value FROM json_each(:held))
                 AND (:resource IS NULL OR resource = :resource) AND (:tenant IS NULL OR tenant = :tenant)
               ORDER BY not_before_ms, id LIMIT :limit)
RETURNING id, storage, path, dev, ino, size, mtime_ns, trash, final, state, attempts, error
"""


def claim(
    tx: Tx,
    limit: int,
    *,
    held: Collection[int] = (),
    resource: str | None = None,
    tenant: str | None = None,
) -> list[Claimed]:
    """Take up to ``limit`` due entries, each attempt counted before it is made; none is an answer.

    ``held`` are the entries this process works on already. They are known in memory only: after a crash
    nobody holds anything, and what was being worked is due at once.
    """
    now = tx.now_ms
    tx.connection.execute(_THAW, {"now": now, "far": now + MAX_WAIT_MS})
    values = {"now": now, "limit": limit, "held": _array(held), "resource": resource, "tenant": tenant}
    return [_claimed(row) for row in tx.connection.execute(_CLAIM, values)]


def _claimed(row: tuple[Any, ...]) -> Claimed:
    entry, storage, path, dev, ino, size, mtime_ns, trash, final, state, attempts, error = row
    identity = None if dev is None else (dev, ino, size, mtime_ns)
    return Claimed(entry, storage, path, identity, trash, final == 1, state, attempts, error)


_FINISH: Final = """
UPDATE deletions SET state = :state, error = NULL, not_before_ms = 0, updated_ms = :now
 WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('moving', 'purging')
"""
_RECORD: Final = """
UPDATE deletions
   SET state = :state, error = :error, not_before_ms = :not_before, updated_ms = :now,
       attempts = attempts - :untried, dev = coalesce(:dev, dev), ino = coalesce(:ino, ino),
       size = coalesce(:size, size), mtime_ns = coalesce(:mtime_ns, mtime_ns)
 WHERE id = :id AND state IN ('moving', 'purging')
"""


def record(tx: Tx, settled: Sequence[Settled]) -> None:
    """Write what became of claimed entries; one that is claimed no more stays as it is."""
    plain: dict[str, list[int]] = {}
    others: list[Settled] = []
    for each in settled:
        if each.error is None and each.identity is None and not (each.untried or each.not_before_ms):
            plain.setdefault(each.state, []).append(each.id)
        else:
            others.append(each)
    for state, ids in plain.items():
        tx.connection.execute(_FINISH, {"state": state, "ids": _array(ids), "now": tx.now_ms})
    tx.connection.executemany(_RECORD, [_values_of(tx, each) for each in others])


def _values_of(tx: Tx, each: Settled) -> dict[str, Any]:
    dev, ino, size, mtime_ns = each.identity or (None, None, None, None)
    return {
        "id": each.id,
        "state": each.state,
        "error": each.error,
        "not_before": each.not_before_ms,
        "untried": int(each.untried),
        "dev": dev,
        "ino": ino,
        "size": size,
        "mtime_ns": mtime_ns,
        "now": tx.now_ms,
    }


_RETIRE: Final = """
UPDATE deletions SET state = 'purging', attempts = 0, not_before_ms = 0, error = NULL, updated_ms = :now
 WHERE id IN (SELECT id FROM deletions INDEXED BY deletions_retention
               WHERE state = 'trashed' AND updated_ms < :before
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = deletions.job
                                  AND (jobs.finished_ms IS NULL OR jobs.undo_until_ms > :now))
                 AND NOT EXISTS (SELECT 1 FROM jobs AS undo WHERE undo.undo_of = deletions.job
                                  AND undo.finished_ms IS NULL)
               ORDER BY updated_ms LIMIT :limit)
"""


def retire(tx: Tx, before_ms: int, limit: int) -> int:
    """Put what lies in the trash since before an instant in line to be removed; return how many.

    What an undo may still ask for stays, however long its job took.
    """
    found = tx.connection.execute(_RETIRE, {"before": before_ms, "limit": limit, "now": tx.now_ms}).rowcount
    if found:
        tx.ring(deletions=True)
    return found


_FORGET: Final = """
DELETE FROM deletions
 WHERE id IN (SELECT id FROM deletions
               WHERE state IN ('purged', 'restored', 'missing', 'superseded', 'shared') AND updated_ms < :before
               LIMIT :limit)
"""


def forget(tx: Tx, before_ms: int, limit: int) -> int:
    """Delete rows of files that were done with before an instant; return how many."""
    return tx.connection.execute(_FORGET, {"before": before_ms, "limit": limit}).rowcount


# --- taken back by an undo ---------------------------------------------------------------------------

_TAKE_BACK: Final = """
UPDATE deletions
   SET state = CASE WHEN state IN ('tentative', 'queued') AND attempts = 0 AND error IS NULL
               THEN 'restored' ELSE 'restoring' END,
       not_before_ms = 0, updated_ms = :now
 WHERE job = :job AND position IN (SELECT value FROM json_each(:positions))
   AND state IN ('tentative', 'queued', 'trashed', 'dead', 'refused')
"""
_FOR_ITEMS: Final = f"""
SELECT {_COLUMNS} FROM deletions
 WHERE job = :job AND position IN (SELECT value FROM json_each(:positions)) ORDER BY position, id
"""


def for_items(connection: sqlite3.Connection, job_id: str, positions: Sequence[int]) -> list[DeletionRow]:
    """Return the entries of a job's items, by position."""
    rows = connection.execute(_FOR_ITEMS, {"job": job_id, "positions": _array(positions)})
    return [_from_row(row) for row in rows]


def take_back(tx: Tx, job_id: str, positions: Sequence[int]) -> list[DeletionRow]:
    """Take the files of items out of the queue or the trash; asking again gives the same answer.

    The state of each returned entry says what its undo has to do:

    * ``restored``: nothing, the file was never touched (or is back already);
    * ``restoring``: move it back (a custom storage cannot: `CONFLICT`), then call `give_back_done`;
    * ``moving``: the cleaner is at it this very moment; ask again shortly;
    * ``purging``, ``purged``: gone for good, a conflict;
    * ``missing``, ``superseded``, ``shared``: we did not touch it, there is nothing to give back.
    """
    values = {"job": job_id, "positions": _array(positions), "now": tx.now_ms}
    tx.connection.execute(_TAKE_BACK, values)
    return for_items(tx.connection, job_id, positions)


_GIVE_BACK: Final = """
UPDATE deletions
   SET state = :state, error = :error, updated_ms = :now, dev = coalesce(:dev, dev), ino = coalesce(:ino, ino),
       size = coalesce(:size, size), mtime_ns = coalesce(:mtime_ns, mtime_ns)
 WHERE id = :id AND state = 'restoring'
"""


def give_back_done(tx: Tx, settled: Sequence[Settled]) -> None:
    """Write what became of entries that were moved back.

    The states are ``restored``, ``missing``, ``refused``, or ``trashed`` again when something stood in their
    place; an entry to be tried again is left out and stays ``restoring``.
    """
    tx.connection.executemany(_GIVE_BACK, [_values_of(tx, each) for each in settled])


_BACK_AGAIN: Final = """
UPDATE deletions SET state = 'queued', attempts = 0, not_before_ms = 0, updated_ms = :now
 WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('restored', 'restoring')
"""


def back_again(tx: Tx, ids: Sequence[int]) -> None:
    """Put entries back in line whose row could not be put back after all."""
    if tx.connection.execute(_BACK_AGAIN, {"ids": _array(ids), "now": tx.now_ms}).rowcount:
        tx.ring(deletions=True)


_STRANDED: Final = """
UPDATE deletions SET state = 'queued', attempts = 0, not_before_ms = 0, updated_ms = :now
 WHERE id IN (SELECT id FROM deletions INDEXED BY deletions_state
               WHERE state = 'restoring' AND updated_ms < :before
                 AND NOT EXISTS (SELECT 1 FROM jobs AS undo WHERE undo.undo_of = deletions.job
                                  AND undo.kind = 'undo' AND undo.finished_ms IS NULL)
               LIMIT :limit)
"""


def take_stranded(tx: Tx, before_ms: int, limit: int) -> int:
    """Put entries in line again that an undo began to give back and will not end; return how many.

    Such an undo was cancelled by force, or ended, while its worker was still at the file. What lies in the trash
    already is found there.
    """
    values = {"before": before_ms, "limit": limit, "now": tx.now_ms}
    found = tx.connection.execute(_STRANDED, values).rowcount
    if found:
        tx.ring(deletions=True)
    return found


# --- seen and steered by people ----------------------------------------------------------------------

_STATS: Final = """
SELECT count(*), count(*) FILTER (WHERE error IS NOT NULL), coalesce(sum(size), 0), min(created_ms)
  FROM deletions
 WHERE state IN ('queued', 'moving', 'purging') AND (:tenant IS NULL OR tenant = :tenant)
"""
_COUNT_DEAD: Final = """
SELECT count(*) FROM deletions WHERE state = 'dead' AND (:tenant IS NULL OR tenant = :tenant)
"""


def stats(connection: sqlite3.Connection, *, tenant: str | None = None) -> DeletionStats:
    """Sum the queue up, of one tenant or of all."""
    pending, retrying, size, oldest = connection.execute(_STATS, {"tenant": tenant}).fetchone()
    dead = connection.execute(_COUNT_DEAD, {"tenant": tenant}).fetchone()[0]
    return DeletionStats(pending, retrying, dead, size, oldest)


_PAGE: Final = f"""
SELECT {_COLUMNS} FROM deletions
 WHERE state = :state AND id > :after AND (:tenant IS NULL OR tenant = :tenant) ORDER BY id LIMIT :limit
"""


def page(
    connection: sqlite3.Connection, *, state: str | None, tenant: str | None, after: int, limit: int
) -> list[DeletionRow]:
    """List entries with an id above ``after``, by id: of one state, or all that are open."""
    found: list[DeletionRow] = []
    for each in OPEN_STATES if state is None else (state,):
        values = {"state": each, "tenant": tenant, "after": after, "limit": limit}
        found += [_from_row(row) for row in connection.execute(_PAGE, values)]
    return sorted(found, key=lambda row: row.id)[:limit]


_REQUEUE: Final = """
UPDATE deletions SET state = 'queued', attempts = 0, not_before_ms = 0, updated_ms = :now
 WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant)
   AND state IN ('queued', 'dead', 'refused', 'superseded', 'shared', 'missing')
"""


def requeue(tx: Tx, deletion_id: int, *, tenant: str | None = None) -> bool:
    """Put an entry that ended badly, or waits for its next try, in line now; ``False`` when there is none such."""
    values = {"id": deletion_id, "tenant": tenant, "now": tx.now_ms}
    found = tx.connection.execute(_REQUEUE, values).rowcount == 1
    if found:
        tx.ring(deletions=True)
    return found


_DROP: Final = """
DELETE FROM deletions
 WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant)
   AND state IN ('queued', 'dead', 'refused', 'superseded', 'shared', 'missing')
"""


def drop(tx: Tx, deletion_id: int, *, tenant: str | None = None) -> bool:
    """Forget an entry that nobody works on; its file stays where it is. ``False`` when there is none such."""
    return tx.connection.execute(_DROP, {"id": deletion_id, "tenant": tenant}).rowcount == 1
