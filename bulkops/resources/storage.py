"""The storage seam: where the files of rows lie, and who removes them.

What comes in: a storage's name from the configuration; what goes out: the built-in `LocalStorage` (a
folder with a trash, through the one mover) or a class of the host's. Nothing here may decide *when* a
file goes, and nothing may name our own database's rows.

**A custom storage has no trash.** Its entries wait in state ``queued``; once worked, they are deleted for
good. An undo that comes before voids them; one that comes after cannot give the item back and reports it
as ``CONFLICT``. Choose a local storage where undo of files matters.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable
from urllib.parse import quote

from bulkops.errors import ConfigError
from bulkops.handles import FOLDER_HANDLES
from bulkops.resources import mover
from bulkops.resources.paths import (
    TRASH_FOLDER,
    Area,
    FileKey,
    Seen,
    can_rename,
    identify,
    identify_many,
)
from bulkops.resources.verdicts import Entry, Result, Stop, Verdict, never

#: Asked once a batch for the files and folders that are never touched; databases come and go with their WAL.
Forbidden = Callable[[], frozenset[FileKey]]

#: What a custom storage answers a key with: all of them, or one an item in the order that it was asked in.
Outcomes = Mapping[str, str] | Sequence[str]

_WORDS = {
    "removed": Verdict.PURGED,
    "succeeded": Verdict.PURGED,
    "missing": Verdict.MISSING,
    "refused": Verdict.REFUSED,
    "retry": Verdict.RETRY,
    "failed": Verdict.RETRY,
}


@runtime_checkable
class Storage(Protocol):
    """A storage of the host's: an object store, another machine, a tape robot.

    ``delete`` gets keys (the file column's text) and answers an outcome for each, by key or in their order:
    ``"removed"`` (or ``"succeeded"``), ``"missing"``, ``"retry"`` (or ``"failed"``) or ``"refused"``, the last
    two with a reason if there is one (``"retry: throttled"``). A key it says nothing about, and every key when
    it raises, is tried again. It is called again for keys it may have deleted before a crash: ``"missing"`` is
    a fine answer then. It may be a plain function; it runs in a thread then.
    """

    def delete(self, keys: Sequence[str]) -> Outcomes | Awaitable[Outcomes]: ...


def load_storage(where: str, name: str) -> Storage:
    """Import ``package.module:Name`` and call it without arguments; an object there is taken as it is.

    Raises:
        ConfigError: (naming ``where``) the name has another form, cannot be imported or called, or has no
            ``delete``.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute.isidentifier()):
        raise ConfigError(where, f"{name!r} is no storage such as package.module:Name")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        storage = found() if isinstance(found, type) else found
    except Exception as error:  # the host's module may raise anything; it is wrong wiring all the same
        raise ConfigError(where, f"cannot load storage {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(storage, Storage) or not callable(storage.delete):
        raise ConfigError(where, f"storage {name!r} has no delete(keys)")
    return storage


def read_outcomes(keys: Sequence[str], outcomes: Outcomes) -> list[Result]:
    """Turn a custom storage's answer into results in the order of ``keys``.

    Raises:
        TypeError: it is neither by key nor in their order, or has another number of them.
    """
    if not isinstance(outcomes, Mapping):
        if not isinstance(outcomes, list | tuple) or len(outcomes) != len(keys):
            raise TypeError(f"the storage answered {outcomes!r:.100}, not an outcome for each key")
        return [_read_outcome(outcome) for outcome in outcomes]
    return [_read_outcome(outcomes.get(key, "retry: the storage said nothing about it")) for key in keys]


def _read_outcome(outcome: object) -> Result:
    word, _, reason = str(outcome).partition(":")
    verdict = _WORDS.get(word.strip())
    if verdict is None:
        return Result(Verdict.RETRY, f"the storage answered {outcome!r}")
    if verdict in {Verdict.PURGED, Verdict.MISSING}:
        return Result(verdict)
    return Result(verdict, reason.strip() or f"the storage answered {word.strip()!r}")


def protect(
    files: Iterable[Path], *, databases: Iterable[Path] = (), within: Iterable[Path] = ()
) -> Forbidden:
    """Make the list of what is never touched: files and folders by path, databases with their companions.

    ``within``: every folder on the way to one of these as well, for what acts on folders as a whole.
    """
    paths = [str(path) for path in files]
    paths += [str(above) for path in within for above in (path.resolve(), *path.resolve().parents)]
    for database in databases:
        paths += [f"{database}{suffix}" for suffix in ("", "-wal", "-shm", "-journal", ".lock")]

    def forbidden() -> frozenset[FileKey]:
        return frozenset(key for key in map(_key_at, paths) if key is not None)

    return forbidden


def _key_at(path: str) -> FileKey | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class LocalStorage:
    """Files below a root, with a trash that a rename reaches; every method may wait for the disk."""

    def __init__(self, name: str, root: Path, trash_dir: Path, forbidden: Forbidden) -> None:
        """Take folders that exist.

        Raises:
            OSError: the root or the trash is missing or no folder.
        """
        self.name = name
        self.root = root.resolve(strict=True)
        self.trash_dir = trash_dir
        self._forbidden = forbidden
        self._root_key = _folder_key(self.root)
        self._trash_key = _folder_key(trash_dir)

    @classmethod
    def open(cls, where: str, name: str, root: Path, data_dir: Path, forbidden: Forbidden) -> Self:
        """Make the trash (0700): in the data directory where a rename reaches it, else in the root.

        Raises:
            ConfigError: (naming ``where``) the root is no folder, no trash can be made, or this system has no
                folder handles.
        """
        if not FOLDER_HANDLES:
            raise ConfigError(
                where, f"files cannot be moved safely here: {sys.platform} has no folder handles"
            )
        try:
            trash = _make_trash(name, root.resolve(strict=True), data_dir)
            return cls(name, root, trash, forbidden)
        except OSError as error:
            raise ConfigError(where, f"{error.filename or root}: {error.strerror}") from error

    def identify(self, path: bytes) -> Seen:
        """Say which file a path names; ``None`` when there is none, `Refused` when it must not be touched.

        Raises:
            OSError: the root itself cannot be opened, or something else is mounted there.
        """
        return identify(self._area(), path)

    def identify_many(self, paths: Sequence[bytes]) -> list[Seen]:
        """Do as `identify` does for many paths, in their order."""
        return identify_many(self._area(), paths)

    def move(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Move files into the trash."""
        return mover.move_batch(self._area(), entries, stop=stop)

    def remove(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Unlink files from where they are, for good."""
        return mover.remove_batch(self._area(), entries, stop=stop)

    def restore(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Move files from the trash to where they were."""
        return mover.restore_batch(self._area(), entries, stop=stop)

    def purge(self, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
        """Unlink files from the trash, for good."""
        return mover.purge_batch(self._area(), entries, stop=stop)

    def _area(self) -> Area:
        return Area(
            os.fsencode(self.root),
            os.fsencode(self.trash_dir),
            self._forbidden() | {self._trash_key},
            self._root_key,
        )


def _folder_key(folder: Path) -> FileKey:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(20, "not a folder", str(folder))
    return found.st_dev, found.st_ino


def _make_trash(name: str, root: Path, data_dir: Path) -> Path:
    ours = data_dir.resolve() / "trash" / _folder_name(name)
    _make_private(ours.parent)
    _make_private(ours)
    if can_rename(os.fsencode(ours), os.fsencode(root)):
        return ours
    beside = root / os.fsdecode(TRASH_FOLDER)
    _make_private(beside)
    return beside


def _folder_name(name: str) -> str:
    """Write a storage's name so that it is one component and no dotted one."""
    quoted = quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _folder_key(folder)
    os.chmod(folder, 0o700, follow_symlinks=os.chmod not in os.supports_follow_symlinks)
