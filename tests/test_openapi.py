"""The OpenAPI document and the reference page: valid, complete, and of one mind with the server."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from bulkops.configuration import from_dict
from bulkops.errors import REFUSALS
from bulkops.runtime import open_runtime
from bulkops.store.credentials import create_key
from bulkops.web import openapi, reference
from bulkops.web.app import OPERATIONS, build_app
from bulkops.web.routing import Operation
from tests.doors import Answer, Doors, knock

DOCUMENT = openapi.document(OPERATIONS, "")


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return described


def test_the_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


async def test_the_served_document_is_the_one_made_here(doors: Doors) -> None:
    key = await doors.key(role="viewer")
    assert (await doors.ask("GET", "/openapi.json", key=key)).json == DOCUMENT
    assert (await doors.ask("GET", "/openapi.json")).status == 401
    assert (await doors.ask("GET", "/docs")).status == 401


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [each.name for each in OPERATIONS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", name) for name in names)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_every_operation_says_whom_it_lets_in_and_how_it_refuses(operation: Operation) -> None:
    described = _described(operation)
    assert (described["security"] == []) is (operation.role == "public")
    documented = {int(status) for status in described["responses"]}
    assert set(operation.answers) <= documented
    assert {REFUSALS[code][0] for code in openapi.codes_of(operation)} <= documented
    for status, response in described["responses"].items():
        if int(status) >= 400:
            assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_every_parameter_of_a_path_is_described(operation: Operation) -> None:
    described = {each["name"] for each in _described(operation)["parameters"] if each["in"] == "path"}
    assert described == set(re.findall(r"\{(\w+)\}", operation.path))


def test_every_code_of_the_contract_is_documented_somewhere_but_those_of_routes_to_come() -> None:
    documented = {code for each in OPERATIONS for code in openapi.codes_of(each)}
    assert set(REFUSALS) - documented == {"METHOD_NOT_ALLOWED"}


def test_input_shapes_forbid_unknown_fields() -> None:
    for operation in OPERATIONS:
        if operation.body is not None:
            schema = DOCUMENT["components"]["schemas"][operation.body.__name__]
            assert schema["additionalProperties"] is False, operation.name


def test_no_parameter_is_nullable() -> None:
    for operation in OPERATIONS:
        for parameter in _described(operation)["parameters"]:
            assert "null" not in str(parameter["schema"]), (operation.name, parameter)
            assert parameter["schema"].get("default", "") is not None


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.handler], ids=lambda each: each.name
)
async def test_what_the_document_describes_is_served(doors: Doors, operation: Operation) -> None:
    key = await doors.key(role="viewer")
    target = re.sub(r"\{\w+\}", "1", operation.path)
    answer = await doors.ask(operation.method, target, key=key)
    assert str(answer.status) in _described(operation)["responses"]


# --- what a real house answers ---------------------------------------------------------------------------


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Any]:
    """The application over a whole runtime whose one resource has five rows."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.executescript(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, state TEXT, deleted INTEGER NOT NULL DEFAULT 0);"
            "INSERT INTO notes (title, state) VALUES ('a', 'open'), ('b', 'open'), ('c', 'busy'), ('d', NULL)"
        )
    resource = {
        "kind": "table",
        "database": "app.db",
        "table": "notes",
        "id": "id",
        "label": "title",
        "soft_delete": "deleted",
        "status": {"column": "state", "busy": ["busy"]},
        "search": ["title", "state"],
    }
    settings = from_dict(
        {"server": {"workers": 1, "webhook_hosts": ["127.0.0.1:9"]}, "resources": {"notes": resource}},
        tmp_path,
        {},
    )
    async with open_runtime(settings) as runtime:
        yield runtime


def _check_shape(operation: Operation, answer: Answer) -> None:
    """Hold an answer to what the document says of it."""
    response = _described(operation)["responses"][str(answer.status)]
    media = (answer.header("content-type") or "").partition(";")[0]
    if "content" not in response:
        assert answer.body == b""
        return
    schema = response["content"][media]["schema"]
    if media in {"application/json", "application/problem+json"}:
        whole = {**schema, "components": DOCUMENT["components"]}
        errors = list(Draft202012Validator(whole).iter_errors(answer.json))
        assert errors == [], (operation.name, errors)


async def test_what_a_real_house_answers_is_what_the_document_says(house: Any) -> None:
    owner = {"authorization": "Bearer " + "x" * 43}
    await house.credentials.install_local("x" * 43)
    service = (await house.store.write(lambda tx: create_key(tx, user="backend", role="service")))[1]
    app = build_app(house)
    seen: set[str] = set()

    async def ask(name: str, status: int, query: str = "", *, key: str | None = None, **more: Any) -> Answer:
        operation = next(each for each in OPERATIONS if each.name == name)
        places = {
            each: more.pop(each)
            for each in (
                *("job", "resource", "item", "action", "task", "entry"),
                *("schedule", "webhook", "delivery", "artifact"),
            )
            if each in more
        }
        headers = [("authorization", f"Bearer {key}")] if key else list(owner.items())
        target = operation.path.format(**{"resource": "notes", **places}) + query
        answer = await knock(
            app, operation.method, target, headers=[*headers, *more.pop("headers", [])], **more
        )
        assert answer.status == status, (name, answer)
        _check_shape(operation, answer)
        seen.add(name)
        return answer

    await ask("listResources", 200)
    await ask("getResourceInfo", 200)
    assert len((await ask("listItems", 200, "?state=open&sort=-title")).json["items"]) == 2
    await ask("validate", 200, json={"action": "delete", "ids": ["1", "3"]})
    started = await ask(
        "startJob",
        202,
        action="delete",
        json={"ids": ["1", "2", "3", "9"]},
        headers=[("idempotency-key", "k")],
    )
    again = await ask(
        "startJob",
        202,
        action="delete",
        json={"ids": ["1", "2", "3", "9"]},
        headers=[("idempotency-key", "k")],
    )
    assert started.body == again.body
    job = started.json["id"]
    done = await ask("getJob", 200, "?wait=20", job=job)
    assert (done.json["status"], done.json["succeeded"]) == ("completed", 2)
    await ask("listJobs", 200)
    await ask("listJobItems", 200, job=job)
    await ask("listJobErrors", 200, job=job)
    await ask("getJobLog", 200, job=job)
    report = await ask("getJobReport", 200, "?format=csv&outcome=succeeded", job=job)
    assert report.body == b"id,outcome,code,message\r\n1,succeeded,,\r\n2,succeeded,,\r\n"
    await ask("listItemHistory", 200, item="1")
    await ask("listTrash", 200)
    await ask("pauseJob", 409, job=job)
    await ask("resumeJob", 409, job=job)
    await ask("tuneJob", 409, job=job, json={"priority": 5})
    await ask("retryJob", 409, job=job)
    await ask("cancelJob", 409, job=job, json={})
    undone = await ask("undoJob", 202, job=job)
    await ask("getJob", 200, "?wait=20", job=undone.json["id"])
    removed = await ask("removeItem", 200, item="4", headers=[("prefer", "wait=20")])
    assert removed.json["succeeded"] == 1
    await ask("uploadSelection", 201, body=b"1\n2\n", headers=[("content-type", "text/plain")])
    exported = await ask("startJob", 202, action="export", json={"all": True, "options": {"format": "csv"}})
    ended = await ask("getJob", 200, "?wait=30", job=exported.json["id"])
    (made_file,) = ended.json["artifacts"]
    await ask("getArtifact", 200, artifact=made_file["id"])
    await ask("downloadArtifact", 200, artifact=made_file["id"])
    await ask("listTasks", 200)
    await ask("getTask", 404, task="nothing")
    await ask("startTask", 404, task="nothing", json={"project": "summer"})
    await ask("runCleanup", 200)
    await ask("getCleanupStats", 200)
    await ask("listCleanupItems", 200)
    await ask("requeueCleanupItem", 404, entry="1")
    await ask("dropCleanupItem", 404, entry="1")
    plan = {"name": "nightly", "resource": "notes", "action": "restore", "all": True, "cron": "0 3 * * *"}
    schedule = (await ask("createSchedule", 201, json=plan)).json["id"]
    ran = await ask("runSchedule", 202, schedule=schedule, headers=[("idempotency-key", "once")])
    again = await ask("runSchedule", 202, schedule=schedule, headers=[("idempotency-key", "once")])
    assert ran.body == again.body
    assert len((await ask("listSchedules", 200)).json["items"]) == 3
    await ask("deleteSchedule", 204, schedule=schedule)
    await ask("deleteSchedule", 409, schedule="maintenance.nightly")
    hook = await ask("createWebhook", 201, json={"url": "http://127.0.0.1:9/", "events": ["failed"]})
    webhook = hook.json["id"]
    letter = await ask("testWebhook", 202, webhook=webhook)
    await ask("listDeliveries", 200, webhook=webhook)
    await ask("resendDelivery", 200, webhook=webhook, delivery=letter.json["id"])
    await ask("listWebhooks", 200)
    await ask("deleteWebhook", 204, webhook=webhook)
    await ask("getMe", 200)
    made = await ask("createKey", 201, json={"user": "ana", "role": "admin", "name": "ci"})
    await ask("listKeys", 200)
    await ask("startSession", 200, json={"key": made.json["key"]})
    await ask("endSession", 204)
    await ask("createToken", 201, key=service, json={"user": "bo", "roles": ["viewer"]})
    revoke = next(each for each in OPERATIONS if each.name == "revokeKey")
    gone = await knock(app, "DELETE", f"/api/keys/{made.json['id']}", headers=list(owner.items()))
    _check_shape(revoke, gone)
    await ask("readAudit", 200)
    for name in ("getHealth", "getReadiness", "getMetrics", "getOpenApi", "getReference"):
        await ask(name, 200)
    await ask("createTicket", 201)
    await ask("followEvents", 200, "?since=earliest")
    assert {each.name for each in OPERATIONS} - seen == {"revokeKey", "followJob"}


class _Page(HTMLParser):
    """Collects what a page is made of, and sees that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id" and value:
                self.ids.append(value)
            if name == "href" and value:
                self.links.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _read(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_the_page_is_whole_html_without_script_or_anything_from_elsewhere() -> None:
    page = _read(reference.page(DOCUMENT))
    assert not page.tags & {"script", "img", "iframe", "link", "object", "embed", "form"}
    assert not [name for name in page.attributes if name.startswith("on") or name in {"src", "style"}]
    assert all(link.startswith("#") for link in page.links)


def test_every_link_of_the_page_has_its_target_and_every_target_one_name() -> None:
    page = _read(reference.page(DOCUMENT))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_code_has_the_anchor_that_problem_documents_link_to() -> None:
    assert set(REFUSALS) <= set(_read(reference.page(DOCUMENT)).ids)


def test_every_operation_stands_on_the_page() -> None:
    assert {each.name for each in OPERATIONS} <= set(_read(reference.page(DOCUMENT)).ids)


def test_text_of_the_document_is_text_on_the_page() -> None:
    hostile = {**DOCUMENT, "info": {**DOCUMENT["info"], "description": "<script>alert(1)</script>`<b>`"}}
    text = reference.page(hostile)
    assert "<script" not in text
    assert "<b>" not in text


async def test_the_pages_policy_allows_its_one_style_sheet_and_nothing_else(doors: Doors) -> None:
    key = await doors.key()
    answer = await doors.ask("GET", "/docs", key=key)
    policy = answer.header("content-security-policy") or ""
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]{44}'$", policy)
    assert "unsafe" not in policy
    assert [name for name, _ in answer.headers].count("content-security-policy") == 1
