"""The cleaner: works off the file deletion queue, in batches, two at a time, each in a thread.

What comes in: due entries of `deletions`; what goes out: moved or removed files and the entries' next
states. Claimed and counted before the work, recorded after it: a crash at any instant leaves an entry
that can be worked again. A file that another live row still names is left alone. Nothing here may touch
a file itself (the storages do), nor wait by polling: a ring or the next due instant wakes it.
"""

from __future__ import annotations

import inspect
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from bulkops.errors import BulkopsError
from bulkops.resources.paths import Identity
from bulkops.resources.storage import LocalStorage, Outcomes, Storage, read_outcomes
from bulkops.resources.verdicts import Entry, Result, Stop, Verdict, never
from bulkops.store import deletions
from bulkops.store.deletions import Claimed, Settled
from bulkops.store.store import Store
from bulkops.store.transaction import Commit, Tx
from bulkops.timing import back_off_s

BATCH_SIZE: Final = 500
MAX_ATTEMPTS: Final = 8
_LANES: Final = 2
#: The longest sleep: the wall clock may be set, and a laptop may sleep, while we wait.
_MAX_SLEEP_S: Final = 60.0
#: A custom storage that has not answered by then is asked again later.
_STORAGE_TIMEOUT_S: Final = 60.0
_RECORD_TIMEOUT_S: Final = 5.0
_MAX_LOGGED: Final = 20
_log = logging.getLogger("bulkops.cleaner")

#: Says which of some paths another live row still names.
SharedAmong = Callable[[Sequence[bytes]], Awaitable[set[bytes]]]


class Depot(msgspec.Struct, frozen=True):
    """A storage, and how to ask whether other rows still need its files (``None``: none can)."""

    storage: LocalStorage | Storage
    shared_among: SharedAmong | None = None


class CleanupResult(msgspec.Struct, frozen=True):
    """What a run did; ``failed`` is all that was left alone: refused, shared, superseded, to be retried."""

    processed: int = 0
    removed: int = 0
    missing: int = 0
    failed: int = 0
    remaining: int = 0


class _Order(msgspec.Struct, frozen=True):
    """What a run is asked for."""

    limit: int
    max_attempts: int
    stop: Stop
    resource: str | None = None
    tenant: str | None = None


def settle(row: Claimed, result: Result, *, max_attempts: int, now_ms: int) -> Settled:
    """Decide an entry's next state from its verdict; no I/O."""
    waiting = "purging" if row.state == "purging" and not row.final else "queued"
    if result.verdict is Verdict.UNTRIED:
        return Settled(row.id, waiting, row.error, untried=True)
    if result.verdict is Verdict.RETRY:
        if row.attempts >= max_attempts:
            return Settled(row.id, "dead", result.reason)
        wait_ms = int(back_off_s(row.attempts, base_s=1, cap_s=deletions.MAX_WAIT_MS / 1000) * 1000)
        return Settled(row.id, waiting, result.reason, not_before_ms=now_ms + wait_ms)
    if result.verdict is Verdict.MISSING and row.final and row.attempts > 1 and row.identity:
        return Settled(row.id, "purged")  # an earlier attempt unlinked it and could not say so
    found = result.identity
    identity = (found.dev, found.ino, found.size, found.mtime_ns) if found else None
    return Settled(row.id, result.verdict.value, result.reason or None, identity=identity)


def tally(results: Sequence[Result]) -> CleanupResult:
    """Count verdicts; what was not tried was not processed."""
    tried = [each.verdict for each in results if each.verdict is not Verdict.UNTRIED]
    removed = sum(each in {Verdict.TRASHED, Verdict.PURGED} for each in tried)
    missing = tried.count(Verdict.MISSING)
    return CleanupResult(len(tried), removed, missing, len(tried) - removed - missing)


def printable(path: bytes) -> str:
    """Write a path for a log: control characters, bidi marks and stray bytes escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Cleaner:
    """Works the queue when rung, when something falls due, and when asked to."""

    def __init__(self, store: Store, depots: Mapping[str, Depot]) -> None:
        self._store = store
        self._depots = depots
        self._limiter = anyio.CapacityLimiter(_LANES)
        self._bell = anyio.Event()
        self._over = False
        self._held: set[int] = set()
        store.on_commit.append(self._on_commit)

    def _on_commit(self, commit: Commit) -> None:
        if commit.deletions:
            self._bell.set()

    def ring(self) -> None:
        """Wake the loop: there may be something to do."""
        self._bell.set()

    async def work(self) -> None:
        """Work the queue until cancelled; the batch in hand is recorded then, cut short at the next file."""
        self._over = False
        async with anyio.create_task_group() as group:
            group.start_soon(self._hear_the_end)
            troubles = 0
            while True:
                begun = time.monotonic()
                try:
                    await self._work_until_trouble()
                except (BulkopsError, sqlite3.Error, OSError) as error:
                    troubles = troubles + 1 if time.monotonic() - begun < _MAX_SLEEP_S else 1
                    _log.warning("CLEANUP_TROUBLE error=%s: %s", type(error).__name__, error)
                    await anyio.sleep(back_off_s(troubles, base_s=1, cap_s=_MAX_SLEEP_S))

    async def _hear_the_end(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._over = True

    async def _work_until_trouble(self) -> None:
        while True:
            self._bell = anyio.Event()  # before the look: a ring in between is not lost
            wait_s = await self._until_due_s()
            if wait_s > 0:
                with anyio.move_on_after(wait_s):
                    await self._bell.wait()
            else:
                await self.drain(stop=lambda: self._over)

    async def _until_due_s(self) -> float:
        now_ms = self._store.clock.now_ms()
        due_ms = await self._store.read(
            lambda connection: deletions.next_due_ms(connection, now_ms, held=self._held)
        )
        return _MAX_SLEEP_S if due_ms is None else min(_MAX_SLEEP_S, (due_ms - now_ms) / 1000)

    async def drain(
        self, *, batch_size: int = BATCH_SIZE, max_attempts: int = MAX_ATTEMPTS, stop: Stop = never
    ) -> CleanupResult:
        """Work batches, two at a time, until nothing is due or ``stop`` says so.

        Raises:
            sqlite3.Error: our database cannot be written now; what was in hand will be worked again.
        """
        done: list[CleanupResult] = []
        troubles: list[Exception] = []
        order = _Order(batch_size, max_attempts, lambda: bool(troubles) or stop())

        async def lane() -> None:
            try:
                rows = await self._exchange([], order)
                while rows:
                    results, rows = await self._work_batch(rows, order, go_on=True)
                    done.append(tally(results))
            except (BulkopsError, sqlite3.Error, OSError) as error:
                troubles.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(_LANES):
                group.start_soon(lane)
        if troubles:
            raise troubles[0]
        return await self._with_remaining(done, None)

    async def run_once(
        self,
        batch_size: int,
        max_attempts: int,
        *,
        deadline_s: float | None = None,
        resource: str | None = None,
        tenant: str | None = None,
    ) -> CleanupResult:
        """Work one batch of what is due now; at the deadline the rest of it goes back in line untried.

        ``remaining`` counts what is still to do, whether due or waiting for its next attempt.

        Raises:
            sqlite3.Error: our database cannot be written now.
        """
        until = None if deadline_s is None else time.monotonic() + deadline_s

        def stop() -> bool:
            return self._over or (until is not None and time.monotonic() >= until)

        order = _Order(batch_size, max_attempts, stop, resource, tenant)
        rows = await self._exchange([], order)
        results, _ = await self._work_batch(rows, order, go_on=False) if rows else ([], [])
        return await self._with_remaining([tally(results)], tenant)

    async def _with_remaining(self, done: list[CleanupResult], tenant: str | None) -> CleanupResult:
        stats = await self._store.read(lambda connection: deletions.stats(connection, tenant=tenant))
        return CleanupResult(
            sum(each.processed for each in done),
            sum(each.removed for each in done),
            sum(each.missing for each in done),
            sum(each.failed for each in done),
            stats.pending,
        )

    async def _work_batch(
        self, rows: list[Claimed], order: _Order, *, go_on: bool
    ) -> tuple[list[Result], list[Claimed]]:
        """Work claimed entries and record them; with ``go_on`` the next ones are claimed along with that."""
        started = time.monotonic()
        results = dict.fromkeys((row.id for row in rows), Result(Verdict.UNTRIED))
        following: list[Claimed] = []
        try:
            await self._judge(rows, results, order)
        except BaseException:
            go_on = False
            raise
        finally:
            now_ms = self._store.clock.now_ms()
            settled = [
                settle(row, results[row.id], max_attempts=order.max_attempts, now_ms=now_ms) for row in rows
            ]
            with anyio.move_on_after(_RECORD_TIMEOUT_S, shield=True):
                following = await self._exchange(settled, order if go_on else None)
        found = [results[row.id] for row in rows]
        self._report(rows, found, time.monotonic() - started)
        return found, following

    async def _exchange(self, settled: list[Settled], order: _Order | None) -> list[Claimed]:
        """Record what was done and claim what is next (without an order nothing), in one transaction."""
        rows: list[Claimed] = []

        def exchange(tx: Tx) -> None:
            if settled:
                deletions.record(tx, settled)
            if order is not None and not order.stop():
                held, resource, tenant = self._held, order.resource, order.tenant
                rows.extend(deletions.claim(tx, order.limit, held=held, resource=resource, tenant=tenant))
                # In the writer's thread, before another claim can run.
                self._held.update([row.id for row in rows])

        try:
            await self._store.write(exchange)
        except BaseException:  # not committed, or cancelled while it was: nobody works them
            self._held.difference_update([row.id for row in rows])
            raise
        finally:  # unrecorded, they are due again, which does no harm
            self._held.difference_update([each.id for each in settled])
            self._bell.set()
        return rows

    async def _judge(self, rows: list[Claimed], results: dict[int, Result], order: _Order) -> None:
        """Fill in verdicts, storage by storage; what is cancelled stays untried."""
        groups: dict[str, list[Claimed]] = {}
        for row in rows:
            if row.attempts > order.max_attempts:  # its attempts never ended: they took the process with them
                results[row.id] = Result(Verdict.RETRY, row.error or "no attempt came to an end")
            else:
                groups.setdefault(row.storage, []).append(row)
        for name, group in groups.items():
            depot = self._depots.get(name)
            if depot is None:
                lost = Result(Verdict.RETRY, f"the storage {name} is not configured")
                results.update(dict.fromkeys((row.id for row in group), lost))
                continue
            free = await self._unshared(depot, group, results)
            if isinstance(depot.storage, LocalStorage):
                await self._work_local(depot.storage, free, results, order.stop)
            else:
                await self._work_custom(depot.storage, free, results, order.stop)

    async def _unshared(self, depot: Depot, rows: list[Claimed], results: dict[int, Result]) -> list[Claimed]:
        """Give ``shared`` to entries whose file another live row names, and return the others."""
        at_source = [row for row in rows if row.state == "moving" or row.final]
        if depot.shared_among is None or not at_source:
            return rows
        try:
            shared = await depot.shared_among([row.path for row in at_source])
        except Exception as error:  # noqa: BLE001  whatever the target's driver or a host's function raises
            left = Result(Verdict.RETRY, f"cannot tell whether other rows name it: {error}")
            shared = {row.path for row in at_source}
        else:
            left = Result(Verdict.SHARED, "another row names it")
        results.update(dict.fromkeys((row.id for row in at_source if row.path in shared), left))
        return [row for row in rows if results[row.id] is not left]

    async def _work_local(
        self, storage: LocalStorage, rows: list[Claimed], results: dict[int, Result], stop: Stop
    ) -> None:
        """Move, remove or purge in one thread call; the verdicts are kept even if we are cancelled."""
        moving = [row for row in rows if row.state == "moving"]
        removing = [row for row in rows if row.state == "purging" and row.final]
        purging = [row for row in rows if row.state == "purging" and not row.final]

        def act() -> None:
            for act_on, some in (
                (storage.move, moving),
                (storage.remove, removing),
                (storage.purge, purging),
            ):
                if some:
                    verdicts = act_on([entry_of(row) for row in some], stop=stop)
                    results.update(zip((row.id for row in some), verdicts, strict=True))

        await anyio.to_thread.run_sync(act, limiter=self._limiter)

    async def _work_custom(
        self, storage: Storage, rows: list[Claimed], results: dict[int, Result], stop: Stop
    ) -> None:
        if stop() or not rows:
            return
        keys = [row.path.decode("utf-8", "surrogateescape") for row in rows]
        try:
            with anyio.fail_after(_STORAGE_TIMEOUT_S):
                verdicts = read_outcomes(keys, await self._ask(storage, keys))
        except Exception as error:  # noqa: BLE001  a host's class may raise anything; its files wait
            verdicts = [Result(Verdict.RETRY, f"{type(error).__name__}: {error}")] * len(rows)
        results.update(zip((row.id for row in rows), verdicts, strict=True))

    async def _ask(self, storage: Storage, keys: list[str]) -> Outcomes:
        def delete() -> Outcomes | Awaitable[Outcomes]:
            return storage.delete(keys)

        if inspect.iscoroutinefunction(storage.delete):
            answer = delete()
        else:
            answer = await anyio.to_thread.run_sync(delete, abandon_on_cancel=True, limiter=self._limiter)
        return await answer if inspect.isawaitable(answer) else answer

    def _report(self, rows: list[Claimed], results: list[Result], seconds: float) -> None:
        done = tally(results)
        _log.info(
            "CLEANUP_BATCH processed=%d removed=%d missing=%d failed=%d ms=%d",
            *(done.processed, done.removed, done.missing, done.failed, int(seconds * 1000)),
        )
        bad = [(row, each) for row, each in zip(rows, results, strict=True) if each.reason]
        for row, result in bad[:_MAX_LOGGED]:
            _log.warning(
                "CLEANUP_FILE entry=%d storage=%s path=%s verdict=%s reason=%s",
                *(row.id, row.storage, printable(row.path), result.verdict.value, result.reason),
            )
        if len(bad) > _MAX_LOGGED:
            _log.warning("CLEANUP_FILE more=%d", len(bad) - _MAX_LOGGED)


def entry_of(row: Claimed) -> Entry:
    """Turn a row of the queue into what a storage acts on."""
    return Entry(row.path, row.trash.encode(), Identity(*row.identity) if row.identity else None)
