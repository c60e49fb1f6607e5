"""Runs a job for a slice, or its freeze, and judges what stopped it: try again, pause with a reason, or end.

What comes in: a job this worker has claimed; what goes out: a job that is ended, paused or back in line, whatever
its resource, our database or we ourselves did wrong. How the work itself goes is told in `slice` and `freezer`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bulkops import accounting
from bulkops.accounting import HeldElsewhere, held_row, settle_request
from bulkops.decisions import Next
from bulkops.drafting import sweep
from bulkops.errors import ConfigError, Halt, JobFailed, Transient
from bulkops.freezer import freeze
from bulkops.house import House, store_trouble
from bulkops.models import Throttle
from bulkops.slice import Slice
from bulkops.states import Status
from bulkops.store import claims, intents, jobs
from bulkops.store.jobs import JobRow
from bulkops.store.transaction import Tx
from bulkops.timing import back_off_s

#: How often a fault is tried again before the job is paused with its code.
_TRIES: Final = {"TARGET_LOCKED": 24, "DISK_FULL": 3, "IO_ERROR": 5}
_log = logging.getLogger("bulkops.runner")


async def run_slice(house: House, job: JobRow) -> None:
    """Work on a claimed job for a while; every way out leaves its row telling the truth."""
    step = None
    async with _judged(house, job, "SLICE_BROKE"):
        step = await Slice(house, job).run()
    if step is not Next.RELEASE and house.drafts.close(job.id):
        await sweep_drafts(house)


async def run_freeze(house: House, job: JobRow) -> None:
    """Write a claimed job's manifest; every way out leaves its row telling the truth."""
    async with _judged(house, job, "FREEZE_BROKE"):
        await freeze(house, job)


@asynccontextmanager
async def _judged(house: House, job: JobRow, broke: str) -> AsyncIterator[None]:
    """Let whatever stops the work on a job become the job's, and nobody else's."""
    try:
        yield
    except HeldElsewhere:
        _log.warning("SLICE_LOST job=%s", job.id)
    except (Halt, ConfigError) as error:
        await _halt_job(house, job, error)
    except JobFailed as error:
        await _fail_job(house, job, error)
    except sqlite3.Error as error:
        await _back_off(house, job, store_trouble(error))
    except Exception:  # noqa: BLE001  one job's trouble must not take its worker along
        _log.exception("%s job=%s", broke, job.id)
        await _fail_job(house, job, JobFailed("INTERNAL", "an error in bulkops itself; see the log"))


async def sweep_drafts(house: House) -> None:
    """Remove files that jobs made and nobody wants any more; what stays for now goes in the janitor's next round."""
    try:
        await sweep(house.store, house.drafts)
    except (OSError, sqlite3.Error) as error:
        _log.warning("SWEEP_FAILED error=%s", type(error).__name__)


async def _halt_job(house: House, job: JobRow, error: Halt | ConfigError) -> None:
    """Back off, or pause a job that could not go on for the reason given."""
    if isinstance(error, Transient):
        await _back_off(house, job, error)
        return
    reason = error if isinstance(error, Halt) else Halt("CONFIG_CHANGED", str(error))
    await house.persist(lambda tx: _halt(tx, job, reason))


def _halt(tx: Tx, job: JobRow, reason: Halt) -> None:
    row = held_row(tx, job)
    if row is None:
        return
    if row.status is Status.CANCELLING:
        accounting.cancel(tx, row, held=True)
    else:
        accounting.pause(tx, row, code=reason.code, message=reason.message)


async def _fail_job(house: House, job: JobRow, error: JobFailed) -> None:
    """End a job that can never go on."""
    code, message = error.code, error.message
    await house.persist(lambda tx: _fail(tx, job, code, message))


def _fail(tx: Tx, job: JobRow, code: str, message: str) -> None:
    # An intent that is still open stays so: a resume finds out what became of its batch.
    row = held_row(tx, job)
    if row is not None:
        accounting.fail(tx, row, code=code, message=message)


async def _back_off(house: House, job: JobRow, fault: Transient) -> None:
    live = house.progress.of(job.id)
    live.tries += 1
    if live.tries > _TRIES.get(fault.code, 5):
        live.tries = 0
        live.throttle = None
        await house.persist(lambda tx: _halt(tx, job, fault))
        return
    wait_s = back_off_s(live.tries, base_s=0.2, cap_s=10)
    live.throttle = Throttle(round(wait_s, 3), fault.code.lower())
    _log.info("BACK_OFF job=%s code=%s try=%d", job.id, fault.code, live.tries)

    def release(tx: Tx) -> None:
        row = held_row(tx, job)
        if row is None:
            return
        owing = row.status is Status.CANCELLING and intents.read(tx.connection, job.id) is not None
        if row.status in (Status.CANCELLING, Status.PAUSING) and not owing:
            settle_request(tx, row)
        else:
            # One that is cancelling says first what became of its last batch, unless that stays unknown.
            claims.release(tx, row, not_before_ms=tx.now_ms + int(wait_s * 1000))
            jobs.announce(tx, row, "updated")

    await house.persist(release)
