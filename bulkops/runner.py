"""Runs one job for a slice: from the state its row is in, batch after batch, until somebody else's turn.

What comes in: a job this worker has claimed; what goes out: committed batches and a job that is ended,
paused or back in line. Memory holds nothing that counts: whatever happens between two commits is found
out again from our database and the target (see `resources/contract.py`).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import anyio
import msgspec

from bulkops import accounting, chains, joblog
from bulkops.accounting import BatchPage, HeldElsewhere, Tempo
from bulkops.database import primary_code
from bulkops.decisions import Next, page_limit
from bulkops.drafting import Drafting, open_drafting, sweep, without
from bulkops.drafts import Drafts
from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo, all_or_nothing
from bulkops.errors import ConfigError, Halt, JobFailed, Transient
from bulkops.giveback import FileReturn
from bulkops.ids import wire_id
from bulkops.models import Throttle
from bulkops.progress import Live, Progress
from bulkops.resources.contract import Batches, Query, Resource, Turn
from bulkops.states import Status
from bulkops.store import exceptions, intents, jobs, manifests, trash
from bulkops.store.intents import Intent
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import back_off_s

T = TypeVar("T")

_SLICE_S: Final = 0.1
_ANNOUNCE_S: Final = 0.25
_CHANGED_S: Final = 1.0
#: A stretch of work longer than this was not work but a suspended process.
_MAX_BATCH_S: Final = 10.0
_PATIENT_GAP_S: Final = 0.05
#: How long a batch may take that locks nothing and only goes into the job's file, while no job waits for a worker.
_WRITE_S: Final = 0.2
#: How long code that is not ours may go on when the house closes; less than the house itself waits.
_LEAVE_S: Final = 5.0
#: How often a fault is tried again before the job is paused with its code.
_TRIES: Final = {"TARGET_LOCKED": 24, "DISK_FULL": 3, "IO_ERROR": 5}
_log = logging.getLogger("bulkops.runner")


class House:
    """What a runner shares with its kind: the store, the resources, and whether the house is closing."""

    def __init__(
        self,
        store: Store,
        resources: Mapping[str, Resource],
        progress: Progress,
        files: FileReturn,
        drafts: Drafts,
    ) -> None:
        self.store = store
        self.drafts = drafts
        self.resources = resources
        self.progress = progress
        self.files = files
        self.stopping = False
        #: Jobs in line when last looked; a slice ends early only when somebody waits.
        self.waiting = 0
        #: Workers that have nothing to do.
        self.idle = 0
        #: Jobs ended by force: a batch of theirs that is still under way must not commit.
        self.revoked: set[str] = set()

    @property
    def crowded(self) -> bool:
        """Say whether a job waits for a worker and every worker has one."""
        return self.waiting > 0 and not self.idle

    def resource_of(self, job: JobRow) -> Resource:
        """Return the job's resource.

        Raises:
            Halt: (``CONFIG_CHANGED``) it is not configured any more, or not as it was.
        """
        resource = self.resources.get(job.resource)
        if resource is None:
            raise Halt("CONFIG_CHANGED", f"resource {job.resource!r} is not configured any more")
        if resource.identity != job.identity:
            raise Halt(
                "CONFIG_CHANGED",
                f"resource {job.resource!r} is configured otherwise than when this job began",
            )
        return resource


def query_of(job: JobRow) -> Query:
    """Return a job's frozen selection as its resource understands it."""
    return Query(
        action=job.action, options=job.options, tenant=job.tenant, filter=job.selection.filter or {},
        bound=job.selection.bound, stamp_ms=job.selection.stamp_ms,
    )  # fmt: skip


async def run_slice(house: House, job: JobRow) -> None:
    """Work on a claimed job for a while; every way out leaves its row telling the truth."""
    step = None
    try:
        step = await _Slice(house, job).run()
    except HeldElsewhere:
        _log.warning("SLICE_LOST job=%s", job.id)
    except (Halt, ConfigError) as error:
        await halt_job(house, job, error)
    except JobFailed as error:
        await fail_job(house, job, error)
    except sqlite3.Error as error:
        await _back_off(house, job, store_trouble(error))
    except Exception:  # noqa: BLE001  one job's trouble must not take its worker along
        _log.exception("SLICE_BROKE job=%s", job.id)
        await fail_job(house, job, JobFailed("INTERNAL", "an error in bulkops itself; see the log"))
    if step is not Next.RELEASE and house.drafts.close(job.id):
        await sweep_drafts(house)


async def sweep_drafts(house: House) -> None:
    """Remove files that jobs made and nobody wants any more; what stays for now goes in the janitor's next round."""
    try:
        await sweep(house.store, house.drafts)
    except (OSError, sqlite3.Error) as error:
        _log.warning("SWEEP_FAILED error=%s", type(error).__name__)


def _fresh(tx: Tx, job: JobRow) -> JobRow | None:
    row = jobs.get(tx.connection, job.id)
    return row if row is not None and row.worker == job.worker and not row.terminal else None


async def halt_job(house: House, job: JobRow, error: Halt | ConfigError) -> None:
    """Back off, or pause a job that could not go on for the reason given."""
    if isinstance(error, Transient):
        await _back_off(house, job, error)
        return
    reason = error if isinstance(error, Halt) else Halt("CONFIG_CHANGED", str(error))
    await _persist(house, lambda tx: _halt(tx, job, reason))


def _halt(tx: Tx, job: JobRow, reason: Halt) -> None:
    row = _fresh(tx, job)
    if row is None:
        return
    if row.status is Status.CANCELLING:
        accounting.cancel(tx, row, held=True)
    else:
        accounting.pause(tx, row, code=reason.code, message=reason.message)


def store_trouble(error: sqlite3.Error) -> Transient:
    """Say what an error of our own database means for a job."""
    code = "DISK_FULL" if primary_code(error) == sqlite3.SQLITE_FULL else "IO_ERROR"
    return Transient(code, f"our database: {error}")


async def fail_job(house: House, job: JobRow, error: JobFailed) -> None:
    """End a job that can never go on."""
    code, message = error.code, error.message
    await _persist(house, lambda tx: _fail(tx, job, code, message))


def _fail(tx: Tx, job: JobRow, code: str, message: str) -> None:
    # An intent that is still open stays so: a resume finds out what became of its batch.
    row = _fresh(tx, job)
    if row is not None:
        accounting.fail(tx, row, code=code, message=message)


async def _back_off(house: House, job: JobRow, fault: Transient) -> None:
    live = house.progress.of(job.id)
    live.tries += 1
    if live.tries > _TRIES.get(fault.code, 5):
        live.tries = 0
        live.throttle = None
        await _persist(house, lambda tx: _halt(tx, job, fault))
        return
    wait_s = back_off_s(live.tries, base_s=0.2, cap_s=10)
    live.throttle = Throttle(round(wait_s, 3), fault.code.lower())
    _log.info("BACK_OFF job=%s code=%s try=%d", job.id, fault.code, live.tries)

    def release(tx: Tx) -> None:
        row = _fresh(tx, job)
        if row is None:
            return
        if row.status in (Status.CANCELLING, Status.PAUSING):
            _settle_request(tx, row)
        else:
            jobs.release(tx, row, not_before_ms=tx.now_ms + int(wait_s * 1000))
            jobs.announce(tx, row, "updated")

    await _persist(house, release)


def _settle_request(tx: Tx, job: JobRow) -> None:
    if job.status is Status.CANCELLING:
        accounting.cancel(tx, job, held=True)
    else:
        accounting.pause(tx, job, code="USER", message="paused by hand")


async def _persist(house: House, work: Callable[[Tx], T], *, live: Live | None = None) -> T | None:
    """Write to our database, patiently: a full disk of ours must not lose what the target already knows.

    Gives up only when the house closes; the next start finds out what was not written.
    """
    tries = 0
    while True:
        try:
            return await house.store.write(work)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            tries += 1
            _log.error("STORE_TROUBLE try=%d error=%s", tries, error)
            if house.stopping and tries > 3:
                return None
            wait_s = back_off_s(tries, base_s=0.1, cap_s=5)
            if live is not None:
                live.throttle = Throttle(round(wait_s, 3), store_trouble(error).code.lower())
            await anyio.sleep(wait_s)


class _Slice:
    """One worker's stretch on one job."""

    def __init__(self, house: House, job: JobRow) -> None:
        self._house = house
        self._job = job
        self._live: Live = house.progress.of(job.id)
        self._began = time.monotonic()
        self._mark = self._began
        self._resource: Resource | None = None
        self._batches: Batches | None = None
        self._drafting: Drafting | None = None
        self._waited_s = 0.0
        self._batch_began = self._began
        #: How long the job still has to leave its target alone, at the pace that was asked for.
        self._rest_s = 0.0

    async def run(self) -> Next | None:
        """Settle what was asked meanwhile, catch up after a crash, then work batch after batch."""
        if self._job.frozen:
            resource = self._house.resource_of(self._job)
            await resource.open()
            self._resource = resource
            step = await self._prepare(resource)
            if step is not Next.GO:
                self._log_end()
                return step
        if self._job.status in (Status.PAUSING, Status.CANCELLING):
            await _persist(self._house, self._settle)
            return None
        if self._job.batch == 0:
            await self._log_start()
        step = Next.GO
        while step is Next.GO:
            step = await self._next_batch()
        self._live.ids = []
        if step is not Next.RELEASE:
            self._live.throttle = None
            self._log_end()
        return step

    async def _prepare(self, resource: Resource) -> Next:
        job = self._job
        origin = await self._origin()
        self._batches = await resource.batches(query_of(origin or job), undo=job.kind == "undo")
        house = self._house
        self._drafting = await open_drafting(house.store, house.drafts, job, resource, self._batches)
        return await self._catch_up(self._batches)

    async def _origin(self) -> JobRow | None:
        """Return the job that this one undoes: its action is what is turned back."""
        undo_of = self._job.undo_of
        if undo_of is None:
            return None
        origin = await self._house.store.read(lambda connection: jobs.get(connection, undo_of))
        if origin is None:
            raise JobFailed("NOT_FOUND", "the job to undo is forgotten")
        return origin

    def _settle(self, tx: Tx) -> None:
        row = _fresh(tx, self._job)
        if row is not None:
            _settle_request(tx, row)

    def _fence(self, page: BatchPage | None = None) -> Fence:
        job = self._job
        if page is None:
            return Fence(job.id, job.tenant, self._house.store.generation, job.batch, job.cursor)
        return Fence(job.id, job.tenant, self._house.store.generation, job.batch + 1, page.first + page.count)

    def _turn(self, items: int = 0) -> Turn:
        job_id = self._job.id
        revoked = self._house.revoked
        return Turn(
            gap=self._gap, commit_guard=lambda: job_id not in revoked, atomic=self._job.knobs.atomic,
            stop=lambda: job_id in revoked or self._live.poke.is_set() or self._house.stopping,
            patience=self._patience, items=items, log=joblog.ItemLines(job_id),
        )  # fmt: skip

    def _patience(self) -> float | None:
        if self._job.id in self._house.revoked:
            return 0.0
        return _LEAVE_S if self._house.stopping else None

    def _gap(self, hold_s: float) -> float:
        """Return the pause that the target itself needs; a job's own throttle is waited for elsewhere."""
        assert self._resource is not None
        return 0.0 if self._job.knobs.throttle_ms == 0 else self._resource.auto_gap(hold_s)

    def _resource_hold_s(self) -> float:
        assert self._resource is not None
        return self._resource.auto_hold()

    async def _catch_up(self, batches: Batches) -> Next:
        """Account for what the last life of this process did and could not write down any more.

        That may have been the job's last batch, or end its slice: say what comes next.
        """
        job = self._job
        intent = await self._house.store.read(lambda connection: intents.read(connection, job.id))
        ahead = await batches.begin(self._fence(), self._turn())
        if ahead is not None:
            page = await self._page(job.cursor, ahead.cursor - job.cursor)
            done = BatchResult(exceptions=ahead.exceptions)
            return await self._account(page, await self._write(page, done))
        if intent is not None:
            return await self._recover(batches, intent)
        return Next.GO

    async def _recover(self, batches: Batches, intent: Intent) -> Next:
        page = await self._page(intent.first, intent.count)
        kept = await self._kept(page.todo)
        step = Next.GO
        with anyio.CancelScope(shield=True):
            turn = self._turn(page.count)
            result = await batches.recover(page.todo, intent.data, self._fence(page), turn, kept)
            if result is None:
                job = self._job
                await _persist(self._house, lambda tx: accounting.withdraw_batch(tx, job, intent))
            else:
                page = page.cut(result.until)
                step = await self._account(page, await self._write(page, result))
        return step

    async def _page(self, first: int, limit: int) -> BatchPage:
        job_id = self._job.id

        def read(connection: sqlite3.Connection) -> BatchPage:
            page = manifests.page(connection, job_id, first, limit)
            known = exceptions.within(connection, job_id, first, len(page.ids))
            unfit = {each.position for each in known}
            left = [index for index in range(len(page.ids)) if first + index not in unfit] if unfit else None
            if left is None:
                todo = Todo(range(first, first + len(page.ids)), page.ids, page.origins)
            else:
                origins = [page.origins[index] for index in left] if page.origins else []
                todo = Todo([first + index for index in left], [page.ids[index] for index in left], origins)
            return BatchPage(first=first, ids=page.ids, known=known, todo=todo)

        return await self._house.store.read(read)

    async def _kept(self, todo: Todo) -> dict[int, Image] | None:
        """Return the images of the items to put back, by their positions in this job."""
        origin = self._job.undo_of
        if origin is None:
            return None
        places = dict(zip(todo.origins, todo.positions, strict=True))
        kept = await self._house.store.read(lambda connection: trash.images(connection, origin, todo.origins))
        return {places[position]: image for position, image in kept.items()}

    async def _next_batch(self) -> Next:
        job = self._job
        size = page_limit(
            job.knobs.batch_size or self._live.size, cursor=job.cursor, stretch_items=job.stretch_items,
            canary=job.knobs.canary, max_items=job.knobs.max_items,
        )  # fmt: skip
        if job.knobs.atomic:
            size = max(1, job.total or 1)
        self._batch_began = time.monotonic()
        page = await self._page(job.cursor, size)
        self._live.ids = [wire_id(item) for item in page.ids[:100]]
        with anyio.CancelScope(shield=True):
            step = await self._do_batch(page)
        return await self._wait() if step is Next.GO else step

    async def _do_batch(self, page: BatchPage) -> Next:
        batches = self._batches
        assert batches is not None
        if page.count == 0:
            return await self._account_nothing()
        if self._job.knobs.atomic:
            _refuse_partial(page)
        todo, stuck = await self._give_files_back(page)
        plan = await batches.plan(todo, await self._kept(todo), stuck)
        if plan.announce:
            job = self._job
            # Nothing is done yet: if this cannot be written, the job backs off like for any other trouble.
            status = await self._house.store.write(lambda tx: accounting.announce_batch(tx, job, page, plan))
            if status is not Status.RUNNING:
                return await self._account_nothing()
        try:
            result = await batches.apply(plan, todo, self._fence(page), self._turn(page.count))
            page = page.cut(result.until)
            only_written = self._drafting is not None and result.hold_s == 0
            result = await self._write(page, result)
            page = page.cut(result.until)
        except (Halt, JobFailed) as error:
            await self._leave_batch(page, plan, untouched=isinstance(error, JobFailed) or error.untouched)
            raise
        self._live.tries = 0
        if page.count == 0:  # asked to stop in the midst of the first item
            return await self._account_nothing()
        wanted_s = _WRITE_S if only_written and not self._house.crowded else self._resource_hold_s()
        self._live.adapt(
            result.hold_s, page.count, wanted_s=wanted_s, images=bool(plan.images), only_written=only_written
        )
        return await self._account(page, result)

    async def _write(self, page: BatchPage, result: BatchResult) -> BatchResult:
        """Write a batch that was applied into the job's file, where it makes one; the last one makes it whole."""
        if self._drafting is None:
            return result
        began = time.monotonic()
        failed, until = await self._drafting.write(without(page.todo, result.exceptions))
        if failed and self._job.knobs.atomic:
            raise all_or_nothing(failed)
        if until is None:
            await self._finish_file(page.first + page.count)
        else:
            early = [each for each in result.exceptions if each.position < until]
            result = msgspec.structs.replace(result, exceptions=early, until=until)
        return msgspec.structs.replace(
            result,
            exceptions=result.exceptions + failed,
            hold_s=result.hold_s + time.monotonic() - began,
        )

    async def _leave_batch(self, page: BatchPage, plan: Plan, *, untouched: bool) -> None:
        """Withdraw a batch that did not happen, announce one of which nobody knows.

        What others do to its rows meanwhile must not be taken for its work; no cancel must pass it by.
        """
        job = self._job
        intent = Intent(job.batch + 1, page.first, page.count, plan.data)
        if untouched and plan.announce:
            await _persist(self._house, lambda tx: accounting.withdraw_batch(tx, job, intent))
        elif not untouched and not plan.announce:
            await _persist(self._house, lambda tx: intents.write(tx, job.id, intent))

    async def _give_files_back(self, page: BatchPage) -> tuple[Todo, list[ItemException]]:
        origin = self._job.undo_of
        if origin is None:
            return page.todo, []
        troubles = await self._house.files.give_back(origin, page.todo)
        stuck = {each.position for each in troubles}
        if not stuck:
            return page.todo, []
        left = [index for index, position in enumerate(page.todo.positions) if position not in stuck]
        todo = Todo(
            [page.todo.positions[index] for index in left],
            [page.todo.ids[index] for index in left],
            [page.todo.origins[index] for index in left],
        )
        return todo, troubles

    async def _account(self, page: BatchPage, result: BatchResult) -> Next:
        now = time.monotonic()
        live = self._live
        # A request committed before the write below is seen in the row it returns; one after pokes again.
        live.poke.clear()
        live.changed += page.count
        self._rest_s = self._wanted_rest(page.count)
        rate = live.measure(page.count, now)
        announce = now - live.announced_at >= _ANNOUNCE_S
        tell_changed = live.changed if now - live.changed_at >= _CHANGED_S else 0
        tempo = self._tempo(now, rate=rate, announce=announce, tell_changed=tell_changed)
        job = self._job
        written = await _persist(
            self._house, lambda tx: accounting.account_batch(tx, job, page, result, tempo), live=live
        )
        if written is None:
            return Next.RELEASE
        if announce:
            live.announced_at = now
        if tell_changed:
            live.changed_at, live.changed = now, 0
        self._job, step = written
        return step.next

    async def _account_nothing(self) -> Next:
        """Take the next step without a batch: there is none left, or the job was asked to stop."""
        job = self._job
        await self._finish_file(job.cursor)
        self._live.poke.clear()
        tempo = self._tempo(time.monotonic(), rate=job.rate, announce=False, tell_changed=0)

        def step(tx: Tx) -> tuple[JobRow, Next]:
            row = _fresh(tx, job)
            if row is None:
                raise HeldElsewhere(job.id)
            moved, taken = accounting.take_step(tx, row, before=row.cursor, tempo=tempo)
            return moved, taken.next

        written = await _persist(self._house, step)
        if written is None:
            return Next.RELEASE
        self._job, taken = written
        return taken

    async def _finish_file(self, cursor: int) -> None:
        if self._drafting is not None and cursor >= (self._job.total or 0):
            await self._drafting.finish()

    def _tempo(self, now: float, *, rate: float | None, announce: bool, tell_changed: int) -> Tempo:
        # The job's own throttle is part of its runtime; a suspended process is not.
        active_s = min(now - self._mark, _MAX_BATCH_S + self._waited_s)
        self._mark = now
        over = now - self._began >= _SLICE_S or self._rest_s > _PATIENT_GAP_S
        return Tempo(
            active_ms=round(active_s * 1000),
            rate=rate,
            stopping=self._house.stopping,
            slice_over=self._house.crowded and over,
            rest_ms=round(self._rest_s * 1000),
            announce=announce,
            tell_changed=tell_changed,
            written=None if self._drafting is None else self._drafting.written,
            followers=lambda job: chains.followers(self._resource, job, self._house.store.clock.now_ms()),
        )

    async def _wait(self) -> Next:
        """Keep the pace that was asked for; a request ends the wait, others in line take the worker over."""
        live = self._live
        self._waited_s = self._rest_s
        until = time.monotonic() + self._rest_s
        while self._rest_s > 0:
            live.wake.clear()
            if live.poke.is_set():
                # What was asked may be another pace: it holds from the next batch on.
                self._rest_s = 0.0
                return await self._account_nothing()
            if self._house.stopping or (self._house.crowded and self._rest_s > _PATIENT_GAP_S):
                return await self._account_nothing()
            with anyio.move_on_after(self._rest_s):
                await live.wake.wait()
            self._rest_s = max(0.0, until - time.monotonic())
        return Next.GO

    def _wanted_rest(self, items: int) -> float:
        """Say how long to wait after a batch, and show why."""
        knobs = self._job.knobs
        rest_s, reason = (knobs.throttle_ms or 0) / 1000, "throttle_ms"
        if knobs.max_items_per_second:
            paced_s = items / knobs.max_items_per_second - (time.monotonic() - self._batch_began)
            if paced_s > rest_s:
                rest_s, reason = paced_s, "max_items_per_second"
        self._live.throttle = Throttle(round(rest_s, 3), reason) if rest_s > _PATIENT_GAP_S else None
        return rest_s

    async def _log_start(self) -> None:
        page = await self._page(0, 20)
        joblog.job_started(self._job, [wire_id(item) for item in page.ids])

    def _takes_folders(self) -> bool:
        job, resource = self._job, self._resource
        on_folders = resource is not None and resource.kind == "folder"
        return on_folders and job.kind == "act" and job.action in ("delete", "purge")

    def _log_end(self) -> None:
        if self._job.terminal:
            if self._takes_folders():
                joblog.purge_summary(self._job)
            joblog.job_done(self._job)
            joblog.job_summary(self._job)
            self._house.progress.forget(self._job.id)


def _refuse_partial(page: BatchPage) -> None:
    if page.known:
        raise all_or_nothing(page.known)
