"""The application: guard, table, live routes and the page's files, composed.

A running runtime comes in, an ASGI application goes out. Nothing happens here but composition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.routing import Router
from starlette.types import ASGIApp

from bulkops.store.idempotency import InFlight
from bulkops.web import (
    artifacts,
    audit,
    bulk,
    cleanup,
    house,
    jobs,
    live_reference,
    people,
    problems,
    schedules,
    static_files,
    tasks,
    webhooks,
)
from bulkops.web.authentication import Authenticate, Authenticator, Denials
from bulkops.web.guard import Guard, Traffic, gate
from bulkops.web.live import live_routes
from bulkops.web.routing import Door, Operation, build_routes, not_found
from bulkops.web.wiring import Runtime

#: Everything that can be asked, in the order of the reference.
OPERATIONS: Final[tuple[Operation, ...]] = (
    *bulk.OPERATIONS,
    *jobs.OPERATIONS,
    *tasks.OPERATIONS,
    *artifacts.OPERATIONS,
    *live_reference.OPERATIONS,
    *cleanup.OPERATIONS,
    *schedules.OPERATIONS,
    *webhooks.OPERATIONS,
    *people.OPERATIONS,
    *audit.OPERATIONS,
    *house.OPERATIONS,
)


def build_app(
    runtime: Runtime,
    *,
    authenticate: Authenticate | None = None,
    operations: Sequence[Operation] = OPERATIONS,
    open_page: bool = True,
) -> ASGIApp:
    """Compose the application over a runtime; ``authenticate`` is a host application's own word on who asks.

    Without ``open_page`` the page, its files and `/readyz` need a credential as everything else does.
    The settings' ``allowed_hosts`` and ``allowed_origins`` are read once, here.
    """
    if not open_page:
        operations = [
            msgspec.structs.replace(each, role="caller") if each.path == "/readyz" else each
            for each in operations
        ]
    authenticator = Authenticator(runtime.credentials, runtime.clock, authenticate)
    traffic = Traffic()
    door = Door(runtime, authenticator, Denials(runtime.store), InFlight(), traffic, tuple(operations), {})
    files = static_files.list_files(static_files.static_dir())
    router = Router(
        routes=[
            *live_routes(runtime, authenticator),
            *build_routes(operations, door),
            static_files.StaticRoute(files, require=None if open_page else authenticator.require),
        ],
        redirect_slashes=False,
        default=not_found,
    )
    server = runtime.settings.server
    return Guard(
        problems.Boundary(router), gate(server.allowed_hosts, server.allowed_origins), traffic=traffic
    )
