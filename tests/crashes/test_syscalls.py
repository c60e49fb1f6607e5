"""A kill -9 at every write system call of a small job, and what the next start makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest

from tests.crashes.ground import (
    ACT,
    CANCEL,
    CANCEL_NOTES,
    UNDO,
    Finding,
    between_commits,
    crash_everywhere,
    some,
    thinned,
)
from tests.crashes.points import Point

pytestmark = [
    pytest.mark.strace,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
COMBINATIONS = list(product(["wal", "delete"], ["own", "app"]))
Choice = Callable[[list[Point]], Sequence[Point]]


def _judge(findings: list[Finding]) -> None:
    assert findings
    wrong = [finding for finding in findings if finding.wrong is not None]
    report = "\n".join(f"{each.point}: {each.wrong}" for each in wrong)
    assert not wrong, f"{len(wrong)} of {len(findings)} crashes broke a promise:\n{report}"
    # Points that depend on timing (a checkpoint, the last close) may not come; most must.
    hits = sum(finding.hit for finding in findings)
    assert hits >= 0.8 * len(findings), f"only {hits} of {len(findings)} kills came"
    print(f"{len(findings)} kill points, {hits} kills, 0 violations")


@pytest.mark.timeout(600)
def test_a_delete_killed_at_any_write_is_counted_exactly_once(tmp_path: Path) -> None:
    _judge(crash_everywhere(tmp_path, thinned, journal="wal", ledger="own", plan=ACT))


@pytest.mark.timeout(300)
def test_an_undo_killed_at_any_write_brings_everything_back(tmp_path: Path) -> None:
    _judge(crash_everywhere(tmp_path, some(40, 1), journal="wal", ledger="own", plan=UNDO))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("journal", "ledger"), COMBINATIONS[1:])
def test_the_same_holds_for_every_journal_and_ledger(tmp_path: Path, journal: str, ledger: str) -> None:
    _judge(crash_everywhere(tmp_path / "act", some(16, 2), journal=journal, ledger=ledger, plan=ACT))
    _judge(crash_everywhere(tmp_path / "undo", some(8, 3), journal=journal, ledger=ledger, plan=UNDO))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("journal", "ledger"), COMBINATIONS)
def test_a_kill_between_the_two_commits_is_found_out(tmp_path: Path, journal: str, ledger: str) -> None:
    _judge(crash_everywhere(tmp_path, between_commits, journal=journal, ledger=ledger, plan=ACT))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plan", [CANCEL, CANCEL_NOTES])
@pytest.mark.parametrize("ledger", ["own", "app"])
def test_a_cancel_of_a_job_nobody_works_on_accounts_for_its_last_batch_first(
    tmp_path: Path, ledger: str, plan: str
) -> None:
    _judge(
        crash_everywhere(tmp_path, between_commits, journal="wal", ledger=ledger, plan=plan, restored=True)
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ledger", ["own", "app"])
def test_a_cancel_after_a_crash_tells_exactly_what_was_done(tmp_path: Path, ledger: str) -> None:
    _judge(crash_everywhere(tmp_path, some(20, 4), journal="wal", ledger=ledger, plan=CANCEL))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("plan", [ACT, UNDO, CANCEL])
@pytest.mark.parametrize(("journal", "ledger"), COMBINATIONS)
def test_every_single_write_of_every_combination(
    tmp_path: Path, journal: str, ledger: str, plan: str
) -> None:
    _judge(crash_everywhere(tmp_path, list, journal=journal, ledger=ledger, plan=plan))
