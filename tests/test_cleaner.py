"""The cleaner: a real store, real folders, and everything that may stand in a file's way."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from bulkops.cleaner import Cleaner, CleanupResult, Depot, entry_of, printable, settle, tally
from bulkops.effects import FileTaken
from bulkops.errors import Transient
from bulkops.resources.paths import Identity
from bulkops.resources.storage import LocalStorage, Storage, protect
from bulkops.resources.verdicts import Result, Verdict
from bulkops.store import deletions
from bulkops.store.deletions import Claimed, DeletionRow
from bulkops.store.store import Store
from tests.conftest import HandClock
from tests.store_house import opened_store

NAME = "receipts.attachments"


class Bench:
    """A store, a folder of files, a cleaner over both."""

    def __init__(self, base: Path, store: Store, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.root = base / "root"
        self.root.mkdir()
        self.storage = LocalStorage.open("here", NAME, self.root, base / "data", protect([base / "data"]))
        self.cleaner = Cleaner(store, {NAME: Depot(self.storage)})

    def files(self, *names: str) -> None:
        for name in names:
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(name.encode())

    async def queue(self, *names: str, job: str = "J", final: bool = False, storage: str = NAME) -> None:
        paths = [name.encode() for name in names]
        taken = [
            FileTaken(
                position,
                storage,
                path,
                (seen.dev, seen.ino, seen.size, seen.mtime_ns) if isinstance(seen, Identity) else None,
                final,
            )
            for position, (path, seen) in enumerate(
                zip(paths, self.storage.identify_many(paths), strict=True)
            )
        ]
        await self.store.write(
            lambda tx: deletions.insert_tentative(tx, job, taken, resource="receipts", tenant=None)
        )
        await self.store.write(lambda tx: deletions.settle(tx, job, 0, len(taken), untouched=[]))

    async def rows(self, job: str = "J") -> list[DeletionRow]:
        return await self.store.read(lambda c: deletions.for_items(c, job, list(range(2000))))

    async def states(self, job: str = "J") -> list[str]:
        return [row.state for row in await self.rows(job)]

    def on_disk(self) -> list[str]:
        return sorted(str(each.relative_to(self.root)) for each in self.root.rglob("*") if each.is_file())


@pytest.fixture
async def bench(tmp_path: Path, clock: HandClock) -> AsyncIterator[Bench]:
    (tmp_path / "store").mkdir()
    async with opened_store(tmp_path / "store", clock) as store:
        yield Bench(tmp_path, store, clock)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(10):
        while not await holds():
            await anyio.sleep(0.001)


async def test_an_empty_queue_is_a_run_of_nothing(bench: Bench) -> None:
    assert await bench.cleaner.run_once(100, 3) == CleanupResult()
    assert await bench.cleaner.drain() == CleanupResult()


async def test_files_go_to_the_trash_then_for_good(bench: Bench) -> None:
    bench.files("a/1", "a/2", "b/3")
    await bench.queue("a/1", "a/2", "b/3")
    assert await bench.cleaner.run_once(100, 3) == CleanupResult(processed=3, removed=3)
    assert await bench.states() == ["trashed"] * 3
    assert bench.on_disk() == []
    assert len(os.listdir(bench.storage.trash_dir)) == 3
    await bench.store.write(lambda tx: deletions.retire(tx, tx.now_ms + 1, 100))
    assert await bench.cleaner.run_once(100, 3) == CleanupResult(processed=3, removed=3)
    assert await bench.states() == ["purged"] * 3
    assert os.listdir(bench.storage.trash_dir) == []


async def test_a_hard_delete_goes_for_good_at_once(bench: Bench) -> None:
    bench.files("a", "b")
    await bench.queue("a", "b", final=True)
    assert await bench.cleaner.drain() == CleanupResult(processed=2, removed=2)
    assert await bench.states() == ["purged", "purged"]
    assert bench.on_disk() == os.listdir(bench.storage.trash_dir) == []


async def test_a_run_is_one_batch_and_says_what_remains(bench: Bench) -> None:
    names = [f"f{n}" for n in range(7)]
    bench.files(*names)
    await bench.queue(*names)
    assert await bench.cleaner.run_once(3, 3) == CleanupResult(processed=3, removed=3, remaining=4)
    assert await bench.cleaner.run_once(3, 3) == CleanupResult(processed=3, removed=3, remaining=1)
    assert await bench.cleaner.run_once(3, 3) == CleanupResult(processed=1, removed=1)


async def test_a_drain_works_batches_side_by_side_and_each_file_once(bench: Bench) -> None:
    names = [f"d{n % 5}/f{n}" for n in range(300)]
    bench.files(*names)
    await bench.queue(*names)
    assert await bench.cleaner.drain(batch_size=20) == CleanupResult(processed=300, removed=300)
    assert {(row.state, row.attempts) for row in await bench.rows()} == {("trashed", 1)}


async def test_missing_replaced_and_odd_files_are_told_apart_and_listed(bench: Bench) -> None:
    bench.files("gone", "replaced", "odd", "fine")
    await bench.queue("gone", "replaced", "odd", "fine", "never")
    for name in ("gone", "replaced", "odd"):
        (bench.root / name).unlink()
    bench.files("replaced")
    (bench.root / "odd").mkdir()
    result = await bench.cleaner.run_once(100, 3)
    assert result == CleanupResult(processed=5, removed=1, missing=2, failed=2)
    assert await bench.states() == ["missing", "superseded", "refused", "trashed", "missing"]
    assert bench.on_disk() == ["replaced"]


async def test_a_file_that_another_row_names_stays_until_the_last_row_goes(bench: Bench) -> None:
    still_named = {b"shared"}

    async def shared_among(paths: Sequence[bytes]) -> set[bytes]:
        return still_named & set(paths)

    cleaner = Cleaner(bench.store, {NAME: Depot(bench.storage, shared_among)})
    bench.files("shared", "own")
    await bench.queue("shared", "own")
    assert await cleaner.run_once(100, 3) == CleanupResult(processed=2, removed=1, failed=1)
    assert await bench.states() == ["shared", "trashed"]
    assert bench.on_disk() == ["shared"]
    still_named.clear()
    await bench.queue("shared", job="K", final=True)
    assert await cleaner.run_once(100, 3) == CleanupResult(processed=1, removed=1)
    assert bench.on_disk() == []


async def test_what_lies_in_the_trash_is_purged_whoever_uses_its_old_path(bench: Bench) -> None:
    async def all_shared(paths: Sequence[bytes]) -> set[bytes]:
        return set(paths)

    bench.files("f")
    await bench.queue("f")
    await bench.cleaner.drain()
    await bench.store.write(lambda tx: deletions.retire(tx, tx.now_ms + 1, 100))
    bench.files("f")
    await Cleaner(bench.store, {NAME: Depot(bench.storage, all_shared)}).drain()
    assert await bench.states() == ["purged"]
    assert bench.on_disk() == ["f"]


async def test_when_nobody_can_say_whether_a_file_is_shared_it_waits(bench: Bench) -> None:
    async def locked(_: Sequence[bytes]) -> set[bytes]:
        raise Transient("TARGET_LOCKED", "the database is locked")

    bench.files("f")
    await bench.queue("f")
    await Cleaner(bench.store, {NAME: Depot(bench.storage, locked)}).run_once(100, 3)
    (row,) = await bench.rows()
    assert (row.state, row.error) == (
        "queued",
        "cannot tell whether other rows name it: the database is locked",
    )
    assert row.not_before_ms > bench.clock.at_ms
    assert bench.on_disk() == ["f"]


async def test_a_failing_file_is_tried_later_and_later_then_dead_and_blocks_no_other(bench: Bench) -> None:
    bench.files("stuck", "free")
    await bench.queue("stuck", "free")
    bench.storage.root.rename(bench.root.with_name("unmounted"))
    waits = []
    for attempt in (1, 2, 3):
        result = await bench.cleaner.run_once(100, 3)
        assert result.failed == 2, attempt
        waits.append((await bench.rows())[0].not_before_ms - bench.clock.at_ms)
        assert await bench.cleaner.run_once(100, 3) == CleanupResult(remaining=result.remaining)
        bench.clock.advance(3600)
    assert 500 <= waits[0] <= 1000 <= waits[1] <= 2000
    assert await bench.states() == ["dead", "dead"]
    bench.root.with_name("unmounted").rename(bench.root)
    (stuck, _) = await bench.rows()
    assert await bench.store.write(lambda tx: deletions.requeue(tx, stuck.id))
    await bench.cleaner.drain()
    assert await bench.states() == ["trashed", "dead"]


async def test_a_poison_entry_that_kills_the_process_every_time_ends_dead(bench: Bench) -> None:
    bench.files("poison")
    await bench.queue("poison")
    for _ in range(3):  # claimed, and then the process was gone
        await bench.store.write(lambda tx: deletions.claim(tx, 10))
    assert (await bench.cleaner.run_once(100, 3)).failed == 1
    (row,) = await bench.rows()
    assert (row.state, row.error) == ("dead", "no attempt came to an end")
    assert bench.on_disk() == ["poison"]


async def test_a_storage_that_is_configured_no_more_leaves_its_files_in_line(bench: Bench) -> None:
    bench.files("f")
    await bench.queue("f", storage="gone.files")
    assert (await bench.cleaner.run_once(100, 3)).failed == 1
    (row,) = await bench.rows()
    assert (row.state, row.error) == ("queued", "the storage gone.files is not configured")


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("crash", ["before the work", "after the work"])
async def test_after_a_crash_the_same_end_is_reached(bench: Bench, final: bool, crash: str) -> None:
    bench.files("f")
    await bench.queue("f", final=final)
    (claimed,) = await bench.store.write(lambda tx: deletions.claim(tx, 10))
    if crash == "after the work":
        work = bench.storage.remove if final else bench.storage.move
        work([entry_of(claimed)])
    await Cleaner(bench.store, {NAME: Depot(bench.storage)}).drain()
    assert await bench.states() == ["purged" if final else "trashed"]
    assert len(os.listdir(bench.storage.trash_dir)) == (0 if final else 1)


async def test_after_a_crash_in_a_purge_the_same_end_is_reached(bench: Bench) -> None:
    bench.files("f")
    await bench.queue("f")
    await bench.cleaner.drain()
    await bench.store.write(lambda tx: deletions.retire(tx, tx.now_ms + 1, 100))
    (claimed,) = await bench.store.write(lambda tx: deletions.claim(tx, 10))
    bench.storage.purge([entry_of(claimed)])
    await Cleaner(bench.store, {NAME: Depot(bench.storage)}).drain()
    assert await bench.states() == ["purged"]


async def test_a_deadline_puts_the_rest_back_in_line_as_if_untouched(bench: Bench) -> None:
    names = [f"f{n}" for n in range(5)]
    bench.files(*names)
    await bench.queue(*names)
    assert await bench.cleaner.run_once(100, 3, deadline_s=0) == CleanupResult(remaining=5)
    assert {(row.state, row.attempts) for row in await bench.rows()} == {("queued", 0)}
    assert bench.on_disk() == names


async def test_the_loop_wakes_when_a_batch_is_settled(bench: Bench) -> None:
    bench.files("f", "g")
    async with anyio.create_task_group() as group:
        group.start_soon(bench.cleaner.work)
        await anyio.wait_all_tasks_blocked()
        for job, name in (("J", "f"), ("K", "g")):
            await bench.queue(name, job=job)

            async def trashed(job: str = job) -> bool:
                return await bench.states(job) == ["trashed"]

            await until(trashed)
        group.cancel_scope.cancel()


async def test_the_loop_wakes_when_a_retry_falls_due(bench: Bench) -> None:
    bench.files("f")
    await bench.queue("f")
    bench.root.rename(bench.root.with_name("unmounted"))
    async with anyio.create_task_group() as group:
        group.start_soon(bench.cleaner.work)

        async def failed_once() -> bool:
            return (await bench.rows())[0].error is not None

        await until(failed_once)
        bench.root.with_name("unmounted").rename(bench.root)
        bench.clock.advance(2)
        bench.cleaner.ring()

        async def trashed() -> bool:
            return await bench.states() == ["trashed"]

        await until(trashed)
        group.cancel_scope.cancel()


async def test_an_idle_loop_asks_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    real = bench.store.read

    async def counted(work: Callable[[sqlite3.Connection], object]) -> object:
        nonlocal reads
        reads += 1
        return await real(work)

    monkeypatch.setattr(bench.store, "read", counted)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.cleaner.work)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert reads == 1


async def test_the_loop_survives_a_database_that_cannot_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.files("f")
    monkeypatch.setattr("bulkops.cleaner.back_off_s", lambda *_, **__: 0.01)
    real = bench.store.write
    troubles = 0

    async def full(work: Callable[..., object]) -> object:
        nonlocal troubles
        if troubles < 3:
            troubles += 1
            raise sqlite3.OperationalError("database or disk is full")
        return await real(work)

    await bench.queue("f")
    monkeypatch.setattr(bench.store, "write", full)
    with caplog.at_level(logging.WARNING, "bulkops.cleaner"):
        async with anyio.create_task_group() as group:
            group.start_soon(bench.cleaner.work)

            async def trashed() -> bool:
                return await bench.states() == ["trashed"]

            await until(trashed)
            group.cancel_scope.cancel()
    assert troubles == 3
    assert "disk is full" in caplog.text


async def test_cancelled_in_the_middle_of_a_batch_it_still_records_what_was_done(bench: Bench) -> None:
    names = [f"f{n}" for n in range(400)]
    bench.files(*names)
    await bench.queue(*names)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.cleaner.work)

        async def begun() -> bool:
            return "moving" in await bench.states() or "trashed" in await bench.states()

        await until(begun)
        group.cancel_scope.cancel()
    found = await bench.rows()
    assert {row.state for row in found} <= {"queued", "trashed"}
    assert {row.attempts for row in found if row.state == "queued"} <= {0}
    assert len(bench.on_disk()) == sum(row.state == "queued" for row in found)
    await Cleaner(bench.store, {NAME: Depot(bench.storage)}).drain()
    assert set(await bench.states()) == {"trashed"}


async def test_a_run_that_is_cancelled_at_any_moment_holds_nothing_for_ever(bench: Bench) -> None:
    names = [f"f{n}" for n in range(60)]
    bench.files(*names)
    await bench.queue(*names)
    for turns in range(40):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel_soon(turns: int = turns) -> None:
                    for _ in range(turns):
                        await anyio.sleep(0)
                    scope.cancel()

                group.start_soon(cancel_soon)
                await bench.cleaner.run_once(2, 99)
    await bench.cleaner.drain(max_attempts=99)
    assert set(await bench.states()) == {"trashed"}
    assert bench.on_disk() == []


class Remote:
    """A custom storage with a memory of what it was asked."""

    def __init__(self, answers: Mapping[str, str] | Exception) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def delete(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.asked += keys
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


class Slow:
    """A custom storage of a host without async."""

    def delete(self, keys: Sequence[str]) -> Mapping[str, str]:
        return dict.fromkeys(keys, "removed")


async def test_a_custom_storage_answers_for_each_key(bench: Bench) -> None:
    remote = Remote({"a": "removed", "b": "missing", "c": "retry: throttled", "d": "refused: locked"})
    cleaner = Cleaner(bench.store, {"s3": Depot(remote)})
    await bench.queue("a", "b", "c", "d", "e", storage="s3")
    assert await cleaner.run_once(100, 3) == CleanupResult(
        processed=5, removed=1, missing=1, failed=3, remaining=2
    )
    assert remote.asked == ["a", "b", "c", "d", "e"]
    assert [(row.state, row.error) for row in await bench.rows()] == [
        ("purged", None),
        ("missing", None),
        ("queued", "throttled"),
        ("refused", "locked"),
        ("queued", "the storage said nothing about it"),
    ]


async def test_a_custom_storage_that_raises_is_asked_again_and_spoils_no_other(bench: Bench) -> None:
    bench.files("f")
    cleaner = Cleaner(bench.store, {"s3": Depot(Remote(RuntimeError("down"))), NAME: Depot(bench.storage)})
    await bench.queue("a", storage="s3")
    await bench.queue("f", job="K")
    assert await cleaner.run_once(100, 3) == CleanupResult(processed=2, removed=1, failed=1, remaining=1)
    assert (await bench.rows())[0].error == "RuntimeError: down"


class InOrder:
    """A custom storage that answers in the order of its keys."""

    def delete(self, keys: Sequence[str]) -> list[str]:
        return ["missing" if key == "b" else "removed" for key in keys]


@pytest.mark.parametrize("storage", [Slow(), InOrder()])
async def test_a_plain_function_serves_as_custom_storage(bench: Bench, storage: Storage) -> None:
    await bench.queue("a", storage="slow")
    assert (await Cleaner(bench.store, {"slow": Depot(storage)}).run_once(100, 3)).removed == 1


async def test_an_undo_before_a_custom_storage_is_asked_voids_the_entry(bench: Bench) -> None:
    remote = Remote({"a": "removed"})
    await bench.queue("a", storage="s3")
    await bench.store.write(lambda tx: deletions.take_back(tx, "J", [0]))
    assert await Cleaner(bench.store, {"s3": Depot(remote)}).run_once(100, 3) == CleanupResult()
    assert remote.asked == []


async def test_logs_name_files_with_every_control_character_escaped(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.files("bad\nname\x1b[31m")
    await bench.queue("bad\nname\x1b[31m")
    (bench.root / "bad\nname\x1b[31m").unlink()
    (bench.root / "bad\nname\x1b[31m").mkdir()
    with caplog.at_level(logging.INFO, "bulkops.cleaner"):
        await bench.cleaner.run_once(100, 3)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("CLEANUP_BATCH processed=1 removed=0 missing=0 failed=1 ms=")
    assert "path=bad\\nname\\x1b[31m verdict=refused reason=it is a folder" in messages[1]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"plain/path.jpg", "plain/path.jpg"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"\xff.jpg", "\\xff.jpg"),
        ("a\u202eb".encode(), "a\\u202eb"),
        (b"a\r\nb\0", "a\\r\\nb\\x00"),
    ],
)
def test_a_path_is_printable(path: bytes, text: str) -> None:
    assert printable(path) == text


def row(state: str = "moving", *, attempts: int = 1, final: bool = False, known: bool = True) -> Claimed:
    identity = (1, 2, 3, 4) if known else None
    return Claimed(7, NAME, b"f", identity, "t", final, state, attempts, None)


@pytest.mark.parametrize(
    ("claimed", "verdict", "state"),
    [
        (row(), Verdict.TRASHED, "trashed"),
        (row(), Verdict.MISSING, "missing"),
        (row(), Verdict.SUPERSEDED, "superseded"),
        (row(), Verdict.REFUSED, "refused"),
        (row(), Verdict.SHARED, "shared"),
        (row(), Verdict.RETRY, "queued"),
        (row(attempts=3), Verdict.RETRY, "dead"),
        (row(attempts=9), Verdict.RETRY, "dead"),
        (row(attempts=9), Verdict.UNTRIED, "queued"),
        (row("purging"), Verdict.PURGED, "purged"),
        (row("purging"), Verdict.RETRY, "purging"),
        (row("purging"), Verdict.UNTRIED, "purging"),
        (row("purging", final=True), Verdict.RETRY, "queued"),
        (row("purging", final=True), Verdict.MISSING, "missing"),
        (row("purging", final=True, attempts=2), Verdict.MISSING, "purged"),
        (row("purging", final=True, attempts=2, known=False), Verdict.MISSING, "missing"),
    ],
)
def test_an_entry_s_next_state_follows_from_its_verdict(
    claimed: Claimed, verdict: Verdict, state: str
) -> None:
    assert settle(claimed, Result(verdict), max_attempts=3, now_ms=0).state == state


def test_a_wait_grows_and_is_at_most_an_hour() -> None:
    waits = [
        settle(row(attempts=n), Result(Verdict.RETRY), max_attempts=99, now_ms=0).not_before_ms
        for n in range(1, 40)
    ]
    assert 500 <= waits[0] <= 1000
    assert 1_800_000 <= waits[-1] <= 3_600_000
    assert max(waits) <= deletions.MAX_WAIT_MS


def test_a_tally_leaves_out_what_was_not_tried() -> None:
    verdicts = [Verdict.TRASHED, Verdict.PURGED, Verdict.MISSING, Verdict.RETRY, Verdict.UNTRIED]
    assert tally([Result(each) for each in verdicts]) == CleanupResult(
        processed=4, removed=2, missing=1, failed=1
    )


def test_the_errors_of_the_disk_that_come_and_go_are_retried() -> None:
    result = Result(Verdict.RETRY, f"{errno.errorcode[errno.EIO]}: injected")
    settled = settle(row(), result, max_attempts=8, now_ms=1000)
    assert (settled.state, settled.error) == ("queued", "EIO: injected")
