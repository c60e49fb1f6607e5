"""The promises of a resource, one check each: selecting, acting, pausing, crashing, undoing.

What comes in: a `Subject`; what goes out: nothing, or an AssertionError that says which promise is broken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio

from bulkops.models import ItemsQuery, JobView, UndoBody
from bulkops.testing.bench import OWNER, opened
from bulkops.testing.crashes import POINTS, crashing
from bulkops.testing.subject import Check, Subject, Unsupported

#: What an item that went away meanwhile may be called.
_GONE: Final = frozenset({"CONFLICT", "NOT_FOUND"})


# --- selecting -------------------------------------------------------------------------------------------


async def lists_what_is_there(subject: Subject) -> None:
    """The list, the count and the preview name the items that are there, each once; looking changes nothing."""
    before = _items(subject)
    async with opened(subject) as bench:
        listed = await bench.listed()
        assert sorted(listed) == sorted(before), "the list is not what is there"
        page = await bench.runtime.service.items(OWNER, subject.resource, ItemsQuery(limit=2))
        assert len(page["items"]) == 2, "a page has as many items as asked for"
        info = await bench.runtime.service.info(OWNER, subject.resource)
        assert info["counts"]["total"] == len(before), "the count is not what is there"
        names = [action["name"] for action in info["actions"]]
        assert subject.action in names, f"{subject.action} is not among {names}"
        preview = await bench.preview(all=True)
        assert (preview.matched, preview.eligible_count) == (len(before), len(before))
    assert subject.look() == before, "looking changed something"


async def finds_by_id(subject: Subject) -> None:
    """By ids exactly those are found; a repeated one counts once, and one that is not there is named."""
    before = _items(subject)
    one, other = list(before)[:2]
    async with opened(subject) as bench:
        preview = await bench.preview(ids=[one, other, one, subject.unknown])
        assert preview.duplicates == 1
        assert preview.matched == 3
        assert sorted(preview.eligible) == sorted([one, other])
        assert [(each.id, each.code) for each in preview.ineligible] == [(subject.unknown, "NOT_FOUND")]
        job = await bench.run(ids=[one, subject.unknown])
        _ended(job, total=2, succeeded=1, skipped=1)
        assert await bench.outcomes(job.id) == {
            one: ("succeeded", None), subject.unknown: ("skipped", "NOT_FOUND")
        }  # fmt: skip
    _done_are(subject, before, {one})


async def leaves_out_what_is_excluded(subject: Subject) -> None:
    """All but the excluded ones are acted on."""
    before = _items(subject)
    kept = set(list(before)[1:3])
    async with opened(subject) as bench:
        job = await bench.run(all=True, exclude_ids=sorted(kept))
        _ended(job, total=len(before) - 2, succeeded=len(before) - 2)
    _done_are(subject, before, set(before) - kept)


async def takes_what_was_frozen(subject: Subject) -> None:
    """What appears after the selection was frozen is not touched."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, canary=1)
        assert (job.status, job.processed) == ("paused", 1), f"a canary of one left {job.processed} done"
        late = subject.add()
        job = await bench.resumed(job.id)
        _ended(job, total=len(before), succeeded=len(before))
    assert late in subject.look(), "what came later was taken too"
    _done_are(subject, before, set(before))


# --- acting ----------------------------------------------------------------------------------------------


async def acts_on_all(subject: Subject) -> None:
    """Every item is acted on and accounted for, and told so when asked."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True)
        _ended(job, total=len(before), succeeded=len(before))
        assert job.outcome == "ok"
        assert await bench.outcomes(job.id) == dict.fromkeys(before, ("succeeded", None))
    _done_are(subject, before, set(before))


async def isolates_a_failure(subject: Subject) -> None:
    """An item that cannot be acted on fails alone, with a code; all others are done."""
    before = _items(subject)
    bad = list(before)[2]
    subject.spoil(bad)
    before = subject.look()
    async with opened(subject) as bench:
        job = await bench.run(all=True, batch_size=len(before))
        _ended(job, total=len(before), succeeded=len(before) - 1, failed=1)
        assert job.outcome == "partial"
        outcome, code = (await bench.outcomes(job.id))[bad]
        assert outcome == "failed"
        assert code, "a failure has a code"
        errors = await bench.runtime.service.job_errors(OWNER, job.id)
        assert [(each.code, each.count) for each in errors["items"]] == [(code, 1)]
    _done_are(subject, before, set(before) - {bad})


async def passes_over_what_is_gone(subject: Subject) -> None:
    """An item that goes away between selection and its turn is skipped, and no error."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, canary=1)
        done = {
            item for item, (outcome, _) in (await bench.outcomes(job.id)).items() if outcome == "succeeded"
        }
        lost = next(item for item in reversed(list(before)) if item not in done)
        subject.take_away(lost)
        job = await bench.resumed(job.id)
        _ended(job, total=len(before), succeeded=len(before) - 1, skipped=1)
        outcome, code = (await bench.outcomes(job.id))[lost]
        assert outcome == "skipped"
        assert code in _GONE, f"it went away and is told as {code}"
    _done_are(subject, before, set(before) - {lost}, gone={lost})


# --- pausing, cancelling, going on -----------------------------------------------------------------------


async def pauses_and_goes_on(subject: Subject) -> None:
    """A paused job touches nothing; resumed, it does exactly the rest."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.start(all=True, batch_size=1, throttle_ms=100)
        await bench.until(job.id, lambda view: view.processed >= 1)
        await bench.runtime.service.pause(OWNER, job.id)
        job = await bench.rested(job.id)
        assert job.status == "paused", f"it is {job.status}, although there was more to do"
        done = {
            item for item, (outcome, _) in (await bench.outcomes(job.id)).items() if outcome == "succeeded"
        }
        assert len(done) == job.processed == job.succeeded
        _done_are(subject, before, done)
        job = await bench.resumed(job.id)
        _ended(job, total=len(before), succeeded=len(before))
    _done_are(subject, before, set(before))


async def cancels_between_batches(subject: Subject) -> None:
    """A cancelled job leaves what it did not reach, and its report tells both apart."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, canary=2)
        await bench.runtime.service.cancel(OWNER, job.id)
        job = await bench.rested(job.id)
        assert (job.status, job.processed) == ("cancelled", 2)
        lines = await bench.report(job.id)
        told = {line["id"]: line["outcome"] for line in lines}
        assert sorted(told) == sorted(before), "the report names every item once"
        done = {item for item, outcome in told.items() if outcome == "succeeded"}
        assert sorted(told.values()) == ["succeeded"] * 2 + ["unprocessed"] * (len(before) - 2)
    _done_are(subject, before, done)


async def goes_on_after_a_stop(subject: Subject) -> None:
    """A house that closes ends the batch in hand; the next one does the rest by itself."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.start(all=True, batch_size=1, throttle_ms=100)
        await bench.until(job.id, lambda view: view.processed >= 1)
    assert subject.look() != before
    async with opened(subject) as bench:
        _ended(await bench.rested(job.id), total=len(before), succeeded=len(before))
    _done_are(subject, before, set(before))


async def reports_every_item(subject: Subject) -> None:
    """The completion report has one line an item, in both formats, before and after a restart."""
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True)
        lines = await bench.report(job.id)
        assert sorted(line["id"] for line in lines) == sorted(before)
        assert {line["outcome"] for line in lines} == {"succeeded"}
        assert await bench.report(job.id, outcome="failed") == []
        table = await bench.report_text(job.id, "csv")
        assert len(table.splitlines()) == len(before) + 1
    async with opened(subject) as bench:
        assert await bench.report(job.id) == lines


# --- crashing --------------------------------------------------------------------------------------------


async def _survives(point: str, subject: Subject) -> None:
    before = _items(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, canary=1, batch_size=2)
    async with crashing(subject, point) as bench:
        await bench.runtime.service.resume(OWNER, job.id)
        await anyio.sleep_forever()
    async with opened(subject) as bench:
        job = await bench.rested(job.id)
        _ended(job, total=len(before), succeeded=len(before))
        assert await bench.outcomes(job.id) == dict.fromkeys(before, ("succeeded", None))
    _done_are(subject, before, set(before))


async def _survives_in_an_undo(point: str, subject: Subject) -> None:
    before = _items(subject)
    _need_undo(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, batch_size=2)
        _ended(job, total=len(before), succeeded=len(before))
    async with crashing(subject, point) as bench:
        undoing, _ = await bench.runtime.service.undo(OWNER, job.id, UndoBody())
        await anyio.sleep_forever()
    async with opened(subject) as bench:
        _ended(await bench.rested(undoing.id), total=len(before), succeeded=len(before))
    assert subject.look() == before, "what was undone is not as it was"


def _at(check: Callable[[str, Subject], Awaitable[None]], point: str) -> Check:
    async def made(subject: Subject) -> None:
        await check(point, subject)

    made.__name__ = f"{check.__name__.removeprefix('_')}_a_crash_when_{point}"
    made.__doc__ = check.__doc__
    return made


# --- undoing ---------------------------------------------------------------------------------------------


async def undoes_all(subject: Subject) -> None:
    """An undo puts everything back as it was, and cannot be done twice."""
    before = _items(subject)
    _need_undo(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, batch_size=3)
        assert job.undo_until is not None, "a job that can be undone says until when"
        undone = await bench.undone(job.id)
        _ended(undone, total=len(before), succeeded=len(before))
        assert subject.look() == before, "what was undone is not as it was"
        again = await bench.undone(job.id)
        assert again.succeeded == len(before) if again.id == undone.id else again.succeeded == 0
    assert subject.look() == before


async def undoes_some(subject: Subject) -> None:
    """An undo of some items puts back those and no others."""
    before = _items(subject)
    _need_undo(subject)
    wanted = set(list(before)[1:3])
    async with opened(subject) as bench:
        job = await bench.run(all=True)
        _ended(await bench.undone(job.id, ids=sorted(wanted)), total=2, succeeded=2)
    _done_are(subject, before, set(before) - wanted)


async def undoes_what_a_cancelled_job_did(subject: Subject) -> None:
    """What a cancelled job did can be undone, and only that is."""
    before = _items(subject)
    _need_undo(subject)
    async with opened(subject) as bench:
        job = await bench.run(all=True, canary=3)
        await bench.runtime.service.cancel(OWNER, job.id)
        await bench.rested(job.id)
        _ended(await bench.undone(job.id), total=3, succeeded=3)
    assert subject.look() == before


async def says_what_is_final(subject: Subject) -> None:
    """An action without an undo says so beforehand, and an undo of it is refused."""
    before = _items(subject)
    async with opened(subject) as bench:
        preview = await bench.preview(all=True)
        warned = "FINAL" in {warning.code for warning in preview.warnings}
        assert warned is not subject.reversible, "the preview and the subject disagree about the undo"
        if not subject.reversible:
            job = await bench.run(all=True)
            assert job.undo_until is None
            assert "undo" not in job.allowed_actions
            _done_are(subject, before, set(before))


CHECKS: Final[tuple[Check, ...]] = (
    lists_what_is_there,
    finds_by_id,
    leaves_out_what_is_excluded,
    takes_what_was_frozen,
    acts_on_all,
    isolates_a_failure,
    passes_over_what_is_gone,
    pauses_and_goes_on,
    cancels_between_batches,
    goes_on_after_a_stop,
    reports_every_item,
    *(_at(_survives, point) for point in POINTS),
    undoes_all,
    undoes_some,
    undoes_what_a_cancelled_job_did,
    *(_at(_survives_in_an_undo, point) for point in POINTS),
    says_what_is_final,
)


# --- how it is done --------------------------------------------------------------------------------------


def _items(subject: Subject) -> dict[str, Any]:
    found = subject.look()
    if len(found) < 7:
        raise ValueError(f"the suite needs seven items at least, the subject has {len(found)}")
    return found


def _need_undo(subject: Subject) -> None:
    if not subject.reversible:
        raise Unsupported("the action is final")


def _ended(job: JobView, *, total: int, succeeded: int, failed: int = 0, skipped: int = 0) -> None:
    told = (job.status, job.total, job.succeeded, job.failed, job.skipped)
    wanted = ("completed", total, succeeded, failed, skipped)
    reason = job.error or job.status_reason or job.last_error
    assert told == wanted, f"(status, total, succeeded, failed, skipped) is {told}, not {wanted}: {reason}"
    assert job.processed == job.total


def _done_are(
    subject: Subject, before: Mapping[str, Any], done: set[str], *, gone: set[str] | None = None
) -> None:
    """Hold the items against how they were: the done ones differ, all others are as before."""
    after = subject.look()
    for item, was in before.items():
        if item in (gone or ()):
            continue
        same = item in after and after[item] == was
        assert same is not (item in done), f"item {item} was {'not acted on' if same else 'touched'}"
