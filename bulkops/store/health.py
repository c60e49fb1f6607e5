"""A look at our database from outside, for a doctor: whose it is, how old, whether it is sound.

What comes in: a path; what goes out: what was found, errors as findings. It only reads, needs no lock, and
works where the store refuses to open.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from bulkops.database import open_connection
from bulkops.store import migrations

_UNFINISHED: Final = """
SELECT status, count(*) FROM jobs
 WHERE status IN ('scheduled', 'preparing', 'queued', 'running', 'pausing', 'paused', 'cancelling')
 GROUP BY status
"""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; ``trouble`` is empty when the database is ours, of our version and sound."""

    version: int
    expected_version: int
    unfinished: dict[str, int]
    trouble: list[str]


def examine(path: Path) -> Health:
    """Look at a database; one that cannot be read is all trouble, never an exception."""
    try:
        connection = open_connection(path, readonly=True)
        try:
            return _examine(connection)
        finally:
            connection.close()
    except (sqlite3.Error, RuntimeError) as error:
        return _sick(0, str(error))


def _examine(connection: sqlite3.Connection) -> Health:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != migrations.APPLICATION_ID:
        return _sick(version, f"it is not a database of bulkops (application_id {application_id})")
    if version > migrations.VERSION:
        return _sick(version, f"its schema version is {version}; use a newer bulkops")
    checked = connection.execute("PRAGMA quick_check(20)").fetchall()
    return Health(
        version=version,
        expected_version=migrations.VERSION,
        unfinished=dict(connection.execute(_UNFINISHED).fetchall()),
        trouble=[row[0] for row in checked if row[0] != "ok"],
    )


def _sick(version: int, trouble: str) -> Health:
    return Health(version=version, expected_version=migrations.VERSION, unfinished={}, trouble=[trouble])
