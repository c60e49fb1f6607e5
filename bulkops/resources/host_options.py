"""Options of a host application's own actions: what an action may be told, and whether a request says that.

What comes in: a msgspec struct, or a JSON schema of the plain kind; what goes out: the schemas that forms are
made of, and a request's options as the action gets them. A schema that would not be held is refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from bulkops.errors import ConfigError, did_you_mean, invalid_field
from bulkops.shapes import whole

#: What JSON Schema (2020-12) calls them, and what Python does; a bool is no number here.
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
_NOTES: Final = frozenset({"default", "title", "description", "examples"})
_HELD: Final = frozenset(
    {
        *("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "pattern", "items", "minItems", "maxItems"),
        *("properties", "required", "additionalProperties"),
    }
)
_PLACE: Final = re.compile(r"(?s)(.*?)(?: - at `(?:key in )?\$(.*)`)?")


class Options(Protocol):
    """What an action may be told."""

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Return the JSON schema of each option, by name."""
        ...

    def read(self, given: dict[str, Any]) -> Any:
        """Turn a request's options into what the action gets; raises Refusal (422) naming the place."""
        ...


def declare(where: str, declared: Mapping[str, Any] | type[msgspec.Struct] | None) -> Options:
    """Take what an action declares; ``None``: it has no options.

    Raises:
        ConfigError: neither a struct nor a schema whose every word is held.

    """
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        return _Typed(where, declared)
    if declared is None or isinstance(declared, Mapping):
        return _Described(where, dict(declared or {}))
    raise ConfigError(where, "options are a msgspec.Struct or a dictionary of JSON schemas")


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise invalid_field(
                f"/options/{name}",
                f"there is no such option; there are: {listed}{did_you_mean(name, known)}",
            )


class _Typed:
    """Options that are a msgspec struct: the action gets an instance of it."""

    def __init__(self, where: str, struct: type[msgspec.Struct]) -> None:
        self._struct = struct
        try:
            (_, components) = msgspec.json.schema_components([struct], ref_template="{name}")
        except TypeError as error:
            raise ConfigError(where, f"options {struct.__name__}: {error}") from error
        self._schemas: dict[str, dict[str, Any]] = {
            name: _whole(where, schema, components, ())
            for name, schema in components[struct.__name__].get("properties", {}).items()
        }

    def schemas(self) -> dict[str, dict[str, Any]]:
        return self._schemas

    def read(self, given: dict[str, Any]) -> Any:
        _refuse_unknown(given, self._schemas)
        try:
            return msgspec.convert(given, whole(self._struct))
        except msgspec.ValidationError as error:
            found = _PLACE.fullmatch(str(error))
            message, inner = (found[1], found[2] or "") if found else (str(error), "")
            parts = "".join(f"/{part}" for part in re.findall(r"[^.\[\]]+", inner))
            raise invalid_field(f"/options{parts}", message[:1].lower() + message[1:]) from None


def _whole(where: str, schema: Any, components: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """Write out what a schema refers to, so that each option's schema stands alone."""
    if isinstance(schema, list):
        return [_whole(where, each, components, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref")
    if name in within:
        raise ConfigError(where, f"options may not contain themselves: {name}")
    if isinstance(name, str):
        return _whole(where, components[name], components, (*within, name))
    return {key: _whole(where, value, components, within) for key, value in schema.items()}


class _Described:
    """Options that are described by JSON schemas: the action gets a dictionary, defaults filled in."""

    def __init__(self, where: str, declared: dict[str, Any]) -> None:
        whole = declared.get("type") == "object" and isinstance(declared.get("properties"), dict)
        schema = declared if whole else {"type": "object", "properties": declared}
        _check_schema(where, schema)
        self._schemas: dict[str, dict[str, Any]] = declared["properties"] if whole else declared
        self._required: list[str] = declared.get("required", []) if whole else []

    def schemas(self) -> dict[str, dict[str, Any]]:
        return self._schemas

    def read(self, given: dict[str, Any]) -> dict[str, Any]:
        _refuse_unknown(given, self._schemas)
        _check_object(given, {"properties": self._schemas, "required": self._required}, "/options")
        defaults = {name: schema["default"] for name, schema in self._schemas.items() if "default" in schema}
        return defaults | given


def _check_schema(where: str, schema: Any) -> None:
    if not isinstance(schema, Mapping):
        raise ConfigError(where, f"{schema!r} is no JSON schema")
    for word in schema:
        if word not in _HELD | _NOTES:
            raise ConfigError(
                where,
                f"options: {word!r} is not held here{did_you_mean(word, _HELD)}; declare a msgspec.Struct",
            )
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind not in _TYPES:
            raise ConfigError(where, f"options: {kind!r} is no type{did_you_mean(kind, _TYPES)}")
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except re.error as error:
            raise ConfigError(where, f"options: pattern {schema['pattern']!r}: {error}") from error
    for inner in schema.get("properties", {}).values():
        _check_schema(where, inner)
    if "items" in schema:
        _check_schema(where, schema["items"])


def _check_value(value: Any, schema: Mapping[str, Any], pointer: str) -> None:
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_is_a(value, kind) for kind in kinds):
        raise invalid_field(pointer, f"{' or '.join(kinds)} is needed")
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        raise invalid_field(pointer, f"one of these is needed: {', '.join(map(str, schema['enum']))}")
    if "const" in schema and not _same(value, schema["const"]):
        raise invalid_field(pointer, f"{schema['const']!r} is needed")
    for word, holds in _BOUNDS.items():
        if word in schema and not holds(value, schema[word]):
            raise invalid_field(pointer, f"{word} is {schema[word]}")
    if isinstance(value, list):
        for index, each in enumerate(value):
            _check_value(each, schema.get("items", {}), f"{pointer}/{index}")
    if isinstance(value, dict):
        _check_object(value, schema, pointer)


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], pointer: str) -> None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            raise invalid_field(f"{pointer}/{name}", "is needed")
    for name, each in value.items():
        if name in properties:
            _check_value(each, properties[name], f"{pointer}/{name}")
        elif schema.get("additionalProperties") is False:
            raise invalid_field(f"{pointer}/{name}", "is not known")


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


#: Each holds of what it is not about.
_BOUNDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda value, bound: not _is_number(value) or value >= bound,
    "maximum": lambda value, bound: not _is_number(value) or value <= bound,
    "exclusiveMinimum": lambda value, bound: not _is_number(value) or value > bound,
    "exclusiveMaximum": lambda value, bound: not _is_number(value) or value < bound,
    "minLength": lambda value, bound: not isinstance(value, str) or len(value) >= bound,
    "maxLength": lambda value, bound: not isinstance(value, str) or len(value) <= bound,
    "pattern": lambda value, pattern: not isinstance(value, str) or re.search(pattern, value) is not None,
    "minItems": lambda value, bound: not isinstance(value, list) or len(value) >= bound,
    "maxItems": lambda value, bound: not isinstance(value, list) or len(value) <= bound,
}
