"""Runs bulkops on a folder until its plan is carried out: the process that the tests kill.

``python -m tests.crashes.driver FOLDER PLAN [--resume]``; PLAN is a comma-separated list of ``receipts``,
``notes``, ``undo-receipts``, ``undo-notes``, ``cancel-receipts``, ``cancel-notes``. A step that is in the
database already is not started again, so that running it anew after a crash carries on. How it ends: see `points`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

from bulkops.configuration import load
from bulkops.models import StartBody, UndoBody
from bulkops.runtime import Runtime, local_owner, open_runtime
from bulkops.states import Status
from bulkops.store import deletions, jobs
from bulkops.store.jobs import JobRow
from tests.crashes.points import PAUSED, REFUSED
from tests.crashes.world import TENANT

_BATCH_SIZE = {"receipts": 4, "notes": 3}
_OPEN = ("queued", "moving", "purging", "restoring", "tentative")


async def _rows(runtime: Runtime) -> list[JobRow]:
    def read(connection: sqlite3.Connection) -> list[JobRow]:
        found = connection.execute(f"SELECT {jobs.COLUMNS} FROM jobs ORDER BY id")
        return [jobs.from_row(row) for row in found]

    return await runtime.store.read(read)


async def _files_wait(runtime: Runtime) -> bool:
    now_ms = runtime.clock.now_ms()
    due = await runtime.store.read(lambda connection: deletions.next_due_ms(connection, now_ms))
    return due is not None


async def _begin(runtime: Runtime, step: str, rows: list[JobRow]) -> str:
    kind = "undo" if step.startswith("undo-") else "act"
    resource = step.removeprefix("undo-")
    for row in rows:
        if row.resource == resource and row.kind == kind:
            return row.id
    if kind == "undo":
        origin = next(row.id for row in rows if row.resource == resource and row.kind == "act")
        view, _ = await runtime.service.undo(local_owner(), origin, UndoBody())
        return view.id
    body = StartBody(all=True, tenant=TENANT, batch_size=_BATCH_SIZE[resource])
    return (await runtime.service.start(local_owner(), resource, "delete", body)).id


async def _ended(runtime: Runtime, job_id: str, rung: asyncio.Event) -> JobRow:
    while True:
        rung.clear()
        row = next(row for row in await _rows(runtime) if row.id == job_id)
        if row.status is Status.PAUSED or (row.terminal and not await _files_wait(runtime)):
            return row
        try:
            await asyncio.wait_for(rung.wait(), 1)
        except TimeoutError:
            continue


async def _cancel(runtime: Runtime, resource: str, rung: asyncio.Event) -> JobRow:
    """Start a slow job unless it is, and cancel it once some items are done."""
    rows = await _rows(runtime)
    if not rows:
        body = StartBody(all=True, tenant=TENANT, batch_size=2, throttle_ms=20)
        job_id = (await runtime.service.start(local_owner(), resource, "delete", body)).id
        while not (await _rows(runtime))[0].cursor:
            rung.clear()
            await rung.wait()
    else:
        job_id = rows[0].id
    if not (await _rows(runtime))[0].terminal:
        await runtime.service.cancel(local_owner(), job_id)
    return await _ended(runtime, job_id, rung)


async def carry_out(folder: Path, plan: list[str], *, resume: bool = False) -> int:
    """Carry out a plan; return the exit code."""
    settings = load(folder / "bulkops.toml", {})
    async with open_runtime(settings) as runtime:
        rung = asyncio.Event()
        runtime.store.on_commit.append(lambda _: rung.set())
        for step in plan:
            if step.startswith("cancel-"):
                await _cancel(runtime, step.removeprefix("cancel-"), rung)
                continue
            try:
                job_id = await _begin(runtime, step, await _rows(runtime))
            except sqlite3.Error as error:
                print(f"the start was refused: {error}")
                return REFUSED
            row = await _ended(runtime, job_id, rung)
            if row.status is Status.PAUSED and resume:
                await runtime.service.resume(local_owner(), job_id)
                row = await _ended(runtime, job_id, rung)
            if row.status is Status.PAUSED:
                print(f"{row.resource} {row.status_code}: {row.status_message}")
                return PAUSED
    return 0


if __name__ == "__main__":
    sys.exit(
        asyncio.run(carry_out(Path(sys.argv[1]), sys.argv[2].split(","), resume="--resume" in sys.argv[3:]))
    )
