"""Keys, tokens, sessions, login codes and tickets: what stands for a caller, and who holds which.

What comes in: a secret somebody presented, or the wish for a new one; what goes out: a `Caller`, or the
secret, once. Only SHA-256 of 256 random bits is stored, looked up by the public part and compared in
constant time; a secret is never logged, listed or written down. Everything that came from a credential
is its child and falls with it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from typing import Any, Final

import msgspec

from bulkops.ids import new_id
from bulkops.models import Caller
from bulkops.store import schedules
from bulkops.store.transaction import Tx

#: What a secret of each kind begins with: people and scanners see what leaked.
PREFIXES: Final = {"key": "bk", "token": "bt", "session": "bs", "login": "bl", "ticket": "bx"}

MAX_TOKEN_TTL_S: Final = 24 * 3600
#: The credential that a process makes for its own machine: the sidecar's token, the runtime file's key.
LOCAL: Final = "local"
MIN_LOCAL_SECRET: Final = 43

_SECRET = re.compile(r"(b[ktslx])_([0-9A-HJKMNP-TV-Z]{26})_([A-Za-z0-9_-]{43})")
_KINDS: Final = {prefix: kind for kind, prefix in PREFIXES.items()}
#: Compared when nobody has the presented id, so that a miss takes as long as a hit.
_NOBODY: Final = bytes(32)
#: What works in a header.
HEADER_KINDS: Final = frozenset({"key", "token"})
#: Dead rows stay this long, so that lists and the audit can still name them.
_KEEP_DEAD_MS: Final = 7 * 86_400_000


class CredentialRow(msgspec.Struct, frozen=True):
    """A row of `credentials` without its hash."""

    id: str
    kind: str
    name: str | None
    user: str
    tenant: str | None
    roles: list[str]
    parent: str | None
    created_ms: int
    expires_ms: int | None
    used_ms: int | None
    revoked_ms: int | None

    def alive(self, now_ms: int) -> bool:
        """Say whether it is neither revoked nor expired."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)

    @property
    def is_listed(self) -> bool:
        """Say whether people manage it: keys, but not the one that a process makes for its own machine."""
        return self.kind == "key" and self.id != LOCAL

    def caller(self) -> Caller:
        """Return who this credential stands for."""
        return Caller(
            user=self.user,
            tenant=self.tenant,
            roles=frozenset(self.roles),
            credential=self.id,
            expires_ms=self.expires_ms,
        )


def from_row(row: tuple[Any, ...]) -> CredentialRow:
    """Build the value of the columns `_COLUMNS`."""
    values = [*row[:5], msgspec.json.decode(row[5], type=list[str]), *row[6:11]]
    return CredentialRow(*values)


def hashed(secret: str) -> bytes:
    """Return what is stored of a secret; 256 random bits need no salt and no stretching."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def split(presented: str) -> tuple[str, str, str]:
    """Take a presented secret apart: kind, public id, secret; what is not of our making is the local one."""
    found = _SECRET.fullmatch(presented)
    if found is None:
        return "key", LOCAL, presented
    return _KINDS[found[1]], found[2], found[3]


_COLUMNS: Final = "id, kind, name, user, tenant, roles, parent, created_ms, expires_ms, used_ms, revoked_ms"
_INSERT: Final = """
INSERT INTO credentials (id, kind, secret_hash, name, user, tenant, roles, parent, created_ms, expires_ms)
VALUES (:id, :kind, :secret_hash, :name, :user, :tenant, :roles, :parent, :created_ms, :expires_ms)
"""


def create(
    tx: Tx,
    *,
    kind: str,
    user: str,
    tenant: str | None,
    roles: list[str],
    name: str | None = None,
    parent: str | None = None,
    expires_ms: int | None = None,
) -> tuple[CredentialRow, str]:
    """Make a credential and return it with its secret, which nobody can read again.

    A child never outlives its parent: its expiry is the earlier of the two.
    """
    if parent is not None:
        limits = [at for at in (expires_ms, _expiry_of(tx.connection, parent)) if at is not None]
        expires_ms = min(limits, default=None)
    row = CredentialRow(
        new_id(), kind, name, user, tenant, sorted(set(roles)), parent, tx.now_ms, expires_ms, None, None
    )
    secret = secrets.token_urlsafe(32)
    _insert(tx, row, hashed(secret))
    return row, f"{PREFIXES[kind]}_{row.id}_{secret}"


def _insert(tx: Tx, row: CredentialRow, secret_hash: bytes) -> None:
    values = msgspec.structs.asdict(row)
    values["roles"] = msgspec.json.encode(row.roles).decode()
    tx.connection.execute(_INSERT, {**values, "secret_hash": secret_hash})


_EXPIRY: Final = "SELECT expires_ms FROM credentials WHERE id = :id"


def _expiry_of(connection: sqlite3.Connection, credential: str) -> int | None:
    row = connection.execute(_EXPIRY, {"id": credential}).fetchone()
    return None if row is None else row[0]


def create_key(
    tx: Tx,
    *,
    user: str,
    role: str,
    tenant: str | None = None,
    name: str | None = None,
    ttl_s: int | None = None,
) -> tuple[CredentialRow, str]:
    """Make an API key; without ``ttl_s`` it holds until it is revoked."""
    expires_ms = None if ttl_s is None else tx.now_ms + ttl_s * 1000
    return create(tx, kind="key", user=user, tenant=tenant, roles=[role], name=name, expires_ms=expires_ms)


_END_CHILDREN: Final = "DELETE FROM credentials WHERE parent = :id AND kind <> 'session'"
_RENEW: Final = """
UPDATE credentials SET secret_hash = :secret_hash, user = :user, created_ms = :now_ms, used_ms = NULL
 WHERE id = :id
"""


def install_local(tx: Tx, secret: str, *, user: str = LOCAL) -> CredentialRow:
    """Make ``secret`` the owner key of this machine for this run; the last run's, and what it gave out, end.

    Sessions of the page stay: whoever sits before it must not be thrown out by a restart.

    Raises:
        ValueError: the secret is shorter than 256 bits are in base64.

    """
    if len(secret) < MIN_LOCAL_SECRET:
        raise ValueError(f"a local secret needs at least {MIN_LOCAL_SECRET} characters")
    row = CredentialRow(
        LOCAL, "key", "this machine", user, None, ["owner"], None, tx.now_ms, None, None, None
    )
    tx.connection.execute(_END_CHILDREN, {"id": LOCAL})
    renewed = {"id": LOCAL, "user": user, "now_ms": tx.now_ms, "secret_hash": hashed(secret)}
    if tx.connection.execute(_RENEW, renewed).rowcount == 0:
        _insert(tx, row, hashed(secret))
    return row


_GET: Final = f"SELECT {_COLUMNS} FROM credentials WHERE id = :id"


def get(connection: sqlite3.Connection, credential: str) -> CredentialRow | None:
    """Return one credential, ``None`` when there is none of that id."""
    row = connection.execute(_GET, {"id": credential}).fetchone()
    return None if row is None else from_row(row)


_ROOT: Final = """
WITH RECURSIVE line (id, parent) AS (
  SELECT id, parent FROM credentials WHERE id = :id
  UNION SELECT elder.id, elder.parent FROM credentials elder JOIN line ON elder.id = line.parent
)
SELECT id FROM line WHERE parent IS NULL
"""


def root_of(connection: sqlite3.Connection, credential: str | None) -> str | None:
    """Return the key that a credential came from in the end; ``None`` when there is none of that id."""
    row = connection.execute(_ROOT, {"id": credential}).fetchone()
    return None if row is None else str(row[0])


_LIST: Final = f"""
SELECT {_COLUMNS} FROM credentials
 WHERE id < :before AND kind = 'key' AND id <> 'local' AND (:every OR tenant = :tenant) ORDER BY id DESC LIMIT :limit
"""


def list_keys(
    connection: sqlite3.Connection, *, tenant: str | None, before: str | None = None, limit: int = 50
) -> list[CredentialRow]:
    """List API keys, newest first, revoked ones too; ``tenant=None`` lists those of all tenants."""
    rows = connection.execute(
        _LIST, {"before": before or "~", "every": tenant is None, "tenant": tenant, "limit": limit}
    )
    return [from_row(row) for row in rows]


_REVOKE: Final = """
WITH RECURSIVE family (id) AS (
  VALUES (:id) UNION SELECT child.id FROM credentials child JOIN family ON child.parent = family.id
)
UPDATE credentials SET revoked_ms = :now_ms
 WHERE id IN (SELECT id FROM family) AND revoked_ms IS NULL RETURNING id
"""


def revoke(tx: Tx, credential: str) -> frozenset[str]:
    """End a credential and all that came from it, schedules too; returns whom, empty when none was alive.

    Whoever calls this with a server running tells it: `keyring.Keyring.forget`.
    """
    rows = tx.connection.execute(_REVOKE, {"id": credential, "now_ms": tx.now_ms}).fetchall()
    schedules.end_of(tx, [row[0] for row in rows])
    return frozenset(row[0] for row in rows)


_FIND: Final = f"SELECT {_COLUMNS}, secret_hash FROM credentials WHERE id = :id"


def find(connection: sqlite3.Connection, presented: str, now_ms: int) -> CredentialRow | None:
    """Return the living credential that a secret belongs to, ``None`` for any wrong one; both take as long."""
    kind, public, secret = split(presented)
    row = connection.execute(_FIND, {"id": public}).fetchone()
    right = hmac.compare_digest(hashed(secret), _NOBODY if row is None else row[11])
    if row is None or not right:
        return None
    found = from_row(row)
    return found if found.kind == kind and found.alive(now_ms) else None


def verify(connection: sqlite3.Connection, presented: str, now_ms: int) -> Caller | None:
    """Return who presents this key or token, ``None`` when it is wrong, over, revoked or of another kind."""
    found = find(connection, presented, now_ms)
    return None if found is None or found.kind not in HEADER_KINDS else found.caller()


_SPEND: Final = "UPDATE credentials SET used_ms = :now_ms WHERE id = :id AND used_ms IS NULL RETURNING id"


def spend(tx: Tx, presented: str, *, kind: str) -> CredentialRow | None:
    """Use a login code or a ticket, which works once; ``None`` when it is wrong, over or used."""
    found = find(tx.connection, presented, tx.now_ms)
    if found is None or found.kind != kind:
        return None
    used = tx.connection.execute(_SPEND, {"id": found.id, "now_ms": tx.now_ms}).fetchone()
    return None if used is None else found


_TOUCH: Final = "UPDATE credentials SET used_ms = :now_ms WHERE id = :id"


def touch(tx: Tx, credential: str) -> None:
    """Note that a credential was used; lists show it to the hour."""
    tx.connection.execute(_TOUCH, {"id": credential, "now_ms": tx.now_ms})


_PURGE: Final = """
DELETE FROM credentials WHERE id IN (
  SELECT id FROM credentials
   WHERE expires_ms IS NOT NULL AND expires_ms < :before_ms AND kind <> 'key' LIMIT :limit)
"""


def purge(tx: Tx, *, limit: int = 1000) -> int:
    """Delete short-lived credentials that ended a week ago or more; returns how many."""
    return tx.connection.execute(_PURGE, {"before_ms": tx.now_ms - _KEEP_DEAD_MS, "limit": limit}).rowcount
