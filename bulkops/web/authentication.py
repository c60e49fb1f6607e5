"""Who is asking: a request's credential, turned into a `Caller`.

Headers and cookies come in, a `Caller` goes out, or the one constant refusal. An explicit credential
decides alone: where it is wrong, no cookie is looked at. Failures are counted per client, and what a
person may not do is noted in the audit; neither may keep the rightful owner out.
"""

from __future__ import annotations

import inspect
import ipaddress
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Scope

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.operations import ROLES
from bulkops.store import audit
from bulkops.store.keyring import SESSION_TTL_S, Keyring
from bulkops.store.store import Store
from bulkops.timing import Clock
from bulkops.web.guard import LOOPBACK, scheme_of

#: A host application's own answer to "who is asking"; ``None`` leaves the question to our credentials.
Authenticate = Callable[[HTTPConnection], Caller | Awaitable[Caller | None] | None]

MAX_FAILURES: Final = 20
FAILURE_WINDOW_S: Final = 60.0
_CLIENTS: Final = 4096
MAX_DENIALS_A_MINUTE: Final = 60
_SECURE_COOKIE: Final = "__Host-bulkops"
_log = logging.getLogger("bulkops.web")


class Authenticator:
    """Finds the caller of a request or of a socket's handshake."""

    def __init__(self, credentials: Keyring, clock: Clock, authenticate: Authenticate | None = None) -> None:
        self.credentials = credentials
        self._authenticate = authenticate
        self._failures = Failures(clock)

    async def require(self, connection: HTTPConnection) -> Caller:
        """Return who is asking.

        Raises:
            Refusal: (``UNAUTHENTICATED``) nobody, or with a wrong credential.
            Refusal: (``RATE_LIMITED``) the same, too many times a minute from one client. A right
                credential passes even then: nobody is locked out by a neighbour.

        """
        caller = await self.find(connection)
        if caller is None:
            raise self.failed(connection.scope)
        return caller

    def failed(self, scope: Scope) -> Refusal:
        """Count a failure of this client and build its refusal, the same for every reason."""
        wait_s = self._failures.count(client_of(scope))
        if wait_s is None:
            return Refusal("UNAUTHENTICATED", "")
        return Refusal(
            "RATE_LIMITED",
            "too many requests with wrong credentials",
            headers={
                "Retry-After": str(wait_s),
                "RateLimit-Policy": f'"credentials";q={MAX_FAILURES};w={FAILURE_WINDOW_S:.0f}',
                "RateLimit": f'"credentials";r=0;t={wait_s}',
            },
        )

    async def find(self, connection: HTTPConnection) -> Caller | None:
        """Return who is asking, ``None`` when nobody of ours is."""
        present, secret = explicit_secret(connection.scope)
        if secret is not None:
            caller = await self.credentials.verify(secret)
            if caller is not None:
                return caller
        caller = await self._ask_host(connection)
        if caller is not None or present:
            return caller
        cookie = session_cookie(connection.scope)
        return None if cookie is None else await self.credentials.verify_session(cookie)

    async def _ask_host(self, connection: HTTPConnection) -> Caller | None:
        caller = await ask(self._authenticate, connection)
        if caller is None:
            return None
        # A host names people and roles; it cannot pose as a credential of ours, nor invent roles.
        return msgspec.structs.replace(caller, roles=caller.roles & ROLES, credential=None)


async def ask(authenticate: Authenticate | None, connection: HTTPConnection) -> Caller | None:
    """Ask a host application who it is, which may take its time; without one nobody is known."""
    if authenticate is None:
        return None
    answer = authenticate(connection)
    return await answer if inspect.isawaitable(answer) else answer


def explicit_secret(scope: Scope) -> tuple[bool, str | None]:
    """Read Authorization, else X-API-Key: is there one, and what it says; an unusable one says ``None``."""
    bearer = _values(scope, b"authorization")
    if bearer:
        scheme, _, secret = bearer[0].strip().partition(" ")
        usable = len(bearer) == 1 and scheme.lower() == "bearer" and bool(secret.strip())
        return True, secret.strip() if usable else None
    keys = _values(scope, b"x-api-key")
    return bool(keys), keys[0].strip() or None if len(keys) == 1 else None


def session_cookie(scope: Scope) -> str | None:
    """Return the page's cookie, ``None`` without one, or with two: somebody else may have set the other."""
    names = {_SECURE_COOKIE}
    if scheme_of(scope) == "http":
        names.add(cookie_name(scope, secure=False))
    pairs = [each.strip().partition("=") for line in _values(scope, b"cookie") for each in line.split(";")]
    found = [value for name, _, value in pairs if name in names]
    return found[0] if len(found) == 1 else None


def cookie_name(scope: Scope, *, secure: bool) -> str:
    """Name the page's cookie; on plain loopback with the port, which cookies ignore."""
    if secure:
        return _SECURE_COOKIE
    host = next(iter(_values(scope, b"host")), "")
    port = host.rpartition(":")[2]
    return f"bulkops_{port if port.isdigit() else 80}"


def is_secure(scope: Scope) -> bool:
    """Say whether the browser speaks https to us, perhaps through a proxy that ends TLS.

    No forwarded header is believed: the Origin is the browser's own word, and the guard has let it pass.
    """
    if scheme_of(scope) == "https":
        return True
    host = next(iter(_values(scope, b"host")), "").lower()
    return host.partition(":")[0] not in LOOPBACK and _values(scope, b"origin") == [f"https://{host}"]


def set_cookie(scope: Scope, value: str, *, max_age_s: int = SESSION_TTL_S) -> str:
    """Write the Set-Cookie header of the page's cookie; ``max_age_s=0`` takes it away."""
    secure = is_secure(scope)
    path = "/" if secure else f"{scope.get('root_path', '')}/"
    return (
        f"{cookie_name(scope, secure=secure)}={value}; Path={path}; Max-Age={max_age_s}; "
        f"HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
    )


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def client_of(scope: Scope) -> str:
    """Name the client for limits: its address, for IPv6 its /64; forwarded headers are not believed."""
    host = (scope.get("client") or ("-", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Failures:
    """Counts failures per client in windows of a minute; remembers a bounded number of clients."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clients: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, client: str) -> int | None:
        """Count one; returns ``None`` while that is tolerable, else the seconds to wait."""
        now_s = self._clock.monotonic()
        began_s, failures = self._clients.pop(client, (now_s, 0))
        if now_s - began_s >= FAILURE_WINDOW_S:
            began_s, failures = now_s, 0
        self._clients[client] = (began_s, failures + 1)
        while len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)
        if failures < MAX_FAILURES:
            return None
        return max(1, round(began_s + FAILURE_WINDOW_S - now_s))


class Denials:
    """Notes in the audit what was denied, at most so many a minute: a flood makes no flood of rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._began_s = 0.0
        self._noted = 0
        self._unnoted = 0

    async def note(self, scope: Scope, code: str, caller: Caller | None) -> None:
        """Write one row, or only count; that it cannot be written keeps nobody from an answer."""
        if not self._may_note():
            self._unnoted += 1
            return
        detail = {
            "code": code,
            "method": scope.get("method", "GET"),
            "path": scope["path"][:200].encode("ascii", "backslashreplace").decode(),
            "client": client_of(scope),
            "credential": None if caller is None else caller.credential,
            "unnoted_before": self._unnoted,
        }
        user, tenant = ("-", None) if caller is None else (caller.user, caller.tenant)
        try:
            await self._store.write(
                lambda tx: audit.append(tx, user=user, tenant=tenant, verb="denied", detail=detail)
            )
            self._unnoted = 0
        except sqlite3.Error as error:
            self._unnoted += 1
            _log.warning("a denial could not be noted in the audit: %s", error)

    def _may_note(self) -> bool:
        now_s = self._store.clock.monotonic()
        if now_s - self._began_s >= 60:
            self._began_s, self._noted = now_s, 0
        self._noted += 1
        return self._noted <= MAX_DENIALS_A_MINUTE
