"""Carries out a plan on a studio's folder and ends: the process that tests kill at chosen system calls.

``python -m tests.photos.driver FOLDER PLAN``; PLAN is ``commit``, ``upload`` or ``undo`` (of a commit that ended).
What is begun already is not begun again, so that running it anew after a crash carries on.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bulkops.configuration import load
from bulkops.models import JobsQuery, TaskBody, UndoBody
from bulkops.runtime import Runtime, local_owner, open_runtime
from bulkops.states import TERMINAL, Status

_TASKS = {"commit": "change_commit", "upload": "upload_processing"}


async def _undo(house: Runtime) -> None:
    jobs = await house.service.jobs(local_owner(), JobsQuery(action="file_removal"))
    removal = next(job for job in jobs["items"] if not job.undo_of)
    await house.service.undo(local_owner(), removal.id, UndoBody())


async def _begin(house: Runtime, plan: str) -> None:
    if plan == "undo":
        await _undo(house)
    elif not (await house.service.tasks(local_owner(), type=_TASKS[plan]))["items"]:
        await house.service.task_start(local_owner(), _TASKS[plan], TaskBody(project="p"))


async def _ended(house: Runtime) -> None:
    while True:
        page = await house.service.jobs(local_owner(), JobsQuery(show_maintenance=True, limit=100))
        waiting = [job for job in page["items"] if Status(job.status) not in TERMINAL]
        if not waiting:
            return
        await house.service.job(local_owner(), waiting[0].id, wait_s=30)


async def carry_out(folder: Path, plan: str) -> None:
    async with open_runtime(load(folder / "bulkops.toml", {})) as house:
        await _begin(house, plan)
        await _ended(house)


if __name__ == "__main__":
    asyncio.run(carry_out(Path(sys.argv[1]), sys.argv[2]))
