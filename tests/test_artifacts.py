"""Files that jobs make, over HTTP: had whole or in ranges, by those who may, for as long as they are kept."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import resource
import stat
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulkops.store import artifacts
from bulkops.web.artifacts import Span, disposition, matches, span_of
from tests.conftest import HandClock
from tests.crashes.servers import Server
from tests.crashes.servers import until as wait_until
from tests.engine_house import execute, make_database, settings_for
from tests.test_stories import ROWS, SESSIONS, SESSIONS_RESOURCE, Person, code, rows_town, town_of

TENANTED = """
CREATE TABLE t (id INTEGER PRIMARY KEY, business TEXT, v TEXT);
INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'a', 'z');
"""


def folder_of(base: Path) -> Path:
    return base / "bulkops-data" / "artifacts"


async def export(person: Person, **body: Any) -> dict[str, Any]:
    """Export things and return the artifact."""
    job = await person.run("things/export", **(body or {"all": True}))
    assert job["status"] == "completed", job
    artifact: dict[str, Any] = job["artifacts"][0]
    return artifact


async def fetch(
    person: Person, artifact: dict[str, Any], method: str = "GET", **headers: str
) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await person.send(method, artifact["download_url"], headers=given)


async def test_what_a_job_made_is_downloaded_and_is_what_was_recorded(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        answer = await fetch(owner, artifact)
        assert answer.status_code == 200
        assert len(answer.content) == artifact["bytes"]
        assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
        assert (artifact["rows"], artifact["kind"], artifact["format"]) == (200, "export", "csv")
        assert answer.headers["etag"] == f'"{artifact["sha256"]}"'
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers.get_list("content-security-policy") == ["sandbox; default-src 'none'"]
        assert answer.headers["content-disposition"] == (
            f"attachment; filename=\"{artifact['name']}\"; filename*=UTF-8''{artifact['name']}"
        )
        shown = (await owner.get(f"/api/artifacts/{artifact['id']}")).json()
        assert shown == artifact
        head = await fetch(owner, artifact, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(artifact["bytes"])
        unchanged = await fetch(owner, artifact, if_none_match=answer.headers["etag"])
        assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_view_is_exported_as_a_table_is_and_nothing_else_is_done_to_it(tmp_path: Path) -> None:
    view = "CREATE VIEW seen AS SELECT id, business, v || '!' AS loud FROM t"
    make_database(tmp_path / "app.db", TENANTED + view)
    actions = {"export": {"batch_size": 1}}
    seen = {"table": "seen", "id": "id", "tenant": "business", "search": ["loud"], "actions": actions}
    async with town_of(settings_for(tmp_path, {"seen": {**seen, "ledger": "app"}})) as town:
        person = await town.person("operator", tenant="a")
        job = await person.run("seen/export", all=True)
        assert (job["succeeded"], job["total"]) == (2, 2)
        assert (await fetch(person, job["artifacts"][0])).text.splitlines() == [
            '"id","business","loud"',
            '1,"a","x!"',
            '3,"a","z!"',
        ]
        assert (await person.run("seen/export", filter={"loud": "z!"}))["succeeded"] == 1
        assert code(await person.post("/api/bulk/seen/delete", {"all": True})) == (404, "NOT_FOUND")


async def test_every_download_is_in_the_audit_and_a_look_is_not(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        await fetch(owner, artifact, "HEAD")
        assert (await fetch(owner, artifact, if_none_match="*")).status_code == 304
        assert (await fetch(owner, artifact, range=f"bytes={artifact['bytes']}-")).status_code == 416
        await fetch(owner, artifact)
        entries = (await owner.get("/api/audit", limit=100)).json()["items"]
        (entry,) = [each for each in entries if each["verb"] == "download"]
        assert entry["detail"]["artifact"] == artifact["id"]
        assert entry["user"] == "ana"


async def test_ranges_put_together_are_the_file(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        whole = (await fetch(owner, artifact)).content
        size = len(whole)
        for asked, first, end in (
            ("bytes=0-0", 0, 1), ("bytes=0-", 0, size), ("bytes=10-19", 10, 20), ("bytes=-7", size - 7, size),
            (f"bytes={size - 3}-{size + 50}", size - 3, size), (f"bytes=-{size * 2}", 0, size),
        ):  # fmt: skip
            answer = await fetch(owner, artifact, range=asked)
            assert answer.status_code == 206, asked
            assert answer.content == whole[first:end]
            assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
            assert answer.headers["content-length"] == str(end - first)
        for asked in (f"bytes={size}-", "bytes=-0"):
            answer = await fetch(owner, artifact, range=asked)
            assert code(answer) == (416, "RANGE_NOT_SATISFIABLE")
            assert answer.headers["content-range"] == f"bytes */{size}"
        for asked in ("bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes=-"):
            assert (await fetch(owner, artifact, range=asked)).content == whole, asked
        tag = f'"{artifact["sha256"]}"'
        assert (await fetch(owner, artifact, range="bytes=0-0", if_range=tag)).status_code == 206
        assert (await fetch(owner, artifact, range="bytes=0-0", if_range='"other"')).status_code == 200
        head = await fetch(owner, artifact, "HEAD", range="bytes=0-4")
        assert (head.status_code, head.headers["content-length"], head.content) == (206, "5", b"")


async def test_no_descriptor_is_left_behind_by_any_answer(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        await fetch(owner, artifact)
        for headers in ({}, {"range": "bytes=1-2"}, {"range": "bytes=999999-"}, {"if_none_match": "*"}):
            for method in ("GET", "HEAD"):
                await fetch(owner, artifact, method, **headers)
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert not [path for path in held if artifact["id"] in path]


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


async def test_after_its_time_a_file_is_gone_and_later_forgotten(tmp_path: Path, clock: HandClock) -> None:
    async with rows_town(tmp_path, clock=clock) as (town, owner):
        artifact = await export(owner)
        path = folder_of(tmp_path) / artifact["id"]
        clock.advance(24 * 3600 - 1)
        assert (await fetch(owner, artifact)).status_code == 200
        clock.advance(2)
        assert code(await fetch(owner, artifact)) == (410, "EXPIRED")
        assert code(await fetch(owner, artifact, range="bytes=0-1")) == (410, "EXPIRED")
        assert (await fetch(owner, artifact, "HEAD")).status_code == 410
        shown = (await owner.get(f"/api/artifacts/{artifact['id']}")).json()
        assert shown["status"] == "expired"
        assert path.exists(), "the janitor was not there yet"
        assert await town.runtime.janitor.due(["artifacts"])
        await town.runtime.janitor.do("artifacts")
        assert not path.exists()
        assert code(await fetch(owner, artifact)) == (410, "EXPIRED")
        assert not await town.runtime.janitor.due(["artifacts"])


async def test_an_action_may_say_how_long_its_files_are_kept(tmp_path: Path, clock: HandClock) -> None:
    actions = {"export": {"expires_h": 0.5}}
    async with rows_town(tmp_path, clock=clock, actions=actions) as (_, owner):
        artifact = await export(owner)
        clock.advance(1799)
        assert (await fetch(owner, artifact)).status_code == 200
        clock.advance(2)
        assert code(await fetch(owner, artifact)) == (410, "EXPIRED")


async def test_a_clock_that_leaps_ahead_removes_no_file(tmp_path: Path) -> None:
    class Leaping(HandClock):
        ahead_ms = 0

        def now_ms(self) -> int:
            return self.at_ms + self.ahead_ms

    clock = Leaping()
    async with rows_town(tmp_path, clock=clock) as (town, owner):
        artifact = await export(owner)
        clock.ahead_ms = 48 * 3_600_000
        await town.runtime.janitor.do("artifacts")
        clock.ahead_ms = 0
        assert (await fetch(owner, artifact)).status_code == 200


async def test_strangers_get_the_same_bytes_as_for_what_never_was(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", TENANTED)
    things = {"table": "t", "id": "id", "tenant": "business"}
    async with town_of(settings_for(tmp_path, {"things": things})) as town:
        ana = await town.person("operator", tenant="a")
        artifact = await export(ana)
        assert (await fetch(ana, artifact)).content == b'"id","business","v"\r\n1,"a","x"\r\n3,"a","z"\r\n'
        never = {"download_url": "/api/artifacts/01ARZ3NDEKTSV4RRFFQ69G5FAV/download"}
        part = {"download_url": f"/api/artifacts/{artifact['id']}.part/download"}
        for stranger in (
            await town.person("admin", tenant="b", user="bo"), await town.person("owner", tenant="b"),
            await town.person("operator", tenant="a", user="cy"),
        ):  # fmt: skip
            for method in ("GET", "HEAD"):
                for headers in ({}, {"range": "bytes=0-1"}):
                    mine = await fetch(stranger, artifact, method, **headers)
                    other = await fetch(stranger, never, method, **headers)
                    assert mine.status_code == 404
                    assert (mine.content, sorted(mine.headers)) == (other.content, sorted(other.headers))
            seen = await stranger.get(f"/api/artifacts/{artifact['id']}")
            unseen = await stranger.get("/api/artifacts/01ARZ3NDEKTSV4RRFFQ69G5FAV")
            assert (seen.status_code, seen.content) == (404, unseen.content)
        assert (await fetch(ana, part)).status_code == 404
        assert (await fetch(await town.person("admin", tenant="a", user="di"), artifact)).status_code == 200
        await ana.close()
        nobody = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=town.app), base_url="http://127.0.0.1:8765"
        )
        async with nobody:
            assert (await nobody.get(artifact["download_url"])).status_code == 401


async def test_a_viewer_cannot_export_and_an_operator_can(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (town, _):
        viewer = await town.person("viewer", user="vi")
        assert code(await viewer.post("/api/bulk/things/export", {"ids": ["1"]})) == (403, "FORBIDDEN")
        operator = await town.person("operator", user="op")
        assert (await export(operator))["status"] == "ready"


async def test_what_is_still_being_made_is_not_there_for_anybody(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        job = await owner.run("things/export", all=True, canary=50)
        assert job["status"] == "paused"
        (building,) = job["artifacts"]
        assert (building["status"], building["bytes"], building["sha256"]) == ("building", None, None)
        assert (await fetch(owner, building)).status_code == 404
        await owner.post(f"/api/jobs/{job['id']}/resume")
        (ready,) = (await owner.rested(job["id"]))["artifacts"]
        assert (await fetch(owner, ready)).text.count("\r\n") == 201


@pytest.mark.parametrize("harm", ["cut", "grown", "gone", "linked"])
async def test_a_file_that_is_not_what_was_recorded_is_never_sent(tmp_path: Path, harm: str) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        path = folder_of(tmp_path) / artifact["id"]
        if harm == "cut":
            os.truncate(path, 10)
        elif harm == "grown":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            aside = path.rename(tmp_path / "aside")
            if harm == "linked":
                path.symlink_to(aside)
        assert code(await fetch(owner, artifact)) == (410, "EXPIRED")
        assert (await owner.get(f"/api/artifacts/{artifact['id']}")).json()["status"] == "failed"


async def test_files_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with rows_town(tmp_path) as (_, owner):
            artifact = await export(owner)
            await owner.run("things/export", all=True, canary=5)
    finally:
        os.umask(before)
    folder = folder_of(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 2
    assert modes[artifact["id"]] == 0o600
    assert set(modes.values()) == {0o600}


async def test_a_tenant_keeps_only_so_many_files(tmp_path: Path, clock: HandClock) -> None:
    make_database(tmp_path / "app.db", TENANTED)
    things = {"table": "t", "id": "id", "tenant": "business"}
    settings = settings_for(tmp_path, {"things": things}, max_artifacts=2)
    async with town_of(settings, clock) as town:
        ana, bo = await town.person(tenant="a"), await town.person(tenant="b", user="bo")
        await export(ana)
        await export(ana)
        full = await ana.post("/api/bulk/things/export", {"all": True})
        assert code(full) == (507, "STORAGE_FULL")
        asked = await ana.post("/api/bulk/things/validate", {"action": "export", "all": True})
        assert code(asked) == (507, "STORAGE_FULL")
        assert (await ana.post("/api/bulk/things/delete", {"ids": ["1"]})).status_code == 202
        await export(bo)
        clock.advance(25 * 3600)
        await town.runtime.janitor.do("artifacts")
        await export(ana)


async def test_starts_in_a_burst_and_retries_are_no_way_around_it(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", TENANTED)
    things = {"table": "t", "id": "id", "tenant": "business"}
    async with town_of(settings_for(tmp_path, {"things": things}, max_artifacts=2, workers=1)) as town:
        ana = await town.person(tenant="a")
        answers = await asyncio.gather(
            *(ana.post("/api/bulk/things/export", {"all": True}) for _ in range(12))
        )
        jobs = [await ana.rested(each.json()["id"]) for each in answers if each.status_code == 202]
        made = [job for job in jobs if job["status"] == "completed"]
        refused = [job for job in jobs if job["status"] == "failed"]
        assert len(made) == 2
        assert {job["error"]["code"] for job in refused} <= {"STORAGE_FULL"}
        assert len(os.listdir(folder_of(tmp_path))) == 2
        for job in refused[:1]:
            await ana.post(f"/api/jobs/{job['id']}/resume")
            assert (await ana.rested(job["id"]))["error"]["code"] == "STORAGE_FULL"


async def test_a_retry_that_would_make_one_file_too_many_is_refused_as_a_start_is(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, status TEXT); INSERT INTO t VALUES (1, 'open'), (2, 'open');"
        "CREATE TRIGGER no BEFORE UPDATE ON t WHEN old.id = 2 BEGIN SELECT raise(ABORT, 'no'); END;",
    )
    things = {"table": "t", "id": "id", "status": {"column": "status", "archived": "archived"}}
    async with town_of(settings_for(tmp_path, {"things": things}, max_artifacts=1)) as town:
        owner = await town.person()
        job = await owner.run("things/archive", all=True)
        assert (job["succeeded"], job["failed"], len(job["artifacts"])) == (1, 1, 1)
        assert code(await owner.post(f"/api/jobs/{job['id']}/retry")) == (507, "STORAGE_FULL")
        assert (await owner.post(f"/api/jobs/{job['id']}/undo")).status_code == 202


async def test_a_tenant_keeps_only_so_many_bytes(tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);"
                         "INSERT INTO t VALUES (1, '')")  # fmt: skip
    settings = settings_for(tmp_path, {"things": {"table": "t", "id": "id"}}, max_artifact_mb=1)
    async with town_of(settings) as town:
        owner = await town.person()
        empty = (await export(owner))["bytes"]
        execute(path, "UPDATE t SET v = printf('%.*c', ?, 'x')", 1_000_000 - 2 * empty)
        await export(owner)
        assert code(await owner.post("/api/bulk/things/export", {"all": True})) == (507, "STORAGE_FULL")


async def test_a_file_does_not_grow_beyond_what_its_tenant_may_keep(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);"
                  "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 30)"
                  " INSERT INTO t SELECT i, printf('%.*c', 50000, 'x') FROM n")  # fmt: skip
    things = {"things": {"table": "t", "id": "id"}}
    async with town_of(settings_for(tmp_path, things, max_artifact_mb=1)) as town:
        owner = await town.person()
        job = await owner.run("things/export", all=True, batch_size=5)
        assert (job["status"], job["status_reason"]["code"], job["processed"]) == ("paused", "DISK_FULL", 15)
        assert sum(each.stat().st_size for each in folder_of(tmp_path).iterdir()) < 1_300_000
    async with town_of(settings_for(tmp_path, things, max_artifact_mb=2)) as town:
        owner = await town.person()
        await owner.post(f"/api/jobs/{job['id']}/resume")
        done = await owner.rested(job["id"])
        assert (done["status"], done["succeeded"], done["artifacts"][0]["rows"]) == ("completed", 30, 30)


async def test_the_last_event_of_a_job_tells_what_it_made(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        events = (await owner.get("/api/events", since="earliest")).json()
        (last,) = [each for each in events["items"] if "artifacts" in each["data"]]
        assert last["data"]["artifacts"] == [artifact]


async def test_what_no_row_wants_is_swept_at_the_start_and_the_rest_stays(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (_, owner):
        artifact = await export(owner)
        paused = await owner.run("things/export", all=True, canary=5)
    folder = folder_of(tmp_path)
    (folder / "01ARZ3NDEKTSV4RRFFQ69G5FAV").write_bytes(b"whole and nobody's")
    (folder / "01ARZ3NDEKTSV4RRFFQ69G5FAW.part").write_bytes(b"part and nobody's")
    async with town_of(settings_for(tmp_path, {"things": {"table": "t", "id": "id"}})):
        kept = {path.name for path in folder.iterdir()}
    assert kept == {artifact["id"], f"{paused['artifacts'][0]['id']}.part"}


async def test_a_resumed_failed_export_says_that_its_beginning_is_gone(tmp_path: Path) -> None:
    async with rows_town(tmp_path) as (town, owner):
        job = await owner.run("things/export", all=True, canary=5)
        (folder_of(tmp_path) / f"{job['artifacts'][0]['id']}.part").unlink()
        town.runtime.house.drafts.close_all()
        await owner.post(f"/api/jobs/{job['id']}/resume")
        failed = await owner.rested(job["id"])
        assert (failed["status"], failed["error"]["code"]) == ("failed", "IO_ERROR")
        assert failed["artifacts"][0]["status"] == "failed"
        await owner.post(f"/api/jobs/{job['id']}/resume")
        again = await owner.rested(job["id"])
        assert (again["status"], again["error"]["code"]) == ("failed", "EXPIRED")


async def test_rows_for_jobs_that_are_long_gone_are_forgotten(tmp_path: Path, clock: HandClock) -> None:
    async with rows_town(tmp_path, clock=clock) as (town, owner):
        artifact = await export(owner)
        for days in (2, 91):
            clock.advance(days * 24 * 3600)
            await town.runtime.janitor.do("artifacts")
        found = await town.runtime.store.read(lambda connection: artifacts.get(connection, artifact["id"]))
        assert found is None
        assert (await fetch(owner, artifact)).status_code == 404


@pytest.mark.parametrize(
    ("header", "span"),
    [("bytes=0-9", Span(0, 10)), ("bytes=90-", Span(90, 100)), ("bytes=-10", Span(90, 100)), ("bytes=100-", None),
     ("bytes=0-999999999999999999", Span(0, 100)), ("bytes=99-99", Span(99, 100))],
)  # fmt: skip
def test_a_range_is_read_as_the_standard_says(header: str, span: Span | None) -> None:
    assert span_of(header, 100) == span


def test_an_empty_file_has_no_range() -> None:
    assert span_of("bytes=0-0", 0) is None
    assert span_of("bytes=-5", 0) is None


def test_tags_match_weakly_and_in_lists() -> None:
    assert matches('"x", W/"y"', '"y"')
    assert matches("*", '"y"')
    assert not matches('"x"', '"y"')


@pytest.mark.parametrize("name", ['a"b', "a\r\nSet-Cookie: x", "a;b", "\u202egpj.exe", "../../x", "a\\b"])
def test_no_name_breaks_out_of_its_header(name: str) -> None:
    header = disposition(name)
    assert header.isascii()
    shown = header.partition('filename="')[2].partition('"')[0]
    assert not set(shown) & set('"\r\n;\\/')
    assert "%E2%80%AE" not in header


# --- sessions, told to the end -------------------------------------------------------------------------


SESSIONS_ACTIONS = {
    "delete": {"rate": "10/minute"}, "export": {"rate": "3/minute", "max_items": 35}, "archive": {"rate": "2/minute"},
}  # fmt: skip


async def test_sessions_are_looked_at_exported_archived_and_deleted(tmp_path: Path, clock: HandClock) -> None:
    app = make_database(tmp_path / "app.db", SESSIONS)
    sessions = {**SESSIONS_RESOURCE, "actions": SESSIONS_ACTIONS}
    async with town_of(settings_for(tmp_path, {"sessions": sessions}), clock) as town:
        owner = await town.person()
        wanted = {"action": "export", "ids": ["s-1", "s-4", "s-1"], "options": {"include_details": True}}
        preview = (await owner.post("/api/bulk/sessions/validate", wanted)).json()
        assert preview["eligible"] == ["s-1"]
        assert preview["duplicates"] == 1
        assert preview["impact"] == {"rows": {"sessions": 1, "exports": 1}, "files": 0, "bytes": 0}
        assert preview["estimated_seconds"] > 0
        assert "FINAL" not in {each["code"] for each in preview["warnings"]}
        much = await owner.post("/api/bulk/sessions/export", {"all": True})
        assert code(much) == (422, "TOO_MANY_ITEMS")
        none = await owner.run("sessions/export", filter={"status": "closed"}, options={"format": "json"})
        assert (await fetch(owner, none["artifacts"][0])).json() == []
        some = await owner.run(
            "sessions/export", ids=["s-1", "s-2"], options={"format": "json", "include_details": True}
        )
        rows = (await fetch(owner, some["artifacts"][0])).json()
        assert [(row["id"], len(row["exports"])) for row in rows] == [("s-1", 1), ("s-2", 1)]
        await owner.run("sessions/export", ids=["s-1"])
        assert code(await owner.post("/api/bulk/sessions/export", {"ids": ["s-1"]})) == (429, "RATE_LIMITED")
        clock.advance(61)
        archived = await owner.run("sessions/archive", ids=["s-1", "s-2", "s-4"])
        assert (archived["succeeded"], archived["skipped"], archived["artifacts"][0]["rows"]) == (2, 1, 2)
        content = (await fetch(owner, archived["artifacts"][0])).content
        kept = [json.loads(line) for line in gzip.decompress(content).splitlines()]
        assert [(row["id"], row["status"]) for row in kept] == [("s-1", "archived"), ("s-2", "archived")]
        gone = await owner.run("sessions/delete", ids=["s-1", "s-2"], options={"hard": True, "cascade": True})
        assert gone["succeeded"] == 2
        assert execute(app, "SELECT count(*) FROM exports") == [(1,)]
        assert (await fetch(owner, archived["artifacts"][0])).content == content
        info = (await owner.get("/api/bulk/sessions/info")).json()
        options = {each["name"]: each["options"]["properties"] for each in info["actions"]}
        assert options["export"]["format"]["enum"] == ["csv", "json", "ndjson"]
        assert set(options["archive"]) == {"compress"}


# --- a disk that is full, and a server that is killed ------------------------------------------------


async def test_on_a_full_disk_an_export_pauses_and_goes_on_to_the_very_same_file(tmp_path: Path) -> None:
    rows = "UPDATE t SET v = printf('%.*c', 20000, 'x') || id;"
    async with rows_town(tmp_path) as (_, owner):
        execute(tmp_path / "app.db", rows)
        whole = await export(owner, all=True)
        assert whole["bytes"] > 4_000_000
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
        try:
            job = await owner.run("things/export", all=True, batch_size=20)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (job["status"], job["status_reason"]["code"]) == ("paused", "DISK_FULL")
        assert 0 < job["processed"] < 200
        await owner.post(f"/api/jobs/{job['id']}/resume")
        made = (await owner.rested(job["id"]))["artifacts"][0]
        assert (made["status"], made["sha256"], made["rows"]) == ("ready", whole["sha256"], 200)


CONFIG = """
[resources.things]
kind = "table"
database = "app.db"
table = "t"
id = "id"
[resources.things.actions.export]
max_items = 100000
"""


def has_done(server: Server, job: str, share: int) -> bool:
    return bool(server.job(job)["processed"] >= share)


def test_a_server_killed_in_the_middle_of_an_export_finishes_the_very_same_file(tmp_path: Path) -> None:
    make_database(tmp_path / "app.db", ROWS.format(count=2000))
    (tmp_path / "bulkops.toml").write_text(CONFIG)
    with Server(tmp_path) as server:
        whole = server.end(server.start("things", "export", all=True))["artifacts"][0]
        job = server.start("things", "export", all=True, batch_size=50, throttle_ms=10)
    for share in (200, 1100):
        with Server(tmp_path) as server:
            wait_until(partial(has_done, server, job, share))
        parts = [path for path in folder_of(tmp_path).iterdir() if path.suffix == ".part"]
        assert len(parts) == 1
        with parts[0].open("ab") as file:
            file.write(b"what no accounted batch wrote")
    with Server(tmp_path) as server:
        made = server.end(job)["artifacts"][0]
        assert (made["sha256"], made["rows"]) == (whole["sha256"], 2000)
        assert server.get(f"/api/artifacts/{made['id']}")["status"] == "ready"
        assert not [path for path in folder_of(tmp_path).iterdir() if path.suffix == ".part"]
