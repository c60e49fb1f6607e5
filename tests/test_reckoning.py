"""What a job that was ended, cancelled or restored under has done: told in full, whenever the telling is possible."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from bulkops.drafts import Draft, trouble
from bulkops.errors import Transient
from bulkops.resources.table.batches import TableBatches
from bulkops.resources.target import Target
from bulkops.service import verbs
from tests.engine_house import (
    OWNER,
    counts,
    dump,
    execute,
    make_database,
    opened,
    rested,
    run,
    undo,
    until,
)

TWENTY = (
    "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, status TEXT DEFAULT 'open');"
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20)"
    " INSERT INTO things (id, name) SELECT i, 'thing ' || i FROM n"
)
THINGS = {"table": "things", "id": "id", "status": {"column": "status", "archived": "archived"}}


def left(path: Path) -> int:
    return int(execute(path, "SELECT count(*) FROM things")[0][0])


@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_a_commit_that_outlives_its_job_s_end_by_force_is_counted_and_can_be_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    path = make_database(tmp_path / "app.db", TWENTY)
    before = dump(path)
    at_commit, go_on = threading.Event(), threading.Event()
    plain = Target._commit

    def slow(target: Target, connection: sqlite3.Connection) -> None:
        if not connection.execute("SELECT 1 FROM things WHERE id = 8").fetchone():
            at_commit.set()
            go_on.wait(20)
        plain(target, connection)

    monkeypatch.setattr(Target, "_commit", slow)
    monkeypatch.setattr(verbs, "_FORCE_GRACE_S", 0.1)
    async with opened(tmp_path, {"things": {**THINGS, "ledger": ledger}}) as runtime:
        job = await run(runtime, "things", "delete", all=True, batch_size=4, canary=4)
        await runtime.service.resume(OWNER, job.id)
        await until(at_commit.is_set)
        ended = await runtime.service.cancel(OWNER, job.id, force=True)
        assert (ended.status, ended.succeeded) == ("cancelled", 4)
        go_on.set()

        async def settled() -> bool:
            return (await runtime.service.job(OWNER, job.id)).succeeded == 8

        await until(settled)
        now = await runtime.service.job(OWNER, job.id)
        assert (now.status, counts(now), left(path)) == ("cancelled", (8, 0, 0), 12)
        monkeypatch.setattr(Target, "_commit", plain)
        assert counts(await undo(runtime, job.id)) == (8, 0, 0)
    assert dump(path) == before


@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_a_cancelled_archive_tells_what_it_did_though_its_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    path = make_database(tmp_path / "app.db", TWENTY)
    before = dump(path)
    async with opened(tmp_path, {"things": {**THINGS, "ledger": ledger}}) as runtime:
        job = await run(runtime, "things", "archive", all=True, batch_size=4, canary=4)
        assert counts(job) == (4, 0, 0)

        def full(_: Draft) -> None:
            raise trouble(OSError(errno.ENOSPC, "full"))

        with monkeypatch.context() as patched:
            patched.setattr(Draft, "keep", full)
            await runtime.service.resume(OWNER, job.id)
            paused = await rested(runtime, job.id)
            assert paused.status_reason is not None
            assert paused.status_reason.code == "DISK_FULL"
            await runtime.service.cancel(OWNER, job.id)
            ended = await rested(runtime, job.id)
        assert ended.status == "cancelled"
        done = execute(path, "SELECT count(*) FROM things WHERE status = 'archived'")[0][0]
        assert (done, counts(ended)) == (8, (8, 0, 0))
        assert [each.status for each in ended.artifacts] == ["failed"]
        assert counts(await undo(runtime, job.id)) == (8, 0, 0)
    assert dump(path) == before


async def test_a_cancelled_job_waits_a_while_for_a_target_that_knows_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_database(tmp_path / "app.db", TWENTY)
    plain = TableBatches.apply
    asked = 0

    async def done_but_not_known(*args: object) -> object:
        await plain(*args)  # type: ignore[arg-type]  # handed on as they came
        raise Transient("IO_ERROR", "the commit failed, perhaps")

    async def away(*args: object) -> object:
        nonlocal asked
        asked += 1
        raise Transient("TARGET_LOCKED", "somebody holds it")

    async with opened(tmp_path, {"things": THINGS}) as runtime:
        job = await run(runtime, "things", "delete", all=True, batch_size=4, canary=4)
        with monkeypatch.context() as patched:
            patched.setattr(TableBatches, "apply", done_but_not_known)
            patched.setattr(TableBatches, "recover", away)
            await runtime.service.resume(OWNER, job.id)
            await until(lambda: asked)
            await runtime.service.cancel(OWNER, job.id)
            seen = asked
            await until(lambda: asked > seen + 1)
            assert (await runtime.service.job(OWNER, job.id)).status == "cancelling"
        ended = await rested(runtime, job.id)
        assert (ended.status, counts(ended), left(path)) == ("cancelled", (8, 0, 0), 12)


async def test_a_job_goes_on_from_its_own_account_once_somebody_looked_at_a_restored_target(
    tmp_path: Path,
) -> None:
    path = make_database(tmp_path / "app.db", TWENTY, wal=False)
    copy = tmp_path / "copy.db"
    things = {**THINGS, "ledger": "app"}
    async with opened(tmp_path, {"things": things}) as runtime:
        job = await run(runtime, "things", "delete", all=True, batch_size=2, max_items=4)
        assert (job.status, counts(job)) == ("paused", (4, 0, 0))
        shutil.copy(path, copy)
        await runtime.service.resume(OWNER, job.id)
        assert counts(await rested(runtime, job.id)) == (8, 0, 0)
    shutil.copy(copy, path)
    async with opened(tmp_path, {"things": things}) as runtime:
        await runtime.service.resume(OWNER, job.id)
        paused = await rested(runtime, job.id)
        assert paused.status_reason is not None
        assert (paused.status_reason.code, counts(paused), left(path)) == ("NEEDS_REVIEW", (8, 0, 0), 16)
        while not paused.terminal:
            await runtime.service.resume(OWNER, job.id)
            before, paused = paused, await rested(runtime, job.id)
            assert paused.processed > before.processed
        assert (paused.status, counts(paused)) == ("completed", (20, 0, 0))
    # What the copy brought back stays: it was counted before, and nobody asked for it again.
    assert execute(path, "SELECT id FROM things") == [(5,), (6,), (7,), (8,)]
