"""bulkops.toml as it is read: a file, a dictionary or what code says, and the environment over it.

What comes in: untyped values and `BULKOPS_*` variables; what goes out: one `Settings`, or the part of it that
was asked for. An unknown, ill-typed or impossible key is a `ConfigError` that names file, key and line; the
application's database is not looked at here (`resources` does that).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from bulkops import mistakes
from bulkops.errors import ConfigError, did_you_mean
from bulkops.places import KeyPath, dotted, find_line
from bulkops.settings import (
    ActionSettings,
    ChildSettings,
    ResourceSettings,
    ScheduleSettings,
    ServerSettings,
    Settings,
    StatusSettings,
)
from bulkops.shapes import whole

S = TypeVar("S", bound=msgspec.Struct)

_TABLES: Final = ("server", "resources", "schedules")
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
    with _placed_at(where):
        action = _convert(values, ActionSettings, ())
        _raise_first(mistakes.in_action(name, action))
    return action


def read_resource(where: str, name: str, values: Mapping[str, Any]) -> ResourceSettings:
    """Build a resource's settings from what code says of it instead of a file.

    Raises:
        ConfigError: (at ``where``) it says something that cannot be.

    """
    with _placed_at(where):
        resource = _convert_resource(values, ())
        if why := mistakes.explain_segment(name):
            raise _MistakeError((), f"the name {why}")
        _raise_first(mistakes.in_resource(resource))
    return resource


@contextmanager
def _placed_at(where: str) -> Iterator[None]:
    try:
        yield
    except _MistakeError as error:
        place = f"{where}: {dotted(error.path)}" if error.path else where
        raise ConfigError(place, error.message) from None


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
    _raise_first(mistakes.in_resources(settings))
    _raise_first(mistakes.in_schedules(settings))
    return settings


def _raise_first(found: Iterator[mistakes.Mistake]) -> None:
    for path, message in found:
        raise _MistakeError(path, message)


def _convert(value: Any, struct: type[S], path: KeyPath) -> S:
    try:
        return msgspec.convert(_expect_table(value, path), whole(struct))
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


def _build_server(value: Any, environ: Mapping[str, str]) -> ServerSettings:
    server = _convert(value, ServerSettings, ("server",))
    over = {
        field.name: _read_variable(_variable(field.name), field.type, environ[_variable(field.name)])
        for field in msgspec.structs.fields(ServerSettings)
        if _variable(field.name) in environ
    }
    server = msgspec.structs.replace(server, **over)
    for name, message in mistakes.in_server(server):
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
