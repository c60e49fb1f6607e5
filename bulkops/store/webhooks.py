"""Rows of `webhooks`: who outside is told of jobs, and of which kinds of events.

What comes in: what somebody subscribes to; what goes out: rows without their secrets, each secret once, as it is
made. What is told, and how that went, is kept in `deliveries`.
"""

from __future__ import annotations

import base64
import secrets
import sqlite3
from collections.abc import Collection
from typing import Any, Final, Literal

import msgspec

from bulkops.ids import new_id
from bulkops.shapes import whole
from bulkops.store.transaction import Tx

Result = Literal["2xx", "3xx", "4xx", "5xx", "timeout", "unreachable", "refused", "backlog"]

#: Kinds of events that can be subscribed to.
EVENTS: Final = ("started", "progress", "paused", "completed", "failed", "cancelled")
MAX_PER_TENANT: Final = 10
_SECRET_BYTES: Final = 32
_LAST_ID: Final = "~"


class Attempt(msgspec.Struct, frozen=True):
    """How the last attempt for a webhook ended: the JSON of `webhooks.last`."""

    id: str
    type: str
    result: Result
    at_ms: int
    took_ms: int


class WebhookRow(msgspec.Struct, frozen=True):
    """A row of `webhooks` without its secret."""

    id: str
    tenant: str | None
    url: str
    events: list[str]
    description: str | None
    status: str
    created_by: str
    created_ms: int
    last: Attempt | None


_COUNT: Final = "SELECT count(*) FROM webhooks WHERE tenant IS :tenant"


def count(connection: sqlite3.Connection, tenant: str | None) -> int:
    """Count the webhooks of one tenant, or of the installation."""
    return int(connection.execute(_COUNT, {"tenant": tenant}).fetchone()[0])


_INSERT: Final = """
INSERT INTO webhooks (id, tenant, url, secret, events, description, status, created_by, created_ms)
VALUES (:id, :tenant, :url, :secret, :events, :description, 'active', :created_by, :created_ms)
"""


def create(
    tx: Tx, *, tenant: str | None, url: str, events: Collection[str], description: str | None, user: str
) -> tuple[WebhookRow, str]:
    """Write a webhook; return it with its secret, which no list shows again."""
    wanted = [kind for kind in EVENTS if kind in events]
    row = WebhookRow(new_id(), tenant, url, wanted, description, "active", user, tx.now_ms, None)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    tx.connection.execute(
        _INSERT,
        {
            "id": row.id,
            "tenant": tenant,
            "url": url,
            "secret": secret,
            "events": msgspec.json.encode(wanted).decode(),
            "description": description,
            "created_by": user,
            "created_ms": tx.now_ms,
        },
    )
    return row, secret


_COLUMNS: Final = "id, tenant, url, events, description, status, created_by, created_ms, last"


def _from_row(row: tuple[Any, ...]) -> WebhookRow:
    webhook, tenant, url, events, description, status, created_by, created_ms, last = row
    wanted = msgspec.json.decode(events, type=list[str])
    ended = None if last is None else msgspec.json.decode(last, type=whole(Attempt))
    return WebhookRow(webhook, tenant, url, wanted, description, status, created_by, created_ms, ended)


_GET: Final = f"SELECT {_COLUMNS} FROM webhooks WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant)"


def get(connection: sqlite3.Connection, webhook: str, *, tenant: str | None = None) -> WebhookRow | None:
    """Return a webhook of a tenant (``None``: of any), ``None`` when there is none such."""
    row = connection.execute(_GET, {"id": webhook, "tenant": tenant}).fetchone()
    return None if row is None else _from_row(row)


_PAGE_ALL: Final = f"SELECT {_COLUMNS} FROM webhooks WHERE id < :before ORDER BY id DESC LIMIT :limit"
_PAGE_TENANT: Final = f"""
SELECT {_COLUMNS} FROM webhooks WHERE tenant = :tenant AND id < :before ORDER BY id DESC LIMIT :limit
"""


def page(
    connection: sqlite3.Connection, *, tenant: str | None, before: str | None, limit: int
) -> list[WebhookRow]:
    """List the webhooks of a tenant (``None``: all), newest first, made before the one named."""
    statement = _PAGE_ALL if tenant is None else _PAGE_TENANT
    values = {"tenant": tenant, "before": before or _LAST_ID, "limit": limit}
    return [_from_row(row) for row in connection.execute(statement, values)]


_DELETE: Final = "DELETE FROM webhooks WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant)"


def delete(tx: Tx, webhook: str, *, tenant: str | None = None) -> bool:
    """Remove a webhook and all its letters; say whether there was one."""
    return tx.connection.execute(_DELETE, {"id": webhook, "tenant": tenant}).rowcount > 0


_DISABLE: Final = "UPDATE webhooks SET status = 'disabled' WHERE id = :id AND status = 'active'"
_BURY: Final = """
UPDATE webhook_deliveries SET state = 'dead', updated_ms = :now WHERE webhook = :id AND state = 'pending'
"""


def disable(tx: Tx, webhook: str) -> None:
    """Send nothing to a webhook any more; what waits for it is dead."""
    if tx.connection.execute(_DISABLE, {"id": webhook}).rowcount:
        tx.connection.execute(_BURY, {"id": webhook, "now": tx.now_ms})
