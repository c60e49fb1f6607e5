"""Strangers at the doors of schedules, tasks, artifacts and maintenance: who gets in, and what nobody gets in with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from bulkops.configuration import from_dict
from bulkops.models import Caller, StartBody
from bulkops.settings import Settings
from bulkops.store import artifacts
from tests.engine_house import execute, make_database, rested, until
from tests.photos.studio import TABLE
from tests.test_stories import Person, Town, code, town_of

RECEIPTS: Final = """
CREATE TABLE receipts (id INTEGER PRIMARY KEY, business TEXT, number TEXT, deleted INTEGER NOT NULL DEFAULT 0);
INSERT INTO receipts (id, business, number) VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'a', 'z'), (4, '', 'nobody''s');
CREATE TABLE plain (id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO plain VALUES (1, 'x'), (2, 'y');
"""
CONFIRMED: Final = {"confirm": "DELETE", "rate": "3/minute", "exclusive": True}
RESOURCES: Final[dict[str, Any]] = {
    "receipts": {
        "kind": "table", "database": "app.db", "table": "receipts", "id": "id", "tenant": "business",
        "soft_delete": "deleted", "search": ["number"], "actions": {"delete": CONFIRMED},
    },
    "plain": {"kind": "table", "database": "app.db", "table": "plain", "id": "id"},
    "dossiers": {"kind": "folder", "root": "dossiers", "shared": True},
    "photos": {
        "kind": "photos", "database": "photos.db", "table": "photos", "id": "id", "root": "projects", "shared": True,
        "actions": {"manifest_check": {"confirm": "CHECK", "exclusive": True}},
    },
    "shelf": {"kind": "tests.custom.shelf:Shelf", "shared": True},
}  # fmt: skip
NEVER: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SCHEDULE: Final[dict[str, Any]] = {
    "name": "s", "resource": "receipts", "action": "delete", "all": True, "confirm": "DELETE", "every": "1h",
}  # fmt: skip


def settings(folder: Path) -> Settings:
    make_database(folder / "app.db", RECEIPTS)
    make_database(folder / "photos.db", TABLE)
    for path in ("projects/p", "dossiers/d"):
        (folder / path).mkdir(parents=True)
    (folder / "projects" / "p" / "IMG_1.RAW").write_bytes(b"raw")
    return from_dict({"server": {}, "resources": RESOURCES}, folder, {})


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with town_of(settings(tmp_path)) as opened:
        yield opened


@asynccontextmanager
async def everybody(town: Town) -> AsyncIterator[dict[str, Person]]:
    """Give one person a key of each role, of tenant a, of tenant b and of none."""
    people = {
        f"{role} {tenant}".strip(): await town.person(role, tenant=tenant or None, user=f"{role}-{tenant}")
        for tenant in ("", "a", "b")
        for role in ("viewer", "operator", "admin", "owner")
    }
    people["service"] = await town.person("service", user="service")
    yield people


def a_schedule(**members: Any) -> dict[str, Any]:
    return SCHEDULE | members


# What each may do: first viewer, operator, admin and owner without tenant, then those of a tenant, then `service`.
ACCESS: Final[list[tuple[str, dict[str, Any] | None, str]]] = [
    ("GET /api/schedules", None, "403 403 200 200 | 403 403 200 200 | 403"),
    ("POST /api/schedules", a_schedule(), "403 403 201 201 | 403 403 201 201 | 403"),
    ("POST /api/schedules", a_schedule(options={"hard": True}), "403 403 201 201 | 403 403 201 201 | 403"),
    ("POST /api/schedules", a_schedule(tenant="b"), "403 403 201 201 | 403 403 422 422 | 403"),
    ("POST /api/schedules", a_schedule(confirm="delete"), "403 403 428 428 | 403 403 428 428 | 403"),
    ("POST /api/schedules", a_schedule(resource="plain"), "403 403 201 201 | 403 403 404 404 | 403"),
    ("POST /api/schedules", a_schedule(resource="nothing"), "403 403 404 404 | 403 403 404 404 | 403"),
    (
        "POST /api/schedules",
        a_schedule(resource="maintenance", action="run"),
        "403 403 404 201 | 403 403 404 404 | 403",
    ),
    ("POST /api/schedules/maintenance.hourly/run", {}, "403 403 404 202 | 403 403 404 404 | 403"),
    ("DELETE /api/schedules/maintenance.hourly", None, "403 403 404 409 | 403 403 404 404 | 403"),
    (f"POST /api/schedules/{NEVER}/run", {}, "403 403 404 404 | 403 403 404 404 | 403"),
    (f"DELETE /api/schedules/{NEVER}", None, "403 403 404 404 | 403 403 404 404 | 403"),
    ("POST /api/tasks/change_commit", {"project": "p"}, "403 202 202 202 | 403 202 202 202 | 403"),
    ("POST /api/tasks/trash_maintenance", {"project": "p"}, "403 403 202 202 | 403 403 202 202 | 403"),
    ("POST /api/tasks/manifest_check", {"project": "p"}, "403 428 428 428 | 403 428 428 428 | 403"),
    ("POST /api/tasks/nothing", {"project": "p"}, "404 404 404 404 | 404 404 404 404 | 403"),
    (f"GET /api/tasks/{NEVER}", None, "404 404 404 404 | 404 404 404 404 | 403"),
    (f"GET /api/artifacts/{NEVER}", None, "404 404 404 404 | 404 404 404 404 | 403"),
    (f"GET /api/artifacts/{NEVER}/download", None, "404 404 404 404 | 404 404 404 404 | 403"),
    ("GET /api/bulk/maintenance/info", None, "404 404 404 200 | 404 404 404 404 | 403"),
    ("GET /api/bulk/maintenance/items", None, "404 404 404 200 | 404 404 404 404 | 403"),
    ("GET /api/bulk/maintenance/items/files/history", None, "404 404 404 200 | 404 404 404 404 | 403"),
    (
        "POST /api/bulk/maintenance/validate",
        {"action": "run", "all": True},
        "404 404 404 200 | 404 404 404 404 | 403",
    ),
    ("POST /api/bulk/maintenance/run", {"ids": ["files"]}, "404 404 404 202 | 404 404 404 404 | 403"),
]


async def test_each_role_of_each_tenant_gets_as_far_as_the_table_says(town: Town) -> None:
    async with everybody(town) as people:
        for request, body, expected in ACCESS:
            nobodys, tenants, service = expected.split(" | ")
            method, path = request.split()
            answers = {
                name: (await person.send(method, path, json=body)).status_code
                for name, person in people.items()
            }
            wanted = [*nobodys.split(), *tenants.split(), *tenants.split(), service]
            assert answers == dict(zip(answers, map(int, wanted), strict=True)), (request, body)


def alike(one: httpx.Response, other: httpx.Response) -> bool:
    return (one.status_code, one.content, one.headers) == (other.status_code, other.content, other.headers)


async def test_a_schedule_of_another_tenant_is_one_that_never_was(town: Town) -> None:
    ana, bo = await town.person("admin", tenant="a"), await town.person("owner", tenant="b", user="bo")
    made = (await ana.post("/api/schedules", SCHEDULE)).json()["id"]
    for method, path in (("POST", "/api/schedules/{}/run"), ("DELETE", "/api/schedules/{}")):
        mine, other = [await bo.send(method, path.format(each), json={}) for each in (made, NEVER)]
        assert mine.status_code == 404
        assert alike(mine, other)
    assert (await bo.get("/api/schedules")).json()["items"] == []
    assert [each["id"] for each in (await ana.get("/api/schedules")).json()["items"]] == [made]


async def test_the_houses_maintenance_is_told_to_owners_without_tenant_only(town: Town) -> None:
    async with everybody(town) as people:
        job = (await people["owner"].post("/api/schedules/maintenance.hourly/run")).json()["id"]
        await people["owner"].rested(job)
        faces = ["", "/items", "/errors", "/log", "/report", "/events"]
        for name, person in people.items():
            reads, mine = name != "service", name == "owner"
            for face in faces:
                answer = await person.get(f"/api/jobs/{job}{face}")
                assert answer.status_code == (200 if mine else 404 if reads else 403), (name, face)
                other = await person.get(f"/api/jobs/{NEVER}{face}")
                assert answer.status_code != 404 or alike(answer, other), (name, face)
            for verb in ("pause", "resume", "cancel", "retry", "undo"):
                answer = await person.post(f"/api/jobs/{job}/{verb}")
                assert answer.status_code == (409 if mine else 404 if reads else 403), (name, verb)
            if not reads:
                continue
            events = (await person.get("/api/events", since="earliest", limit=200)).json()["items"]
            assert (job in {each["job"] for each in events}) is mine, name
            jobs = (await person.get("/api/jobs", show_maintenance="true")).json()["items"]
            assert (job in {each["id"] for each in jobs}) is mine, name
            if "admin" in name or "owner" in name:
                rows = (await person.get("/api/audit", limit=1000)).json()["items"]
                assert ("maintenance" in {each["resource"] for each in rows}) is mine, name
                of_job = (await person.get("/api/audit", job=job)).json()["items"]
                assert bool(of_job) is mine, name


BODIES: Final = [
    b"", b"{", b"null", b"[]", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"name":"\\ud800"}', b"[" * 100_000,
    b'{"project":"p","project":"q"}', b'{"name":' + b"9" * 5000 + b"}", b'{"name":"' + b"x" * 300_000 + b'"}',
    b'{"a":' * 100 + b"1" + b"}" * 100,
]  # fmt: skip


async def test_no_body_is_an_error_of_ours(town: Town) -> None:
    owner = await town.person()
    paths = ("/api/schedules", "/api/tasks/change_commit", f"/api/schedules/{NEVER}/run")
    for path, body in product(paths, BODIES):
        answer = await owner.send("POST", path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 413, 422} | ({404} if not body else set()), (
            body[:40],
            answer.text,
        )


WRONG_TASKS: Final[list[tuple[dict[str, Any], str]]] = [
    *(({"project": each}, "/project") for each in ("", ".", "..", "../x", "/etc", "a/b", ".trash", "p\0")),
    *(({"project": each}, "/project") for each in (1, None, True, ["p"], {"a": 1}, "x" * 256)),
    *(
        ({"project": "p", "files": each}, "/files")
        for each in ([], ["../x.jpg"], ["/etc/passwd"], ["a\0.jpg"], [""], [".trash/x.jpg"], "IMG_1.JPG")
    ),
    ({"project": "p", "files": [1]}, "/files/0"),
    ({"project": "p", "options": {"project": "other"}}, "/options/project"),
    ({"project": "p", "files": ["a.jpg"], "options": {"files": ["b.jpg"]}}, "/options/files"),
    ({"project": "p", "options": {"nope": 1}}, "/options/nope"),
    ({"project": "p", "options": {"new_only": "yes"}}, "/options/new_only"),
    *(({"project": "p", each: "x"}, f"/{each}") for each in ("task_id", "source", "requested_by")),
    ({"project": "p", "priority": 10**30}, "/priority"),
    ({"project": "p", "expected_count": 1.5}, "/expected_count"),
    ({"project": "p", "resource": "receipts"}, "/resource"),
    ({"project": "p", "tenant": "b"}, "/tenant"),
]


async def test_what_is_wrong_with_a_task_is_pointed_to_where_it_stands(town: Town, tmp_path: Path) -> None:
    owner = await town.person()
    for body, pointer in WRONG_TASKS:
        answer = await owner.post("/api/tasks/upload_processing", body)
        assert code(answer) == (422, "INVALID_FIELD"), body
        assert answer.json()["errors"][0]["pointer"] == pointer, body
    assert sorted(os.listdir(tmp_path / "projects")) == ["p"]


ODD: Final = ("a\\b", "C:\\x", "\u202e", "P", "p ", "p.", "e\u0301", "CON", "-rf", "a\nb", "%2e%2e")


async def test_an_odd_project_is_a_name_and_no_path(town: Town, tmp_path: Path) -> None:
    owner = await town.person()
    for project in ODD:
        answer = await owner.post("/api/tasks/upload_processing", {"project": project})
        assert answer.status_code == 202, project
        assert (await ended(owner, answer.headers["location"]))["project"] == project
    assert execute(tmp_path / "photos.db", "SELECT count(*) FROM photos") == [(0,)]
    assert sorted(os.listdir(tmp_path / "projects")) == ["p"]


async def ended(person: Person, task: str) -> dict[str, Any]:
    """Wait until a task is completed."""

    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = (await person.get(task)).json()
        return found if found["status"] == "completed" else None

    view: dict[str, Any] = await until(look)
    return view


async def test_a_schedule_asked_for_twice_under_one_key_is_one_schedule(town: Town) -> None:
    ana, bo = await town.person("admin", tenant="a"), await town.person("admin", tenant="a", user="bo")
    answers = await asyncio.gather(
        *(ana.post("/api/schedules", SCHEDULE, idempotency_key="k") for _ in range(8))
    )
    assert {(each.status_code, each.content) for each in answers} == {(201, answers[0].content)}
    other = await ana.post("/api/schedules", a_schedule(every="2h"), idempotency_key="k")
    assert code(other) == (422, "IDEMPOTENCY_MISMATCH")
    assert len((await ana.get("/api/schedules")).json()["items"]) == 1
    # The key is its user's own.
    assert (await bo.post("/api/schedules", SCHEDULE, idempotency_key="k")).json()["id"] != answers[0].json()[
        "id"
    ]


async def test_nobody_puts_a_job_into_a_task_that_is_not_his_to_see(town: Town) -> None:
    ana = await town.person("admin", tenant="a")
    task = (await ana.post("/api/tasks/upload_processing", {"project": "p"})).json()["id"]
    wish = {"all": True, "task_id": task}
    operator = await town.person("operator", tenant="a", user="op")
    foreign = await town.person("owner", tenant="b", user="bo")
    refused = [await each.post("/api/bulk/receipts/export", wish) for each in (operator, foreign)]
    assert [(code(each), each.json()["errors"]) for each in refused] == [
        ((422, "INVALID_FIELD"), [{"pointer": "/task_id", "detail": "this id cannot be used"}])
    ] * 2
    assert (await operator.get("/api/jobs")).json()["items"] == []
    # An admin of the tenant sees all its tasks, and may go on with them.
    other = await town.person("admin", tenant="a", user="cy")
    assert (await other.post("/api/bulk/receipts/export", wish)).json()["task_id"] == task


async def test_a_word_that_an_action_wants_is_wanted_of_its_task_and_its_schedule(town: Town) -> None:
    owner = await town.person()
    assert code(await owner.post("/api/tasks/manifest_check", {"project": "p"})) == (
        428,
        "CONFIRMATION_REQUIRED",
    )
    with_word = {"project": "p", "confirm": "CHECK"}
    assert (await owner.post("/api/tasks/manifest_check", with_word)).status_code == 202
    for word in ("delete", " DELETE", "D\u0415LETE", "\uff24ELETE", ""):
        refused = await owner.post("/api/schedules", a_schedule(confirm=word))
        assert code(refused) == (428, "CONFIRMATION_REQUIRED"), word


async def test_an_operator_cannot_have_a_final_action_run_by_a_schedule_of_somebody_else(town: Town) -> None:
    admin = await town.person("admin", tenant="a")
    operator = await town.person("operator", tenant="a", user="op")
    made = (await admin.post("/api/schedules", a_schedule(options={"hard": True}))).json()["id"]
    assert code(await operator.post(f"/api/schedules/{made}/run")) == (403, "FORBIDDEN")
    assert code(await operator.send("DELETE", f"/api/schedules/{made}")) == (403, "FORBIDDEN")


async def test_who_may_not_start_an_action_any_more_does_not_resume_it_either(
    town: Town, tmp_path: Path
) -> None:
    before = await town.person("admin", tenant="a", user="lo")
    job = await before.run("receipts/delete", all=True, confirm="DELETE", options={"hard": True}, canary=1)
    assert (job["status"], job["processed"]) == ("paused", 1)
    lowered = await town.person("operator", tenant="a", user="lo")
    assert code(await lowered.post(f"/api/jobs/{job['id']}/resume")) == (403, "FORBIDDEN")
    assert execute(tmp_path / "app.db", "SELECT count(*) FROM receipts WHERE business = 'a'") == [(1,)]
    assert (await lowered.post(f"/api/jobs/{job['id']}/cancel")).json()["status"] == "cancelled"


async def test_runs_by_hand_at_once_are_one_job_and_count_against_the_rate(town: Town) -> None:
    admin = await town.person("admin", tenant="a")
    made = (await admin.post("/api/schedules", SCHEDULE)).json()["id"]
    answers = await asyncio.gather(*(admin.post(f"/api/schedules/{made}/run") for _ in range(10)))
    started = [each.json()["id"] for each in answers if each.status_code == 202]
    assert sorted({each.status_code for each in answers}) in ([202, 409], [202, 409, 429])
    assert 1 <= len(started) <= 3
    while len(started) < 3:
        await admin.rested(started[-1])
        started.append((await admin.post(f"/api/schedules/{made}/run")).json()["id"])
    await admin.rested(started[-1])
    assert code(await admin.post(f"/api/schedules/{made}/run")) == (429, "RATE_LIMITED")


async def test_a_tenant_without_a_name_is_no_way_to_everybodys_rows(town: Town, tmp_path: Path) -> None:
    nameless = Caller(user="eve", tenant="", roles=frozenset({"admin"}))
    body = msgspec.convert({"all": True, "confirm": "DELETE"}, StartBody)
    view = await town.runtime.service.start(nameless, "receipts", "delete", body)
    await rested(town.runtime, view.id, nameless)
    left = execute(tmp_path / "app.db", "SELECT business FROM receipts WHERE deleted = 0 ORDER BY id")
    assert [row[0] for row in left] == ["a", "b", "a"]


async def test_what_somebody_puts_among_the_artifacts_neither_goes_nor_stops_the_house(
    town: Town, tmp_path: Path
) -> None:
    ana = await town.person("admin", tenant="a")
    artifact = (await ana.run("receipts/export", all=True))["artifacts"][0]
    folder = tmp_path / "bulkops-data" / "artifacts"
    (folder / NEVER).mkdir()
    (folder / f"{NEVER[:-1]}W").symlink_to(tmp_path / "app.db")
    (folder / "lost+found").mkdir()
    (folder / "notes.txt").write_text("mine")
    with open(os.fsencode(folder) + b"/\xff\xfe", "wb"):
        pass
    owner = await town.person()
    job = (await owner.post("/api/bulk/maintenance/run", {"ids": ["artifacts"]})).json()["id"]
    assert (await owner.rested(job))["outcome"] == "ok"
    names = {os.fsdecode(each) for each in os.listdir(folder)}
    # The link bears a name of ours that no row wants: it goes, and what it leads to stays.
    assert names == {artifact["id"], NEVER, "lost+found", "notes.txt", os.fsdecode(b"\xff\xfe")}
    assert (tmp_path / "app.db").exists()
    again = (await ana.run("receipts/export", all=True))["artifacts"][0]
    assert (await ana.get(again["download_url"])).status_code == 200


async def test_a_download_under_way_outlives_its_time(town: Town) -> None:
    ana = await town.person("admin", tenant="a")
    artifact = (await ana.run("receipts/export", all=True))["artifacts"][0]
    service = town.runtime.service
    caller = Caller(user="ana", tenant="a", roles=frozenset({"admin"}))
    taken = await service.download(caller, artifact["id"])
    try:
        far = artifact_end(taken.row) + 1
        await town.runtime.store.write(lambda tx: artifacts.expire(tx, now_ms=far, limit=10))
        job = await (await town.person()).post("/api/bulk/maintenance/run", {"ids": ["artifacts"]})
        await (await town.person(user="o")).rested(job.json()["id"])
        assert (await ana.get(artifact["download_url"])).status_code == 410
        assert len(os.pread(taken.fd, 10_000, 0)) == artifact["bytes"]
    finally:
        os.close(taken.fd)


def artifact_end(row: artifacts.ArtifactRow) -> int:
    return row.expires_ms
