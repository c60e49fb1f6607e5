"""A host application's database, a house over it, and a real server for what only sockets can show."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from bulkops import Bulkops
from bulkops.models import JobView

SCHEMA = """
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,
  business TEXT NOT NULL,
  title TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'open',
  pinned INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0,
  summary TEXT
);
"""


def make_database(folder: Path, *, rows: int = 30) -> Path:
    """Make ``app.db`` with sessions 1 … ``rows``: odd ones are acme's, even ones zeta's."""
    path = folder / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO sessions (id, business, title) VALUES (?, ?, ?)",
            [
                (number, "acme" if number % 2 else "zeta", f"Session {number}")
                for number in range(1, rows + 1)
            ],
        )
        connection.commit()
    return path


def declared(**resource: Any) -> dict[str, Any]:
    """Write the settings of a house over ``app.db``."""
    sessions = {
        "kind": "table",
        "database": "app.db",
        "table": "sessions",
        "id": "id",
        "tenant": "business",
        "label": "title",
        "soft_delete": "deleted",
        "status": {"column": "status", "closed": "closed", "busy": ["processing"]},
        "search": ["status", "title"],
        "protect": {"pinned": 1},
        **resource,
    }
    return {"server": {"workers": 2}, "resources": {"sessions": sessions}}


def make_house(folder: Path, *, rows: int = 30, **more: Any) -> Bulkops:
    """Make a house over a new database in ``folder``."""
    make_database(folder, rows=rows)
    return Bulkops(declared(**more), base=folder)


def change(folder: Path, sql: str, *parameters: Any) -> None:
    """Change the application's database as the application would."""
    with closing(sqlite3.connect(folder / "app.db", timeout=10)) as connection:
        connection.execute(sql, parameters)
        connection.commit()


def ask(folder: Path, sql: str) -> list[Any]:
    """Ask the application's database."""
    with closing(sqlite3.connect(folder / "app.db", timeout=10)) as connection:
        return connection.execute(sql).fetchall()


async def ended(bulk: Bulkops, job: JobView, *, status: str = "completed") -> JobView:
    """Wait until a job has ended, or has stopped as ``status`` says."""
    view = job
    until = time.monotonic() + 20
    while not view.terminal and view.status != status and time.monotonic() < until:
        view = await bulk.job(job.id, wait_s=0.1)
    assert view.status == status, (view.status, view.status_reason, view.error, view.last_error)
    return view


async def exceptions_of(bulk: Bulkops, job: JobView) -> dict[str, tuple[str, str, str]]:
    """Return what did not succeed: id → (outcome, code, message)."""
    runtime = bulk._runtime
    assert runtime is not None
    rows = await runtime.store.read(
        lambda connection: connection.execute(
            "SELECT item, outcome, code, message FROM exceptions WHERE job = ? ORDER BY position", [job.id]
        ).fetchall()
    )
    return {item: (outcome, code, message) for item, outcome, code, message in rows}


@asynccontextmanager
async def running(bulk: Bulkops) -> AsyncIterator[Bulkops]:
    """Run a house without an application around it."""
    async with bulk.lifespan():
        yield bulk


@contextmanager
def served(app: Any, **config: Any) -> Iterator[str]:
    """Serve an ASGI application with a plain uvicorn in another thread; yields its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, lifespan="on", ws="websockets-sansio",
                timeout_graceful_shutdown=2, **config,
            )
        )  # fmt: skip
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        try:
            assert server.started, "the application did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
