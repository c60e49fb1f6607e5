"""The answers to POSTs that bore an Idempotency-Key, so that asking again starts nothing again.

What comes in: who asked, the key, the request; what goes out: the stored answer, or leave to act. The
answer is written by the very transaction that acts (`record`), so a crash leaves both or neither; within
the process a second call waits for the first (`InFlight`). Keys are stored hashed.

Source: draft-ietf-httpapi-idempotency-key-header-07, except that a call in flight is waited for.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec

from bulkops.errors import Refusal, invalid_field
from bulkops.models import Caller
from bulkops.store.transaction import Tx

TTL_MS: Final = 24 * 3_600_000
MAX_KEY: Final = 255

_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21-\x7e]+")
_ESCAPED = re.compile(r'\\(["\\])')


class Idempotency(msgspec.Struct, frozen=True):
    """One request that must act once: whose, under which key, and what it says."""

    principal: str
    key_hash: bytes
    fingerprint: bytes


class Answer(msgspec.Struct, frozen=True):
    """What the first call was answered; ``location`` and the links in ``body`` bear no mount prefix."""

    status: int
    location: str | None
    body: bytes


def parse_key(values: list[str]) -> str | None:
    """Read the header's values; ``None`` when the header is absent.

    A structured-field string (in quotes) and the bare text name the same key.

    Raises:
        Refusal: (``INVALID_FIELD``) repeated, empty, longer than 255 characters, or not printable ASCII.

    """
    if not values:
        return None
    text = values[0].strip()
    quoted = _QUOTED.fullmatch(text)
    key = text if quoted is None else _ESCAPED.sub(r"\1", quoted[1])
    well_formed = quoted is not None or (_BARE.fullmatch(text) is not None and not text.startswith('"'))
    if len(values) > 1 or not key or len(key) > MAX_KEY or not well_formed:
        raise invalid_field("/Idempotency-Key", f"one key of 1 to {MAX_KEY} printable characters is needed")
    return key


def mark(caller: Caller, key: str, *, method: str, path: str, body: bytes) -> Idempotency:
    """Build the value that stands for this request; ``path`` bears no mount prefix, ``body`` is canonical."""
    principal = msgspec.json.encode([caller.tenant, caller.user]).decode()
    request = hashlib.sha256()
    for part in (method.encode(), path.encode("utf-8", "surrogatepass"), body):
        request.update(len(part).to_bytes(8, "big"))
        request.update(part)
    return Idempotency(principal, hashlib.sha256(key.encode()).digest(), request.digest())


_LOOKUP: Final = """
SELECT fingerprint, status, location, body FROM idempotency
 WHERE principal = :principal AND key_hash = :key_hash AND created_ms > :since_ms
"""


def lookup(connection: sqlite3.Connection, request: Idempotency, now_ms: int) -> Answer | None:
    """Return the answer of the last 24 hours to the same request, ``None`` when there is none.

    Raises:
        Refusal: (``IDEMPOTENCY_MISMATCH``) the key was used for another request.

    """
    row = connection.execute(
        _LOOKUP,
        {"principal": request.principal, "key_hash": request.key_hash, "since_ms": now_ms - TTL_MS},
    ).fetchone()
    if row is None:
        return None
    if row[0] != request.fingerprint:
        raise _mismatch()
    return Answer(row[1], row[2], row[3])


def _mismatch() -> Refusal:
    return Refusal(
        "IDEMPOTENCY_MISMATCH", "this Idempotency-Key was used for another request; take a new one"
    )


_RECORD: Final = """
INSERT INTO idempotency (principal, key_hash, fingerprint, status, location, body, created_ms)
VALUES (:principal, :key_hash, :fingerprint, :status, :location, :body, :now_ms)
ON CONFLICT (principal, key_hash) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
  location = excluded.location, body = excluded.body, created_ms = excluded.created_ms
  WHERE created_ms <= :since_ms
"""


def record(tx: Tx, request: Idempotency, *, status: int, location: str | None, body: bytes) -> None:
    """Store the answer in the transaction that acts.

    Raises:
        Refusal: (``IDEMPOTENCY_MISMATCH``) the key is taken: the caller's transaction must not act.

    """
    values = {
        **msgspec.structs.asdict(request),
        "status": status,
        "location": location,
        "body": body,
        "now_ms": tx.now_ms,
        "since_ms": tx.now_ms - TTL_MS,
    }
    if tx.connection.execute(_RECORD, values).rowcount != 1:
        raise _mismatch()


_PURGE: Final = """
DELETE FROM idempotency WHERE (principal, key_hash) IN (
  SELECT principal, key_hash FROM idempotency WHERE created_ms <= :since_ms LIMIT :limit)
"""


def purge(tx: Tx, *, limit: int = 1000) -> int:
    """Delete answers older than 24 hours, at most ``limit``; returns how many."""
    return tx.connection.execute(_PURGE, {"since_ms": tx.now_ms - TTL_MS, "limit": limit}).rowcount


class InFlight:
    """Lets one call at a time through per user and key; the others wait for its answer."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, bytes], tuple[anyio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, request: Idempotency) -> AsyncIterator[None]:
        """Hold the key for the length of the block."""
        name = (request.principal, request.key_hash)
        lock, holders = self._turns.get(name, (anyio.Lock(), 0))
        self._turns[name] = (lock, holders + 1)
        try:
            async with lock:
                yield
        finally:
            lock, holders = self._turns.pop(name)
            if holders > 1:
                self._turns[name] = (lock, holders - 1)
