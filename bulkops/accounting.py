"""What becomes of a job in our database: batches announced and accounted for, statuses moved, events told.

Each function is one transaction's worth of work on an open `Tx`; together with its event a change is
durable or it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from bulkops.decisions import Next, Standing, Step, decide
from bulkops.effects import BatchResult, Id, ItemException, Plan, Todo, Written
from bulkops.ids import wire_id
from bulkops.labels import task_done
from bulkops.models import ItemError
from bulkops.states import Status, sources_of
from bulkops.store import (
    artifacts,
    claims,
    deletions,
    events,
    exceptions,
    intents,
    jobs,
    manifests,
    tasks,
    trash,
)
from bulkops.store.audit import append as audit
from bulkops.store.intents import Intent
from bulkops.store.jobs import Counts, JobRow
from bulkops.store.transaction import Tx

_MAX_LIVE_ITEMS: Final = 100
#: No batch is larger than this.
_MAX_BATCH: Final = 10_000


class HeldElsewhere(Exception):
    """The job is not this worker's any more; nothing was written."""


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as the manifest has it: all its ids, those known unfit beforehand, and what is left to do."""

    first: int
    ids: list[Id]
    known: list[ItemException]
    todo: Todo

    @property
    def count(self) -> int:
        return len(self.ids)

    def cut(self, until: int | None) -> BatchPage:
        """Return the part before a position of the manifest, all of it for ``None``."""
        if until is None or until >= self.first + self.count:
            return self
        left = [index for index, position in enumerate(self.todo.positions) if position < until]
        todo = Todo(
            [self.todo.positions[index] for index in left],
            [self.todo.ids[index] for index in left],
            [self.todo.origins[index] for index in left] if self.todo.origins else (),
        )
        known = [each for each in self.known if each.position < until]
        return BatchPage(first=self.first, ids=self.ids[: until - self.first], known=known, todo=todo)


class Tempo(msgspec.Struct, frozen=True, kw_only=True):
    """How the batch went, how long to rest after it, and what of it is told now.

    ``written`` is how far the job's file is, for jobs that make one; ``unwritten``: that of a job which is to be
    cancelled cannot be written any more. ``followers`` makes the jobs that begin
    when the one given completes.
    """

    active_ms: int
    rate: float | None
    stopping: bool
    slice_over: bool
    rest_ms: int
    announce: bool
    tell_changed: bool
    written: Written | None = None
    unwritten: bool = False
    followers: Callable[[JobRow], Sequence[JobRow]] = lambda _: ()


def held_row(tx: Tx, job: JobRow) -> JobRow | None:
    """Return a job as it is now; ``None`` when it has ended or is not its worker's any more."""
    row = jobs.get(tx.connection, job.id)
    return row if row is not None and row.worker == job.worker and not row.terminal else None


def announce_batch(tx: Tx, job: JobRow, page: BatchPage, plan: Plan) -> Status:
    """Make a plan durable before its effect; return the job's status, which may forbid going on.

    Raises:
        HeldElsewhere: the job is not this worker's any more.
    """
    now = jobs.get(tx.connection, job.id)
    if now is None or now.worker != job.worker or now.batch != job.batch:
        raise HeldElsewhere(job.id)
    if now.status is Status.RUNNING:
        intents.write(tx, job.id, Intent(job.batch + 1, page.first, page.count, plan.data))
        trash.write_tentative(tx, job.id, plan.images, resource=job.resource, tenant=job.tenant)
        deletions.insert_tentative(tx, job.id, plan.files, resource=job.resource, tenant=job.tenant)
    return now.status


def withdraw_batch(tx: Tx, job: JobRow, intent: Intent) -> None:
    """Forget an announced batch of which nothing happened."""
    trash.withdraw(tx, job.id, intent.first, intent.count)
    deletions.withdraw(tx, job.id, intent.first, intent.count)
    intents.close(tx, job.id)


def account_batch(
    tx: Tx, job: JobRow, page: BatchPage, result: BatchResult, tempo: Tempo
) -> tuple[JobRow, Step]:
    """Add a batch to its job, settle what it announced, and take the next step.

    Raises:
        HeldElsewhere: the job is not this worker's any more, or the batch is accounted for already.
    """
    found = page.known + result.exceptions
    row = jobs.account(
        tx, job, _count(page, found), active_ms=tempo.active_ms, rate=tempo.rate,
        last_error=_last_error(found), batch_failed=result.whole_failed,
    )  # fmt: skip
    if row is None:
        raise HeldElsewhere(job.id)
    exceptions.record(tx, job.id, result.exceptions)
    if tempo.written is not None:
        artifacts.advance(tx, job.id, tempo.written)
    audit(
        tx, user=job.requested_by, tenant=job.tenant, verb="batch", job=job.id, resource=job.resource,
        detail={"batch": row.batch, "first": page.first, "count": page.count, "exceptions": len(found),
                "cascaded": result.cascaded},
    )  # fmt: skip
    untouched = [each.position for each in found]
    trash.settle(tx, job.id, page.first, page.count, untouched=untouched)
    deletions.settle(tx, job.id, page.first, page.count, untouched=untouched)
    trash.write_kept(tx, job.id, result.images, resource=job.resource, tenant=job.tenant)
    deletions.insert_trashed(tx, job.id, result.files, resource=job.resource, tenant=job.tenant)
    intents.close(tx, job.id)
    if job.undo_of is not None:
        _empty_trash(tx, job.undo_of, page, set(untouched))
        _take_files_again(tx, job.undo_of, page, set(untouched))
    if row.terminal:
        _note_late(tx, row)
        return row, Step(Next.CANCEL)
    if tempo.tell_changed and row.cursor < (row.total or 0):  # the last batch tells at its job's end
        _tell_changed(tx, row)
    return take_step(tx, row, before=job.cursor, tempo=tempo, items=live_items(page, found))


def _note_late(tx: Tx, job: JobRow) -> None:
    """Tell of a batch whose COMMIT came back after its job was ended by force: it is done, and can be undone."""
    _keep_undo(tx, job)
    _tell_changed(tx, job)
    jobs.announce(tx, job, "updated")
    audit(
        tx, user=job.requested_by, tenant=job.tenant, verb="settled", job=job.id, resource=job.resource,
        detail={"succeeded": job.succeeded, "failed": job.failed, "skipped": job.skipped},
    )  # fmt: skip


def _count(page: BatchPage, found: list[ItemException]) -> Counts:
    failed = sum(each.outcome == "failed" for each in found)
    skipped = len(found) - failed
    return Counts(page.count - failed - skipped, failed, skipped)


def _last_error(found: list[ItemException]) -> ItemError | None:
    failures = [each for each in found if each.outcome == "failed"]
    return ItemError(failures[-1].code, failures[-1].message, failures[-1].item) if failures else None


def _empty_trash(tx: Tx, origin: str, page: BatchPage, untouched: set[int]) -> None:
    back = [
        place
        for position, place in zip(page.todo.positions, page.todo.origins, strict=True)
        if position not in untouched
    ]
    trash.drop(tx, origin, back)


def _take_files_again(tx: Tx, origin: str, page: BatchPage, untouched: set[int]) -> None:
    """Put the files of items that did not return in line again: they were given back beforehand."""
    places = [
        place
        for position, place in zip(page.todo.positions, page.todo.origins, strict=True)
        if position in untouched
    ]
    if places:
        deletions.back_again(tx, [row.id for row in deletions.for_items(tx.connection, origin, places)])


def live_items(page: BatchPage, found: list[ItemException]) -> list[dict[str, Any]]:
    """Return up to 100 outcomes of a batch for those who watch; failures first."""
    shown = [
        {"id": each.item, "outcome": each.outcome, "code": each.code, "ms": None}
        for each in sorted(found, key=lambda each: each.outcome)[:_MAX_LIVE_ITEMS]
    ]
    odd = {each.position for each in found}
    for index in range(page.count - 1, -1, -1):
        if len(shown) >= _MAX_LIVE_ITEMS:
            break
        if page.first + index not in odd:
            shown.append({"id": wire_id(page.ids[index]), "outcome": "succeeded", "code": None, "ms": None})
    return shown


def take_step(
    tx: Tx, job: JobRow, *, before: int, tempo: Tempo, items: list[dict[str, Any]] | None = None
) -> tuple[JobRow, Step]:
    """Decide what the job does next and move it there; a job that goes on tells its progress when due."""
    step = decide(
        Standing(
            status=job.status,
            total=job.total or 0,
            before=before,
            cursor=job.cursor,
            stretch_ms=job.stretch_ms,
            stretch_items=job.stretch_items,
            stretch_failed=job.stretch_failed,
            batch_failures=job.batch_failures,
            max_runtime_s=job.knobs.max_runtime_s,
            max_items=job.knobs.max_items,
            max_batch_failures=job.knobs.max_batch_failures,
            failure_threshold=job.knobs.failure_threshold,
            canary=job.knobs.canary,
            stopping=tempo.stopping,
            slice_over=tempo.slice_over,
        )
    )
    if tempo.unwritten:
        step = Step(Next.CANCEL)
    if tempo.announce or step.next not in {Next.GO, Next.RELEASE}:
        jobs.announce(tx, job, "progress", items=items)
    if step.next is Next.RELEASE:
        claims.release(tx, job, not_before_ms=tx.now_ms + tempo.rest_ms if tempo.rest_ms else 0)
    moved = _move(tx, job, step, tempo)
    return moved or job, step


def _move(tx: Tx, job: JobRow, step: Step, tempo: Tempo) -> JobRow | None:
    if step.next is Next.COMPLETE:
        return finish(tx, job, tempo.written, tempo.followers(job))
    if step.next is Next.CANCEL:
        return cancel(tx, job, held=True)
    if step.next is Next.PAUSE:
        return pause(tx, job, code=step.code, message=step.message)
    return None


def finish(
    tx: Tx, job: JobRow, written: Written | None = None, followers: Sequence[JobRow] = ()
) -> JobRow | None:
    """End a job whose every item is accounted for; its file, which is ``written`` to the end, is ready.

    ``followers`` begin in the same transaction: with the job's end they are there, exactly once.
    """
    if written is not None:
        artifacts.complete(tx, job.id, written)
    _keep_undo(tx, job)
    _tell_changed(tx, job)
    done = jobs.complete(tx, job)
    if done is not None:
        for follower in followers:
            _begin(tx, follower, after=done)
    return _ended(tx, done)


def _begin(tx: Tx, job: JobRow, *, after: JobRow) -> None:
    jobs.insert(tx, job)
    audit(tx, user=job.requested_by, tenant=job.tenant, verb="start", job=job.id, resource=job.resource,
          detail={"action": job.action, "after": after.id})  # fmt: skip


def cancel(tx: Tx, job: JobRow, *, held: bool) -> JobRow | None:
    """End a job for good, what is done stays done; ``None`` when it cannot be now.

    A job that nobody works on and whose last batch is still to be explained is handed to a worker for that:
    until then nobody can say what was done.
    """
    if not held and intents.read(tx.connection, job.id) is not None:
        return jobs.request_cancel(tx, job.id, unheld=True)
    if job.status not in sources_of(Status.CANCELLED) or not (held or job.worker is None):
        return None
    artifacts.abandon(tx, job.id)
    _keep_undo(tx, job)
    _leave_files(tx, job)
    _tell_changed(tx, job)
    return _ended(tx, jobs.cancel(tx, job.id, held=held))


def fail(tx: Tx, job: JobRow, *, code: str, message: str) -> JobRow | None:
    """End a job that can never go on."""
    artifacts.abandon(tx, job.id)
    _keep_undo(tx, job)
    _leave_files(tx, job)
    _tell_changed(tx, job)
    return _ended(tx, jobs.fail(tx, job.id, code=code, message=message))


def pause(tx: Tx, job: JobRow, *, code: str, message: str) -> JobRow | None:
    """Pause the job this worker holds; at its runtime cap it may come back by itself."""
    resume_ms = 0
    if code == "RUNTIME_CAP" and job.knobs.auto_resume_s is not None:
        resume_ms = tx.now_ms + int(job.knobs.auto_resume_s * 1000)
    audit(tx, user=job.requested_by, tenant=job.tenant, verb="paused", job=job.id, resource=job.resource,
          detail={"code": code, "processed": job.cursor})  # fmt: skip
    return jobs.pause(tx, job.id, code=code, message=message, held=True, resume_ms=resume_ms)


def settle_request(tx: Tx, job: JobRow) -> None:
    """Do what was asked of a job that is ``cancelling`` or ``pausing``, and that the calling worker holds."""
    if job.status is Status.CANCELLING:
        cancel(tx, job, held=True)
    else:
        pause(tx, job, code="USER", message="paused by hand")


def _leave_files(tx: Tx, job: JobRow) -> None:
    """Take files again that an undo gave back for a batch that it will not do any more."""
    if job.undo_of is None or not job.frozen:
        return
    origins = manifests.page(tx.connection, job.id, job.cursor, _MAX_BATCH).origins
    places = trash.kept_among(tx.connection, job.undo_of, origins)
    if places:
        found = deletions.for_items(tx.connection, job.undo_of, places)
        deletions.back_again(tx, [row.id for row in found])


def _keep_undo(tx: Tx, job: JobRow) -> None:
    if job.succeeded and job.undo_ms:
        jobs.set_undo_until(tx, job.id, tx.now_ms + job.undo_ms)


def _tell_changed(tx: Tx, job: JobRow) -> None:
    """Tell lists to look again: at which items when the job changed few so far, else at how many."""
    if job.succeeded and not _only_exported(tx, job):
        events.changed(tx, job, ids=_few_changed(tx, job), count=job.succeeded)


def _few_changed(tx: Tx, job: JobRow) -> list[str] | None:
    if job.cursor > events.MAX_NAMED_IDS:
        return None
    passed = manifests.page(tx.connection, job.id, 0, job.cursor).ids
    untouched = {each.position for each in exceptions.within(tx.connection, job.id, 0, job.cursor)}
    return [wire_id(native) for position, native in enumerate(passed) if position not in untouched]


def _only_exported(tx: Tx, job: JobRow) -> bool:
    """Say whether a job does nothing to its items but write them down: no list has to look again."""
    return any(made.kind == "export" for made in artifacts.of_job(tx.connection, job.id))


def _ended(tx: Tx, job: JobRow | None) -> JobRow | None:
    if job is None:
        return None
    audit(
        tx, user=job.requested_by, tenant=job.tenant, verb=job.status, job=job.id, resource=job.resource,
        detail={"total": job.total, "succeeded": job.succeeded, "failed": job.failed, "skipped": job.skipped},
    )  # fmt: skip
    if job.task_id is not None:
        _tell_task(tx, job.task_id)
    return job


def _tell_task(tx: Tx, task_id: str) -> None:
    task = tasks.get(tx.connection, task_id)
    if task is None or tasks.count_unfinished(tx.connection, task_id) or not tasks.end(tx, task_id):
        return
    summary = tasks.summary(tx.connection, task_id)
    done_well = summary.status == Status.COMPLETED and not summary.failed
    events.task_completed(
        tx,
        task,
        {
            "status": summary.status,
            "label": task.label,
            "message": task_done(task.type) if done_well else None,
            "total": summary.total,
            "processed": summary.processed,
            "failed": summary.failed,
        },
    )
