"""Webhooks through the doors of a whole house: made, listed, told, tested, sent again, and whose they are."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkops.errors import Refusal
from bulkops.models import WebhookBody
from bulkops.runtime import Runtime
from bulkops.store import audit, credentials, webhooks
from bulkops.web.app import build_app
from tests.conftest import HandClock
from tests.doors import Answer, knock
from tests.endpoints import Endpoint, Received, an_endpoint, answer
from tests.engine_house import make_database, opened, run, until
from tests.store_house import a_caller

NOTES = {
    "table": "notes",
    "id": "id",
    "tenant": "team",
    "label": "title",
    "soft_delete": "deleted",
}
SCRIPT = """
CREATE TABLE notes (id INTEGER PRIMARY KEY, team TEXT, title TEXT, deleted INTEGER NOT NULL DEFAULT 0);
INSERT INTO notes (team, title) VALUES ('acme', 'canary-row'), ('acme', 'b'), ('other', 'c')
"""


class Callers:
    """The doors of a house, and keys of who knocks."""

    def __init__(self, house: Runtime) -> None:
        self.house = house
        self._app = build_app(house)
        self._keys: dict[tuple[str, str | None], str] = {}

    async def ask(
        self, method: str, path: str, *, role: str = "admin", tenant: str | None = "acme", **more: Any
    ) -> Answer:
        if (role, tenant) not in self._keys:
            made = await self.house.store.write(
                lambda tx: credentials.create_key(tx, user=f"{role}-{tenant}", tenant=tenant, role=role)
            )
            self._keys[role, tenant] = made[1]
        headers = [("authorization", f"Bearer {self._keys[role, tenant]}")]
        return await knock(self._app, method, path, headers=headers, **more)

    async def make(self, url: str, *events: str, **more: Any) -> Any:
        body = {"url": url, "events": list(events or webhooks.EVENTS)}
        made = await self.ask("POST", "/api/webhooks", json=body, **more)
        assert made.status == 201, made
        return made.json

    async def deliveries(self, webhook: str, query: str = "", **more: Any) -> list[Any]:
        found = await self.ask("GET", f"/api/webhooks/{webhook}/deliveries{query}", **more)
        assert found.status == 200, found
        items: list[Any] = found.json["items"]
        return items


@asynccontextmanager
async def a_house(folder: Path, *hosts: str, **more: Any) -> AsyncIterator[Callers]:
    make_database(folder / "app.db", SCRIPT)
    async with opened(folder, {"notes": NOTES}, webhook_hosts=list(hosts), **more) as house:
        yield Callers(house)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with an_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def callers(tmp_path: Path, endpoint: Endpoint) -> AsyncIterator[Callers]:
    async with a_house(tmp_path, f"127.0.0.1:{endpoint.port}") as callers:
        yield callers


async def test_a_job_is_told_from_its_start_to_its_end(callers: Callers, endpoint: Endpoint) -> None:
    made = await callers.make(endpoint.url, "started", "completed")
    job = await run(callers.house, "notes", "delete", caller=a_caller(tenant="acme"), all=True)
    await until(lambda: len(endpoint.got) == 2)
    told = [got.verified(made["secret"]) for got in endpoint.got]
    assert [each["type"] for each in told] == ["started", "completed"]
    assert {each["data"]["job"] for each in told} == {job.id}
    assert told[1]["data"]["data"]["succeeded"] == 2
    assert b"canary-row" not in b"".join(got.body for got in endpoint.got)

    async def listed() -> Any:
        (row,) = (await callers.ask("GET", "/api/webhooks")).json["items"]
        last = row["last_delivery"]
        return row if last is not None and last["type"] == "completed" else None

    row = await until(listed)
    assert row["last_delivery"]["result"] == "2xx"
    assert row["status"] == "active"
    assert [each["type"] for each in await callers.deliveries(made["id"])] == ["completed", "started"]


async def test_another_tenants_jobs_are_not_told(callers: Callers, endpoint: Endpoint) -> None:
    await callers.make(endpoint.url, "completed")
    theirs = await run(callers.house, "notes", "delete", caller=a_caller(tenant="other"), all=True)
    ours = await run(callers.house, "notes", "delete", caller=a_caller(tenant="acme"), all=True)
    await until(lambda: endpoint.got)
    assert [got.json["data"]["job"] for got in endpoint.got] == [ours.id] != [theirs.id]


async def test_the_secret_is_shown_once_and_written_nowhere_else(
    callers: Callers, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await callers.make(endpoint.url + "?receivers-own=canary-url", "completed")
    secret = made["secret"]
    assert secret.startswith("whsec_")
    await callers.ask("POST", f"/api/webhooks/{made['id']}/test")
    await until(lambda: endpoint.got)
    assert secret not in (await callers.ask("GET", "/api/webhooks")).body.decode()
    rows = await callers.house.store.read(lambda c: audit.page(c, tenant=None, limit=100))
    noted = json.dumps([audit.view(row) for row in rows])
    logged = caplog.text + "".join(
        file.read_text() for file in (tmp_path / "bulkops-data" / "logs").iterdir() if file.is_file()
    )
    assert "webhook_created" in noted
    for text in (noted, logged):
        assert secret not in text
        assert secret.removeprefix("whsec_") not in text
        assert "canary-url" not in text


async def test_a_test_is_a_letter_like_any_other(callers: Callers, endpoint: Endpoint) -> None:
    made = await callers.make(endpoint.url, "completed")
    sent = await callers.ask("POST", f"/api/webhooks/{made['id']}/test", json={})
    assert (sent.status, sent.json["state"], sent.json["job"]) == (202, "pending", None)
    await until(lambda: endpoint.got)
    told = endpoint.got[0].verified(made["secret"])
    assert (told["type"], told["data"], endpoint.got[0].id) == (
        "test",
        {"webhook": made["id"]},
        sent.json["id"],
    )


async def test_a_dead_letter_is_found_and_sent_again(callers: Callers, endpoint: Endpoint) -> None:
    endpoint.reply = lambda _: answer(500)
    made = await callers.make(endpoint.url, "completed")
    await run(callers.house, "notes", "delete", caller=a_caller(tenant="acme"), all=True)
    await until(lambda: endpoint.got and not callers.house.postman._held)
    (letter,) = await callers.deliveries(made["id"], "?state=pending")
    assert (letter["attempts"], letter["result"]) == (1, "5xx")
    assert letter["next_attempt_at"] > letter["created_at"]
    resend = f"/api/webhooks/{made['id']}/deliveries/{letter['id']}/resend"
    assert (await callers.ask("POST", resend)).json["attempts"] == 1  # it waits already
    await callers.house.store.write(
        lambda tx: tx.connection.execute("UPDATE webhook_deliveries SET state = 'dead'")
    )
    assert await callers.deliveries(made["id"], "?state=pending") == []
    (dead,) = await callers.deliveries(made["id"], "?state=dead")
    assert (dead["id"], dead["next_attempt_at"]) == (letter["id"], None)
    endpoint.reply = lambda _: answer(200)
    again = await callers.ask("POST", resend)
    assert (again.status, again.json["state"], again.json["attempts"]) == (200, "pending", 0)

    async def delivered() -> bool:
        return [each["state"] for each in await callers.deliveries(made["id"])] == ["delivered"]

    await until(delivered)
    assert len({got.id for got in endpoint.got}) == 1
    for key in ("ilegal", "x" * 26):
        missing = await callers.ask("POST", f"/api/webhooks/{made['id']}/deliveries/{key}/resend")
        assert missing.code == "NOT_FOUND"


async def test_a_disabled_webhook_sends_nothing_again(callers: Callers, endpoint: Endpoint) -> None:
    endpoint.reply = lambda _: answer(410)
    made = await callers.make(endpoint.url, "completed")
    await callers.ask("POST", f"/api/webhooks/{made['id']}/test")

    async def disabled() -> bool:
        (row,) = (await callers.ask("GET", "/api/webhooks")).json["items"]
        return bool(row["status"] == "disabled")

    await until(disabled)
    (dead,) = await callers.deliveries(made["id"], "?state=dead")
    for path in ("test", f"deliveries/{dead['id']}/resend"):
        refused = await callers.ask("POST", f"/api/webhooks/{made['id']}/{path}")
        assert (refused.status, refused.code) == (409, "ILLEGAL_TRANSITION")
    assert (await callers.ask("DELETE", f"/api/webhooks/{made['id']}")).status == 204
    assert (await callers.ask("DELETE", f"/api/webhooks/{made['id']}")).code == "NOT_FOUND"


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::ffff:127.0.0.1]/",
        "https://2130706433/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://user:secret@app.example/",
        "https://app.example:22/",
        "http://127.0.0.1:8765/",
        "nonsense",
        "",
    ],
)
async def test_a_bad_address_is_refused_when_the_webhook_is_made(tmp_path: Path, url: str) -> None:
    async with a_house(tmp_path, "127.0.0.1:8765", port=8765) as callers:
        body = {"url": url, "events": ["completed"]}
        refused = await callers.ask("POST", "/api/webhooks", json=body)
        assert refused.status == 422
        assert [each["pointer"] for each in refused.json["errors"]] == ["/url"]
        assert (await callers.ask("GET", "/api/webhooks")).json == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"events": []}, "/events"),
        ({"events": ["finished"]}, "/events/0"),
        ({"events": "completed"}, "/events"),
        ({"url": 5}, "/url"),
        ({"description": ""}, "/description"),
        ({"description": "a\u202eb"}, "/description"),
        ({"description": "x" * 201}, "/description"),
        ({"secret": "whsec_mine"}, "/secret"),
    ],
)
async def test_a_bad_field_is_named(
    callers: Callers, endpoint: Endpoint, change: dict[str, Any], pointer: str
) -> None:
    body = {"url": endpoint.url, "events": ["completed"], **change}
    refused = await callers.ask("POST", "/api/webhooks", json=body)
    assert refused.status == 422
    assert [each["pointer"] for each in refused.json["errors"]] == [pointer]


async def test_webhooks_are_an_admins_and_their_tenants(callers: Callers, endpoint: Endpoint) -> None:
    made = await callers.make(endpoint.url)
    sent = (await callers.ask("POST", f"/api/webhooks/{made['id']}/test")).json
    calls = [
        ("GET", f"/api/webhooks/{made['id']}/deliveries"),
        ("POST", f"/api/webhooks/{made['id']}/test"),
        ("POST", f"/api/webhooks/{made['id']}/deliveries/{sent['id']}/resend"),
        ("DELETE", f"/api/webhooks/{made['id']}"),
    ]
    for method, path in [*calls, ("GET", "/api/webhooks")]:
        for role in ("viewer", "operator"):
            assert (await callers.ask(method, path, role=role)).code == "FORBIDDEN"
    for method, path in calls:
        foreign = await callers.ask(method, path, tenant="other")
        unknown = await callers.ask(method, path.replace(made["id"], "0" * 26), tenant="other")
        assert (foreign.code, unknown.code) == ("NOT_FOUND", "NOT_FOUND")
        assert {**foreign.json, "instance": ""} == {**unknown.json, "instance": ""}
    assert (await callers.ask("GET", "/api/webhooks", tenant="other")).json["items"] == []
    for_others = await callers.ask(
        "POST", "/api/webhooks", json={"url": endpoint.url, "events": ["failed"], "tenant": "other"}
    )
    assert for_others.code == "FORBIDDEN"
    assert (await callers.ask("DELETE", calls[-1][1])).status == 204


async def test_a_caller_without_a_tenant_names_one_or_hears_of_all(
    callers: Callers, endpoint: Endpoint
) -> None:
    body = {"url": endpoint.url, "events": ["completed"], "tenant": "other"}
    named = await callers.ask("POST", "/api/webhooks", tenant=None, json=body)
    everybody = await callers.make(endpoint.url, "completed", tenant=None)
    assert (named.json["tenant"], everybody["tenant"]) == ("other", None)
    listed = await callers.ask("GET", "/api/webhooks?tenant=other", tenant=None)
    assert [row["id"] for row in listed.json["items"]] == [named.json["id"]]
    assert len((await callers.ask("GET", "/api/webhooks", tenant=None)).json["items"]) == 2
    await run(callers.house, "notes", "delete", caller=a_caller(tenant="acme"), all=True)
    await until(lambda: endpoint.got)
    endpoint.got[0].verified(everybody["secret"])
    assert endpoint.got[0].json["data"]["tenant"] == "acme"


async def test_a_tenant_has_ten_webhooks_at_most(callers: Callers, endpoint: Endpoint) -> None:
    for _ in range(webhooks.MAX_PER_TENANT):
        await callers.make(endpoint.url)
    body = {"url": endpoint.url, "events": ["completed"]}
    assert (await callers.ask("POST", "/api/webhooks", json=body)).status == 422
    await callers.make(endpoint.url, tenant="other")


async def test_lists_are_paged(callers: Callers, endpoint: Endpoint) -> None:
    endpoint.reply = lambda _: None
    made = [(await callers.make(endpoint.url))["id"] for _ in range(3)]
    first = (await callers.ask("GET", "/api/webhooks?limit=2")).json
    second = (await callers.ask("GET", f"/api/webhooks?limit=2&page={first['next']}")).json
    assert [row["id"] for row in first["items"] + second["items"]] == made[::-1]
    assert second["next"] is None
    sent = [(await callers.ask("POST", f"/api/webhooks/{made[0]}/test")).json["id"] for _ in range(3)]
    path = f"/api/webhooks/{made[0]}/deliveries?limit=2"
    first = (await callers.ask("GET", path)).json
    second = (await callers.ask("GET", f"{path}&page={first['next']}")).json
    assert [row["id"] for row in first["items"] + second["items"]] == sent[::-1]
    for bad in ("?limit=0", "?page=x", "?state=lost", "?colour=red"):
        assert (await callers.ask("GET", f"/api/webhooks/{made[0]}/deliveries{bad}")).code == "INVALID_FIELD"
        assert (await callers.ask("GET", f"/api/webhooks{bad}")).code == "INVALID_FIELD"


async def test_a_hanging_endpoint_delays_no_job(callers: Callers, endpoint: Endpoint) -> None:
    endpoint.reply = lambda _: None
    for _ in range(webhooks.MAX_PER_TENANT):
        await callers.make(endpoint.url)
    view = await run(callers.house, "notes", "delete", caller=a_caller(tenant="acme"), all=True)
    assert (view.status, view.succeeded) == ("completed", 2)
    await until(lambda: len(endpoint.got) == webhooks.MAX_PER_TENANT)


async def test_a_house_that_stops_sends_what_was_left_when_it_is_back(
    tmp_path: Path, endpoint: Endpoint, clock: HandClock
) -> None:
    endpoint.reply = lambda _: None
    host = f"127.0.0.1:{endpoint.port}"
    async with a_house(tmp_path, host, clock=clock) as callers:
        made = await callers.make(endpoint.url)
        await callers.ask("POST", f"/api/webhooks/{made['id']}/test")
        await until(lambda: endpoint.got)
    endpoint.reply = lambda _: answer(200)
    clock.advance(6)
    async with opened(tmp_path, {"notes": NOTES}, webhook_hosts=[host], clock=clock):
        await until(lambda: len(endpoint.got) == 2)
    assert len({got.id for got in endpoint.got}) == 1


async def test_the_metrics_count_what_waits_and_what_died(callers: Callers, endpoint: Endpoint) -> None:
    endpoint.reply = lambda _: None
    made = await callers.make(endpoint.url)
    for _ in range(2):
        await callers.ask("POST", f"/api/webhooks/{made['id']}/test")
    text = (await callers.ask("GET", "/metrics")).body.decode()
    assert 'bulkops_webhook_deliveries{state="pending"} 2.0' in text
    assert 'bulkops_webhook_deliveries{state="dead"} 0.0' in text


def _say(status: int, _: Received) -> bytes:
    return answer(status)


async def test_the_janitor_removes_old_letters(tmp_path: Path, endpoint: Endpoint, clock: HandClock) -> None:
    async with a_house(tmp_path, f"127.0.0.1:{endpoint.port}", clock=clock) as callers:
        made = await callers.make(endpoint.url)
        store = callers.house.store
        for status in (200, 500):
            endpoint.got_one.clear()
            endpoint.reply = functools.partial(_say, status)
            await callers.ask("POST", f"/api/webhooks/{made['id']}/test")
            await endpoint.got_one.wait()
            await until(lambda: not callers.house.postman._held)
        await store.write(
            lambda tx: tx.connection.execute(
                "UPDATE webhook_deliveries SET state = 'dead' WHERE state = 'pending'"
            )
        )
        for days, left in ((8, {"dead"}), (83, set())):
            clock.advance(days * 86_400)
            await callers.house.janitor.do("letters")
            assert {row["state"] for row in await callers.deliveries(made["id"])} == left


async def test_no_page_token_and_no_id_is_ever_an_error_of_ours(callers: Callers, endpoint: Endpoint) -> None:
    made = await callers.make(endpoint.url)

    @given(st.text(min_size=1, max_size=40))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def strings(text: str) -> None:
        texts.append(text)

    texts: list[str] = []
    strings()
    service, ana = callers.house.service, a_caller(tenant="acme")
    for text in texts:
        for ask in (
            service.webhooks(ana, tenant=None, limit=5, page=text),
            service.webhook_deliveries(ana, text, state=None, limit=5, page=None),
            service.webhook_deliveries(ana, made["id"], state=None, limit=5, page=text),
            service.webhook_create(ana, WebhookBody(url=text, events=["failed"])),
        ):
            with pytest.raises(Refusal):
                await ask


async def test_a_webhook_that_names_no_events_is_told_all(callers: Callers, endpoint: Endpoint) -> None:
    made = await callers.ask("POST", "/api/webhooks", json={"url": endpoint.url})
    assert (made.status, made.json["events"]) == (201, list(webhooks.EVENTS))
    none = await callers.ask("POST", "/api/webhooks", json={"url": endpoint.url, "events": []})
    assert (none.status, none.json["errors"][0]["pointer"]) == (422, "/events")
