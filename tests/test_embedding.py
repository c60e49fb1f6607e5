"""bulkops inside a host: mounted, asked by the host's own people, and touching nothing that is not its own."""

from __future__ import annotations

import json
import locale
import logging
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from bulkops import Batch, Bulkops, Caller
from bulkops.errors import ConfigError, Refusal, StartRefused
from tests.hosting import ask, declared, ended, make_database, running, served

HOST = "http://127.0.0.1:8000"


def by_header(connection: HTTPConnection) -> Caller | None:
    """Trust a header, as a host that has its own session would trust that."""
    user = connection.headers.get("x-user")
    if user is None:
        return None
    return Caller(user=user, tenant="acme", roles=frozenset({"admin"}))


@asynccontextmanager
async def asking(
    app: Any, *, root_path: str = "", user: str | None = "ana"
) -> AsyncIterator[httpx.AsyncClient]:
    """Ask an application in this process, whose lifespan runs."""
    transport = httpx.ASGITransport(app=app, root_path=root_path)
    headers = {} if user is None else {"x-user": user}
    async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=headers) as client:
        yield client


def host_of(bulk: Bulkops, mount: str = "/bulk") -> Starlette:
    return Starlette(routes=[Mount(mount, bulk.app)], lifespan=bulk.lifespan)


def house(folder: Path, **more: Any) -> Bulkops:
    make_database(folder)
    return Bulkops(declared(), base=folder, **more)


async def finished(client: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(job["links"]["self"], params={"wait": 20})
    found: dict[str, Any] = answer.json()
    assert found["status"] == "completed", found
    return found


async def test_a_host_mounts_it_and_its_people_start_jobs(tmp_path: Path) -> None:
    bulk = house(tmp_path, authenticate=by_header)
    handed: list[str] = []

    @bulk.action("sessions", "summarise")
    async def summarise(batch: Batch) -> None:
        handed.extend(item.id for item in batch)

    app = host_of(bulk)
    async with app.router.lifespan_context(app), asking(app) as client:
        answer = await client.post("/bulk/api/bulk/sessions/summarise", json={"filter": {"status": "open"}})
        assert answer.status_code == 202
        job = answer.json()
        assert answer.headers["location"] == f"/bulk/api/jobs/{job['id']}"
        assert all(path.startswith("/bulk/api/jobs/") for path in job["links"].values())
        job = await finished(client, job)
        assert (job["requested_by"], job["tenant"], job["succeeded"]) == ("ana", "acme", 15)
        assert handed == [str(number) for number in range(1, 31, 2)]
        listed = (await client.get("/bulk/api/jobs/")).json()
        assert [each["links"]["self"] for each in listed["items"]] == [f"/bulk/api/jobs/{job['id']}"]
        problem = (await client.get("/bulk/api/jobs/none")).json()
        assert problem["code"] == "NOT_FOUND"
        assert problem["type"].startswith("/bulk/")


async def test_the_reference_and_the_page_know_the_mount(tmp_path: Path) -> None:
    app = host_of(house(tmp_path, authenticate=by_header), "/admin/bulk")
    async with app.router.lifespan_context(app), asking(app) as client:
        document = (await client.get("/admin/bulk/openapi.json")).json()
        assert document["servers"] == [{"url": "/admin/bulk"}]
        assert (await client.get("/admin/bulk/healthz")).json() == {"status": "ok"}


async def test_a_fastapi_application_mounts_it_too(tmp_path: Path) -> None:
    fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
    bulk = house(tmp_path, authenticate=by_header)
    app = fastapi.FastAPI(lifespan=bulk.lifespan)
    app.mount("/bulk", bulk.app)
    async with app.router.lifespan_context(app), asking(app) as client:
        answer = await client.post("/bulk/api/bulk/sessions/delete", json={"ids": [1]})
        assert answer.headers["location"].startswith("/bulk/api/jobs/")
        assert (await finished(client, answer.json()))["succeeded"] == 1


async def test_a_host_composes_the_lifespan_into_its_own(tmp_path: Path) -> None:
    bulk = house(tmp_path, authenticate=by_header)
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        told.append("host begins")
        async with bulk.lifespan(app):
            yield {"pool": "of connections"}
        told.append("host ends")

    app = Starlette(routes=[Mount("/bulk", bulk.app)], lifespan=lifespan)
    for _ in range(2):
        async with app.router.lifespan_context(app), asking(app) as client:
            assert (await client.get("/bulk/api/me")).json()["user"] == "ana"
    assert told == ["host begins", "host ends"] * 2


async def test_what_a_host_raises_in_the_lifespan_comes_out_as_it_was_raised(tmp_path: Path) -> None:
    bulk = house(tmp_path)
    with pytest.raises(LookupError, match="the host's own"):
        async with bulk.lifespan():
            raise LookupError("the host's own")
    async with bulk.lifespan():
        assert (await bulk.start("sessions", "delete", ids=[1])).id


async def test_strangers_are_refused_and_keys_still_work(tmp_path: Path) -> None:
    bulk = house(tmp_path, authenticate=by_header)
    app = host_of(bulk)
    async with app.router.lifespan_context(app), asking(app, user=None) as client:
        assert (await client.get("/bulk/api/me")).status_code == 401
        runtime = bulk._runtime
        assert runtime is not None
        await runtime.credentials.install_local("k" * 43)
        answer = await client.get("/bulk/api/me", headers={"authorization": f"Bearer {'k' * 43}"})
        assert answer.json()["user"] == "local"


async def test_the_host_may_take_its_time_to_say_who_asks(tmp_path: Path) -> None:
    async def slowly(connection: HTTPConnection) -> Caller | None:
        await anyio.lowlevel.checkpoint()
        roles: Any = ["viewer", "emperor"]  # as a host may well write them
        return Caller(user="ben", roles=roles)

    app = host_of(house(tmp_path, authenticate=slowly))
    async with app.router.lifespan_context(app), asking(app, user=None) as client:
        me = (await client.get("/bulk/api/me")).json()
        assert (me["user"], me["tenant"], me["roles"]) == ("ben", None, ["viewer"])


async def test_what_is_no_caller_is_an_error_of_the_host_and_lets_nobody_in(tmp_path: Path) -> None:
    app = host_of(house(tmp_path, authenticate=lambda _: {"user": "ana"}))
    async with app.router.lifespan_context(app), asking(app) as client:
        assert (await client.get("/bulk/api/me")).status_code == 500


@pytest.mark.parametrize("caller", [Caller(user="ana", tenant=""), Caller(user="", tenant="acme")])
async def test_a_caller_without_a_name_or_tenant_is_nobody(tmp_path: Path, caller: Caller) -> None:
    named = Caller(user=caller.user, tenant=caller.tenant, roles=frozenset({"admin"}))
    app = host_of(house(tmp_path, authenticate=lambda _: named))
    async with app.router.lifespan_context(app), asking(app) as client:
        assert (await client.get("/bulk/api/me")).status_code == 500
        assert (await client.post("/bulk/api/bulk/sessions/delete", json={"all": True})).status_code == 500


async def test_two_in_one_process_do_not_meet(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (house(folder, authenticate=by_header) for folder in folders)
    one.action("sessions", "only_one")(lambda _: None)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with one.lifespan(app), two.lifespan(app):
            yield

    app = Starlette(routes=[Mount("/one", one.app), Mount("/two", two.app)], lifespan=lifespan)
    async with app.router.lifespan_context(app), asking(app) as client:
        jobs = {}
        for mount in ("one", "two"):
            answer = await client.post(f"/{mount}/api/bulk/sessions/delete", json={"ids": [1]})
            jobs[mount] = await finished(client, answer.json())
        assert (await client.get(f"/two/api/jobs/{jobs['one']['id']}")).status_code == 404
        assert (await client.post("/two/api/bulk/sessions/only_one", json={"ids": [3]})).status_code == 404
    for folder, mine, other in zip(folders, ("one", "two"), ("two", "one"), strict=True):
        assert ask(folder, "SELECT count(*) FROM sessions WHERE deleted") == [(1,)]
        log = (folder / "bulkops-data" / "logs" / "bulkops.log").read_text(encoding="utf-8")
        assert f"BULK_JOB_DONE job={jobs[mine]['id']}" in log
        assert f"/{mine}/api/bulk/sessions/delete 202" in log
        assert f"job={jobs[other]['id']}" not in log
        assert f"/{other}/" not in log
        assert log.count("BULKOPS_START") == 1


async def test_one_that_ends_first_leaves_the_other_its_log(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (house(folder) for folder in folders)
    logger = logging.getLogger("bulkops")
    before = (logger.level, logger.propagate, list(logger.handlers))
    ready, leave, left = anyio.Event(), anyio.Event(), anyio.Event()

    async def run_one() -> None:
        async with one.lifespan():
            ready.set()
            await leave.wait()
        left.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run_one)
        await ready.wait()
        async with two.lifespan():
            leave.set()
            await left.wait()
            job = await ended(two, await two.start("sessions", "delete", ids=[1]))
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    log = (folders[1] / "bulkops-data" / "logs" / "bulkops.log").read_text(encoding="utf-8")
    assert f"BULK_JOB_DONE job={job.id}" in log


class Kept(logging.Handler):
    """A host's handler that takes whatever it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.append(record.levelno)


@pytest.mark.parametrize("wanted", [logging.WARNING, logging.INFO])
async def test_a_hosts_log_gets_what_it_asked_for_and_no_more(tmp_path: Path, wanted: int) -> None:
    kept, ours = Kept(), logging.getLogger("bulkops")
    logging.getLogger().addHandler(kept)
    ours.setLevel(wanted)
    try:
        async with running(house(tmp_path)) as bulk:
            await ended(bulk, await bulk.start("sessions", "delete", ids=[1]))
            logging.getLogger("bulkops.runner").warning("something odd")
    finally:
        ours.setLevel(logging.NOTSET)
        logging.getLogger().removeHandler(kept)
    assert kept.levels.count(logging.WARNING) == 1
    assert (logging.INFO in kept.levels) == (wanted == logging.INFO)


def process_wide() -> dict[str, Any]:
    root = logging.getLogger()
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "switch interval": sys.getswitchinterval(),
        "locale": locale.setlocale(locale.LC_ALL),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "root logger": (root.level, list(root.handlers), logging.root.manager.disable),
        "path": list(sys.path),
    }


async def test_nothing_process_wide_is_touched(tmp_path: Path) -> None:
    before = process_wide()
    async with running(house(tmp_path)) as bulk:
        await ended(bulk, await bulk.start("sessions", "delete", ids=[1]))
        assert process_wide() == before
    assert process_wide() == before


async def test_before_its_lifespan_it_says_what_is_missing(tmp_path: Path) -> None:
    bulk = house(tmp_path)
    app = Starlette(routes=[Mount("/bulk", bulk.app)])
    async with asking(app) as client:
        answer = await client.get("/bulk/api/me")
        assert (answer.status_code, answer.json()["code"]) == (503, "DRAINING")
        assert "lifespan=bulk.lifespan" in answer.json()["detail"]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await bulk.app({"type": "websocket", "path": "/ws", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": "DRAINING"}]
    with pytest.raises(RuntimeError, match=r"lifespan=bulk\.lifespan"):
        await bulk.start("sessions", "delete", ids=[1])


async def test_a_second_sqlite_in_the_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = Bulkops({"server": {}, "resources": {}}, base=tmp_path)
    monkeypatch.setitem(sys.modules, "apsw", types.ModuleType("apsw"))
    with pytest.raises(StartRefused, match="second SQLite"):
        async with bulk.lifespan():
            pass
    # One that took the first one's place is the only one.
    monkeypatch.setitem(sys.modules, "apsw", sqlite3)
    async with bulk.lifespan():
        pass


async def test_one_data_directory_has_one_house(tmp_path: Path) -> None:
    async with running(house(tmp_path)) as bulk:
        with pytest.raises(StartRefused):
            async with bulk.lifespan():
                pass
        with pytest.raises(StartRefused):
            async with Bulkops(declared(), base=tmp_path).lifespan():
                pass
        await ended(bulk, await bulk.start("sessions", "delete", ids=[1]))


@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("/proxy", "/proxy/bulk/api/bulk/sessions/delete"),
        ("/proxy", "/bulk/api/bulk/sessions/delete"),
        ("/a b/ü", "/bulk/api/bulk/sessions/delete"),
    ],
)
async def test_behind_a_proxy_paths_bear_its_prefix_too(tmp_path: Path, root_path: str, path: str) -> None:
    app = host_of(house(tmp_path, authenticate=by_header))
    async with app.router.lifespan_context(app), asking(app, root_path=root_path) as client:
        answer = await client.post(path, json={"ids": ["1"]})
        assert answer.status_code == 202
        prefix = str(httpx.URL(f"{HOST}{root_path}/bulk").raw_path, "ascii")
        assert answer.headers["location"] == f"{prefix}/api/jobs/{answer.json()['id']}"


def test_sockets_follow_jobs_below_the_mount(tmp_path: Path) -> None:
    app = host_of(house(tmp_path, authenticate=by_header))
    with (
        served(app) as url,
        httpx.Client(headers={"x-user": "ana"}) as client,
        connect(
            f"{url.replace('http', 'ws')}/bulk/ws",
            subprotocols=[Subprotocol("bulkops.v1")],
            additional_headers={"x-user": "ana"},
        ) as socket,
    ):
        socket.send(json.dumps({"type": "hello", "id": 1}))
        assert json.loads(socket.recv(10))["user"] == "ana"
        socket.send(json.dumps({"type": "subscribe", "id": 2, "sub": "a", "topic": {"kind": "all"}}))
        assert json.loads(socket.recv(10))["type"] == "subscribed"
        job = client.post(f"{url}/bulk/api/bulk/sessions/delete", json={"all": True}).json()
        seen: list[str] = []
        while "completed" not in seen:
            frame = json.loads(socket.recv(10))
            seen += [each["kind"] for each in frame.get("items", []) if each["job"] == job["id"]]
        assert seen[0] == "queued"


def test_events_lead_to_files_below_the_mount(tmp_path: Path) -> None:
    app = host_of(house(tmp_path, authenticate=by_header))
    with served(app) as url, httpx.Client(headers={"x-user": "ana"}) as client:
        job = client.post(f"{url}/bulk/api/bulk/sessions/export", json={"all": True}).json()
        job = client.get(f"{url}{job['links']['self']}", params={"wait": 20}).json()
        path = job["artifacts"][0]["download_url"]
        assert path.startswith("/bulk/api/artifacts/")
        events = f"{url}/bulk/api/jobs/{job['id']}/events"
        told = [
            each["data"]["artifacts"][0]["download_url"]
            for each in client.get(events, params={"since": "earliest"}).json()["items"]
            if "artifacts" in each["data"]
        ]
        assert told == [path]
        stream = client.get(
            events, headers={"Accept": "text/event-stream"}, params={"since": "earliest"}
        ).text
        assert f'"download_url":"{path}"' in stream
        with connect(
            f"{url.replace('http', 'ws')}/bulk/ws",
            subprotocols=[Subprotocol("bulkops.v1")],
            additional_headers={"x-user": "ana"},
        ) as socket:
            topic = {"kind": "job", "job": job["id"]}
            socket.send(json.dumps({"type": "hello", "id": 1}))
            socket.send(
                json.dumps({"type": "subscribe", "id": 2, "sub": "a", "topic": topic, "since": "earliest"})
            )
            frames = [json.loads(socket.recv(10))]
            while frames[-1]["type"] != "events" or frames[-1]["items"][-1]["kind"] != "completed":
                frames.append(json.loads(socket.recv(10)))
        assert frames[-1]["items"][-1]["data"]["artifacts"][0]["download_url"] == path
        assert client.get(f"{url}{path}").status_code == 200


def test_it_is_served_without_a_host_around_it(tmp_path: Path) -> None:
    with served(house(tmp_path, authenticate=by_header).app) as url:
        assert httpx.get(f"{url}/api/me", headers={"x-user": "ana"}).json()["user"] == "ana"


async def test_a_house_that_cannot_start_keeps_the_host_from_starting(tmp_path: Path) -> None:
    (tmp_path / "bulkops.db").write_text("no database at all, but long enough to be looked at" * 20)
    app = host_of(house(tmp_path))
    with pytest.raises(StartRefused, match="not a database"):
        async with app.router.lifespan_context(app):
            pass


async def test_the_host_starts_and_watches_jobs_itself(tmp_path: Path) -> None:
    async with running(house(tmp_path)) as bulk:
        job = await bulk.start(
            "sessions", "delete", filter={"status": "open"}, exclude_ids=[2], tenant="zeta", user="cron",
            reason="nightly", options={"hard": True},
        )  # fmt: skip
        job = await ended(bulk, job)
        assert (job.requested_by, job.tenant, job.reason, job.succeeded) == ("cron", "zeta", "nightly", 14)
        for wishes, code in (
            ({"ids": []}, "EMPTY_SELECTION"),
            ({}, "EMPTY_SELECTION"),
            ({"ids": [1], "colour": "red"}, "INVALID_FIELD"),
            ({"ids": [1], "priority": "high"}, "INVALID_FIELD"),
        ):
            with pytest.raises(Refusal) as refused:
                await bulk.start("sessions", "delete", **wishes)
            assert refused.value.code == code
        with pytest.raises(Refusal):
            await bulk.job("nobody's")


async def test_a_house_that_drains_takes_no_new_work(tmp_path: Path) -> None:
    bulk = house(tmp_path, authenticate=by_header)
    bulk.drain()
    app = host_of(bulk)
    async with app.router.lifespan_context(app), asking(app) as client:
        bulk.drain()
        answer = await client.post("/bulk/api/bulk/sessions/delete", json={"ids": [1]})
        assert answer.json()["code"] == "DRAINING"
        with pytest.raises(Refusal, match="shutting down"):
            await bulk.start("sessions", "delete", ids=[1])


async def test_it_reads_the_same_file_as_the_command(tmp_path: Path) -> None:
    make_database(tmp_path)
    file = tmp_path / "bulkops.toml"
    file.write_text(
        '[resources.sessions]\nkind = "table"\ndatabase = "app.db"\ntable = "sessions"\nid = "id"\n',
        encoding="utf-8",
    )
    async with running(Bulkops.from_file(file)) as bulk:
        assert (await ended(bulk, await bulk.start("sessions", "delete", all=True))).succeeded == 30
    file.write_text("[resource]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bulkops\.toml: resource "):
        Bulkops.from_file(file)


async def test_a_resource_in_python_that_cannot_be_imported_is_said_at_the_start(tmp_path: Path) -> None:
    settings = {"resources": {"things": {"kind": "package.module:Name"}}}
    with pytest.raises(ConfigError, match=r"resources\.things\.kind: cannot import 'package\.module:Name'"):
        async with Bulkops(settings, base=tmp_path).lifespan():
            pass


def test_importing_it_costs_next_to_nothing() -> None:
    program = (
        "import sys, bulkops; print(bulkops.__version__, *sorted({'starlette', 'msgspec', 'anyio', 'sqlite3'}"
        " & set(sys.modules))); from bulkops import Batch, Bulkops, Caller; print(Bulkops.__module__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0.1.0", "bulkops.embedding"]


def test_there_is_nothing_else_in_it() -> None:
    import bulkops

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = bulkops.Nothing
