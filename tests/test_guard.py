"""The guard: who may talk to the server at all, by Host, Origin, size and pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from bulkops.web import guard
from bulkops.web.guard import Guard, gate
from bulkops.web.problems import Boundary
from tests.conftest import HandClock
from tests.doors import HOST, OWN, Doors, knock, knock_socket, opened_doors

TAURI = "tauri://localhost"
PARTNER = "https://app.example"
COOKIE = ("cookie", "bulkops_8765=bs_x")


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body and say how long it is."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await PlainTextResponse(str(size))(scope, receive, send)


@pytest.fixture
def app() -> Guard:
    return Guard(Boundary(_echo), gate(["files.example", "only.example:8443"], [TAURI, PARTNER]))


@pytest.fixture
async def doors(tmp_path: Path, clock: HandClock) -> AsyncIterator[Doors]:
    async with opened_doors(tmp_path, clock, server={"allowed_origins": [PARTNER]}) as opened:
        yield opened


GOOD_HOSTS = [
    "127.0.0.1:8765",
    "localhost",
    "LOCALHOST:1",
    "[::1]:8765",
    "files.example",
    "only.example:8443",
]
BAD_HOSTS = [
    "attacker.example",
    "127.0.0.1.evil",
    "127.0.0.1.evil:8765",
    "evil.localhost",
    "localhost.",
    "127.0.0.1.:8765",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0.0.0.0:8765",
    "[::]:8765",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "::1",
    "user@localhost",
    "localhost:8765@evil",
    "localhost/evil",
    "http://localhost",
    "localhost:",
    "localhost:0",
    "localhost:99999",
    "localhost:8765:8765",
    "localhost evil",
    "localhost,evil",
    "only.example",
    "only.example:1",
    "",
    " ",
    "\xff",
    "[",
    "[::1",
    "a" * 5000,
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_known_names_pass(app: Guard, host: str) -> None:
    assert (await knock(app, "GET", "/", host=host)).status == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_any_other_host_is_421_on_http_and_on_sockets(app: Guard, host: str) -> None:
    answer = await knock(app, "GET", "/", host=host)
    assert (answer.status, answer.code) == (421, "WRONG_HOST")
    refused = await knock_socket(app, host=host)
    assert refused[0]["type"] == "websocket.http.response.start"
    assert refused[0]["status"] == 421


@pytest.mark.parametrize("more", [[("host", HOST)], [("host", "evil.example")], [("Host", HOST)]])
async def test_two_host_headers_are_421_even_when_they_agree(app: Guard, more: list[tuple[str, str]]) -> None:
    assert (await knock(app, "GET", "/", headers=more)).status == 421


async def test_no_host_header_is_421(app: Guard) -> None:
    assert (await knock(app, "GET", "/", host=None)).status == 421


BAD_ORIGINS = [
    "null",
    "http://evil.example",
    "http://127.0.0.1:8766",
    "http://127.0.0.1",
    "https://127.0.0.1:8765",
    "http://localhost:8765",
    "http://127.0.0.1:8765.evil.example",
    "http://127.0.0.1:8765/",
    "HTTP://127.0.0.1:8765",
    "https://app.example.evil",
    "https://xapp.example",
    "http://app.example",
    "https://app.example:443",
    "https://app.example/",
    "https://APP.example",
    "tauri://localhost/",
    "tauri://evil",
    "",
    "*",
]


@pytest.mark.parametrize("origin", BAD_ORIGINS)
async def test_a_foreign_origin_is_403_for_every_method_and_for_sockets(app: Guard, origin: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        answer = await knock(app, method, "/", headers=[("origin", origin), ("authorization", "Bearer x")])
        assert (answer.status, answer.code) == (403, "FORBIDDEN")
        assert answer.header("access-control-allow-origin") is None
    refused = await knock_socket(app, headers=[("origin", origin), ("authorization", "Bearer x")])
    assert refused[0]["status"] == 403


@pytest.mark.parametrize("origin", [OWN, TAURI, PARTNER])
async def test_our_own_and_allowed_origins_pass(app: Guard, origin: str) -> None:
    assert (await knock(app, "POST", "/", headers=[("origin", origin)], json={})).status == 200
    assert (await knock_socket(app, headers=[("origin", origin)]))[0]["type"] == "websocket.accept"


async def test_two_origins_are_refused_even_when_they_agree(app: Guard) -> None:
    answer = await knock(app, "GET", "/", headers=[("origin", OWN), ("origin", OWN)])
    assert answer.status == 403


async def test_our_own_origin_follows_scheme_and_default_port(app: Guard) -> None:
    answer = await knock(
        app, "GET", "/", host="files.example", scheme="https", headers=[("origin", "https://files.example")]
    )
    assert answer.status == 200
    answer = await knock(
        app, "GET", "/", host="files.example", scheme="https", headers=[("origin", "http://files.example")]
    )
    assert answer.status == 403


async def test_without_origin_an_explicit_credential_may_write_and_open_sockets(app: Guard) -> None:
    for header in (("authorization", "Bearer x"), ("x-api-key", "x")):
        assert (await knock(app, "POST", "/", headers=[header, COOKIE], body=b"x")).status == 200
        assert (await knock_socket(app, headers=[header, COOKIE]))[0]["type"] == "websocket.accept"
    ticket = ("sec-websocket-protocol", "bulkops.v1, bulkops.ticket.bx_y")
    assert (await knock_socket(app, headers=[ticket, COOKIE]))[0]["type"] == "websocket.accept"


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_without_origin_a_cookie_alone_may_not_write(app: Guard, method: str) -> None:
    answer = await knock(app, method, "/", headers=[COOKIE], json={})
    assert (answer.status, answer.code) == (403, "FORBIDDEN")


async def test_without_origin_a_cookie_alone_may_read_but_open_no_socket(app: Guard) -> None:
    assert (await knock(app, "GET", "/", headers=[COOKIE])).status == 200
    assert (await knock_socket(app, headers=[COOKIE]))[0]["status"] == 403
    protocol = ("sec-websocket-protocol", "bulkops.v1")
    assert (await knock_socket(app, headers=[COOKIE, protocol]))[0]["status"] == 403


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/json, text/plain",
        "application/jsonp",
        "text/json",
        "",
    ],
)
async def test_a_cookie_write_that_a_form_could_send_is_415(app: Guard, content_type: str | None) -> None:
    headers = [COOKIE, ("origin", OWN)]
    if content_type is not None:
        headers.append(("content-type", content_type))
    for method in ("POST", "DELETE"):
        answer = await knock(app, method, "/", headers=headers, body=b'{"all":true}')
        assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_cookie_write_from_another_site_is_403(app: Guard) -> None:
    headers = [COOKIE, ("origin", PARTNER), ("sec-fetch-site", "cross-site")]
    assert (await knock(app, "POST", "/", headers=headers, json={})).status == 403
    headers = [COOKIE, ("origin", OWN), ("sec-fetch-site", "same-origin")]
    assert (await knock(app, "POST", "/", headers=headers, json={})).status == 200


async def test_uploads_by_cookie_need_a_type_that_forms_do_not_have(app: Guard) -> None:
    def headers(content_type: str) -> list[tuple[str, str]]:
        return [COOKIE, ("origin", OWN), ("content-type", content_type)]

    for good in ("application/x-ndjson", "text/csv; charset=utf-8", "application/json"):
        assert (await knock(app, "POST", "/api/selections", headers=headers(good))).status == 200
    assert (await knock(app, "POST", "/api/selections", headers=headers("text/plain"))).status == 415
    assert (await knock(app, "POST", "/api/other", headers=headers("text/csv"))).status == 415


async def test_a_method_override_header_overrides_nothing(doors: Doors) -> None:
    key = await doors.key(role="owner")
    override = [("x-http-method-override", "DELETE"), ("x-method-override", "DELETE")]
    answer = await doors.ask("GET", "/api/bulk/receipts/items?_method=DELETE", key=key, headers=override)
    assert answer.status == 200
    assert [each[0] for each in doors.service.asked] == ["items"]


@pytest.mark.parametrize("origin", [TAURI, PARTNER])
async def test_cors_echoes_the_exact_allowed_origin_and_never_a_star(app: Guard, origin: str) -> None:
    answer = await knock(app, "GET", "/", headers=[("origin", origin)])
    assert answer.header("access-control-allow-origin") == origin
    assert answer.header("access-control-allow-credentials") is None
    assert "Origin" in (answer.header("vary") or "")


async def test_without_an_allowed_origin_nothing_is_echoed_but_vary_stands(app: Guard) -> None:
    for headers in ([], [("origin", OWN)]):
        answer = await knock(app, "GET", "/", headers=headers)
        assert answer.header("access-control-allow-origin") is None
        assert answer.header("vary") == "Origin"


async def test_a_preflight_of_an_allowed_origin_never_reaches_the_application(app: Guard) -> None:
    headers = [
        ("origin", PARTNER),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "authorization, idempotency-key"),
        ("access-control-request-private-network", "true"),
    ]
    answer = await knock(app, "OPTIONS", "/api/jobs/x", headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header("access-control-allow-origin") == PARTNER
    assert "DELETE" in (answer.header("access-control-allow-methods") or "")
    allowed = (answer.header("access-control-allow-headers") or "").split(", ")
    # Downloads are taken in ranges by pages and desktop shells of other origins too.
    assert {"idempotency-key", "range", "if-range", "if-none-match"} <= set(allowed)
    assert answer.header("access-control-allow-private-network") == "true"


@pytest.mark.parametrize(
    "headers",
    [
        [("x-a", "b" * 17000)],
        [(f"x-{n}", "y") for n in range(101)],
        [(f"x-{n}", "y" * 200) for n in range(90)],
    ],
)
async def test_too_many_or_too_large_headers_are_431(app: Guard, headers: list[tuple[str, str]]) -> None:
    answer = await knock(app, "GET", "/", headers=headers)
    assert (answer.status, answer.code) == (431, "HEADERS_TOO_LARGE")
    assert (await knock_socket(app, headers=headers))[0]["status"] == 431


async def test_a_long_target_counts_as_header(app: Guard) -> None:
    assert (await knock(app, "GET", "/?q=" + "x" * 17000)).status == 431


async def test_a_hundred_headers_pass(app: Guard) -> None:
    assert (await knock(app, "GET", "/", headers=[(f"x-{n}", "y") for n in range(99)])).status == 200


@pytest.mark.parametrize(
    ("target", "limit"), [("/api/x", guard.MAX_BODY_BYTES), ("/api/selections", guard.MAX_UPLOAD_BYTES)]
)
async def test_a_body_is_refused_by_what_it_announces(app: Guard, target: str, limit: int) -> None:
    announced = [("content-length", str(limit + 1))]
    answer = await knock(app, "POST", target, headers=announced, body=b"x")
    assert (answer.status, answer.code) == (413, "TOO_LARGE")
    assert answer.header("connection") == "close"


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
async def test_a_body_that_nobody_would_read_is_refused_all_the_same(method: str) -> None:
    async def deaf(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"a ticket"})

    app = Guard(Boundary(deaf), gate([], []))
    answer = await knock(app, method, "/api/tickets", headers=[("content-length", "1000000000")])
    assert (answer.status, answer.code) == (413, "TOO_LARGE")
    assert (await knock(app, method, "/api/tickets", headers=[("content-length", "0")])).status == 201


async def test_a_body_is_refused_by_what_arrives_whatever_it_announced(app: Guard) -> None:
    chunks = [b"x" * 65536] * 4
    assert (await knock(app, "POST", "/", body=chunks)).body == b"262144"
    for lie in ([], [("content-length", "10")], [("content-length", "-1")], [("content-length", "1e3")]):
        assert (await knock(app, "POST", "/", headers=lie, body=[*chunks, b"x"])).status == 413


async def test_only_the_upload_may_be_long(app: Guard) -> None:
    chunks = [b"x" * 1_000_000] * 3
    assert (await knock(app, "POST", "/api/selections/", body=chunks)).body == b"3000000"
    assert (await knock(app, "POST", "/api/selections", root_path="/bulk", body=chunks)).status == 200
    assert (await knock(app, "PUT", "/api/selections", body=chunks)).status == 413
    assert (await knock(app, "POST", "/api/selectionsx", body=chunks)).status == 413


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_DEADLINE_S", 0.01)
    app = Guard(Boundary(_echo), gate([], []))
    got: list[dict[str, Any]] = []
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> dict[str, Any]:
        if pieces:
            return pieces.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        got.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", HOST.encode())]}
    await app(scope, receive, send)
    assert got[0]["status"] == 400
    assert (b"connection", b"close") in got[0]["headers"]


SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@pytest.mark.parametrize(
    ("method", "target", "host"),
    [
        ("GET", "/", HOST),
        ("GET", "/healthz", HOST),
        ("GET", "/api/jobs", HOST),
        ("GET", "/nowhere", HOST),
        ("DELETE", "/healthz", HOST),
        ("GET", "/healthz", "evil.example"),
        ("POST", "/api/session", HOST),
    ],
)
async def test_every_answer_bears_the_security_headers(
    doors: Doors, method: str, target: str, host: str
) -> None:
    answer = await doors.ask(method, target, host=host)
    for name, value in SECURITY_HEADERS.items():
        if answer.status == 200 and target == "/" and name == "cache-control":
            continue
        assert [each for key, each in answer.headers if key == name] == [value], name
    assert answer.header("server") is None


@pytest.mark.parametrize("name", ["token", "ticket", "q"])
async def test_a_key_in_the_query_is_refused_even_beside_a_right_one(doors: Doors, name: str) -> None:
    key = await doors.key()
    answer = await doors.ask("GET", f"/api/jobs?{name}={key}", key=key)
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")


async def test_a_trailing_slash_is_the_same_path(doors: Doors) -> None:
    key = await doors.key()
    for target in ("/api/jobs", "/api/jobs/", "/api/bulk/receipts/info/", "/healthz/"):
        assert (await doors.ask("GET", target, key=key)).status == 200
    for target in ("//api/jobs", "/api//jobs", "/api/jobs//"):
        assert (await doors.ask("GET", target, key=key)).status == 404


async def test_forwarded_headers_change_nothing(doors: Doors) -> None:
    forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=6.6.6.6;host=evil.example;proto=https"),
        ("x-tenant", "other"),
        ("x-original-url", "/api/keys"),
    ]
    key = await doors.key(role="admin")
    answer = await doors.ask("POST", "/api/bulk/receipts/delete", key=key, headers=forged, json={"all": True})
    assert (answer.header("location") or "").startswith("/api/jobs/")
    assert doors.service.asked[0][1].tenant == "acme"


async def test_the_access_log_holds_neither_query_nor_control_characters(
    app: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "bulkops.access"):
        await knock(app, "GET", "/a%0d%0aGET%20/forged%1b[31m?ticket=bx_secret")
        await knock(app, "GET", "/x?token=secret", host="evil.example")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[:3] for line in lines] == [
        ["GET", "/a%0d%0aGET%20/forged%1b[31m", "200"],
        ["GET", "/x", "421"],
    ]
    assert all(line.isprintable() for line in lines)


async def test_open_sockets_are_counted(app: Guard) -> None:
    inside: list[int] = []

    async def socket(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append(app.traffic.sockets)
        raise RuntimeError("it broke")

    app.app = socket
    with pytest.raises(RuntimeError, match="it broke"):
        await knock_socket(app)
    assert inside == [1]
    assert app.traffic.sockets == 0
