"""A server of this config in this process, and what the machine's owner needs to reach it.

What comes in: settings; what goes out: a `Running` once requests are answered. The runtime file stands while
it serves and is gone afterwards; the key in it is new each time and worth nothing after the next start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import msgspec
from anyio.abc import TaskStatus

from bulkops import runtime_file
from bulkops.runtime import open_runtime
from bulkops.runtime_file import RuntimeFile
from bulkops.settings import Settings
from bulkops.timing import SystemClock, rfc3339
from bulkops.web.app import build_app
from bulkops.web.server import serve

_ANY: dict[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound


class Running(msgspec.Struct, frozen=True):
    """A server that answers: its address, the owner's key of this machine, a link that works once."""

    url: str
    key: str
    login_url: str
    stop: Callable[[], object]


async def run_server(
    settings: Settings, *, on_ready: Callable[[Running], object], signals: bool = True
) -> int | None:
    """Serve until a signal or `Running.stop`; returns the signal, ``None`` without one.

    ``on_ready`` is called in the event loop and must return at once.

    Raises:
        ConfigError, StartRefused: the house cannot start.

    """
    async with open_runtime(settings) as runtime:
        key = secrets.token_urlsafe(32)
        await runtime.credentials.install_local(key)
        code = await runtime.credentials.issue_login()

        def ready(host: str, port: int) -> None:
            url = url_of(host, port)
            content = RuntimeFile(
                url=url,
                pid=os.getpid(),
                key=key,
                instance=runtime.store.instance,
                started_at=rfc3339(SystemClock().now_ms()) or "",
            )
            runtime_file.write(settings.data_dir, content)
            on_ready(Running(url, key, f"{url}/#login={code}", runtime.draining.set))

        try:
            return await serve(
                build_app(runtime),
                host=settings.server.host,
                port=settings.server.port,
                draining=runtime.draining,
                on_ready=ready,
                signals=signals,
            )
        finally:
            runtime_file.remove(settings.data_dir, pid=os.getpid())


@contextmanager
def open_server(settings: Settings) -> Iterator[Running]:
    """Serve from another thread while the block runs, so that ordinary code can be its client.

    Raises:
        ConfigError, StartRefused: the house cannot start.

    """
    from anyio.from_thread import start_blocking_portal  # late: `serve` needs no portal

    async def run(*, task_status: TaskStatus[Running]) -> None:
        await run_server(settings, on_ready=task_status.started, signals=False)

    with start_blocking_portal("asyncio") as portal:
        future, running = portal.start_task(run)
        try:
            yield running
        finally:
            portal.call(running.stop)
            future.result()


def url_of(host: str, port: int) -> str:
    """Write the address that this machine reaches a bound socket by."""
    host = _ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_until_stopped(settings: Settings, on_ready: Callable[[Running], object]) -> int | None:
    """Run `run_server` in this thread; raises as it does."""
    return anyio.run(lambda: run_server(settings, on_ready=on_ready))
