"""The `meta` table: who this database is and which life of the process it is in."""

from __future__ import annotations

import secrets
import sqlite3
import uuid
from typing import Final

from bulkops.store.transaction import Tx

#: There while jobs of a database that was put back from a copy are still to be paused.
REVIEW: Final = "review_ms"

_READ: Final = "SELECT value FROM meta WHERE key = :key"
WRITE: Final = (
    "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = :value"
)


def read(connection: sqlite3.Connection, key: str) -> str | None:
    """Return a value, ``None`` when it was never written."""
    row = connection.execute(_READ, {"key": key}).fetchone()
    return None if row is None else str(row[0])


def write(tx: Tx, key: str, value: str) -> None:
    """Set a value."""
    tx.connection.execute(WRITE, {"key": key, "value": value})


_ERASE: Final = "DELETE FROM meta WHERE key = :key"


def erase(tx: Tx, key: str) -> None:
    """Remove a value; one that is not there is fine."""
    tx.connection.execute(_ERASE, {"key": key})


def new_epoch() -> str:
    """Make a name for an event log; a client that holds another one starts afresh."""
    return secrets.token_hex(4)


def first_values(now_ms: int) -> dict[str, str]:
    """Return what a newborn database holds."""
    return {
        "instance": str(uuid.uuid4()),
        "generation": "0",
        "epoch": new_epoch(),
        "event_floor": "1",
        "created_ms": str(now_ms),
    }
