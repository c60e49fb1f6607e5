"""Many files purged while others work on the same folder: nothing outside goes, nothing shared, nothing new."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkops.models import JobView, StartBody
from bulkops.runtime import Runtime
from tests.engine_house import OWNER, counts, execute, make_database, outcomes, run, until
from tests.folders.house import dossiers, make_dossier, trash_of, tree_of

_IN_A_DOSSIER = 50
IMAGES = {"table": "images", "id": "id", "file": "path", "root": "dossiers_data"}


START = StartBody(all=True)


async def _ended(runtime: Runtime, job_id: str) -> JobView | None:
    view = await runtime.service.job(OWNER, job_id)
    return view if view.terminal else None


def furnish(folder: Path, files: int) -> tuple[list[str], list[str]]:
    """Make half of the files loose, half in dossiers; return the names of both."""
    root = folder / "dossiers_data"
    root.mkdir()
    loose = [f"f{number:06}.jpg" for number in range(files // 2)]
    for name in loose:
        (root / name).write_bytes(b"old")
    folders = [f"d{number:05}" for number in range(files // 2 // _IN_A_DOSSIER)]
    for name in folders:
        inner = root / name / "sub"
        inner.mkdir(parents=True)
        for number in range(_IN_A_DOSSIER):
            (inner / f"{number}.jpg").write_bytes(b"old")
    return loose, folders


@contextmanager
def busy(*hands: threading.Thread, over: threading.Event) -> Iterator[None]:
    for hand in hands:
        hand.start()
    try:
        yield
    finally:
        over.set()
        for hand in hands:
            hand.join()


def flip(root: Path, outside: Path, spare: Path, over: threading.Event) -> None:
    """Let entries be a folder now and a link to what is outside then."""
    while not over.is_set():
        for place in (root / "flip", root / "d00001" / "sub"):
            link = spare / "link"
            try:
                link.symlink_to(outside, target_is_directory=True)
                if place.is_symlink():
                    place.unlink()
                    place.mkdir()
                else:
                    place.rename(spare / "was")
                    link.rename(place)
            except OSError:
                pass
            link.unlink(missing_ok=True)
            shutil.rmtree(spare / "was", ignore_errors=True)


def reuse(root: Path, names: list[str], over: threading.Event) -> None:
    """Put a new file in the place of each that has gone."""
    left = list(names)
    while left and not over.is_set():
        for name in list(left):
            try:
                descriptor = os.open(root / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                continue
            os.write(descriptor, b"new")
            os.close(descriptor)
            left.remove(name)


async def purge_under_fire(folder: Path, files: int) -> None:
    root, outside, spare = folder / "dossiers_data", folder / "outside", folder / "spare"
    make_dossier(folder, "outside", {f"keep{number}": b"mine" for number in range(20)})
    spare.mkdir()
    loose, folders = furnish(folder, files)
    (root / "flip").mkdir()
    (root / "shared.jpg").write_bytes(b"two rows name it")
    make_database(
        folder / "app.db",
        "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT);"
        "INSERT INTO images VALUES (1, 'shared.jpg'), (2, 'shared.jpg')",
    )
    before = tree_of(outside)
    again = loose[:: max(1, len(loose) // 50)]
    over = threading.Event()
    async with dossiers(folder, more={"images": IMAGES}) as runtime:
        flipper = threading.Thread(target=flip, args=(root, outside, spare, over))
        reuser = threading.Thread(target=reuse, args=(root, again, over))
        with busy(flipper, reuser, over=over):
            gone = await run(runtime, "images", "delete", ids=["1"])
            started = await runtime.service.start(OWNER, "dossiers", "purge", START)
            job = await until(lambda: _ended(runtime, started.id), within_s=1500)
            await until(lambda: not reuser.is_alive())
        assert counts(gone) == (1, 0, 0)
        assert job.status == "completed"
        found = await outcomes(runtime, job.id)
        # What is flipped may have had no name at the very moment in which the list was made.
        assert len(found) == job.total
        assert set(found) | {"flip"} == {*loose, *folders, "flip", "shared.jpg"}
        assert found.pop("shared.jpg") == "failed SHARED"
        odd = {item: word for item, word in found.items() if word != "succeeded"}
        # What is flipped may be a link, or another folder, at any moment; nothing else may have failed.
        assert set(odd) <= {"flip", "d00001"}
        await until(lambda: trash_of(folder) == [], within_s=60)
    assert tree_of(outside) == before
    assert (root / "shared.jpg").read_bytes() == b"two rows name it"
    assert execute(folder / "app.db", "SELECT id FROM images") == [(2,)]
    assert {name: (root / name).read_bytes() for name in again} == dict.fromkeys(again, b"new")
    assert set(os.listdir(root)) - {*again, "shared.jpg"} <= {"flip", "d00001"}


async def test_a_few_hundred_files_are_purged_under_fire(tmp_path: Path) -> None:
    await purge_under_fire(tmp_path, 400)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_files_are_purged_under_fire(tmp_path: Path) -> None:
    await purge_under_fire(tmp_path, 100_000)
