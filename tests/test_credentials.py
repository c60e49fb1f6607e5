"""Credentials and their keyring: what is stored, who is let in, what ends what, what a wrong key learns."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bulkops.models import Caller
from bulkops.store import credentials
from bulkops.store.keyring import Keyring
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from tests.conftest import HandClock
from tests.store_house import a_key

ANA = Caller(user="ana", tenant="acme", roles=frozenset({"operator"}))


@pytest.fixture
def keeper(store: Store) -> Keyring:
    return Keyring(store)


async def test_a_key_stands_for_its_caller(store: Store, keeper: Keyring) -> None:
    key_id, secret = await a_key(store)
    assert await keeper.verify(secret) == Caller(
        user="ana", tenant="acme", roles=frozenset({"operator"}), credential=key_id
    )


async def test_only_a_hash_of_256_random_bits_is_stored(store: Store, tmp_path: Path) -> None:
    key_id, secret = await a_key(store)
    prefix, public, random = secret.split("_", 2)
    assert (prefix, public) == ("bk", key_id)
    assert len(random) == 43
    stored = await store.read(
        lambda connection: connection.execute(
            "SELECT secret_hash FROM credentials WHERE id = ?", [key_id]
        ).fetchone()[0]
    )
    assert stored == hashlib.sha256(random.encode()).digest()
    for path in tmp_path.rglob("bulkops.db*"):
        assert random.encode() not in path.read_bytes()


async def test_ids_and_secrets_never_repeat(store: Store) -> None:
    made = [await a_key(store) for _ in range(50)]
    assert len(set(made)) == 50


async def test_every_wrong_secret_is_nobody(store: Store, keeper: Keyring) -> None:
    key_id, secret = await a_key(store)
    _, other = await a_key(store)
    wrong = [
        "",
        " ",
        secret[:-1],
        secret + "A",
        secret.upper(),
        f" {secret}",
        f"{secret}\n",
        f"bk_{key_id}_{other.rpartition('_')[2][-43:]}",
        f"bt_{secret[3:]}",
        f"bs_{secret[3:]}",
        f"bk_{'0' * 26}_{secret[-43:]}",
        secret[-43:],
        f"bk_{key_id}_",
        f"bk_{key_id}_%",
        "bk_' OR 1=1 --_x",
        "local",
        "\ud800",
        "é" * 60,
        "x" * 10_000,
    ]
    for presented in wrong:
        assert await keeper.verify(presented) is None, presented


async def test_the_database_compares_no_secret(store: Store) -> None:
    # Lookup is by public id alone; what decides is compare_digest over two hashes of equal length.
    plan = await store.read(
        lambda connection: connection.execute(
            f"EXPLAIN QUERY PLAN {credentials._FIND}", {"id": "x"}
        ).fetchall()
    )
    assert all("id=?" in row[3] for row in plan)
    assert "secret_hash =" not in credentials._FIND


async def test_an_expired_key_is_nobody_also_from_memory(
    store: Store, keeper: Keyring, clock: HandClock
) -> None:
    _, secret = await a_key(store, ttl_s=60)
    assert await keeper.verify(secret) is not None
    clock.advance(60)
    assert await keeper.verify(secret) is None
    assert await Keyring(store).verify(secret) is None


async def test_a_revoked_key_is_nobody_at_once_and_for_good(store: Store, keeper: Keyring) -> None:
    key_id, secret = await a_key(store)
    caller = await keeper.verify(secret)
    assert caller is not None
    assert await keeper.revoke(key_id) == {key_id}
    assert await keeper.verify(secret) is None
    assert not keeper.is_live(caller)
    assert await keeper.revoke(key_id) == frozenset()
    assert await keeper.revoke("unknown") == frozenset()


async def test_a_revocation_during_a_verification_wins(store: Store, keeper: Keyring) -> None:
    key_id, secret = await a_key(store)
    verifying = asyncio.ensure_future(keeper.verify(secret))
    await asyncio.sleep(0)
    await keeper.revoke(key_id)
    await verifying
    assert await keeper.verify(secret) is None


async def test_a_revocation_ends_everything_that_came_from_the_key(store: Store, keeper: Keyring) -> None:
    key_id, secret = await a_key(store, role="service")
    service = await keeper.verify(secret)
    assert service is not None

    def mint(tx: Tx) -> tuple[credentials.CredentialRow, str]:
        return credentials.create(
            tx, kind="token", user="bo", tenant="acme", roles=["viewer"], parent=service.credential
        )

    token_row, token = await store.write(mint)
    bo = await keeper.verify(token)
    assert bo is not None
    session, cookie = await keeper.start_session(bo)
    ticket = await keeper.issue_ticket(session)
    assert await keeper.verify_session(cookie) == session
    ended = await keeper.revoke(key_id)
    assert {key_id, token_row.id, session.credential} < ended
    assert await keeper.verify(token) is None
    assert await keeper.verify_session(cookie) is None
    assert await keeper.redeem_ticket(ticket) is None
    assert not keeper.is_live(session)


async def test_a_child_never_outlives_its_parent(store: Store, keeper: Keyring, clock: HandClock) -> None:
    _, secret = await a_key(store, ttl_s=100)
    caller = await keeper.verify(secret)
    assert caller is not None
    session, cookie = await keeper.start_session(caller)
    assert session.expires_ms == caller.expires_ms
    clock.advance(100)
    assert await keeper.verify_session(cookie) is None


async def test_kinds_do_not_stand_for_each_other(store: Store, keeper: Keyring) -> None:
    _, secret = await a_key(store)
    caller = await keeper.verify(secret)
    assert caller is not None
    _, cookie = await keeper.start_session(caller)
    ticket = await keeper.issue_ticket(caller)
    code = await keeper.issue_login()
    for header in (cookie, ticket, code):
        assert await keeper.verify(header) is None
    for value in (secret, ticket, code):
        assert await keeper.verify_session(value) is None
    for value in (secret, cookie, code):
        assert await keeper.redeem_ticket(value) is None
    for value in (secret, cookie, ticket):
        assert await keeper.redeem_login(value) is None
    assert await keeper.redeem_ticket(ticket) is not None


async def test_a_ticket_works_once_for_half_a_minute_and_stands_for_its_holder(
    store: Store, keeper: Keyring, clock: HandClock
) -> None:
    key_id, secret = await a_key(store, ttl_s=3600)
    caller = await keeper.verify(secret)
    assert caller is not None
    ticket = await keeper.issue_ticket(caller)
    assert await keeper.redeem_ticket(ticket) == caller
    assert caller.credential == key_id
    assert await keeper.redeem_ticket(ticket) is None
    late = await keeper.issue_ticket(caller)
    clock.advance(30)
    assert await keeper.redeem_ticket(late) is None


async def test_fifty_at_once_redeem_a_ticket_once(store: Store, keeper: Keyring) -> None:
    _, secret = await a_key(store)
    caller = await keeper.verify(secret)
    assert caller is not None
    ticket = await keeper.issue_ticket(caller)
    redeemed = await asyncio.gather(*[keeper.redeem_ticket(ticket) for _ in range(50)])
    assert [each for each in redeemed if each is not None] == [caller]


async def test_a_ticket_of_a_host_applications_guest_stands_for_that_guest(keeper: Keyring) -> None:
    guest = Caller(user="eve", tenant="acme", roles=frozenset({"viewer"}), expires_ms=1 << 60)
    ticket = await keeper.issue_ticket(guest)
    assert await keeper.redeem_ticket(ticket) == guest
    assert await keeper.redeem_ticket(ticket) is None


async def test_a_login_code_works_once_for_ten_minutes(
    store: Store, keeper: Keyring, clock: HandClock
) -> None:
    await keeper.install_local("x" * 43)
    code = await keeper.issue_login()
    late = await keeper.issue_login()
    session = await keeper.redeem_login(code)
    assert session is not None
    assert session[0].roles == {"owner"}
    assert await keeper.verify_session(session[1]) == session[0]
    assert await keeper.redeem_login(code) is None
    clock.advance(600)
    assert await keeper.redeem_login(late) is None


async def test_the_machines_own_key_is_an_owner_without_tenant_until_the_next_run(
    store: Store, keeper: Keyring
) -> None:
    first, second = "a" * 43, "b_-" * 15
    owner = await keeper.install_local(first)
    assert owner.tenant is None
    assert owner.roles == {"owner"}
    assert await keeper.verify(first) == owner
    session = await keeper.start_session(owner)
    ticket = await keeper.issue_ticket(owner)
    again = Keyring(store)
    await again.install_local(second, user="sidecar")
    assert await again.verify(first) is None
    assert await again.verify_session(session[1]) == session[0]  # who sits before the page stays there
    assert await again.redeem_ticket(ticket) is None
    found = await again.verify(second)
    assert found is not None
    assert found.user == "sidecar"
    assert await store.read(lambda connection: credentials.list_keys(connection, tenant=None)) == []


async def test_a_short_local_secret_is_refused(keeper: Keyring) -> None:
    with pytest.raises(ValueError, match="at least 43"):
        await keeper.install_local("x" * 42)


async def test_lists_are_of_one_tenant_or_of_all_and_paged(store: Store) -> None:
    made = [(await a_key(store, tenant=tenant))[0] for tenant in ("acme", "acme", "other", None)]

    async def listed(**query: Any) -> list[str]:
        rows = await store.read(lambda connection: credentials.list_keys(connection, **query))
        return [row.id for row in rows]

    assert await listed(tenant=None) == made[::-1]
    assert await listed(tenant="acme") == [made[1], made[0]]
    assert await listed(tenant="acme", limit=1) == [made[1]]
    assert await listed(tenant="acme", before=made[1]) == [made[0]]
    assert await listed(tenant="nobody") == []


async def test_use_is_noted_to_the_hour_and_a_full_disk_keeps_nobody_out(
    store: Store, keeper: Keyring, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, secret = await a_key(store)
    await keeper.verify(secret)
    row = await store.read(lambda connection: credentials.get(connection, key_id))
    assert row is not None
    assert row.used_ms == clock.now_ms()

    async def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "write", full)
    clock.advance(7200)
    assert await Keyring(store).verify(secret) is not None


async def test_what_ended_a_week_ago_is_deleted_but_keys_stay(
    store: Store, keeper: Keyring, clock: HandClock
) -> None:
    key_id, _ = await a_key(store, ttl_s=10)
    await keeper.issue_login()
    await store.write(
        lambda tx: credentials.create(
            tx, kind="token", user="bo", tenant=None, roles=["viewer"], expires_ms=tx.now_ms + 1000
        )
    )
    clock.advance(8 * 86400)
    assert await store.write(credentials.purge) == 2
    assert await store.read(lambda connection: credentials.get(connection, key_id)) is not None
