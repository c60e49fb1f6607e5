"""Actions of a host's own: handed over in batches, at least once, and every item has its outcome."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import pytest

from bulkops import Batch, Bulkops
from bulkops.errors import ConfigError, Refusal
from bulkops.models import Caller, UndoBody
from tests.hosting import ask, change, declared, ended, exceptions_of, make_house, running


class ProviderError(Exception):
    pass


async def test_items_without_a_verdict_succeed_and_the_others_have_theirs(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=5)

    @bulk.action("sessions", "summarise", batch_size=2)
    async def summarise(batch: Batch) -> None:
        for item in batch:
            if item.id == "2":
                batch.fail(item, "PROVIDER", "no answer\nfrom it")
            if item.id == "4":
                batch.skip(item, "TOO_SHORT")

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "summarise", all=True))
        assert (job.outcome, job.total, job.succeeded, job.failed, job.skipped) == ("partial", 5, 3, 1, 1)
        assert await exceptions_of(bulk, job) == {
            "2": ("failed", "PROVIDER", "no answer from it"),
            "4": ("skipped", "TOO_SHORT", ""),
        }


async def test_a_batch_knows_its_rows_its_job_and_its_key(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=3)
    seen: list[Any] = []

    @bulk.action("sessions", "look", batch_size=2)
    async def look(batch: Batch) -> None:
        seen.append((batch.key, batch.job_id, [(each.id, each.tenant, each.row["title"]) for each in batch]))
        seen.append((len(batch), batch.resource, batch.action, batch.options))

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "look", all=True))
    assert seen == [
        (f"{job.id}-1", job.id, [("1", "acme", "Session 1"), ("2", "zeta", "Session 2")]),
        (2, "sessions", "look", {}),
        (f"{job.id}-2", job.id, [("3", "acme", "Session 3")]),
        (1, "sessions", "look", {}),
    ]


async def test_a_text_that_is_no_utf_8_is_handed_over_with_its_bytes(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=2)
    change(tmp_path, "UPDATE sessions SET title = CAST(x'636166e9' AS TEXT) WHERE id = 2")
    seen: list[str] = []

    @bulk.action("sessions", "look")
    async def look(batch: Batch) -> None:
        seen.extend(item.row["title"] for item in batch)

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "look", all=True))
    assert job.outcome == "ok"
    assert [title.encode("utf-8", "surrogateescape") for title in seen] == [b"Session 1", b"caf\xe9"]


async def test_a_plain_function_runs_in_a_thread(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=3)
    threads: list[threading.Thread] = []

    @bulk.action("sessions", "look")
    def look(batch: Batch) -> None:
        threads.append(threading.current_thread())
        for item in batch:
            change(tmp_path, "UPDATE sessions SET summary = ? WHERE id = ?", item.row["title"], item.id)

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "look", ids=[1, 3]))
    assert job.outcome == "ok"
    assert threads != [threading.main_thread()]
    assert ask(tmp_path, "SELECT summary FROM sessions ORDER BY id") == [
        ("Session 1",),
        (None,),
        ("Session 3",),
    ]


async def test_a_batch_that_raises_is_done_again_with_what_is_left_of_it(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=4)
    tries: list[tuple[str, list[str]]] = []

    @bulk.action("sessions", "end")
    def end(batch: Batch) -> None:
        tries.append((batch.key, [item.id for item in batch]))
        for item in batch:
            batch.skip(item, "FORGOTTEN")
            if len(tries) == 1 and item.id == "3":
                raise ProviderError
            change(tmp_path, "UPDATE sessions SET status = 'closed' WHERE id = ?", item.id)
        if len(tries) > 1:
            batch.fail("4", "PROVIDER")

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "end", filter={"status": "open"}))
        assert tries == [(f"{job.id}-1", ["1", "2", "3", "4"]), (f"{job.id}-1", ["3", "4"])]
        assert (job.succeeded, job.skipped, job.failed) == (2, 1, 1)


async def test_a_batch_that_keeps_raising_fails_as_a_whole_without_quoting_rows(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=4)
    tries = 0

    @bulk.action("sessions", "summarise", retries=1)
    async def summarise(batch: Batch) -> None:
        nonlocal tries
        tries += 1
        raise ProviderError(next(iter(batch)).row["title"])

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "summarise", ids=[1, 2]))
        assert tries == 2
        assert job.outcome == "none"
        message = "the action raised ProviderError"
        assert await exceptions_of(bulk, job) == {
            "1": ("failed", "ACTION_ERROR", message),
            "2": ("failed", "ACTION_ERROR", message),
        }
    log = (bulk.settings.data_dir / "logs" / "bulkops.log").read_text(encoding="utf-8")
    assert "Session 1" not in log
    assert '"error":"ProviderError at test_hosted.py:' in log


async def test_many_whole_failures_in_a_row_pause_the_job(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=9)

    @bulk.action("sessions", "summarise", batch_size=1, retries=0, max_batch_failures=3)
    async def summarise(batch: Batch) -> None:
        if "2" not in [item.id for item in batch]:
            raise ProviderError

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "summarise", all=True), status="paused")
        assert job.status_reason is not None
        assert (job.status_reason.code, job.processed, job.failed) == ("BATCH_FAILURES", 5, 4)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_batch_that_takes_too_long_fails_and_is_not_tried_again(tmp_path: Path, kind: str) -> None:
    bulk = make_house(tmp_path, rows=4)
    calls: list[str] = []
    release = threading.Event()

    async def waits(batch: Batch) -> None:
        calls.append(batch.key)
        await anyio.sleep_forever()

    def blocks(batch: Batch) -> None:
        calls.append(batch.key)
        release.wait(20)

    bulk.action("sessions", "wait", timeout_s=0.05, batch_size=2)(waits if kind == "async" else blocks)
    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "wait", all=True))
        release.set()
        assert calls == [f"{job.id}-1", f"{job.id}-2"]
        assert job.failed == 4
        assert set((await exceptions_of(bulk, job)).values()) == {
            ("failed", "TIMEOUT", "the action took longer than 0.05 s")
        }


async def test_something_cancelled_inside_an_action_does_not_take_the_worker_along(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=2)

    @bulk.action("sessions", "stumble", retries=0)
    async def stumble(batch: Batch) -> None:
        raise asyncio.CancelledError

    async with running(bulk):
        for _ in range(bulk.settings.server.workers + 1):
            job = await ended(bulk, await bulk.start("sessions", "stumble", ids=[1]))
            assert (await exceptions_of(bulk, job))["1"][1:] == (
                "ACTION_ERROR",
                "the action raised CancelledError",
            )


async def test_a_verdict_on_a_strange_item_or_with_a_strange_code_is_an_error(tmp_path: Path) -> None:
    batch = Batch(resource="r", action="a", job_id="J", key="J-1", options={}, items=[])
    with pytest.raises(ValueError, match="not of this batch"):
        batch.fail("1", "PROVIDER")
    bulk = make_house(tmp_path, rows=1)

    @bulk.action("sessions", "err", retries=0)
    async def err(batch: Batch) -> None:
        batch.fail("1", "not a code")

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "err", all=True))
        assert (await exceptions_of(bulk, job))["1"][2] == "the action raised ValueError"


async def test_only_what_is_still_selected_is_handed_over(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=12)
    handed: list[str] = []
    first, go_on = asyncio.Event(), asyncio.Event()

    @bulk.action("sessions", "look", batch_size=1)
    async def look(batch: Batch) -> None:
        handed.extend(item.id for item in batch)
        first.set()
        await go_on.wait()

    async with running(bulk):
        job = await bulk.start("sessions", "look", filter={"status": "open"}, tenant="acme")
        await first.wait()
        change(tmp_path, "UPDATE sessions SET business = 'zeta' WHERE id = 3")
        change(tmp_path, "UPDATE sessions SET pinned = 1 WHERE id = 5")
        change(tmp_path, "UPDATE sessions SET status = 'processing' WHERE id = 7")
        change(tmp_path, "DELETE FROM sessions WHERE id = 9")
        go_on.set()
        job = await ended(bulk, job)
        assert handed == ["1", "11"]
        assert (job.total, job.succeeded, job.skipped) == (6, 2, 4)
        assert {code for _, code, _ in (await exceptions_of(bulk, job)).values()} == {"CONFLICT"}


async def test_what_is_unfit_when_it_is_frozen_is_never_handed_over(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=4)
    change(tmp_path, "UPDATE sessions SET pinned = 1 WHERE id = 1")
    change(tmp_path, "UPDATE sessions SET status = 'processing' WHERE id = 2")
    change(tmp_path, "UPDATE sessions SET deleted = 1 WHERE id = 3")
    handed: list[str] = []

    @bulk.action("sessions", "look")
    async def look(batch: Batch) -> None:
        handed.extend(item.id for item in batch)

    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "look", ids=[1, 2, 3, 4, 99]))
        assert handed == ["4"]
        codes = {item: code for item, (_, code, _) in (await exceptions_of(bulk, job)).items()}
        assert codes == {"1": "PROTECTED", "2": "INELIGIBLE", "3": "INELIGIBLE", "99": "NOT_FOUND"}


async def test_cancel_and_pause_take_effect_after_the_batch_in_hand(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=6)
    owner = Caller(user="host", roles=frozenset({"owner"}))
    entered, go_on = asyncio.Event(), asyncio.Event()

    @bulk.action("sessions", "look", batch_size=2)
    async def look(batch: Batch) -> None:
        entered.set()
        await go_on.wait()

    async with running(bulk):
        runtime = bulk._runtime
        assert runtime is not None
        for verb, status in ((runtime.service.pause, "paused"), (runtime.service.cancel, "cancelled")):
            entered.clear()
            go_on.clear()
            job = await bulk.start("sessions", "look", all=True)
            await entered.wait()
            await verb(owner, job.id)
            go_on.set()
            job = await ended(bulk, job, status=status)
            assert (job.processed, job.succeeded) == (2, 2)


async def test_a_job_ended_by_force_does_not_wait_for_its_function(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=2)
    owner = Caller(user="host", roles=frozenset({"owner"}))
    entered = asyncio.Event()

    @bulk.action("sessions", "hang")
    async def hang(batch: Batch) -> None:
        entered.set()
        await anyio.sleep_forever()

    async with running(bulk):
        runtime = bulk._runtime
        assert runtime is not None
        job = await bulk.start("sessions", "hang", all=True)
        await entered.wait()
        view = await runtime.service.cancel(owner, job.id, force=True)
        assert (view.status, view.processed) == ("cancelled", 0)


async def test_options_described_by_a_schema_are_held_and_filled_in(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=1)
    given: list[Any] = []

    @bulk.action(
        "sessions",
        "summarise",
        options={
            "words": {"type": "integer", "minimum": 10, "default": 50},
            "tone": {"type": "string", "enum": ["dry", "warm"]},
        },
    )
    async def summarise(batch: Batch) -> None:
        given.append(batch.options)

    async with running(bulk):
        for options, pointer in (
            ({"words": 5}, "/options/words"),
            ({"words": True}, "/options/words"),
            ({"words": 1.5}, "/options/words"),
            ({"tone": "angry"}, "/options/tone"),
            ({"tune": "dry"}, "/options/tune"),
        ):
            with pytest.raises(Refusal) as refused:
                await bulk.start("sessions", "summarise", all=True, options=options)
            assert refused.value.extra["errors"][0]["pointer"] == pointer
        await ended(bulk, await bulk.start("sessions", "summarise", all=True, options={"tone": "dry"}))
    assert given == [{"words": 50, "tone": "dry"}]


class Depth(msgspec.Struct):
    levels: int = 1


class Wishes(msgspec.Struct):
    language: str
    words: Annotated[int, msgspec.Meta(ge=10)] = 50
    depth: Depth | None = None


async def test_options_that_are_a_struct_arrive_as_one(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=1)
    given: list[Wishes] = []

    @bulk.action("sessions", "summarise", options=Wishes)
    async def summarise(batch: Batch) -> None:
        given.append(batch.options)

    async with running(bulk):
        runtime = bulk._runtime
        assert runtime is not None
        (resource,) = await runtime.service.catalog(Caller(user="o", roles=frozenset({"owner"})))
        (action,) = [each for each in resource["actions"] if each["name"] == "summarise"]
        assert action["options"]["properties"]["words"] == {"type": "integer", "minimum": 10, "default": 50}
        assert "$ref" not in json.dumps(action["options"])
        assert action["reversible"] is False
        for options, pointer in (
            ({}, "/options"),
            ({"language": "fr", "words": 5}, "/options/words"),
            ({"language": "fr", "depth": {"levels": "x"}}, "/options/depth/levels"),
            ({"language": "fr", "sentences": 5}, "/options/sentences"),
        ):
            with pytest.raises(Refusal) as refused:
                await bulk.start("sessions", "summarise", all=True, options=options)
            assert refused.value.extra["errors"][0]["pointer"] == pointer
        await ended(bulk, await bulk.start("sessions", "summarise", all=True, options={"language": "fr"}))
    assert given == [Wishes("fr")]


async def test_an_atomic_job_of_a_function_is_refused(tmp_path: Path) -> None:
    bulk = make_house(tmp_path)
    bulk.action("sessions", "look")(lambda _: None)
    async with running(bulk):
        with pytest.raises(Refusal, match="cannot be rolled back"):
            await bulk.start("sessions", "look", all=True, atomic=True)


async def test_a_function_for_undo_puts_back_what_succeeded(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=4)

    def reopen(batch: Batch) -> None:
        for item in batch:
            change(tmp_path, "UPDATE sessions SET status = 'open' WHERE id = ?", item.id)

    @bulk.action("sessions", "end", undo=reopen)
    def end(batch: Batch) -> None:
        for item in batch:
            if item.id == "2":
                batch.fail(item, "PROVIDER")
            else:
                change(tmp_path, "UPDATE sessions SET status = 'ended', pinned = 1 WHERE id = ?", item.id)

    owner = Caller(user="host", roles=frozenset({"owner"}))
    async with running(bulk):
        runtime = bulk._runtime
        assert runtime is not None
        job = await ended(bulk, await bulk.start("sessions", "end", filter={"status": "open"}))
        assert "undo" in job.allowed_actions
        assert ask(tmp_path, "SELECT count(*) FROM sessions WHERE status = 'ended'") == [(3,)]
        change(tmp_path, "DELETE FROM sessions WHERE id = 4")
        undo, _ = await runtime.service.undo(owner, job.id, UndoBody())
        undone = await ended(bulk, undo)
        assert (undone.total, undone.succeeded, undone.skipped) == (3, 2, 1)
        assert ask(tmp_path, "SELECT count(*) FROM sessions WHERE status = 'open'") == [(3,)]


async def test_without_one_the_action_is_final_and_for_admins(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, rows=2)
    bulk.action("sessions", "look")(lambda _: None)
    bulk.action("sessions", "peek", roles=["operator"])(lambda _: None)
    operator = Caller(user="ana", tenant="acme", roles=frozenset({"operator"}))
    async with running(bulk):
        job = await ended(bulk, await bulk.start("sessions", "look", all=True))
        assert "undo" not in job.allowed_actions
        assert job.undo_until is None
        runtime = bulk._runtime
        assert runtime is not None
        (resource,) = await runtime.service.catalog(operator)
        names = {each["name"] for each in resource["actions"]}
        assert "peek" in names
        assert "look" not in names


async def test_the_file_goes_over_the_code(tmp_path: Path) -> None:
    bulk = make_house(tmp_path, actions={"look": {"confirm": "LOOK", "batch_size": 3}})
    bulk.action("sessions", "look", batch_size=20, max_items=25)(lambda _: None)
    async with running(bulk):
        with pytest.raises(Refusal) as refused:
            await bulk.start("sessions", "look", ids=[1])
        assert refused.value.code == "CONFIRMATION_REQUIRED"
        with pytest.raises(Refusal) as refused:
            await bulk.start("sessions", "look", all=True, confirm="LOOK")
        assert refused.value.code == "TOO_MANY_ITEMS"
        job = await bulk.start("sessions", "look", ids=[1], confirm="LOOK")
        assert job.batch_size == 3


CRASHING = """
import os, sys, anyio
from pathlib import Path
from bulkops import Bulkops
from tests.hosting import change, declared, ended

folder = Path(sys.argv[1])
bulk = Bulkops(declared(), base=folder)

@bulk.action("sessions", "end", batch_size=4)
def end(batch):
    if batch.key.endswith("-2"):
        items = list(batch)
        change(folder, "UPDATE sessions SET status = 'closed' WHERE id = ?", items[0].id)
        print(batch.key, *[item.id for item in items], flush=True)
        os._exit(9)
    for item in batch:
        change(folder, "UPDATE sessions SET status = 'closed' WHERE id = ?", item.id)

async def main():
    async with bulk.lifespan():
        job = await bulk.start("sessions", "end", filter={"status": "open"})
        await ended(bulk, job)

anyio.run(main)
"""


async def test_after_a_crash_the_same_batch_is_done_again_under_its_key(tmp_path: Path) -> None:
    make_house(tmp_path, rows=10)
    script = tmp_path / "crashing.py"
    script.write_text(textwrap.dedent(CRASHING), encoding="utf-8")
    died = await anyio.run_process(
        [sys.executable, str(script), str(tmp_path)], check=False, cwd=Path(__file__).parents[1],
        env={"PYTHONPATH": str(Path(__file__).parents[1])}, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert died.returncode == 9, died.stdout
    key, *ids = died.stdout.decode().split()
    assert ids == ["5", "6", "7", "8"]

    bulk = Bulkops(declared(actions={"end": {"batch_size": 2}}), base=tmp_path)
    calls: list[list[str]] = []

    @bulk.action("sessions", "end", batch_size=2)
    async def end(batch: Batch) -> None:
        calls.append([batch.key, *(item.id for item in batch)])

    async with running(bulk):
        job_id = key.rpartition("-")[0]
        job = await ended(bulk, await bulk.job(job_id))
        # 5 was done before the crash and is closed: it no longer matches, and counts as done.
        assert calls[0] == [key, "6", "7", "8"]
        assert calls[1:] == [[f"{job_id}-3", "9", "10"]]
        assert (job.total, job.succeeded, job.skipped, job.failed) == (10, 10, 0, 0)


async def test_closing_interrupts_a_long_batch_which_is_done_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.slice._LEAVE_S", 0.05)
    bulk = make_house(tmp_path, rows=3)
    calls: list[str] = []
    entered = asyncio.Event()

    @bulk.action("sessions", "look")
    async def look(batch: Batch) -> None:
        calls.append(batch.key)
        entered.set()
        if len(calls) == 1:
            await anyio.sleep_forever()

    async with running(bulk):
        job = await bulk.start("sessions", "look", all=True)
        await entered.wait()
    async with running(bulk):
        job = await ended(bulk, job)
    assert job.succeeded == 3
    assert calls == [f"{job.id}-1"] * 2


async def test_a_job_whose_action_is_gone_waits_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulkops.slice._LEAVE_S", 0.05)
    bulk = make_house(tmp_path, rows=3)
    entered = asyncio.Event()

    @bulk.action("sessions", "look")
    async def look(batch: Batch) -> None:
        entered.set()
        await anyio.sleep_forever()

    async with running(bulk):
        job = await bulk.start("sessions", "look", all=True)
        await entered.wait()
    without = Bulkops(declared(), base=tmp_path)
    async with running(without):
        job = await ended(without, job, status="paused")
        assert job.status_reason is not None
        assert job.status_reason.code == "CONFIG_CHANGED"


def _generator(batch: Batch) -> Any:
    yield batch


@pytest.mark.parametrize(
    ("declare", "complaint"),
    [
        (lambda bulk: bulk.action("session", "look"), "no resource 'session'; did you mean \"sessions\""),
        (lambda bulk: bulk.action("sessions", "delete")(lambda _: None), "built-in"),
        (lambda bulk: bulk.action("sessions", "export")(lambda _: None), "built-in"),
        (lambda bulk: bulk.action("sessions", "validate"), "taken by a route"),
        (lambda bulk: bulk.action("sessions", "a/b"), "cannot stand in a URL"),
        (lambda bulk: bulk.action("sessions", "look", rate="often"), "rate: 'often' is no rate"),
        (lambda bulk: bulk.action("sessions", "look", roles=["boss"]), "'boss' is no role"),
        (lambda bulk: bulk.action("sessions", "look", batch_size=0), "batch_size: 0 is not within"),
        (lambda bulk: bulk.action("sessions", "look", timeout_s=0)(lambda _: None), "timeout_s"),
        (lambda bulk: bulk.action("sessions", "look", retries=-1)(lambda _: None), "retries"),
        (lambda bulk: bulk.action("sessions", "look")(lambda: None), "must take one argument"),
        (lambda bulk: bulk.action("sessions", "look")(lambda a, b: None), "must take one argument"),
        (lambda bulk: bulk.action("sessions", "look")("look"), "no function"),
        (lambda bulk: bulk.action("sessions", "look")(_generator), "generator"),
        (lambda bulk: bulk.action("sessions", "look", undo=lambda: None)(lambda _: None), "one argument"),
        (lambda bulk: bulk.action("sessions", "look", options=int), "msgspec.Struct or"),
        (lambda bulk: bulk.action("sessions", "look", options={"a": {"anyOf": []}}), "'anyOf' is not held"),
        (lambda bulk: bulk.action("sessions", "look", options={"a": {"type": "int"}}), "'int' is no type"),
        (lambda bulk: bulk.action("sessions", "look", options={"a": {"pattern": "("}}), "pattern"),
    ],
)
def test_a_wrong_declaration_is_told_where_it_is_made(tmp_path: Path, declare: Any, complaint: str) -> None:
    bulk = make_house(tmp_path)
    with pytest.raises(ConfigError, match="action session") as told:
        declare(bulk)
    assert complaint in str(told.value)


async def test_an_action_is_declared_once_and_before_the_start(tmp_path: Path) -> None:
    bulk = make_house(tmp_path)
    bulk.action("sessions", "look")(lambda _: None)
    with pytest.raises(ConfigError, match="declared already"):
        bulk.action("sessions", "look")
    async with running(bulk):
        with pytest.raises(ConfigError, match="runs already"):
            bulk.action("sessions", "peek")
