"""Schedules held against what they act on: `check` finds what the start would refuse, and makes nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bulkops.configuration import from_dict
from bulkops.errors import ConfigError
from bulkops.resources.schedule_inspection import inspect_schedules
from bulkops.runtime import open_runtime
from bulkops.settings import Settings

SCHEMA = """
CREATE TABLE t (id INTEGER PRIMARY KEY, who TEXT, status TEXT);
CREATE TABLE photos (id INTEGER PRIMARY KEY, project, base, keep_jpg, jpg_available, keep_raw, raw_available);
"""
RESOURCES: dict[str, Any] = {
    "rows": {"kind": "table", "database": "app.db", "table": "t", "id": "id", "tenant": "who", "search": ["status"]},
    "plain": {"kind": "table", "database": "app.db", "table": "t", "id": "id"},
    "dossiers": {
        "kind": "folder", "root": "dossiers", "shared": True, "actions": {"purge": {"confirm": "PURGE"}}
    },
    "photos": {"kind": "photos", "database": "app.db", "table": "photos", "root": "projects"},
}  # fmt: skip


def settings_of(folder: Path, **schedule: Any) -> Settings:
    (folder / "dossiers").mkdir()
    (folder / "projects").mkdir()
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.executescript(SCHEMA)
    schedules = {"it": {"every": "1h", **schedule}}
    return from_dict({"resources": RESOURCES, "schedules": schedules}, folder, {})


@pytest.mark.parametrize(
    ("wish", "where"),
    [
        ({"resource": "photos", "action": "trash_maintenance", "all": True, "options": {"days": 3}}, None),
        ({"resource": "photos", "action": "nope", "all": True}, "action"),
        ({"resource": "photos", "action": "trash_maintenance", "all": True, "options": {"dys": 3}}, "options.dys"),
        ({"resource": "photos", "action": "file_removal", "all": True, "atomic": True}, "atomic"),
        ({"resource": "dossiers", "action": "delete", "filter": {"mtime": {"lt": "-90d"}}}, None),
        ({"resource": "dossiers", "action": "delete", "filter": {"mtme": {"lt": "-90d"}}}, "filter.mtme"),
        ({"resource": "dossiers", "action": "export", "all": True}, "action"),
        ({"resource": "dossiers", "action": "purge", "all": True}, "confirm"),
        ({"resource": "dossiers", "action": "delete", "ids": ["a", "../b"]}, "ids"),
        ({"resource": "dossiers", "action": "delete", "all": True, "tenant": "a"}, None),
        ({"resource": "plain", "action": "delete", "all": True, "tenant": "a"}, "tenant"),
        ({"resource": "rows", "action": "delete", "all": True, "tenant": "a"}, None),
        ({"resource": "rows", "action": "delete", "ids": [1, "x"]}, "ids"),
        ({"resource": "rows", "action": "delete", "filter": {"status": "a"}, "exclude_ids": ["01"]}, "exclude_ids"),
    ],
)  # fmt: skip
async def test_it_finds_what_the_start_refuses(
    tmp_path: Path, wish: dict[str, Any], where: str | None
) -> None:
    settings = settings_of(tmp_path, **wish)
    before = sorted(os.listdir(tmp_path))
    found = await inspect_schedules(settings)
    assert [(each.severity, each.where) for each in found] == (
        [] if where is None else [("error", f"schedules.it.{where}")]
    )
    assert sorted(os.listdir(tmp_path)) == before
    assert os.listdir(tmp_path / "dossiers") == []
    try:
        async with open_runtime(settings):
            started = True
    except* ConfigError:
        started = False
    assert started is (where is None)
