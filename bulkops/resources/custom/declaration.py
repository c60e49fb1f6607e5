"""A resource as its author declared it: found, made, and checked before anything is asked of it.

What comes in: ``package.module:Name`` or an object; what goes out: a `Declaration`. Whatever the author's
module raises, or forgot, is wrong wiring: it is told at the start, and it names the place.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from bulkops.configuration import read_action
from bulkops.errors import ConfigError, did_you_mean
from bulkops.resources import host_options
from bulkops.resources.calling import HostAction, declare, is_async
from bulkops.resources.custom.authoring import BATCH_SIZE, DeclaredAction
from bulkops.settings import ResourceSettings

#: What a column may hold, and what SQLite calls it.
AFFINITIES: Final[dict[type, str]] = {
    str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER", datetime: "DATETIME TEXT"
}  # fmt: skip
#: method → how it is to be written
_NEEDED: Final = {
    "select": "select(self, scope): every item, one by one",
    "read": "read(self, ids): those of the items that are there",
}


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """A resource of the author's: its columns and actions, and what can be asked of it."""

    where: str
    columns: dict[str, type]
    tenant: str | None
    label: str | None
    actions: dict[str, HostAction]
    select: Callable[..., Any]
    read: Callable[..., Any]
    unfit: Callable[..., Any] | None
    parse_id: Callable[[str], str] | None
    open: Callable[[], Any] | None
    close: Callable[[], Any] | None


def load(where: str, kind: str, settings: Mapping[str, Any]) -> object:
    """Import ``package.module:Name`` and call it with ``settings`` as arguments; an object is taken as it is.

    Raises:
        ConfigError: it cannot be imported or called, or settings are given to something that takes none.
    """
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (
        Exception,
        SystemExit,
    ) as error:  # the host's module may raise anything; it is wrong wiring all the same
        raise ConfigError(where, f"cannot import {kind!r}: {type(error).__name__}: {error}") from error
    return make(where, kind, found, settings)


def make(where: str, kind: str, found: object, settings: Mapping[str, Any]) -> object:
    """Call a class with ``settings`` as arguments; take any other object as it is.

    Raises:
        ConfigError: the class raises, or there are settings and nothing to give them to.
    """
    if isinstance(found, type):
        try:
            return found(**settings)
        except (Exception, SystemExit) as error:
            raise ConfigError(where, f"cannot make {kind!r}: {type(error).__name__}: {error}") from error
    if settings:
        raise ConfigError(where, f"{kind!r} is no class: there is nothing that takes its settings")
    return found


def read_declaration(where: str, thing: object, settings: ResourceSettings) -> Declaration:
    """Check what an author's object offers; what the file sets goes over what the class says.

    Raises:
        ConfigError: (at ``where``) a method is missing or takes something else, a column or action cannot be.
    """
    columns = _columns(where, thing)
    tenant = settings.tenant or _text(where, thing, "tenant")
    label = settings.label or _text(where, thing, "label")
    for name in settings.search:
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise ConfigError(
                where, f"search: there is no column {name!r}; there are: {known}{did_you_mean(name, columns)}"
            )
    actions = _actions(where, thing)
    if not actions:
        raise ConfigError(where, f"{type(thing).__name__} has no action: mark a method with @bulkops.action")
    unfit = _method(where, thing, "unfit", 2)
    parse_id = _method(where, thing, "parse_id", 1)
    for name, method in (("unfit", unfit), ("parse_id", parse_id)):
        if method is not None and is_async(method):
            raise ConfigError(where, f"{name} is async; it is asked about every item and may not wait")
    return Declaration(
        where=where, columns=columns, tenant=tenant, label=label, actions=actions,
        select=_needed(where, thing, "select"), read=_needed(where, thing, "read"), unfit=unfit,
        parse_id=parse_id, open=_method(where, thing, "open", 0), close=_method(where, thing, "close", 0),
    )  # fmt: skip


def _columns(where: str, thing: object) -> dict[str, type]:
    columns = getattr(thing, "columns", {})
    if not isinstance(columns, Mapping):
        raise ConfigError(where, 'columns is a dictionary such as {"title": str, "size": int}')
    for name, kind in columns.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigError(where, f"columns: {name!r} can be no name")
        if kind not in AFFINITIES:
            allowed = ", ".join(each.__name__ for each in AFFINITIES)
            raise ConfigError(where, f"columns: {name} is {kind!r}, not one of {allowed}")
    folded = [name.casefold() for name in columns]
    if len(set(folded)) < len(folded):
        raise ConfigError(where, "columns: two names differ in upper and lower case only")
    return dict(columns)


def _text(where: str, thing: object, name: str) -> str | None:
    value = getattr(thing, name, None)
    if value is not None and not isinstance(value, str):
        raise ConfigError(where, f"{name} is the name of a column, or None")
    return value


def _needed(where: str, thing: object, name: str) -> Callable[..., Any]:
    found = _method(where, thing, name, 1)
    if found is None:
        raise ConfigError(where, f"{type(thing).__name__} has no method {_NEEDED[name]}")
    return found


def _method(where: str, thing: object, name: str, arguments: int) -> Callable[..., Any] | None:
    """Return a method that can be called with so many arguments, ``None`` when there is none."""
    found = getattr(thing, name, None)
    if found is None:
        return None
    if not callable(found):
        raise ConfigError(where, f"{name} is no method")
    try:
        inspect.signature(found).bind(*[object()] * arguments)
    except (TypeError, ValueError) as error:
        wanted = {0: "no argument", 1: "one argument", 2: "two arguments, the item and the action's name"}
        raise ConfigError(where, f"{name} must take {wanted[arguments]} ({error})") from error
    checked: Callable[..., Any] = found
    return checked


def _actions(where: str, thing: object) -> dict[str, HostAction]:
    actions: dict[str, HostAction] = {}
    for attribute in dict.fromkeys(name for cls in reversed(type(thing).__mro__) for name in vars(cls)):
        declared = inspect.getattr_static(type(thing), attribute)
        if isinstance(declared, DeclaredAction):
            place = f"{where}: action {declared.name}"
            if declared.name in actions:
                raise ConfigError(place, "this action is declared twice")
            actions[declared.name] = _action(place, thing, declared)
    return actions


def _action(place: str, thing: object, declared: DeclaredAction[Any]) -> HostAction:
    wishes: dict[str, Any] = {"batch_size": BATCH_SIZE, **declared.wishes}
    if wishes.get("roles") is not None:
        wishes["roles"] = list(wishes["roles"])
    reverse = declared.reverse
    return declare(
        place,
        declared.name,
        declared.function.__get__(thing),
        undo=None if reverse is None else reverse.__get__(thing),
        options=host_options.declare(place, declared.options),
        settings=read_action(place, declared.name, wishes),
        timeout_s=declared.timeout_s,
        retries=declared.retries,
    )
