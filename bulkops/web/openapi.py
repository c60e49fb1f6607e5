"""The OpenAPI 3.1 document, made from the very table that routes requests and the structs that read them.

Operations come in, a document goes out; nothing in it is written twice, so it cannot disagree with what
the server does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bulkops import __version__
from bulkops.errors import REFUSALS
from bulkops.models import ItemsQuery
from bulkops.store.idempotency import MAX_KEY
from bulkops.web import problems
from bulkops.web.answers import FieldProblem, Problem
from bulkops.web.routing import Answer, Operation

_REF: Final = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
#: What the guard and the boundary may answer to anything.
_ALWAYS: Final = (
    "INVALID_FIELD",
    "NOT_ACCEPTABLE",
    "FORBIDDEN",
    "WRONG_HOST",
    "HEADERS_TOO_LARGE",
    "INTERNAL",
)
_WITH_CREDENTIAL: Final = ("UNAUTHENTICATED", "RATE_LIMITED")
_WITH_BODY: Final = ("INVALID_JSON", "TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE")
_HEADERS: Final = {
    "Location": "where the job is from now on",
    "Set-Cookie": "the page's cookie",
    "Content-Disposition": "the name of the file",
    "Retry-After": "seconds to wait",
    "ETag": "names these very bytes",
    "Accept-Ranges": "ranges of bytes may be asked for",
    "Content-Range": "which bytes these are, and of how many",
}
_DESCRIPTION: Final = """\
Durable bulk operations with live progress and a way back. Times are RFC 3339 in UTC; a trailing slash is
the same path; lists are paged with `limit` and the `next` of the page before. Errors are problem documents
(RFC 9457) whose `code` is stable. With a cookie, writes need `Content-Type: application/json` and an Origin."""
_TAGS: Final = {
    "resources": "Resources, their items, and what is done to them",
    "jobs": "Jobs: watch, steer, report",
    "artifacts": "Files that jobs made: exports and archives",
    "tasks": "Tasks group the jobs of one intent",
    "live": "Events as they happen: WebSocket, SSE, polling",
    "cleanup": "The file deletion queue",
    "schedules": "Jobs by the calendar",
    "webhooks": "Events of jobs, sent to a URL of the receiver's",
    "people": "Callers, keys, tokens, the audit",
    "house": "The server itself",
}


def document(operations: Sequence[Operation], root_path: str) -> dict[str, Any]:
    """Build the document of an application mounted at ``root_path`` (empty: at the root)."""
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bulkops", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": root_path or "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "an API key or a token"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-bulkops"},
            },
        },
    }


class _Schemas:
    """The JSON schemas of every type that operations name; query structs are looked into, not listed."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        bodies = [each.body for each in operations if each.body is not None]
        answers = [a.body for each in operations for a in each.answers.values() if a.body is not None]
        types = list(dict.fromkeys([Problem, FieldProblem, *bodies, *answers]))
        shown, self.components = msgspec.json.schema_components(types, ref_template=_REF)
        self._shown = dict(zip(types, shown, strict=True))

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type, a reference where it has a name."""
        shown: dict[str, Any] = self._shown[kind]
        return shown

    @staticmethod
    def fields(kind: Any) -> dict[str, dict[str, Any]]:
        """Return the schemas of a query struct's parameters."""
        _, components = msgspec.json.schema_components([kind], ref_template=_REF)
        properties: dict[str, dict[str, Any]] = components[kind.__name__].get("properties", {})
        return properties


def _describe(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": [] if operation.role == "public" else [{"bearer": []}, {"key": []}, {"cookie": []}],
        "x-role": operation.role,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_headers(operation)],
        "responses": _responses(operation, schemas),
    }
    body = _request_body(operation, schemas)
    return described if body is None else {**described, "requestBody": body}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    fields = _Schemas.fields(operation.query)
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": _without_null(schema)}
        for name, schema in fields.items()
        if not (operation.query is ItemsQuery and name == "filter")
    ]
    if operation.query is ItemsQuery:
        # OpenAPI's way of saying that every other parameter is a column.
        columns = {"type": "object", "additionalProperties": {"type": "string"}}
        parameters.append(
            {"name": "filter", "in": "query", "style": "form", "explode": True, "schema": columns}
        )
    return parameters


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop null from a parameter's schema: in a query a thing is absent, never null."""
    kept = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    merged = {**{k: v for k, v in schema.items() if k != "anyOf"}, **(kept[0] if len(kept) == 1 else {})}
    if len(kept) > 1:
        merged["anyOf"] = kept
    if "enum" in merged:
        merged["enum"] = [each for each in merged["enum"] if each is not None]
    return {name: value for name, value in merged.items() if (name, value) != ("default", None)}


def _headers(operation: Operation) -> list[dict[str, Any]]:
    found = []
    if operation.idempotent:
        text = "the same key and body within 24 hours get the same answer"
        schema = {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!#-~][!-~]*$"}
        found.append({"name": "Idempotency-Key", "in": "header", "description": text, "schema": schema})
    if operation.name == "removeItem":
        text = "`wait=5` answers when the job ends, at the latest after so many seconds (RFC 7240)"
        found.append({"name": "Prefer", "in": "header", "description": text, "schema": {"type": "string"}})
    return found


def _request_body(operation: Operation, schemas: _Schemas) -> dict[str, Any] | None:
    if operation.upload:
        return {
            "required": True,
            "content": {media: {"schema": {"type": "string"}} for media in operation.upload},
        }
    if operation.body is None:
        return None
    return {
        "required": not operation.body_optional,
        "content": {"application/json": {"schema": schemas.of(operation.body)}},
    }


def codes_of(operation: Operation) -> list[str]:
    """List the codes an operation may refuse with, in the order of the documentation."""
    codes = {*_ALWAYS, *operation.refusals}
    if operation.role != "public":
        codes.update(_WITH_CREDENTIAL)
    if operation.body is not None or operation.upload:
        codes.update(_WITH_BODY)
    if operation.makes_work:
        codes.add("DRAINING")
    if operation.idempotent:
        codes.add("IDEMPOTENCY_MISMATCH")
    return [code for code in REFUSALS if code in codes]


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): _answer(answer, schemas) for status, answer in operation.answers.items()
    }
    by_status: dict[int, list[str]] = {}
    for code in codes_of(operation):
        by_status.setdefault(REFUSALS[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        kind = FieldProblem if status == 422 else Problem
        responses[str(status)] = {
            "description": ", ".join(f"{code}: {REFUSALS[code][1]}" for code in codes),
            "content": {problems.MEDIA_TYPE: {"schema": schemas.of(kind)}},
        }
    return responses


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.text}
    if answer.body is not None:
        shown["content"] = {
            media: {"schema": _schema_in(media, answer, schemas)} for media in answer.media_types
        }
    if answer.headers:
        shown["headers"] = {
            name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in answer.headers
        }
    return shown


def _schema_in(media: str, answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    return schemas.of(answer.body) if media == "application/json" else {"type": "string"}
