"""The contract every table keeps, whatever its schema, with and without a ledger in the application's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bulkops.errors import Refusal
from bulkops.models import RetryBody, StartBody, ValidateBody
from tests.engine_house import (
    OWNER,
    counts,
    dump,
    execute,
    make_database,
    opened,
    outcomes,
    report,
    rested,
    run,
    undo,
)
from tests.tables.schemas import SCHEMAS, Schema

LEDGERS = ("own", "app")
EACH = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
BOTH = pytest.mark.parametrize("ledger", LEDGERS)


def resource_of(schema: Schema, ledger: str) -> dict[str, Any]:
    actions = {"delete": {"batch_size": 3} | schema.settings.get("actions", {}).get("delete", {})}
    return {**schema.settings, "ledger": ledger, "actions": actions}


def without(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out the schema: cures drop triggers."""
    return {name: rows for name, rows in found.items() if name}


@EACH
@BOTH
async def test_all_are_deleted_but_those_that_cannot_be_and_undo_leads_back(
    schema: Schema, ledger: str, tmp_path: Path
) -> None:
    app = make_database(tmp_path / "app.db", schema.script)
    before = dump(app)
    async with opened(tmp_path, {"things": resource_of(schema, ledger)}) as runtime:
        preview = await runtime.service.validate(OWNER, "things", ValidateBody(action="delete", all=True))
        assert preview.matched == len(schema.items)
        assert dump(app) == before, "a preview changes nothing"

        job = await run(runtime, "things", "delete", all=True)
        expected = {item: schema.odd.get(item, "succeeded") for item in schema.items}
        assert await outcomes(runtime, job.id) == expected, job.last_error
        failed = sum(word.startswith("failed") for word in expected.values())
        skipped = sum(word.startswith("skipped") for word in expected.values())
        assert counts(job) == (len(expected) - failed - skipped, failed, skipped)
        assert job.total == len(schema.items)
        assert job.outcome == ("partial" if failed else "ok")
        assert len(await report(runtime, job.id)) == len(expected)
        assert len(await report(runtime, job.id, "failed")) == failed

        back = await undo(runtime, job.id)
        assert counts(back) == (job.succeeded, 0, 0), await outcomes(runtime, back.id)
        assert dump(app) == before


@EACH
async def test_named_items_are_deleted_and_put_back_one_by_one(schema: Schema, tmp_path: Path) -> None:
    ledger = LEDGERS[SCHEMAS.index(schema) % 2]
    app = make_database(tmp_path / "app.db", schema.script)
    before = dump(app)
    one = schema.chosen or next(item for item in schema.items if item not in schema.odd)
    chosen = [one]
    unknown = "404,404" if isinstance(schema.settings["id"], list) else "404"
    async with opened(tmp_path, {"things": resource_of(schema, ledger)}) as runtime:
        job = await run(runtime, "things", "delete", ids=[*chosen, unknown, *chosen])
        assert await outcomes(runtime, job.id) == {one: "succeeded", unknown: "skipped NOT_FOUND"}
        back = await undo(runtime, job.id, ids=chosen)
        assert counts(back) == (1, 0, 0)
        assert dump(app) == before
        again = await run(runtime, "things", "delete", ids=chosen)
        assert counts(again) == (1, 0, 0)


@EACH
async def test_a_job_is_paused_resumed_and_cancelled_between_batches(schema: Schema, tmp_path: Path) -> None:
    ledger = LEDGERS[SCHEMAS.index(schema) % 2 - 1]
    app = make_database(tmp_path / "app.db", schema.script)
    before = dump(app)
    async with opened(tmp_path, {"things": resource_of(schema, ledger)}) as runtime:
        view = await runtime.service.start(
            OWNER, "things", "delete", StartBody(all=True, batch_size=1, canary=1)
        )
        paused = await rested(runtime, view.id)
        assert (paused.status, paused.processed) == ("paused", 1)
        assert paused.status_reason is not None
        assert paused.status_reason.code == "CANARY"

        await runtime.service.cancel(OWNER, view.id)
        ended = await rested(runtime, view.id)
        assert (ended.status, ended.processed) == ("cancelled", 1)
        if ended.succeeded:
            assert counts(await undo(runtime, view.id)) == (ended.succeeded, 0, 0)
        assert dump(app) == before

        view = await runtime.service.start(
            OWNER, "things", "delete", StartBody(all=True, batch_size=1, canary=1)
        )
        await rested(runtime, view.id)
        await runtime.service.resume(OWNER, view.id)
        done = await rested(runtime, view.id)
        assert (done.status, done.processed) == ("completed", len(schema.items))
        if done.succeeded:
            back = await undo(runtime, view.id)
            assert counts(back) == (done.succeeded, 0, 0)
        assert dump(app) == before


@pytest.mark.parametrize("schema", [each for each in SCHEMAS if each.cure], ids=lambda schema: schema.name)
@BOTH
async def test_a_retry_takes_what_failed_once_the_cause_is_gone(
    schema: Schema, ledger: str, tmp_path: Path
) -> None:
    app = make_database(tmp_path / "app.db", schema.script)
    async with opened(tmp_path, {"things": resource_of(schema, ledger)}) as runtime:
        first = await run(runtime, "things", "delete", all=True)
        assert schema.cure is not None
        execute(app, schema.cure)
        cured = dump(app)
        view, fresh = await runtime.service.retry(OWNER, first.id, RetryBody(codes=["CONSTRAINT"]))
        assert fresh
        second = await rested(runtime, view.id)
        assert counts(second) == (first.failed, 0, 0)
        assert counts(await undo(runtime, second.id)) == (first.failed, 0, 0)
        assert dump(app) == cured
        assert counts(await undo(runtime, first.id)) == (first.succeeded, 0, 0)


@EACH
async def test_a_final_delete_leaves_nothing_to_undo(schema: Schema, tmp_path: Path) -> None:
    app = make_database(tmp_path / "app.db", schema.script)
    async with opened(tmp_path, {"things": resource_of(schema, "own")}) as runtime:
        job = await run(runtime, "things", "delete", all=True, options={"hard": True})
        assert job.status == "completed", job.error
        assert job.undo_until is None
        assert "undo" not in job.allowed_actions
        table = schema.settings["table"]
        left = dump(app)[table]
        if (
            not schema.odd
            and not schema.soft
            and "no ids" not in schema.name
            and "no rowid" not in schema.name
        ):
            assert left == []


async def test_relative_times_are_the_columns_own_or_refused(tmp_path: Path) -> None:
    app = make_database(
        tmp_path / "app.db",
        "CREATE TABLE visits (id INTEGER PRIMARY KEY, unix_us INTEGER, julian REAL, title TEXT, deleted_at INTEGER);"
        "INSERT INTO visits (unix_us, julian, title) VALUES"
        " (0, 0, ''), (1000000000 * 1000000, 2452162.5, 'old'),"
        " (unixepoch() * 1000000, julianday('now'), 'new')",
    )
    settings = {"kind": "table", "database": str(app), "table": "visits", "id": "id"}
    search = {"search": ["unix_us", "julian", "title"], "soft_delete": "deleted_at"}
    async with opened(tmp_path, {"visits": {**settings, **search}}) as runtime:
        body = ValidateBody(action="delete", filter={"unix_us": {"gt": "-30d"}})
        assert (await runtime.service.validate(OWNER, "visits", body)).eligible == ["3"]
        for name in ("julian", "title"):
            with pytest.raises(Refusal, match=f"'{name}' holds neither dates nor") as refused:
                await run(runtime, "visits", "delete", filter={name: {"lt": "-30d"}})
            assert refused.value.extra["errors"][0]["pointer"] == f"/filter/{name}"
        assert counts(await run(runtime, "visits", "delete", filter={"title": {"ne": "old"}})) == (2, 0, 0)


async def test_a_time_of_deletion_is_written_only_as_the_application_does(tmp_path: Path) -> None:
    app = make_database(
        tmp_path / "app.db",
        "CREATE TABLE visits (id INTEGER PRIMARY KEY, deleted_at INTEGER);"
        "INSERT INTO visits (deleted_at) VALUES (NULL), (13400000000000000)",
    )
    settings = {"kind": "table", "database": str(app), "table": "visits", "id": "id"}
    async with opened(tmp_path, {"visits": {**settings, "soft_delete": "deleted_at"}}) as runtime:
        with pytest.raises(Refusal, match="/action: soft_delete: 'deleted_at' holds neither dates nor"):
            await run(runtime, "visits", "delete", all=True)
        execute(app, "UPDATE visits SET deleted_at = 1780000000000000 WHERE id = 2")
        assert counts(await run(runtime, "visits", "delete", all=True)) == (1, 0, 0)
    ((stamp,),) = execute(app, "SELECT deleted_at FROM visits WHERE id = 1")
    assert 10**15 < stamp < 10**16


async def test_rows_before_a_date_are_those_before_it_however_the_column_writes_dates(tmp_path: Path) -> None:
    make_database(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s INTEGER, day TEXT, iso TEXT, odd INTEGER, price DECIMAL(10,2));"
        "INSERT INTO t VALUES"
        " (1, strftime('%s', '2025-12-31 23:00') + 0,"
        "  '2025-12-31 23:00:00', '2025-12-31T23:00:00Z', '2025-12-31 23:00:00', 5),"
        " (2, strftime('%s', '2026-01-01 01:00') + 0,"
        "  '2026-01-01 01:00:00', '2026-01-01T01:00:00Z', '2026-01-01 01:00:00', 7)",
    )
    search = ["s", "day", "iso", "odd", "price"]
    async with opened(tmp_path, {"things": {"table": "t", "id": "id", "search": search}}) as runtime:

        async def matching(**filter_: Any) -> list[str]:
            body = ValidateBody(action="delete", filter=filter_)
            return (await runtime.service.validate(OWNER, "things", body)).eligible

        for column in ("s", "day", "iso", "odd"):
            for when in (
                "2026-01-01",
                "2026-01-01T00:00:00Z",
                "2026-01-01T02:00:00+02:00",
                "2026-01-01 00:00:00",
            ):
                assert await matching(**{column: {"lt": when}}) == ["1"], (column, when)
                assert await matching(**{column: {"gte": when}}) == ["2"], (column, when)
        assert await matching(price={"lt": "6"}) == ["1"]
        for column, text in (("price", "abc"), ("price", "2026-01-01"), ("s", "soon")):
            with pytest.raises(Refusal) as refused:
                await matching(**{column: {"lt": text}})
            assert refused.value.extra["errors"][0]["pointer"] == f"/filter/{column}/lt"


async def test_a_preview_warns_of_rows_that_other_rows_keep(tmp_path: Path) -> None:
    app = make_database(
        tmp_path / "app.db",
        "CREATE TABLE albums (id INTEGER PRIMARY KEY, deleted_at TEXT);"
        "CREATE TABLE tracks (id INTEGER PRIMARY KEY, album INTEGER REFERENCES albums);"
        "CREATE TABLE likes (album INTEGER REFERENCES albums ON DELETE CASCADE);"
        "INSERT INTO albums (id) VALUES (1), (2); INSERT INTO tracks (album) VALUES (1);"
        "INSERT INTO likes VALUES (1), (2)",
    )
    plain = {"kind": "table", "database": str(app), "table": "albums", "id": "id"}
    resources = {
        "plain": plain,
        "soft": {**plain, "soft_delete": "deleted_at"},
        "off": {**plain, "foreign_keys": False},
        "whole": {**plain, "children": [{"table": "tracks", "key": "album"}]},
    }
    async with opened(tmp_path, resources) as runtime:

        async def warned(resource: str, *ids: int, **options: Any) -> list[str]:
            body = ValidateBody(action="delete", ids=list(ids), options=options)
            warnings = (await runtime.service.validate(OWNER, resource, body)).warnings
            return [each.detail for each in warnings if each.code == "CONSTRAINT"]

        said = ['rows of "tracks" point at some of these, which fail then']
        assert await warned("plain", 1, 2) == await warned("soft", 1, hard=True) == said
        assert await warned("plain", 2) == await warned("soft", 1) == []
        assert await warned("off", 1) == await warned("whole", 1) == []
        job = await run(runtime, "plain", "delete", all=True)
        assert await outcomes(runtime, job.id) == {"1": "failed CONSTRAINT", "2": "succeeded"}
