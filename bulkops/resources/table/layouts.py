"""What the files that a table's actions write look like: read from options, described to callers.

What comes in: options of an export or an archive, and the declared children; what goes out: a `Layout`. No
row and no file is seen here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bulkops.effects import Making
from bulkops.resources.table.encoding import Writing
from bulkops.settings import ChildSettings

FORMATS: Final = ("csv", "json", "ndjson")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What a file looks like: its format, how values are written, which children's rows are nested."""

    format: str
    writing: Writing
    children: list[ChildSettings] = []
    bom: bool = False


def layout_of(action: str, options: dict[str, Any], children: list[ChildSettings]) -> Layout | None:
    """Read the options of an action, which were checked; ``None`` when it writes no file."""
    if action == "export":
        return _export(options, children)
    return _archive(options, children) if action == "archive" else None


def _export(options: dict[str, Any], children: list[ChildSettings]) -> Layout:
    format_ = options.get("format", "csv")
    return Layout(
        format=format_,
        writing=Writing(csv=format_ == "csv", safe=options.get("formulas", "safe") == "safe"),
        children=children if options.get("include_details") else [],
        bom=bool(options.get("bom")) and format_ == "csv",
    )


def _archive(options: dict[str, Any], children: list[ChildSettings]) -> Layout:
    """Every child's rows go along, and all can be read back."""
    format_ = "ndjson.gz" if options.get("compress", True) else "ndjson"
    return Layout(format=format_, writing=Writing(csv=False, exact=True), children=children)


def export_options(children: list[ChildSettings]) -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of an export's options, by name."""
    schemas: dict[str, dict[str, Any]] = {
        "format": {"type": "string", "enum": list(FORMATS), "default": "csv", "title": "Format"},
        "formulas": {
            "type": "string",
            "enum": ["safe", "raw"],
            "default": "safe",
            "title": "Cells of CSV that begin like a formula: kept text by a ' before them, or as they are",
        },
        "bom": {"type": "boolean", "default": False, "title": "Begin CSV with a byte order mark, for Excel"},
    }
    if children:
        schemas["include_details"] = {
            "type": "boolean",
            "default": False,
            "title": f"With their rows of: {', '.join(child.table for child in children)}",
        }
    return schemas


def making_of(name: str, action: str, layout: Layout) -> Making:
    """Describe the file that an action of the resource ``name`` makes."""
    return Making(kind=action, format=layout.format, stem=f"{name}-{action}", alone=action == "export")
