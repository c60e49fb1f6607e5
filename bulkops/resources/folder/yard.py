"""One root and its trash, both open: single entries moved in, given back, cleared away.

Every act may be asked for again after a crash at any instruction and ends where the first one would have. A
name in the trash is used once, so whatever bears it there is the entry that was given it; what stands at the
source is touched only while it is the one that was recorded.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from bulkops.resources import mover
from bulkops.resources.folder.copying import copy_tree, remove_copied
from bulkops.resources.folder.entries import Ground
from bulkops.resources.folder.walking import remove_tree
from bulkops.resources.paths import Area, Identity, identity_of, opened_folder, reason_of, rename_noreplace
from bulkops.resources.verdicts import Entry, Result, Stop, Verdict, judge, never

_MISSING: Final = Result(Verdict.MISSING)
_REPLACED: Final = Result(Verdict.SUPERSEDED, "something else took its place")
_CONFLICT: Final = Result(Verdict.CONFLICT, "something stands in its place")


class Yard:
    """Where entries are moved about."""

    def __init__(self, area: Area, root: int, trash: int) -> None:
        self.root = root
        self.trash = trash
        self.ground = Ground(os.fstat(root).st_dev, area.forbidden)
        self._area = area

    def look(self, name: bytes) -> os.stat_result | None:
        """Say what stands under a name in the root, following nothing."""
        return _look(self.root, name)

    def kept(self, trash: bytes) -> os.stat_result | None:
        """Say what lies under a name in the trash."""
        return _look(self.trash, trash)

    def was_begun(self, entry: Entry) -> bool:
        """Say whether an entry may have been touched: it is not at its source as it was, or has a copy."""
        found = self.look(entry.path)
        return found is None or not is_same(found, entry.mine) or self.kept(entry.trash) is not None

    def take(self, entry: Entry, *, strict: bool = True, copy: bool = True) -> Result:
        """Move an entry into the trash.

        ``strict`` is for an entry recorded some time ago: numbers of inodes are used again, so a folder that
        was written to since may be another one. Without it, a folder is known by its inode alone.

        Raises:
            OSError: the disk refuses; EXDEV with ``copy`` off where no rename reaches.
        """
        found = self.look(entry.path)
        if found is None or not _is_it(found, entry.mine, strict=strict):
            return self._taken_before(entry, found)
        try:
            rename_noreplace(self.root, entry.path, self.trash, entry.trash)
        except FileExistsError:
            return self._taken_before(entry, found)
        except OSError as error:
            if error.errno != errno.EXDEV or not copy:
                raise
            return self._carry(entry, found)
        arrived = self.kept(entry.trash)
        if arrived is not None and _is_it(arrived, entry.mine, strict=strict):
            return Result(Verdict.TRASHED, identity=_news(arrived, entry.mine))
        return self._put_back(entry)

    def _taken_before(self, entry: Entry, found: os.stat_result | None) -> Result:
        """Judge an entry that does not stand at its source: moved before a crash, replaced, or gone."""
        kept = self.kept(entry.trash)
        if kept is None:
            return _MISSING if found is None else _REPLACED
        if found is not None and entry.mine is not None and found.st_ino == entry.mine.ino:
            return self._finish_carrying(entry, found)  # a copy that a crash kept from going on
        return Result(Verdict.TRASHED, identity=_news(kept, entry.mine))

    def _put_back(self, entry: Entry) -> Result:
        """Give back what took the entry's place between the look and the rename."""
        try:
            rename_noreplace(self.trash, entry.trash, self.root, entry.path)
        except OSError as error:
            reason = f"something else went into the trash and stays there: {reason_of(error)}"
            return Result(Verdict.REFUSED, reason)
        return _REPLACED

    def _carry(self, entry: Entry, found: os.stat_result) -> Result:
        """Copy an entry into a trash that no rename reaches, then remove the original."""
        if not stat.S_ISDIR(found.st_mode):
            return mover.move_batch(self._area, [entry])[0]
        if self.kept(entry.trash) is not None:
            return self._finish_carrying(entry, found)
        part = entry.trash + b".part"
        remove_any(self.trash, part)  # of a copy that crashed
        try:
            copy_tree(self.root, entry.path, self.trash, part)
        except OSError:
            remove_any(self.trash, part)
            raise
        rename_noreplace(self.trash, part, self.trash, entry.trash)
        os.fsync(self.trash)
        return self._finish_carrying(entry, found)

    def _finish_carrying(self, entry: Entry, found: os.stat_result) -> Result:
        if not stat.S_ISDIR(found.st_mode):
            return mover.move_batch(self._area, [entry])[0]
        whole = remove_copied(self.root, entry.path, self.trash, entry.trash)
        kept = os.stat(entry.trash, dir_fd=self.trash, follow_symlinks=False)
        reason = "" if whole else "what was written to it meanwhile stays"
        return Result(Verdict.TRASHED, reason, identity_of(kept))

    def give(self, entry: Entry) -> Result:
        """Move an entry from the trash to where it was, never over anything.

        Raises:
            OSError: the disk refuses.
        """
        kept = self.kept(entry.trash)
        if kept is None:
            return self._given_before(entry)
        if self.look(entry.path) is not None:
            # Of a file a complete copy may stand there already; the mover knows how to tell.
            return _CONFLICT if stat.S_ISDIR(kept.st_mode) else mover.restore_batch(self._area, [entry])[0]
        try:
            rename_noreplace(self.trash, entry.trash, self.root, entry.path)
        except FileExistsError:
            return _CONFLICT
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if not stat.S_ISDIR(kept.st_mode):
                return mover.restore_batch(self._area, [entry])[0]
            return self._carry_back(entry)
        return Result(Verdict.RESTORED)

    def _carry_back(self, entry: Entry) -> Result:
        part = _returning(entry)
        remove_any(self.root, part)
        try:
            copy_tree(self.trash, entry.trash, self.root, part)
        except OSError:
            remove_any(self.root, part)
            raise
        # From here on the copy counts: a crash is told by the entry's other name in the trash.
        rename_noreplace(self.trash, entry.trash, self.trash, entry.trash + b".copied")
        os.fsync(self.trash)
        return self._arrive(entry)

    def _arrive(self, entry: Entry) -> Result:
        try:
            rename_noreplace(self.root, _returning(entry), self.root, entry.path)
        except FileExistsError:
            rename_noreplace(self.trash, entry.trash + b".copied", self.trash, entry.trash)
            remove_any(self.root, _returning(entry))
            return _CONFLICT
        return self._arrived(entry)

    def _arrived(self, entry: Entry) -> Result:
        os.fsync(self.root)
        remove_any(self.trash, entry.trash + b".copied")
        found = self.look(entry.path)
        return Result(Verdict.RESTORED, identity=None if found is None else _news(found, entry.mine))

    def _given_before(self, entry: Entry) -> Result:
        found = self.look(entry.path)
        if self.kept(entry.trash + b".copied") is not None:
            if self.look(_returning(entry)) is not None:
                return self._arrive(entry)
            return self._arrived(entry)
        if found is not None and _is_twin(found, entry.mine):
            return Result(Verdict.RESTORED)
        return _MISSING

    def clear(self, entry: Entry, *, stop: Stop = never) -> Result:
        """Remove an entry from the trash for good; one that is gone was removed before.

        Raises:
            OSError: something in it cannot be removed.
        """
        kept = self.kept(entry.trash)
        if kept is None:
            return Result(Verdict.PURGED)
        if entry.mine is not None and kept.st_ino != entry.mine.ino:
            return Result(Verdict.REFUSED, "something else has its name in the trash")
        done = remove_tree(self.trash, entry.trash, stop=stop)
        return Result(Verdict.PURGED if done else Verdict.UNTRIED)

    def sync(self) -> None:
        """Make what was moved durable: the trash first, an entry is rather twice than nowhere."""
        os.fsync(self.trash)
        os.fsync(self.root)


@contextmanager
def opened_yard(area: Area) -> Iterator[Yard]:
    """Open a root and its trash.

    Raises:
        OSError: one of them is not there, or the root is another one (ESTALE).
    """
    with opened_folder(area.root, key=area.root_key) as root, opened_folder(area.trash) as trash:
        yield Yard(area, root, trash)


def attempt(yard: Yard, act: str, entry: Entry, *, stop: Stop = never) -> Result:
    """Do one act for the deletion queue; an error of the disk is a verdict like any other."""
    try:
        if act == "take":
            return yard.take(entry)
        return yard.give(entry) if act == "give" else yard.clear(entry, stop=stop)
    except OSError as error:
        return judge(error)


def is_same(found: os.stat_result, mine: Identity | None) -> bool:
    """Say whether it is the recorded entry, and was not written to since.

    Devices are left out: their numbers change over a restart, and the root's own identity is checked.
    """
    return mine is not None and (found.st_ino, found.st_size, found.st_mtime_ns) == (
        mine.ino,
        mine.size,
        mine.mtime_ns,
    )


def _is_it(found: os.stat_result, mine: Identity | None, *, strict: bool) -> bool:
    if strict or mine is None or not stat.S_ISDIR(found.st_mode):
        return is_same(found, mine)
    return found.st_ino == mine.ino


def _is_twin(found: os.stat_result, mine: Identity | None) -> bool:
    """Say whether it is the recorded entry come back, be it as a copy."""
    if mine is None or found.st_mtime_ns != mine.mtime_ns:
        return False
    return stat.S_ISDIR(found.st_mode) or found.st_size == mine.size


def remove_any(folder: int, name: bytes) -> None:
    """Remove a copy of ours, if there is one."""
    with suppress(FileNotFoundError):
        remove_tree(folder, name, stop=never)


def _returning(entry: Entry) -> bytes:
    return b".bulkops-" + entry.trash + b".part"


def _news(found: os.stat_result, mine: Identity | None) -> Identity | None:
    seen = identity_of(found)
    return None if seen == mine else seen


def _look(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
