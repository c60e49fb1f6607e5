"""The project folders on disk: what is in them, what goes to their trash and comes back.

What comes in: names of projects and files; what goes out: listings, identities, verdicts. Every folder is opened
part by part and none through a symbolic link; files are moved by the one mover, and only while they are the ones
that were seen. Everything here waits for the disk: call it in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from bulkops import handles
from bulkops.errors import ConfigError
from bulkops.resources import mover, verdicts
from bulkops.resources.paths import (
    Area,
    FileKey,
    FolderMissing,
    Identity,
    PathRefused,
    Seen,
    identity_of,
    is_final,
    look,
    open_folder,
    opened_folder,
    reason_of,
)
from bulkops.resources.photos import names
from bulkops.resources.photos.names import Kind
from bulkops.resources.storage import Forbidden
from bulkops.resources.verdicts import Entry, Result, Verdict

TRASH: Final = ".trash"
#: Derivatives by the folder they stand in, beside the photos: the longer side at most so many pixels.
DERIVATIVES: Final = {".thumb": 320, ".preview": 1600}
_PRIVATE: Final = 0o700

_Act = Callable[[Area, Sequence[Entry]], list[Result]]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a project's folder: names of files by photo and kind; ``odd`` are those never touched, and why.

    ``there``: the folder exists. ``refused``: why nothing in it may be touched.
    """

    photos: dict[str, dict[Kind, list[str]]] = {}
    odd: dict[str, str] = {}
    there: bool = True
    refused: str | None = None

    def files(self, base: str, kind: Kind) -> list[str]:
        """Name the files of one kind that a photo has."""
        return self.photos.get(base, {}).get(kind, [])

    def odd_files(self, base: str, kind: Kind) -> dict[str, str]:
        """Name what stands where such a file would and is none."""
        return {name: why for name, why in self.odd.items() if names.split(name) == (base, kind)}


class Trashed(msgspec.Struct, frozen=True):
    """A file in a project's trash; ``since_ms`` is when it got there: its last change of name."""

    name: str
    since_ms: int
    identity: Identity


class Projects:
    """The folders below one root."""

    def __init__(self, root: Path, forbidden: Forbidden) -> None:
        """Take a root that exists.

        Raises:
            OSError: it does not, or is no folder.
        """
        self.root = root.resolve(strict=True)
        self._forbidden = forbidden
        with opened_folder(os.fsencode(self.root)) as descriptor:
            self._key = _key(descriptor)

    @classmethod
    def open(cls, where: str, root: Path, forbidden: Forbidden) -> Projects:
        """Take a root from the configuration.

        Raises:
            ConfigError: (naming ``where``) it is no folder.
        """
        try:
            return cls(root, forbidden)
        except OSError as error:
            raise ConfigError(where, f"{root}: {error.strerror}") from error

    @contextmanager
    def _opened(self, *parts: str, create: str | None = None) -> Iterator[int]:
        """Open a folder below the root; ``create``: one in it, made if it is not there."""
        forbidden = self._forbidden()
        with opened_folder(os.fsencode(self.root), key=self._key) as root:
            folder = open_folder(root, [os.fsencode(part) for part in parts], forbidden=forbidden)
            try:
                if create is not None:
                    deeper = open_folder(folder, [os.fsencode(create)], forbidden=forbidden, create=True)
                    os.close(folder)
                    folder = deeper
                yield folder
            finally:
                os.close(folder)

    def all(self) -> list[str]:
        """Name the projects there are.

        Raises:
            OSError: the root cannot be read, or is another one.
        """
        with self._opened() as root, os.scandir(root) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(name for name in found if names.explain(name) is None)

    def listing(self, project: str) -> Listing:
        """List a project's photos; a folder that is not there has none.

        Raises:
            OSError: the disk balks, or the root is another one.
        """
        why = names.explain(project)
        if why is not None:
            return Listing(there=False, refused=f"the project's name is refused: {why}")
        try:
            with self._opened(project) as folder, os.scandir(folder) as entries:
                return _listed(entries)
        except FolderMissing:
            return Listing(there=False)
        except OSError as error:
            if is_final(error):
                return Listing(refused=f"the project's folder is refused: {reason_of(error)}")
            raise

    def identify(self, project: str, files: Sequence[str]) -> dict[str, Seen]:
        """Say which files stand under these names in a project's folder."""
        with self._opened(project) as folder:
            forbidden = self._forbidden()
            return {name: look(folder, os.fsencode(name), forbidden=forbidden) for name in files}

    def trash(self, project: str) -> list[Trashed]:
        """List a project's trash; one that is not there is empty."""
        try:
            with self._opened(project, TRASH) as folder, os.scandir(folder) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        except FolderMissing:
            return []
        except OSError as error:
            if is_final(error):
                return []
            raise
        # A rename changes neither a file's content nor its mtime, only this: and it cannot be set by hand.
        return [
            Trashed(name, status.st_ctime_ns // 1_000_000, identity_of(status))
            for name, status in sorted(found, key=lambda each: each[0])
            if stat.S_ISREG(status.st_mode) and names.is_sayable(name)
        ]

    def _area(self, project: str) -> Area:
        with self._opened(project, TRASH) as trash:
            key = _key(trash)
        root = os.fsencode(self.root)
        path = b"/".join((root, os.fsencode(project), os.fsencode(TRASH)))
        return Area(root, path, self._forbidden() | {key}, self._key, key)

    def make_trash(self, project: str) -> None:
        """Make a project's trash, only its owner's to look into."""
        with self._opened(project) as folder:
            with suppress(FileExistsError):
                os.mkdir(TRASH, _PRIVATE, dir_fd=folder)
            os.fsync(folder)

    def move(self, project: str, entries: Sequence[Entry]) -> list[Result]:
        """Move files of a project into its trash."""
        try:
            self.make_trash(project)
            return mover.move_batch(self._area(project), entries)
        except FolderMissing:
            return [Result(Verdict.MISSING)] * len(entries)
        except OSError as error:
            return [verdicts.judge(error)] * len(entries)

    def restore(self, project: str, entries: Sequence[Entry]) -> list[Result]:
        """Move files back from a project's trash, never over anything."""
        return self._in_trash(project, entries, mover.restore_batch)

    def purge(self, project: str, entries: Sequence[Entry]) -> list[Result]:
        """Unlink files in a project's trash for good."""
        return self._in_trash(project, entries, mover.purge_batch)

    def _in_trash(self, project: str, entries: Sequence[Entry], act: _Act) -> list[Result]:
        try:
            return act(self._area(project), entries)
        except FolderMissing:
            gone = Verdict.PURGED if act is mover.purge_batch else Verdict.MISSING
            return [Result(gone)] * len(entries)
        except OSError as error:
            return [verdicts.judge(error)] * len(entries)

    def drop_derivatives(self, project: str, bases: Sequence[str]) -> None:
        """Remove the derivatives of photos; what is not there, or is no file or folder, is passed by.

        Raises:
            OSError: the disk balks.
        """
        for folder_name in DERIVATIVES:
            try:
                with self._opened(project, folder_name) as folder:
                    for base in bases:
                        if isinstance(look(folder, _picture(base)), Identity):
                            os.unlink(_picture(base), dir_fd=folder)
                    os.fsync(folder)
            except FolderMissing:
                continue
            except OSError as error:
                if not is_final(error):
                    raise

    def fresh(self, project: str, sources: dict[str, str]) -> set[str]:
        """Return those of the photos (base → file) whose derivatives are all there and of this very file.

        A derivative bears its source's time.
        """
        seen = self.identify(project, list(sources.values()))
        wanted = {
            base: found.mtime_ns
            for base, name in sources.items()
            if isinstance(found := seen[name], Identity)
        }
        for folder_name in DERIVATIVES:
            try:
                with self._opened(project, folder_name) as folder:
                    wanted = {
                        base: time_ns
                        for base, time_ns in wanted.items()
                        if isinstance(found := look(folder, _picture(base)), Identity)
                        and found.mtime_ns == time_ns
                    }
            except OSError:
                return set()
        return set(wanted)

    @contextmanager
    def opened_file(self, project: str, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Open a file of a project for reading; with it comes its time in nanoseconds.

        Raises:
            OSError: it is not there, no regular file, or a file of ours.
        """
        with self._opened(project) as folder:
            descriptor = os.open(os.fsencode(name), handles.READ, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in self._forbidden():
                    raise PathRefused("it is not a regular file, or one of ours")
                yield file, status.st_mtime_ns

    def write_derivative(
        self, project: str, folder_name: str, base: str, picture: bytes, time_ns: int
    ) -> None:
        """Write a derivative, whole and on disk before it gets its name, with its source's time.

        Raises:
            OSError: the disk balks; the unfinished file is gone then.
        """
        with self._opened(project, create=folder_name) as folder:
            # Always the same name: what a crash left of it goes now. One batch at a time works in a project.
            part = os.fsencode(f".{base}.part")
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)
            descriptor = os.open(part, os.O_WRONLY | handles.NEW, 0o666, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(picture)
                    file.flush()
                    os.utime(file.fileno(), ns=(time_ns, time_ns))
                    os.fsync(file.fileno())
                os.rename(part, _picture(base), src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            os.fsync(folder)


def _listed(entries: Iterator[os.DirEntry[str]]) -> Listing:
    photos: dict[str, dict[Kind, list[str]]] = {}
    odd: dict[str, str] = {}
    for entry in entries:
        parts = names.split(entry.name)
        if parts is None:
            continue
        if not entry.is_file(follow_symlinks=False):
            odd[entry.name] = "it is a symbolic link" if entry.is_symlink() else "it is no regular file"
            continue
        base, kind = parts
        photos.setdefault(base, {}).setdefault(kind, []).append(entry.name)
    for kinds in photos.values():
        for files in kinds.values():
            files.sort()
    return Listing(photos=photos, odd=odd)


def _picture(base: str) -> bytes:
    return os.fsencode(f"{base}.jpg")


def _key(descriptor: int) -> FileKey:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
