"""Who is asking: headers, cookies, one-time links, a host application's own word, and who is slowed down."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from starlette.requests import HTTPConnection

from bulkops.errors import Refusal
from bulkops.models import Caller
from bulkops.web import authentication
from tests.conftest import HandClock
from tests.doors import OWN, Doors, knock, opened_doors

ANA = Caller(user="ana", tenant="acme", roles=frozenset({"operator"}))


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
