"""The log of what jobs do: JSON lines in a rotating file, and the lines of one job back out of it.

What comes in: log records of the `bulkops` loggers, and the moments of a job's life; what goes out: lines
``{"at", "level", "logger", "msg", "job"?, "error"?}`` in ``logs/bulkops.log``. Ids and counts are logged,
values of rows never: of an exception only its class and where it rose, since messages quote data. Several
houses in one process write each to its own file, and a host application's handlers get no more than before.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from bulkops.timing import rfc3339

_FOLDER: Final = "logs"
_NAME: Final = "bulkops.log"
_MAX_BYTES: Final = 10 * 1024 * 1024
_BACKUPS: Final = 5
_MAX_IDS: Final = 20
_MAX_TEXT: Final = 8000
_SLAB: Final = 256
#: Lines on single items wait for each other, but not for long.
_MAX_LINES: Final = 256
_MAX_LATE_S: Final = 0.1
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

#: What JSON leaves as it is and a terminal or an editor would act upon.
_UNSEEN: Final = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
_log = logging.getLogger("bulkops.jobs")
#: Whose file the lines of this task belong to; lines of nobody's go to every file.
_speaker: ContextVar[LogFile | None] = ContextVar("bulkops_speaker", default=None)


class LoggedJob(Protocol):
    """What the log tells of a job."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def total(self) -> int | None: ...
    @property
    def succeeded(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def active_ms(self) -> int: ...


def process_started() -> None:
    """Note the process once, at its start."""
    logging.getLogger("bulkops").info("BULKOPS_START pid=%d", os.getpid())


def job_started(job: LoggedJob, ids: Sequence[str]) -> None:
    """Note that a job begins; ``ids`` are its first items, at most twenty are written."""
    shown = ", ".join(ids[:_MAX_IDS])
    more = ", …" if (job.total or 0) > len(ids[:_MAX_IDS]) else ""
    _note(job.id, f"BULK_JOB_START job={job.id} total={job.total} ids=[{shown}{more}]")


def job_done(job: LoggedJob) -> None:
    """Note that a job has ended, and how."""
    _note(job.id, f"BULK_JOB_DONE job={job.id} status={job.status} outcome={job.outcome or '-'}")


def job_summary(job: LoggedJob) -> None:
    """Note what a job that has ended adds up to."""
    _note(
        job.id,
        f"BULK_JOB_SUMMARY job={job.id} total={job.total} deleted={job.succeeded} failed={job.failed} "
        f"ms={job.active_ms}",
    )


class ItemLines:
    """Notes what happens to the items of one job, from any thread; many lines are written at once."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._lock = threading.Lock()
        self._lines = Lines()

    def started(self, item: str) -> None:
        """Note that an item is about to go."""
        self._add(f"BULK_PURGE_START dossier={item}")

    def done(self, item: str, *, ms: int) -> None:
        """Note that an item is gone."""
        self._add(f"BULK_PURGE_DONE dossier={item} ms={ms}")

    def failed(self, item: str, *, ms: int, code: str) -> None:
        """Note that an item could not go, and the code of why."""
        self.flush()
        _note(self._job_id, f"BULK_PURGE_ERROR dossier={item} ms={ms} code={code}", level=logging.WARNING)

    def _add(self, text: str) -> None:
        with self._lock:
            self._lines.add(text)
            if self._lines.due:
                self._write()

    def flush(self) -> None:
        """Write what was noted: before something that takes long, and at the end of a batch."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, Lines()
        if lines.noted and _log.isEnabledFor(logging.INFO):
            _log.info(lines, extra={"job": self._job_id})


class Lines:
    """What one log record says when it stands for many: a text and an instant (seconds) each."""

    def __init__(self) -> None:
        self.noted: list[tuple[float, str]] = []

    def add(self, text: str) -> None:
        """Note a line as of now."""
        self.noted.append((time.time(), text))

    @property
    def due(self) -> bool:
        """Say whether it is time to write them: they are many, or somebody may wait for the first."""
        return len(self.noted) >= _MAX_LINES or self.noted[-1][0] - self.noted[0][0] > _MAX_LATE_S

    def __str__(self) -> str:
        return "\n".join(text for _, text in self.noted)


def purge_summary(job: LoggedJob) -> None:
    """Note what a job over folders or files adds up to; ``missing`` are the skipped ones."""
    _note(
        job.id,
        f"PURGE_SUMMARY job={job.id} total={job.total} deleted={job.succeeded} missing={job.skipped} "
        f"failed={job.failed} ms={job.active_ms}",
    )


def subscribed(topic: str, *, followers: int, job_id: str | None = None) -> None:
    """Note that somebody follows a topic, and how many do now."""
    _note(job_id, f"SUBSCRIBE topic={topic} followers={followers}")


def unsubscribed(topic: str, *, followers: int, job_id: str | None = None) -> None:
    """Note that somebody stopped following a topic, and how many still do."""
    _note(job_id, f"UNSUBSCRIBE topic={topic} followers={followers}")


def _note(job_id: str | None, message: str, *, level: int = logging.INFO) -> None:
    _log.log(level, "%s", message, extra={} if job_id is None else {"job": job_id})


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON in which no control or direction character stands unescaped."""

    def format(self, record: logging.LogRecord) -> str:
        text = self._many(record, record.msg) if isinstance(record.msg, Lines) else self._one(record)
        return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    def _one(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": rfc3339(int(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "msg": record.getMessage()[:_MAX_TEXT],
        }
        job = getattr(record, "job", None)
        if job is not None:
            line["job"] = str(job)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _outline(record.exc_info[1])
        return _encode(line)

    def _many(self, record: logging.LogRecord, lines: Lines) -> str:
        middle = f',"level":{_encode(record.levelname)},"logger":{_encode(record.name)},"msg":'
        end = f',"job":{_encode(str(getattr(record, "job", "")))}}}'
        return "\n".join(
            f'{{"at":{_encode(rfc3339(int(at_s * 1000)))}{middle}{_encode(text[:_MAX_TEXT])}{end}'
            for at_s, text in lines.noted
        )


def _outline(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    places = " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)
    )
    return f"{type(error).__name__} at {places}" if places else type(error).__name__


class LogFile(RotatingFileHandler):
    """Appends to ``logs/bulkops.log`` (0600) and keeps a few older files; a full disk loses lines, no jobs."""

    def __init__(self, data_dir: Path, *, max_bytes: int = _MAX_BYTES, backups: int = _BACKUPS) -> None:
        folder = data_dir / _FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lost = 0
        super().__init__(
            folder / _NAME,
            maxBytes=max_bytes,
            backupCount=backups,
            encoding="utf-8",
            errors="backslashreplace",
            delay=True,
        )
        self.setFormatter(JsonLines())

    def _open(self) -> Any:
        return open(
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_open_privately
        )

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802, ARG002  logging's name and shape
        """Look at the file's size only: to know the line's, it would be written out twice."""
        if self.stream is None:
            self.stream = self._open()
        return self.maxBytes > 0 and os.fstat(self.stream.fileno()).st_size >= self.maxBytes

    def handle(self, record: logging.LogRecord) -> bool:
        """Write what this file's own house says, and what nobody's does."""
        return _speaker.get() in {None, self} and bool(super().handle(record))

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Write what the block, and the tasks it starts, say to this file alone."""
        before = _speaker.get()
        _speaker.set(self)
        try:
            yield
        finally:
            # Set, not reset: a block may be left in another context than it was entered in.
            _speaker.set(before)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002  logging's name and shape
        """Count a line that could not be written; printing the failure would flood stderr instead."""
        self.lost += 1


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)


@contextmanager
def log_to(data_dir: Path) -> Iterator[LogFile]:
    """Write what the `bulkops` loggers say to the log of a data directory for the length of the block.

    No other logger is touched, and what a host application set up for ours goes on working: its handlers
    get the levels they would get without us.
    """
    logger = logging.getLogger("bulkops")
    handler = LogFile(data_dir)
    relay = _Relay.on(logger)
    relay.join()
    logger.addHandler(handler)
    try:
        with handler.speaking():
            yield handler
    finally:
        logger.removeHandler(handler)
        relay.leave()
        handler.close()


class _Relay(logging.Handler):
    """Stands on our logger while files are open, and hands on what the host's handlers are meant to get.

    Files want finer lines than a host does: without this, each would reach every handler of the root logger,
    which filter by their own level only. It remembers how the logger was found, and counts its files.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger
        self._found_level = logger.level
        self._found_propagate = logger.propagate
        self._files = 0

    @classmethod
    def on(cls, logger: logging.Logger) -> _Relay:
        """Return the one that stands on the logger, a new one where none does yet."""
        return next((each for each in logger.handlers if isinstance(each, cls)), None) or cls(logger)

    def join(self) -> None:
        """Count one more file."""
        if self._files == 0:
            self._logger.addHandler(self)
            self._logger.propagate = False
        if not self._logger.isEnabledFor(logging.INFO):
            self._logger.setLevel(logging.INFO)
        self._files += 1

    def leave(self) -> None:
        """Count one file less; the last leaves the logger as it was found."""
        self._files -= 1
        if self._files == 0:
            self._logger.removeHandler(self)
            self._logger.propagate = self._found_propagate
            self._logger.setLevel(self._found_level)

    def emit(self, record: logging.LogRecord) -> None:
        parent = self._logger.parent
        if self._found_propagate and parent is not None and record.levelno >= self._level_for(record, parent):
            parent.callHandlers(record)

    def _level_for(self, record: logging.LogRecord, parent: logging.Logger) -> int:
        """Return the level that holds without us: a nearer logger's own, which has let it pass, else ours."""
        each: logging.Logger | None = logging.getLogger(record.name)
        while each is not None and each is not self._logger:
            if each.level:
                return each.level
            each = each.parent
        return self._found_level or parent.getEffectiveLevel()


def job_lines(data_dir: Path, job_id: str) -> Iterator[bytes]:
    """Read the lines of one job, oldest first, in slabs of some hundred; nothing when there are none.

    Blocking: call it in a thread. Files that are rotated away meanwhile are still read to their end.
    """
    needle = b'"job":' + json.dumps(job_id).encode()
    with ExitStack() as stack:
        slab: list[bytes] = []
        for file in _open_all(data_dir / _FOLDER, stack):
            for line in file:
                if needle in line and line.endswith(b"\n") and _is_of(line, job_id):
                    slab.append(line)
                    if len(slab) >= _SLAB:
                        yield b"".join(slab)
                        slab = []
        if slab:
            yield b"".join(slab)


def _open_all(folder: Path, stack: ExitStack) -> list[BinaryIO]:
    # The newest first: a rotation in between then shows a file twice, never misses one.
    files: list[BinaryIO] = []
    seen: set[tuple[int, int]] = set()
    for name in (_NAME, *(f"{_NAME}.{number}" for number in range(1, _BACKUPS + 1))):
        try:
            file = stack.enter_context(open(folder / name, "rb"))  # noqa: SIM115  the stack closes it
        except FileNotFoundError:
            continue
        found = os.fstat(file.fileno())
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            files.append(file)
    return files[::-1]


def _is_of(line: bytes, job_id: str) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("job") == job_id
