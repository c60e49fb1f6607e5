"""Reads: every question a caller may ask, and that what is not theirs answers like what never was."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from bulkops import joblog
from bulkops.effects import Id, ItemException
from bulkops.errors import Refusal
from bulkops.models import Caller, JobsQuery, JobView
from bulkops.progress import Progress
from bulkops.service import uploads
from bulkops.service.audit import Audit
from bulkops.service.items import Items
from bulkops.service.jobs import Jobs
from bulkops.service.tasks import Tasks
from bulkops.settings import ServerSettings, Settings
from bulkops.store import audit, events, jobs, retention, tasks
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import OWNER, START_MS, a_caller, a_job, stored, take

ANA = a_caller("ana", "operator", "acme")
BOB = a_caller("bob", "operator", "acme")
RIVAL = a_caller("eve", "owner", "rival")


class Reads:
    """Every question that changes nothing, as the service has them."""

    def __init__(self, store: Store, settings: Settings) -> None:
        of_jobs, of_items, of_tasks = Jobs(store, settings, Progress()), Items(store), Tasks(store, settings)
        self.bells = of_jobs.bells
        self.jobs = of_jobs.jobs
        self.job = of_jobs.job
        self.job_items = of_jobs.job_items
        self.job_errors = of_jobs.job_errors
        self.job_log = of_jobs.job_log
        self.report = of_jobs.report
        self.tasks = of_tasks.tasks
        self.task = of_tasks.task
        self.trash = of_items.trash
        self.history = of_items.history
        self.audit = Audit(store).audit
        self.upload_selection = partial(uploads.upload, store)


@pytest.fixture
def reads(store: Store, tmp_path: Path) -> Reads:
    server = ServerSettings(data_dir=str(tmp_path))
    return Reads(store, Settings(file=None, base=tmp_path, server=server, resources={}))


async def refusal_of(answer: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await answer
    return refusal.value


async def a_finished_job(store: Store, **fields: Any) -> JobRow:
    job = a_job(tenant="acme", total=4, succeeded=2, failed=1, skipped=1, outcome="partial", **fields)
    ids: list[Id] = ["a", "=b", "c", "d"]
    lost = [
        ItemException(1, "=b", "failed", "CONSTRAINT", "+ no, not this"),
        ItemException(2, "c", "skipped", "PROTECTED", "pinned"),
    ]
    return await stored(store, job, ids, lost)


# One rule for all


Question = Callable[[Reads, Caller, str], Awaitable[object]]
ABOUT_A_JOB: dict[str, Question] = {
    "job": lambda reads, caller, job: reads.job(caller, job),
    "job that waits": lambda reads, caller, job: reads.job(caller, job, wait_s=30),
    "items": lambda reads, caller, job: reads.job_items(caller, job),
    "errors": lambda reads, caller, job: reads.job_errors(caller, job),
    "log": lambda reads, caller, job: reads.job_log(caller, job),
    "report": lambda reads, caller, job: reads.report(caller, job),
}


@pytest.mark.parametrize("question", ABOUT_A_JOB)
async def test_a_strangers_job_answers_like_one_that_never_was(
    store: Store, reads: Reads, question: str
) -> None:
    job = await a_finished_job(store)
    ask = ABOUT_A_JOB[question]
    await ask(reads, ANA, job.id)
    unknown = await refusal_of(ask(reads, ANA, "01JUNKNOWN"))
    for stranger in (RIVAL, BOB):
        foreign = await refusal_of(ask(reads, stranger, job.id))
        assert (foreign.code, foreign.detail, foreign.extra) == (unknown.code, unknown.detail, unknown.extra)
    assert (unknown.code, unknown.detail) == ("NOT_FOUND", "no such job")


@pytest.mark.parametrize(
    "ask",
    [
        *ABOUT_A_JOB.values(),
        lambda reads, caller, _: reads.jobs(caller, JobsQuery()),
        lambda reads, caller, _: reads.tasks(caller),
        lambda reads, caller, _: reads.task(caller, "T"),
        lambda reads, caller, _: reads.trash(caller),
        lambda reads, caller, _: reads.history(caller, "receipts", "1"),
        lambda reads, caller, _: reads.audit(caller),
        lambda reads, caller, _: reads.upload_selection(caller, _no_ids()),
    ],
)
async def test_a_role_that_may_not_read_is_refused_before_anything_is_looked_up(
    reads: Reads, ask: Question
) -> None:
    refusal = await refusal_of(ask(reads, a_caller("svc", "service"), "01JUNKNOWN"))
    assert refusal.code == "FORBIDDEN"


async def _no_ids() -> AsyncIterator[list[str]]:
    for ids in list[list[str]]():
        yield ids


# Jobs


async def test_jobs_are_paged_newest_first_to_the_end(store: Store, reads: Reads) -> None:
    made = [(await stored(store, a_job(tenant="acme"))).id for _ in range(5)]
    found, page, pages = [], None, 0
    while True:
        answer = await reads.jobs(ANA, JobsQuery(limit=2, page=page))
        found += [view.id for view in answer["items"]]
        page, pages = answer["next"], pages + 1
        if page is None:
            break
    assert (found, pages) == (made[::-1], 3)
    assert (await reads.jobs(ANA, JobsQuery(limit=5)))["next"] is None
    assert (await reads.jobs(RIVAL, JobsQuery()))["items"] == []
    assert (await reads.jobs(ANA, JobsQuery(tenant="rival")))["items"] == []


async def test_several_statuses_may_be_asked_for(store: Store, reads: Reads) -> None:
    for status in ("running", "paused", "completed"):
        await stored(store, a_job(status))
    answer = await reads.jobs(OWNER, JobsQuery(status="paused,running"))
    assert [view.status for view in answer["items"]] == ["paused", "running"]
    refusal = await refusal_of(reads.jobs(OWNER, JobsQuery(status="runing")))
    assert refusal.extra["errors"][0]["pointer"] == "/status"
    assert 'did you mean "running"?' in refusal.detail


async def test_maintenance_is_shown_as_the_settings_say_unless_asked(store: Store, tmp_path: Path) -> None:
    await stored(store, a_job(source="maintenance"))
    for default in (False, True):
        server = ServerSettings(data_dir=str(tmp_path), show_maintenance=default)
        reads = Reads(store, Settings(file=None, base=tmp_path, server=server, resources={}))
        assert len((await reads.jobs(OWNER, JobsQuery()))["items"]) == default
        assert len((await reads.jobs(OWNER, JobsQuery(show_maintenance=not default)))["items"]) == (
            not default
        )


async def test_a_job_comes_with_the_cursor_of_the_same_moment(store: Store, reads: Reads) -> None:
    job = await stored(store, a_job())
    view = await reads.job(OWNER, job.id)
    assert view.cursor == await store.read(events.cursor)
    assert view.cursor == f"{store.epoch}:1"


async def _waiting(reads: Reads, job_id: str, wait_s: float = 30) -> JobView:
    with anyio.fail_after(20):
        return await reads.job(OWNER, job_id, wait_s=wait_s)


async def _until_waited_for(reads: Reads) -> None:
    with anyio.fail_after(10):
        while not reads.bells.waiting():
            await anyio.lowlevel.checkpoint()


async def test_waiting_ends_when_the_job_does_and_not_before(store: Store, reads: Reads) -> None:
    job = await stored(store, a_job("queued", total=1))
    views: list[JobView] = []

    async def wait() -> None:
        views.append(await _waiting(reads, job.id))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await _until_waited_for(reads)
        await store.write(lambda tx: jobs.pause(tx, job.id, code="USER", message="wait"))
        await store.read(lambda connection: jobs.get(connection, job.id))
        assert not views
        await store.write(lambda tx: jobs.cancel(tx, job.id))
    assert views[0].status == "cancelled"
    assert reads.bells.waiting() == 0


async def test_a_job_that_has_ended_is_not_waited_for(store: Store, reads: Reads) -> None:
    job = await stored(store, a_job())
    assert (await _waiting(reads, job.id)).terminal


async def test_waiting_gives_up_after_its_time(store: Store, reads: Reads) -> None:
    job = await stored(store, a_job("queued"))
    assert (await _waiting(reads, job.id, wait_s=0.01)).status == "queued"
    assert (await _waiting(reads, job.id, wait_s=-5)).status == "queued"
    assert (await _waiting(reads, job.id, wait_s=float("nan"))).status == "queued"


async def test_waiting_ends_when_the_process_is_about_to(store: Store, reads: Reads) -> None:
    job = await stored(store, a_job("queued"))
    async with anyio.create_task_group() as group:
        group.start_soon(_waiting, reads, job.id)
        await _until_waited_for(reads)
        reads.bells.release()
    assert (await _waiting(reads, job.id)).status == "queued"


# Items, errors, report, log


async def test_items_of_a_job_can_be_limited_and_paged(store: Store, reads: Reads) -> None:
    job = await a_finished_job(store)
    assert [item.id for item in (await reads.job_items(ANA, job.id, outcome="succeeded"))["items"]] == [
        "a",
        "d",
    ]
    first = await reads.job_items(ANA, job.id, limit=3)
    rest = await reads.job_items(ANA, job.id, limit=3, page=first["next"])
    assert [item.id for item in first["items"] + rest["items"]] == ["a", "=b", "c", "d"]
    assert rest["next"] is None
    bad: list[dict[str, Any]] = [{"outcome": "lost"}, {"limit": 0}, {"page": "x"}]
    for values in bad:
        refusal = await refusal_of(reads.job_items(ANA, job.id, **values))
        assert refusal.code == "INVALID_FIELD"


async def test_a_page_is_not_empty_while_something_is_left(
    store: Store, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.store.outcomes._MAX_CHUNKS", 1)
    job = a_job(total=5000, failed=4999, succeeded=1, outcome="partial")
    lost = [ItemException(place, str(place), "failed", "X", "m") for place in range(4999)]
    await stored(store, job, list(range(5000)), lost)
    answer = await reads.job_items(OWNER, job.id, outcome="succeeded")
    assert [item.id for item in answer["items"]] == ["4999"]


async def test_failures_are_told_by_code(store: Store, reads: Reads) -> None:
    job = await a_finished_job(store)
    (group,) = (await reads.job_errors(ANA, job.id))["items"]
    assert (group.code, group.count, group.first_item) == ("CONSTRAINT", 1, "=b")


async def _report(reads: Reads, job_id: str, **values: Any) -> str:
    chunks = [chunk async for chunk in await reads.report(OWNER, job_id, **values)]
    return b"".join(chunks).decode()


async def test_the_csv_report_is_safe_to_open(store: Store, reads: Reads) -> None:
    job = await a_finished_job(store)
    assert await _report(reads, job.id) == (
        "id,outcome,code,message\r\n"
        "a,succeeded,,\r\n"
        "'=b,failed,CONSTRAINT,\"'+ no, not this\"\r\n"
        "c,skipped,PROTECTED,pinned\r\n"
        "d,succeeded,,\r\n"
    )
    assert await _report(reads, job.id, outcome="unprocessed") == "id,outcome,code,message\r\n"


async def test_the_ndjson_report_has_a_line_an_item(store: Store, reads: Reads) -> None:
    job = await a_finished_job(store)
    lines = (await _report(reads, job.id, format="ndjson", outcome="failed")).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "=b", "outcome": "failed", "code": "CONSTRAINT", "message": "+ no, not this"}
    ]
    assert await _report(reads, job.id, format="ndjson", outcome="unprocessed") == ""


async def test_a_long_report_of_a_cancelled_job_is_complete(store: Store, reads: Reads) -> None:
    job = a_job("cancelled", total=9000, cursor=5000, succeeded=4999, failed=1)
    await stored(store, job, list(range(9000)), [ItemException(3000, "3000", "failed", "X", "m")])
    rows = list(csv.reader(io.StringIO(await _report(reads, job.id))))[1:]
    assert [int(row[0]) for row in rows] == list(range(9000))
    told = {"succeeded": 4999, "failed": 1, "unprocessed": 4000}
    for outcome, count in told.items():
        assert sum(row[1] == outcome for row in rows) == count
        assert (await _report(reads, job.id, outcome=outcome)).count("\r\n") == count + 1


async def test_a_report_tells_of_the_moment_it_was_asked_for(
    store: Store, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.service.jobs._REPORT_PAGE", 2)
    job = await stored(store, a_job("running", total=4, cursor=1), [1, 2, 3, 4])
    stream = await reads.report(OWNER, job.id)
    head = await anext(stream) + await anext(stream)

    def finish(tx: Any) -> None:
        tx.connection.execute("UPDATE jobs SET cursor = 4, succeeded = 4 WHERE id = ?", (job.id,))

    await store.write(finish)
    text = (head + b"".join([chunk async for chunk in stream])).decode()
    assert [line.split(",")[1] for line in text.splitlines()[1:]] == ["succeeded", *["unprocessed"] * 3]


async def test_a_report_breaks_off_rather_than_leave_out_what_is_being_removed(
    store: Store, reads: Reads
) -> None:
    job = await stored(store, a_job(total=5000), list(range(5000)))
    stream = await reads.report(OWNER, job.id)
    await anext(stream)
    await store.write(lambda tx: retention.remove_job(tx, job.id, before_ms=START_MS))
    assert (await refusal_of(anext(stream))).code == "NOT_FOUND"
    assert (await refusal_of(reads.job_items(OWNER, job.id))).code == "NOT_FOUND"


@pytest.mark.parametrize("values", [{"format": "xlsx"}, {"outcome": "lost"}])
async def test_a_bad_report_is_refused_before_its_first_byte(
    store: Store, reads: Reads, values: dict[str, str]
) -> None:
    job = await a_finished_job(store)
    refusal = await refusal_of(reads.report(OWNER, job.id, **values))
    assert refusal.extra["errors"][0]["pointer"] == f"/{next(iter(values))}"


async def test_the_log_of_a_job_has_its_lines_only(store: Store, reads: Reads, tmp_path: Path) -> None:
    job, other = await a_finished_job(store), await a_finished_job(store)
    assert [chunk async for chunk in await reads.job_log(ANA, job.id)] == []
    with joblog.log_to(tmp_path):
        for each in (job, other):
            joblog.job_summary(each)
        logging.getLogger("bulkops").info("something else")
    text = b"".join([chunk async for chunk in await reads.job_log(ANA, job.id)])
    (line,) = text.splitlines()
    assert json.loads(line)["msg"].startswith(f"BULK_JOB_SUMMARY job={job.id} total=4 deleted=2 failed=1")


# Tasks, trash, history, audit, uploads


async def test_tasks_are_paged_and_shown_one_by_one(store: Store, reads: Reads, clock: HandClock) -> None:
    for name in ("one", "two", "three"):
        await store.write(
            partial(tasks.ensure, task_id=name, task_type="change_commit", requested_by="ana", tenant="acme")
        )
        clock.advance(1)
    await stored(store, a_job(tenant="acme", task_id="one", total=2, cursor=1, status="paused"))
    first = await reads.tasks(ANA, limit=2)
    rest = await reads.tasks(ANA, limit=2, page=first["next"])
    assert [task.id for task in first["items"] + rest["items"]] == ["three", "two", "one"]
    assert rest["next"] is None
    task = await reads.task(ANA, "one")
    assert (task.label, task.status, task.total, task.processed, task.percent) == (
        "Commit changes", "paused", 2, 1, 50.0
    )  # fmt: skip
    assert [job.label for job in task.jobs] == ["Delete receipts"]
    for caller, name in ((RIVAL, "one"), (BOB, "one"), (ANA, "none")):
        assert (await refusal_of(reads.task(caller, name))).detail == "no such task"


async def test_the_trash_is_paged_to_the_end(store: Store, reads: Reads) -> None:
    job = await stored(store, a_job(tenant="acme"))
    await store.write(lambda tx: take(tx, job, ["a", "b", "c", "d"]))
    found, page, pages = [], None, 0
    while True:
        answer = await reads.trash(ANA, limit=2, page=page)
        found += [view.label for view in answer["items"]]
        page, pages = answer["next"], pages + 1
        if page is None:
            break
    assert (found, pages) == (["d", "c", "b", "a"], 2)
    assert [view.id for view in (await reads.trash(ANA, q="C"))["items"] if view.label == "c"] == ["id-c"]
    assert (await reads.trash(RIVAL))["items"] == []


async def test_the_history_of_an_item_names_the_jobs_that_touched_it(
    store: Store, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.service.items._LOOKED_INTO_AT_ONCE", 2)
    first = await a_finished_job(store)
    await stored(store, a_job(tenant="acme"), [1, 2, 3])
    await stored(store, a_job(tenant="acme", resource="photos"), ["a", "b", "c"])
    await stored(store, a_job("paused", tenant="acme", cursor=0), ["a"])
    await stored(store, a_job(tenant="rival", total=1), ["a"])
    last = await stored(store, a_job(tenant="acme", total=1, action="close"), ["a"])
    answer = await reads.history(ANA, "receipts", "a")
    assert [(touch.job, touch.outcome) for touch in answer["items"]] == [
        (last.id, "succeeded"),
        (first.id, "succeeded"),
    ]
    assert answer["next"] is None
    page = await reads.history(ANA, "receipts", "a", limit=1)
    assert [touch.job for touch in page["items"]] == [last.id]
    page = await reads.history(ANA, "receipts", "a", limit=1, page=page["next"])
    assert [touch.job for touch in page["items"]] == [first.id]
    (touch,) = (await reads.history(ANA, "receipts", "=b"))["items"]
    assert (touch.outcome, touch.code, touch.label) == ("failed", "CONSTRAINT", "Delete receipts")


async def test_a_history_looks_into_a_bounded_number_of_jobs_and_says_where_to_go_on(
    store: Store, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.service.items._LOOKED_INTO_AT_ONCE", 1)
    monkeypatch.setattr("bulkops.service.items._MAX_LOOKED_INTO", 2)
    wanted = await stored(store, a_job(total=1), ["a"])
    for _ in range(3):
        await stored(store, a_job(total=1), ["b"])
    empty = await reads.history(OWNER, "receipts", "a")
    assert empty["items"] == []
    answer = await reads.history(OWNER, "receipts", "a", page=empty["next"])
    assert [touch.job for touch in answer["items"]] == [wanted.id]


async def test_the_audit_is_for_admins_and_within_the_tenant(store: Store, reads: Reads) -> None:
    for tenant in ("acme", "rival"):
        for verb in ("start", "pause"):
            await store.write(partial(audit.append, user="ana", tenant=tenant, verb=verb, job=f"J-{tenant}"))
    admin = a_caller("ada", "admin", "acme")
    assert [row["verb"] for row in (await reads.audit(admin))["items"]] == ["pause", "start"]
    first = await reads.audit(OWNER, limit=3)
    assert len(first["items"]) == 3
    assert len((await reads.audit(OWNER, limit=3, page=first["next"]))["items"]) == 1
    assert len((await reads.audit(OWNER, tenant="rival"))["items"]) == 2
    assert (await reads.audit(admin, job="J-rival"))["items"] == []
    assert (await refusal_of(reads.audit(ANA))).code == "FORBIDDEN"


async def test_an_uploaded_list_is_answered_with_how_to_refer_to_it(store: Store, reads: Reads) -> None:
    async def ids() -> AsyncIterator[list[str]]:
        yield ["1", "2", "1"]

    receipt = await reads.upload_selection(ANA, ids())
    assert (receipt.count, receipt.duplicates) == (2, 1)
    assert (await refusal_of(reads.upload_selection(a_caller("v", "viewer"), ids()))).code == "FORBIDDEN"
