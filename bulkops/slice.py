"""One worker's stretch on one job: from the state its row is in, batch after batch, until somebody else's turn.

What comes in: a job this worker has claimed; what goes out: committed batches, and what is to come next. Memory
holds nothing that counts: whatever happens between two commits is found out again from our database and the target
(see `resources/contract.py`). What stops a slice in its midst is raised, and judged in `runner`.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_right
from typing import Final, cast

import anyio
import msgspec

from bulkops import accounting, chains, joblog
from bulkops.accounting import BatchPage, HeldElsewhere, Tempo, held_row, settle_request
from bulkops.decisions import Next, page_limit
from bulkops.drafting import Drafting, open_drafting, without
from bulkops.effects import BatchResult, Fence, Image, ItemException, Plan, Todo, all_or_nothing
from bulkops.errors import Halt, JobFailed
from bulkops.house import House, query_of
from bulkops.ids import wire_id
from bulkops.models import Throttle
from bulkops.progress import Live
from bulkops.resources.contract import Batches, Resource, Together, Turn
from bulkops.states import Status
from bulkops.store import audit, exceptions, intents, jobs, manifests, trash
from bulkops.store.intents import Intent
from bulkops.store.jobs import JobRow
from bulkops.store.transaction import Tx

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


class Slice:
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
        self._unwritten = False
        #: Where the batches began of the job that is undone, once asked for.
        self._begun: list[int] | None = None
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
            await self._house.persist(self._settle)
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
        try:
            self._drafting = await open_drafting(house.store, house.drafts, job, resource, self._batches)
        except Halt:
            if not self._file_goes_anyway:
                raise
            self._unwritten = True
        return await self._catch_up(self._batches)

    @property
    def _file_goes_anyway(self) -> bool:
        """Say whether all there is to do is to say what a cancelled job did."""
        return self._job.status is Status.CANCELLING

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
        row = held_row(tx, self._job)
        if row is not None:
            settle_request(tx, row)

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
            reviewed=job_id in self._house.reviewed,
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
        self._house.reviewed.discard(job.id)
        if ahead is not None:
            page = await self._page(job.cursor, ahead.cursor - job.cursor)
            done = BatchResult(exceptions=ahead.exceptions)
            return await self._account(page, await self._write_if_need_be(page, done))
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
                await self._house.persist(lambda tx: accounting.withdraw_batch(tx, job, intent))
            else:
                page = page.cut(result.until)
                step = await self._account(page, await self._write_if_need_be(page, result))
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
        page = await self._page(job.cursor, await self._with_what_went_together(size))
        self._live.ids = [wire_id(item) for item in page.ids[:100]]
        with anyio.CancelScope(shield=True):
            step = await self._do_batch(page)
        return await self._wait() if step is Next.GO else step

    async def _with_what_went_together(self, size: int) -> int:
        """Say how large a batch of an undo has to be so that it ends where a batch of the job it undoes began."""
        job, origin, batches = self._job, self._job.undo_of, cast("object", self._batches)
        if origin is None or not (isinstance(batches, Together) and batches.together):
            return size

        def count(connection: sqlite3.Connection) -> int:
            if self._begun is None:
                self._begun = audit.batches(connection, origin)
            places = manifests.page(connection, job.id, job.cursor, size).origins
            index = bisect_right(self._begun, places[-1]) if places else 0
            first = self._begun[index - 1] if index else 0
            left = places[-1] - first if places else 0
            more = manifests.page(connection, job.id, job.cursor + size, left).origins if left else []
            return size + sum(place >= first for place in more)

        return await self._house.store.read(count)

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

    async def _write_if_need_be(self, page: BatchPage, result: BatchResult) -> BatchResult:
        """Write what an earlier life applied; a disk that does not take it keeps no cancelled job from its end."""
        try:
            return await self._write(page, result)
        except Halt:
            if not self._file_goes_anyway:
                raise
            self._drafting, self._unwritten = None, True
            return result

    async def _leave_batch(self, page: BatchPage, plan: Plan, *, untouched: bool) -> None:
        """Withdraw a batch that did not happen, announce one of which nobody knows.

        What others do to its rows meanwhile must not be taken for its work; no cancel must pass it by.
        """
        job = self._job
        intent = Intent(job.batch + 1, page.first, page.count, plan.data)
        if untouched and plan.announce:
            await self._house.persist(lambda tx: accounting.withdraw_batch(tx, job, intent))
        elif not untouched and not plan.announce:
            await self._house.persist(lambda tx: intents.write(tx, job.id, intent))

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
        self._rest_s = self._wanted_rest(page.count)
        rate = live.measure(page.count, now)
        announce = now - live.announced_at >= _ANNOUNCE_S
        tell_changed = now - live.changed_at >= _CHANGED_S
        tempo = self._tempo(now, rate=rate, announce=announce, tell_changed=tell_changed)
        job = self._job
        written = await self._house.persist(
            lambda tx: accounting.account_batch(tx, job, page, result, tempo), live=live
        )
        if written is None:
            return Next.RELEASE
        if announce:
            live.announced_at = now
        if tell_changed:
            live.changed_at = now
        self._job, step = written
        return step.next

    async def _account_nothing(self) -> Next:
        """Take the next step without a batch: there is none left, or the job was asked to stop."""
        job = self._job
        await self._finish_file(job.cursor)
        self._live.poke.clear()
        tempo = self._tempo(time.monotonic(), rate=job.rate, announce=False, tell_changed=False)

        def step(tx: Tx) -> tuple[JobRow, Next]:
            row = held_row(tx, job)
            if row is None:
                raise HeldElsewhere(job.id)
            moved, taken = accounting.take_step(tx, row, before=row.cursor, tempo=tempo)
            return moved, taken.next

        written = await self._house.persist(step)
        if written is None:
            return Next.RELEASE
        self._job, taken = written
        return taken

    async def _finish_file(self, cursor: int) -> None:
        if self._drafting is not None and cursor >= (self._job.total or 0):
            await self._drafting.finish()

    def _tempo(self, now: float, *, rate: float | None, announce: bool, tell_changed: bool) -> Tempo:
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
            unwritten=self._unwritten,
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
