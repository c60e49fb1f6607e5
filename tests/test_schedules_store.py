"""Rows of schedules: each hot question has its index, and a schedule moves on from one instant once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bulkops.database import open_connection
from bulkops.store import meta, migrations, schedules
from bulkops.store.schedules import ScheduleRow
from bulkops.store.store import Store
from bulkops.store.transaction import Commit
from tests.store_house import START_MS


def a_row(name: str = "S", **fields: Any) -> ScheduleRow:
    row = ScheduleRow(
        id=name,
        name=name,
        tenant="acme",
        resource="receipts",
        action="delete",
        body={"filter": {"status": "old"}},
        every_s=60,
        origin="api",
        created_by="ana",
        roles=["admin"],
        created_ms=START_MS,
        next_ms=START_MS,
    )
    return msgspec.structs.replace(row, **fields)


async def add(store: Store, *rows: ScheduleRow) -> None:
    for row in rows:
        await store.write(partial(schedules.insert, row=row))


async def read(store: Store, name: str = "S") -> ScheduleRow:
    row = await store.read(lambda connection: schedules.get(connection, name))
    assert row is not None
    return row


async def test_a_row_comes_back_as_it_was_written_and_rings(store: Store) -> None:
    commits: list[Commit] = []
    store.on_commit.append(commits.append)
    row = a_row(cron="0 3 * * *", every_s=None, timezone="Europe/Madrid", credential="K", enabled=False)
    await add(store, row)
    assert await read(store) == row
    assert [commit.schedules for commit in commits] == [True]


async def test_of_many_who_take_it_past_one_instant_one_does(store: Store) -> None:
    row = a_row()
    await add(store, row)
    taken: list[bool] = []

    async def take(job: str) -> None:
        taken.append(
            await store.write(
                lambda tx: schedules.advance(tx, row, next_ms=START_MS + 60_000, result="started", job=job)
            )
        )

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(take, str(number))
    assert sorted(taken) == [False] * 19 + [True]
    after = await read(store)
    assert (after.next_ms, after.last_ms, after.last_result) == (START_MS + 60_000, START_MS, "started")


async def test_a_disabled_or_deleted_one_is_not_taken_anywhere(store: Store) -> None:
    await add(store, a_row(enabled=False))
    for name in ("S", "gone"):
        assert not await store.write(partial(schedules.advance, row=a_row(name), next_ms=1, result="started"))


async def test_a_refusal_keeps_the_last_job(store: Store) -> None:
    await add(store, a_row(last_job="J"))
    await store.write(lambda tx: schedules.advance(tx, a_row(), next_ms=1, result="JOB_ACTIVE"))
    after = await read(store)
    assert (after.last_job, after.last_result) == ("J", "JOB_ACTIVE")


async def test_declared_ones_are_exactly_those_declared_and_others_stay(store: Store) -> None:
    kept = a_row("kept", origin="config", next_ms=START_MS + 5, last_job="J")
    await add(store, a_row("mine"), kept, a_row("gone", origin="config"), a_row("old", origin="built_in"))
    fresh = a_row("kept", origin="config", next_ms=START_MS + 9, action="close", created_ms=START_MS + 1)
    await store.write(lambda tx: schedules.declare(tx, [fresh, a_row("new", origin="built_in")]))
    after = await read(store, "kept")
    assert (after.next_ms, after.last_job, after.action, after.created_ms) == (
        START_MS + 5,
        "J",
        "close",
        START_MS,
    )
    await store.write(lambda tx: schedules.declare(tx, [msgspec.structs.replace(fresh, every_s=120)]))
    assert (await read(store, "kept")).next_ms == START_MS + 120_000
    left = await store.read(
        lambda c: schedules.page(c, tenant=None, installation=True, before=None, limit=10)
    )
    assert [row.id for row in left] == ["mine", "kept"]


async def test_what_belongs_to_the_house_or_to_others_is_not_seen(store: Store) -> None:
    await add(store, a_row("a"), a_row("b", tenant="other"), a_row("c", tenant=None, origin="built_in"))

    async def seen(tenant: str | None, *, installation: bool) -> list[str]:
        rows = await store.read(
            lambda c: schedules.page(c, tenant=tenant, installation=installation, before=None, limit=10)
        )
        one_by_one = [
            await store.read(partial(schedules.get, schedule=name, tenant=tenant, installation=installation))
            for name in ("c", "b", "a")
        ]
        assert [row for row in one_by_one if row is not None] == rows
        return [row.id for row in rows]

    assert await seen("acme", installation=False) == ["a"]
    assert await seen(None, installation=False) == ["b", "a"]
    assert await seen(None, installation=True) == ["c", "b", "a"]


def test_a_schedule_without_a_time_or_with_two_cannot_be_written(tmp_path: Path) -> None:
    with closing(open_connection(tmp_path / "b.db", create=True)) as connection:
        migrations.create(connection, meta.first_values(0))
        for row in (a_row(every_s=None), a_row(cron="0 3 * * *")):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(schedules._INSERT, schedules._to_row(row))
