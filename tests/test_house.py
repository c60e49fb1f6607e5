"""The house's plan, held: which room may import which, and where starlette and SQL may stand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bulkops

PACKAGE = Path(bulkops.__file__).parent

#: Floors from the ground up; a file imports only from floors below its own, or from its own room.
FLOORS: list[tuple[str, ...]] = [
    (
        "handles",
        "errors",
        "states",
        "timing",
        "ids",
        "labels",
        "cells",
        "places",
        "nimble",
        "shapes",
        "slots",
    ),
    ("database", "models", "effects", "hub", "batch", "steadiness"),
    ("operations", "decisions", "progress"),
    ("settings",),
    ("mistakes",),
    ("configuration",),
    ("store", "resources"),
    ("drafts", "tail", "joblog", "metrics", "runtime_file", "egress"),
    ("chains", "cleaner", "feed", "accounting", "postman"),
    ("giveback", "drafting"),
    ("house", "building"),
    ("slice", "freezer"),
    ("runner",),
    ("workers", "janitor", "scheduler"),
    ("maintenance",),
    ("service",),
    ("runtime",),
    ("web", "client"),
    ("embedding",),
    ("testing", "demo_pictures"),
    ("demo_data",),
    ("demo",),
    ("sidecar",),
    ("cli",),
    ("binary", "package"),
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
TOP = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
FILES = sorted(set(PACKAGE.rglob("*.py")) - TOP)


def room_of(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "bulkops"}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("bulkops.")} & set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_floors_below(path: Path) -> None:
    room = room_of(path)
    assert room in LEVEL, f"give {room} a floor"
    above = {other for other in rooms_imported(path) - {room} if LEVEL[other] >= LEVEL[room]}
    assert not above, f"{room} (floor {LEVEL[room]}) reaches up to {sorted(above)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_starlette_stays_with_the_doors(path: Path) -> None:
    uses = any(name.split(".")[0] == "starlette" for name in imports_of(path))
    assert not uses or room_of(path) in {"web", "embedding"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_store_and_resources_never_meet(path: Path) -> None:
    other = {"store": "resources", "resources": "store"}.get(room_of(path))
    assert other not in rooms_imported(path)


SQL = ("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sql_stays_in_the_two_rooms_that_may_write_it(path: Path) -> None:
    if room_of(path) in {"store", "resources", "database", "demo_data"}:
        return
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [text for text in texts if text.strip().startswith(SQL)]


HEAVY = {"httpx", "rich", "prometheus_client", "PIL", "playwright"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_slow_imports_wait_until_they_are_needed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {
        name.split(".")[0]
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not top & HEAVY
