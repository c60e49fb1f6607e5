"""Large jobs that go on and on in a server, so that something else can be measured beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.servers import Server


def _alternate(server: Server, table: str, over: threading.Event) -> None:
    while not over.is_set():
        job = server.start(table, "delete", all=True)
        _see_through(server, job, over)
        if not over.is_set():
            _see_through(server, str(server.ask("POST", f"/api/jobs/{job}/undo", {})["id"]), over)


def _see_through(server: Server, job: str, over: threading.Event) -> None:
    while not server.ask("GET", f"/api/jobs/{job}?wait=1")["terminal"]:
        if over.is_set():
            server.ask("POST", f"/api/jobs/{job}/cancel", {})


@contextmanager
def busy(server: Server, tables: list[str]) -> Iterator[None]:
    """Keep a job over every row of each table running while the block runs: delete, undo, delete, …"""
    over = threading.Event()
    threads = [threading.Thread(target=_alternate, args=(server.another(), table, over)) for table in tables]
    for thread in threads:
        thread.start()
    try:
        for table in tables:
            _until_under_work(server, table)
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _until_under_work(server: Server, table: str) -> None:
    while not server.ask("GET", f"/api/jobs?resource={table}&status=running")["items"]:
        over = server.ask("GET", f"/api/jobs?resource={table}&status=completed")["items"]
        if over:
            return
