"""Keys and tokens through the doors: who may give which, to whom, and what a bad wish is told."""

from __future__ import annotations

import pytest

from bulkops.store import credentials
from tests.conftest import HandClock
from tests.doors import Doors
from tests.store_house import a_key


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
    foreign_id = (await a_key(doors.store, tenant="other"))[0]
    higher_id = (await a_key(doors.store, role="owner"))[0]
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
        ({"user": "bo", "roles": []}, "/role"),
        ({"user": "bo", "roles": ["root"]}, "/roles/0"),
        ({"user": "bo", "roles": ["viewer", "admin"]}, "/role"),
        ({"user": "bo", "role": "viewer", "roles": ["viewer"]}, "/role"),
        ({"user": "bo", "role": "viewer", "id": "x"}, "/id"),
    ],
)
async def test_a_bad_wish_for_a_key_is_named(doors: Doors, body: dict[str, object], pointer: str) -> None:
    owner = await doors.key(role="owner", tenant=None)
    answer = await doors.ask("POST", "/api/keys", key=owner, json=body)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer)


async def test_a_key_may_be_wished_for_as_callers_are_written(doors: Doors) -> None:
    admin = await doors.key(role="admin", tenant="acme")
    made = await doors.ask("POST", "/api/keys", key=admin, json={"user": "bo", "roles": ["viewer"]})
    assert (made.status, made.json["role"], made.json["roles"]) == (201, "viewer", ["viewer"])
    above = await doors.ask("POST", "/api/keys", key=admin, json={"user": "bo", "roles": ["owner"]})
    assert above.status == 403


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
