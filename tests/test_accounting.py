"""What a job tells: which items it changed, so that lists of other tabs look again, and how often its progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bulkops.models import StartBody
from bulkops.runtime import Runtime
from bulkops.store.transaction import Tx
from tests.engine_house import OWNER, counts, execute, make_database, opened, rested, run, undo

ROWS = """
CREATE TABLE things (id TEXT PRIMARY KEY, gone INTEGER NOT NULL DEFAULT 0);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO things SELECT printf('t%03d', i), 0 FROM n;
"""
THINGS = {
    "table": "things",
    "id": "id",
    "soft_delete": "gone",
    "actions": {"delete": {"rate": "1000/minute"}},
}


def first(count: int) -> list[str]:
    return [f"t{number:03}" for number in range(1, count + 1)]


async def told(runtime: Runtime, job: str) -> list[Any]:
    """List what a job's events say has changed, and its end."""
    query = "SELECT kind, data FROM events WHERE job = ? AND kind IN ('changed', 'completed') ORDER BY seq"
    rows = await runtime.store.read(lambda c: c.execute(query, [job]).fetchall())
    return [msgspec.json.decode(data) if kind == "changed" else kind for kind, data in rows]


async def test_few_changed_items_are_named_once_and_only_those_that_changed(tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db", ROWS)
    execute(path, "UPDATE things SET gone = 1 WHERE id = 't002'")
    async with opened(tmp_path, {"things": THINGS}) as runtime:
        job = await run(runtime, "things", "delete", ids=first(4))
        assert counts(job) == (3, 0, 1)
        assert await told(runtime, job.id) == [{"ids": ["t001", "t003", "t004"]}, "completed"]
        back = await undo(runtime, job.id, ids=["t003"])
        assert await told(runtime, back.id) == [{"ids": ["t003"]}, "completed"]


async def test_many_changed_items_are_counted(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", ROWS)
    async with opened(tmp_path, {"things": THINGS}) as runtime:
        few = await run(runtime, "things", "delete", ids=first(100))
        many = await run(runtime, "things", "delete", all=True, batch_size=50)
        assert await told(runtime, few.id) == [{"ids": first(100)}, "completed"]
        early, *_, last, end = await told(runtime, many.id)
        assert (early, last, end) == ({"ids": first(150)[100:]}, {"count": 200}, "completed")


async def test_nothing_is_told_where_nothing_changed(tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db", ROWS)
    execute(path, "UPDATE things SET gone = 1")
    async with opened(tmp_path, {"things": THINGS}) as runtime:
        job = await run(runtime, "things", "delete", ids=first(3))
        assert counts(job) == (0, 0, 3)
        assert await told(runtime, job.id) == ["completed"]


def keep_progress(tx: Tx) -> None:
    """Remember when progress was told; the log itself keeps each job's last."""
    tx.connection.execute("CREATE TABLE told (job TEXT, at_ms INTEGER)")
    tx.connection.execute(
        "CREATE TRIGGER tells AFTER INSERT ON events WHEN new.kind = 'progress'"
        " BEGIN INSERT INTO told VALUES (new.job, new.at_ms); END"
    )


async def test_jobs_that_take_turns_tell_their_progress_four_times_a_second_at_most(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", ROWS)
    async with opened(tmp_path, {"things": THINGS}, workers=1) as runtime:
        await runtime.store.write(keep_progress)
        shares = [first(150)[place::3] for place in range(3)]
        bodies = [StartBody(ids=list(ids), batch_size=1, throttle_ms=10) for ids in shares]
        started = [await runtime.service.start(OWNER, "things", "delete", body) for body in bodies]
        for view in started:
            assert counts(await rested(runtime, view.id)) == (50, 0, 0)
        rows = await runtime.store.read(lambda c: c.execute("SELECT job, at_ms FROM told").fetchall())
        for view in started:
            times = [at for job, at in rows if job == view.id]
            # The first is told at once, and one more before the end.
            assert 2 < len(times) <= (times[-1] - times[0]) / 250 + 2
