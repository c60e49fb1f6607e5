"""Removing files for good against `find -delete`, and moving them to the trash against bare renames.

Both ways that files go are measured: the deletion queue of rows' files, worked off, and jobs of a folder resource
whose items are files, from start to completion.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import anyio

from bulkops.cleaner import Cleaner, Depot
from bulkops.configuration import load
from bulkops.effects import FileTaken
from bulkops.ids import new_id
from bulkops.models import StartBody
from bulkops.resources.paths import Identity
from bulkops.resources.storage import LocalStorage, protect
from bulkops.runtime import local_owner, open_runtime
from bulkops.store import deletions
from bulkops.store.instance import InstanceLock
from bulkops.store.store import Store, open_store
from bulkops.store.transaction import Tx
from bulkops.timing import SystemClock
from tests.benchmarks.houses import ended, seconds_under_work
from tests.benchmarks.measuring import Finding, Found, Scale, rate, spread, stopwatch


class Measured(NamedTuple):
    """Seconds that passed, and seconds of processor time."""

    seconds: float
    used_s: float


_A_FOLDER = 1000
_A_BATCH = 500


def _make(root: Path, count: int) -> list[bytes]:
    """Write small files, a thousand a folder, down to the disk; return their names below ``root``."""
    shutil.rmtree(root, ignore_errors=True)
    names = []
    for index in range(count):
        folder = f"{index // _A_FOLDER:04d}"
        if index % _A_FOLDER == 0:
            (root / folder).mkdir(parents=True)
        name = f"{folder}/{index:07d}.jpg"
        (root / name).write_bytes(b"x" * 200)
        names.append(name.encode())
    os.sync()
    return names


async def _queue(store: Store, storage: LocalStorage, names: list[bytes], *, final: bool) -> None:
    job = new_id()
    for first in range(0, len(names), _A_BATCH):
        some = names[first : first + _A_BATCH]
        taken = []
        for place, (name, seen) in enumerate(zip(some, storage.identify_many(some), strict=True)):
            assert isinstance(seen, Identity)
            identity = (seen.dev, seen.ino, seen.size, seen.mtime_ns)
            taken.append(FileTaken(first + place, "files", name, identity, final))

        def write(tx: Tx, taken: list[FileTaken] = taken, first: int = first) -> None:
            deletions.insert_tentative(tx, job, taken, resource="files", tenant=None)
            deletions.settle(tx, job, first, len(taken), untouched=[])

        await store.write(write)


async def _drain(folder: Path, names: list[bytes], *, final: bool) -> Measured:
    """Work the queue off; return how long that took."""
    data_dir = folder / "data"
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir()
    (folder / "bulkops.db").unlink(missing_ok=True)
    lock = InstanceLock(data_dir)
    store = await open_store(folder / "bulkops.db", data_dir, SystemClock(), lock)
    try:
        forbidden = protect([data_dir], databases=[folder / "bulkops.db"])
        storage = LocalStorage.open("files", "files", folder / "files", data_dir, forbidden)
        await _queue(store, storage, names, final=final)
        cleaner = Cleaner(store, {"files": Depot(storage)})
        used_s = time.process_time()
        with stopwatch() as watch:
            result = await cleaner.drain()
        used_s = time.process_time() - used_s
        if result.removed != len(names):
            raise RuntimeError(f"not all files went: {result}")
    finally:
        await store.close()
        lock.release()
    return Measured(watch.seconds, used_s)


def _find_delete(root: Path) -> Measured:
    used_s = _used_by_children()
    with stopwatch() as watch:
        subprocess.run(["find", str(root), "-type", "f", "-delete"], check=True)
    return Measured(watch.seconds, _used_by_children() - used_s)


def _used_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rename_all(root: Path, trash: Path, names: list[bytes]) -> Measured:
    trash.mkdir(exist_ok=True)
    sources = [os.fsencode(root) + b"/" + name for name in names]
    targets = [os.fsencode(trash / str(index)) for index in range(len(names))]
    used_s = time.process_time()
    with stopwatch() as watch:
        for source, target in zip(sources, targets, strict=True):
            os.rename(source, target)
    used_s = time.process_time() - used_s
    shutil.rmtree(trash)
    return Measured(watch.seconds, used_s)


def _ours(folder: Path, count: int, *, final: bool) -> Measured:
    names = _make(folder / "files", count)
    return anyio.run(partial(_drain, folder, names, final=final))


_FOLDER: Final = """
[server]
port = 0

[resources.files]
kind = "folder"
root = "files"
shared = true
"""


async def _run_job(folder: Path, action: str) -> Measured:
    shutil.rmtree(folder / "bulkops-data", ignore_errors=True)
    for database in folder.glob("bulkops.db*"):
        database.unlink()
    file = folder / "bulkops.toml"
    file.write_text(_FOLDER, encoding="utf-8")
    async with open_runtime(load(file, environ={})) as runtime:
        used_s = time.process_time()
        accepted = await runtime.service.start(local_owner(), "files", action, StartBody(all=True))
        job = await ended(runtime, accepted.id)
        used_s = time.process_time() - used_s
        if job.outcome != "ok":
            raise RuntimeError(f"the job ended {job.status} {job.outcome}: {job.status_reason} {job.error}")
        return Measured(await seconds_under_work(runtime, job.id), used_s)


def _make_loose(root: Path, count: int) -> list[bytes]:
    """Write small files into one folder, down to the disk; return their names."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    names = [f"{index:07d}.jpg" for index in range(count)]
    for name in names:
        (root / name).write_bytes(b"x" * 200)
    os.sync()
    return [name.encode() for name in names]


def folders(folder: Path, scale: Scale) -> Found:
    """Purge the files of a folder resource, then move as many into its trash; each beside its baseline."""
    count = scale.pick(100_000, 10_000)
    root = folder / "files"
    purges, finds, moves, renames = [], [], [], []
    for _ in range(scale.repeats):
        _make_loose(root, count)
        finds.append(_find_delete(root))
        _make_loose(root, count)
        purges.append(anyio.run(_run_job, folder, "purge"))
        renames.append(_rename_all(root, folder / "bare", _make_loose(root, count)))
        _make_loose(root, count)
        moves.append(anyio.run(_run_job, folder, "delete"))
    return [
        _faster(
            f"purging {count:,} files of a folder resource against find -delete", 1.0, count, purges, finds
        ),
        _faster(
            f"deleting {count:,} files of a folder resource against bare renames", 0.5, count, moves, renames
        ),
    ]


def removal(folder: Path, scale: Scale) -> Found:
    """Work off a queue of files for good, then one into the trash."""
    count = scale.pick(100_000, 10_000)
    root = folder / "files"
    purges, finds, moves, renames = [], [], [], []
    for _ in range(scale.repeats):
        _make(root, count)
        finds.append(_find_delete(root))
        purges.append(_ours(folder, count, final=True))
        renames.append(_rename_all(root, folder / "bare", _make(root, count)))
        moves.append(_ours(folder, count, final=False))
    return [
        _faster(f"removing {count:,} files for good against find -delete", 1.0, count, purges, finds),
        _faster(f"moving {count:,} files to the trash against bare renames", 0.5, count, moves, renames),
    ]


def _faster(what: str, goal: float, count: int, ours: list[Measured], bare: list[Measured]) -> Finding:
    ratios = [other.seconds / one.seconds for one, other in zip(ours, bare, strict=True)]
    used = [other.used_s / one.used_s for one, other in zip(ours, bare, strict=True)]
    speed, theirs = (rate(count, median([each.seconds for each in some])) for some in (ours, bare))
    return Finding(
        what=what, value=median(ratios), unit="x", goal=goal, sense=">=",
        baseline=theirs, detail=f"{speed}; runs {spread(ratios)}; of processor time {spread(used)}",
    )  # fmt: skip
