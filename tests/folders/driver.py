"""Runs bulkops on a folder of dossiers until one job is done: the process that the tests kill.

``python -m tests.folders.driver FOLDER delete|purge|undo|archive``. A job that is in the database already is not
started again, so that running it anew after a crash carries on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

from bulkops.configuration import load
from bulkops.models import StartBody, UndoBody
from bulkops.runtime import Runtime, local_owner, open_runtime
from bulkops.store import deletions


async def _job(runtime: Runtime, plan: str) -> str:
    kind = "undo" if plan == "undo" else "act"
    rows = await runtime.store.read(
        lambda connection: connection.execute("SELECT id, kind FROM jobs ORDER BY id").fetchall()
    )
    for job_id, found in rows:
        if found == kind:
            return str(job_id)
    if plan == "undo":
        view, _ = await runtime.service.undo(local_owner(), rows[0][0], UndoBody())
        return view.id
    body = StartBody(all=True, batch_size=3)
    return (await runtime.service.start(local_owner(), "dossiers", plan, body)).id


async def _cleaned(runtime: Runtime) -> bool:
    def due(connection: sqlite3.Connection) -> int | None:
        return deletions.next_due_ms(connection, runtime.clock.now_ms())

    return await runtime.store.read(due) is None


async def carry_out(folder: Path, plan: str) -> int:
    """Carry out a plan; return the exit code."""
    async with open_runtime(load(folder / "bulkops.toml", {})) as runtime:
        job_id = await _job(runtime, plan)
        while True:
            view = await runtime.service.job(local_owner(), job_id, wait_s=1)
            if view.status == "paused":
                print(view.status_reason)
                return 3
            if view.terminal and await _cleaned(runtime):
                return 0
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    sys.exit(asyncio.run(carry_out(Path(sys.argv[1]), sys.argv[2])))
