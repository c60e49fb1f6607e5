"""Lists of rows: every row once, in order, whatever it holds; and values that JSON can carry."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.errors import Refusal
from bulkops.resources.contract import Browse, ItemsPage
from bulkops.resources.table.resource import TableResource
from bulkops.resources.target import Target
from bulkops.settings import ResourceSettings
from tests.engine_house import make_database

SCRIPT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, v, w TEXT, gone INTEGER NOT NULL DEFAULT 0);
INSERT INTO t (id, v, w) VALUES (1, NULL, 'x'), (2, 5, 'x'), (3, 5, NULL), (4, 5.0, 'y'), (5, 'text', 'y'),
  (6, x'00ff', 'y'),
  (7, x'00ff', 'z'), (8, CAST(x'ff' AS TEXT), 'z'), (9, 9e999, 'z'), (10, -9e999, 'ä'),
  (11, '', 'Ä'), (12, 'Text', 'é'),
  (13, CAST(x'fffe' AS TEXT), '%'), (14, NULL, '_'), (15, 0.1, 'ß');
INSERT INTO t VALUES (16, 1, 'deleted', 1);
"""


async def opened(folder: Path, script: str = SCRIPT, **more: Any) -> TableResource:
    make_database(folder / "app.db", script)
    settings = {
        "kind": "table",
        "table": "t",
        "id": "id",
        "search": ["v", "w"],
        "soft_delete": "gone",
        **more,
    }
    target = Target(folder / "app.db")
    resource = TableResource("things", msgspec.convert(settings, ResourceSettings), target, {})
    await resource.open()
    return resource


async def all_pages(resource: TableResource, limit: int, **asked: Any) -> list[str]:
    found: list[str] = []
    after: list[Any] | None = None
    for _ in range(100):
        page: ItemsPage = await resource.browse(Browse(tenant=None, limit=limit, after=after, **asked))
        found += [item["id"] for item in page.items]
        assert len(page.items) <= limit
        msgspec.json.encode(page.items)
        if page.after is None:
            return found
        after = msgspec.json.decode(msgspec.json.encode(page.after))
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("sort", [None, "id", "-id", "v", "-v", "w", "-w"])
@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_pages_of_any_size_hold_every_row_once_in_the_same_order(
    tmp_path: Path, sort: str | None, limit: int
) -> None:
    resource = await opened(tmp_path)
    try:
        whole = await all_pages(resource, 1000, sort=sort)
        assert sorted(whole, key=int) == [str(number) for number in range(1, 16)]
        assert await all_pages(resource, limit, sort=sort) == whole
    finally:
        await resource.target.close()


async def test_a_composite_key_is_paged_like_any_other(tmp_path: Path) -> None:
    rows = [(a, f"{b}é") for a in range(4) for b in range(4)]
    random.Random(1).shuffle(rows)
    script = "CREATE TABLE t (a INTEGER, b TEXT, v, w, PRIMARY KEY (a, b));" + "".join(
        f"INSERT INTO t VALUES ({a}, '{b}', {a % 2}, NULL);" for a, b in rows
    )
    resource = await opened(tmp_path, script, id=["a", "b"], soft_delete=None)
    try:
        for sort in (None, "v", "-v", "w"):
            assert len(set(await all_pages(resource, 3, sort=sort))) == 16
    finally:
        await resource.target.close()


async def test_deleted_rows_are_listed_apart_and_say_why_they_are_unfit(tmp_path: Path) -> None:
    resource = await opened(tmp_path, protect={"w": "x"})
    try:
        assert await all_pages(resource, 10, deleted=True) == ["16"]
        page = await resource.browse(Browse(tenant=None, limit=3))
        assert [(item["eligible"], item["code"]) for item in page.items] == [
            (False, "PROTECTED"),
            (False, "PROTECTED"),
            (True, None),
        ]
        assert (page.total, page.total_capped) == (15, False)
    finally:
        await resource.target.close()


async def test_a_search_and_a_filter_hold_together(tmp_path: Path) -> None:
    resource = await opened(tmp_path)
    try:
        assert await all_pages(resource, 10, q="tex") == ["5", "12"]
        assert await all_pages(resource, 10, q="tex", filter={"w": "y"}) == ["5"]
        assert await all_pages(resource, 10, q="%") == ["13"]
    finally:
        await resource.target.close()


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"sort": "gone"}, "/sort"),
        ({"sort": "v; DROP TABLE t"}, "/sort"),
        ({"after": [1]}, "/page"),
        ({"after": [None, {"float": "x"}]}, "/page"),
        ({"after": [None, {"bytes": "%"}]}, "/page"),
        ({"after": [None, [1]]}, "/page"),
        ({"filter": {"gone": 1}}, "/filter/gone"),
    ],
)
async def test_what_a_list_cannot_do_is_refused_at_its_place(
    tmp_path: Path, asked: dict[str, Any], pointer: str
) -> None:
    resource = await opened(tmp_path)
    try:
        with pytest.raises(Refusal) as raised:
            await resource.browse(Browse(tenant=None, **asked))
        assert raised.value.extra["errors"][0]["pointer"] == pointer
    finally:
        await resource.target.close()


async def test_deleted_rows_of_a_table_without_a_flag_are_in_the_trash(tmp_path: Path) -> None:
    resource = await opened(tmp_path, soft_delete=None)
    try:
        with pytest.raises(Refusal, match="trash"):
            await resource.browse(Browse(tenant=None, deleted=True))
    finally:
        await resource.target.close()


async def test_counts_are_by_status_also_where_a_status_is_no_text(tmp_path: Path) -> None:
    resource = await opened(tmp_path, status={"column": "v", "closed": "x"})
    try:
        counts = await resource.counts(None, 5)
        assert (counts["total"], counts["deleted"]) == (15, 1)
        assert counts["by_status"]["5"] >= 2
        msgspec.json.encode(counts)
    finally:
        await resource.target.close()
