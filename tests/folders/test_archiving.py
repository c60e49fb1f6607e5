"""Archives of dossiers: whole, readable by others, continued after a crash, and honest about what failed."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import threading
import zipfile
from pathlib import Path

import anyio
import pytest

from bulkops.house import House
from bulkops.models import StartBody
from bulkops.resources.folder import archiving, zipping
from bulkops.resources.folder.zipping import Directory, Piece
from bulkops.runtime import Runtime
from tests.engine_house import OWNER, counts, outcomes, rested, run, until
from tests.folders.house import dossiers, make_deep, make_dossier, tree_of


def zip_of(runtime: Runtime, artifact: str) -> Path:
    return runtime.settings.data_dir / "artifacts" / artifact


async def test_an_unzipped_archive_is_what_was_archived(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    ana = make_dossier(root, "ana", {"x.jpg": os.urandom(3_000_000), "deep/er/y.txt": b"y" * 70_000})
    (ana / "empty").mkdir()
    (ana / "to").symlink_to("deep/er")
    (ana / "x.jpg").chmod(0o640)
    os.utime(ana / "x.jpg", (1_700_000_000, 1_700_000_000))
    make_dossier(root, "später")
    (root / "loose.pdf").write_bytes(b"%PDF")
    make_dossier(root, "zoe")
    before = tree_of(root)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "archive", ids=["ana", "später", "loose.pdf", "nobody"])
        assert counts(job) == (3, 0, 1)
        assert [(each.kind, each.format, each.status) for each in job.artifacts] == [
            ("archive", "zip", "ready")
        ]
        assert job.undo_until is None
        made = zip_of(runtime, job.artifacts[0].id)
    assert tree_of(root) == before
    out = tmp_path / "out"
    assert zipfile.ZipFile(made).testzip() is None
    if shutil.which("unzip") is None:
        pytest.skip("Info-ZIP's unzip, which restores modes and links, is not installed")
    done = subprocess.run(["unzip", "-q", str(made), "-d", str(out)], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    restored = tree_of(out)
    wanted = {path: look for path, look in before.items() if not path.startswith("zoe")}
    assert {path: (look[0], look[2]) for path, look in restored.items()} == {
        path: (look[0], look[2]) for path, look in wanted.items()
    }
    assert (out / "ana" / "x.jpg").stat().st_mtime == 1_700_000_000


async def test_no_name_in_an_archive_is_a_path_to_windows_and_no_two_become_one(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    written = {
        "a\\b": "a%5Cb",
        "a%5Cb": "a%255Cb",
        "a%255Cb": "a%25255Cb",
        "..\\..\\evil.bat": "..%5C..%5Cevil.bat",
        "C:\\x": "C:%5Cx",
        "100%.txt": "100%.txt",
        "a%5cb": "a%5cb",
    }
    make_dossier(root, "ana", {name: name.encode() for name in written})
    make_dossier(root, "b\\en")
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "archive", all=True)
        assert counts(job) == (2, 0, 0)
        with zipfile.ZipFile(zip_of(runtime, job.artifacts[0].id)) as made:
            found = {info.orig_filename: info for info in made.infolist()}
            assert len(found) == len(made.infolist())
            assert {each.partition("/")[0] for each in found} == {"ana", "b%5Cen"}
            assert not any("\\" in name for name in found)
            for name, wanted in written.items():
                assert made.read(f"ana/{wanted}") == name.encode()


async def test_an_item_that_cannot_be_read_whole_is_cut_out_and_fails_alone(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for name in ("ana", "ben", "cleo"):
        make_dossier(root, name)
    os.mkfifo(root / "ben" / "sub" / "pipe")
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "archive", all=True)
        assert await outcomes(runtime, job.id) == {
            "ana": "succeeded",
            "ben": "failed IO_ERROR",
            "cleo": "succeeded",
        }
        names = zipfile.ZipFile(zip_of(runtime, job.artifacts[0].id)).namelist()
    assert {name.partition("/")[0] for name in names} == {"ana", "cleo"}


async def test_a_file_written_to_while_it_is_read_fails_its_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "dossiers_data"
    make_dossier(root, "ana", {"log.txt": b"x" * 10})
    make_dossier(root, "ben")
    plain = os.read

    def read_and_write(descriptor: int, size: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("log.txt"):
            with (root / "ana" / "log.txt").open("ab") as log:
                log.write(b"more")
        return plain(descriptor, size)

    async with dossiers(tmp_path) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr(os, "read", read_and_write)
            patched.setattr(archiving, "_BLOCK", 4)
            job = await run(runtime, "dossiers", "archive", all=True)
        assert await outcomes(runtime, job.id) == {"ana": "failed SUPERSEDED", "ben": "succeeded"}


async def test_an_archive_takes_many_batches_and_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    for number in range(30):
        make_dossier(root, f"d{number:02}")
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "archive", all=True, batch_size=7, max_items=14)
        assert (job.status, job.processed) == ("paused", 14)
        job_id = job.id
    async with dossiers(tmp_path) as runtime:
        await runtime.service.resume(OWNER, job_id)
        job = await rested(runtime, job_id)
        if not job.terminal:
            await runtime.service.resume(OWNER, job_id)
            job = await rested(runtime, job_id)
        assert counts(job) == (30, 0, 0)
        with zipfile.ZipFile(zip_of(runtime, job.artifacts[0].id)) as made:
            assert made.testzip() is None
            assert len({name.partition("/")[0] for name in made.namelist()}) == 30


class Gate:
    """Holds the hand that reads a file until the test lets it go on; counts what it reads afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.reads = 0
        plain = os.read

        def read(descriptor: int, size: int) -> bytes:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(name):
                self.reads += 1
                self.reached.set()
                self.open.wait(30)
            return plain(descriptor, size)

        monkeypatch.setattr(os, "read", read)
        monkeypatch.setattr(archiving, "_BLOCK", 100)


@pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_request_ends_the_reading_of_a_giant_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, status: str
) -> None:
    root = tmp_path / "dossiers_data"
    make_dossier(root, "ana")
    make_dossier(root, "ben", {"giant": os.urandom(20_000)})
    make_dossier(root, "cleo")
    gate = Gate(monkeypatch, "giant")
    async with dossiers(tmp_path) as runtime:
        started = await runtime.service.start(OWNER, "dossiers", "archive", StartBody(all=True))
        await until(gate.reached.is_set)
        await getattr(runtime.service, verb)(OWNER, started.id)
        gate.open.set()
        job = await rested(runtime, started.id)
        assert (job.status, job.processed, gate.reads) == (status, 1, 1)
        if verb == "pause":
            await runtime.service.resume(OWNER, started.id)
            job = await rested(runtime, started.id)
            assert counts(job) == (3, 0, 0)
            with zipfile.ZipFile(zip_of(runtime, job.artifacts[0].id)) as made:
                assert made.testzip() is None
                assert made.read("ben/giant") == (root / "ben" / "giant").read_bytes()
                assert len(made.namelist()) == len(set(made.namelist())) == 10


async def test_a_house_that_closes_does_not_wait_for_a_giant_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "dossiers_data"
    make_dossier(root, "giant", {"giant": os.urandom(20_000)})
    gate = Gate(monkeypatch, "giant")

    async def let_go(house: House) -> None:
        await until(lambda: house.stopping)
        gate.open.set()

    async with anyio.create_task_group() as group, dossiers(tmp_path) as runtime:
        job_id = (await runtime.service.start(OWNER, "dossiers", "archive", StartBody(all=True))).id
        await until(gate.reached.is_set)
        group.start_soon(let_go, runtime.house)
    assert gate.reads == 1
    async with dossiers(tmp_path) as runtime:
        assert counts(await rested(runtime, job_id)) == (1, 0, 0)


async def test_a_very_deep_dossier_is_archived(tmp_path: Path) -> None:
    root = tmp_path / "dossiers_data"
    root.mkdir()
    make_deep(root, "d", 1500)
    async with dossiers(tmp_path) as runtime:
        job = await run(runtime, "dossiers", "archive", all=True)
        assert counts(job) == (1, 0, 0)
        with zipfile.ZipFile(zip_of(runtime, job.artifacts[0].id)) as made:
            assert len(made.namelist()) == 1515
        await run(runtime, "dossiers", "purge", all=True)


def test_a_directory_read_back_is_the_one_that_was_written() -> None:
    file, directory = io.BytesIO(), Directory()
    zipping.add(file, directory, Piece("ä".encode(), stat.S_IFDIR | 0o755, 1_700_000_000), ())
    zipping.add(file, directory, Piece("ä/b".encode(), stat.S_IFREG | 0o600, 5), (b"one", b"two"))
    zipping.add(file, directory, Piece(b"\xff", stat.S_IFLNK | 0o777, -5), (b"../target",))
    again = zipping.read_back(file)
    assert (again.records, again.count, again.end) == (directory.records, directory.count, directory.end)
    zipping.close(file, again)
    with zipfile.ZipFile(file) as made:
        assert made.testzip() is None
        assert made.read("ä/b") == b"onetwo"


def test_what_is_no_zip_of_ours_is_not_read_back() -> None:
    with pytest.raises(ValueError, match="not as it was written"):
        zipping.read_back(io.BytesIO(b"PK\5\6" + b"\0" * 100))
