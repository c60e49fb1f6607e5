"""The one keeper of credentials of a process: who was verified, who was revoked, and whom a ticket stands for.

What comes in: a secret somebody presented, or the wish for a new one; what goes out: a `Caller`, or the secret,
once. What is remembered here only spares reads: whatever must survive is a row of `credentials`.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from contextlib import suppress
from typing import Final

import msgspec

from bulkops.models import Caller
from bulkops.store.credentials import (
    HEADER_KINDS,
    LOCAL,
    CredentialRow,
    create,
    find,
    get,
    hashed,
    install_local,
    revoke,
    spend,
    touch,
)
from bulkops.store.store import Store
from bulkops.store.transaction import Tx

TICKET_TTL_S: Final = 30
LOGIN_TTL_S: Final = 600
SESSION_TTL_S: Final = 12 * 3600
#: What works in a cookie; in a header what `credentials` says.
_COOKIE_KINDS: Final = frozenset({"session"})
_CACHED: Final = 1024
_TOUCH_MS: Final = 3_600_000


class Keyring:
    """The one keeper of credentials of a process: verifies, hands out, revokes.

    Verified callers are remembered, so that a request costs no read; whoever is revoked is remembered for
    good, so that a revocation holds at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        self._revoked: set[str] = set()
        #: Tickets of callers whom a host application vouched for: no row remembers how long they stand.
        self._guests: dict[str, Caller] = {}

    async def verify(self, presented: str) -> Caller | None:
        """Return who presents this key or token, ``None`` for any wrong one."""
        return await self._verify(presented, "header", HEADER_KINDS)

    async def verify_session(self, presented: str) -> Caller | None:
        """Return whose cookie this is, ``None`` for any wrong one."""
        return await self._verify(presented, "cookie", _COOKIE_KINDS)

    async def _verify(self, presented: str, place: str, kinds: frozenset[str]) -> Caller | None:
        now_ms = self._store.clock.now_ms()
        memory = hashed(f"{place} {presented}")
        caller = self._known.get(memory)
        if caller is not None:
            self._known.move_to_end(memory)
            return caller if self.is_live(caller) else None
        row = await self._store.read(lambda connection: find(connection, presented, now_ms))
        if row is None or row.kind not in kinds:
            return None
        await self._note_use(row, now_ms)
        # Whoever was revoked since this was read may be remembered, but is not live, now or later.
        caller = row.caller()
        self._known[memory] = caller
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return caller if self.is_live(caller) else None

    async def _note_use(self, row: CredentialRow, now_ms: int) -> None:
        if row.used_ms is None or row.used_ms < now_ms - _TOUCH_MS:
            # On a full disk people must still get in, to look and to cancel.
            with suppress(sqlite3.Error):
                await self._store.write(lambda tx: touch(tx, row.id))

    def is_live(self, caller: Caller) -> bool:
        """Say whether a caller verified earlier still stands: not expired, not revoked since the start."""
        expired = caller.expires_ms is not None and self._store.clock.now_ms() >= caller.expires_ms
        return not expired and caller.credential not in self._revoked

    def forget(self, ended: frozenset[str]) -> None:
        """Take note of credentials that ended: they are not live any more."""
        self._revoked |= ended

    async def revoke(self, credential: str) -> frozenset[str]:
        """End a credential and all that came from it; returns whom, empty when none was alive."""
        ended = await self._store.write(lambda tx: revoke(tx, credential))
        self.forget(ended)
        return ended

    async def install_local(self, secret: str, *, user: str = LOCAL) -> Caller:
        """Make ``secret`` this machine's owner key for this run.

        Raises:
            ValueError: the secret is too short.

        """
        row = await self._store.write(lambda tx: install_local(tx, secret, user=user))
        self._known.clear()
        self._revoked.discard(LOCAL)
        return row.caller()

    async def install_machine(self, secret: str) -> str:
        """Make ``secret`` this machine's owner key as `install_local` does; return another that stands as long.

        The first may have come from somebody who writes it nowhere; the second is for the runtime file.

        Raises:
            ValueError: the secret is too short.

        """

        def work(tx: Tx) -> str:
            install_local(tx, secret)
            return create(tx, kind="token", user=LOCAL, tenant=None, roles=["owner"], parent=LOCAL)[1]

        second = await self._store.write(work)
        self._known.clear()
        self._revoked.discard(LOCAL)
        return second

    async def issue_login(self) -> str:
        """Make the code of a one-time link for the owner at this machine; it works once, for ten minutes."""

        def work(tx: Tx) -> str:
            parent = LOCAL if get(tx.connection, LOCAL) is not None else None
            expires_ms = tx.now_ms + LOGIN_TTL_S * 1000
            return create(
                tx,
                kind="login",
                user=LOCAL,
                tenant=None,
                roles=["owner"],
                parent=parent,
                expires_ms=expires_ms,
            )[1]

        return await self._store.write(work)

    async def redeem_login(self, code: str) -> tuple[Caller, str] | None:
        """Trade a login code for a session and its cookie's value; ``None`` when it is wrong, over or used."""

        def work(tx: Tx) -> tuple[Caller, str] | None:
            login = spend(tx, code, kind="login")
            return None if login is None else _start_session(tx, login.caller(), parent=login.parent)

        return await self._store.write(work)

    async def start_session(self, caller: Caller) -> tuple[Caller, str]:
        """Start a cookie session for a verified caller; returns who it stands for and the cookie's value."""
        return await self._store.write(lambda tx: _start_session(tx, caller, parent=caller.credential))

    async def issue_ticket(self, caller: Caller) -> str:
        """Make a ticket for one live connection: it works once, for half a minute."""

        def work(tx: Tx) -> tuple[CredentialRow, str]:
            return create(
                tx,
                kind="ticket",
                user=caller.user,
                tenant=caller.tenant,
                roles=list(caller.roles),
                parent=caller.credential,
                expires_ms=tx.now_ms + TICKET_TTL_S * 1000,
            )

        row, secret = await self._store.write(work)
        if caller.credential is None:
            self._drop_stale_guests()
            self._guests[row.id] = caller
        return secret

    async def redeem_ticket(self, presented: str) -> Caller | None:
        """Use a ticket; returns its holder's own standing (credential, expiry), ``None`` when it is no good."""

        def work(tx: Tx) -> tuple[CredentialRow, CredentialRow | None] | None:
            ticket = spend(tx, presented, kind="ticket")
            if ticket is None:
                return None
            return ticket, None if ticket.parent is None else get(tx.connection, ticket.parent)

        found = await self._store.write(work)
        if found is None:
            return None
        ticket, parent = found
        if parent is None:
            return self._guests.pop(ticket.id, None)
        return msgspec.structs.replace(ticket.caller(), credential=parent.id, expires_ms=parent.expires_ms)

    def _drop_stale_guests(self) -> None:
        # ULIDs sort by time: whoever is first came first, and a ticket is over after half a minute.
        while len(self._guests) >= _CACHED:
            self._guests.pop(next(iter(self._guests)))


def _start_session(tx: Tx, caller: Caller, *, parent: str | None) -> tuple[Caller, str]:
    row, secret = create(
        tx,
        kind="session",
        user=caller.user,
        tenant=caller.tenant,
        roles=list(caller.roles),
        parent=parent,
        expires_ms=tx.now_ms + SESSION_TTL_S * 1000,
    )
    return row.caller(), secret
