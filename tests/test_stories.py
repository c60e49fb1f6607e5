"""The stories of the five systems, as far as tables go, told over HTTP to the whole application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkops.configuration import load
from bulkops.errors import ConfigError
from bulkops.resources.draft import draft
from bulkops.runtime import Runtime, open_runtime
from bulkops.settings import Settings
from bulkops.store import credentials
from bulkops.timing import Clock
from bulkops.web.app import build_app
from tests.conftest import HandClock
from tests.engine_house import dump, execute, make_database, settings_for, until

HOST = "127.0.0.1:8765"
RECEIPTS = """
CREATE TABLE receipts (id INTEGER PRIMARY KEY, business_id TEXT NOT NULL, number TEXT, vendor TEXT, status TEXT,
  is_deleted INTEGER NOT NULL DEFAULT 0, pinned INTEGER DEFAULT 0, created_at TEXT);
CREATE TABLE attachments (id INTEGER PRIMARY KEY, receipt_id INTEGER REFERENCES receipts (id), path TEXT);
CREATE INDEX attachments_receipt ON attachments (receipt_id);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO receipts SELECT i, 'b' || (i % 3), 'N' || i, 'V', CASE WHEN i % 50 = 0 THEN 'processing' ELSE 'open' END,
  0, i % 60 = 0, '2026-01-01T00:00:00Z' FROM n;
INSERT INTO attachments (receipt_id, path) SELECT id, business_id || '/a' || id || '.pdf' FROM receipts;
"""
RECEIPTS_RESOURCE = {
    "table": "receipts",
    "id": "id",
    "tenant": "business_id",
    "label": "number",
    "soft_delete": "is_deleted",
    "status": {"column": "status", "closed": "closed", "archived": "archived", "busy": ["processing"]},
    "search": ["number", "vendor", "status", "created_at"],
    "set": ["status"],
    "protect": {"pinned": 1},
    "children": [{"table": "attachments", "key": "receipt_id", "file": "path", "root": "storage"}],
    "actions": {
        "delete": {
            "roles": ["owner", "admin"],
            "confirm": "DELETE",
            "rate": "1/minute",
            "exclusive": True,
            "batch_size": 50,
            "throttle_ms": 5,
            "max_runtime_s": 300,
        }
    },
}
ROWS = """
CREATE TABLE t (id INTEGER PRIMARY KEY, client TEXT, v TEXT, created_at TEXT DEFAULT '2020-01-01 00:00:00');
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
INSERT INTO t (id, client, v) SELECT i, 'c' || (i % 2), 'v' || i FROM n;
"""
PLAIN = {"table": "t", "id": "id", "search": ["client", "v", "created_at", "id"], "set": ["v"]}


class Person:
    """Somebody with a credential, in front of the application."""

    def __init__(self, app: Any, key: str) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url=f"http://{HOST}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
        )

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self._client.get(path, params=params)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.post(path, json={} if body is None else body, headers=given)

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self._client.request(method, path, **more)

    async def start(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.post(f"/api/bulk/{path}", body)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        assert answer.headers["location"] == job["links"]["self"]
        return job

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.get(f"/api/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        assert job["processed"] == job["succeeded"] + job["failed"] + job["skipped"]
        return job

    async def rested(self, job_id: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return job if job["terminal"] or job["status"] == "paused" else None

        found: dict[str, Any] = await until(look)
        return found

    async def run(self, path: str, **body: Any) -> dict[str, Any]:
        return await self.rested((await self.start(path, **body))["id"])

    async def undo(self, job_id: str, **body: Any) -> dict[str, Any]:
        answer = await self.post(f"/api/jobs/{job_id}/undo", body)
        assert answer.status_code == 202, answer.text
        return await self.rested(answer.json()["id"])

    async def close(self) -> None:
        await self._client.aclose()


class Town:
    """The running application and the people before it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.app = build_app(runtime)
        self._people: list[Person] = []

    async def person(self, role: str = "owner", *, tenant: str | None = None, user: str = "ana") -> Person:
        _, key = await self.runtime.store.write(
            lambda tx: credentials.create_key(tx, user=user, tenant=tenant, role=role)
        )
        person = Person(self.app, key)
        self._people.append(person)
        return person

    async def close(self) -> None:
        for person in self._people:
            await person.close()


@asynccontextmanager
async def town_of(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Town]:
    async with open_runtime(settings, clock=clock) as runtime:
        town = Town(runtime)
        try:
            yield town
        finally:
            await town.close()


@asynccontextmanager
async def rows_town(
    folder: Path,
    count: int = 200,
    *,
    clock: Clock | None = None,
    server: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[tuple[Town, Person]]:
    """Run the application over a plain table of ``count`` rows."""
    make_database(folder / "app.db", ROWS.format(count=count))
    settings = settings_for(folder, {"things": {**PLAIN, **more}}, **(server or {}))
    async with town_of(settings, clock) as town:
        yield town, await town.person()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# --- receipts ----------------------------------------------------------------------------------------


def make_receipts(folder: Path) -> dict[str, bytes]:
    make_database(folder / "app.db", RECEIPTS)
    for number in range(1, 301):
        place = folder / "storage" / f"b{number % 3}" / f"a{number}.pdf"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x%d" % number)
    return files_of(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    root = folder / "storage"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


@pytest.mark.parametrize("ledger", ["own", "app"])
async def test_all_receipts_of_one_business_go_and_come_back_with_their_files(
    ledger: str, tmp_path: Path
) -> None:
    files = make_receipts(tmp_path)
    app = tmp_path / "app.db"
    before = dump(app)
    settings = settings_for(tmp_path, {"receipts": {**RECEIPTS_RESOURCE, "ledger": ledger}})
    async with town_of(settings) as town:
        ana = await town.person("admin", tenant="b0")
        preview = (await ana.post("/api/bulk/receipts/validate", {"action": "delete", "all": True})).json()
        assert (preview["matched"], preview["eligible_count"], preview["ineligible_count"]) == (100, 94, 6)
        assert preview["confirm"] == "DELETE"
        assert {each["code"] for each in preview["warnings"]} == {"CONFIRMATION_REQUIRED"}
        assert preview["impact"]["rows"] == {"receipts": 94, "attachments": 94}
        assert preview["impact"]["files"] == 94

        for word in (
            None,
            "delete",
            " DELETE",
            "DELETE ",
            "D\u0415LETE",
            "\uff24\uff25\uff2c\uff25\uff34\uff25",
        ):
            refused = await ana.post("/api/bulk/receipts/delete", {"all": True, "confirm": word})
            assert code(refused) == (428, "CONFIRMATION_REQUIRED")
            assert refused.json()["confirm"] == "DELETE"
            assert refused.json()["count"] == 100
        assert dump(app) == before

        job = await ana.start("receipts/delete", all=True, confirm="DELETE", expected_count=100)
        again = await ana.post("/api/bulk/receipts/delete", {"all": True, "confirm": "DELETE"})
        assert again.status_code in (409, 429)
        done = await ana.rested(job["id"])
        assert (done["succeeded"], done["failed"], done["skipped"]) == (94, 0, 6)
        assert (done["status"], done["outcome"], done["percent"]) == ("completed", "ok", 100.0)
        assert execute(app, "SELECT count(*) FROM receipts WHERE is_deleted") == [(94,)]
        assert execute(app, "SELECT count(*) FROM receipts WHERE is_deleted AND business_id <> 'b0'") == [
            (0,)
        ]
        await until(lambda: len(files_of(tmp_path)) == 206)

        late = await ana.post("/api/bulk/receipts/delete", {"all": True, "confirm": "DELETE"})
        assert code(late) == (429, "RATE_LIMITED")
        assert 1 <= int(late.headers["retry-after"]) <= 60
        assert "RateLimit-Policy" in late.headers

        trash = (await ana.get("/api/trash", q="N3")).json()["items"]
        assert {each["job"] for each in trash} == {done["id"]}

        back = await ana.undo(done["id"])
        assert (back["succeeded"], back["failed"], back["skipped"]) == (94, 0, 0)
        assert dump(app) == before
        assert files_of(tmp_path) == files


async def test_an_operator_may_not_delete_receipts_nor_a_stranger_see_the_job(tmp_path: Path) -> None:
    make_receipts(tmp_path)
    settings = settings_for(tmp_path, {"receipts": RECEIPTS_RESOURCE})
    async with town_of(settings) as town:
        ana = await town.person("admin", tenant="b0")
        olaf = await town.person("operator", tenant="b0", user="olaf")
        bob = await town.person("owner", tenant="b1", user="bob")
        refused = await olaf.post("/api/bulk/receipts/delete", {"all": True, "confirm": "DELETE"})
        assert code(refused) == (403, "FORBIDDEN")
        job = await ana.start("receipts/delete", ids=["3", "4"], confirm="DELETE")
        assert job["rejected"] == [{"id": "4", "code": "NOT_FOUND", "reason": "there is no such item"}]
        unknown = "01J00000000000000000000000"
        for method, path in (
            ("GET", "/api/jobs/{}"),
            ("PATCH", "/api/jobs/{}"),
            ("GET", "/api/jobs/{}/items"),
            ("GET", "/api/jobs/{}/errors"),
            ("GET", "/api/jobs/{}/log"),
            ("GET", "/api/jobs/{}/report?format=csv"),
            ("POST", "/api/jobs/{}/pause"),
            ("POST", "/api/jobs/{}/resume"),
            ("POST", "/api/jobs/{}/cancel"),
            ("POST", "/api/jobs/{}/retry"),
            ("POST", "/api/jobs/{}/undo"),
        ):
            more: dict[str, Any] = {} if method == "GET" else {"json": {}}
            theirs = await bob.send(method, path.format(job["id"]), **more)
            nobodys = await bob.send(method, path.format(unknown), **more)
            assert theirs.status_code == 404, path
            assert theirs.content == nobodys.content, path
            assert dict(theirs.headers) == dict(nobodys.headers), path
        assert (await bob.get("/api/jobs")).json()["items"] == []
        mine = await bob.get("/api/bulk/receipts/items", limit=1000)
        assert {row["row"]["business_id"] for row in mine.json()["items"]} == {"b1"}
        theirs = await bob.post("/api/bulk/receipts/delete", {"ids": ["6"], "confirm": "DELETE"})
        assert theirs.json()["rejected"][0]["code"] == "NOT_FOUND"
        named = await bob.post(
            "/api/bulk/receipts/delete", {"ids": ["6"], "confirm": "DELETE", "tenant": "b0"}
        )
        assert code(named) == (422, "INVALID_FIELD")


async def test_a_history_is_kept_per_item_and_unknown_resources_have_none(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (town, owner):
        done = await owner.run("things/delete", ids=["5"])
        history = await owner.get("/api/bulk/things/items/5/history")
        assert [each["job"] for each in history.json()["items"]] == [done["id"]]
        viewer = await town.person("viewer", tenant="acme", user="vera")
        nothing = await owner.get("/api/bulk/nothing/items/5/history")
        invisible = await viewer.get("/api/bulk/things/items/5/history")
        assert nothing.status_code == invisible.status_code == 404
        assert nothing.content == invisible.content


# --- sessions and images -----------------------------------------------------------------------------

SESSIONS = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, status TEXT, name TEXT);
CREATE TABLE exports (id INTEGER PRIMARY KEY, session_id TEXT REFERENCES sessions (id), path TEXT);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40)
INSERT INTO sessions SELECT 's-' || i, CASE i % 4 WHEN 0 THEN 'processing' ELSE 'open' END, 'n' || i FROM n;
INSERT INTO exports (session_id, path) SELECT id, id || '.csv' FROM sessions WHERE id IN ('s-1', 's-2', 's-3');
"""
SESSIONS_RESOURCE = {
    "table": "sessions",
    "id": "id",
    "status": {"column": "status", "closed": "closed", "archived": "archived", "busy": ["processing"]},
    "search": ["status"],
    "children": [{"table": "exports", "key": "session_id", "optional": True}],
    "actions": {"delete": {"rate": "10/minute"}},
}


async def test_sessions_are_validated_closed_archived_and_deleted_with_and_without_exports(
    tmp_path: Path,
) -> None:
    app = make_database(tmp_path / "app.db", SESSIONS)
    before = dump(app)
    async with town_of(settings_for(tmp_path, {"sessions": SESSIONS_RESOURCE})) as town:
        owner = await town.person()
        preview = (
            await owner.post(
                "/api/bulk/sessions/validate", {"action": "delete", "ids": ["s-1", "s-4", "s-1", "s-99"]}
            )
        ).json()
        assert preview["eligible"] == ["s-1"]
        assert preview["duplicates"] == 1
        assert {each["id"]: each["code"] for each in preview["ineligible"]} == {
            "s-4": "INELIGIBLE",
            "s-99": "NOT_FOUND",
        }
        closed = await owner.run("sessions/close", filter={"status": "open"})
        assert (closed["succeeded"], closed["skipped"]) == (30, 0)
        archived = await owner.run("sessions/archive", ids=["s-1", "s-4"])
        assert (archived["succeeded"], archived["skipped"]) == (1, 1)
        plain = await owner.run("sessions/delete", ids=["s-1", "s-5"])
        assert (plain["succeeded"], plain["failed"]) == (1, 1), "an export holds s-1"
        whole = await owner.run("sessions/delete", ids=["s-1", "s-2"], options={"cascade": True})
        assert whole["succeeded"] == 2
        assert execute(app, "SELECT count(*) FROM exports") == [(1,)]
        hard = await owner.run("sessions/delete", ids=["s-6"], options={"hard": True})
        refused = await owner.post(f"/api/jobs/{hard['id']}/undo")
        assert code(refused) == (409, "ILLEGAL_TRANSITION")
        execute(app, "INSERT INTO sessions VALUES ('s-6', 'closed', 'n6')")
        for job in (whole, plain, archived, closed):
            assert (await owner.undo(job["id"]))["failed"] == 0
        after = dump(app)
        execute(app, "UPDATE sessions SET status = 'open' WHERE id = 's-6'")
        assert sorted(map(str, execute(app, "SELECT * FROM sessions"))) == sorted(
            str((row[1].decode(), row[2].decode(), row[3].decode())) for row in before["sessions"]
        )
        assert after["exports"] == before["exports"]
        info = (await owner.get("/api/bulk/sessions/info")).json()
        assert info["counts"]["by_status"] == {"open": 30, "processing": 10}


async def test_a_thousand_images_are_gone_at_once_and_their_files_soon_after(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, client_id INTEGER, path TEXT);"
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
        "INSERT INTO images SELECT i, i % 2, 'p' || i || '.jpg' FROM n;",
    )
    root = tmp_path / "images"
    root.mkdir()
    for number in range(1, 1201):
        (root / f"p{number}.jpg").write_bytes(b"%d" % number)
    resource = {
        "table": "images", "id": "id", "file": "path", "root": "images", "search": ["client_id"]
    }  # fmt: skip
    async with town_of(settings_for(tmp_path, {"images": resource})) as town:
        owner = await town.person()
        done = await owner.run("images/delete", filter={"client_id": 1})
        assert (done["succeeded"], done["total"]) == (600, 600)
        await until(lambda: len(list(root.glob("*.jpg"))) == 600)

        async def nothing_pending() -> bool:
            return bool((await owner.get("/api/cleanup/stats")).json()["pending"] == 0)

        await until(nothing_pending)
        run = await owner.send("POST", "/api/cleanup/run?batch_size=100&max_attempts=3")
        assert run.status_code == 200
        assert run.json()["remaining"] == 0
        assert (await owner.send("POST", "/api/cleanup/run?batch_size=1001")).status_code == 422
        assert (await owner.undo(done["id"]))["succeeded"] == 600
        assert len(list(root.glob("*.jpg"))) == 1200


# --- chinook -----------------------------------------------------------------------------------------


async def test_chinook_goes_and_comes_back_from_a_drafted_config(chinook: Path, tmp_path: Path) -> None:
    before = dump(chinook)
    config = tmp_path / "bulkops.toml"
    config.write_text(draft(chinook, tmp_path), encoding="utf-8")
    settings = load(config, {})
    by_table = {resource.table: name for name, resource in settings.resources.items()}
    async with town_of(settings) as town:
        owner = await town.person()
        playlist, tracks, lines = by_table["PlaylistTrack"], by_table["Track"], by_table["InvoiceLine"]
        first = await owner.run(f"{playlist}/delete", all=True)
        assert (first["outcome"], first["succeeded"]) == ("ok", 8715)
        second = await owner.run(f"{tracks}/delete", all=True)
        assert (second["outcome"], second["succeeded"], second["failed"]) == ("partial", 1519, 1984)
        errors = (await owner.get(f"/api/jobs/{second['id']}/errors")).json()
        groups = errors["items"] if isinstance(errors, dict) else errors
        assert [(each["code"], each["count"]) for each in groups] == [("CONSTRAINT", 1984)]
        third = await owner.run(f"{lines}/delete", all=True)
        assert third["failed"] == 0
        retried = await owner.post(f"/api/jobs/{second['id']}/retry", {"codes": ["CONSTRAINT"]})
        assert retried.status_code == 202
        fourth = await owner.rested(retried.json()["id"])
        assert (fourth["outcome"], fourth["succeeded"]) == ("ok", 1984)
        same = await owner.post(f"/api/jobs/{second['id']}/retry", {"codes": ["CONSTRAINT"]})
        assert (same.status_code, same.json()["id"]) == (200, fourth["id"])
        assert dump(chinook)["Track"] == []
        for job in (fourth, third, second, first):
            back = await owner.undo(job["id"])
            assert (back["failed"], back["skipped"]) == (0, 0)
    assert dump(chinook) == before


# --- hostile input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "answer", "pointer"),
    [
        ('{"ids": []}', (422, "EMPTY_SELECTION"), "/ids"),
        ('{"filter": {}}', (422, "EMPTY_SELECTION"), "/filter"),
        ("{}", (422, "EMPTY_SELECTION"), ""),
        ('{"all": false}', (422, "EMPTY_SELECTION"), ""),
        ('{"all": true, "ids": [1]}', (422, "EMPTY_SELECTION"), None),
        ('{"ids": [true]}', (422, "INVALID_FIELD"), "/ids/0"),
        ('{"ids": ["1", 1.5]}', (422, "INVALID_FIELD"), "/ids/1"),
        ('{"ids": ["1", 1.0]}', (422, "INVALID_FIELD"), "/ids/1"),
        ('{"ids": [null]}', (422, "INVALID_FIELD"), "/ids/0"),
        ('{"ids": ["01"]}', (422, "INVALID_FIELD"), "/ids/0"),
        ('{"ids": [" 1"]}', (422, "INVALID_FIELD"), "/ids/0"),
        ('{"ids": ["1;DROP TABLE t"]}', (422, "INVALID_FIELD"), "/ids/0"),
        ('{"ids": ["9223372036854775808"]}', (422, "INVALID_FIELD"), "/ids/0"),
        ('{"ids": "1"}', (422, "INVALID_FIELD"), "/ids"),
        ('{"all": 1}', (422, "INVALID_FIELD"), "/all"),
        ('{"all": true, "tenant_id": 5}', (422, "INVALID_FIELD"), None),
        ('{"all": true, "options": {"hrad": true}}', (422, "INVALID_FIELD"), "/options/hrad"),
        ('{"all": true, "options": {"hard": "yes"}}', (422, "INVALID_FIELD"), "/options/hard"),
        ('{"filter": {"nope": 1}}', (422, "INVALID_FIELD"), "/filter/nope"),
        ('{"filter": {"v\\" = v --": 1}}', (422, "INVALID_FIELD"), None),
        ('{"filter": {"v": {"regexp": "x"}}}', (422, "INVALID_FIELD"), "/filter/v/regexp"),
        ('{"filter": {"v": []}}', (422, "INVALID_FIELD"), "/filter/v"),
        ('{"all": true, "batch_size": 0}', (422, "INVALID_FIELD"), "/batch_size"),
        ('{"all": true, "max_items_per_second": 1e999}', (400, "INVALID_JSON"), None),
        ('{"all": true, "run_at": "tomorrow"}', (422, "INVALID_FIELD"), "/run_at"),
        ('{"all": true, "run_at": "9999-12-31T23:59:59Z"}', (422, "INVALID_FIELD"), "/run_at"),
        ('{"all": true, "priority": 1e18}', (422, "INVALID_FIELD"), "/priority"),
        ('{"selection_id": "nobody"}', (404, "NOT_FOUND"), None),
        ('{"all": true, "all": true}', (400, "INVALID_JSON"), None),
        ('{"ids": ["1"], "ids": ["2"]}', (400, "INVALID_JSON"), None),
        ('{"all": true, "options": {"a": {"b": 1, "b": 2}}}', (400, "INVALID_JSON"), None),
        ("[" * 100_000, (400, "INVALID_JSON"), None),
        ('{"a":' * 50_000, (400, "INVALID_JSON"), None),
        ('{"all": true', (400, "INVALID_JSON"), None),
        ('{"expected_count": ' + "9" * 5000 + "}", (400, "INVALID_JSON"), None),
        ('{"all": true, "label": "\\ud800"}', (400, "INVALID_JSON"), None),
        ('{"all": true, "max_items": NaN}', (400, "INVALID_JSON"), None),
        ("\ufeff{}", (400, "INVALID_JSON"), None),
    ],
)
async def test_a_request_that_cannot_be_meant_is_refused_and_touches_nothing(
    body: str, answer: tuple[int, str], pointer: str | None, one_town: tuple[Town, Person, Path]
) -> None:
    _, owner, app = one_town
    before = dump(app)
    refused = await owner.send(
        "POST",
        "/api/bulk/things/delete",
        content=body.encode(),
        headers={"Content-Type": "application/json"},
    )
    assert code(refused) == answer, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert refused.json()["errors"][0]["pointer"] == pointer
    assert (await owner.get("/api/jobs")).json()["items"] == []
    assert dump(app) == before


@pytest.fixture
async def one_town(tmp_path: Path) -> AsyncIterator[tuple[Town, Person, Path]]:
    async with rows_town(tmp_path, 5) as (town, owner):
        yield town, owner, tmp_path / "app.db"


async def test_a_column_one_letter_off_refuses_to_start_naming_it(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", ROWS.format(count=5))
    for key, wrong in (
        ("id", "idd"),
        ("search", ["vv"]),
        ("soft_delete", "deletd_at"),
        ("tenant", "clent"),
        ("table", "tt"),
        ("status", {"column": "stauts", "closed": "x"}),
        ("protect", {"pined": 1}),
    ):
        with pytest.raises(ConfigError, match=f"resources.things.{key}") as raised:
            async with open_runtime(settings_for(tmp_path, {"things": {**PLAIN, key: wrong}})):
                pytest.fail("it started")
        assert "no" in str(raised.value)


async def test_ten_at_the_preview_and_ten_thousand_at_the_start_is_no_start(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 10) as (_, owner):
        preview = (
            await owner.post("/api/bulk/things/validate", {"action": "delete", "filter": {"id": {"gt": 0}}})
        ).json()
        assert preview["matched"] == 10
        execute(
            tmp_path / "app.db",
            "WITH RECURSIVE n(i) AS (VALUES (11) UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            " INSERT INTO t (id, client) SELECT i, 'c' FROM n",
        )
        refused = await owner.post(
            "/api/bulk/things/delete", {"filter": {"id": {"gt": 0}}, "expected_count": 10}
        )
        assert code(refused) == (409, "COUNT_CHANGED")
        assert (refused.json()["expected"], refused.json()["matched"]) == (10, 10_000)
        assert execute(tmp_path / "app.db", "SELECT count(*) FROM t") == [(10_000,)]


async def test_of_a_hundred_starts_of_an_exclusive_action_one_is_accepted(tmp_path: Path) -> None:
    actions = {"delete": {"exclusive": True}}
    async with rows_town(tmp_path, 2000, actions=actions) as (_, owner):
        body = {"all": True, "canary": 1}
        answers = await asyncio.gather(*(owner.post("/api/bulk/things/delete", body) for _ in range(100)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(202), statuses.count(409)) == (1, 99)
        made = next(answer.json()["id"] for answer in answers if answer.status_code == 202)
        refused = [answer.json() for answer in answers if answer.status_code == 409]
        assert {(each["code"], each["active_job"]) for each in refused} == {("JOB_ACTIVE", made)}


async def test_one_idempotency_key_makes_one_job_however_often_it_is_sent(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (town, owner):
        body = {"ids": ["1", "2"]}
        answers = await asyncio.gather(
            *(owner.post("/api/bulk/things/delete", body, Idempotency_Key='"once"') for _ in range(20))
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        other = await owner.post("/api/bulk/things/delete", {"ids": ["3"]}, Idempotency_Key='"once"')
        assert code(other) == (422, "IDEMPOTENCY_MISMATCH")
        bob = await town.person("admin", user="bob")
        theirs = await bob.post("/api/bulk/things/delete", {"ids": ["3"]}, Idempotency_Key='"once"')
        assert theirs.status_code == 202
        assert theirs.json()["id"] != answers[0].json()["id"]


# --- pace, limits and clocks -------------------------------------------------------------------------


async def test_a_canary_and_max_items_pause_where_they_say(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        job = await owner.run("things/delete", all=True, canary=7, batch_size=50)
        assert (job["status"], job["processed"], job["status_reason"]["code"]) == ("paused", 7, "CANARY")
        await owner.post(f"/api/jobs/{job['id']}/resume")
        assert (await owner.rested(job["id"]))["succeeded"] == 200
        await owner.undo(job["id"])
        job = await owner.run("things/delete", all=True, max_items=30)
        assert (job["processed"], job["status_reason"]["code"]) == (30, "MAX_ITEMS")
        await owner.post(f"/api/jobs/{job['id']}/resume")
        assert (await owner.rested(job["id"]))["processed"] == 60


async def test_too_many_failures_pause_a_job_and_whole_batches_that_fail_too(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        ROWS.format(count=60) + "CREATE TABLE q (id INTEGER PRIMARY KEY);"
        "CREATE TABLE d (q INTEGER REFERENCES q DEFERRABLE INITIALLY DEFERRED);"
        "CREATE TRIGGER bad AFTER DELETE ON t WHEN old.id > 20 BEGIN INSERT INTO d VALUES (99); END;"
        "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id < 10 BEGIN SELECT RAISE(ABORT, 'no'); END;",
    )
    resource = {**PLAIN, "actions": {"delete": {"max_batch_failures": 3}}}
    async with town_of(settings_for(tmp_path, {"things": resource})) as town:
        owner = await town.person()
        job = await owner.run(
            "things/delete", all=True, batch_size=5, failure_threshold={"min_items": 5, "max_ratio": 0.5}
        )
        assert (job["processed"], job["failed"]) == (5, 5)
        assert job["status_reason"]["code"] == "FAILURE_THRESHOLD"
        await owner.post(f"/api/jobs/{job['id']}/cancel")
        job = await owner.run("things/delete", all=True, batch_size=5)
        assert job["status_reason"]["code"] == "BATCH_FAILURES"
        assert (job["processed"], job["succeeded"], job["failed"]) == (35, 11, 24)


async def test_a_pace_is_kept_and_may_be_changed_while_the_job_waits(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        job = await owner.start("things/delete", all=True, batch_size=10, max_items_per_second=1)

        async def waits() -> dict[str, Any] | None:
            view = await owner.job(job["id"])
            return view if view["throttle"] and view["processed"] else None

        waiting = await until(waits)
        assert waiting["throttle"]["reason"] == "max_items_per_second"
        assert waiting["processed"] == 10
        tuned = await owner.send(
            "PATCH", f"/api/jobs/{job['id']}", json={"max_items_per_second": None, "batch_size": 200}
        )
        assert (tuned.status_code, tuned.json()["batch_size"]) == (200, 200)
        assert (await owner.rested(job["id"]))["succeeded"] == 200
        late = await owner.send("PATCH", f"/api/jobs/{job['id']}", json={"priority": 5})
        assert code(late) == (409, "ILLEGAL_TRANSITION")


async def test_slow_jobs_on_every_worker_do_not_keep_a_small_one_waiting(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 2000, server={"workers": 2}) as (_, owner):
        slow = [
            await owner.start("things/set", all=True, batch_size=10, max_items_per_second=0.01,
                              options={"set": {"v": str(number)}})
            for number in range(3)
        ]  # fmt: skip

        async def all_wait() -> bool:
            return all([(await owner.job(job["id"]))["processed"] >= 10 for job in slow])

        await until(all_wait)
        small = await owner.run("things/delete", ids=["1999", "2000"])
        assert small["succeeded"] == 2
        for job in slow:
            view = await owner.job(job["id"])
            assert view["processed"] <= 20, "the pace is kept although others came first"
            assert (await owner.post(f"/api/jobs/{job['id']}/cancel")).status_code == 200
            assert (await owner.rested(job["id"]))["status"] == "cancelled"


async def test_a_small_job_passes_a_big_one_and_a_higher_priority_passes_both(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 30_000, server={"workers": 1}) as (_, owner):
        big = await owner.start("things/set", all=True, options={"set": {"v": "x"}}, batch_size=50)
        small = await owner.run("things/set", ids=["1", "2"], options={"set": {"v": "y"}})
        assert small["succeeded"] == 2
        assert not (await owner.job(big["id"]))["terminal"]
        await owner.post(f"/api/jobs/{big['id']}/cancel")
        assert (await owner.rested(big["id"]))["status"] == "cancelled"


async def test_a_full_line_answers_503_with_retry_after(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 200, server={"workers": 1, "queue_max": 2}) as (town, owner):
        town.runtime.workers.stop()
        await town.runtime.workers.stopped()
        for number in (1, 2):
            await owner.start("things/delete", ids=[str(number)])
        refused = await owner.post("/api/bulk/things/delete", {"ids": ["3"]})
        assert code(refused) == (503, "QUEUE_FULL")
        assert int(refused.headers["retry-after"]) > 0


async def test_an_atomic_job_does_all_or_nothing(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 200) as (_, owner):
        app = tmp_path / "app.db"
        execute(
            app,
            "CREATE TRIGGER no BEFORE DELETE ON t WHEN old.id = 150 BEGIN SELECT RAISE(ABORT, 'stays'); END",
        )
        before = dump(app)
        job = await owner.run("things/delete", all=True, atomic=True, batch_size=10)
        assert (job["status"], job["processed"], job["error"]["code"]) == ("failed", 0, "CONSTRAINT")
        assert "150" in job["error"]["message"]
        assert dump(app) == before
        job = await owner.run("things/delete", filter={"id": {"ne": 150}}, atomic=True, batch_size=10)
        assert (job["succeeded"], job["outcome"]) == (199, "ok")
        missing = await owner.run("things/delete", ids=["150", "999"], atomic=True)
        assert (missing["status"], missing["error"]["code"]) == ("failed", "NOT_FOUND")


async def test_an_atomic_job_takes_ten_thousand_items_at_most(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 10_001) as (_, owner):
        refused = await owner.post(
            "/api/bulk/things/delete", {"all": True, "atomic": True, "expected_count": 10_001}
        )
        assert code(refused) == (422, "TOO_MANY_ITEMS")
        job = await owner.run("things/delete", filter={"id": {"gt": 1}}, atomic=True)
        assert job["succeeded"] == 10_000


async def test_a_job_for_later_is_frozen_now_and_fires_at_its_time(tmp_path: Path, clock: HandClock) -> None:
    async with rows_town(tmp_path, 20, clock=clock) as (town, owner):
        at = datetime.fromtimestamp(clock.now_ms() / 1000, UTC) + timedelta(hours=1)
        job = await owner.start("things/delete", all=True, run_at=at.isoformat())
        assert (job["status"], job["total"]) == ("scheduled", 20)
        execute(tmp_path / "app.db", "INSERT INTO t (id, v) VALUES (21, 'later')")
        clock.advance(3599)
        town.runtime.workers.ring()
        assert (await owner.job(job["id"]))["status"] == "scheduled"
        clock.advance(2)
        town.runtime.workers.ring()
        done = await owner.rested(job["id"])
        assert (done["status"], done["succeeded"]) == ("completed", 20)
        assert execute(tmp_path / "app.db", "SELECT id FROM t") == [(21,)]


async def test_a_runtime_cap_pauses_a_job_which_comes_back_by_itself(
    tmp_path: Path, clock: HandClock
) -> None:
    actions = {"delete": {"max_runtime_s": 1, "auto_resume_s": 60, "batch_size": 50, "throttle_ms": 1000}}
    async with rows_town(tmp_path, 120, clock=clock, actions=actions) as (town, owner):
        job = await owner.run("things/delete", all=True)
        assert (job["status"], job["status_reason"]["code"]) == ("paused", "RUNTIME_CAP")
        assert 0 < job["processed"] < 120

        async def ended() -> bool:
            clock.advance(61)
            town.runtime.workers.ring()
            return bool((await owner.job(job["id"]))["terminal"])

        await until(ended)
        assert (await owner.job(job["id"]))["succeeded"] == 120


async def test_an_undo_has_its_time(tmp_path: Path, clock: HandClock) -> None:
    async with rows_town(tmp_path, 5, clock=clock) as (_, owner):
        job = await owner.run("things/delete", all=True)
        assert "undo" in job["allowed_actions"]
        clock.advance(31 * 86_400)
        assert "undo" not in (await owner.job(job["id"]))["allowed_actions"]
        refused = await owner.post(f"/api/jobs/{job['id']}/undo")
        assert code(refused) == (410, "UNDO_EXPIRED")


async def test_an_uploaded_selection_is_previewed_and_deleted_as_it_was_uploaded(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 3000) as (_, owner):
        lines = "\n".join(str(number) for number in [*range(1, 2001), 5000])
        uploaded = await owner.send(
            "POST", "/api/selections", content=lines.encode(), headers={"Content-Type": "text/plain"}
        )
        assert uploaded.status_code in (200, 201), uploaded.text
        selection = uploaded.json()["selection_id"]
        body = {"action": "delete", "selection_id": selection, "exclude_ids": ["1"]}
        preview = (await owner.post("/api/bulk/things/validate", body)).json()
        assert (preview["matched"], preview["eligible_count"]) == (2000, 1999)
        assert preview["impact"]["rows"] == {"t": 1999}
        assert [each["id"] for each in preview["ineligible"]] == ["5000"]
        job = await owner.run("things/delete", selection_id=selection, exclude_ids=["1"], expected_count=2000)
        assert (job["total"], job["succeeded"], job["skipped"]) == (2000, 1999, 1)
        assert execute(tmp_path / "app.db", "SELECT count(*), min(id) FROM t") == [(1001, 1)]


async def test_the_single_path_answers_with_a_job_of_one(tmp_path: Path) -> None:
    async with rows_town(tmp_path, 5) as (_, owner):
        answer = await owner.send("DELETE", "/api/bulk/things/items/3", headers={"Prefer": "wait=5"})
        assert answer.status_code in (200, 202), answer.text
        job = await owner.rested(answer.json()["id"])
        assert (job["total"], job["succeeded"]) == (1, 1)
        assert execute(tmp_path / "app.db", "SELECT count(*) FROM t") == [(4,)]
