"""bulkops inside a host application: its settings, its own actions, its word on who asks, mounted where it likes.

What comes in: settings, functions, requests below a mount point; what goes out: an ASGI application and a
lifespan to compose. Two of them in one process do not meet, and nothing process-wide is touched: no signal
handlers, no limits, no configuration of anybody's loggers but our own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, overload
from urllib.parse import quote

import msgspec
from starlette.requests import HTTPConnection
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from bulkops.configuration import from_dict, read_action, read_resource
from bulkops.configuration import load as load_settings
from bulkops.errors import ConfigError, Refusal, StartRefused, did_you_mean, invalid_field
from bulkops.models import Caller, JobView, StartBody
from bulkops.models import Id as WireId
from bulkops.resources import calling, host_options
from bulkops.resources.calling import Function, HostAction
from bulkops.resources.custom import declaration
from bulkops.resources.hosted import BUILT_IN
from bulkops.runtime import Runtime, open_runtime
from bulkops.settings import Settings
from bulkops.shapes import whole
from bulkops.web import problems
from bulkops.web.app import build_app
from bulkops.web.authentication import Authenticate, ask

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Function)

_NOT_RUNNING: Final = (
    "bulkops does not run: give the application lifespan=bulk.lifespan, "
    "or enter `async with bulk.lifespan(app)` in its own"
)
_OUR_KINDS: Final = frozenset({"table", "folder", "photos"})
_log = logging.getLogger("bulkops.embedding")


class Bulkops:
    """A house for a host application to mount and to run.

    ``authenticate`` is asked about every request that bears no key or token of ours: a function, async or
    not, from the request (or the socket's handshake) to a `Caller`, or to ``None`` for a stranger.
    """

    def __init__(
        self,
        settings: Settings | Mapping[str, Any],
        *,
        base: Path | str | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        """Take settings, or a dictionary shaped like the file; its relative paths are relative to ``base``.

        Raises:
            ConfigError: the settings say something that cannot be.

        """
        if not isinstance(settings, Settings):
            settings = from_dict(settings, Path(base or Path.cwd()), os.environ)
        self.settings = settings
        self._authenticate = authenticate
        self._actions: dict[str, dict[str, HostAction]] = {}
        self._made: dict[str, object] = {}
        self._runtime: Runtime | None = None
        self._inner: ASGIApp | None = None
        self._app = _Mounted(self)

    @classmethod
    def from_file(cls, file: Path | str, *, authenticate: Authenticate | None = None) -> Bulkops:
        """Read ``bulkops.toml`` and the environment, as the command does.

        Raises:
            ConfigError: the file cannot be read, or says something that cannot be.

        """
        return cls(load_settings(Path(file), os.environ), authenticate=authenticate)

    @overload
    def resource(self, name: str, **settings: Any) -> Callable[[C], C]: ...

    @overload
    def resource(self, name: str, thing: object, **settings: Any) -> object: ...

    def resource(self, name: str, thing: object = None, **settings: Any) -> object:
        """Declare a resource made in Python: an object, a class that is made without arguments, or a decorator's class.

        ``settings`` are those of ``[resources.<name>]``: ``tenant``, ``label``, ``search``, ``protect``, ``shared``,
        ``actions`` …; they go over what the class says of itself. What the class is to offer: see `action`
        of this package, and the README. Returns what was given.

        Raises:
            ConfigError: the name is taken, a setting impossible, the class no such class, or bulkops runs already.

        """
        if thing is None:
            return lambda cls: self.resource(name, cls, **settings)
        where = f"resource {name}"
        if name in self.settings.resources:
            raise ConfigError(where, "there is a resource of that name already")
        if self._runtime is not None:
            raise ConfigError(where, "bulkops runs already; declare resources before its lifespan begins")
        cls = thing if isinstance(thing, type) else type(thing)
        kind = f"{cls.__module__}:{cls.__name__}"
        declared = read_resource(where, name, {"kind": kind, **settings})
        found = declaration.make(where, kind, thing, declared.settings if cls is thing else {})
        declaration.read_declaration(where, found, declared)
        self._made[name] = found
        self.settings = msgspec.structs.replace(
            self.settings, resources={**self.settings.resources, name: declared}
        )
        return thing

    def action(
        self,
        resource: str,
        name: str,
        *,
        undo: Function | None = None,
        options: Mapping[str, Any] | type[msgspec.Struct] | None = None,
        timeout_s: float | None = None,
        retries: int = 2,
        batch_size: int = 20,
        throttle_ms: int | None = None,
        roles: Sequence[str] | None = None,
        confirm: str | None = None,
        rate: str | None = None,
        exclusive: bool = False,
        max_items: int | None = None,
        max_runtime_s: float | None = None,
        max_batch_failures: int = 10,
        auto_resume_s: float | None = None,
    ) -> Callable[[F], F]:
        """Make the decorated function an action of a resource; it takes a `Batch`, async or in a thread.

        A batch is handed over at least once: after a crash again, under the same ``batch.key``. A function
        that raises is called again, ``retries`` times with back-off; then all items of the batch failed with
        ``ACTION_ERROR``, and ``max_batch_failures`` such batches in a row pause the job. After ``timeout_s``
        they failed with ``TIMEOUT`` (a thread cannot be stopped: it goes on unheard). ``undo`` is called
        with the items to put back; without it the action is final, and roles below admin need ``roles``.
        What ``[resources.<resource>.actions.<name>]`` sets in the file goes over what is set here.

        Raises:
            ConfigError: the resource is unknown, the name taken, a setting impossible, the function no such
                function, or bulkops runs already.

        """
        where = f"action {resource}.{name}"
        self._check_place(where, resource, name)
        given = {
            "batch_size": batch_size, "throttle_ms": throttle_ms, "confirm": confirm, "rate": rate,
            "roles": None if roles is None else list(roles), "exclusive": exclusive, "max_items": max_items,
            "max_runtime_s": max_runtime_s, "max_batch_failures": max_batch_failures,
            "auto_resume_s": auto_resume_s,
        }  # fmt: skip
        settings = read_action(where, name, given)
        declared = host_options.declare(where, options)

        def declare(function: F) -> F:
            self._check_place(where, resource, name)
            self._actions.setdefault(resource, {})[name] = calling.declare(
                where, name, function,
                undo=undo, options=declared, settings=settings, timeout_s=timeout_s, retries=retries,
                taken=BUILT_IN if self.settings.resources[resource].kind in _OUR_KINDS else (),
            )  # fmt: skip
            return function

        return declare

    def _check_place(self, where: str, resource: str, name: str) -> None:
        known = self.settings.resources
        if resource not in known:
            raise ConfigError(where, f"there is no resource {resource!r}{did_you_mean(resource, known)}")
        if name in self._actions.get(resource, {}):
            raise ConfigError(where, "this action is declared already")
        if self._runtime is not None:
            raise ConfigError(where, "bulkops runs already; declare actions before its lifespan begins")

    @property
    def app(self) -> ASGIApp:
        """The application to mount, at any path; it answers 503 while the lifespan is not entered."""
        return self._app

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:  # noqa: ARG002  what frameworks pass
        """Run the jobs for the length of the block; to be the host's lifespan, or to be entered in it.

        Raises:
            ConfigError: a resource is declared wrongly.
            StartRefused: another process, or another one in this, works on the same data directory.

        """
        if self._runtime is not None:
            raise StartRefused("already_running", "this bulkops runs already")
        async with open_runtime(self.settings, hosted=self._actions, made=self._made) as runtime:
            self._inner = build_app(runtime, authenticate=self._authenticated)
            self._runtime = runtime
            try:
                yield
            finally:
                self._runtime = None

    async def _authenticated(self, connection: HTTPConnection) -> Caller | None:
        caller = await ask(self._authenticate, connection)
        if caller is None:
            return None
        if not isinstance(caller, Caller):
            raise TypeError(
                f"authenticate returned {type(caller).__name__}; a bulkops.Caller or None is needed"
            )
        if not caller.user or caller.tenant == "":
            raise ValueError(
                "authenticate returned a Caller without a name or tenant; tenant None is for all"
            )
        return msgspec.structs.replace(caller, roles=frozenset(caller.roles))

    def drain(self) -> None:
        """Say goodbye to all who follow, and take no new work: for hosts that end before their lifespan does.

        Without a running house nothing happens.
        """
        if self._runtime is not None:
            self._runtime.draining.set()
            self._runtime.service.release_waiting()

    async def start(
        self,
        resource: str,
        action: str,
        *,
        ids: Sequence[WireId] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  the field's name on the wire
        all: bool | None = None,  # noqa: A002  as above
        selection_id: str | None = None,
        tenant: str | None = None,
        user: str = "host",
        **wishes: Any,
    ) -> JobView:
        """Start a job as the host itself, an owner; ``wishes`` are other fields of the start's body.

        ``user`` is who wanted it, and sees it as their own; ``tenant`` whose items it may touch, ``None`` all.
        The links of the answer bear no mount prefix.

        Raises:
            Refusal: what the same request would be refused with.
            RuntimeError: the lifespan is not entered.

        """
        given = {"ids": ids, "filter": filter, "all": all, "selection_id": selection_id, "tenant": tenant}
        try:
            body = msgspec.convert(
                {name: value for name, value in given.items() if value is not None} | wishes,
                whole(StartBody),
            )
        except msgspec.ValidationError as error:
            raise invalid_field("", str(error)) from error
        runtime = self._running()
        if runtime.draining.is_set():
            raise Refusal("DRAINING", "bulkops is shutting down")
        with runtime.log.speaking():
            return await runtime.service.start(_owner(user), resource, action, body)

    async def job(self, job_id: str, *, wait_s: float = 0) -> JobView:
        """Show a job, with ``wait_s`` (at most 60) once it has ended or the time is over.

        Raises:
            Refusal: (``NOT_FOUND``) there is no such job.
            RuntimeError: the lifespan is not entered.

        """
        return await self._running().service.job(_owner("host"), job_id, wait_s=wait_s)

    @property
    def runtime(self) -> Runtime:
        """The running house, for tools and tests.

        Raises:
            RuntimeError: the lifespan is not entered.

        """
        return self._running()

    def _running(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._runtime

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or socket; `app` is this, wrapped for servers and mounts."""
        if self._runtime is None or self._inner is None:
            _log.error("%s", _NOT_RUNNING)
            await _refuse(scope, receive, send)
            return
        with self._runtime.log.speaking():
            await self._inner(_whole_path(scope), receive, send)


class _Mounted:
    """The face of a `Bulkops` for ASGI servers and for whoever mounts it."""

    def __init__(self, bulk: Bulkops) -> None:
        self._bulk = bulk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # Served without a host around it; a mounted application is never asked this.
            await Router(lifespan=self._bulk.lifespan)(scope, receive, send)
        else:
            await self._bulk.answer(scope, receive, send)


def _owner(user: str) -> Caller:
    return Caller(user=user, roles=frozenset({"owner"}))


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": "DRAINING"})
        return
    refusal = Refusal("DRAINING", _NOT_RUNNING)
    await problems.answer(refusal, scope.get("root_path", ""))(scope, receive, send)


def _whole_path(scope: Scope) -> Scope:
    """Put before the path what a proxy took off it, so that it begins with the root path (ASGI 2.3, HTTP)."""
    root, path = scope.get("root_path", ""), scope["path"]
    if not root or path == root or path.startswith(f"{root}/"):
        return scope
    for cut in (index for index, character in enumerate(root) if character == "/"):
        mount = root[cut:]
        if cut and (path == mount or path.startswith(f"{mount}/")):
            return _behind(scope, root[:cut])
    return _behind(scope, root)


def _behind(scope: Scope, prefix: str) -> Scope:
    raw = scope.get("raw_path")
    more = {"raw_path": quote(prefix).encode() + raw} if raw else {}
    return {**scope, "path": prefix + scope["path"], **more}
