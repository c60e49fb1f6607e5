"""Removing files from the queue against `find -delete`, and moving them to the trash against bare renames."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from statistics import median

import anyio

from bulkops.cleaner import Cleaner, Depot
from bulkops.effects import FileTaken
from bulkops.ids import new_id
from bulkops.resources.paths import Identity
from bulkops.resources.storage import LocalStorage, protect
from bulkops.store import deletions
from bulkops.store.instance import InstanceLock
from bulkops.store.store import Store, open_store
from bulkops.store.transaction import Tx
from bulkops.timing import SystemClock
from tests.benchmarks.measuring import Finding, Found, Scale, rate, spread, stopwatch

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


async def _drain(folder: Path, names: list[bytes], *, final: bool) -> float:
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
        with stopwatch() as watch:
            result = await cleaner.drain()
        if result.removed != len(names):
            raise RuntimeError(f"not all files went: {result}")
    finally:
        await store.close()
        lock.release()
    return watch.seconds


def _find_delete(root: Path) -> float:
    with stopwatch() as watch:
        subprocess.run(["find", str(root), "-type", "f", "-delete"], check=True)
    return watch.seconds


def _rename_all(root: Path, trash: Path, names: list[bytes]) -> float:
    trash.mkdir(exist_ok=True)
    sources = [os.fsencode(root) + b"/" + name for name in names]
    targets = [os.fsencode(trash / str(index)) for index in range(len(names))]
    with stopwatch() as watch:
        for source, target in zip(sources, targets, strict=True):
            os.rename(source, target)
    shutil.rmtree(trash)
    return watch.seconds


def _ours(folder: Path, count: int, *, final: bool) -> float:
    names = _make(folder / "files", count)
    return anyio.run(partial(_drain, folder, names, final=final))


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


def _faster(what: str, goal: float, count: int, ours: list[float], bare: list[float]) -> Finding:
    ratios = [other / one for one, other in zip(ours, bare, strict=True)]
    return Finding(
        what=what, value=median(ratios), unit="x", goal=goal, sense=">=",
        baseline=rate(count, median(bare)), detail=f"{rate(count, median(ours))}; runs {spread(ratios)}",
    )  # fmt: skip
