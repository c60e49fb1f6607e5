"""A whole house over an application's database: the runtime, callers, and what tests ask of it again and again."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec

from bulkops.configuration import from_dict
from bulkops.models import Caller, JobView, StartBody, UndoBody
from bulkops.runtime import Runtime, open_runtime
from bulkops.settings import Settings
from bulkops.timing import Clock

OWNER = Caller(user="root", roles=frozenset({"owner"}))
WAIT_S = 20.0


def make_database(path: Path, script: str, *, wal: bool = True) -> Path:
    """Make an application's database from a script."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(f"BEGIN; {script}; COMMIT;")
    return path


def execute(path: Path, sql: str, *parameters: Any, foreign_keys: bool = True) -> list[tuple[Any, ...]]:
    """Run one statement as the application would."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        return connection.execute(sql, parameters).fetchall()


def dump(path: Path) -> dict[str, list[Any]]:
    """Return everything the application's database holds, rowids and raw bytes of texts too; nothing of ours."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        schema = connection.execute(
            "SELECT CAST(name AS BLOB), CAST(type AS BLOB), CAST(sql AS BLOB) FROM sqlite_schema"
            " WHERE name NOT LIKE '\\_bulkops%' ESCAPE '\\' AND tbl_name NOT LIKE '\\_bulkops%' ESCAPE '\\'"
            " ORDER BY 1"
        ).fetchall()
        found: dict[str, list[Any]] = {"": schema}
        for name, kind, sql in schema:
            if kind == b"table":
                table = name.decode()
                rowid = "" if b"WITHOUT ROWID" in sql.upper() else "rowid, "
                quoted = '"' + table.replace('"', '""') + '"'
                rows = connection.execute(f"SELECT {rowid}* FROM {quoted}").fetchall()
                found[table] = sorted(rows, key=repr)
        return found


def settings_for(folder: Path, resources: dict[str, Any], **server: Any) -> Settings:
    """Build settings whose resources lie in ``folder``; a resource without database has app.db."""
    made = {name: {"kind": "table", "database": "app.db", **resource} for name, resource in resources.items()}
    return from_dict({"server": server, "resources": made}, folder, {})


@asynccontextmanager
async def opened(
    folder: Path, resources: dict[str, Any], *, clock: Clock | None = None, **server: Any
) -> AsyncIterator[Runtime]:
    """Run a house over the resources."""
    async with open_runtime(settings_for(folder, resources, **server), clock=clock) as runtime:
        yield runtime


async def until(holds: Callable[[], Any | Awaitable[Any]], *, within_s: float = WAIT_S) -> Any:
    """Wait until something holds and return it; fail when it does not in time."""
    async with asyncio.timeout(within_s):
        while True:
            answer = holds()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(0.005)


async def rested(runtime: Runtime, job_id: str, caller: Caller = OWNER) -> JobView:
    """Wait until nobody works on a job: it has ended or is paused."""

    async def look() -> JobView | None:
        view = await runtime.service.job(caller, job_id)
        return view if view.terminal or view.status == "paused" else None

    found: JobView = await until(look)
    return found


async def run(
    runtime: Runtime, resource: str, action: str, *, caller: Caller = OWNER, **body: Any
) -> JobView:
    """Start a job and wait until it rests."""
    view = await runtime.service.start(caller, resource, action, msgspec.convert(body, StartBody))
    return await rested(runtime, view.id, caller)


async def undo(
    runtime: Runtime, job_id: str, *, caller: Caller = OWNER, ids: list[str] | None = None
) -> JobView:
    """Undo a job and wait until that rests."""
    body = UndoBody(ids=list(ids) if ids is not None else None)
    view, _ = await runtime.service.undo(caller, job_id, body)
    return await rested(runtime, view.id, caller)


async def outcomes(runtime: Runtime, job_id: str, caller: Caller = OWNER) -> dict[str, str]:
    """Return what became of each item: its outcome, with its code where there is one."""
    found: dict[str, str] = {}
    page: str | None = None
    while True:
        answer = await runtime.service.job_items(caller, job_id, outcome=None, limit=1000, page=page)
        for each in answer["items"]:
            word = str(each.outcome)
            found[each.id] = f"{word} {each.code}" if each.code else word
        page = answer["next"]
        if page is None:
            return found


async def report(runtime: Runtime, job_id: str, outcome: str | None = None) -> list[dict[str, Any]]:
    """Read a job's report as NDJSON."""
    chunks = await runtime.service.report(OWNER, job_id, format="ndjson", outcome=outcome)
    text = b"".join([chunk async for chunk in chunks])
    return [msgspec.json.decode(line) for line in text.splitlines()]


def counts(view: JobView) -> tuple[int, int, int]:
    """Return succeeded, failed, skipped."""
    assert view.processed == view.succeeded + view.failed + view.skipped <= (view.total or 0)
    return view.succeeded, view.failed, view.skipped
