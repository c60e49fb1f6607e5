"""The file deletion queue as people steer it: an admin's, and a tenant's own part only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkops.errors import Refusal
from bulkops.runtime import Runtime
from tests.engine_house import OWNER, execute, make_database, opened, run, until
from tests.store_house import a_caller

RESOURCE = {"table": "t", "id": "id", "tenant": "who", "file": "path", "root": "files"}


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, who TEXT, path TEXT);"
        "INSERT INTO t VALUES (1, 'a', '1.txt'), (2, 'a', '2.txt'), (3, 'b', '3.txt'), (4, 'b', '../out.txt'),"
        " (5, 'b', 'gone.txt');",
    )
    (tmp_path / "files").mkdir()
    for number in (1, 2, 3):
        (tmp_path / "files" / f"{number}.txt").write_text(str(number))
    (tmp_path / "out.txt").write_text("outside")
    async with opened(tmp_path, {"things": RESOURCE}) as running:
        yield running


async def settled(runtime: Runtime) -> None:
    async def nothing_pending() -> bool:
        return bool((await runtime.service.cleanup_stats(OWNER))["pending"] == 0)

    await until(nothing_pending)


async def test_files_go_after_their_rows_and_a_path_outside_costs_its_row_only(
    runtime: Runtime, tmp_path: Path
) -> None:
    job = await run(runtime, "things", "delete", all=True)
    assert (job.succeeded, job.failed) == (4, 1)
    await settled(runtime)
    assert [path.name for path in (tmp_path / "files").glob("*.txt")] == []
    assert (tmp_path / "out.txt").read_text() == "outside"
    assert execute(tmp_path / "app.db", "SELECT id FROM t") == [(4,)]


async def test_the_queue_is_an_admins(runtime: Runtime) -> None:
    operator = a_caller(role="operator")
    for call in (
        lambda: runtime.service.cleanup_stats(operator),
        lambda: runtime.service.cleanup_items(operator, limit=10, page=None),
        lambda: runtime.service.cleanup_run(operator, batch_size=1, max_attempts=1),
        lambda: runtime.service.cleanup_requeue(operator, 1),
        lambda: runtime.service.cleanup_drop(operator, 1),
    ):
        with pytest.raises(Refusal) as raised:
            await call()
        assert raised.value.code == "FORBIDDEN"


@pytest.mark.parametrize(("batch_size", "max_attempts"), [(0, 1), (1001, 1), (1, 0), (1, 101)])
async def test_a_run_has_bounds(runtime: Runtime, batch_size: int, max_attempts: int) -> None:
    with pytest.raises(Refusal) as raised:
        await runtime.service.cleanup_run(OWNER, batch_size=batch_size, max_attempts=max_attempts)
    assert raised.value.code == "INVALID_FIELD"


async def test_an_entry_of_another_tenant_is_as_unknown_as_none(runtime: Runtime) -> None:
    for caller in (a_caller(tenant="a"), OWNER):
        for call in (runtime.service.cleanup_requeue, runtime.service.cleanup_drop):
            with pytest.raises(Refusal) as raised:
                await call(caller, 404)
            assert raised.value.code == "NOT_FOUND"


async def test_a_run_with_nothing_to_do_says_so(runtime: Runtime) -> None:
    found = await runtime.service.cleanup_run(OWNER, batch_size=100, max_attempts=3)
    assert found["processed"] == found["remaining"] == 0
