"""Who did what: an append-only list (triggers refuse every change), and its two shapes for export.

What comes in: a verb, its doer, ids and counts; what goes out: pages, newest first, within one tenant or
over all. The values of rows never come in here.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from bulkops import cells
from bulkops.operations import MAINTENANCE
from bulkops.store.transaction import Tx
from bulkops.timing import rfc3339

_CELLS: Final = ("seq", "at", "user", "tenant", "verb", "job", "resource", "detail")


class AuditRow(msgspec.Struct, frozen=True):
    """One row of `audit`, its detail decoded."""

    seq: int
    at_ms: int
    user: str
    tenant: str | None
    verb: str
    job: str | None
    resource: str | None
    detail: dict[str, Any]


_INSERT: Final = """
INSERT INTO audit (at_ms, user, tenant, verb, job, resource, detail)
VALUES (:at_ms, :user, :tenant, :verb, :job, :resource, :detail)
"""


def append(
    tx: Tx,
    *,
    user: str,
    tenant: str | None,
    verb: str,
    job: str | None = None,
    resource: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Note an act in the transaction that does it; ``detail`` holds ids and counts, never row values."""
    tx.connection.execute(
        _INSERT,
        {
            "at_ms": tx.now_ms,
            "user": user,
            "tenant": tenant,
            "verb": verb,
            "job": job,
            "resource": resource,
            "detail": msgspec.json.encode(detail or {}).decode(),
        },
    )


_COLUMNS: Final = "seq, at_ms, user, tenant, verb, job, resource, detail"
# What the house did for itself is its owners'.
_SEEN: Final = f"(:installation OR tenant IS NOT NULL OR resource IS NOT '{MAINTENANCE}')"
_ALL: Final = f"""
SELECT {_COLUMNS} FROM audit WHERE seq < :before AND {_SEEN} ORDER BY seq DESC LIMIT :limit
"""
_TENANT: Final = f"""
SELECT {_COLUMNS} FROM audit WHERE tenant = :tenant AND seq < :before ORDER BY seq DESC LIMIT :limit
"""
_JOB: Final = f"""
SELECT {_COLUMNS} FROM audit WHERE job = :job AND seq < :before AND {_SEEN} ORDER BY seq DESC LIMIT :limit
"""
_JOB_OF_TENANT: Final = f"""
SELECT {_COLUMNS} FROM audit
 WHERE job = :job AND +tenant = :tenant AND seq < :before ORDER BY seq DESC LIMIT :limit
"""
_LAST: Final = (1 << 63) - 1


def page(
    connection: sqlite3.Connection,
    *,
    tenant: str | None,
    job: str | None = None,
    before: int | None = None,
    limit: int = 50,
    installation: bool = True,
) -> list[AuditRow]:
    """List rows with ``seq < before``, newest first; ``tenant=None`` sees those of all tenants and of none.

    ``installation``: also what the house's own maintenance did.
    """
    whole_house = _ALL if job is None else _JOB
    one_tenant = _TENANT if job is None else _JOB_OF_TENANT
    values = {"tenant": tenant, "job": job, "before": _LAST if before is None else before, "limit": limit}
    statement = whole_house if tenant is None else one_tenant
    rows = connection.execute(statement, {**values, "installation": installation})
    return [_from_row(row) for row in rows]


_BATCHES: Final = """
SELECT json_extract(detail, '$.first') FROM audit WHERE job = :job AND verb = 'batch' ORDER BY seq
"""


def batches(connection: sqlite3.Connection, job: str) -> list[int]:
    """List the positions at which the batches of a job began, in their order."""
    return [row[0] for row in connection.execute(_BATCHES, {"job": job})]


def _from_row(row: tuple[Any, ...]) -> AuditRow:
    values = [*row[:-1], msgspec.json.decode(row[-1])]
    return AuditRow(*values)


def view(row: AuditRow) -> dict[str, Any]:
    """Shape a row for the wire."""
    return {
        "seq": row.seq,
        "at": rfc3339(row.at_ms),
        "user": row.user,
        "tenant": row.tenant,
        "verb": row.verb,
        "job": row.job,
        "resource": row.resource,
        "detail": row.detail,
    }


def ndjson(views: list[dict[str, Any]]) -> bytes:
    """Write views as lines of JSON, ``b""`` for none."""
    return b"".join(msgspec.json.encode(each) + b"\n" for each in views)


def csv_header() -> bytes:
    """Return the first line of the CSV export."""
    return cells.line(_CELLS).encode()


def csv_lines(views: list[dict[str, Any]]) -> bytes:
    """Write views as CSV whose text cells no spreadsheet takes for formulas."""
    lines = []
    for each in views:
        detail = msgspec.json.encode(each["detail"]).decode()
        lines.append(cells.line([*[each[name] for name in _CELLS[:-1]], detail]))
    return "".join(lines).encode("utf-8", "backslashreplace")
