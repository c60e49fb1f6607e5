"""Verbs on jobs that exist, through the service of a running house."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from bulkops.errors import Refusal
from bulkops.models import KnobsBody, RetryBody, StartBody, UndoBody
from bulkops.runtime import Runtime
from bulkops.store import jobs
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339
from tests.engine_house import OWNER, execute, make_database, opened, rested, run, undo, until
from tests.store_house import a_caller

SCRIPT = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v);"
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
    " INSERT INTO t SELECT i, 'v' FROM n;"
)
RESOURCE = {"table": "t", "id": "id", "search": ["id"], "set": ["v"], "actions": {"set": {"exclusive": True}}}


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    make_database(tmp_path / "app.db", SCRIPT)
    async with opened(tmp_path, {"things": RESOURCE}) as running:
        yield running


async def slow(runtime: Runtime) -> str:
    """Start a job that has done ten items and waits a minute before the next."""
    view = await runtime.service.start(
        OWNER, "things", "delete", StartBody(all=True, batch_size=10, throttle_ms=60_000)
    )

    async def begun() -> bool:
        return (await runtime.service.job(OWNER, view.id)).processed == 10

    await until(begun)
    return view.id


async def refusal(call: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as raised:
        await call
    return raised.value


async def test_a_waiting_job_hears_pause_and_resume_at_once(runtime: Runtime) -> None:
    job = await slow(runtime)
    await runtime.service.pause(OWNER, job)
    paused = await rested(runtime, job)
    assert (paused.status, paused.processed) == ("paused", 10)
    assert paused.status_reason is not None
    assert paused.status_reason.code == "USER"
    await runtime.service.resume(OWNER, job)

    async def went_on() -> bool:
        return (await runtime.service.job(OWNER, job)).processed == 20

    await until(went_on)
    await runtime.service.cancel(OWNER, job)
    ended = await rested(runtime, job)
    assert (ended.status, ended.processed, ended.total) == ("cancelled", 20, 100)
    assert (await undo(runtime, job)).succeeded == 20


async def test_pause_resume_and_cancel_at_once_leave_a_job_that_tells_the_truth(
    runtime: Runtime, tmp_path: Path
) -> None:
    job = await slow(runtime)
    calls = [
        call
        for _ in range(10)
        for call in (
            runtime.service.pause(OWNER, job),
            runtime.service.resume(OWNER, job),
            runtime.service.tune(OWNER, job, KnobsBody(batch_size=5)),
        )
    ]
    await asyncio.gather(*calls, runtime.service.cancel(OWNER, job), return_exceptions=True)
    ended = await rested(runtime, job)
    if ended.status == "paused":
        await runtime.service.cancel(OWNER, job)
        ended = await rested(runtime, job)
    assert ended.status == "cancelled"
    left = execute(tmp_path / "app.db", "SELECT count(*) FROM t")[0][0]
    assert left == 100 - ended.succeeded


async def test_cancel_by_force_is_an_owners_and_ends_a_job_whose_file_is_gone(
    runtime: Runtime, tmp_path: Path
) -> None:
    job = await slow(runtime)
    assert (
        await refusal(runtime.service.cancel(a_caller(role="admin"), job, force=True))
    ).code == "FORBIDDEN"
    (tmp_path / "app.db").rename(tmp_path / "away.db")
    view = await runtime.service.cancel(OWNER, job, force=True)
    assert view.status == "cancelled"


async def test_a_job_whose_file_is_replaced_is_paused_with_the_reason(
    runtime: Runtime, tmp_path: Path
) -> None:
    job = await slow(runtime)
    (tmp_path / "app.db").rename(tmp_path / "away.db")
    make_database(tmp_path / "app.db", SCRIPT)
    await runtime.service.tune(OWNER, job, KnobsBody(batch_size=11))
    paused = await rested(runtime, job)
    assert paused.status_reason is not None
    assert paused.status_reason.code == "TARGET_REPLACED"
    assert execute(tmp_path / "app.db", "SELECT count(*) FROM t") == [(100,)]
    await runtime.service.resume(OWNER, job)
    await runtime.service.tune(OWNER, job, KnobsBody(batch_size=100))
    ended = await rested(runtime, job)
    assert (ended.status, ended.total) == ("completed", 100)
    left = execute(tmp_path / "app.db", "SELECT count(*) FROM t")
    assert left == [(paused.processed,)]  # those that were done in the file that is away now


async def test_a_table_that_changes_under_a_job_pauses_it(runtime: Runtime, tmp_path: Path) -> None:
    job = await slow(runtime)
    execute(tmp_path / "app.db", "ALTER TABLE t RENAME COLUMN v TO w")
    await runtime.service.tune(OWNER, job, KnobsBody(batch_size=11))
    paused = await rested(runtime, job)
    assert paused.status_reason is not None
    assert paused.status_reason.code == "SCHEMA_CHANGED"
    execute(tmp_path / "app.db", "ALTER TABLE t RENAME COLUMN w TO v")
    await runtime.service.tune(OWNER, job, KnobsBody(batch_size=100))
    await runtime.service.resume(OWNER, job)
    assert (await rested(runtime, job)).succeeded == 100


async def test_rows_that_somebody_else_took_are_skipped_and_not_counted_as_done(
    runtime: Runtime, tmp_path: Path
) -> None:
    job = await slow(runtime)
    execute(tmp_path / "app.db", "DELETE FROM t WHERE id BETWEEN 91 AND 95")
    await runtime.service.tune(OWNER, job, KnobsBody(batch_size=200))
    done = await rested(runtime, job)
    assert (done.succeeded, done.skipped) == (95, 5)
    assert (await undo(runtime, job)).succeeded == 95
    assert execute(tmp_path / "app.db", "SELECT count(*) FROM t") == [(95,)]


async def test_an_undo_reports_what_stands_in_the_place_of_its_rows(runtime: Runtime, tmp_path: Path) -> None:
    job = await run(runtime, "things", "delete", ids=["1", "2", "3"])
    execute(tmp_path / "app.db", "INSERT INTO t VALUES (2, 'new')")
    back = await undo(runtime, job.id)
    assert (back.succeeded, back.skipped, back.outcome) == (2, 1, "ok")
    errors = await runtime.service.job_items(OWNER, back.id, outcome="skipped", limit=10, page=None)
    assert [(each.id, each.code) for each in errors["items"]] == [("2", "CONFLICT")]
    assert execute(tmp_path / "app.db", "SELECT v FROM t WHERE id = 2") == [("new",)]


async def test_an_undo_of_set_leaves_alone_what_was_changed_since(runtime: Runtime, tmp_path: Path) -> None:
    job = await run(runtime, "things", "set", ids=["1", "2"], options={"set": {"v": "x"}})
    execute(tmp_path / "app.db", "UPDATE t SET v = 'mine' WHERE id = 2")
    back = await undo(runtime, job.id)
    assert (back.succeeded, back.skipped) == (1, 1)
    assert execute(tmp_path / "app.db", "SELECT v FROM t WHERE id < 3 ORDER BY id") == [("v",), ("mine",)]


async def test_undoing_twice_answers_the_same_job_and_the_ids_of_an_undo_are_checked(
    runtime: Runtime,
) -> None:
    job = await run(runtime, "things", "delete", ids=["1", "2"])
    first, fresh = await runtime.service.undo(OWNER, job.id, UndoBody(ids=["1"]))
    assert fresh
    await rested(runtime, first.id)
    same, fresh = await runtime.service.undo(OWNER, job.id, UndoBody(ids=["1"]))
    assert (same.id, fresh) == (first.id, False)
    other, fresh = await runtime.service.undo(OWNER, job.id, UndoBody(ids=["2"]))
    assert fresh
    assert (await rested(runtime, other.id)).succeeded == 1
    assert (await refusal(runtime.service.undo(OWNER, job.id, UndoBody(ids=[])))).code == "EMPTY_SELECTION"
    ids = [str(number) for number in range(1001)]
    assert (
        await refusal(runtime.service.undo(OWNER, job.id, UndoBody(ids=list(ids))))
    ).code == "TOO_MANY_ITEMS"


async def test_a_soft_deleted_row_whose_place_a_unique_rule_gave_away_is_a_conflict(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, number TEXT, gone INTEGER NOT NULL DEFAULT 0);"
        "CREATE UNIQUE INDEX one ON t (number) WHERE gone = 0;"
        "INSERT INTO t (id, number) VALUES (1, 'a'), (2, 'b'), (3, 'c');",
    )
    async with opened(tmp_path, {"things": {"table": "t", "id": "id", "soft_delete": "gone"}}) as runtime:
        job = await run(runtime, "things", "delete", all=True)
        execute(tmp_path / "app.db", "INSERT INTO t (id, number) VALUES (9, 'b')")
        back = await undo(runtime, job.id)
        assert (back.status, back.succeeded, back.skipped) == ("completed", 2, 1)


async def test_an_undo_whose_parents_are_gone_fails_for_those_rows_only(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1), (2);"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 1);",
    )
    async with opened(tmp_path, {"things": {"table": "t", "id": "id"}}) as runtime:
        job = await run(runtime, "things", "delete", all=True)
        execute(tmp_path / "app.db", "DELETE FROM p WHERE id = 2")
        back = await undo(runtime, job.id)
        assert (back.status, back.succeeded, back.failed) == ("completed", 2, 1)
        execute(tmp_path / "app.db", "INSERT INTO p VALUES (2)")
        view, _ = await runtime.service.retry(OWNER, back.id, RetryBody())
        assert (await rested(runtime, view.id)).succeeded == 1


async def test_a_stop_does_not_wait_for_a_throttle_and_the_next_start_goes_on(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", SCRIPT)
    loop = asyncio.get_running_loop()
    async with opened(tmp_path, {"things": RESOURCE}) as runtime:
        job = await slow(runtime)
        began = loop.time()
    assert loop.time() - began < 4
    async with opened(tmp_path, {"things": RESOURCE}) as runtime:
        view = await runtime.service.job(OWNER, job)
        assert view.status == "running"
        await runtime.service.tune(OWNER, job, KnobsBody(batch_size=100))
        assert (await rested(runtime, job)).succeeded == 100


async def test_pausing_by_hand_switches_the_automatic_resume_off(runtime: Runtime) -> None:
    job = await slow(runtime)
    await runtime.service.pause(OWNER, job)
    await rested(runtime, job)

    def comes_back(tx: Tx) -> None:
        jobs.resume(tx, job)
        jobs.pause(tx, job, code="RUNTIME_CAP", message="", held=True, resume_ms=tx.now_ms + 3_600_000)

    await runtime.store.write(comes_back)
    await runtime.service.pause(OWNER, job)
    row = await runtime.store.read(lambda connection: jobs.get(connection, job))
    assert row is not None
    assert (row.status, row.status_code, row.not_before_ms) == ("paused", "USER", 0)


async def test_a_scheduled_exclusive_job_is_accepted_beside_an_active_one(runtime: Runtime) -> None:
    options = {"set": {"v": "w"}}
    every = StartBody(all=True, options=options, batch_size=1, throttle_ms=60_000)
    first = await runtime.service.start(OWNER, "things", "set", every)
    assert (await refusal(runtime.service.start(OWNER, "things", "set", every))).code == "JOB_ACTIVE"
    later = rfc3339(runtime.clock.now_ms() + 3_600_000)
    one = StartBody(ids=["1"], options=options, run_at=later)
    assert (await runtime.service.start(OWNER, "things", "set", one)).status == "scheduled"
    await runtime.service.cancel(OWNER, first.id)


async def test_a_retry_asked_for_again_is_the_same_job_however_it_ended(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2);"
        "CREATE TABLE k (t INTEGER REFERENCES t); INSERT INTO k VALUES (1);",
    )
    async with opened(tmp_path, {"things": {"table": "t", "id": "id"}}) as runtime:
        job = await run(runtime, "things", "delete", all=True, options={"hard": True})
        assert (job.succeeded, job.failed) == (1, 1)
        first, made = await runtime.service.retry(OWNER, job.id, RetryBody())
        assert made
        assert (await rested(runtime, first.id)).outcome == "none"
        again, made = await runtime.service.retry(OWNER, job.id, RetryBody())
        assert (again.id, made) == (first.id, False)
        execute(tmp_path / "app.db", "DELETE FROM k")
        last, made = await runtime.service.retry(OWNER, first.id, RetryBody())
        assert made
        assert (await rested(runtime, last.id)).outcome == "ok"


async def test_a_retry_that_was_cancelled_may_be_asked_for_anew(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY);"
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 9) INSERT INTO t SELECT i FROM n;"
        "CREATE TABLE k (t INTEGER REFERENCES t); INSERT INTO k SELECT id FROM t;",
    )
    async with opened(tmp_path, {"things": {"table": "t", "id": "id"}}) as runtime:
        body = StartBody(all=True, batch_size=1, throttle_ms=0, options={"hard": True})
        job = await rested(runtime, (await runtime.service.start(OWNER, "things", "delete", body)).id)
        execute(tmp_path / "bulkops.db", "UPDATE jobs SET knobs = json_set(knobs, '$.throttle_ms', 60000)")
        first, _ = await runtime.service.retry(OWNER, job.id, RetryBody())
        await runtime.service.cancel(OWNER, first.id)
        assert (await rested(runtime, first.id)).status == "cancelled"
        again, made = await runtime.service.retry(OWNER, job.id, RetryBody())
        assert made
        assert again.id != first.id
        await runtime.service.cancel(OWNER, again.id)
