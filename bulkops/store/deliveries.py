"""Rows of `webhook_deliveries`: the outbox of what endpoints are told.

::

    (event) ──tell──▶ pending ──claim, send──▶ delivered
                         ▲ │ └─ attempts used up, or the endpoint is gone ──▶ dead
                         │ └─ newer progress of the job takes its place       │
                         └────────────────────── resend ──────────────────────┘

What comes in: events inside the transaction that writes them, and results of who sent; what goes out:
letters to send, one a webhook at a time. Those of one job wait as one, so that they arrive in order; an
attempt and the wait after it are written before it is made, so that a crash costs a repetition, never a
letter. What an endpoint answered is kept as its class and how long it took, and nothing else of it.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from bulkops.ids import new_id
from bulkops.store.transaction import Tx
from bulkops.store.webhooks import EVENTS, Attempt, Result, disable
from bulkops.timing import rfc3339

MAX_PAYLOAD: Final = 20_000
#: Seconds before each attempt, counted from the end of the one before. Source: Standard Webhooks.
SCHEDULE_S: Final = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_ATTEMPTS: Final = len(SCHEDULE_S)
_JITTER: Final = 0.1
_MAX_RETRY_AFTER_MS: Final = 24 * 3_600_000
#: Nothing waits longer; what is due later was written before the clock was set back.
_FAR_MS: Final = 30 * 3_600_000
#: What may wait for one webhook; beyond, letters are born dead, to be sent again by hand.
_MAX_PENDING: Final = 10_000
_MAX_TEXT: Final = 200
_LAST_SEQ: Final = (1 << 63) - 1


class DeliveryRow(msgspec.Struct, frozen=True):
    """A row of `webhook_deliveries` without its payload."""

    seq: int
    id: str
    webhook: str
    job: str | None
    kind: str
    state: str
    attempts: int
    not_before_ms: int
    result: Result | None
    took_ms: int | None
    created_ms: int
    updated_ms: int


class Letter(msgspec.Struct, frozen=True):
    """A delivery to be attempted now; ``attempt`` counts this one."""

    id: str
    webhook: str
    url: str
    secret: str
    job: str | None
    kind: str
    payload: str
    attempt: int


class Reply(msgspec.Struct, frozen=True):
    """How an attempt ended. ``gone``: the endpoint wants nothing any more (410)."""

    result: Result
    took_ms: int
    gone: bool = False
    retry_after_ms: int = 0


# --- told with the event ------------------------------------------------------------------------------

_SUBSCRIBED: Final = """
SELECT id FROM webhooks WHERE tenant IS NULL AND status = 'active' AND instr(events, :kind)
 UNION ALL
SELECT id FROM webhooks WHERE tenant = :tenant AND status = 'active' AND instr(events, :kind)
"""


def tell(tx: Tx, about: Mapping[str, str | None], kind: str, seq: int, data: dict[str, Any]) -> None:
    """Put an event in the outbox of the webhooks that want it; without one this is a single look.

    ``about`` are the event's own columns: tenant, job, task_id, task_type, project, source, resource, action.
    The installation's own maintenance is told to nobody.
    """
    tenant = about["tenant"]
    if kind not in EVENTS or (tenant is None and about["source"] == "maintenance"):
        return
    found = tx.connection.execute(_SUBSCRIBED, {"tenant": tenant, "kind": f'"{kind}"'}).fetchall()
    if not found:
        return
    payload = compose(about, kind, seq, data, at_ms=tx.now_ms)
    for (webhook,) in found:
        _post(tx, webhook, about["job"], kind, payload)


_FULL: Final = """
SELECT 1 FROM webhook_deliveries INDEXED BY webhook_deliveries_due
 WHERE webhook = :webhook AND state = 'pending' LIMIT 1 OFFSET :most
"""
# Behind others of its job it waits as long as they do, and newer progress goes on where older was.
_POST: Final = """
INSERT INTO webhook_deliveries
       (id, webhook, job, kind, payload, state, attempts, not_before_ms, result, created_ms, updated_ms)
VALUES (:id, :webhook, :job, :kind, :payload, :state,
        coalesce((SELECT max(attempts) FROM webhook_deliveries
                   WHERE webhook = :webhook AND job IS :job AND state = 'pending'
                     AND kind = 'progress' AND :kind = 'progress'), 0),
        max(:now, coalesce((SELECT max(not_before_ms) FROM webhook_deliveries
                             WHERE webhook = :webhook AND job IS :job AND state = 'pending'), 0)),
        :result, :now, :now)
"""
_REPLACE: Final = """
DELETE FROM webhook_deliveries
 WHERE webhook = :webhook AND job IS :job AND seq < :seq AND state = 'pending' AND kind = 'progress'
"""


def _post(tx: Tx, webhook: str, job: str | None, kind: str, payload: str) -> str | None:
    values = {"webhook": webhook, "job": job, "kind": kind, "payload": payload, "now": tx.now_ms}
    full = tx.connection.execute(_FULL, {"webhook": webhook, "most": _MAX_PENDING - 1}).fetchone() is not None
    if full and kind == "progress":
        return None
    state, result = ("dead", "backlog") if full else ("pending", None)
    delivery = new_id()
    seq = tx.connection.execute(_POST, {**values, "id": delivery, "state": state, "result": result}).lastrowid
    if job is not None:
        # Counts are absolute, so whatever is newer says all that waiting progress would have said.
        tx.connection.execute(_REPLACE, {"webhook": webhook, "job": job, "seq": seq})
    tx.ring(letters=True)
    return delivery


def compose(about: Mapping[str, str | None], kind: str, seq: int, data: dict[str, Any], *, at_ms: int) -> str:
    """Write the payload ``{type, timestamp, data}``, its ``data`` the event as on every other face.

    Over 20,000 bytes the live items stay out, and then the ends of long texts too.
    """
    at = rfc3339(at_ms)
    event = {"seq": seq, "kind": kind, "at": at, **{name: about[name] for name in _ABOUT}, "data": data}
    without_items = {**event, "data": {**data, "items": []}} if "items" in data else event
    for told in (event, without_items, _shortened(without_items)):
        text = msgspec.json.encode({"type": kind, "timestamp": at, "data": told})
        if len(text) <= MAX_PAYLOAD:
            break
    return text.decode()


_ABOUT: Final = ("job", "task_id", "task_type", "project", "source", "resource", "action", "tenant")


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    return [] if isinstance(value, list) else value


def tell_test(tx: Tx, webhook: str) -> str | None:
    """Put a letter in the outbox that tells of nothing; return its id, ``None`` when the backlog is full."""
    at = rfc3339(tx.now_ms)
    payload = msgspec.json.encode({"type": "test", "timestamp": at, "data": {"webhook": webhook}}).decode()
    return _post(tx, webhook, None, "test", payload)


# --- sent by the postman ------------------------------------------------------------------------------

_WAITS: Final = """
SELECT min((SELECT min(not_before_ms) FROM webhook_deliveries INDEXED BY webhook_deliveries_due
             WHERE webhook = webhooks.id AND state = 'pending')),
       max((SELECT max(not_before_ms) FROM webhook_deliveries INDEXED BY webhook_deliveries_due
             WHERE webhook = webhooks.id AND state = 'pending'))
  FROM webhooks INDEXED BY webhooks_turn
 WHERE status = 'active' AND id NOT IN (SELECT value FROM json_each(:held))
"""


def next_due_ms(connection: sqlite3.Connection, now_ms: int, *, held: Collection[str] = ()) -> int | None:
    """Say when the next letter is due of a webhook that nobody serves now, ``None`` without one."""
    first, last = connection.execute(_WAITS, {"held": _array(held)}).fetchone()
    if first is None:
        return None
    return now_ms if last > now_ms + _FAR_MS else int(first)


def _array(values: Collection[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


_THAW: Final = """
UPDATE webhook_deliveries SET not_before_ms = :now
 WHERE webhook IN (SELECT id FROM webhooks INDEXED BY webhooks_turn WHERE status = 'active')
   AND state = 'pending' AND not_before_ms > :far
"""
# Whose last attempt is longest ago comes first: an endpoint with a long queue keeps nobody from his turn.
_TURNS: Final = """
SELECT id, url, secret FROM webhooks INDEXED BY webhooks_turn
 WHERE status = 'active' AND id NOT IN (SELECT value FROM json_each(:held))
   AND EXISTS (SELECT 1 FROM webhook_deliveries INDEXED BY webhook_deliveries_due
                WHERE webhook = webhooks.id AND state = 'pending' AND not_before_ms <= :now)
 ORDER BY attempted_ms, id LIMIT :limit
"""


def claim(tx: Tx, limit: int, *, held: Collection[str] = ()) -> list[Letter]:
    """Take the first due letter of up to ``limit`` webhooks, each attempt counted before it is made.

    ``held`` are the webhooks that are being served: one letter at a time goes to each.
    """
    now = tx.now_ms
    tx.connection.execute(_THAW, {"now": now, "far": now + _FAR_MS})
    turns = tx.connection.execute(_TURNS, {"now": now, "held": _array(held), "limit": limit}).fetchall()
    taken = (_take(tx, webhook, url, secret) for webhook, url, secret in turns)
    return [letter for letter in taken if letter is not None]


_FIRST: Final = """
SELECT id, job, kind, payload, attempts FROM webhook_deliveries INDEXED BY webhook_deliveries_due
 WHERE webhook = :webhook AND state = 'pending' AND not_before_ms <= :now ORDER BY not_before_ms, seq LIMIT 1
"""
_COUNT_ATTEMPT: Final = (
    "UPDATE webhook_deliveries SET attempts = attempts + 1, updated_ms = :now WHERE id = :id"
)
_NOTE_TURN: Final = "UPDATE webhooks SET attempted_ms = :now WHERE id = :webhook"


def _take(tx: Tx, webhook: str, url: str, secret: str) -> Letter | None:
    while True:
        row = tx.connection.execute(_FIRST, {"webhook": webhook, "now": tx.now_ms}).fetchone()
        if row is None:
            return None
        delivery, job, kind, payload, attempts = row
        if attempts < MAX_ATTEMPTS:
            break
        # The process died in its last attempt; whether it arrived is not known, and it had its chances.
        _settle(tx, delivery, "dead", "timeout", None)
        _release(tx, webhook, job)
    tx.connection.execute(_COUNT_ATTEMPT, {"id": delivery, "now": tx.now_ms})
    tx.connection.execute(_NOTE_TURN, {"webhook": webhook, "now": tx.now_ms})
    _wait_until(tx, webhook, job, tx.now_ms + pause_ms(attempts + 1))
    return Letter(delivery, webhook, url, secret, job, kind, payload, attempts + 1)


def pause_ms(attempts: int) -> int:
    """Say how long to wait after so many attempts (1 …), with up to a tenth more at random."""
    after_s = SCHEDULE_S[min(attempts, MAX_ATTEMPTS - 1)]
    return int(after_s * 1000 * random.uniform(1, 1 + _JITTER))  # noqa: S311  jitter is no secret


_WAIT_UNTIL: Final = """
UPDATE webhook_deliveries INDEXED BY webhook_deliveries_job SET not_before_ms = :at
 WHERE webhook = :webhook AND job IS :job AND state = 'pending'
"""


def _wait_until(tx: Tx, webhook: str, job: str | None, at_ms: int) -> None:
    tx.connection.execute(_WAIT_UNTIL, {"webhook": webhook, "job": job, "at": at_ms})


_SETTLE: Final = """
UPDATE webhook_deliveries SET state = :state, result = :result, took_ms = :took_ms, updated_ms = :now
 WHERE id = :id AND state = 'pending'
"""


def _settle(tx: Tx, delivery: str, state: str, result: Result, took_ms: int | None) -> None:
    values = {"id": delivery, "state": state, "result": result, "took_ms": took_ms, "now": tx.now_ms}
    tx.connection.execute(_SETTLE, values)


def record(tx: Tx, letter: Letter, reply: Reply) -> None:
    """Write how an attempt ended; a letter whose place was taken meanwhile leaves only its webhook's trace."""
    _note_last(tx, letter, reply)
    if reply.gone:
        _settle(tx, letter.id, "dead", reply.result, reply.took_ms)
        disable(tx, letter.webhook)
    elif reply.result == "2xx":
        _settle(tx, letter.id, "delivered", reply.result, reply.took_ms)
        _forget_progress(tx, letter)
        _release(tx, letter.webhook, letter.job)
    elif letter.attempt >= MAX_ATTEMPTS:
        _settle(tx, letter.id, "dead", reply.result, reply.took_ms)
        _release(tx, letter.webhook, letter.job)
    else:
        _settle(tx, letter.id, "pending", reply.result, reply.took_ms)
        _heed_retry_after(tx, letter, reply)


_RELEASE: Final = """
UPDATE webhook_deliveries INDEXED BY webhook_deliveries_job
   SET not_before_ms = min(created_ms, :now), attempts = 0
 WHERE webhook = :webhook AND job IS :job AND state = 'pending'
"""


def _release(tx: Tx, webhook: str, job: str | None) -> None:
    # What waited behind goes now, in its old place among other jobs' letters, with all its chances.
    tx.connection.execute(_RELEASE, {"webhook": webhook, "job": job, "now": tx.now_ms})


_NOTE_LAST: Final = "UPDATE webhooks SET last = :last WHERE id = :webhook"


def _note_last(tx: Tx, letter: Letter, reply: Reply) -> None:
    last = Attempt(letter.id, letter.kind, reply.result, tx.now_ms, reply.took_ms)
    values = {"webhook": letter.webhook, "last": msgspec.json.encode(last).decode()}
    tx.connection.execute(_NOTE_LAST, values)


_FORGET_PROGRESS: Final = """
DELETE FROM webhook_deliveries
 WHERE webhook = :webhook AND job IS :job AND kind = 'progress' AND state = 'delivered' AND id <> :id
"""


def _forget_progress(tx: Tx, letter: Letter) -> None:
    # Four a second may have been sent for hours, and the newest says it all.
    if letter.kind == "progress":
        values = {"webhook": letter.webhook, "job": letter.job, "id": letter.id}
        tx.connection.execute(_FORGET_PROGRESS, values)


_WAIT_LONGER: Final = """
UPDATE webhook_deliveries INDEXED BY webhook_deliveries_job SET not_before_ms = max(not_before_ms, :at)
 WHERE webhook = :webhook AND job IS :job AND state = 'pending'
"""


def _heed_retry_after(tx: Tx, letter: Letter, reply: Reply) -> None:
    if reply.retry_after_ms > 0:
        at_ms = tx.now_ms + min(reply.retry_after_ms, _MAX_RETRY_AFTER_MS)
        tx.connection.execute(_WAIT_LONGER, {"webhook": letter.webhook, "job": letter.job, "at": at_ms})


# --- seen and steered by people -----------------------------------------------------------------------

_COLUMNS: Final = (
    "seq, id, webhook, job, kind, state, attempts, not_before_ms, result, took_ms, created_ms, updated_ms"
)
_GET: Final = f"SELECT {_COLUMNS} FROM webhook_deliveries WHERE id = :id AND webhook = :webhook"


def get(connection: sqlite3.Connection, webhook: str, delivery: str) -> DeliveryRow | None:
    """Return a delivery of a webhook, ``None`` when there is none such."""
    row = connection.execute(_GET, {"id": delivery, "webhook": webhook}).fetchone()
    return None if row is None else DeliveryRow(*row)


_PAGE: Final = f"""
SELECT {_COLUMNS} FROM webhook_deliveries INDEXED BY webhook_deliveries_list
 WHERE webhook = :webhook AND seq < :before AND (:state IS NULL OR state = :state) ORDER BY seq DESC LIMIT :limit
"""


def page(
    connection: sqlite3.Connection, webhook: str, *, state: str | None, before: int | None, limit: int
) -> list[DeliveryRow]:
    """List a webhook's deliveries, of one state or of all, newest first, written before the one named."""
    values = {
        "webhook": webhook,
        "state": state,
        "before": _LAST_SEQ if before is None else before,
        "limit": limit,
    }
    return [DeliveryRow(*row) for row in connection.execute(_PAGE, values)]


_RESEND: Final = """
UPDATE webhook_deliveries SET state = 'pending', attempts = 0, not_before_ms = :now, updated_ms = :now
 WHERE id = :id AND webhook = :webhook AND state <> 'pending'
   AND EXISTS (SELECT 1 FROM webhooks WHERE id = :webhook AND status = 'active')
"""


def resend(tx: Tx, webhook: str, delivery: str) -> bool:
    """Put a dead or delivered letter of an active webhook in line again, under its old id; say whether."""
    found = tx.connection.execute(_RESEND, {"id": delivery, "webhook": webhook, "now": tx.now_ms}).rowcount
    if found:
        tx.ring(letters=True)
    return found > 0


# --- kept for a time ----------------------------------------------------------------------------------

_FORGET: Final = """
DELETE FROM webhook_deliveries
 WHERE seq IN (SELECT seq FROM webhook_deliveries INDEXED BY webhook_deliveries_age
                WHERE state = :state AND updated_ms < :before ORDER BY updated_ms LIMIT :limit)
"""


def forget(tx: Tx, *, delivered_before_ms: int, dead_before_ms: int, limit: int) -> int:
    """Delete some letters that arrived, or died, before an instant; return how many."""
    gone = 0
    for state, before_ms in (("delivered", delivered_before_ms), ("dead", dead_before_ms)):
        values = {"state": state, "before": before_ms, "limit": limit}
        gone += tx.connection.execute(_FORGET, values).rowcount
    return gone


_STATS: Final = """
SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'dead')
  FROM webhook_deliveries INDEXED BY webhook_deliveries_age WHERE state IN ('pending', 'dead')
"""


def stats(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the letters that wait and those that are dead, of all webhooks."""
    pending, dead = connection.execute(_STATS).fetchone()
    return {"pending": pending, "dead": dead}
