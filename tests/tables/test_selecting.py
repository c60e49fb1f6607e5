"""Which rows a query means: matched, unfit with the first reason, walked once in key order."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.errors import Refusal
from bulkops.resources.contract import Query, Tally
from bulkops.resources.table import selecting
from bulkops.resources.table.resource import TableResource
from bulkops.resources.target import Target
from bulkops.settings import ResourceSettings
from tests.engine_house import execute, make_database

SCRIPT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, tenant, status TEXT, pinned INTEGER, gone INTEGER NOT NULL DEFAULT 0);
INSERT INTO t (id, tenant, status, pinned, gone) VALUES (1, 'a', 'open', 0, 0), (2, 'a', 'busy', 0, 0),
  (3, 'a', 'busy', 1, 0), (4, 'a', 'open', 0, 1), (5, 'b', 'open', 0, 0), (6, NULL, 'open', 0, 0),
  (7, 'A', 'open', 0, 0), (8, 'a ', 'open', 0, 0);
"""
SETTINGS = {
    "kind": "table", "table": "t", "id": "id", "tenant": "tenant", "search": ["status", "id"],
    "status": {"column": "status", "busy": ["busy"]}, "protect": {"pinned": 1}, "soft_delete": "gone",
}  # fmt: skip


@pytest.fixture
async def resource(tmp_path: Path) -> AsyncIterator[TableResource]:
    make_database(tmp_path / "app.db", SCRIPT)
    target = Target(tmp_path / "app.db")
    made = TableResource("things", msgspec.convert(SETTINGS, ResourceSettings), target, {})
    await made.open()
    yield made
    await target.close()


def query(**fields: Any) -> Query:
    return Query(**{"action": "delete", "tenant": "a", **fields})


async def walked(resource: TableResource, asked: Query) -> list[tuple[Any, str | None]]:
    return [(each.id, each.code) async for found in resource.manifest(asked) for each in found]


async def test_all_means_the_tenants_visible_rows_with_reasons(resource: TableResource) -> None:
    expected = [(1, None), (2, "INELIGIBLE"), (3, "PROTECTED")]
    assert await walked(resource, query()) == expected
    assert [(each.id, each.code) for each in await resource.select(query(), 100)] == expected
    assert await resource.tally(query(), 5) == Tally(3, 1)


async def test_a_null_tenant_is_nobodys_and_a_tenant_is_exact(resource: TableResource) -> None:
    assert [item for item, _ in await walked(resource, query(tenant="A"))] == [7]
    assert [item for item, _ in await walked(resource, query(tenant="a "))] == [8]
    assert await walked(resource, query(tenant="")) == []
    assert len(await walked(resource, query(tenant=None))) == 7


async def test_ids_answer_for_each_in_the_order_asked(resource: TableResource) -> None:
    found = await resource.select(query(ids=[5, 4, 1, 99]), 4)
    assert [(each.id, each.code) for each in found] == [
        (5, "NOT_FOUND"),
        (4, "ALREADY_DONE"),
        (1, None),
        (99, "NOT_FOUND"),
    ]
    assert await resource.tally(query(ids=[5, 4, 1, 99]), 5) == Tally(4, 1)


async def test_excluded_ids_are_not_matched(resource: TableResource) -> None:
    assert [item for item, _ in await walked(resource, query(exclude=[2, 99]))] == [1, 3]
    assert [each.id for each in await resource.select(query(ids=[1, 3], exclude=[3]), 2)] == [1]
    assert await resource.tally(query(ids=[1, 3], exclude=[3]), 5) == Tally(1, 1)


async def test_a_bound_keeps_out_what_came_later(resource: TableResource, tmp_path: Path) -> None:
    bound = await resource.bound()
    assert bound == 8
    execute(tmp_path / "app.db", "INSERT INTO t (id, tenant, status) VALUES (9, 'a', 'open')")
    assert 9 not in [item for item, _ in await walked(resource, query(bound=bound))]
    assert 9 in [item for item, _ in await walked(resource, query())]


async def test_a_walk_of_many_lists_gives_each_row_once(
    resource: TableResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "_FETCH", 7)
    execute(
        tmp_path / "app.db",
        "WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < 199)"
        " INSERT INTO t (id, tenant, status) SELECT i, 'x', 'open' FROM n",
    )
    assert [item for item, _ in await walked(resource, query(tenant="x"))] == list(range(100, 200))


async def test_a_key_that_is_no_utf8_costs_its_own_row_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "_FETCH", 3)
    make_database(
        tmp_path / "texts.db",
        "CREATE TABLE t (id TEXT PRIMARY KEY);"
        "INSERT INTO t VALUES ('a'), ('b'), ('c'), ('d'), (CAST(x'64ff' AS TEXT)), ('e'), ('f'), ('g');",
    )
    target = Target(tmp_path / "texts.db")
    settings = ResourceSettings(kind="table", table="t", id="id")
    made = TableResource("things", settings, target, {})
    await made.open()
    try:
        asked = Query(action="delete")
        assert [item for item, _ in await walked(made, asked)] == ["a", "b", "c", "d", "e", "f", "g"]
        assert len(await made.select(asked, 100)) == 7
    finally:
        await target.close()


async def test_statements_that_sqlite_cannot_prepare_are_refused_before_any_job(tmp_path: Path) -> None:
    app = make_database(tmp_path / "odd.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    with closing(sqlite3.connect(app)) as connection:
        connection.create_function("theirs", 1, lambda _: None)
        connection.execute("CREATE TRIGGER x AFTER DELETE ON t BEGIN SELECT theirs(old.id); END")
        connection.commit()
    target = Target(app)
    made = TableResource("things", ResourceSettings(kind="table", table="t", id="id"), target, {})
    await made.open()
    try:
        with pytest.raises(Refusal, match="theirs") as raised:
            await made.check(Query(action="delete"))
        assert raised.value.status == 422
    finally:
        await target.close()
