"""What becomes of a file: every decision, from what stands at both ends."""

from __future__ import annotations

import errno
import os
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.resources.paths import Identity, Refused, Seen
from bulkops.resources.verdicts import Step, Verdict, judge, plan_move, plan_purge, plan_restore

ME = Identity(1, 10, 5, 100)
COPY = Identity(2, 77, 5, 100)
OTHER = Identity(1, 11, 6, 101)
ODD = Refused("it is a folder, not a regular file")


MOVES: list[tuple[Seen, Seen, Step | Verdict]] = [
    (ME, None, Step.RENAME),
    (None, None, Verdict.MISSING),
    (OTHER, None, Verdict.SUPERSEDED),
    (COPY, None, Verdict.SUPERSEDED),
    (ODD, None, Verdict.REFUSED),
    (None, ME, Verdict.TRASHED),
    (OTHER, ME, Verdict.TRASHED),
    (ODD, ME, Verdict.TRASHED),
    (ME, ME, Step.UNLINK_HERE),
    (None, COPY, Verdict.TRASHED),
    (OTHER, COPY, Verdict.TRASHED),
    (ME, COPY, Step.COMPARE),
    (ME, OTHER, Verdict.REFUSED),
    (None, OTHER, Verdict.REFUSED),
    (None, ODD, Verdict.REFUSED),
    (ME, ODD, Verdict.REFUSED),
]


@pytest.mark.parametrize(("source", "trash", "step"), MOVES)
def test_a_move_is_decided_by_what_stands_at_both_ends(
    source: Seen, trash: Seen, step: Step | Verdict
) -> None:
    assert plan_move(source, trash, ME) is step


RESTORES: list[tuple[Seen, Seen, Step | Verdict]] = [
    (None, ME, Step.RENAME),
    (None, COPY, Step.RENAME),
    (OTHER, ME, Verdict.CONFLICT),
    (ODD, ME, Verdict.CONFLICT),
    (ME, ME, Step.UNLINK_HERE),
    (COPY, ME, Step.COMPARE),
    (ME, None, Verdict.RESTORED),
    (COPY, None, Verdict.RESTORED),
    (None, None, Verdict.MISSING),
    (OTHER, None, Verdict.MISSING),
    (None, OTHER, Verdict.REFUSED),
    (None, ODD, Verdict.REFUSED),
]


@pytest.mark.parametrize(("source", "trash", "step"), RESTORES)
def test_a_restore_is_decided_by_what_stands_at_both_ends(
    source: Seen, trash: Seen, step: Step | Verdict
) -> None:
    assert plan_restore(source, trash, ME) is step


def test_a_purge_unlinks_only_me() -> None:
    assert plan_purge(ME, ME) is Step.UNLINK
    assert plan_purge(None, ME) is Verdict.PURGED
    assert plan_purge(OTHER, ME) is Verdict.REFUSED
    assert plan_purge(ODD, ME) is Verdict.REFUSED


def test_a_device_that_was_renumbered_by_a_restart_does_not_lock_the_trash() -> None:
    renumbered = Identity(9, ME.ino, ME.size, ME.mtime_ns)
    assert plan_purge(renumbered, ME) is Step.UNLINK
    assert plan_restore(None, renumbered, ME) is Step.RENAME
    assert plan_move(renumbered, None, ME) is Verdict.SUPERSEDED


@pytest.mark.parametrize(("source", "trash"), list(product([None, OTHER, ODD], [None, OTHER, ODD])))
def test_without_a_recorded_identity_nothing_is_ever_touched(source: Seen, trash: Seen) -> None:
    for step in (plan_move(source, trash, None), plan_restore(source, trash, None)):
        assert isinstance(step, Verdict)


some = st.none() | st.builds(Identity, *[st.integers(0, 1)] * 4) | st.just(ODD)


@given(some, some, st.builds(Identity, *[st.integers(0, 1)] * 4))
def test_a_move_acts_on_me_only(source: Seen, trash: Seen, mine: Identity) -> None:
    if isinstance(plan_move(source, trash, mine), Step):
        assert source == mine


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOENT, Verdict.MISSING),
        *[(code, Verdict.REFUSED) for code in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)],
        *[
            (code, Verdict.RETRY)
            for code in (
                *(errno.EBUSY, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO),
                *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ETXTBSY),
            )
        ],
    ],
)
def test_errors_are_final_or_worth_another_try(code: int, expected: Verdict) -> None:
    assert judge(OSError(code, os.strerror(code))).verdict is expected
