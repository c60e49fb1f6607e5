"""bulkops.toml as frozen values: what the server, its resources and their actions are set to.

What comes in: a TOML file and `BULKOPS_*` environment variables; what goes out: one `Settings`. An
unknown, ill-typed or impossible key is a `ConfigError` that names file, key and line; the application's
database is not looked at here (`resources` does that).
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import msgspec

from bulkops.errors import ConfigError, did_you_mean
from bulkops.models import FailureThreshold
from bulkops.operations import MAINTENANCE, ROLES, parse_rate
from bulkops.places import KeyPath, dotted, find_line
from bulkops.slots import check_cron, check_zone, parse_every

S = TypeVar("S", bound=msgspec.Struct)

#: What is wrong, and where.
Mistake = tuple[KeyPath, str]

_TABLES: Final = ("server", "resources", "schedules")
_KINDS: Final = ("table", "folder", "photos")
_MAX_NAME: Final = 100
_MAX_DAYS: Final = 36_500
_MONTH_S: Final = 30 * 86_400
#: Names that stand where an action's name would stand in a URL.
_RESERVED_ACTIONS: Final = frozenset({"info", "items", "validate"})
_CLASS: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@?#*A-Z]+")
_HOST: Final = re.compile(r"[^/\s@?#*]+")
_WEBHOOK_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_WHERE: Final = re.compile(r"(?s)(.*?)(?: - at `(?:key in )?\$(.*)`)?")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of every table of the file: a misspelled key is an error."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """`[server]`; every field has an environment variable `BULKOPS_<NAME>`."""

    database: str = "bulkops.db"
    data_dir: str = "bulkops-data"
    host: str = "127.0.0.1"
    port: int = 8765
    workers: int = 4
    queue_max: int = 1000
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    show_maintenance: bool = False
    trash_days: int = 30
    keep_jobs_days: int = 90
    keep_events_days: int = 7
    max_artifacts: int = 1000
    max_artifact_mb: int = 10_000
    webhook_hosts: list[str] = []

    @property
    def max_artifact_bytes(self) -> int:
        """How much the files that jobs made may take."""
        return self.max_artifact_mb * 1_000_000


class StatusSettings(Section, frozen=True, kw_only=True):
    """The column that says how far a row is in its life, and its words."""

    column: str
    closed: str | None = None
    archived: str | None = None
    busy: list[str] = []


class ChildSettings(Section, frozen=True, kw_only=True):
    """What goes with a row: rows of another table, and the files they name."""

    table: str
    key: str | list[str]
    file: str | None = None
    root: str | None = None
    storage: str | None = None
    optional: bool = False


class ActionSettings(Section, frozen=True, kw_only=True):
    """Settings of one action of one resource; ``None`` means automatic or none."""

    roles: list[str] | None = None
    confirm: str | None = None
    rate: str | None = None
    exclusive: bool = False
    batch_size: int | None = None
    throttle_ms: int | None = None
    max_runtime_s: float | None = None
    max_batch_failures: int = 10
    auto_resume_s: float | None = None
    max_items: int | None = None
    expires_h: float | None = None


class ResourceSettings(Section, frozen=True, kw_only=True):
    """`[resources.<name>]`; which fields matter depends on ``kind``."""

    kind: str
    database: str | None = None
    table: str | None = None
    id: str | list[str] | None = None
    tenant: str | None = None
    label: str | None = None
    soft_delete: str | None = None
    status: StatusSettings | None = None
    search: list[str] = []
    set: list[str] = []
    protect: dict[str, Any] = {}
    foreign_keys: bool = True
    ledger: Literal["own", "app"] = "own"
    file: str | None = None
    root: str | None = None
    storage: str | None = None
    shared: bool = False
    settings: dict[str, Any] = {}
    children: list[ChildSettings] = []
    actions: dict[str, ActionSettings] = {}


class ScheduleSettings(Section, frozen=True, kw_only=True):
    """`[schedules.<name>]`: when, and what a start's body would say; exactly one of ``cron`` and ``every``."""

    resource: str
    action: str
    cron: str | None = None
    every: str | None = None
    timezone: str = "UTC"
    enabled: bool = True
    tenant: str | None = None
    ids: list[str | int] | None = None
    filter: dict[str, Any] | None = None
    all: bool | None = None
    exclude_ids: list[str | int] = []
    options: dict[str, Any] = {}
    atomic: bool = False
    confirm: str | None = None
    reason: str | None = None
    label: str | None = None
    priority: int | None = None
    batch_size: int | None = None
    throttle_ms: int | None = None
    max_items_per_second: float | None = None
    max_items: int | None = None
    failure_threshold: FailureThreshold | None = None
    canary: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, paths resolved against the file's folder."""

    file: Path | None
    base: Path
    server: ServerSettings
    resources: dict[str, ResourceSettings]
    schedules: dict[str, ScheduleSettings] = {}

    def path(self, text: str) -> Path:
        """Resolve a path of the file against the file's folder."""
        return self.base / text

    @property
    def database(self) -> Path:
        return self.path(self.server.database)

    @property
    def data_dir(self) -> Path:
        return self.path(self.server.data_dir)


def load(file: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file and lay the environment over it.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or says something that cannot be.

    """
    text = _read_text(file)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file.name, f"is no TOML: {error}") from error
    try:
        settings = _build(data, file.absolute().parent, environ)
    except _MistakeError as error:
        raise ConfigError(_place(file.name, error.path, find_line(text, error.path)), error.message) from None
    return msgspec.structs.replace(settings, file=file.absolute())


def from_dict(data: Mapping[str, Any], base: Path, environ: Mapping[str, str]) -> Settings:
    """Build the same from a dictionary shaped like the file; relative paths are relative to ``base``.

    Raises:
        ConfigError: it says something that cannot be.

    """
    try:
        return _build(data, base.absolute(), environ)
    except _MistakeError as error:
        raise ConfigError(_place("settings", error.path, None), error.message) from None


def read_action(where: str, name: str, values: Mapping[str, Any]) -> ActionSettings:
    """Build an action's settings from what code says of it instead of a file.

    Raises:
        ConfigError: (at ``where``) it says something that cannot be.

    """
    try:
        action = _convert(values, ActionSettings, ())
        _raise_first(_check_action(name, action))
    except _MistakeError as error:
        place = f"{where}: {dotted(error.path)}" if error.path else where
        raise ConfigError(place, error.message) from None
    return action


def is_origin(text: str) -> bool:
    """Say whether a text is an origin as browsers write it, the exact and only form."""
    return _ORIGIN.fullmatch(text) is not None


def read_resource(where: str, name: str, values: Mapping[str, Any]) -> ResourceSettings:
    """Build a resource's settings from what code says of it instead of a file.

    Raises:
        ConfigError: (at ``where``) it says something that cannot be.

    """
    try:
        resource = _convert_resource(values, ())
        if why := explain_segment(name):
            raise _MistakeError((), f"the name {why}")
        _raise_first(_check_resource(resource))
    except _MistakeError as error:
        place = f"{where}: {dotted(error.path)}" if error.path else where
        raise ConfigError(place, error.message) from None
    return resource


def explain_segment(name: str) -> str | None:
    """Say why a name cannot be one segment of a URL, ``None`` when it can."""
    if not name:
        return "is empty"
    if len(name) > _MAX_NAME:
        return f"is longer than {_MAX_NAME} characters"
    if "/" in name or "\\" in name or name in {".", ".."}:
        return "cannot stand in a URL: no slashes, and neither . nor .."
    if name != name.strip() or any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in name):
        return "has invisible characters, or blanks around it"
    return None


class _MistakeError(Exception):
    """A mistake on its way to whoever knows the file's name."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(str(file), "there is no such file; `bulkops init app.db` writes one") from error
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), "is not UTF-8") from error


def _place(file: str, path: KeyPath, line: int | None) -> str:
    place = f"{file}: {dotted(path)}" if path else file
    return f"{place} (line {line})" if line else place


def _build(data: Mapping[str, Any], base: Path, environ: Mapping[str, str]) -> Settings:
    for key in data:
        if key not in _TABLES:
            raise _MistakeError((key,), f"unknown table{did_you_mean(key, _TABLES)}")
    resources = {
        name: _convert_resource(value, ("resources", name))
        for name, value in _expect_table(data.get("resources", {}), ("resources",)).items()
    }
    schedules = {
        name: _convert(value, ScheduleSettings, ("schedules", name))
        for name, value in _expect_table(data.get("schedules", {}), ("schedules",)).items()
    }
    settings = Settings(
        file=None,
        base=base,
        server=_build_server(data.get("server", {}), environ),
        resources=resources,
        schedules=schedules,
    )
    _raise_first(_check_resources(settings))
    _raise_first(_check_schedules(settings))
    return settings


def _raise_first(mistakes: Iterator[Mistake]) -> None:
    for path, message in mistakes:
        raise _MistakeError(path, message)


# --- from untyped to typed ---------------------------------------------------------------------------


def _convert(value: Any, struct: type[S], path: KeyPath) -> S:
    try:
        return msgspec.convert(_expect_table(value, path), struct)
    except msgspec.ValidationError as error:
        raise _explain(str(error), struct, path) from None


def _convert_resource(value: Any, path: KeyPath) -> ResourceSettings:
    table = dict(_expect_table(value, path))
    # Converted one by one, because msgspec does not say under which key of a table the mistake is.
    actions = _expect_table(table.pop("actions", {}), (*path, "actions"))
    children = table.pop("children", [])
    if not isinstance(children, list):
        raise _MistakeError((*path, "children"), "expected a list of tables")
    return msgspec.structs.replace(
        _convert(table, ResourceSettings, path),
        actions={
            name: _convert(action, ActionSettings, (*path, "actions", name))
            for name, action in actions.items()
        },
        children=[
            _convert(child, ChildSettings, (*path, "children", place)) for place, child in enumerate(children)
        ],
    )


def _expect_table(value: Any, path: KeyPath) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _MistakeError(path, "expected a table")
    return value


def _explain(text: str, struct: type[msgspec.Struct], path: KeyPath) -> _MistakeError:
    """Turn msgspec's sentence into a place and a sentence of ours."""
    found = _WHERE.fullmatch(text)
    message, inner = (found[1], found[2] or "") if found else (text, "")
    path = (*path, *(int(n) if n else name for name, n in re.findall(r"\.(\w+)|\[(\d+)\]", inner)))
    if unknown := _UNKNOWN.fullmatch(message):
        known = StatusSettings.__struct_fields__ if inner else struct.__struct_fields__
        return _MistakeError((*path, unknown[1]), f"unknown key{did_you_mean(unknown[1], known)}")
    if missing := _MISSING.fullmatch(message):
        return _MistakeError(path, f"needs {missing[1]!r}")
    if message.startswith("Invalid enum value"):
        choices = [name for field in msgspec.structs.fields(struct) for name in get_args(field.type)]
        allowed = " or ".join(f'"{choice}"' for choice in choices if isinstance(choice, str))
        return _MistakeError(path, f"must be {allowed}")
    return _MistakeError(path, _plain_types(message))


def _plain_types(message: str) -> str:
    def plain(found: re.Match[str]) -> str:
        kinds = [kind for kind in found[1].split(" | ") if kind != "null"]
        return " or ".join(_WORDS.get(kind, kind) for kind in kinds)

    return re.sub(r"`([^`]*)`", plain, message[:1].lower() + message[1:])


# --- [server] and its environment --------------------------------------------------------------------


def _build_server(value: Any, environ: Mapping[str, str]) -> ServerSettings:
    server = _convert(value, ServerSettings, ("server",))
    over = {
        field.name: _read_variable(_variable(field.name), field.type, environ[_variable(field.name)])
        for field in msgspec.structs.fields(ServerSettings)
        if _variable(field.name) in environ
    }
    server = msgspec.structs.replace(server, **over)
    for name, message in _check_server(server):
        if name in over:
            raise ConfigError(_variable(name), message)
        raise _MistakeError(("server", name), message)
    return server


def _variable(name: str) -> str:
    return f"BULKOPS_{name.upper()}"


def _read_variable(variable: str, kind: Any, text: str) -> Any:
    if kind is bool:
        return _read_bool(variable, text)
    if kind is int:
        if not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text):
            raise ConfigError(variable, f"expected a whole number, got {text!r}")
        return int(text)
    if kind is str:
        return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_bool(variable: str, text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ConfigError(variable, f"expected true, false, 1 or 0, got {text!r}") from None


def _check_server(server: ServerSettings) -> Iterator[tuple[str, str]]:
    bounds = {
        "port": (0, 65_535),
        "workers": (1, 64),
        "queue_max": (1, 1_000_000),
        "trash_days": (0, _MAX_DAYS),
        "keep_jobs_days": (1, _MAX_DAYS),
        "keep_events_days": (1, _MAX_DAYS),
        "max_artifacts": (1, 1_000_000),
        "max_artifact_mb": (1, 1_000_000_000),
    }
    yield from _check_bounds(server, bounds)
    for name in ("database", "data_dir", "host"):
        yield from ((name, message) for message in _check_text(getattr(server, name)))
    if not _HOST.fullmatch(server.host):
        yield "host", f"{server.host!r} is no name or address to listen on"
    for host in server.allowed_hosts:
        if not _HOST.fullmatch(host):
            yield "allowed_hosts", f"{host!r} is no host name: no scheme, path or wildcard"
    for origin in server.allowed_origins:
        if not is_origin(origin):
            yield "allowed_origins", f"{origin!r} is no origin such as https://app.example:8443"
    for host in server.webhook_hosts:
        if not _is_webhook_host(host):
            yield "webhook_hosts", f"{host!r} is no host such as hooks.example, 10.0.0.5:8080 or [fd00::1]"


def _is_webhook_host(text: str) -> bool:
    found = _WEBHOOK_HOST.fullmatch(text)
    if found is None or not 1 <= int((found[2] or ":1")[1:]) <= 65_535:
        return False
    try:
        return not text.startswith("[") or bool(ipaddress.IPv6Address(found[1][1:-1]))
    except ValueError:
        return False


# --- [resources] -------------------------------------------------------------------------------------


def _check_resources(settings: Settings) -> Iterator[Mistake]:
    own = os.path.abspath(settings.database)
    for name, resource in settings.resources.items():
        path: KeyPath = ("resources", name)
        if why := explain_segment(name):
            yield path, f"the name {why}"
        if name == MAINTENANCE:
            yield path, "the name is taken by the house's own chores"
        for key, message in _check_resource(resource):
            yield (*path, *key), message
        if resource.database is not None and os.path.abspath(settings.path(resource.database)) == own:
            yield (*path, "database"), "is bulkops' own database; name the application's"


def _check_resource(resource: ResourceSettings) -> Iterator[Mistake]:
    yield from _check_kind(resource)
    yield from _check_names(resource)
    yield from _check_columns(resource)
    if resource.shared and resource.tenant is not None:
        yield ("shared",), "is for resources without a tenant column"
    yield from _check_file(resource, ())
    for place, child in enumerate(resource.children):
        yield from _check_child(resource, child, ("children", place))
    for name, action in resource.actions.items():
        yield from (((*("actions", name), *key), message) for key, message in _check_action(name, action))


_NEEDED: Final = {
    "table": ("database", "table", "id"),
    "folder": ("root",),
    "photos": ("database", "table", "root"),
}
_USELESS: Final = {
    "table": (),
    "folder": (
        *("database", "table", "id", "tenant", "label", "soft_delete", "status", "search", "set"),
        *("protect", "file", "storage", "children"),
    ),
    "photos": ("tenant", "soft_delete", "status", "set", "protect", "file", "storage", "children"),
}
#: What a resource made in Python has no use for.
_USELESS_IN_PYTHON: Final = (
    *("database", "table", "id", "soft_delete", "set", "file", "root", "storage", "children"),
)


def _check_kind(resource: ResourceSettings) -> Iterator[Mistake]:
    kind = resource.kind
    if kind not in _KINDS and not _CLASS.fullmatch(kind):
        hint = did_you_mean(kind, _KINDS)
        yield ("kind",), f"{kind!r} is no kind: table, folder, photos or a class package.module:Name{hint}"
    for name in _NEEDED.get(kind, ()):
        if not getattr(resource, name):
            yield (), f'a resource of kind "{kind}" needs {name!r}'
    if kind in _KINDS and resource.settings:
        yield ("settings",), "are for a resource that is a Python class"
    if kind not in _KINDS and resource.ledger == "app":
        yield ("ledger",), f'a resource of kind "{kind}" has no database to keep one in'
    status = resource.status
    if kind not in _KINDS and status is not None and (status.closed or status.archived):
        yield ("status",), f'a resource of kind "{kind}" has no actions of ours that would set it'
    if kind == "photos" and resource.ledger == "app":
        yield ("ledger",), 'a resource of kind "photos" keeps no ledger in the database'
    for name in _USELESS.get(kind, _USELESS_IN_PYTHON):
        # A setting that would be ignored is refused: somebody believes in the protection it spells.
        if getattr(resource, name):
            yield (name,), f'a resource of kind "{kind}" knows no {name!r}'


def _check_names(resource: ResourceSettings) -> Iterator[Mistake]:
    for name in ("database", "root", "storage"):
        yield from (((name,), message) for message in _check_text(getattr(resource, name)))
    for name in ("table", "tenant", "label", "soft_delete", "file"):
        yield from (((name,), message) for message in _check_identifier(getattr(resource, name)))
    for name in ("id", "search", "set"):
        yield from (((name,), message) for message in _check_list(getattr(resource, name)))
    for name, value in resource.protect.items():
        yield from ((("protect",), message) for message in _check_identifier(name))
        if not isinstance(value, str | int | float):
            yield ("protect", name), "expected a text, a number, true or false"
    if resource.status is not None:
        yield from _check_status(resource.status)


def _check_status(status: StatusSettings) -> Iterator[Mistake]:
    yield from ((("status", "column"), message) for message in _check_identifier(status.column))
    for name in ("closed", "archived"):
        yield from ((("status", name), message) for message in _check_text(getattr(status, name)))
    for name, word in (("closed", status.closed), ("archived", status.archived)):
        if word in status.busy:
            yield ("status", "busy"), f"{word!r} is the {name} word too"


def _check_columns(resource: ResourceSettings) -> Iterator[Mistake]:
    """Keep columns that say what a row is and whose it is out of the reach of actions."""
    key = as_tuple(resource.id or ())
    fixed = {**dict.fromkeys(key, "the key"), **({resource.tenant: "the tenant"} if resource.tenant else {})}
    for column in resource.set:
        if column in fixed:
            yield ("set",), f"{column!r} is {fixed[column]}, which no action may change"
        if column == resource.soft_delete:
            yield ("set",), f"{column!r} is soft_delete; the delete and restore actions change it"
    if resource.soft_delete in fixed:
        yield ("soft_delete",), f"{resource.soft_delete!r} is {fixed[resource.soft_delete]}"
    if resource.status is not None and resource.status.column in fixed:
        yield ("status", "column"), f"{resource.status.column!r} is {fixed[resource.status.column]}"


def _check_file(section: ResourceSettings | ChildSettings, path: KeyPath) -> Iterator[Mistake]:
    if section.file is not None and section.root is None and section.storage is None:
        yield (*path, "file"), "needs 'root', the folder its names are under, or 'storage'"
    if section.root is not None and section.storage is not None:
        yield (*path, "storage"), "stands in place of 'root': name one of them"
    if section.storage is not None and not _CLASS.fullmatch(section.storage):
        yield (*path, "storage"), 'expected a Python class "package.module:Name"'
    if section.file is None and section.storage is not None:
        yield (*path, "storage"), "needs 'file', the column that names what is stored"


def _check_child(resource: ResourceSettings, child: ChildSettings, path: KeyPath) -> Iterator[Mistake]:
    for name in ("root", "storage"):
        yield from (((*path, name), message) for message in _check_text(getattr(child, name)))
    for name in ("table", "file"):
        yield from (((*path, name), message) for message in _check_identifier(getattr(child, name)))
    yield from (((*path, "key"), message) for message in _check_list(child.key))
    wanted, given = len(as_tuple(resource.id or ())), len(as_tuple(child.key))
    if wanted and wanted != given:
        yield (*path, "key"), f"names {given} columns, the resource's id has {wanted}"
    yield from _check_file(child, path)
    if child.file is None and child.root is not None:
        yield (*path, "root"), "needs 'file', the column that names a file under it"


def _check_action(name: str, action: ActionSettings) -> Iterator[Mistake]:
    if why := explain_segment(name):
        yield (), f"the name {why}"
    if name in _RESERVED_ACTIONS:
        yield (), "the name is taken by a route"
    for role in action.roles or ():
        if role not in ROLES:
            yield ("roles",), f"{role!r} is no role{did_you_mean(role, ROLES)}"
    yield from ((("confirm",), message) for message in _check_confirm(action.confirm))
    if action.rate is not None:
        try:
            parse_rate(action.rate)
        except ValueError as error:
            yield ("rate",), str(error)
    yield from (((key,), message) for key, message in _check_bounds(action, _ACTION_BOUNDS))


_ACTION_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "batch_size": (1, 100_000),
    "throttle_ms": (0, 600_000),
    "max_runtime_s": (1, _MONTH_S),
    "max_batch_failures": (1, 1_000_000),
    "auto_resume_s": (0, _MONTH_S),
    "max_items": (1, 1_000_000_000),
    "expires_h": (0.01, 24 * _MAX_DAYS),
}


def _check_schedules(settings: Settings) -> Iterator[Mistake]:
    for name, schedule in settings.schedules.items():
        path: KeyPath = ("schedules", name)
        if why := explain_segment(name):
            yield path, f"the name {why}"
        if name.startswith(MAINTENANCE):
            yield path, f"names that begin with {MAINTENANCE!r} are taken by the house's own chores"
        if schedule.resource not in settings.resources:
            hint = did_you_mean(schedule.resource, settings.resources)
            yield (*path, "resource"), f"there is no resource {schedule.resource!r}{hint}"
        yield from (((*path, key), message) for key, message in _check_times(schedule))
        given = [key for key in ("ids", "filter", "all") if getattr(schedule, key)]
        if len(given) != 1:
            yield (*path, *given[1:2]), "select items in one way: ids, filter or all = true"


def _check_times(schedule: ScheduleSettings) -> Iterator[tuple[str, str]]:
    if (schedule.cron is None) == (schedule.every is None):
        yield "cron", 'exactly one of cron ("0 3 * * *") and every ("6h") is needed'
    for key, text, check in (
        ("timezone", schedule.timezone, check_zone),
        ("cron", schedule.cron, lambda line: check_cron(line, time.time_ns() // 1_000_000)),
        ("every", schedule.every, parse_every),
    ):
        try:
            if text is not None:
                check(text)
        except ValueError as error:
            yield key, str(error)


def _check_confirm(word: str | None) -> Iterator[str]:
    yield from _check_text(word)
    if word is not None and (word != word.strip() or len(word) > _MAX_NAME):
        yield f"has blanks around it, or more than {_MAX_NAME} characters"


def _check_bounds(
    section: msgspec.Struct, bounds: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, str]]:
    for name, (low, high) in bounds.items():
        value = getattr(section, name)
        # "not within" and not "below or above": nan is neither.
        if value is not None and not low <= value <= high:
            yield name, f"{value} is not within {low} and {high}"


def _check_text(text: str | None) -> Iterator[str]:
    if text is None:
        return
    if not text.strip():
        yield "is empty"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        yield f"{text!r} holds a control character"


def _check_identifier(name: str | None) -> Iterator[str]:
    """Let pass what SQLite lets a name be: anything but nothing, a NUL, a lone surrogate."""
    if name is None:
        return
    if not name:
        yield "is empty"
    if any(character == "\0" or unicodedata.category(character) == "Cs" for character in name):
        yield f"{name!r} can be no name"


def _check_list(names: str | list[str] | None) -> Iterator[str]:
    if names is None:
        return
    known: set[str] = set()
    for name in as_tuple(names):
        yield from _check_identifier(name)
        if name in known:
            yield f"names {name!r} twice"
        known.add(name)


def as_tuple(names: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)
