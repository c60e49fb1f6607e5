"""Problem documents: one shape for every refusal and fault, and nothing of the inside in any of them."""

from __future__ import annotations

import asyncio
import re
import sqlite3

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from bulkops.errors import (
    REFUSALS,
    ConfigError,
    Halt,
    ItemRefused,
    JobFailed,
    Refusal,
    StartRefused,
    invalid_field,
)
from bulkops.web import problems
from bulkops.web.problems import Boundary
from tests.doors import Doors, job_view, knock

MEMBERS = {"type", "title", "status", "detail", "code", "instance"}


def _raising(error: Exception, *, after: bytes | None = None) -> Boundary:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if after is not None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": after, "more_body": True})
        raise error

    return Boundary(app)


@pytest.mark.parametrize("code", REFUSALS)
async def test_every_code_is_a_document_of_one_shape(code: str) -> None:
    answer = await knock(_raising(Refusal(code, "a sentence")), "GET", "/")
    assert answer.status == REFUSALS[code][0]
    assert answer.code == code
    assert set(answer.json) >= MEMBERS
    assert answer.json["status"] == answer.status
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", answer.json["instance"])


async def test_types_lead_to_the_reference_below_the_mount_or_to_iana() -> None:
    answer = await knock(_raising(Refusal("JOB_ACTIVE", "x")), "GET", "/", root_path="/bulk")
    assert answer.json["type"] == "/bulk/docs#JOB_ACTIVE"
    answer = await knock(_raising(Refusal("QUEUE_FULL", "x")), "GET", "/")
    assert answer.json["type"].startswith("https://iana.org/assignments/http-problem-types#")


async def test_extra_members_and_headers_go_along() -> None:
    refusal = Refusal("JOB_ACTIVE", "x", headers={"X-Y": "z"}, job="01J")
    answer = await knock(_raising(refusal), "GET", "/")
    assert answer.json["job"] == "01J"
    assert answer.header("x-y") == "z"
    answer = await knock(_raising(invalid_field("/ids/3", "is no id")), "GET", "/")
    assert answer.json["errors"] == [{"pointer": "/ids/3", "detail": "is no id"}]


async def test_a_rate_limit_tells_when_and_which_policy() -> None:
    headers = {
        "Retry-After": "41",
        "RateLimit": '"start";r=0;t=41',
        "RateLimit-Policy": '"start";q=10;w=60',
    }
    answer = await knock(_raising(Refusal("RATE_LIMITED", "x", headers=headers)), "GET", "/")
    assert answer.status == 429
    for name, value in headers.items():
        assert answer.header(name.lower()) == value
    assert answer.json["violated-policies"] == ["start"]


@pytest.mark.parametrize("code", ["DRAINING", "QUEUE_FULL", "RATE_LIMITED"])
async def test_what_may_be_tried_again_says_when(code: str) -> None:
    answer = await knock(_raising(Refusal(code, "x")), "GET", "/")
    assert int(answer.header("retry-after") or "0") > 0


async def test_401_challenges_and_says_the_same_whatever_the_reason() -> None:
    one = await knock(_raising(Refusal("UNAUTHENTICATED", "unknown key", key="bk_x")), "GET", "/")
    other = await knock(_raising(Refusal("UNAUTHENTICATED", "expired")), "GET", "/")
    assert one.header("www-authenticate") == 'Bearer realm="bulkops"'
    assert (one.body, one.headers) == (other.body, other.headers)


async def test_404_of_the_unknown_and_of_the_foreign_are_the_same_bytes(doors: Doors) -> None:
    doors.service.views["FOREIGN"] = job_view("FOREIGN", tenant="other")
    key = await doors.key(role="owner")
    pairs = [
        ("GET", "/api/jobs/{}"),
        ("PATCH", "/api/jobs/{}"),
        ("POST", "/api/jobs/{}/pause"),
        ("POST", "/api/jobs/{}/resume"),
        ("POST", "/api/jobs/{}/cancel"),
        ("POST", "/api/jobs/{}/retry"),
        ("POST", "/api/jobs/{}/undo"),
        ("GET", "/api/jobs/{}/report"),
        ("HEAD", "/api/jobs/{}"),
    ]
    for method, target in pairs:
        body: dict[str, str] | None = {} if method in {"PATCH", "POST"} else None
        foreign = await doors.ask(method, target.format("FOREIGN"), key=key, json=body)
        unknown = await doors.ask(method, target.format("UNKNOWN"), key=key, json=body)
        assert foreign.status == 404, target
        assert (foreign.headers, foreign.body) == (unknown.headers, unknown.body), target
    nowhere = await doors.ask("GET", "/no/such/path", key=key)
    assert nowhere.body == (await doors.ask("GET", "/api/jobs/UNKNOWN", key=key)).body


CANARY = "/home/secret/app.db: no such table: receipts"
FAULTS = [
    RuntimeError(CANARY),
    sqlite3.OperationalError(CANARY),
    sqlite3.DatabaseError(CANARY),
    OSError(5, "Input/output error", "/home/secret/app.db"),
    FileNotFoundError(2, "No such file", "/home/secret/app.db"),
    ConfigError("/home/secret/bulkops.toml: server", "no such table"),
    StartRefused("db_corrupt", CANARY),
    ItemRefused("failed", "IO_ERROR", CANARY),
    Halt("DISK_FULL", CANARY),
    JobFailed("SCHEMA_CHANGED", CANARY),
    KeyError("secret"),
    RecursionError("secret"),
    MemoryError("secret"),
    UnicodeDecodeError("utf-8", b"secret\xff", 6, 7, "secret"),
    TimeoutError("secret"),
    AssertionError("secret"),
    ExceptionGroup("secret", [ValueError("secret")]),
    HTTPException(599, "secret"),
]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
async def test_a_fault_is_a_500_that_tells_nothing_and_a_log_line_that_tells_all(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await knock(_raising(error), "GET", "/")
    assert (answer.status, answer.code) == (500, "INTERNAL")
    text = answer.body.decode()
    for leak in ("secret", "sqlite", "Traceback", "no such table", "/home", "Error", ".py"):
        assert leak not in text
    if not isinstance(error, HTTPException):
        assert answer.json["instance"] in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 413, 415])
async def test_what_starlette_refuses_is_a_document_too(status: int) -> None:
    answer = await knock(_raising(HTTPException(status, "secret", {"Allow": "GET"})), "GET", "/")
    assert answer.status == status
    assert "secret" not in answer.body.decode()
    if status == 405:
        assert answer.header("allow") == "GET"


async def test_a_fault_after_the_first_byte_cuts_the_stream() -> None:
    with pytest.raises(RuntimeError, match="broke"):
        await knock(_raising(RuntimeError("broke"), after=b"half"), "GET", "/")


async def test_a_cancelled_request_is_no_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await knock(Boundary(app), "GET", "/")


async def test_faults_of_the_service_leak_nothing_through_the_whole_application(doors: Doors) -> None:
    key = await doors.key()
    doors.service.error = sqlite3.OperationalError(CANARY)
    answer = await doors.ask("GET", "/api/resources", key=key)
    assert (answer.status, answer.code) == (500, "INTERNAL")
    assert "secret" not in answer.body.decode()


def test_every_code_has_a_constant_text_or_its_own() -> None:
    assert set(problems.CONSTANT) <= set(REFUSALS)
    assert set(problems.REGISTERED) <= set(REFUSALS)


@pytest.mark.parametrize("code", [code for code, (status, _) in REFUSALS.items() if status == 422])
async def test_every_422_names_a_place_if_only_the_whole(code: str) -> None:
    body = problems.document(Refusal(code, "so it is"), "", "urn:x")
    assert body["errors"] == [{"pointer": "", "detail": "so it is"}]
    named = problems.document(invalid_field("/ids/3", "is odd", code=code), "", "urn:x")
    assert named["errors"] == [{"pointer": "/ids/3", "detail": "is odd"}]
