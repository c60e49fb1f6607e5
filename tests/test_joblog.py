"""The log: lines a machine can read and a terminal can bear, and the lines of one job out of all."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops import joblog
from bulkops.joblog import JsonLines, LogFile, job_lines, log_to
from tests.store_house import a_job


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with log_to(tmp_path):
        yield tmp_path


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "logs" / "bulkops.log").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def messages(folder: Path) -> list[str]:
    return [line["msg"] for line in lines(folder)]


def test_the_life_of_a_job_is_told_in_the_words_of_the_design(folder: Path) -> None:
    job = a_job(id="J", total=25, succeeded=20, failed=2, skipped=3, outcome="partial", active_ms=1500)
    joblog.job_started(job, [str(number) for number in range(25)])
    items = joblog.ItemLines("J")
    items.started("0")
    items.done("0", ms=12)
    items.failed("1", ms=3, code="IO_ERROR")
    joblog.purge_summary(job)
    joblog.job_done(job)
    joblog.job_summary(job)
    first = ", ".join(str(number) for number in range(20))
    assert messages(folder) == [
        f"BULK_JOB_START job=J total=25 ids=[{first}, …]",
        "BULK_PURGE_START dossier=0",
        "BULK_PURGE_DONE dossier=0 ms=12",
        "BULK_PURGE_ERROR dossier=1 ms=3 code=IO_ERROR",
        "PURGE_SUMMARY job=J total=25 deleted=20 missing=3 failed=2 ms=1500",
        "BULK_JOB_DONE job=J status=completed outcome=partial",
        "BULK_JOB_SUMMARY job=J total=25 deleted=20 failed=2 ms=1500",
    ]
    assert {line["job"] for line in lines(folder)} == {"J"}
    assert lines(folder)[3]["level"] == "WARNING"


def test_lines_on_items_are_written_many_at_once_each_a_line_of_its_own(folder: Path) -> None:
    items = joblog.ItemLines("J")
    names = ["a", "b\u202ec", 'd"e', "f" * 9000]
    for name in names:
        items.started(name)
    before = len(list(job_lines(folder, "J")))
    items.flush()
    assert before == 0
    assert [line["msg"] for line in lines(folder)] == [
        f"BULK_PURGE_START dossier={name}"[:8000] for name in names
    ]
    assert {(line["job"], line["level"], line["logger"]) for line in lines(folder)} == {
        ("J", "INFO", "bulkops.jobs")
    }
    assert "\u202e" not in (folder / "logs" / "bulkops.log").read_text(encoding="utf-8")
    items.flush()
    assert len(lines(folder)) == len(names)


def test_lines_on_items_do_not_wait_for_ever(folder: Path) -> None:
    items = joblog.ItemLines("J")
    for number in range(300):
        items.done(str(number), ms=0)
    assert len(lines(folder)) >= 256


def test_all_ids_of_a_small_job_are_named(folder: Path) -> None:
    joblog.job_started(a_job(id="J", total=2), ["a", "b"])
    assert messages(folder) == ["BULK_JOB_START job=J total=2 ids=[a, b]"]


def test_followers_and_the_process_are_noted(folder: Path) -> None:
    joblog.process_started()
    joblog.subscribed("job:J", followers=2, job_id="J")
    joblog.unsubscribed("all", followers=0)
    assert messages(folder) == [
        f"BULKOPS_START pid={os.getpid()}",
        "SUBSCRIBE topic=job:J followers=2",
        "UNSUBSCRIBE topic=all followers=0",
    ]
    assert [line.get("job") for line in lines(folder)] == [None, "J", None]


def test_a_line_says_when_who_and_what(folder: Path) -> None:
    logging.getLogger("bulkops.store").info("%d pages", 3)
    (line,) = lines(folder)
    assert line.keys() == {"at", "level", "logger", "msg"}
    assert line["at"].endswith("Z")
    assert (line["level"], line["logger"], line["msg"]) == ("INFO", "bulkops.store", "3 pages")


def _raise_with(value: str) -> None:
    raise ValueError(value)


def test_an_exception_is_told_without_what_it_quotes(folder: Path) -> None:
    try:
        _raise_with("a value of a row")
    except ValueError:
        logging.getLogger("bulkops").exception("it broke")
    (line,) = lines(folder)
    assert line["error"].startswith("ValueError at test_joblog.py:")
    assert "_raise_with" in line["error"]
    assert "a value of a row" not in (folder / "logs" / "bulkops.log").read_text(encoding="utf-8")


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_any_text_is_one_line_in_which_nothing_acts_on_a_terminal(text: str) -> None:
    record = logging.LogRecord("bulkops", logging.INFO, "f", 1, "%s", (text,), None)
    line = JsonLines().format(record)
    assert json.loads(line)["msg"] == json.loads(json.dumps(text))
    assert not set(line) & {*map(chr, range(32)), "\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\ufeff"}
    line.encode()


def test_a_very_long_message_is_cut(folder: Path) -> None:
    logging.getLogger("bulkops").info("x" * 100_000)
    assert len(messages(folder)[0]) == 8000


def test_the_files_are_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with log_to(tmp_path):
            logging.getLogger("bulkops").info("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "logs" / "bulkops.log").stat().st_mode) == 0o600


def test_the_loggers_are_left_as_they_were(tmp_path: Path) -> None:
    logger = logging.getLogger("bulkops")
    before = (logger.level, list(logger.handlers), list(logging.getLogger().handlers))
    with log_to(tmp_path):
        assert logger.isEnabledFor(logging.INFO)
    assert (logger.level, list(logger.handlers), list(logging.getLogger().handlers)) == before


def _write(handler: LogFile, job: str | None, message: str) -> None:
    record = logging.LogRecord("bulkops", logging.INFO, "f", 1, "%s", (message,), None)
    if job is not None:
        record.job = job
    handler.handle(record)


def test_a_jobs_lines_are_found_across_rotated_files_oldest_first(tmp_path: Path) -> None:
    handler = LogFile(tmp_path, max_bytes=2000, backups=5)
    for number in range(60):
        _write(handler, "J" if number % 2 else "K", f"line {number}")
    _write(handler, None, 'about "job":"J" without being its own')
    handler.close()
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert len(names) > 2
    found = [json.loads(line)["msg"] for slab in job_lines(tmp_path, "J") for line in slab.splitlines()]
    assert found == [f"line {number}" for number in range(60) if number % 2]
    assert all(stat.S_IMODE((tmp_path / "logs" / name).stat().st_mode) == 0o600 for name in names)


def test_a_rotation_while_reading_loses_nothing(tmp_path: Path) -> None:
    handler = LogFile(tmp_path, max_bytes=60_000, backups=5)
    for number in range(600):
        _write(handler, "J", f"line {number}")
    slabs = job_lines(tmp_path, "J")
    found = next(slabs)
    handler.doRollover()
    handler.doRollover()
    found += b"".join(slabs)
    handler.close()
    assert [json.loads(line)["msg"] for line in found.splitlines()] == [
        f"line {number}" for number in range(600)
    ]


def test_a_file_that_is_seen_twice_in_a_rotation_is_read_once(tmp_path: Path) -> None:
    handler = LogFile(tmp_path)
    _write(handler, "J", "x")
    handler.close()
    os.link(tmp_path / "logs" / "bulkops.log", tmp_path / "logs" / "bulkops.log.1")
    assert b"".join(job_lines(tmp_path, "J")).count(b"\n") == 1


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    handler = LogFile(tmp_path)
    _write(handler, "J", "whole")
    handler.close()
    with open(tmp_path / "logs" / "bulkops.log", "ab") as file:
        file.write(b'{"at":"x","job":"J"\n{"msg":"cut","job":"J"}')
    assert b"".join(job_lines(tmp_path, "J")).count(b"\n") == 1


@pytest.mark.parametrize("job", ["K", "J\n", '"', ""])
def test_a_job_without_lines_has_an_empty_log(tmp_path: Path, job: str) -> None:
    assert list(job_lines(tmp_path, job)) == []
    handler = LogFile(tmp_path)
    _write(handler, "J", "x")
    handler.close()
    assert list(job_lines(tmp_path, job)) == []


def test_a_full_disk_loses_lines_and_says_nothing_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = LogFile(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(handler, "_open", full)
    _write(handler, "J", "x")
    handler.close()
    assert handler.lost == 1
    assert capsys.readouterr().err == ""
