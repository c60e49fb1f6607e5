"""Rows of `schedules`: what starts by the calendar, when it is due next, and what came of the last time.

What comes in: a write transaction or a reader; what goes out: rows. A schedule moves on (`advance`) only from
the very instant it was due at, in the transaction that writes its job: so no instant fires twice and none is
lost, whenever the process ends.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, Literal

import msgspec

from bulkops.shapes import whole
from bulkops.slots import Timing, following
from bulkops.store.transaction import Tx

Origin = Literal["api", "config", "built_in"]

#: What people may have of their own, a tenant.
MAX_PER_TENANT: Final = 100
_LAST_ID: Final = "~"


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `schedules`; see schema.sql for what each column means."""

    id: str
    name: str
    tenant: str | None = None
    resource: str
    action: str
    body: dict[str, Any]
    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    enabled: bool = True
    origin: Origin
    created_by: str
    roles: list[str]
    credential: str | None = None
    created_ms: int
    next_ms: int | None = None
    last_ms: int | None = None
    last_job: str | None = None
    last_result: str | None = None

    @property
    def timing(self) -> Timing:
        """When it is due."""
        return Timing(cron=self.cron, every_s=self.every_s, timezone=self.timezone, anchor_ms=self.created_ms)


_FIELDS: Final = ScheduleRow.__struct_fields__
_COLUMNS: Final = ", ".join(_FIELDS)
_JSON: Final = ("body", "roles")


def _from_row(row: tuple[Any, ...]) -> ScheduleRow:
    values = dict(zip(_FIELDS, row, strict=True))
    for name in _JSON:
        values[name] = msgspec.json.decode(values[name])
    return msgspec.convert(values, whole(ScheduleRow), strict=False)


def _to_row(row: ScheduleRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _FIELDS}
    for name in _JSON:
        values[name] = msgspec.json.encode(values[name]).decode()
    return values


_INSERT: Final = f"INSERT INTO schedules ({_COLUMNS}) VALUES ({', '.join(':' + name for name in _FIELDS)})"


def insert(tx: Tx, row: ScheduleRow) -> None:
    """Write a new schedule."""
    tx.connection.execute(_INSERT, _to_row(row))
    tx.ring(schedules=True)


_COUNT: Final = """
SELECT count(*) FROM schedules WHERE tenant IS :tenant AND origin = 'api'
"""


def count(connection: sqlite3.Connection, tenant: str | None) -> int:
    """Count the schedules that people of a tenant made."""
    return int(connection.execute(_COUNT, {"tenant": tenant}).fetchone()[0])


# What belongs to the installation is for owners without tenant; whose it is stands in the row, so nobody else
# reads it.
_SEEN: Final = "(:tenant IS NULL OR tenant = :tenant) AND (:installation OR origin <> 'built_in')"
_GET: Final = f"SELECT {_COLUMNS} FROM schedules WHERE id = :id AND {_SEEN}"


def get(
    connection: sqlite3.Connection, schedule: str, *, tenant: str | None = None, installation: bool = True
) -> ScheduleRow | None:
    """Return a schedule of ``tenant`` (``None``: of any), ``None`` when there is none.

    ``installation``: also those that keep the house.
    """
    values = {"id": schedule, "tenant": tenant, "installation": installation}
    row = connection.execute(_GET, values).fetchone()
    return None if row is None else _from_row(row)


_PAGE: Final = f"""
SELECT {_COLUMNS} FROM schedules INDEXED BY sqlite_autoindex_schedules_1
 WHERE id < :before AND {_SEEN} ORDER BY id DESC LIMIT :limit
"""
_PAGE_OF_TENANT: Final = f"""
SELECT {_COLUMNS} FROM schedules INDEXED BY schedules_tenant
 WHERE tenant = :tenant AND id < :before AND {_SEEN} ORDER BY id DESC LIMIT :limit
"""


def page(
    connection: sqlite3.Connection,
    *,
    tenant: str | None,
    installation: bool,
    before: str | None,
    limit: int,
) -> list[ScheduleRow]:
    """List schedules with ids below ``before``, greatest first, of ``tenant`` (``None``: of all)."""
    values = {
        "tenant": tenant,
        "installation": installation,
        "before": before or _LAST_ID,
        "limit": limit,
    }
    statement = _PAGE if tenant is None else _PAGE_OF_TENANT
    return [_from_row(row) for row in connection.execute(statement, values)]


_DELETE: Final = "DELETE FROM schedules WHERE id = :id"


def delete(tx: Tx, schedule: str) -> None:
    """Remove a schedule; jobs that came of it stay."""
    tx.connection.execute(_DELETE, {"id": schedule})


_DUE: Final = f"""
SELECT {_COLUMNS} FROM schedules INDEXED BY schedules_due
 WHERE enabled = 1 AND next_ms <= :now ORDER BY next_ms, id LIMIT :limit
"""


def due(connection: sqlite3.Connection, now_ms: int, *, limit: int) -> list[ScheduleRow]:
    """List the schedules whose time has come, the longest due first."""
    return [_from_row(row) for row in connection.execute(_DUE, {"now": now_ms, "limit": limit})]


_NEXT: Final = """
SELECT min(next_ms) FROM schedules INDEXED BY schedules_due WHERE enabled = 1 AND next_ms IS NOT NULL
"""


def next_due_ms(connection: sqlite3.Connection) -> int | None:
    """Say when the next schedule is due; ``None`` when none ever is."""
    found = connection.execute(_NEXT).fetchone()[0]
    return None if found is None else int(found)


_AHEAD: Final = f"""
SELECT {_COLUMNS} FROM schedules INDEXED BY schedules_due WHERE enabled = 1 AND next_ms > :now AND coalesce(last_ms, created_ms) > :now
"""


def ahead(connection: sqlite3.Connection, now_ms: int) -> list[ScheduleRow]:
    """List the schedules that fired, or were made, at a time that is still to come: the clock was set back."""
    return [_from_row(row) for row in connection.execute(_AHEAD, {"now": now_ms})]


_ADVANCE: Final = """
UPDATE schedules SET next_ms = :next_ms, last_result = :result,
       last_ms = :last_ms, last_job = coalesce(:job, last_job)
 WHERE id = :id AND enabled = 1 AND next_ms = :due_ms
"""


def advance(tx: Tx, row: ScheduleRow, *, next_ms: int | None, result: str, job: str | None = None) -> bool:
    """Take a schedule past the instant it was due at; ``False`` when it is not due then any more.

    Whoever writes a job for that instant does so in this transaction, and not at all after ``False``.
    """
    values = {
        "id": row.id,
        "due_ms": row.next_ms,
        "next_ms": next_ms,
        "last_ms": tx.now_ms,
        "result": result,
        "job": job,
    }
    return tx.connection.execute(_ADVANCE, values).rowcount == 1


_MOVE: Final = "UPDATE schedules SET next_ms = :next_ms WHERE id = :id AND next_ms = :due_ms"


def move(tx: Tx, row: ScheduleRow, *, next_ms: int | None) -> bool:
    """Change when a schedule is due next, and nothing else."""
    values = {"id": row.id, "due_ms": row.next_ms, "next_ms": next_ms}
    return tx.connection.execute(_MOVE, values).rowcount == 1


_NOTE_RUN: Final = "UPDATE schedules SET last_job = :job WHERE id = :id"


def note_run(tx: Tx, schedule: str, job: str) -> None:
    """Note a job that was started by hand: the next one waits for its end."""
    tx.connection.execute(_NOTE_RUN, {"id": schedule, "job": job})


_UNDECLARED: Final = """
DELETE FROM schedules WHERE origin IN ('config', 'built_in')
   AND id NOT IN (SELECT value FROM json_each(:ids))
"""
_REDECLARE: Final = """
UPDATE schedules SET name = :name, tenant = :tenant, resource = :resource, action = :action, body = :body,
       enabled = :enabled, origin = :origin, created_by = :created_by, roles = :roles
 WHERE id = :id
"""
_RETIME: Final = """
UPDATE schedules SET cron = :cron, every_s = :every_s, timezone = :timezone, next_ms = :next_ms WHERE id = :id
"""


def declare(tx: Tx, rows: list[ScheduleRow]) -> None:
    """Make the declared schedules exactly these; one whose times did not change keeps its place in them.

    Raises:
        ValueError: a cron line or a time zone cannot be read.
    """
    ids = msgspec.json.encode([row.id for row in rows]).decode()
    tx.connection.execute(_UNDECLARED, {"ids": ids})
    for row in rows:
        known = get(tx.connection, row.id)
        if known is None:
            insert(tx, msgspec.structs.replace(row, next_ms=following(row.timing, tx.now_ms)))
            continue
        tx.connection.execute(_REDECLARE, _to_row(row))
        if (known.cron, known.every_s, known.timezone) != (row.cron, row.every_s, row.timezone):
            moved = msgspec.structs.replace(row, created_ms=known.created_ms)
            next_ms = following(moved.timing, tx.now_ms)
            tx.connection.execute(_RETIME, _to_row(msgspec.structs.replace(row, next_ms=next_ms)))
    tx.ring(schedules=True)


_END: Final = """
UPDATE schedules SET enabled = 0, last_result = 'revoked'
 WHERE credential IN (SELECT value FROM json_each(:credentials)) AND enabled = 1
"""


def end_of(tx: Tx, credentials: list[str]) -> None:
    """Disable the schedules that were made with credentials revoked now."""
    tx.connection.execute(_END, {"credentials": msgspec.json.encode(credentials).decode()})
