"""What runners, freezers and workers share: the store, the resources, and whether the house is closing.

What comes in: the parts of a running house, wired; what goes out: the resource and the selection of a job, and
writes to our database that a trouble of the moment does not lose. No job is moved here.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio

from bulkops.database import primary_code
from bulkops.drafts import Drafts
from bulkops.errors import Halt, Transient
from bulkops.giveback import FileReturn
from bulkops.models import Throttle
from bulkops.progress import Live, Progress
from bulkops.resources.contract import Query, Resource
from bulkops.store.jobs import JobRow
from bulkops.store.store import Store
from bulkops.store.transaction import Tx
from bulkops.timing import back_off_s

T = TypeVar("T")

_log = logging.getLogger("bulkops.runner")


class House:
    """One for all workers of a process."""

    def __init__(
        self,
        store: Store,
        resources: Mapping[str, Resource],
        progress: Progress,
        files: FileReturn,
        drafts: Drafts,
    ) -> None:
        self.store = store
        self.drafts = drafts
        self.resources = resources
        self.progress = progress
        self.files = files
        self.stopping = False
        #: Jobs in line when last looked; a slice ends early only when somebody waits.
        self.waiting = 0
        #: Workers that have nothing to do.
        self.idle = 0
        #: Jobs resumed after somebody looked at what a restored copy did to them.
        self.reviewed: set[str] = set()
        #: Jobs ended by force: a batch of theirs that is still under way must not commit.
        self.revoked: set[str] = set()

    @property
    def crowded(self) -> bool:
        """Say whether a job waits for a worker and every worker has one."""
        return self.waiting > 0 and not self.idle

    def resource_of(self, job: JobRow) -> Resource:
        """Return the job's resource.

        Raises:
            Halt: (``CONFIG_CHANGED``) it is not configured any more, or not as it was.
        """
        resource = self.resources.get(job.resource)
        if resource is None:
            raise Halt("CONFIG_CHANGED", f"resource {job.resource!r} is not configured any more")
        if resource.identity != job.identity:
            raise Halt(
                "CONFIG_CHANGED",
                f"resource {job.resource!r} is configured otherwise than when this job began",
            )
        return resource

    async def persist(self, work: Callable[[Tx], T], *, live: Live | None = None) -> T | None:
        """Write to our database, patiently: a full disk of ours must not lose what the target already knows.

        Gives up, with ``None``, only when the house closes; the next start finds out what was not written.
        """
        tries = 0
        while True:
            try:
                return await self.store.write(work)
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                tries += 1
                _log.error("STORE_TROUBLE try=%d error=%s", tries, error)
                if self.stopping and tries > 3:
                    return None
                wait_s = back_off_s(tries, base_s=0.1, cap_s=5)
                if live is not None:
                    live.throttle = Throttle(round(wait_s, 3), store_trouble(error).code.lower())
                await anyio.sleep(wait_s)


def query_of(job: JobRow) -> Query:
    """Return a job's frozen selection as its resource understands it."""
    return Query(
        action=job.action, options=job.options, tenant=job.tenant, filter=job.selection.filter or {},
        bound=job.selection.bound, stamp_ms=job.selection.stamp_ms,
    )  # fmt: skip


def store_trouble(error: sqlite3.Error) -> Transient:
    """Say what an error of our own database means for a job."""
    code = "DISK_FULL" if primary_code(error) == sqlite3.SQLITE_FULL else "IO_ERROR"
    return Transient(code, f"our database: {error}")
