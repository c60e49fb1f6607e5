"""What goes wrong with folders: full disks, files that cannot go, roots that change, requests in between."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bulkops.effects import Fence, Todo
from bulkops.models import RetryBody, StartBody
from bulkops.resources.contract import Turn
from bulkops.resources.folder import taking, yard
from bulkops.resources.folder.storage import FolderStorage
from bulkops.resources.folder.walking import remove_tree
from bulkops.resources.folder.yard import opened_yard
from bulkops.resources.paths import rename_noreplace
from bulkops.resources.verdicts import never
from bulkops.runtime import Runtime
from bulkops.store import deletions
from tests.conftest import HandClock
from tests.engine_house import OWNER, counts, outcomes, rested, run, undo, until
from tests.folders.house import dossiers, make_deep, make_dossier, trash_of, tree_of

DAY_S = 86_400


def furnish(folder: Path, count: int, files: int = 2) -> Path:
    root = folder / "dossiers_data"
    for number in range(count):
        make_dossier(root, f"d{number:03}", {f"sub/{each}": b"x" for each in range(files)})
    return root


async def queue(runtime: Runtime) -> list[tuple[str, int]]:
    sql = "SELECT state, count(*) FROM deletions GROUP BY state ORDER BY state"
    found = await runtime.store.read(lambda connection: connection.execute(sql).fetchall())
    return [(state, count) for state, count in found]


def _holds(folder: Path, count: int) -> bool:
    return len(trash_of(folder)) == count


async def test_the_trash_is_emptied_by_age_and_not_before(tmp_path: Path, clock: HandClock) -> None:
    furnish(tmp_path, 3)
    async with dossiers(tmp_path, clock=clock, server={"trash_days": 30}) as runtime:
        job = await run(runtime, "dossiers", "delete", all=True)
        for days, left in ((29, 3), (2, 0)):
            clock.advance(days * DAY_S)
            before_ms = clock.now_ms() - 30 * DAY_S * 1000
            await runtime.store.write(partial(deletions.retire, before_ms=before_ms, limit=200))
            await runtime.cleaner.drain()
            await until(partial(_holds, tmp_path, left))
        await until(lambda: not runtime.cleaner._held)
        assert await queue(runtime) == [("purged", 3)]
        assert job.succeeded == 3


def _failing(monkeypatch: pytest.MonkeyPatch, code: int, calls: set[int]) -> None:
    """Let some calls of rename fail, counted from 1."""
    plain = rename_noreplace
    lock, count = threading.Lock(), [0]

    def rename(*arguments: Any) -> None:
        with lock:
            count[0] += 1
            number = count[0]
        if number in calls:
            raise OSError(code, os.strerror(code))
        plain(*arguments)

    monkeypatch.setattr(yard, "rename_noreplace", rename)


@pytest.mark.parametrize("action", ["delete", "purge"])
async def test_a_disk_that_is_full_for_a_while_costs_no_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    root = furnish(tmp_path, 20)
    _failing(monkeypatch, errno.ENOSPC, {4, 5, 6, 11})
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", action, all=True)
        if action == "delete":
            assert counts(job) == (20, 0, 0)
            assert counts(await undo(runtime, job.id)) == (20, 0, 0)
            assert len(os.listdir(root)) == 20
        else:  # of several hands one may get further: what stood in its way then has failed, and says why
            assert job.status == "completed"
            assert job.skipped == 0
            assert len(os.listdir(root)) == job.failed


async def test_of_several_hands_the_slower_one_leaves_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = furnish(tmp_path, 8)
    other_done = threading.Event()

    def rename(*arguments: Any) -> None:
        if arguments[1] == b"d000":  # the disk is full for the first item, while the second one goes
            assert other_done.wait(10)
            raise OSError(errno.ENOSPC, "No space left on device")
        rename_noreplace(*arguments)
        other_done.set()

    monkeypatch.setattr(yard, "rename_noreplace", rename)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "purge", all=True)
        assert counts(job) == (7, 1, 0)
        assert (await outcomes(runtime, job.id))["d000"] == "failed IO_ERROR"
    assert os.listdir(root) == ["d000"]


async def test_a_full_disk_pauses_the_job_and_a_resume_needs_no_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = furnish(tmp_path, 6)
    async with dossiers(tmp_path) as runtime:
        with monkeypatch.context() as patched:
            _failing(patched, errno.ENOSPC, set(range(3, 1000)))
            job = await run(runtime, "dossiers", "delete", all=True)
            assert (job.status, job.processed) == ("paused", 2)
            assert job.status_reason is not None
            assert job.status_reason.code == "DISK_FULL"
        assert len(os.listdir(root)) == 4
        await runtime.service.resume(OWNER, job.id)
        assert counts(await rested(runtime, job.id)) == (6, 0, 0)


async def test_an_error_of_one_item_fails_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = furnish(tmp_path, 5)
    _failing(monkeypatch, errno.EACCES, {3})
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "delete", all=True)
        assert counts(job) == (4, 1, 0)
        assert (await outcomes(runtime, job.id))["d002"] == "failed IO_ERROR"
        assert os.listdir(root) == ["d002"]
        again, _ = await runtime.service.retry(OWNER, job.id, RetryBody())
        assert counts(await rested(runtime, again.id)) == (1, 0, 0)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """Give a dossier with a file that nobody can remove."""
    file = make_dossier(tmp_path / "dossiers_data", "ana", {"deep/locked": b"", "a": b""}) / "deep" / "locked"
    done = subprocess.run(["chattr", "+i", str(file)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("files cannot be made immutable here")
    try:
        yield file
    finally:
        for found in tmp_path.rglob("locked"):
            subprocess.run(["chattr", "-i", str(found)], check=True)


async def test_what_cannot_be_purged_is_put_back_and_says_why(tmp_path: Path, locked: Path) -> None:
    make_dossier(tmp_path / "dossiers_data", "ben")
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "purge", all=True)
        assert await outcomes(runtime, job.id) == {"ana": "failed IO_ERROR", "ben": "succeeded"}
        assert job.last_error is not None
        assert job.last_error.message == "EPERM: Operation not permitted (at ana/deep/locked)"
        assert locked.exists()
        assert trash_of(tmp_path) == []
        subprocess.run(["chattr", "-i", str(locked)], check=True)
        again, _ = await runtime.service.retry(OWNER, job.id, RetryBody())
        assert counts(await rested(runtime, again.id)) == (1, 0, 0)
    assert os.listdir(tmp_path / "dossiers_data") == []


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """Give a root that nothing can be moved out of."""
    root = furnish(tmp_path, 6)
    if subprocess.run(["chattr", "+i", str(root)], check=False, capture_output=True).returncode:
        pytest.skip("folders cannot be made immutable here")
    try:
        yield root
    finally:
        subprocess.run(["chattr", "-i", str(root)], check=True)


@pytest.mark.parametrize("action", ["delete", "purge"])
async def test_a_read_only_root_stops_the_job_before_everything_has_failed(
    tmp_path: Path, frozen: Path, action: str
) -> None:
    before = tree_of(frozen)
    actions = {action: {"max_batch_failures": 2, "batch_size": 2}}
    async with dossiers(tmp_path, actions=actions) as runtime:
        job = await run(runtime, "dossiers", action, all=True)
        assert job.status_reason is not None
        assert (job.status, job.status_reason.code) == ("paused", "BATCH_FAILURES")
        assert counts(job) == (0, 4, 0)
    assert tree_of(frozen) == before


async def test_a_root_that_is_another_folder_pauses_the_job(tmp_path: Path) -> None:
    root = furnish(tmp_path, 4)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "purge", all=True, canary=1)
        root.rename(tmp_path / "was")
        furnish(tmp_path, 4)
        await runtime.service.resume(OWNER, job.id)
        job = await rested(runtime, job.id)
        assert job.status_reason is not None
        assert (job.status, job.status_reason.code, job.processed) == ("paused", "TARGET_REPLACED", 1)
        assert len(os.listdir(root)) == 4


async def test_a_pause_is_heard_between_two_dossiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = furnish(tmp_path, 40)
    reached, go_on = threading.Event(), threading.Event()
    plain = remove_tree

    def slowly(*arguments: Any, **more: Any) -> bool:
        reached.set()
        go_on.wait(10)
        return plain(*arguments, **more)

    monkeypatch.setattr(taking, "remove_tree", slowly)
    async with dossiers(tmp_path) as runtime:
        started = await runtime.service.start(
            OWNER, "dossiers", "purge", msgspec.convert({"all": True}, StartBody)
        )
        await until(reached.is_set)
        await runtime.service.pause(OWNER, started.id)
        go_on.set()
        job = await rested(runtime, started.id)
        assert job.status == "paused"
        assert 0 < job.processed <= 4  # one in each hand
        assert len(os.listdir(root)) == 40 - job.processed
        # What was in hand is gone from sight; the cleaner removes what is left of it.
        await until(lambda: trash_of(tmp_path) == [])
        await runtime.service.resume(OWNER, job.id)
        assert counts(await rested(runtime, job.id)) == (40, 0, 0)


async def test_a_job_ended_by_force_puts_back_what_it_had_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = furnish(tmp_path, 5)
    before = tree_of(root)
    reached, go_on = threading.Event(), threading.Event()
    plain = rename_noreplace

    def slowly(*arguments: Any) -> None:
        plain(*arguments)
        reached.set()
        go_on.wait(10)

    async with dossiers(tmp_path) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr(yard, "rename_noreplace", slowly)
            body = msgspec.convert({"all": True}, StartBody)
            started = await runtime.service.start(OWNER, "dossiers", "delete", body)
            await until(reached.is_set)
            job = await runtime.service.cancel(OWNER, started.id, force=True)
            go_on.set()
            assert (job.status, job.processed) == ("cancelled", 0)
            await until(lambda: len(os.listdir(root)) == 5)
        await until(lambda: trash_of(tmp_path) == [])
    assert tree_of(root) == before


async def test_a_dossier_deeper_than_any_path_goes_comes_back_and_goes(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    root.mkdir()
    make_deep(root, "d", 1500)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "delete", ids=["d"])
        assert counts(await undo(runtime, job.id)) == (1, 0, 0)
        assert counts(await run(runtime, "dossiers", "purge", ids=["d"])) == (1, 0, 0)
    assert os.listdir(root) == []


async def test_an_undo_that_is_cancelled_takes_back_what_it_had_not_accounted_for(tmp_path: Path) -> None:
    root = furnish(tmp_path, 6)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "delete", all=True)
        part = await undo(runtime, job.id, ids=["d001", "d004"])
        assert counts(part) == (2, 0, 0)
        assert sorted(os.listdir(root)) == ["d001", "d004"]
        assert await queue(runtime) == [("restored", 2), ("trashed", 4)]


async def test_a_path_used_again_after_a_purge_is_left_alone_by_a_late_recovery(tmp_path: Path) -> None:
    """The crash comes between the purge and its account, and the name is somebody else's by then."""
    root = furnish(tmp_path, 3)
    async with dossiers(tmp_path) as runtime:
        storage = runtime.estate.depots["dossiers"].storage
        assert isinstance(storage, FolderStorage)
        looked = taking._look(storage, [0, 1, 2], ["d000", "d001", "d002"])
        data = taking._encode(looked)
        for name in ("d000", "d001"):
            with opened_yard(storage.area) as open_yard:
                assert remove_tree(open_yard.root, name.encode(), stop=never)
        make_dossier(root, "d000", {"new.txt": b"new"})

        async def named(_: Any) -> set[bytes]:
            return set()

        batches = taking.Taking(storage, final=True, matching=None, named=named)
        turn = Turn(gap=lambda _: 0.0, stop=lambda: False, commit_guard=lambda: True)
        todo = Todo([0, 1, 2], ["d000", "d001", "d002"])
        result = await batches.recover(todo, data, Fence("J", None, 1, 1, 3), turn)
        assert result is not None
        assert result.until == 2  # d002 was not begun, and is not now
        # Whether the new folder got the old one's inode is the file system's luck.
        assert [(each.item, each.code) for each in result.exceptions] in ([], [("d000", "SUPERSEDED")])
    assert (root / "d000" / "new.txt").read_bytes() == b"new"
    assert sorted(os.listdir(root)) == ["d000", "d002"]
