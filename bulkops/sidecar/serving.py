"""The house of a sidecar, open until its end is wished for.

What comes in: settings, the host's token and an `Ending`; what goes out: `ready` once requests are answered.
The token stands for the owner of this machine while this house is open, and is written nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Final

import anyio

from bulkops import __version__, runtime_file
from bulkops.errors import StartRefused
from bulkops.joblog import LogFile
from bulkops.nimble import keep_the_loop_nimble
from bulkops.runtime import Runtime, open_runtime
from bulkops.runtime_file import RuntimeFile
from bulkops.settings import Settings
from bulkops.sidecar.ending import Ending
from bulkops.sidecar.outlet import Speech
from bulkops.timing import rfc3339
from bulkops.web.app import build_app
from bulkops.web.doorkeeper import Bounds
from bulkops.web.server import serve

#: A host that was ended by force comes back at once, and then its old sidecar is still on its way out.
_LOCK_WAIT_S: Final = 3.0
_LOCK_LOOK_S: Final = 0.03
#: Clients are on this machine; they read a goodbye at once or not at all.
_DRAIN_S: Final = 0.4


async def serve_house(
    settings: Settings, token: str | None, ending: Ending, speech: Speech, on_ready: Callable[[], object]
) -> None:
    """Serve until the end is wished for; ``on_ready`` is called when `ready` was said.

    Raises:
        ConfigError, StartRefused: the house cannot start.
    """
    async with AsyncExitStack() as stack:
        others = stack.enter_context(_other_logs())
        runtime = await _open(stack, settings, ending)
        if runtime is None:
            return
        others.log = runtime.log
        made = None if token else secrets.token_urlsafe(32)
        key = await runtime.credentials.install_machine(token or made or "")
        stack.callback(runtime_file.remove, settings.data_dir, pid=os.getpid())

        def ready(host: str, port: int) -> None:
            keep_the_loop_nimble()
            if ending.wish is None:
                _leave_word(runtime, port, key)
                _say_ready(speech, runtime, host, port, made)
                on_ready()

        ending.listen(_on_this_loop(lambda: _begin_to_end(runtime, ending)))
        await serve(
            build_app(runtime, open_page=False),
            host=settings.server.host,
            port=settings.server.port,
            draining=runtime.draining,
            on_ready=ready,
            signals=False,
            bounds=Bounds(drain_s=_DRAIN_S),
        )


async def _open(stack: AsyncExitStack, settings: Settings, ending: Ending) -> Runtime | None:
    """Open the house, waiting for another to leave it; ``None`` when the end comes first."""
    until = time.monotonic() + _LOCK_WAIT_S
    while ending.wish is None:
        try:
            return await stack.enter_async_context(open_runtime(settings))
        except StartRefused as refused:
            if refused.code != "already_running" or time.monotonic() >= until:
                raise
        await anyio.sleep(_LOCK_LOOK_S)
    return None


def _begin_to_end(runtime: Runtime, ending: Ending) -> None:
    if ending.wish is not None:
        runtime.stop_grace_s = ending.wish.grace_s
    # The batch in hand may take its time while the doors close, not only afterwards.
    runtime.workers.stop()
    runtime.draining.set()


def _on_this_loop(act: Callable[[], object]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def call() -> None:
        with suppress(RuntimeError):  # the loop is closed: everything has ended already
            loop.call_soon_threadsafe(act)

    return call


def _leave_word(runtime: Runtime, port: int, key: str) -> None:
    """Let the `bulkops` command of this machine's owner find us."""
    word = RuntimeFile(
        url=f"http://127.0.0.1:{port}",
        pid=os.getpid(),
        key=key,
        instance=runtime.store.instance,
        started_at=rfc3339(runtime.clock.now_ms()) or "",
    )
    runtime_file.write(runtime.settings.data_dir, word)


def _say_ready(speech: Speech, runtime: Runtime, host: str, port: int, made: str | None) -> None:
    speech.say(
        "ready",
        v=1,
        host=host,
        port=port,
        http=f"http://{host}:{port}",
        ws=f"ws://{host}:{port}/ws",
        pid=os.getpid(),
        instance=runtime.store.instance,
        epoch=runtime.store.epoch,
        version=__version__,
        **({} if made is None else {"token": made}),
    )


class _Others(logging.Handler):
    """Puts into our log what other libraries complain of; without it they would do so on the host's pipes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.log: LogFile | None = None

    def emit(self, record: logging.LogRecord) -> None:
        # Ours is there already.
        if self.log is not None and record.name.partition(".")[0] != "bulkops":
            self.log.handle(record)


@contextmanager
def _other_logs() -> Iterator[_Others]:
    others = _Others()
    root = logging.getLogger()
    root.addHandler(others)
    try:
        yield others
    finally:
        root.removeHandler(others)
