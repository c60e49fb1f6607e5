"""Where commands ask that work with and without a running server: over HTTP, or in this very process.

What comes in: plain arguments; what goes out: the JSON of the API as dictionaries, the same from
both. In process the instance lock is held from opening to closing, so never two at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final, Protocol
from urllib.parse import quote

from bulkops.cli.invocation import Invocation
from bulkops.client import Client
from bulkops.errors import Refusal, StartRefused

_PATIENCE_S: Final = 3.0
_AGAIN_S: Final = 0.05


class Desk(Protocol):
    """What both ways offer; every method may raise `Refusal`."""

    def jobs(self, params: dict[str, Any]) -> dict[str, Any]: ...
    def job(self, job: str) -> dict[str, Any]: ...
    def job_errors(self, job: str) -> list[dict[str, Any]]: ...
    def report(self, job: str, *, form: str, outcome: str | None) -> Iterator[bytes]: ...
    def artifact(self, artifact: str) -> dict[str, Any]: ...
    def download(self, artifact: str) -> Iterator[bytes]: ...
    def keys(self) -> list[dict[str, Any]]: ...
    def create_key(self, body: dict[str, Any]) -> dict[str, Any]: ...
    def revoke_key(self, key: str) -> None: ...
    def cleanup(self, *, batch_size: int, max_attempts: int) -> dict[str, Any]: ...
    def cleanup_stats(self) -> dict[str, Any]: ...
    def cleanup_items(self, *, limit: int, page: str | None) -> dict[str, Any]: ...
    def cleanup_requeue(self, entry: int) -> None: ...
    def cleanup_drop(self, entry: int) -> None: ...
    def trash(self, params: dict[str, Any]) -> dict[str, Any]: ...
    def audit(self, params: dict[str, Any]) -> dict[str, Any]: ...


class RemoteDesk:
    """Asks a running server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def jobs(self, params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get("/api/jobs", params)
        return answer

    def job(self, job: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get(job_path(job))
        return answer

    def job_errors(self, job: str) -> list[dict[str, Any]]:
        return _items(self._client.get(job_path(job, "errors")))

    def report(self, job: str, *, form: str, outcome: str | None) -> Iterator[bytes]:
        params = {"format": form} | ({"outcome": outcome} if outcome else {})
        with self._client.stream(job_path(job, "report"), params) as chunks:
            yield from chunks

    def artifact(self, artifact: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get(f"/api/artifacts/{quote(artifact, safe='')}")
        return answer

    def download(self, artifact: str) -> Iterator[bytes]:
        with self._client.stream(f"/api/artifacts/{quote(artifact, safe='')}/download", {}) as chunks:
            yield from chunks

    def keys(self) -> list[dict[str, Any]]:
        return _items(self._client.get("/api/keys", {"limit": 1000}))

    def create_key(self, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post("/api/keys", body)
        return answer

    def revoke_key(self, key: str) -> None:
        self._client.delete(f"/api/keys/{quote(key, safe='')}")

    def cleanup(self, *, batch_size: int, max_attempts: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post(
            "/api/cleanup/run", params={"batch_size": batch_size, "max_attempts": max_attempts}
        )
        return answer

    def cleanup_stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get("/api/cleanup/stats")
        return answer

    def cleanup_items(self, *, limit: int, page: str | None) -> dict[str, Any]:
        params = {"limit": limit} | ({"page": page} if page else {})
        answer: dict[str, Any] = self._client.get("/api/cleanup/items", params)
        return answer

    def cleanup_requeue(self, entry: int) -> None:
        self._client.post(f"/api/cleanup/items/{entry}/requeue")

    def cleanup_drop(self, entry: int) -> None:
        self._client.delete(f"/api/cleanup/items/{entry}")

    def trash(self, params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get("/api/trash", params)
        return answer

    def audit(self, params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get("/api/audit", params)
        return answer


def job_path(job: str, *rest: str) -> str:
    """Write the path of a job or of something below it, whatever characters its id has.

    Raises:
        Refusal: (``NOT_FOUND``) no job has an empty id: its path would be that of all.

    """
    if not job:
        raise Refusal("NOT_FOUND", "no such job")
    return "/".join(["/api/jobs", quote(job, safe=""), *rest])


def _items(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["items"] if isinstance(answer, dict) else answer
    return found


@contextmanager
def open_desk(invocation: Invocation) -> Iterator[Desk]:
    """Reach the server that `--url` names or that runs for this config; without one, work in process.

    Who works in process too has done in a moment, and a server that is just starting can soon be reached: both
    are waited for.

    Raises:
        StartRefused: in process, and another instance holds the lock or the database is not fit.

    """
    until = time.monotonic() + _PATIENCE_S
    with ExitStack() as stack:
        while (desk := _try_desk(invocation, stack, may_wait=time.monotonic() < until)) is None:
            time.sleep(_AGAIN_S)
        yield desk


def _try_desk(invocation: Invocation, stack: ExitStack, *, may_wait: bool) -> Desk | None:
    """Open a desk for as long as the stack; ``None`` while somebody else is at it."""
    if invocation.url is not None or invocation.running() is not None:
        return RemoteDesk(stack.enter_context(closing(invocation.client())))
    from bulkops.cli.local_desk import open_local_desk  # late: the engine is slow to import

    try:
        return stack.enter_context(open_local_desk(invocation.settings()))
    except StartRefused as refused:
        if may_wait and refused.code == "already_running":
            return None
        raise
