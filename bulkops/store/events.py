"""The event log: what is appended beside every change, and what a follower may read after its cursor.

What comes in: a write transaction and the job it changed, or a read connection and a `Scope` (what a
caller follows and may see); what goes out: rows in the order of ``seq``, already in their wire form. The
log is append-only but for two rules: a progress row replaces the job's older one, and `trim` removes from
below. Authorisation is part of the WHERE clause, so a row that is not the caller's is never read.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Final, Literal, Protocol

import msgspec

from bulkops.store import deliveries, meta
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339

MAX_ROWS: Final = 200
MAX_BYTES: Final = 64 * 1024 - 1024  # a frame is 64 KiB; the rest is for its envelope
MAX_NAMED_IDS: Final = 100
_MAX_DATA_BYTES: Final = 32 * 1024
#: How many seqs one read of an unindexed filter may pass, so that sparse topics cost no long scan.
_MAX_WINDOW: Final = 20_000
_MAX_TRIMMED: Final = 5_000
_WEEK_MS: Final = 7 * 24 * 3600 * 1000

TERMINAL_KINDS: Final = frozenset({"completed", "failed", "cancelled"})


class Cursor(msgspec.Struct, frozen=True):
    """A place in the log, ``<epoch>:<seq>`` on every face: everything up to ``seq`` is known."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read the wire form.

        Raises:
            ValueError: the text is no cursor that this log could have written.
        """
        found = _CURSOR.fullmatch(text)
        if found is None or int(found[2]) >= 1 << 63:
            raise ValueError("a cursor is <epoch>:<seq>")
        return cls(found[1], int(found[2]))


_CURSOR: Final = re.compile(r"([0-9A-Za-z_-]{1,64}):(0|[1-9][0-9]{0,18})", re.ASCII)


class _Subject(Protocol):
    """What an event needs to know of whatever it tells about."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...
    @property
    def requested_by(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def project(self) -> str | None: ...


class JobLike(_Subject, Protocol):
    """What an event needs to know of a job."""

    @property
    def task_id(self) -> str | None: ...
    @property
    def task_type(self) -> str | None: ...
    @property
    def resource(self) -> str: ...
    @property
    def action(self) -> str: ...


class TaskLike(_Subject, Protocol):
    """What an event needs to know of a task."""

    @property
    def type(self) -> str: ...


_REPLACE_PROGRESS: Final = "DELETE FROM events WHERE job = :job AND kind = 'progress'"


def append(tx: Tx, job: JobLike, kind: str, data: dict[str, Any]) -> int:
    """Tell one change of a job; return its seq. Progress takes the place of the job's older progress."""
    if kind == "progress":
        tx.connection.execute(_REPLACE_PROGRESS, {"job": job.id})
    values = {
        "tenant": job.tenant,
        "user": job.requested_by,
        "job": job.id,
        "task_id": job.task_id,
        "task_type": job.task_type,
        "project": job.project,
        "source": str(job.source),
        "resource": job.resource,
        "action": job.action,
    }
    seq = _insert(tx, values, kind, data)
    deliveries.tell(tx, values, kind, seq, data)
    return seq


def changed(tx: Tx, job: JobLike, *, ids: list[str] | None, count: int | None) -> int:
    """Tell that items changed: which, when they are few and short, else how many; return the seq."""
    named = ids is not None and len(ids) <= MAX_NAMED_IDS and sum(map(len, ids)) <= _MAX_DATA_BYTES // 4
    if named:
        return append(tx, job, "changed", {"ids": ids})
    return append(tx, job, "changed", {"count": count if count is not None else len(ids or [])})


def task_completed(tx: Tx, task: TaskLike, data: dict[str, Any]) -> int:
    """Tell that the last job of a task has ended; return the seq."""
    values = {
        "tenant": task.tenant,
        "user": task.requested_by,
        "job": None,
        "task_id": task.id,
        "task_type": task.type,
        "project": task.project,
        "source": str(task.source),
        "resource": None,
        "action": None,
    }
    return _insert(tx, values, "task_completed", data)


_APPEND: Final = """
INSERT INTO events (tenant, user, job, task_id, task_type, project, source, resource, action, kind, at_ms, data)
VALUES (:tenant, :user, :job, :task_id, :task_type, :project, :source, :resource, :action, :kind, :at_ms, :data)
"""


def _insert(tx: Tx, values: dict[str, str | None], kind: str, data: dict[str, Any]) -> int:
    row = {**values, "kind": kind, "at_ms": tx.now_ms, "data": _fit(data)}
    seq = tx.connection.execute(_APPEND, row).lastrowid
    assert seq is not None
    tx.ring(job=values["job"], head=seq)
    return seq


def _fit(data: dict[str, Any]) -> str:
    # Live items are best effort (the full list is REST), and one event must leave room in its frame.
    text = msgspec.json.encode(data)
    if len(text) > _MAX_DATA_BYTES and "items" in data:
        text = msgspec.json.encode({**data, "items": []})
    return text.decode()


class LogState(msgspec.Struct, frozen=True):
    """Where the log begins and ends: every event with ``seq >= floor`` is still there."""

    epoch: str
    floor: int
    head: int

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.head)

    @property
    def earliest(self) -> Cursor:
        """Return the first place from which everything can be read."""
        return Cursor(self.epoch, min(self.floor - 1, self.head))

    def loss(self, cursor: Cursor) -> str | None:
        """Say why a follower cannot go on from ``cursor``; ``None`` when it can."""
        if cursor.epoch != self.epoch:
            return "epoch"
        if cursor.seq > self.head:
            return "ahead"
        return "trimmed" if cursor.seq + 1 < self.floor else None


_LAST: Final = "SELECT max(seq) FROM events"


def state(connection: sqlite3.Connection) -> LogState:
    """Return the log's epoch, floor and head."""
    floor = int(meta.read(connection, "event_floor") or 1)
    last = connection.execute(_LAST).fetchone()[0] or 0
    # An emptied log ends where its floor says, not at 0.
    return LogState(meta.read(connection, "epoch") or "", floor, max(last, floor - 1))


def cursor(connection: sqlite3.Connection) -> str:
    """Return the log's head as a cursor, for answers that carry the state as of it."""
    return str(state(connection).cursor)


class Audience(msgspec.Struct, frozen=True):
    """Whose a job or task is: what `operations.may_see` asks."""

    tenant: str | None
    requested_by: str
    source: str
    ended: bool
    #: The event that told of a job's end, while the log has it.
    end_seq: int | None


_JOB_AUDIENCE: Final = """
SELECT tenant, requested_by, source, status IN ('completed', 'failed', 'cancelled'),
       CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN
         (SELECT seq FROM events WHERE job = jobs.id AND kind = jobs.status ORDER BY seq DESC LIMIT 1)
       END
  FROM jobs WHERE id = :id
"""
_TASK_AUDIENCE: Final = "SELECT tenant, requested_by, source, 0, NULL FROM tasks WHERE id = :id"


def audience(
    connection: sqlite3.Connection, kind: Literal["job", "task"], subject_id: str
) -> Audience | None:
    """Return whose a job or task is; ``None`` when there is no such thing."""
    statement = _JOB_AUDIENCE if kind == "job" else _TASK_AUDIENCE
    row = connection.execute(statement, {"id": subject_id}).fetchone()
    return None if row is None else Audience(row[0], row[1], row[2], bool(row[3]), row[4])


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is followed, and by whom; equal scopes read equal rows, so their followers share one read.

    ``tenant`` counts unless ``any_tenant``. ``user`` is ``None`` for who may see everybody's jobs.
    ``installation`` opens maintenance that belongs to no tenant.
    """

    kind: Literal["all", "job", "task"]
    id: str | None = None
    tenant: str | None = None
    any_tenant: bool = False
    user: str | None = None
    installation: bool = False


class EventRow(msgspec.Struct, frozen=True):
    """An event in its wire form: ``{"seq":`` + seq + ``rest`` (which ends the object)."""

    seq: int
    kind: str
    job: str | None
    rest: str
    size: int


class _Wire(msgspec.Struct, frozen=True):
    kind: str
    at: str | None
    job: str | None
    task_id: str | None
    task_type: str | None
    project: str | None
    source: str
    resource: str | None
    action: str | None
    data: msgspec.Raw


class Slice(msgspec.Struct, frozen=True):
    """What a read found: rows, and how far it has looked (``position``), rows or none."""

    rows: list[EventRow]
    position: int


_ROW: Final = "seq, kind, at_ms, job, task_id, task_type, project, source, resource, action, data"
# `changed` names ids, not rows: everybody of the tenant has lists to refresh.
_VISIBLE: Final = """
  AND (:any_tenant OR tenant = :tenant)
  AND (:user IS NULL OR user = :user OR kind = 'changed')
  AND (:installation OR source = 'user' OR tenant IS NOT NULL)
ORDER BY seq LIMIT :limit
"""
_READ_JOB: Final = f"SELECT {_ROW} FROM events WHERE job = :id AND seq > :after AND seq <= :upto {_VISIBLE}"
_READ_TASK: Final = (
    f"SELECT {_ROW} FROM events WHERE task_id = :id AND seq > :after AND seq <= :upto {_VISIBLE}"
)
_READ_TENANT: Final = (
    f"SELECT {_ROW} FROM events WHERE tenant = :tenant AND seq > :after AND seq <= :upto {_VISIBLE}"
)
_READ_ALL: Final = f"SELECT {_ROW} FROM events WHERE seq > :after AND seq <= :upto {_VISIBLE}"


def read_after(
    connection: sqlite3.Connection,
    scope: Scope,
    after: int,
    *,
    head: int,
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_BYTES,
) -> Slice:
    """Return the next rows of ``scope`` after ``after``, up to ``head``; the position moves without rows too."""
    upto = head if scope.id is not None else min(head, after + _MAX_WINDOW)
    found = connection.execute(
        _statement(scope), {**msgspec.structs.asdict(scope), "after": after, "upto": upto, "limit": max_rows}
    )
    rows: list[EventRow] = []
    room = max_bytes
    try:
        for row in found:
            event = _from_row(row)
            room -= event.size
            if rows and room < 0:
                return Slice(rows, rows[-1].seq)
            rows.append(event)
    finally:
        found.close()
    return Slice(rows, rows[-1].seq if len(rows) == max_rows else max(after, upto))


def _statement(scope: Scope) -> str:
    if scope.kind == "job":
        return _READ_JOB
    if scope.kind == "task":
        return _READ_TASK
    return _READ_ALL if scope.any_tenant else _READ_TENANT


def _from_row(row: tuple[Any, ...]) -> EventRow:
    seq, kind, at_ms, job, task_id, task_type, project, source, resource, action, data = row
    text = msgspec.json.encode(
        _Wire(
            kind=kind,
            at=rfc3339(at_ms),
            job=job,
            task_id=task_id,
            task_type=task_type,
            project=project,
            source=source,
            resource=resource,
            action=action,
            data=msgspec.Raw(data.encode()),
        )
    )
    return EventRow(seq, kind, job, "," + text[1:].decode(), len(text) + 32)


_LAST_TIME: Final = "SELECT at_ms FROM events WHERE seq = (SELECT max(seq) FROM events)"


def last_ms(connection: sqlite3.Connection) -> int | None:
    """Say when the last event was written; ``None`` when there is none."""
    row = connection.execute(_LAST_TIME).fetchone()
    return None if row is None else int(row[0])


_FIRST_KEPT: Final = "SELECT seq FROM events WHERE seq >= :floor AND at_ms >= :before_ms ORDER BY seq LIMIT 1"
_TRIM: Final = """
DELETE FROM events WHERE seq IN (
  SELECT seq FROM events WHERE seq >= :floor AND seq < :end AND kind NOT IN ('completed', 'failed', 'cancelled')
  ORDER BY seq LIMIT :limit
) RETURNING seq
"""
_TRIM_TERMINAL: Final = """
DELETE FROM events WHERE seq IN (
  SELECT seq FROM events WHERE seq < :end AND kind IN ('completed', 'failed', 'cancelled')
  ORDER BY seq LIMIT :limit
) RETURNING seq
"""


def trim(tx: Tx, *, before_ms: int, keep_terminal_ms: int = _WEEK_MS) -> int:
    """Remove events older than the instant ``before_ms``; return how many went, 0 when it is done.

    Terminal events stay for ``keep_terminal_ms`` (a duration, at least seven days) even so. The floor moves
    over what was removed and no further, so a cursor at or after it misses nothing. One call removes a
    bounded number of rows; call again until it returns 0.
    """
    log = state(tx.connection)
    terminal_ms = min(before_ms, tx.now_ms - max(keep_terminal_ms, _WEEK_MS))
    gone = _remove(tx, _TRIM, log, floor=log.floor, before_ms=before_ms)
    gone += _remove(tx, _TRIM_TERMINAL, log, floor=0, before_ms=terminal_ms)
    if gone:
        meta.write(tx, "event_floor", str(max(log.floor, max(gone) + 1)))
    return len(gone)


def _remove(tx: Tx, statement: str, log: LogState, *, floor: int, before_ms: int) -> list[int]:
    # The log is in the order of time, so the first row to keep ends the walk; a clock that was set back
    # can only make us keep more.
    kept = tx.connection.execute(_FIRST_KEPT, {"floor": floor, "before_ms": before_ms}).fetchone()
    end = log.head + 1 if kept is None else kept[0]
    rows = tx.connection.execute(statement, {"floor": floor, "end": end, "limit": _MAX_TRIMMED})
    return [row[0] for row in rows.fetchall()]
