"""The contract every table keeps, whatever its schema, with and without a ledger in the application's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
