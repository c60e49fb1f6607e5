"""The house under measurement: settings for the application's table, a runtime in this process, jobs on it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from bulkops.configuration import load
from bulkops.models import JobView, StartBody
from bulkops.runtime import Runtime, local_owner, open_runtime

_RESOURCE: Final = """
[resources.{table}]
kind = "table"
database = "app.db"
table = "{table}"
id = "id"
soft_delete = "is_deleted"
search = ["status", "business_id"]
ledger = "{ledger}"
"""


def configure(folder: Path, *, tables: Sequence[str] = ("receipts",), ledger: str = "app") -> Path:
    """Write the configuration of the application in ``folder``: a resource a table."""
    file = folder / "bulkops.toml"
    resources = "".join(_RESOURCE.format(table=table, ledger=ledger) for table in tables)
    file.write_text(f"[server]\nport = 0\n{resources}", encoding="utf-8")
    return file


@dataclass(frozen=True)
class Ran:
    """How long a job took: from its acceptance, and from its start once its manifest was frozen."""

    accepted_s: float
    started_s: float
    job: JobView


@asynccontextmanager
async def open_house(folder: Path, *, ledger: str = "app") -> AsyncIterator[Runtime]:
    """Run the house over the application in ``folder``, in this process."""
    async with open_runtime(load(configure(folder, ledger=ledger), environ={})) as runtime:
        yield runtime


async def start(runtime: Runtime, *, action: str = "delete", **body: Any) -> JobView:
    """Start a job on all receipts, or as ``body`` says."""
    wishes = {"all": True, **body} if "ids" not in body and "filter" not in body else body
    return await runtime.service.start(local_owner(), "receipts", action, StartBody(**wishes))


async def ended(runtime: Runtime, job_id: str) -> JobView:
    """Wait until a job has ended."""
    while True:
        view = await runtime.service.job(local_owner(), job_id, wait_s=10)
        if view.terminal:
            return view
        await anyio.sleep(0)


async def run_job(runtime: Runtime, **body: Any) -> Ran:
    """Start a job and see it through."""
    began = time.perf_counter()
    accepted = await start(runtime, **body)
    view = await ended(runtime, accepted.id)
    accepted_s = time.perf_counter() - began
    if view.outcome != "ok":
        raise RuntimeError(f"the job ended {view.status} {view.outcome}: {view.status_reason} {view.error}")
    return Ran(accepted_s, await seconds_under_work(runtime, view.id), view)


_SPAN: Final = "SELECT finished_ms - started_ms FROM jobs WHERE id = :id"


async def seconds_under_work(runtime: Runtime, job_id: str) -> float:
    """Return how long a job took from its start, once its manifest was frozen."""
    row = await runtime.store.read(lambda c: c.execute(_SPAN, {"id": job_id}).fetchone())
    return max(1, int(row[0])) / 1000
