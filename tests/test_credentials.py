"""Credentials: what is stored, who is let in, what ends what, and that a wrong key learns nothing."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import HTTPConnection

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.store import credentials
from bulkops.store.credentials import Credentials
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.web import authentication
from tests.conftest import HandClock
from tests.doors import OWN, Doors, knock, opened_doors, opened_store

ANA = Caller(user="ana", tenant="acme", roles=frozenset({"operator"}))


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    async with opened_store(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
def keeper(store: Store) -> Credentials:
    return Credentials(store)


@pytest.fixture
async def doors(tmp_path: Path, clock: HandClock) -> AsyncIterator[Doors]:
    async with opened_doors(tmp_path, clock) as opened:
        yield opened


async def _key(store: Store, **fields: Any) -> tuple[str, str]:
    wanted = {"user": "ana", "tenant": "acme", "role": "operator", **fields}
    row, secret = await store.write(lambda tx: credentials.create_key(tx, **wanted))
    return row.id, secret


async def test_a_key_stands_for_its_caller(store: Store, keeper: Credentials) -> None:
    key_id, secret = await _key(store)
    assert await keeper.verify(secret) == Caller(
        user="ana", tenant="acme", roles=frozenset({"operator"}), credential=key_id
    )


async def test_only_a_hash_of_256_random_bits_is_stored(store: Store, tmp_path: Path) -> None:
    key_id, secret = await _key(store)
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
    made = [await _key(store) for _ in range(50)]
    assert len(set(made)) == 50


async def test_every_wrong_secret_is_nobody(store: Store, keeper: Credentials) -> None:
    key_id, secret = await _key(store)
    _, other = await _key(store)
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
    store: Store, keeper: Credentials, clock: HandClock
) -> None:
    _, secret = await _key(store, ttl_s=60)
    assert await keeper.verify(secret) is not None
    clock.advance(60)
    assert await keeper.verify(secret) is None
    assert await Credentials(store).verify(secret) is None


async def test_a_revoked_key_is_nobody_at_once_and_for_good(store: Store, keeper: Credentials) -> None:
    key_id, secret = await _key(store)
    caller = await keeper.verify(secret)
    assert caller is not None
    heard: list[frozenset[str]] = []
    keeper.on_revoke.append(heard.append)
    assert await keeper.revoke(key_id) == {key_id}
    assert await keeper.verify(secret) is None
    assert not keeper.is_live(caller)
    assert heard == [{key_id}]
    assert await keeper.revoke(key_id) == frozenset()
    assert await keeper.revoke("unknown") == frozenset()


async def test_a_revocation_during_a_verification_wins(store: Store, keeper: Credentials) -> None:
    key_id, secret = await _key(store)
    verifying = asyncio.ensure_future(keeper.verify(secret))
    await asyncio.sleep(0)
    await keeper.revoke(key_id)
    await verifying
    assert await keeper.verify(secret) is None


async def test_a_revocation_ends_everything_that_came_from_the_key(store: Store, keeper: Credentials) -> None:
    key_id, secret = await _key(store, role="service")
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


async def test_a_child_never_outlives_its_parent(store: Store, keeper: Credentials, clock: HandClock) -> None:
    _, secret = await _key(store, ttl_s=100)
    caller = await keeper.verify(secret)
    assert caller is not None
    session, cookie = await keeper.start_session(caller)
    assert session.expires_ms == caller.expires_ms
    clock.advance(100)
    assert await keeper.verify_session(cookie) is None


async def test_kinds_do_not_stand_for_each_other(store: Store, keeper: Credentials) -> None:
    _, secret = await _key(store)
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
    store: Store, keeper: Credentials, clock: HandClock
) -> None:
    key_id, secret = await _key(store, ttl_s=3600)
    caller = await keeper.verify(secret)
    assert caller is not None
    ticket = await keeper.issue_ticket(caller)
    assert await keeper.redeem_ticket(ticket) == caller
    assert caller.credential == key_id
    assert await keeper.redeem_ticket(ticket) is None
    late = await keeper.issue_ticket(caller)
    clock.advance(30)
    assert await keeper.redeem_ticket(late) is None


async def test_fifty_at_once_redeem_a_ticket_once(store: Store, keeper: Credentials) -> None:
    _, secret = await _key(store)
    caller = await keeper.verify(secret)
    assert caller is not None
    ticket = await keeper.issue_ticket(caller)
    redeemed = await asyncio.gather(*[keeper.redeem_ticket(ticket) for _ in range(50)])
    assert [each for each in redeemed if each is not None] == [caller]


async def test_a_ticket_of_a_host_applications_guest_stands_for_that_guest(keeper: Credentials) -> None:
    guest = Caller(user="eve", tenant="acme", roles=frozenset({"viewer"}), expires_ms=1 << 60)
    ticket = await keeper.issue_ticket(guest)
    assert await keeper.redeem_ticket(ticket) == guest
    assert await keeper.redeem_ticket(ticket) is None


async def test_a_login_code_works_once_for_ten_minutes(
    store: Store, keeper: Credentials, clock: HandClock
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
    store: Store, keeper: Credentials
) -> None:
    first, second = "a" * 43, "b_-" * 15
    owner = await keeper.install_local(first)
    assert owner.tenant is None
    assert owner.roles == {"owner"}
    assert await keeper.verify(first) == owner
    session = await keeper.start_session(owner)
    ticket = await keeper.issue_ticket(owner)
    again = Credentials(store)
    await again.install_local(second, user="sidecar")
    assert await again.verify(first) is None
    assert await again.verify_session(session[1]) == session[0]  # who sits before the page stays there
    assert await again.redeem_ticket(ticket) is None
    found = await again.verify(second)
    assert found is not None
    assert found.user == "sidecar"
    assert await store.read(lambda connection: credentials.list_keys(connection, tenant=None)) == []


async def test_a_short_local_secret_is_refused(keeper: Credentials) -> None:
    with pytest.raises(ValueError, match="at least 43"):
        await keeper.install_local("x" * 42)


async def test_lists_are_of_one_tenant_or_of_all_and_paged(store: Store) -> None:
    made = [(await _key(store, tenant=tenant))[0] for tenant in ("acme", "acme", "other", None)]

    async def listed(**query: Any) -> list[str]:
        rows = await store.read(lambda connection: credentials.list_keys(connection, **query))
        return [row.id for row in rows]

    assert await listed(tenant=None) == made[::-1]
    assert await listed(tenant="acme") == [made[1], made[0]]
    assert await listed(tenant="acme", limit=1) == [made[1]]
    assert await listed(tenant="acme", before=made[1]) == [made[0]]
    assert await listed(tenant="nobody") == []


async def test_use_is_noted_to_the_hour_and_a_full_disk_keeps_nobody_out(
    store: Store, keeper: Credentials, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, secret = await _key(store)
    await keeper.verify(secret)
    row = await store.read(lambda connection: credentials.get(connection, key_id))
    assert row is not None
    assert row.used_ms == clock.now_ms()

    async def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "write", full)
    clock.advance(7200)
    assert await Credentials(store).verify(secret) is not None


async def test_what_ended_a_week_ago_is_deleted_but_keys_stay(
    store: Store, keeper: Credentials, clock: HandClock
) -> None:
    key_id, _ = await _key(store, ttl_s=10)
    await keeper.issue_login()
    await store.write(
        lambda tx: credentials.create(
            tx, kind="token", user="bo", tenant=None, roles=["viewer"], expires_ms=tx.now_ms + 1000
        )
    )
    clock.advance(8 * 86400)
    assert await store.write(credentials.purge) == 2
    assert await store.read(lambda connection: credentials.get(connection, key_id)) is not None


# --- through the doors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", "Basic YTpi")],
        [("authorization", "Bearer")],
        [("authorization", "")],
        [("x-api-key", "wrong")],
        [("x-api-key", "")],
        [("cookie", "bulkops_8765=wrong")],
        [("cookie", "bulkops_8765")],
        [("cookie", ";;;=;")],
    ],
)
async def test_every_wrong_credential_gets_the_same_401(doors: Doors, headers: list[tuple[str, str]]) -> None:
    answer = await doors.ask("GET", "/api/jobs", headers=headers)
    nothing = await doors.ask("GET", "/api/jobs")
    assert (answer.status, answer.headers, answer.body) == (401, nothing.headers, nothing.body)


async def test_both_headers_are_taken_and_authorization_goes_first(doors: Doors) -> None:
    key = await doors.key()
    for header in (
        ("authorization", f"Bearer {key}"),
        ("authorization", f"bearer {key}"),
        ("x-api-key", key),
    ):
        assert (await doors.ask("GET", "/api/me", headers=[header])).json["user"] == "ana"
    wrong_first = [("authorization", "Bearer wrong"), ("x-api-key", key)]
    assert (await doors.ask("GET", "/api/me", headers=wrong_first)).status == 401
    twice = [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")]
    assert (await doors.ask("GET", "/api/me", headers=twice)).status == 401


async def test_who_am_i(doors: Doors) -> None:
    key = await doors.key(role="admin")
    assert (await doors.ask("GET", "/api/me", key=key)).json == {
        "user": "ana",
        "tenant": "acme",
        "roles": ["admin"],
        "expires_at": None,
    }


def _cookie_of(header: str | None) -> tuple[str, set[str]]:
    pair, *flags = (header or "").split("; ")
    return pair, set(flags)


async def test_a_session_starts_with_a_key_and_ends_for_good(doors: Doors) -> None:
    key = await doors.key(role="admin")
    started = await doors.ask("POST", "/api/session", json={"key": key})
    assert started.json["user"] == "ana"
    pair, flags = _cookie_of(started.header("set-cookie"))
    assert pair.startswith("bulkops_8765=bs_")
    assert flags == {"Path=/", f"Max-Age={12 * 3600}", "HttpOnly", "SameSite=Strict"}
    page = [("cookie", f"theme=dark; {pair}; x=y")]
    assert (await doors.ask("GET", "/api/me", headers=page)).json["roles"] == ["admin"]
    ended = await doors.ask("DELETE", "/api/session", headers=[*page, ("origin", OWN)], json={})
    assert ended.status == 204
    assert "Max-Age=0" in _cookie_of(ended.header("set-cookie"))[1]
    assert (await doors.ask("GET", "/api/me", headers=page)).status == 401
    assert (await doors.ask("GET", "/api/me", key=key)).status == 200


async def test_on_https_the_cookie_is_bound_to_the_host(doors: Doors) -> None:
    key = await doors.key()
    started = await knock(
        doors.app, "POST", "/api/session", scheme="https", host="localhost", json={"key": key}
    )
    pair, flags = _cookie_of(started.header("set-cookie"))
    assert pair.startswith("__Host-bulkops=")
    assert flags >= {"Secure", "Path=/", "HttpOnly", "SameSite=Strict"}
    plain = pair.replace("__Host-bulkops", "bulkops_443")
    for cookie, status in ((pair, 200), (plain, 401)):
        answer = await knock(
            doors.app, "GET", "/api/me", scheme="https", host="localhost", headers=[("cookie", cookie)]
        )
        assert answer.status == status


async def test_behind_a_proxy_that_ends_tls_the_origin_says_so(tmp_path: Path, clock: HandClock) -> None:
    server = {"allowed_hosts": ["bulk.example"], "allowed_origins": ["https://bulk.example"]}
    async with opened_doors(tmp_path, clock, server=server) as doors:
        key = await doors.key()
        started = await doors.ask(
            "POST",
            "/api/session",
            host="bulk.example",
            headers=[("origin", "https://bulk.example")],
            json={"key": key},
        )
        assert (started.header("set-cookie") or "").startswith("__Host-bulkops=")


async def test_mounted_the_plain_cookie_is_for_the_mount_only(doors: Doors) -> None:
    key = await doors.key()
    started = await doors.ask("POST", "/api/session", root_path="/bulk", json={"key": key})
    assert "Path=/bulk/" in _cookie_of(started.header("set-cookie"))[1]


async def test_beside_a_wrong_key_no_cookie_is_looked_at(doors: Doors) -> None:
    key = await doors.key()
    pair, _ = _cookie_of((await doors.ask("POST", "/api/session", json={"key": key})).header("set-cookie"))
    for header in (("authorization", "Bearer wrong"), ("x-api-key", "wrong"), ("authorization", "Basic x")):
        assert (await doors.ask("GET", "/api/me", headers=[("cookie", pair), header])).status == 401


async def test_a_cookie_of_another_port_or_set_twice_is_not_ours(doors: Doors) -> None:
    key = await doors.key()
    pair, _ = _cookie_of((await doors.ask("POST", "/api/session", json={"key": key})).header("set-cookie"))
    value = pair.partition("=")[2]
    for cookie in (
        f"bulkops_9999={value}",
        f"{pair}; {pair}",
        f"{pair}; bulkops_8765=bs_x",
        f"Bulkops_8765={value}",
    ):
        assert (await doors.ask("GET", "/api/me", headers=[("cookie", cookie)])).status == 401, cookie


async def test_a_login_link_opens_the_page_once(doors: Doors) -> None:
    await doors.credentials.install_local("x" * 43)
    code = await doors.credentials.issue_login()
    first = await doors.ask("POST", "/api/session", json={"code": code}, headers=[("origin", OWN)])
    assert first.json["roles"] == ["owner"]
    again = await doors.ask("POST", "/api/session", json={"code": code}, headers=[("origin", OWN)])
    assert (again.status, again.code) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("body", [{}, {"key": "a", "code": "b"}, {"key": None}, {"user": "ana"}, {"key": 1}])
async def test_a_session_needs_exactly_one_proof(doors: Doors, body: dict[str, object]) -> None:
    assert (await doors.ask("POST", "/api/session", json=body)).status == 422


async def test_a_thousand_wrong_keys_are_slowed_down_and_the_right_one_still_passes(doors: Doors) -> None:
    key = await doors.key()
    answers = [await doors.ask("GET", "/api/me", key=f"wrong{n}") for n in range(60)]
    assert {each.status for each in answers[:20]} == {401}
    assert {each.status for each in answers[20:]} == {429}
    assert len({each.body for each in answers[:20]}) == 1
    limited = answers[-1]
    assert int(limited.header("retry-after") or "0") > 0
    assert limited.header("ratelimit-policy") == '"credentials";q=20;w=60'
    assert limited.json["violated-policies"] == ["credentials"]
    assert (await doors.ask("GET", "/api/me", key=key)).status == 200
    elsewhere = await doors.ask("GET", "/api/me", key="wrong", client=("192.0.2.7", 1))
    assert elsewhere.status == 401
    rows = await doors.verbs()
    assert 0 < rows.count("denied") <= authentication.MAX_DENIALS_A_MINUTE


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("not an address", "not an address", True),
    ],
)
def test_a_client_is_an_address_or_an_ipv6_network(one: str, other: str, *, same: bool) -> None:
    def named(host: str) -> str:
        return authentication.client_of({"client": (host, 1)})

    assert (named(one) == named(other)) is same


async def test_denials_name_who_was_denied_and_never_the_secret(doors: Doors, tmp_path: Path) -> None:
    viewer = await doors.key(role="viewer")
    await doors.ask("GET", "/api/keys", key=viewer)
    await doors.ask("GET", "/api/me", key="wrong-secret")
    await doors.ask("GET", "/api/me")
    rows = await doors.store.read(
        lambda connection: connection.execute(
            "SELECT user, tenant, detail FROM audit WHERE verb = 'denied' ORDER BY seq"
        ).fetchall()
    )
    assert [(row[0], row[1], msgspec.json.decode(row[2])["code"]) for row in rows] == [
        ("ana", "acme", "FORBIDDEN"),
        ("-", None, "UNAUTHENTICATED"),
    ]
    assert viewer not in str(rows)
    assert "wrong-secret" not in str(rows)


async def test_an_admin_manages_the_tenants_keys_up_to_their_own_rank(doors: Doors) -> None:
    admin = await doors.key(role="admin")
    made = await doors.ask(
        "POST", "/api/keys", key=admin, json={"user": "bo", "role": "operator", "name": "ci"}
    )
    assert made.status == 201
    assert made.json["tenant"] == "acme"
    assert made.json["key"].startswith("bk_")
    assert (await doors.ask("GET", "/api/me", key=made.json["key"])).json["user"] == "bo"
    listed = await doors.ask("GET", "/api/keys", key=admin)
    assert {each["id"] for each in listed.json["items"]} >= {made.json["id"]}
    assert "key" not in listed.json["items"][0]
    assert made.json["key"].encode() not in listed.body
    for role in ("owner", "service"):
        refused = await doors.ask("POST", "/api/keys", key=admin, json={"user": "bo", "role": role})
        assert (refused.status, refused.code) == (403, "FORBIDDEN")
    other = await doors.ask(
        "POST", "/api/keys", key=admin, json={"user": "bo", "role": "viewer", "tenant": "b"}
    )
    assert other.status == 403
    gone = await doors.ask("DELETE", f"/api/keys/{made.json['id']}", key=admin)
    assert gone.status == 204
    assert (await doors.ask("GET", "/api/me", key=made.json["key"])).status == 401
    assert (await doors.ask("DELETE", f"/api/keys/{made.json['id']}", key=admin)).status == 204
    assert (await doors.verbs()).count("key_revoked") == 1


async def test_keys_of_other_tenants_do_not_exist_and_higher_ones_stay(doors: Doors) -> None:
    admin, owner = await doors.key(role="admin"), await doors.key(role="owner", tenant=None)
    foreign_id = (await _key(doors.store, tenant="other"))[0]
    higher_id = (await _key(doors.store, role="owner"))[0]
    foreign = await doors.ask("DELETE", f"/api/keys/{foreign_id}", key=admin)
    unknown = await doors.ask("DELETE", "/api/keys/unknown", key=admin)
    assert (foreign.status, foreign.body) == (404, unknown.body)
    assert (await doors.ask("DELETE", f"/api/keys/{higher_id}", key=admin)).status == 403
    assert (await doors.ask("DELETE", f"/api/keys/{foreign_id}", key=owner)).status == 204
    await doors.credentials.install_local("x" * 43)
    assert (await doors.ask("DELETE", "/api/keys/local", key=owner)).status == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"user": "", "role": "viewer"}, "/user"),
        ({"user": " ", "role": "viewer"}, "/user"),
        ({"user": "a\r\nb", "role": "viewer"}, "/user"),
        ({"user": "\x1b[31m", "role": "viewer"}, "/user"),
        ({"user": "a\u202eb", "role": "viewer"}, "/user"),
        ({"user": "x" * 201, "role": "viewer"}, "/user"),
        ({"user": "bo", "role": "root"}, "/role"),
        ({"user": "bo", "role": "viewer", "ttl_s": 0}, "/ttl_s"),
        ({"user": "bo", "role": "viewer", "ttl_s": 10**18}, "/ttl_s"),
        ({"user": "bo", "role": "viewer", "tenant": ""}, "/tenant"),
        ({"user": "bo"}, "/role"),
        ({"user": "bo", "role": "viewer", "id": "x"}, "/id"),
    ],
)
async def test_a_bad_wish_for_a_key_is_named(doors: Doors, body: dict[str, object], pointer: str) -> None:
    owner = await doors.key(role="owner", tenant=None)
    answer = await doors.ask("POST", "/api/keys", key=owner, json=body)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer)


async def test_keys_are_paged(doors: Doors) -> None:
    owner = await doors.key(role="owner", tenant=None)
    for _ in range(4):
        await doors.key()
    first = (await doors.ask("GET", "/api/keys?limit=3", key=owner)).json
    second = (await doors.ask("GET", f"/api/keys?limit=3&page={first['next']}", key=owner)).json
    assert [len(first["items"]), len(second["items"]), second["next"]] == [3, 2, None]
    assert (await doors.ask("GET", "/api/keys?page=' OR 1", key=owner)).status == 422


async def test_a_service_key_mints_tokens_for_its_tenant_and_nothing_else(doors: Doors) -> None:
    service = await doors.key(role="service", user="backend")
    made = await doors.ask(
        "POST", "/api/tokens", key=service, json={"user": "bo", "roles": ["viewer", "admin"]}
    )
    assert made.status == 201
    assert (made.json["tenant"], made.json["roles"]) == ("acme", ["admin", "viewer"])
    me = await doors.ask("GET", "/api/me", key=made.json["token"])
    assert (me.json["user"], me.json["tenant"], me.json["expires_at"]) == (
        "bo",
        "acme",
        made.json["expires_at"],
    )
    foreign = {"user": "bo", "roles": ["viewer"], "tenant": "other"}
    assert (await doors.ask("POST", "/api/tokens", key=service, json=foreign)).status == 403
    assert (await doors.ask("GET", "/api/jobs", key=service)).status == 403
    for role in ("owner", "admin"):
        key = await doors.key(role=role)
        assert (await doors.ask("POST", "/api/tokens", key=key, json=foreign)).status == 403
    whole = await doors.key(role="service", tenant=None)
    assert (await doors.ask("POST", "/api/tokens", key=whole, json=foreign)).json["tenant"] == "other"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"user": "bo", "roles": []}, "/roles"),
        ({"user": "bo", "roles": ["viewer", "service"]}, "/roles/1"),
        ({"user": "bo", "roles": ["root"]}, "/roles/0"),
        ({"user": "bo", "roles": "viewer"}, "/roles"),
        ({"user": "bo", "roles": ["viewer"], "ttl_s": 86401}, "/ttl_s"),
        ({"user": "bo", "roles": ["viewer"], "ttl_s": 0}, "/ttl_s"),
        ({"user": "bo", "roles": ["viewer"], "ttl_s": -1}, "/ttl_s"),
        ({"user": "", "roles": ["viewer"]}, "/user"),
    ],
)
async def test_a_bad_wish_for_a_token_is_named(doors: Doors, body: dict[str, object], pointer: str) -> None:
    service = await doors.key(role="service", tenant=None)
    answer = await doors.ask("POST", "/api/tokens", key=service, json=body)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer)


async def test_tokens_end_in_time_and_with_their_service_key(doors: Doors, clock: HandClock) -> None:
    row, service = await doors.store.write(
        lambda tx: credentials.create_key(tx, user="backend", role="service", tenant="acme")
    )
    body = {"user": "bo", "roles": ["viewer"], "ttl_s": 60}
    first = (await doors.ask("POST", "/api/tokens", key=service, json=body)).json["token"]
    clock.advance(60)
    assert (await doors.ask("GET", "/api/me", key=first)).status == 401
    second = (await doors.ask("POST", "/api/tokens", key=service, json=body)).json["token"]
    await doors.credentials.revoke(row.id)
    assert (await doors.ask("GET", "/api/me", key=second)).status == 401


# --- a host application that knows its people ---------------------------------------------------------


async def test_a_host_application_may_say_who_is_asking(tmp_path: Path, clock: HandClock) -> None:
    async def authenticate(connection: HTTPConnection) -> Caller | None:
        name = connection.cookies.get("host_session")
        if name is None:
            return None
        return Caller(user=name, tenant="acme", roles=frozenset({"admin", "root"}), credential="local")

    async with opened_doors(tmp_path, clock, authenticate=authenticate) as doors:
        page = [("cookie", "host_session=eve")]
        me = await doors.ask("GET", "/api/me", headers=page)
        assert (me.json["user"], me.json["roles"]) == ("eve", ["admin"])
        assert (await doors.ask("GET", "/api/me")).status == 401
        key = await doors.key()
        assert (await doors.ask("GET", "/api/me", key=key, headers=page)).json["user"] == "ana"
        forged = await doors.ask("POST", "/api/keys", headers=page, json={"user": "x", "role": "admin"})
        assert (forged.status, forged.code) == (403, "FORBIDDEN")


async def test_a_host_application_may_answer_without_waiting(tmp_path: Path, clock: HandClock) -> None:
    def authenticate(connection: HTTPConnection) -> Caller | None:
        return ANA if "x-user" in connection.headers else None

    async with opened_doors(tmp_path, clock, authenticate=authenticate) as doors:
        assert (await doors.ask("GET", "/api/me", headers=[("x-user", "1")])).json["user"] == "ana"
        assert (await doors.ask("GET", "/api/me", headers=[("authorization", "Bearer theirs")])).status == 401


async def test_require_raises_what_the_doors_answer(doors: Doors) -> None:
    authenticator = authentication.Authenticator(doors.credentials, doors.clock)
    connection = HTTPConnection({"type": "http", "headers": [], "client": ("192.0.2.1", 1)})
    with pytest.raises(Refusal) as refused:
        await authenticator.require(connection)
    assert refused.value.code == "UNAUTHENTICATED"
