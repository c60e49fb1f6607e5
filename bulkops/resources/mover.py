"""The one mover of files: into the trash, back again, and away for good.

What comes in: a root, its trash, and entries that name a file below the root as bytes together with the
identity it had when its row went; what goes out: a verdict an entry. Every path is walked component by
component through directory descriptors that follow no symbolic link, and a file is touched only while
it is still the one that was recorded. What is to be done is decided in `verdicts`; acting is thin, and running
an entry again after a crash at any instruction ends where the first run would have. Nothing outside the root,
nothing of another identity, no directory, device or database may ever be touched here; no other module of the
package renames or unlinks what belongs to the application.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

from bulkops.resources.copies import copy, same_bytes
from bulkops.resources.paths import (
    Area,
    FolderMissing,
    Identity,
    Places,
    Refused,
    Seen,
    by_folder,
    identity_of,
    look,
    open_folder,
    opened_folder,
    parts_of,
    reason_of,
    rename_noreplace,
    seen_from,
)
from bulkops.resources.verdicts import (
    Entry,
    Result,
    Step,
    Stop,
    Verdict,
    judge,
    never,
    plan_move,
    plan_purge,
    plan_restore,
)

#: Folders of a batch that are open at a time; their descriptors wait for the trash to be synced first.
MAX_OPEN_FOLDERS: Final = 32

_CHANGED: Final = frozenset({Verdict.TRASHED, Verdict.PURGED, Verdict.RESTORED})
_TRASHED: Final = Result(Verdict.TRASHED)
_PURGED: Final = Result(Verdict.PURGED)
_UNTRIED: Final = Result(Verdict.UNTRIED)


# --- acting: one entry -------------------------------------------------------------------------------


class _Spot(msgspec.Struct, frozen=True):
    """Where one folder's entries are acted on; ``error`` says why their folder could not be opened."""

    area: Area
    folder: int
    trash: int
    error: OSError | None = None

    def source(self, name: bytes) -> Seen:
        """See what is at the source; a fault of the moment is raised, a path not to be walked is seen."""
        if self.error is None:
            return look(self.folder, name, forbidden=self.area.forbidden)
        seen = seen_from(self.error)
        if isinstance(seen, Refused) and seen.code == "IO_ERROR":
            raise self.error
        return seen

    def kept(self, entry: Entry) -> Seen:
        return look(self.trash, entry.trash)

    def devices(self) -> set[int]:
        """List the file systems that were there to be asked."""
        found = {os.fstat(self.trash).st_dev}
        if self.error is None:
            found.add(os.fstat(self.folder).st_dev)
        if isinstance(self.error, FolderMissing):
            found.add(self.error.dev)
        return found


_Act = Callable[[_Spot, Entry, bytes], Result]
_OCCUPIED: Final = Result(Verdict.REFUSED, "another file has its name in the trash")
_REPLACED: Final = Result(Verdict.SUPERSEDED, "another file took its place")
_CONFLICT: Final = Result(Verdict.CONFLICT, "something stands in its place")


def _move(spot: _Spot, entry: Entry, name: bytes) -> Result:
    source = spot.source(name)
    if source is not None and source == entry.mine:
        # The trash need not be looked at first: the rename itself fails when the name is taken.
        with suppress(FileExistsError):
            return _rename_into_trash(spot, entry, name)
    kept = spot.kept(entry)
    step = plan_move(source, kept, entry.mine)
    if step is Step.RENAME:
        return Result(Verdict.RETRY, "EAGAIN: its name in the trash was taken for a moment")
    if step is Step.COMPARE:
        return _finish_copy(spot, entry, name)
    if step is Step.UNLINK_HERE:
        _unlink_second_name(spot.folder, name)
        return Result(Verdict.TRASHED)
    if step is Verdict.TRASHED:
        return Result(Verdict.TRASHED, identity=_news(kept, entry.mine))
    return _explain(spot, step, source, entry)


def _rename_into_trash(spot: _Spot, entry: Entry, name: bytes) -> Result:
    try:
        rename_noreplace(spot.folder, name, spot.trash, entry.trash)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copy_into_trash(spot, entry, name)
    arrived = os.stat(entry.trash, dir_fd=spot.trash, follow_symlinks=False)
    if identity_of(arrived) != entry.mine:
        return _put_back(spot, entry, name)
    if arrived.st_nlink == 1:
        return _TRASHED
    if spot.source(name) == entry.mine:  # a rename between two names of one inode does nothing
        _unlink_second_name(spot.folder, name)
    return Result(Verdict.TRASHED, "the file has other names, which stay")


def _put_back(spot: _Spot, entry: Entry, name: bytes) -> Result:
    """Give back a file that took our file's place between the look and the rename."""
    try:
        rename_noreplace(spot.trash, entry.trash, spot.folder, name)
    except OSError as error:
        return Result(
            Verdict.REFUSED, f"another file went into the trash and stays there: {reason_of(error)}"
        )
    return _REPLACED


def _unlink_second_name(folder: int, name: bytes) -> None:
    """Unlink one of two names of an inode; with a single one left it would be the file itself."""
    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_nlink < 2:
        raise OSError(errno.EAGAIN, "the file has one name only")
    os.unlink(name, dir_fd=folder)


def _news(seen: Seen, mine: Identity | None) -> Identity | None:
    return seen if isinstance(seen, Identity) and seen != mine else None


def _explain(spot: _Spot, verdict: Step | Verdict, source: Seen, entry: Entry) -> Result:
    """Put a verdict that needs no deed into words."""
    assert isinstance(verdict, Verdict)
    if verdict is Verdict.REFUSED:
        return Result(verdict, source.reason) if isinstance(source, Refused) else _OCCUPIED
    if verdict is Verdict.SUPERSEDED:
        return _REPLACED
    if verdict is Verdict.CONFLICT:
        return _CONFLICT
    if verdict is Verdict.RESTORED:
        return Result(verdict)
    # Believe that a file is gone only where its file system is there to be asked.
    if entry.mine is not None and entry.mine.dev not in spot.devices():
        return Result(Verdict.RETRY, "ENODEV: the file system that held it is not mounted")
    return Result(verdict)


def _purge(spot: _Spot, entry: Entry, _: bytes) -> Result:
    kept = spot.kept(entry)
    step = plan_purge(kept, entry.mine)
    if step is Step.UNLINK:
        os.unlink(entry.trash, dir_fd=spot.trash)
        return _PURGED
    return _explain(spot, step, kept, entry)


def _remove(spot: _Spot, entry: Entry, name: bytes) -> Result:
    """Move into the trash and unlink there: what is unlinked is then what was looked at, for certain."""
    if entry.mine is not None and entry.mine.dev != os.fstat(spot.trash).st_dev:
        return _unlink_in_place(spot, entry, name)
    moved = _move(spot, entry, name)
    if moved.verdict is not Verdict.TRASHED:
        return moved
    return _purge(spot, Entry(entry.path, entry.trash, moved.identity or entry.mine), name)


def _unlink_in_place(spot: _Spot, entry: Entry, name: bytes) -> Result:
    # On another file system than the trash; to copy what is to be destroyed would be worse than the
    # instant between this look and the unlink.
    source = spot.source(name)
    step = plan_move(source, None, entry.mine)
    if step is not Step.RENAME:
        return _explain(spot, step, source, entry)
    os.unlink(name, dir_fd=spot.folder)
    return _PURGED


def _restore(spot: _Spot, entry: Entry, name: bytes) -> Result:
    source, kept = spot.source(name), spot.kept(entry)
    step = plan_restore(source, kept, entry.mine)
    if step is Step.RENAME:
        return _rename_back(spot, entry, name, kept)
    if step is Step.UNLINK_HERE:
        _unlink_second_name(spot.trash, entry.trash)
        return Result(Verdict.RESTORED)
    if step is Step.COMPARE:
        if not same_bytes((spot.folder, name), (spot.trash, entry.trash)):
            return _CONFLICT
        os.unlink(entry.trash, dir_fd=spot.trash)
        return Result(Verdict.RESTORED)
    return _explain(spot, step, kept, entry)


def _rename_back(spot: _Spot, entry: Entry, name: bytes, kept: Seen) -> Result:
    try:
        rename_noreplace(spot.trash, entry.trash, spot.folder, name)
    except FileExistsError:
        return _CONFLICT
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copy_back(spot, entry, name, kept)
    return Result(Verdict.RESTORED)


# --- acting across file systems ----------------------------------------------------------------------


def _copy_into_trash(spot: _Spot, entry: Entry, name: bytes) -> Result:
    assert entry.mine is not None
    if not copy((spot.folder, name), entry.mine, (spot.trash, entry.trash), entry.trash):
        return Result(Verdict.SUPERSEDED, "it was written to while it was copied")
    return _finish_copy(spot, entry, name, compared=True)


def _finish_copy(spot: _Spot, entry: Entry, name: bytes, *, compared: bool = False) -> Result:
    """Unlink the original of a complete copy; after a crash their bytes are compared again first."""
    if not compared and not same_bytes((spot.folder, name), (spot.trash, entry.trash)):
        return _OCCUPIED
    if spot.source(name) == entry.mine:
        os.unlink(name, dir_fd=spot.folder)
    return Result(Verdict.TRASHED, identity=_news(spot.kept(entry), entry.mine))


def _copy_back(spot: _Spot, entry: Entry, name: bytes, kept: Seen) -> Result:
    assert isinstance(kept, Identity)
    try:
        copied = copy((spot.trash, entry.trash), kept, (spot.folder, name), entry.trash)
    except FileExistsError:
        return _CONFLICT
    if not copied:
        return Result(Verdict.REFUSED, "it was written to in the trash")
    os.unlink(entry.trash, dir_fd=spot.trash)
    return Result(Verdict.RESTORED, identity=_news(spot.source(name), entry.mine))


# --- acting: whole batches, each in one thread -------------------------------------------------------


def move_batch(area: Area, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
    """Move entries into the trash; results in the order of the entries, none for none.

    Every folder that changed is synced once, the trash before the sources (once for each 32 folders), so
    a result may be recorded as soon as it is here. ``stop`` is asked before each entry.
    """
    return _Batch(area, entries, _move, stop).run()


def remove_batch(area: Area, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
    """Unlink entries from where they are, for good, by way of the trash; otherwise as `move_batch`."""
    return _Batch(area, entries, _remove, stop).run()


def restore_batch(area: Area, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
    """Move entries from the trash to where they were, making missing folders, never over anything."""
    return _Batch(area, entries, _restore, stop, create=True, trash_last=True).run()


def purge_batch(area: Area, entries: Sequence[Entry], *, stop: Stop = never) -> list[Result]:
    """Unlink entries from the trash for good; the trash is synced once."""
    try:
        with opened_folder(area.trash, key=area.trash_key) as trash:
            spot = _Spot(area, trash, trash)
            results = [_attempt(_purge, spot, entry, b"", stop) for entry in entries]
            return _synced(results, [trash])
    except OSError as error:
        return [Result(Verdict.RETRY, reason_of(error))] * len(entries)


class _Batch:
    """Entries acted on folder by folder, with a bounded number of descriptors."""

    def __init__(
        self,
        area: Area,
        entries: Sequence[Entry],
        act: _Act,
        stop: Stop,
        *,
        create: bool = False,
        trash_last: bool = False,
    ) -> None:
        self._area = area
        self._entries = entries
        self._act = act
        self._stop = stop
        self._create = create
        self._trash_last = trash_last
        self._results = [Result(Verdict.UNTRIED)] * len(entries)

    def run(self) -> list[Result]:
        folders = list(by_folder([entry.path for entry in self._entries], self._refuse).items())
        area = self._area
        try:
            with (
                opened_folder(area.root, key=area.root_key) as root,
                opened_folder(area.trash, key=area.trash_key) as trash,
            ):
                for at in range(0, len(folders), MAX_OPEN_FOLDERS):
                    self._run_some(root, trash, folders[at : at + MAX_OPEN_FOLDERS])
        except OSError as error:
            self._retry_untried(error)
        return self._results

    def _refuse(self, place: int, refused: Refused) -> None:
        self._results[place] = Result(Verdict.REFUSED, refused.reason)

    def _retry_untried(self, error: OSError) -> None:
        for place, result in enumerate(self._results):
            if result.verdict is Verdict.UNTRIED:
                self._results[place] = Result(Verdict.RETRY, reason_of(error))

    def _run_some(self, root: int, trash: int, folders: list[tuple[bytes, Places]]) -> None:
        changed: list[int] = []
        done: list[int] = []
        with ExitStack() as stack:
            for folder, places in folders:
                spot = self._spot(root, trash, folder, stack)
                if self._run_folder(spot, places) and spot.error is None:
                    changed.append(spot.folder)
                done += [place for place, _ in places]
            order = [*changed, trash] if self._trash_last else [trash, *changed]
            results = _synced([self._results[place] for place in done], order)
        for place, result in zip(done, results, strict=True):
            self._results[place] = result

    def _spot(self, root: int, trash: int, folder: bytes, stack: ExitStack) -> _Spot:
        if self._stop():
            return _Spot(self._area, -1, trash)
        forbidden = self._area.forbidden
        try:
            descriptor = open_folder(root, parts_of(folder), forbidden=forbidden, create=self._create)
        except OSError as error:
            return _Spot(self._area, -1, trash, error)
        stack.callback(os.close, descriptor)
        return _Spot(self._area, descriptor, trash)

    def _run_folder(self, spot: _Spot, places: Places) -> bool:
        for place, name in places:
            self._results[place] = _attempt(self._act, spot, self._entries[place], name, self._stop)
        return any(self._results[place].verdict in _CHANGED for place, _ in places)


def _attempt(act: _Act, spot: _Spot, entry: Entry, name: bytes, stop: Stop) -> Result:
    if stop():
        return _UNTRIED
    try:
        return act(spot, entry, name)
    except OSError as error:
        return judge(error)


def _synced(results: list[Result], folders: list[int]) -> list[Result]:
    """Sync the folders if anything changed; what cannot be made durable has to be tried again."""
    if all(result.verdict not in _CHANGED for result in results):
        return results
    try:
        for folder in folders:
            os.fsync(folder)
    except OSError as error:
        retry = Result(Verdict.RETRY, reason_of(error))
        return [retry if result.verdict in _CHANGED else result for result in results]
    return results
