"""The files that jobs make, on disk: one folder, each file ``<id>.part`` until it is whole, then ``<id>``.

What comes in: which file, and up to where accounted batches have written it; what goes out: a `Draft` that
ends there, or a whole file that is on disk to stay. Names are ids, never anybody's words. Files are made
0600 in a folder 0700, anew or not at all, and nothing is followed that is a link. Everything here blocks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, Final

from bulkops import handles
from bulkops.effects import Written
from bulkops.errors import Halt, JobFailed, Transient

FOLDER: Final = "artifacts"
_PART: Final = ".part"
_OURS: Final = re.compile(r"([0-9A-Z]{26})(?:\.part)?")
_CHUNK: Final = 1 << 20
_BUFFER: Final = 1 << 18


def trouble(error: OSError) -> Halt:
    """Say what a fault of the disk means for the job that wrote."""
    code = "DISK_FULL" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "IO_ERROR"
    return Transient(code, f"the job's file cannot be written: {os.strerror(error.errno or 0).lower()}")


class Drafts:
    """The folder of the files that jobs make; and the drafts that are open, by job, from slice to slice."""

    def __init__(self, data_dir: Path, *, archive_h: float, max_files: int, max_bytes: int) -> None:
        self.folder = data_dir / FOLDER
        #: How long an archive stays where its action says nothing.
        self.archive_h = archive_h
        #: What a tenant may keep.
        self.max_files = max_files
        self.max_bytes = max_bytes
        self._open: dict[str, Draft] = {}

    def prepare(self) -> None:
        """Make the folder; what is there already is closed to others."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)

    def path(self, artifact_id: str) -> Path:
        """Return where a whole file lies."""
        return self.folder / artifact_id

    def open(self, job: str, artifact_id: str, written: int, rows: int) -> Draft:
        """Open a draft so that it ends where accounted batches ended; an open one is taken up again.

        Raises:
            Halt: the disk does not let us.
            JobFailed: bytes of accounted batches are gone.
        """
        draft = self._open.pop(job, None)
        if draft is not None:
            if draft.ends_at(written, rows):
                self._open[job] = draft
                return draft
            draft.close()
        try:
            self.prepare()
            draft = Draft(self.folder, artifact_id, written, rows)
        except OSError as error:
            raise trouble(error) from error
        self._open[job] = draft
        return draft

    def close(self, job: str) -> bool:
        """Let go of a job's draft, the file stays as it is; say whether there was one."""
        draft = self._open.pop(job, None)
        if draft is not None:
            draft.close()
        return draft is not None

    def close_all(self) -> None:
        """Let go of every draft."""
        for job in list(self._open):
            self.close(job)

    def listed(self) -> list[str]:
        """List the ids of the files that are there, whole or not; what does not bear a name of ours is not ours."""
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return sorted({found[1] for name in names if (found := _OURS.fullmatch(name)) is not None})

    def remove(self, artifact_id: str) -> None:
        """Remove a file, whole or not; one that is gone is fine."""
        for name in (artifact_id, artifact_id + _PART):
            (self.folder / name).unlink(missing_ok=True)


class Draft:
    """One file while it is written: the `Pen` that resources hold."""

    def __init__(self, folder: Path, artifact_id: str, written: int, rows: int) -> None:
        self._folder = folder
        self._whole = folder / artifact_id
        self._part = folder / (artifact_id + _PART)
        self.file = self._open(written)
        self.rows = rows
        self.memory: object = None
        self._kept = (written, rows)

    def _open(self, written: int) -> BinaryIO:
        if written == 0:
            self._whole.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
            fd = os.open(self._part, os.O_RDWR | handles.NEW, 0o600)
            return os.fdopen(fd, "r+b", _BUFFER)
        if self._whole.exists() and not self._part.exists():
            # It was whole already, and nobody lived to write that down.
            self._whole.rename(self._part)
        try:
            fd = os.open(self._part, os.O_RDWR | handles.OWN)
        except FileNotFoundError:
            raise _lost() from None
        try:
            _cut_to(fd, written)
        except BaseException:
            os.close(fd)
            raise
        file = os.fdopen(fd, "r+b", _BUFFER)
        file.seek(0, os.SEEK_END)
        return file

    def ends_at(self, written: int, rows: int) -> bool:
        """Say whether the draft is as accounted batches left it."""
        return self._kept == (written, rows) == (self.position(), self.rows)

    def position(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    def write(self, data: bytes, rows: int) -> None:
        self.file.write(data)
        self.rows += rows

    def cut(self, position: int, rows: int) -> None:
        self.file.flush()
        self.file.truncate(position)
        self.file.seek(position)
        self.rows = rows

    def keep(self) -> Written:
        """Put on disk what a batch wrote.

        Raises:
            Halt: the disk does not let us.
        """
        try:
            self.file.flush()
            if self.position() != self._kept[0]:
                handles.sync_data(self.file.fileno())
        except OSError as error:
            raise trouble(error) from error
        self._kept = (self.position(), self.rows)
        return Written(position=self._kept[0], rows=self.rows)

    def finish(self, kept: Written) -> Written:
        """Put the whole file on disk under its last name; ``kept`` is where its last batch ended.

        Raises:
            Halt: the disk does not let us.
        """
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            size, digest = self.position(), self._digest()
            self._part.rename(self._whole)
            handles.sync_folder(self._folder)
        except OSError as error:
            raise trouble(error) from error
        return Written(position=kept.position, rows=self.rows, bytes=size, sha256=digest)

    def _digest(self) -> str:
        """Hash what is on disk, not what we believe to have written."""
        digest = hashlib.sha256()
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the file; what is still buffered was of no batch that counts."""
        try:
            self.file.close()
        except OSError:
            # The buffer could not be written: nothing that was accounted for is in it.
            self.file.close()


def _cut_to(fd: int, written: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size < written:
        raise _lost()
    os.ftruncate(fd, written)


def _lost() -> JobFailed:
    return JobFailed("IO_ERROR", "the file that this job was writing is not what it was; start the job again")
