"""A request reads the folder once, in bounded time; a job takes what stood there when it was accepted."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bulkops.models import Preview, StartBody, ValidateBody
from bulkops.resources.contract import Query, Resource
from bulkops.resources.folder import listing, listings
from bulkops.resources.folder import resource as folder_resource
from bulkops.runtime import Runtime
from bulkops.store import jobs
from tests.engine_house import OWNER, outcomes, until
from tests.folders.house import dossiers

_MANY = 1_100


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Runtime]:
    root = tmp_path / "dossiers_data"
    root.mkdir()
    for number in range(_MANY):
        (root / f"{number:05}").touch()
    async with dossiers(tmp_path) as runtime:
        yield runtime


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note when the folder was read as a whole."""
    times: list[float] = []
    real = listing.lay_out

    def noted(*args: Any, **kwargs: Any) -> Any:
        times.append(time.monotonic())
        return real(*args, **kwargs)

    monkeypatch.setattr(listings, "lay_out", noted)
    return times


async def validate(runtime: Runtime, **selection: Any) -> Preview:
    body = ValidateBody(action="delete", **(selection or {"all": True}))
    return await runtime.service.validate(OWNER, "dossiers", body)


async def test_a_preview_reads_the_folder_once(house: Runtime, read: list[float]) -> None:
    seen = await validate(house)
    assert (seen.matched, seen.eligible_count, len(seen.sample)) == (_MANY, _MANY, 100)
    assert seen.impact.files == _MANY
    assert len(read) == 1


async def test_a_job_is_frozen_from_what_its_request_read(house: Runtime, read: list[float]) -> None:
    started = await house.service.start(OWNER, "dossiers", "delete", StartBody(all=True))
    await until(lambda: _ended(house, started.id))
    assert len(await outcomes(house, started.id)) == _MANY
    assert len(read) == 1


async def _ended(runtime: Runtime, job_id: str) -> bool | None:
    return (await runtime.service.job(OWNER, job_id)).terminal or None


async def test_a_folder_that_takes_too_long_is_told_without_numbers_and_read_no_second_time(
    house: Runtime, read: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_resource, "_LIST_S", 0.0)
    seen = await validate(house)
    assert (seen.matched, seen.eligible_count, seen.impact.files) == (None, None, None)
    assert "IMPACT_PARTIAL" in [warning.code for warning in seen.warnings]
    assert len(read) == 1
    started = await house.service.start(OWNER, "dossiers", "delete", StartBody(all=True))
    await until(lambda: _ended(house, started.id))
    row = await house.store.read(lambda connection: jobs.get(connection, started.id))
    assert row is not None
    assert (row.total, row.succeeded) == (_MANY, _MANY)


async def accepted(resource: Resource) -> Query:
    query = Query(action="delete", bound=await resource.bound())
    assert len(await resource.select(query, _MANY)) == _MANY
    return query


async def frozen(resource: Resource, query: Query) -> set[str]:
    return {str(each.id) async for found in resource.manifest(query) for each in found}


def wait_for_a_tick(root: Path) -> None:
    """Return when the clock that the file system takes its times from has moved on for certain."""
    began = time.time_ns()
    while (root.parent / "tick").stat().st_ctime_ns < began + 20_000_000:
        (root.parent / "tick").touch()


async def test_what_appears_between_acceptance_and_freezing_is_not_taken(
    house: Runtime, tmp_path: Path
) -> None:
    resource, root = house.estate.resources["dossiers"], tmp_path / "dossiers_data"
    query = await accepted(resource)
    (root / "new").touch()
    assert await frozen(resource, query) == {f"{number:05}" for number in range(_MANY)}


async def test_after_a_crash_what_appeared_since_is_told_by_its_time(house: Runtime, tmp_path: Path) -> None:
    resource, root = house.estate.resources["dossiers"], tmp_path / "dossiers_data"
    (tmp_path / "tick").touch()
    (tmp_path / "old").touch()
    wait_for_a_tick(root)
    query = await accepted(resource)
    await resource.close()  # what it knew is forgotten
    await resource.open()
    wait_for_a_tick(root)
    (root / "new").touch()
    os.utime(root / "new", ns=(1, 1))
    (tmp_path / "old").rename(root / "moved")
    (root / "00001").rename(root / "renamed")
    assert await frozen(resource, query) == {f"{number:05}" for number in range(_MANY)} - {"00001"}


async def test_what_is_only_written_to_is_taken_where_the_folder_shows_that_nothing_appeared(
    house: Runtime, tmp_path: Path
) -> None:
    resource, root = house.estate.resources["dossiers"], tmp_path / "dossiers_data"
    (tmp_path / "tick").touch()
    wait_for_a_tick(root)
    query = await accepted(resource)
    await resource.close()
    await resource.open()
    wait_for_a_tick(root)
    (root / "00001").write_text("a line")
    assert len(await frozen(resource, query)) == _MANY


async def test_listings_do_not_pile_up(house: Runtime, read: list[float]) -> None:
    resource = house.estate.resources["dossiers"]
    query = await accepted(resource)
    for _ in range(3):
        await accepted(resource)
    await resource.tally(query, 1.0)
    assert len(read) == 5
