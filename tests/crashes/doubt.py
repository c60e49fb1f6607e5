"""Writes rows through a `Target`; at the first doubt looks what came of them, prints that and dies at once.

``python -m tests.crashes.doubt DATABASE``; the table ``journal`` gets the rows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

from bulkops.errors import Halt
from bulkops.resources.target import CommitUnknownError, Target


def _insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO journal (entry) VALUES ('doubtful')")


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM journal").fetchone()[0])


async def write_and_look(database: Path) -> None:
    """Write until a commit fails, look, die."""
    target = Target(database)
    how = "committed"
    for _ in range(3):
        try:
            await target.turn(_insert, foreign_keys=True, gap=lambda _: 0.0, stop=lambda: False)
        except CommitUnknownError:
            how = "unknown"
            break
    try:
        print(how, await target.plan(_count), flush=True)
    except Halt:
        print(how, "nobody knows", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(write_and_look(Path(sys.argv[1])))
