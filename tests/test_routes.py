"""The table of routes: everything has a rule, every rule holds, and handlers pass on what was asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute

from bulkops.errors import Refusal
from bulkops.models import ItemsQuery, JobsQuery
from bulkops.operations import RANKS
from bulkops.web import bulk, jobs, queries, static_files, streaming, uploads
from bulkops.web.app import OPERATIONS, build_app
from bulkops.web.authentication import Authenticator
from bulkops.web.live import live_routes
from bulkops.web.routing import Operation, build_routes, match_segments
from tests.doors import Doors, job_view, knock, knock_socket

SERVED = [each for each in OPERATIONS if each.handler is not None]
GUARDED = [each for each in SERVED if each.role != "public"]
PUBLIC = {("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/api/session")}
CONTRACT = """
GET /api/resources · GET /api/me · GET /api/bulk/{}/info · GET /api/bulk/{}/items · GET /api/bulk/{}/items/{}/history
POST /api/bulk/{}/validate · POST /api/bulk/{}/{} · DELETE /api/bulk/{}/items/{} · POST /api/selections · GET /api/jobs
GET /api/jobs/{} · PATCH /api/jobs/{} · POST /api/jobs/{}/pause · POST /api/jobs/{}/resume · POST /api/jobs/{}/cancel
POST /api/jobs/{}/retry · POST /api/jobs/{}/undo · GET /api/jobs/{}/items · GET /api/jobs/{}/errors
GET /api/jobs/{}/log · GET /api/jobs/{}/events · GET /api/jobs/{}/report · GET /api/tasks · GET /api/tasks/{}
GET /api/events · POST /api/tickets · GET /api/trash · POST /api/cleanup/run · GET /api/cleanup/stats
GET /api/cleanup/items · POST /api/cleanup/items/{}/requeue · DELETE /api/cleanup/items/{}
GET /api/keys · POST /api/keys · DELETE /api/keys/{}
POST /api/tokens · POST /api/session · DELETE /api/session · GET /api/audit · GET /healthz · GET /readyz · GET /metrics
GET /openapi.json · GET /docs
"""


def _target(operation: Operation) -> str:
    return re.sub(r"\{\w+\}", "1", operation.path)


def _named(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def test_every_route_of_the_contract_is_in_the_table() -> None:
    contract = {each.strip() for each in re.split(r"·|\n", CONTRACT) if each.strip()}
    table = {re.sub(r"\{\w+\}", "{}", _named(each)) for each in OPERATIONS}
    assert contract <= table


async def test_every_live_route_is_in_the_table(doors: Doors) -> None:
    authenticator = Authenticator(doors.credentials, doors.clock)
    routes = live_routes(doors, authenticator)
    served = {
        f"{method} {route.path}"
        for route in routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    assert served == {_named(each) for each in OPERATIONS if each.handler is None}
    assert [each.path for each in routes if isinstance(each, WebSocketRoute)] == ["/ws"]


def test_only_what_must_be_open_is_open() -> None:
    assert {(each.method, each.path) for each in OPERATIONS if each.role == "public"} == PUBLIC


def test_an_operation_without_a_rule_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="role"):
        Operation(  # type: ignore[call-arg]  # without its role, on purpose
            name="x", method="GET", path="/x", summary="x", answers={}, handler=jobs.get_job, tag="x"
        )


def test_no_method_and_path_stands_twice() -> None:
    names = [_named(each) for each in OPERATIONS]
    assert len(names) == len(set(names))
    no_door: Any = None
    with pytest.raises(ValueError, match="stands twice"):
        build_routes([SERVED[0], SERVED[0]], no_door)


@pytest.mark.parametrize("operation", GUARDED, ids=_named)
async def test_without_a_credential_nothing_but_401(doors: Doors, operation: Operation) -> None:
    answer = await doors.ask(operation.method, _target(operation), json={})
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    assert doors.service.asked == []


@pytest.mark.parametrize("operation", GUARDED, ids=_named)
async def test_each_role_passes_or_is_refused_before_anything_is_looked_up(
    doors: Doors, operation: Operation
) -> None:
    for role in (*RANKS, "service"):
        key = await doors.key(role=role)
        answer = await doors.ask(operation.method, f"{_target(operation)}?no_such=1&limit=0", key=key)
        allowed = operation.role in {"caller", role} or (
            role in RANKS and RANKS[role] >= RANKS.get(operation.role, 9)
        )
        if allowed:
            assert answer.status != 403, role
        else:
            assert (answer.status, answer.code) == (403, "FORBIDDEN"), role
    assert doors.service.asked == []


@pytest.mark.parametrize("operation", [each for each in GUARDED if each.query is not ItemsQuery], ids=_named)
async def test_an_unknown_parameter_is_named(doors: Doors, operation: Operation) -> None:
    role = "service" if operation.role == "service" else "owner"
    key = await doors.key(role=role, tenant=None)
    answer = await doors.ask(operation.method, f"{_target(operation)}?lmit=5", key=key)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/lmit")


@pytest.mark.parametrize("path", sorted({each.path for each in SERVED}))
async def test_other_methods_are_405_with_what_is_allowed(doors: Doors, path: str) -> None:
    mine = {each.method for each in SERVED if each.path == path}
    allowed = mine | {"OPTIONS"} | ({"HEAD"} if "GET" in mine else set())
    target = re.sub(r"\{\w+\}", "1", path)
    for method in {
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "TRACE",
        "CONNECT",
        "BREW",
        "get",
    } - allowed:
        answer = await doors.ask(method, target)
        assert answer.status == 405, method
        assert set((answer.header("allow") or "").split(", ")) == allowed
        assert method == "HEAD" or answer.code == "METHOD_NOT_ALLOWED"
    options = await doors.ask("OPTIONS", target)
    assert options.status == 204
    assert set((options.header("allow") or "").split(", ")) == allowed


@pytest.mark.parametrize("target", ["/api/tickets", "/api/events"])
async def test_live_routes_too_refuse_other_methods_with_a_document(doors: Doors, target: str) -> None:
    answer = await doors.ask("PUT", target)
    assert (answer.status, answer.code) == (405, "METHOD_NOT_ALLOWED")
    assert answer.header("allow")


async def test_head_is_get_without_its_body(doors: Doors) -> None:
    key = await doors.key()
    doors.service.views["J"] = job_view("J", tenant="acme")
    for target in ("/api/jobs/J", "/api/resources", "/healthz", "/docs", "/api/jobs/J/report"):
        got, head = await doors.ask("GET", target, key=key), await doors.ask("HEAD", target, key=key)
        assert (got.status, head.status, head.body) == (200, 200, b"")
        assert head.header("content-type") == got.header("content-type")
        assert head.header("content-length") == got.header("content-length")


@pytest.mark.parametrize(
    "target",
    [
        "/nowhere",
        "/api",
        "/api/calendars",
        "/API/jobs",
        "/api/jobs/%ff",
        "/api/jobs/a%00b",
        "/api/jobs/../keys",
        "/api/jobs/%2e%2e/%2e%2e",
        "*",
    ],
)
async def test_what_is_not_there_is_404(doors: Doors, target: str) -> None:
    key = await doors.key(role="owner")
    answer = await doors.ask("GET", target, key=key)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


async def test_a_socket_where_there_is_none_is_refused(doors: Doors) -> None:
    assert (await knock_socket(doors.app, "/api/jobs"))[0]["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("raw", "item"),
    [
        ("7", "7"),
        ("1,3402", "1,3402"),
        ("a%2Fb", "a/b"),
        ("a%252Cb,c", "a%2Cb,c"),
        ("%C3%A9%20x", "é x"),
        ("history", "history"),
        ("a%2F", "a/"),
    ],
)
async def test_an_item_id_arrives_as_it_was_meant(doors: Doors, raw: str, item: str) -> None:
    key = await doors.key()
    answer = await doors.ask("DELETE", f"/api/bulk/receipts/items/{raw}", key=key)
    assert answer.status == 202
    asked = doors.service.asked[0]
    assert asked[:1] + asked[2:4] == ("start", "receipts", "delete")
    assert asked[4].ids == [item]


def test_patterns_match_segment_by_segment() -> None:
    pattern = ["api", "jobs", "{job}"]
    assert match_segments(pattern, [b"api", b"jobs", b"J"]) == {"job": "J"}
    assert match_segments(pattern, [b"api", b"jobs"]) is None
    assert match_segments(pattern, [b"api", b"jobs", b""]) is None
    assert match_segments(pattern, [b"api", b"jobs", b"J", b"x"]) is None
    assert match_segments(pattern, [b"api", b"jobs", b"\xff"]) is None


# --- starts ----------------------------------------------------------------------------------------------


async def test_a_start_is_202_with_its_place(doors: Doors) -> None:
    key = await doors.key()
    answer = await doors.ask(
        "POST", "/api/bulk/receipts/delete", key=key, json={"ids": ["1"], "confirm": "DELETE"}
    )
    assert answer.status == 202
    assert answer.header("location") == f"/api/jobs/{answer.json['id']}" == answer.json["links"]["self"]
    assert "rejected" not in answer.json


async def test_mounted_every_path_bears_the_prefix(doors: Doors) -> None:
    key = await doors.key()
    host = Starlette(routes=[Mount("/bulk", app=doors.app)])
    headers = [("authorization", f"Bearer {key}")]
    answer = await knock(host, "POST", "/bulk/api/bulk/receipts/delete", headers=headers, json={"ids": ["1"]})
    assert answer.status == 202
    assert answer.header("location") == f"/bulk/api/jobs/{answer.json['id']}" == answer.json["links"]["self"]
    doors.service.error = Refusal("JOB_ACTIVE", "x")
    answer = await knock(host, "POST", "/bulk/api/bulk/receipts/delete", headers=headers, json={"ids": ["1"]})
    assert answer.json["type"] == "/bulk/docs#JOB_ACTIVE"
    answer = await knock(host, "PUT", "/bulk/api/tickets", headers=headers)
    assert answer.code == "METHOD_NOT_ALLOWED"
    document = await knock(host, "GET", "/bulk/openapi.json", headers=headers)
    assert document.json["servers"] == [{"url": "/bulk"}]


async def test_delete_of_one_item_waits_where_that_is_preferred(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await doors.key()
    target = "/api/bulk/receipts/items/7"
    plain = await doors.ask("DELETE", target, key=key)
    assert (plain.status, plain.header("preference-applied")) == (202, None)
    waited = await doors.ask("DELETE", target, key=key, headers=[("prefer", "respond-async, wait=5")])
    assert (waited.status, waited.header("preference-applied")) == (202, "wait=5")
    assert doors.service.asked[-1][3] == 5

    original = doors.service.job

    async def ended(*args: Any, **kwargs: Any) -> Any:
        view = await original(*args, **kwargs)
        return job_view(view.id, status="completed", terminal=True)

    monkeypatch.setattr(doors.service, "job", ended)
    done = await doors.ask("DELETE", target, key=key, headers=[("prefer", "wait=5")])
    assert (done.status, done.json["status"]) == (200, "completed")
    assert done.header("location") == f"/api/jobs/{done.json['id']}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=5", 5),
        ('wait="5"', 5),
        ("WAIT=5", 5),
        ("a=1; b, wait=9999", 60),
        ("await=5", 0),
    ],
)
def test_a_preference_is_read_and_bounded(header: str | None, seconds: int) -> None:
    assert bulk.preferred_wait_s(header) == seconds


async def test_delete_of_one_item_takes_its_word_from_query_or_body(doors: Doors) -> None:
    key = await doors.key()
    target = "/api/bulk/receipts/items/7"
    await doors.ask("DELETE", f"{target}?confirm=DELETE", key=key)
    await doors.ask("DELETE", target, key=key, json={"confirm": "DELETE", "options": {"hard": True}})
    assert [each[4].confirm for each in doors.service.asked] == ["DELETE", "DELETE"]
    assert doors.service.asked[1][4].options == {"hard": True}
    both = await doors.ask("DELETE", f"{target}?confirm=A", key=key, json={"confirm": "B"})
    assert both.status == 422
    assert (await doors.ask("DELETE", target, key=key, json={"ids": ["1"]})).status == 422


async def test_while_shutting_down_nothing_new_is_taken_and_the_rest_answers(doors: Doors) -> None:
    key = await doors.key(role="owner", tenant=None)
    doors.service.views["J"] = job_view("J", tenant="acme")
    doors.draining.set()
    for operation in SERVED:
        if operation.makes_work:
            answer = await doors.ask(operation.method, _target(operation), key=key)
            assert (answer.status, answer.code) == (503, "DRAINING")
            assert int(answer.header("retry-after") or "0") > 0
    assert (await doors.ask("GET", "/api/jobs/J", key=key)).status == 200
    assert (await doors.ask("POST", "/api/jobs/J/cancel", key=key)).status == 200
    assert (await doors.ask("GET", "/healthz")).json == {"status": "degraded"}
    assert (await doors.ask("GET", "/readyz", key=key)).status == 503


@pytest.mark.parametrize(
    ("method", "target", "asked"),
    [
        ("POST", "/api/jobs/J/pause", ("pause", "J")),
        ("POST", "/api/jobs/J/resume", ("resume", "J")),
        ("POST", "/api/jobs/J/cancel", ("cancel", "J", {"force": False})),
    ],
)
async def test_verbs_take_no_body_or_an_empty_one(
    doors: Doors, method: str, target: str, asked: tuple[Any, ...]
) -> None:
    key = await doors.key()
    doors.service.views["J"] = job_view("J", tenant="acme")
    bodies: tuple[dict[str, str] | None, ...] = (None, {})
    for json in bodies:
        assert (await doors.ask(method, target, key=key, json=json)).status == 200
        name, _, *rest = doors.service.asked[-1]
        assert (name, *[each for each in rest if each != {}]) == asked
    assert (await doors.ask(method, target, key=key, json={"x": 1})).status == 422
    assert (await doors.ask(method, target, key=key, body=b"x")).status == 415


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_start_that_is_not_json_is_415(doors: Doors, content_type: str | None) -> None:
    key = await doors.key()
    headers = [] if content_type is None else [("content-type", content_type)]
    answer = await doors.ask(
        "POST", "/api/bulk/receipts/delete", key=key, headers=headers, body=b'{"all":true}'
    )
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    zipped = [("content-type", "application/json"), ("content-encoding", "gzip")]
    answer = await doors.ask("POST", "/api/bulk/receipts/delete", key=key, headers=zipped, body=b"\x1f\x8b")
    assert answer.status == 415


async def test_a_start_without_a_body_is_no_start(doors: Doors) -> None:
    key = await doors.key()
    json_type = [("content-type", "application/json")]
    answer = await doors.ask("POST", "/api/bulk/receipts/delete", key=key, headers=json_type)
    assert (answer.status, answer.code) == (400, "INVALID_JSON")


# --- queries ---------------------------------------------------------------------------------------------


async def test_browsing_reads_columns_from_the_query(doors: Doors) -> None:
    key = await doors.key()
    query = "status=closed&created_at.lt=2026-01-01&q=caf%C3%A9&sort=-created_at&deleted=true&limit=7"
    assert (await doors.ask("GET", f"/api/bulk/receipts/items?{query}", key=key)).status == 200
    assert doors.service.asked[0][3] == ItemsQuery(
        filter={"status": {"eq": "closed"}, "created_at": {"lt": "2026-01-01"}},
        q="café",
        sort="-created_at",
        deleted=True,
        limit=7,
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"a=1&a=2&a=3", {"a": {"in": ["1", "2", "3"]}}),
        (b"a.in=x,y", {"a": {"in": ["x", "y"]}}),
        (b"a.is_null=true&b.is_null=false", {"a": {"is_null": True}, "b": {"is_null": False}}),
        (b"a.gte=1&a.lt=9", {"a": {"gte": "1", "lt": "9"}}),
        (b"limit.eq=5", {"limit": {"eq": "5"}}),
        (b"Total+Sum.gt=5", {"Total Sum": {"gt": "5"}}),
        (b"a.b=1", {"a.b": {"eq": "1"}}),
        (b"a=", {"a": {"eq": ""}}),
        (b"x' OR 1=1 --".replace(b" ", b"+"), {"x' OR 1": {"eq": "1 --"}}),
    ],
)
def test_columns_and_operators_are_told_apart(query: bytes, expected: dict[str, Any]) -> None:
    assert queries.parse_items(query).filter == expected


@pytest.mark.parametrize(
    "query",
    [b"limit=0", b"limit=1001", b"limit=x", b"limit=", b"limit=1&limit=2", b"deleted=maybe", b"a.is_null=2",
     b"a.lt=1&a.lt=2", b"q=%ff", b"q=%00", b"q=\xff", b"&".join([b"a=1"] * 101)],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(query: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        queries.parse_items(query)
    assert refused.value.code == "INVALID_FIELD"


async def test_lists_of_jobs_read_their_query(doors: Doors) -> None:
    key = await doors.key()
    query = "status=running,paused&resource=receipts&show_maintenance=true&limit=5&task_id=T"
    await doors.ask("GET", f"/api/jobs?{query}", key=key)
    assert doors.service.asked[0][2] == JobsQuery(
        status="running,paused", resource="receipts", show_maintenance=True, limit=5, task_id="T"
    )
    for bad in ("limit=1001", "limit=-1", "limit=1.5", "show_maintenance=perhaps", "task_id=a&task_id=b"):
        assert (await doors.ask("GET", f"/api/jobs?{bad}", key=key)).status == 422


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("wait=0", 200),
        ("wait=30", 200),
        ("wait=61", 200),
        ("wait=-1", 422),
        ("wait=nan", 422),
        ("wait=inf", 422),
        ("wait=x", 422),
    ],
)
async def test_waiting_for_a_job_is_bounded(doors: Doors, query: str, status: int) -> None:
    key = await doors.key()
    doors.service.views["J"] = job_view("J", tenant="acme")
    assert (await doors.ask("GET", f"/api/jobs/J?{query}", key=key)).status == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("batch_size=1000&max_attempts=5", 200),
        ("batch_size=1001", 422),
        ("batch_size=0", 422),
        ("max_attempts=0", 422),
    ],
)
async def test_cleanup_runs_are_bounded(doors: Doors, query: str, status: int) -> None:
    admin = await doors.key(role="admin")
    assert (await doors.ask("POST", f"/api/cleanup/run?{query}", key=admin, json={})).status == status


@pytest.mark.parametrize("entry", ["x", "-1", "1e3", "\uff19", "1" * 30, "%20"])
async def test_cleanup_entries_are_numbers(doors: Doors, entry: str) -> None:
    admin = await doors.key(role="admin")
    target = f"/api/cleanup/items/{quote(entry, safe='%')}"
    assert (await doors.ask("DELETE", target, key=admin)).status == 404
    assert doors.service.asked == []


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/*;q=0.1", 200),
        ("text/html, application/xhtml+xml, */*;q=0.8", 200),
        ("", 200),
        ("text/html", 406),
        ("text/event-stream", 406),
        ("application/json;q=0", 406),
        ("application/json; q=0.0, text/html", 406),
    ],
)
async def test_what_the_client_cannot_read_is_406(doors: Doors, accept: str, status: int) -> None:
    key = await doors.key()
    assert (await doors.ask("GET", "/api/jobs", key=key, headers=[("accept", accept)])).status == status


# --- uploads and downloads -------------------------------------------------------------------------------

UPLOADS = {
    "ndjson": ("application/x-ndjson", b'"a"\n1\n"c d"\n\n"e"', ["a", "1", "c d", "e"]),
    "ndjson, CRLF": ("application/x-ndjson; charset=utf-8", b'"a"\r\n"b"\r\n', ["a", "b"]),
    "plain": ("text/plain", b"a\nb\r\n\n c \n", ["a", "b", " c "]),
    "plain, BOM": ("text/plain", b"\xef\xbb\xbfa\n", ["a"]),
    "ndjson, objects": ("application/ndjson", b'{"id": "a", "outcome": "failed"}\n{"id": 1}\n', ["a", "1"]),
    "csv": ("text/csv", b"a\nb\n", ["a", "b"]),
    "csv, parts of keys": ("text/csv", b"1,3402\n1,3403\n", ["1,3402", "1,3403"]),
    "csv, id in another column": ("text/csv", b"name,id\nx,7\ny\n", ["7"]),
    "csv with header": ("text/csv; header=present", b"ID,name\r\n7,x\r\n", ["7"]),
    "csv, quoted": ("text/csv", b'id\n"a,""b"""\n"c\nd",x\n', ['a,"b"', "c\nd"]),
    "csv, BOM and header": ("text/csv", b"\xef\xbb\xbfid\n=1+1\n", ["=1+1"]),
    "an id named like a header later": ("text/csv", b"a\nid\n", ["a", "id"]),
    "empty": ("text/plain", b"", []),
    "no last line end": ("text/csv", b"a\nb", ["a", "b"]),
}


@pytest.mark.parametrize(("content_type", "body", "ids"), UPLOADS.values(), ids=list(UPLOADS))
async def test_uploads_are_read_in_any_pieces(
    doors: Doors, content_type: str, body: bytes, ids: list[str]
) -> None:
    key = await doors.key()
    for size in (1, 2, 3, 1000):
        pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        headers = [("content-type", content_type)]
        answer = await doors.ask("POST", "/api/selections", key=key, headers=headers, body=pieces)
        assert (answer.status, answer.json["count"]) == (201, len(ids))
        assert [item for page in doors.service.asked[-1][2] for item in page] == ids


async def test_a_long_upload_comes_in_pages(doors: Doors) -> None:
    key = await doors.key()
    body = b"".join(b"%d\n" % number for number in range(2500))
    await doors.ask("POST", "/api/selections", key=key, headers=[("content-type", "text/plain")], body=[body])
    pages = doors.service.asked[-1][2]
    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert pages[2][-1] == "2499"


BAD_UPLOADS = {
    "boolean": ("application/x-ndjson", b'"a"\ntrue\n', 422, "/1"),
    "float": ("application/x-ndjson", b"1.0\n", 422, "/0"),
    "null": ("application/x-ndjson", b"1\n2\nnull\n", 422, "/2"),
    "object": ("application/x-ndjson", b'{"name": 1}\n', 422, "/0"),
    "object with a bad id": ("application/x-ndjson", b'{"id": 1}\n{"id": true}\n', 422, "/1"),
    "no JSON": ("application/x-ndjson", b"abc\n", 400, None),
    "lone surrogate": ("application/x-ndjson", b'"\\ud800"\n', 400, None),
    "huge integer": ("application/x-ndjson", b"9" * 5000, 400, None),
    "invalid UTF-8": ("text/plain", b"a\n\xff\n", 400, None),
    "cut UTF-8": ("text/plain", b"a\n\xc3", 400, None),
    "long line": ("text/plain", b"a\n" + b"x" * 9000 + b"\n", 422, "/1"),
    "long last line": ("text/plain", b"x" * 100_000, 422, "/0"),
    "quote without end": ("text/csv", b'"' + b"a\n" * 5000, 422, "/0"),
    "bad quotes": ("text/csv", b'"a"b,c\n', 422, "/0"),
    "NUL": ("text/plain", b"a\x00b\n", 422, "/0"),
}


@pytest.mark.parametrize(
    ("content_type", "body", "status", "pointer"), BAD_UPLOADS.values(), ids=list(BAD_UPLOADS)
)
async def test_a_bad_line_is_named(
    doors: Doors, content_type: str, body: bytes, status: int, pointer: str | None
) -> None:
    key = await doors.key()
    answer = await doors.ask(
        "POST", "/api/selections", key=key, headers=[("content-type", content_type)], body=body
    )
    assert answer.status == status
    if pointer is not None:
        assert answer.json["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "text/html", "text/csv; charset=latin-1"]
)
def test_uploads_of_another_type_are_refused(content_type: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        uploads.reader_of(content_type)
    assert refused.value.status == 415


async def test_a_report_is_a_file_and_a_refusal_comes_before_its_first_byte(doors: Doors) -> None:
    key = await doors.key()
    doors.service.views["J"] = job_view("J", tenant="acme")
    answer = await doors.ask("GET", "/api/jobs/J/report?format=csv&outcome=failed", key=key)
    assert answer.body == b"id,outcome\r\n1,failed\r\n"
    assert answer.header("content-type") == "text/csv; charset=utf-8"
    assert answer.header("content-disposition") == 'attachment; filename="job-J-failed.csv"'
    missing = await doors.ask("GET", "/api/jobs/X/report", key=key)
    assert (missing.status, missing.code) == (404, "NOT_FOUND")
    for bad in ("format=html", "outcome=all"):
        assert (await doors.ask("GET", f"/api/jobs/J/report?{bad}", key=key)).status == 422


@pytest.mark.parametrize(
    "name",
    [
        'a".html"',
        "a\r\nSet-Cookie: x",
        "a;filename=evil.exe",
        "\u202egpj.exe",
        "../../etc/passwd",
        "é",
        "x" * 500,
    ],
)
def test_a_file_name_can_say_nothing_else(name: str) -> None:
    assert re.fullmatch(r'attachment; filename="[A-Za-z0-9._-]{1,120}"', streaming.disposition(name))


# --- the house -------------------------------------------------------------------------------------------


async def test_health_is_open_and_says_one_word(doors: Doors) -> None:
    answer = await doors.ask("GET", "/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_a_database_that_does_not_answer_is_no_good_health(doors: Doors) -> None:
    await doors.store.close()
    assert (await doors.ask("GET", "/healthz")).json == {"status": "degraded"}


async def test_metrics_count_and_name_nobody(doors: Doors) -> None:
    key = await doors.key(user="canary-user", tenant="canary-tenant")
    answer = await doors.ask("GET", "/metrics", key=key)
    text = answer.body.decode()
    assert answer.status == 200
    assert 'bulkops_jobs{status="running"} 0.0' in text
    for name in ("items", "deletions", "queue_depth", "event_log_head", "sockets", "event_loop_lag_seconds"):
        assert f"bulkops_{name}" in text
    assert "canary" not in text
    assert "python_info" not in text


async def test_files_come_from_a_list_made_once(tmp_path: Path) -> None:
    for name in ("index.html", "app.js", ".hidden", "app.js.map", "sub/style.css", "sub/.git/config"):
        path = tmp_path / "static" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "static" / "link").symlink_to(tmp_path / "secret")
    assert list(static_files.list_files(tmp_path / "static")) == ["app.js", "index.html", "sub/style.css"]
    assert static_files.list_files(tmp_path / "nowhere") == {}


@pytest.fixture
def page(doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The application over a folder with two files."""
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "index.html").write_text("<!doctype html>")
    (tmp_path / "static" / "app.js").write_text("export {}")
    monkeypatch.setattr(static_files, "static_dir", lambda: tmp_path / "static")
    return build_app(doors)


async def test_the_page_and_its_files_are_open(page: Any) -> None:
    index = await knock(page, "GET", "/")
    assert (index.status, index.header("content-type")) == (200, "text/html; charset=utf-8")
    assert "frame-ancestors 'none'" in (index.header("content-security-policy") or "")
    script = await knock(page, "GET", "/static/app.js")
    assert (script.body, script.header("content-type")) == (b"export {}", "text/javascript; charset=utf-8")
    same = await knock(
        page, "GET", "/static/app.js", headers=[("if-none-match", script.header("etag") or "")]
    )
    assert (same.status, same.body) == (304, b"")
    head = await knock(page, "HEAD", "/static/app.js")
    assert (head.body, head.header("content-length")) == (b"", "9")
    assert (await knock(page, "POST", "/static/app.js")).status == 405
    assert (await knock(page, "GET", "/bulk/static/app.js")).status == 404
    assert (await knock(page, "GET", "/static/app.js", root_path="/bulk")).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/static",
        "/static/",
        "/static/../bulkops.db",
        "/static/..%2fbulkops.db",
        "/static/%2e%2e/bulkops.db",
        "/static/..\\bulkops.db",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/.git/config",
        "/static/app.js.map",
        "/static/app.js%00",
        "/static/APP.JS",
        "/static/app.js/",
        "/static/\\\\host\\share",
        "/static/C:\\x",
        "/index.html",
    ],
)
async def test_no_other_file_exists(page: Any, target: str) -> None:
    answer = await knock(page, "GET", target)
    assert answer.status == (200 if target == "/static/app.js/" else 404)


@pytest.mark.parametrize(
    "path", ["/api/jobs", "/api/events", "/api/jobs/J/events", "/api/tickets", "/api/events/"]
)
async def test_every_path_says_what_it_takes(doors: Doors, path: str) -> None:
    answer = await doors.ask("OPTIONS", path)
    assert answer.status == 204
    assert "OPTIONS" in (answer.header("allow") or "")
    refused = await doors.ask("PUT", "/api/jobs", key=await doors.key())
    assert refused.json["detail"] == "this path takes GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "text/csv"),
        ("*/*", "text/csv"),
        ("text/csv, application/x-ndjson", "text/csv"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/csv;q=0, application/x-ndjson", "application/x-ndjson"),
    ],
)
async def test_a_report_without_a_format_comes_as_the_client_accepts_it(
    doors: Doors, accept: str | None, media: str
) -> None:
    key = await doors.key()
    doors.service.views["J"] = job_view("J", tenant="acme")
    headers = [] if accept is None else [("accept", accept)]
    answer = await doors.ask("GET", "/api/jobs/J/report", key=key, headers=headers)
    assert (answer.header("content-type") or "").startswith(media)


async def test_resources_and_keys_are_paged_as_every_list(doors: Doors) -> None:
    key = await doors.key(role="owner", tenant=None)
    whole = await doors.ask("GET", "/api/resources", key=key)
    assert whole.json["next"] is None
    for path in ("/api/resources", "/api/keys"):
        for query in ("page=zzz", "limit=0", "limit=1001"):
            refused = await doors.ask("GET", f"{path}?{query}", key=key)
            assert (refused.status, refused.code) == (422, "INVALID_FIELD"), (path, query)
        answer = await doors.ask("GET", f"{path}?limit=1", key=key)
        seen = answer.json["items"]
        while answer.json["next"] is not None:
            answer = await doors.ask("GET", f"{path}?limit=1&page={answer.json['next']}", key=key)
            seen += answer.json["items"]
        assert seen == (await doors.ask("GET", path, key=key)).json["items"]


async def test_several_statuses_stand_in_one_parameter_or_in_many(doors: Doors) -> None:
    key = await doors.key()
    for query in ("status=paused,failed", "status=paused&status=failed"):
        assert (await doors.ask("GET", f"/api/jobs?{query}", key=key)).status == 200
        assert doors.service.asked[-1][2].status == "paused,failed"
    assert (await doors.ask("GET", "/api/jobs?resource=a&resource=b", key=key)).status == 422


async def test_a_condition_on_a_column_may_be_written_as_people_do(doors: Doors) -> None:
    key = await doors.key()
    target = "/api/bulk/receipts/items?s.in=a,b&s.in=c&n.is_null=1&m.is_null=false"
    assert (await doors.ask("GET", target, key=key)).status == 200
    asked = doors.service.asked[-1][-1].filter
    assert asked == {"s": {"in": ["a", "b", "c"]}, "n": {"is_null": True}, "m": {"is_null": False}}
