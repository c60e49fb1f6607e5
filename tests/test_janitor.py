"""The janitor: a chore removes what is old and nothing else, in short transactions, whatever the clock does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkops import janitor as janitor_module
from bulkops.effects import FileTaken
from bulkops.janitor import Chore, Janitor, Stop
from bulkops.settings import ServerSettings
from bulkops.steadiness import Steadiness
from bulkops.store import deletions, idempotency, jobs, selections
from bulkops.store.deletions import Settled
from bulkops.store.idempotency import Idempotency
from bulkops.store.store import Store
from bulkops.store.transaction import Commit, Tx
from tests.conftest import HandClock, LeapingClock
from tests.store_house import DAY_MS, START_MS, a_job, opened_store, put, stored, take

SERVER = ServerSettings(trash_days=30, keep_jobs_days=90, keep_events_days=7)


def janitor_of(store: Store) -> Janitor:
    return Janitor(store, SERVER, Steadiness(store.clock))


async def do_all(janitor: Janitor) -> dict[str, int]:
    """Do every chore; return what they removed, and check beforehand that each says rightly whether it is due."""
    removed = {}
    for name in janitor.names:
        due = await janitor.due([name])
        count = await janitor.do(name)
        assert due == bool(count), name
        if count:
            removed[name] = count
    return removed


async def _count(store: Store, table: str) -> int:
    row = await store.read(lambda connection: connection.execute(f"SELECT count(*) FROM {table}").fetchone())
    return int(row[0])


async def test_in_an_empty_house_nothing_is_due_and_nothing_removed(store: Store) -> None:
    assert await do_all(janitor_of(store)) == {}


async def test_things_go_one_kind_after_the_other_as_their_time_comes(store: Store, clock: HandClock) -> None:
    job = a_job(undo_until_ms=START_MS + 30 * DAY_MS)

    def work(tx: Tx) -> None:
        put(tx, job, [1, 2, 3])
        take(tx, job, ["a", "b"])
        selections.begin(tx, "S", tenant=None, requested_by="ana")
        idempotency.record(tx, Idempotency("p", b"k", b"f"), status=202, location=None, body=b"{}")

    await store.write(work)
    janitor = janitor_of(store)
    assert await do_all(janitor) == {}
    clock.advance(2 * 24 * 3600)
    assert await do_all(janitor) == {"selections": 1, "idempotency": 1}
    assert [await _count(store, table) for table in ("selections", "idempotency")] == [0, 0]
    clock.advance(6 * 24 * 3600)
    assert await do_all(janitor) == {"events": 1}
    assert await _count(store, "events") == 0
    assert await _count(store, "trash") == 2
    clock.advance(22 * 24 * 3600)
    assert await do_all(janitor) == {"trash": 2}
    assert await _count(store, "jobs") == 1
    clock.advance(60 * 24 * 3600)
    assert await do_all(janitor) == {"jobs": 2}
    assert [await _count(store, table) for table in ("jobs", "manifest")] == [0, 0]


async def test_asking_whether_a_chore_is_due_changes_nothing(store: Store, clock: HandClock) -> None:
    await store.write(
        lambda tx: idempotency.record(tx, Idempotency("p", b"k", b"f"), status=202, location=None, body=b"{}")
    )
    clock.advance(2 * 24 * 3600)
    janitor = janitor_of(store)
    assert await janitor.due(["idempotency"])
    assert await _count(store, "idempotency") == 1


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
    janitor = janitor_of(store)
    clock.advance(29 * 24 * 3600)
    assert await janitor.do("files") == 0
    clock.advance(2 * 24 * 3600)
    assert await janitor.do("files") == 1
    clock.advance(10 * 24 * 3600)
    assert await janitor.do("files") == 1


async def test_many_old_jobs_go_at_once(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor_module, "_OLD_JOBS", 3)
    kept = await stored(store, a_job(undo_until_ms=START_MS + 1000 * DAY_MS))
    for _ in range(8):
        await stored(store, a_job())
    clock.advance(91 * 24 * 3600)
    assert await janitor_of(store).do("jobs") == 8
    assert await store.read(lambda connection: jobs.get(connection, kept.id)) is not None


async def test_the_houses_own_jobs_go_after_a_week(store: Store, clock: HandClock) -> None:
    own = await stored(store, a_job(resource="maintenance", action="run", source="maintenance"))
    chained = await stored(store, a_job(source="maintenance", tenant="acme"))
    janitor = janitor_of(store)
    clock.advance(7 * 24 * 3600 - 1)
    assert await janitor.do("jobs") == 0
    clock.advance(1)
    assert await janitor.due(["jobs"])
    assert await janitor.do("jobs") == 1
    assert await store.read(lambda connection: jobs.get(connection, own.id)) is None
    assert await store.read(lambda connection: jobs.get(connection, chained.id)) is not None


class WorkingClock(HandClock):
    """A clock in which each look costs some time."""

    def monotonic(self) -> float:
        self.at_ms += 9
        return super().monotonic()


async def _full_trash(store: Store, clock: HandClock) -> None:
    job = await stored(store, a_job(total=1000))
    await store.write(lambda tx: take(tx, job, [str(number) for number in range(1000)]))
    clock.advance(31 * 24 * 3600)


async def test_a_transaction_ends_when_its_time_is_over(tmp_path: Path) -> None:
    clock = WorkingClock()
    async with opened_store(tmp_path, clock) as store:
        await _full_trash(store, clock)
        janitor = janitor_of(store)
        clock.advance(31 * 24 * 3600)
        commits: list[Commit] = []
        store.on_commit.append(commits.append)
        assert await janitor.do("trash") == 1000
        # 20 steps of 50 images at 9 ms each, three of which end a transaction of 20 ms.
        assert 7 <= len(commits) <= 11


async def test_who_is_asked_to_stop_leaves_the_rest_for_another_time(tmp_path: Path) -> None:
    clock = WorkingClock()
    async with opened_store(tmp_path, clock) as store:
        await _full_trash(store, clock)
        janitor = janitor_of(store)
        asked: list[int] = []

        def stop() -> bool:
            asked.append(1)
            return len(asked) > 2

        first = await janitor.do("trash", stop)
        assert 0 < first < 1000
        assert await janitor.do("trash") == 1000 - first


async def test_chores_of_other_rooms_are_done_like_the_janitors_own(store: Store) -> None:
    done: list[Stop] = []

    async def work(stop: Stop) -> int:
        done.append(stop)
        return 3

    async def due() -> bool:
        return not done

    janitor = Janitor(store, SERVER, Steadiness(store.clock), more={"artifacts": Chore(work, due)})
    assert "artifacts" in janitor.names
    assert await janitor.due(["artifacts"])
    assert await janitor.do("artifacts") == 3
    assert not await janitor.due(["artifacts"])


async def test_statistics_are_refreshed_by_a_chore_that_is_no_reason_to_begin(store: Store) -> None:
    seen: list[str] = []
    await store.write(lambda tx: tx.connection.set_trace_callback(seen.append))
    janitor = janitor_of(store)
    assert not await janitor.due(["optimize"])
    assert await janitor.do("optimize") == 0
    await store.write(lambda tx: tx.connection.set_trace_callback(None))
    assert seen.count("PRAGMA optimize") == 1


async def test_a_clock_that_leaps_a_day_forward_and_two_back_removes_nothing_early(tmp_path: Path) -> None:
    clock = LeapingClock()
    async with opened_store(tmp_path, clock) as store:
        janitor = janitor_of(store)
        job = a_job(undo_until_ms=START_MS + 30 * DAY_MS)

        def work(tx: Tx) -> None:
            put(tx, job, [1])
            take(tx, job, ["a"])
            _trashed(tx, job.id)
            selections.begin(tx, "S", tenant=None, requested_by="ana")
            idempotency.record(tx, Idempotency("p", b"k", b"f"), status=202, location=None, body=b"{}")

        await store.write(work)
        clock.advance(23 * 3600)
        clock.off_ms = DAY_MS
        assert await do_all(janitor) == {}
        clock.off_ms = -DAY_MS
        assert await do_all(janitor) == {}
        clock.off_ms = 0
        clock.advance(28 * 24 * 3600)
        for _ in range(24):
            clock.advance(3600)
            assert set(await do_all(janitor)) <= {"selections", "idempotency", "events"}
        clock.off_ms = DAY_MS
        assert set(await do_all(janitor)) <= {"events"}
        assert await _count(store, "trash") == 1
        clock.advance(24 * 3600)
        assert set(await do_all(janitor)) >= {"trash", "files"}
