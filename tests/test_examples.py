"""A whole application that mounts bulkops: its own people, its own action, progress as its page would follow it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from bulkops import Batch, Bulkops, Caller
from tests.hosting import ask, change, make_database, served

CONFIG = """
[resources.sessions]
kind = "table"
database = "app.db"
table = "sessions"
id = "id"
tenant = "business"
label = "title"
soft_delete = "deleted"
status = { column = "status", closed = "closed", busy = ["processing"] }
search = ["status", "title"]
"""


class ProviderError(Exception):
    """What the client of somebody's summarising service raises."""


async def ask_provider(text: str, *, words: int, idempotency_key: str) -> str:
    if not text:
        raise ProviderError("there is nothing to summarise")
    return f"{text} in {words} words ({idempotency_key})"


def make_app(folder: Path) -> Starlette:
    # The application's own people and their sessions, whatever keeps them.
    people = {"ana": ("acme", "admin"), "ben": ("acme", "viewer"), "zoe": ("zeta", "owner")}
    sessions: dict[str, str] = {}

    async def login(request: Request) -> Response:
        user = (await request.json())["user"]
        if user not in people:
            return JSONResponse({"error": "who?"}, 403)
        token = secrets.token_urlsafe()
        sessions[token] = user
        response = JSONResponse({"user": user})
        response.set_cookie("session", token, httponly=True, samesite="strict")
        return response

    def who_asks(connection: HTTPConnection) -> Caller | None:
        user = sessions.get(connection.cookies.get("session", ""))
        if user is None:
            return None
        business, role = people[user]
        return Caller(user=user, tenant=business, roles=frozenset({role}))

    bulk = Bulkops.from_file(folder / "bulkops.toml", authenticate=who_asks)

    @bulk.action(
        "sessions",
        "summarise",
        batch_size=5,
        timeout_s=60,
        options={
            "words": {"type": "integer", "minimum": 10, "default": 50, "title": "At most so many words"}
        },
    )
    async def summarise(batch: Batch) -> None:
        for item in batch:
            try:
                summary = await ask_provider(
                    item.row["title"], words=batch.options["words"], idempotency_key=f"{batch.key}-{item.id}"
                )
            except ProviderError as error:
                batch.fail(item, "PROVIDER", str(error))
            else:
                change(folder, "UPDATE sessions SET summary = ? WHERE id = ?", summary, item.id)

    async def nightly(_: Request) -> Response:
        job = await bulk.start("sessions", "summarise", filter={"status": "open"}, tenant="zeta", user="cron")
        return JSONResponse({"job": job.id}, 202)

    return Starlette(
        routes=[
            Route("/login", login, methods=["POST"]),
            Route("/nightly", nightly, methods=["POST"]),
            Mount("/bulk", bulk.app),
        ],
        lifespan=bulk.lifespan,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_database(tmp_path)
    (tmp_path / "bulkops.toml").write_text(CONFIG, encoding="utf-8")
    change(tmp_path, "UPDATE sessions SET title = '' WHERE id IN (3, 8)")
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with served(make_app(folder)) as url:
        yield url


@contextmanager
def logged_in(url: str, user: str) -> Iterator[httpx.Client]:
    """Do what a browser does: keep the cookie, send the page's origin."""
    with httpx.Client(base_url=url, headers={"origin": url}, timeout=20) as client:
        assert client.post("/login", json={"user": user}).status_code == 200
        yield client


def follow(client: httpx.Client, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a stream of server-sent events to its end."""
    kind = ""
    with client.stream("GET", path, headers={"accept": "text/event-stream"}) as stream:
        assert stream.status_code == 200
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))


def test_a_person_of_the_host_starts_the_hosts_action_and_follows_it(url: str, folder: Path) -> None:
    with logged_in(url, "ana") as ana:
        body = {"filter": {"status": "open"}, "options": {"words": 20}}
        preview = ana.post("/bulk/api/bulk/sessions/validate", json={"action": "summarise", **body}).json()
        assert (preview["matched"], preview["warnings"][0]["code"]) == (15, "FINAL")
        answer = ana.post("/bulk/api/bulk/sessions/summarise", json=body)
        assert answer.status_code == 202, answer.text
        job = answer.json()
        events = list(follow(ana, f"{job['links']['events']}?since=earliest"))
        kinds = [kind for kind, _ in events]
        assert kinds[0] == "ready"
        assert kinds[-1] == "end"
        done = next(event["data"] for kind, event in events if kind == "completed")
        assert (done["total"], done["succeeded"], done["failed"], done["outcome"]) == (15, 14, 1, "partial")
        (error,) = ana.get(f"/bulk/api/jobs/{job['id']}/errors").json()["items"]
        assert (error["code"], error["first_item"], error["sample_message"]) == (
            "PROVIDER",
            "3",
            "there is nothing to summarise",
        )
    assert ask(folder, "SELECT count(*) FROM sessions WHERE summary LIKE 'Session % in 20 words (%)'") == [
        (14,)
    ]
    assert ask(folder, "SELECT count(*) FROM sessions WHERE summary IS NOT NULL AND business = 'zeta'") == [
        (0,)
    ]


def test_roles_and_tenants_of_the_host_hold(url: str) -> None:
    with logged_in(url, "ben") as ben, logged_in(url, "zoe") as zoe, httpx.Client(base_url=url) as stranger:
        assert ben.post("/bulk/api/bulk/sessions/summarise", json={"ids": [1]}).status_code == 403
        assert stranger.get("/bulk/api/resources").status_code == 401
        job = zoe.post("/bulk/api/bulk/sessions/summarise", json={"ids": [2, 3]}).json()
        assert [each["id"] for each in job["rejected"]] == ["3"], "it is acme's"
        assert ben.get(job["links"]["self"]).status_code == 404


def test_another_page_cannot_ride_on_the_hosts_cookie(url: str) -> None:
    with logged_in(url, "ana") as ana:
        for headers in ({"origin": "https://elsewhere.example"}, {"origin": "null"}):
            answer = ana.post("/bulk/api/bulk/sessions/delete", json={"ids": [1]}, headers=headers)
            assert answer.status_code == 403


def test_the_host_starts_jobs_of_its_own_and_its_people_see_them(url: str) -> None:
    with logged_in(url, "zoe") as zoe:
        job_id = zoe.post("/nightly").json()["job"]
        job = zoe.get(f"/bulk/api/jobs/{job_id}", params={"wait": 20}).json()
        assert (job["requested_by"], job["succeeded"], job["failed"]) == ("cron", 14, 1)
