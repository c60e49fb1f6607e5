"""The reference page: the OpenAPI document as plain HTML, made on the server.

A document comes in, a page goes out: no script, nothing from elsewhere, one style sheet inside that the
page's own policy names by its hash. Every error code has an anchor, which problem documents link to.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any, Final

from bulkops.errors import REFUSALS
from bulkops.web import guard

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; border-radius: .4rem; }
section, article { border-top: 1px solid var(--line); padding: .5rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; }
tr { border-top: 1px solid var(--line); }
nav a { margin-right: 1rem; } .role { border: 1px solid var(--line); border-radius: .4rem; padding: 0 .4rem; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = f"{guard.CONTENT_SECURITY_POLICY}; style-src 'sha256-{_STYLE_HASH}'"


def page(document: dict[str, Any]) -> str:
    """Write the page of a document."""
    info = document["info"]
    sections = "".join(_section(tag, document) for tag in document["tags"])
    links = "".join(f'<a href="#{escape(tag["name"])}">{escape(tag["name"])}</a>' for tag in document["tags"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<main><h1>{escape(info['title'])} API {escape(info['version'])}</h1>"
        f'<p>{_text(info["description"])}</p><nav aria-label="Sections">{links}'
        '<a href="#codes">codes</a><a href="#shapes">shapes</a></nav>'
        f"{sections}{_codes()}{_shapes(document)}</main></body></html>"
    )


def _text(text: str) -> str:
    """Escape prose and set what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _section(tag: dict[str, str], document: dict[str, Any]) -> str:
    found = [
        _operation(document["servers"][0]["url"].rstrip("/") + path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag["name"] in operation["tags"]
    ]
    name = escape(tag["name"])
    return f'<section id="{name}"><h2>{escape(tag["description"])}</h2>{"".join(found)}</section>'


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = "".join(_parameter(each) for each in operation["parameters"])
    table = f"<table><tbody>{parameters}</tbody></table>" if parameters else ""
    responses = "".join(_response(status, each) for status, each in operation["responses"].items())
    return (
        f'<article id="{escape(operation["operationId"])}">'
        f"<h3><code>{method.upper()} {escape(path)}</code> "
        f'<span class="role">{escape(operation["x-role"])}</span></h3>'
        f"<p>{_text(operation['summary'])}</p>{table}{_body(operation.get('requestBody'))}"
        f"<details><summary>Answers</summary><table><tbody>{responses}</tbody></table></details></article>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    kind = parameter["schema"]
    about = parameter.get("description") or " ".join(
        f"{name} {kind[name]}" for name in ("type", "enum", "minimum", "maximum", "default") if name in kind
    )
    return (
        f"<tr><th scope='row'><code>{escape(parameter['name'])}</code></th>"
        f"<td>{escape(parameter['in'])}</td><td>{_text(about)}</td></tr>"
    )


def _body(body: dict[str, Any] | None) -> str:
    if body is None:
        return ""
    kinds = ", ".join(
        f"<code>{escape(media)}</code> {_shape(each)}" for media, each in body["content"].items()
    )
    return f"<p>Body{'' if body['required'] else ' (may be left out)'}: {kinds}</p>"


def _shape(content: dict[str, Any]) -> str:
    reference = content["schema"].get("$ref")
    if reference is None:
        return escape(str(content["schema"].get("type", "")))
    name = escape(reference.rpartition("/")[2])
    return f'<a href="#shape-{name}">{name}</a>'


def _response(status: str, response: dict[str, Any]) -> str:
    shapes = ", ".join(dict.fromkeys(_shape(each) for each in response.get("content", {}).values()))
    text = _text(response["description"])
    return f"<tr><th scope='row'>{escape(status)}</th><td>{text}</td><td>{shapes}</td></tr>"


def _codes() -> str:
    rows = "".join(
        f"<tr id='{code}'><th scope='row'><code>{code}</code></th><td>{status}</td>"
        f"<td>{escape(title)}</td></tr>"
        for code, (status, title) in REFUSALS.items()
    )
    return f'<section id="codes"><h2>Codes of refusals</h2><table><tbody>{rows}</tbody></table></section>'


def _shapes(document: dict[str, Any]) -> str:
    shown = "".join(_fields(name, schema) for name, schema in document["components"]["schemas"].items())
    return f'<section id="shapes"><h2>Shapes</h2>{shown}</section>'


def _fields(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><th scope='row'><code>{escape(field)}</code></th><td>{_kind(each)}</td>"
        f"<td>{'' if field in required else 'optional'}</td></tr>"
        for field, each in schema.get("properties", {}).items()
    )
    about = _text(str(schema.get("description", "")).partition("\n")[0].replace("``", "`"))
    return (
        f'<article id="shape-{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>'
        f"<table><tbody>{rows}</tbody></table></article>"
    )


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _shape({"schema": schema})
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    kind = escape(str(schema.get("type", "any")))
    return f"{kind} of {_kind(schema['items'])}" if schema.get("items") else kind
