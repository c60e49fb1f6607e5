"""The doors over a real store and real credentials, and raw requests to knock with.

The service behind them is a small one that remembers what it was asked: these tests judge the doors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import msgspec

from bulkops.configuration import from_dict
from bulkops.errors import Refusal
from bulkops.feed import Feed
from bulkops.hub import Hub
from bulkops.ids import new_id
from bulkops.models import Caller, ItemsQuery, JobView, SelectionView, StartBody
from bulkops.settings import Settings
from bulkops.store import audit, credentials, idempotency
from bulkops.store.idempotency import Idempotency
from bulkops.store.instance import InstanceLock
from bulkops.store.keyring import Keyring
from bulkops.store.store import Store, open_store
from bulkops.store.transaction import Tx
from bulkops.timing import Clock
from bulkops.web.app import build_app
from bulkops.web.wiring import Runtime

HOST = "127.0.0.1:8765"
OWN = f"http://{HOST}"


@asynccontextmanager
async def opened_store(folder: Path, clock: Clock) -> AsyncIterator[Store]:
    """Open a real store below ``folder``."""
    data_dir = folder / "data"
    data_dir.mkdir(exist_ok=True)
    lock = InstanceLock(data_dir)
    store = await open_store(folder / "bulkops.db", data_dir, clock, lock)
    try:
        yield store
    finally:
        await store.close()
        lock.release()


def job_view(job_id: str, **members: Any) -> JobView:
    """Make a queued job's view."""
    absent = {field.name: None for field in msgspec.structs.fields(JobView) if field.name != "rejected"}
    made = {
        **absent,
        "id": job_id,
        "resource": "receipts",
        "action": "delete",
        "label": "Delete",
        "status": "queued",
        "terminal": False,
        "allowed_actions": ["pause", "cancel"],
        "source": "user",
        "requested_by": "ana",
        "selection": SelectionView("ids", None, 1, 0),
        "options": {},
        "processed": 0,
        "succeeded": 0,
        "failed": 0,
        "skipped": 0,
        "in_progress": [],
        "active_seconds": 0.0,
        "priority": 100,
        "artifacts": [],
        "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z",
        "links": {"self": f"/api/jobs/{job_id}", "items": f"/api/jobs/{job_id}/items"},
        "cursor": "k3f9:1",
    }
    return JobView(**{**made, **members})


class RecordingService:
    """Remembers what it was asked; has jobs, but does nothing to anybody's data."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[tuple[Any, ...]] = []
        self.views: dict[str, JobView] = {}
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    def _note(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error

    def _find(self, caller: Caller, job_id: str) -> JobView:
        view = self.views.get(job_id)
        if view is None or caller.tenant not in {None, view.tenant}:
            raise Refusal("NOT_FOUND", f"job {job_id} is unknown")
        return view

    async def catalog(self, caller: Caller) -> list[dict[str, Any]]:
        self._note("catalog", caller)
        return [{"name": "receipts"}]

    async def info(self, caller: Caller, resource: str) -> dict[str, Any]:
        self._note("info", caller, resource)
        return {"name": resource}

    async def items(self, caller: Caller, resource: str, query: ItemsQuery) -> dict[str, Any]:
        self._note("items", caller, resource, query)
        return {"items": [], "next": None, "total": 0, "total_capped": False}

    async def start(
        self,
        caller: Caller,
        resource: str,
        action: str,
        body: StartBody,
        *,
        idempotency: Idempotency | None = None,
    ) -> JobView:
        self._note("start", caller, resource, action, body)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        view = job_view(new_id(), resource=resource, action=action, tenant=caller.tenant)
        await self._record(idempotency, view, status=202)
        self.views[view.id] = view
        return view

    async def _record(self, request: Idempotency | None, view: JobView, *, status: int) -> None:
        def work(tx: Tx) -> None:
            if request is not None:
                body = msgspec.json.encode(view)
                idempotency.record(tx, request, status=status, location=f"/api/jobs/{view.id}", body=body)

        await self._store.write(work)

    async def job(self, caller: Caller, job_id: str, *, wait_s: float = 0) -> JobView:
        self._note("job", caller, job_id, wait_s)
        return self._find(caller, job_id)

    async def upload_selection(self, caller: Caller, ids: AsyncIterator[list[str]]) -> dict[str, Any]:
        pages = [page async for page in ids]
        self._note("upload", caller, pages)
        return {
            "selection_id": "S",
            "count": sum(map(len, pages)),
            "expires_at": "2026-01-01T00:00:00.000Z",
        }

    async def report(
        self,
        caller: Caller,
        job_id: str,
        *,
        format: str,  # noqa: A002  the name on the wire
        outcome: str | None,
    ) -> AsyncIterator[bytes]:
        self._note("report", caller, job_id, format, outcome)
        self._find(caller, job_id)

        async def lines() -> AsyncIterator[bytes]:
            yield b"id,outcome\r\n"
            yield b"1,failed\r\n"

        return lines()

    async def audit(
        self, caller: Caller, *, job: str | None, tenant: str | None, limit: int, page: str | None
    ) -> dict[str, Any]:
        before = None if page is None else int(page)
        rows = await self._store.read(
            lambda connection: audit.page(
                connection, tenant=caller.tenant or tenant, job=job, before=before, limit=limit
            )
        )
        following = str(rows[-1].seq) if len(rows) == limit else None
        return {"items": [audit.view(row) for row in rows], "next": following}

    def __getattr__(self, name: str) -> Any:
        """Answer every other question with what was asked."""

        async def answer(*args: Any, **kwargs: Any) -> Any:
            self._note(name, *args, kwargs)
            if name in {"pause", "resume", "cancel", "tune"}:
                return self._find(args[0], args[1])
            if name in {"retry", "undo"}:
                self._find(args[0], args[1])
                view = job_view(new_id(), tenant=args[0].tenant)
                await self._record(kwargs.get("idempotency"), view, status=202)
                return view, True
            return {"items": [], "next": None}

        return answer


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        assert self.header("content-type") == "application/problem+json", self
        return str(self.json["code"])


async def knock(
    app: Any,
    method: str,
    target: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | list[bytes] = b"",
    json: Any = None,
    host: str | None = HOST,
    root_path: str = "",
    scheme: str = "http",
    client: tuple[str, int] = ("127.0.0.1", 50000),
) -> Answer:
    """Send one raw request; headers are sent as they are, even twice."""
    path, _, query = target.partition("?")
    sent = [(b"host", host.encode("latin-1"))] if host is not None else []
    sent += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if json is not None:
        body = msgspec.json.encode(json)
        sent.append((b"content-type", b"application/json"))
    chunks = body if isinstance(body, list) else [body]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": place + 1 < len(chunks)}
        for place, chunk in enumerate(chunks)
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": root_path + unquote(path),
        "raw_path": (root_path + path).encode("latin-1"),
        "root_path": root_path,
        "query_string": query.encode("latin-1"),
        "headers": sent,
        "client": client,
        "server": ("127.0.0.1", 8765),
        "extensions": {},
    }
    got: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        got.append(message)

    await app(scope, receive, send)
    start = got[0]
    content = b"".join(each.get("body", b"") for each in got[1:])
    answered = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return Answer(start["status"], answered, content)


async def knock_socket(
    app: Any, target: str = "/ws", *, headers: Iterable[tuple[str, str]] = (), host: str = HOST
) -> list[dict[str, Any]]:
    """Try one WebSocket handshake; returns what the server sent, which hangs up after its first word."""
    sent = [(b"host", host.encode("latin-1"))]
    sent += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    protocols = [value for name, value in headers if name.lower() == "sec-websocket-protocol"]
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": target,
        "raw_path": target.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": sent,
        "subprotocols": [each.strip() for line in protocols for each in line.split(",")],
        "client": ("127.0.0.1", 50000),
        "extensions": {"websocket.http.response": {}},
    }
    incoming: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1001},
    ]
    got: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        got.append(message)

    await app(scope, receive, send)
    return got


@dataclass
class Doors:
    """An application and what stands behind it."""

    app: Any
    store: Store
    credentials: Keyring
    service: RecordingService
    settings: Settings
    clock: Clock
    feed: Feed
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def key(self, *, user: str = "ana", tenant: str | None = "acme", role: str = "operator") -> str:
        made = await self.store.write(
            lambda tx: credentials.create_key(tx, user=user, tenant=tenant, role=role)
        )
        return made[1]

    async def ask(self, method: str, target: str, *, key: str | None = None, **more: Any) -> Answer:
        """Knock with a key."""
        headers = list(more.pop("headers", ()))
        if key is not None:
            headers.append(("authorization", f"Bearer {key}"))
        return await knock(self.app, method, target, headers=headers, **more)

    async def verbs(self) -> list[str]:
        """List the verbs of the audit, oldest first."""
        rows = await self.store.read(lambda connection: audit.page(connection, tenant=None, limit=1000))
        return [row.verb for row in reversed(rows)]


@asynccontextmanager
async def opened_doors(
    folder: Path, clock: Clock, *, server: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[Doors]:
    """Open doors over a store below ``folder``; ``server`` are settings, ``more`` goes to `build_app`."""
    settings = from_dict({"server": server or {}, "resources": {}}, folder, {})
    async with opened_store(folder, clock) as store:
        feed = Feed(store, Hub())
        doors = Doors(None, store, Keyring(store), RecordingService(store), settings, clock, feed)
        doors.app = build_app(cast("Runtime", doors), **more)
        yield doors
