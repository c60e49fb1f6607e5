"""The janitor: one round removes what is old and nothing else; its transactions are short; faults end a round only."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from bulkops import janitor as janitor_module
from bulkops.effects import FileTaken
from bulkops.janitor import Janitor
from bulkops.settings import ServerSettings
from bulkops.store import deletions, idempotency, jobs, selections
from bulkops.store.deletions import Settled
from bulkops.store.idempotency import Idempotency
from bulkops.store.store import Store
from bulkops.store.transaction import Commit, Tx
from tests.conftest import HandClock
from tests.store_house import DAY_MS, START_MS, a_job, opened_store, put, stored, take


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    async with opened_store(tmp_path, clock) as store:
        yield store


SERVER = ServerSettings(trash_days=30, keep_jobs_days=90, keep_events_days=7)


async def _count(store: Store, table: str) -> int:
    row = await store.read(lambda connection: connection.execute(f"SELECT count(*) FROM {table}").fetchone())
    return int(row[0])


async def test_a_round_over_an_empty_house_removes_nothing(store: Store) -> None:
    made = await Janitor(store, SERVER).make_round()
    assert set(made.removed.values()) == {0}


async def test_things_go_one_kind_after_the_other_as_their_time_comes(store: Store, clock: HandClock) -> None:
    job = a_job(undo_until_ms=START_MS + 30 * DAY_MS)

    def work(tx: Tx) -> None:
        put(tx, job, [1, 2, 3])
        take(tx, job, ["a", "b"])
        selections.begin(tx, "S", tenant=None, requested_by="ana")
        idempotency.record(tx, Idempotency("p", b"k", b"f"), status=202, location=None, body=b"{}")

    await store.write(work)
    janitor = Janitor(store, SERVER)
    assert set((await janitor.make_round()).removed.values()) == {0}
    clock.advance(2 * 24 * 3600)
    removed = (await janitor.make_round()).removed
    assert {name: count for name, count in removed.items() if count} == {"selections": 1, "idempotency": 1}
    assert [await _count(store, table) for table in ("selections", "idempotency")] == [0, 0]
    clock.advance(6 * 24 * 3600)
    await janitor.make_round()
    assert await _count(store, "events") == 0
    assert await _count(store, "trash") == 2
    clock.advance(22 * 24 * 3600)
    assert (await janitor.make_round()).removed["trash"] == 2
    assert await _count(store, "jobs") == 1
    clock.advance(60 * 24 * 3600)
    assert (await janitor.make_round()).removed["jobs"] == 2
    assert [await _count(store, table) for table in ("jobs", "manifest")] == [0, 0]


def _trashed(tx: Tx, job_id: str) -> None:
    deletions.insert_tentative(
        tx,
        job_id,
        [FileTaken(0, "receipts", b"a.pdf", (1, 2, 3, 4), final=False)],
        resource="receipts",
        tenant=None,
    )
    deletions.settle(tx, job_id, 0, 1, untouched=[])
    deletions.record(tx, [Settled(each.id, "trashed") for each in deletions.claim(tx, 10)])


async def test_trashed_files_go_when_no_undo_can_ask_for_them_any_more(
    store: Store, clock: HandClock
) -> None:
    slow = await stored(store, a_job(undo_until_ms=START_MS + 40 * DAY_MS))
    done = await stored(store, a_job(undo_until_ms=START_MS + 30 * DAY_MS))
    await store.write(lambda tx: _trashed(tx, slow.id))
    await store.write(lambda tx: _trashed(tx, done.id))
    janitor = Janitor(store, SERVER)
    clock.advance(29 * 24 * 3600)
    assert (await janitor.make_round()).removed["files_retired"] == 0
    clock.advance(2 * 24 * 3600)
    assert (await janitor.make_round()).removed["files_retired"] == 1
    clock.advance(10 * 24 * 3600)
    assert (await janitor.make_round()).removed["files_retired"] == 1


async def test_many_old_jobs_go_in_one_round(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor_module, "_OLD_JOBS", 3)
    kept = await stored(store, a_job(undo_until_ms=START_MS + 1000 * DAY_MS))
    for _ in range(8):
        await stored(store, a_job())
    clock.advance(91 * 24 * 3600)
    assert (await Janitor(store, SERVER).make_round()).removed["jobs"] == 8
    assert await store.read(lambda connection: jobs.get(connection, kept.id)) is not None


class WorkingClock(HandClock):
    """A clock in which each look costs some time."""

    def monotonic(self) -> float:
        self.at_ms += 9
        return super().monotonic()


async def test_a_transaction_ends_when_its_time_is_over(tmp_path: Path) -> None:
    clock = WorkingClock()
    async with opened_store(tmp_path, clock) as store:
        job = await stored(store, a_job(total=1000))
        await store.write(lambda tx: take(tx, job, [str(number) for number in range(1000)]))
        clock.advance(31 * 24 * 3600)
        commits: list[Commit] = []
        store.on_commit.append(commits.append)
        janitor = Janitor(store, SERVER)
        await janitor.make_round()
        first = len(commits)
        await janitor.make_round()
        # 20 steps of 50 images at 9 ms each, three of which end a transaction of 20 ms.
        idle = len(commits) - first
        assert 7 <= first - idle <= 10


async def test_chores_of_other_rooms_are_done_in_the_round(store: Store) -> None:
    done: list[str] = []

    async def chore() -> None:
        done.append("artifacts")

    await Janitor(store, SERVER, chores=[chore]).make_round()
    assert done == ["artifacts"]


async def test_a_fault_ends_the_round_and_not_the_loop(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(janitor_module, "_FIRST_ROUND_S", 0.0)
    monkeypatch.setattr(janitor_module, "_ROUND_S", 0.0)
    rounds = 0
    twice = anyio.Event()

    async def chore() -> None:
        nonlocal rounds
        rounds += 1
        if rounds > 1:
            twice.set()
        raise sqlite3.OperationalError("disk I/O error")

    async with anyio.create_task_group() as group:
        group.start_soon(Janitor(store, SERVER, chores=[chore]).run)
        with anyio.fail_after(10):
            await twice.wait()
        group.cancel_scope.cancel()
    assert "OperationalError" in caplog.text


async def test_a_mistake_of_ours_is_not_swallowed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor_module, "_FIRST_ROUND_S", 0.0)

    async def chore() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Janitor(store, SERVER, chores=[chore]).run()


async def test_statistics_are_refreshed_every_few_hours_only(store: Store, clock: HandClock) -> None:
    seen: list[str] = []
    await store.write(lambda tx: tx.connection.set_trace_callback(seen.append))
    janitor = Janitor(store, SERVER)
    for hours in (0, 1, 6):
        clock.advance(hours * 3600)
        await janitor.make_round()
    await store.write(lambda tx: tx.connection.set_trace_callback(None))
    assert seen.count("PRAGMA optimize") == 2
