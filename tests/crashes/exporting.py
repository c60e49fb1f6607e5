"""Exports or archives the rows of a folder's database until the job has ended: the process that the tests kill.

``python -m tests.crashes.exporting FOLDER ACTION``; a job that is in the database already is not started again,
so that running it anew after a crash carries on.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from unittest import mock

from bulkops.configuration import load
from bulkops.models import JobsQuery, StartBody
from bulkops.runtime import local_owner, open_runtime
from bulkops.store import artifacts

#: The file's id is the same in every life and every world, so that a kill point can name it.
FILE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
CONFIG = """
[resources.things]
kind = "table"
database = "app.db"
table = "t"
id = "id"
ledger = "{ledger}"
status = {{ column = "status", archived = "archived" }}
[[resources.things.children]]
table = "c"
key = "t_id"
"""
ROWS = 30
SCRIPT = f"""
CREATE TABLE t (id INTEGER PRIMARY KEY, status TEXT, v TEXT);
CREATE TABLE c (id INTEGER PRIMARY KEY, t_id INTEGER REFERENCES t (id), n REAL);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
INSERT INTO t SELECT i, 'open', 'v' || i FROM n;
INSERT INTO c (t_id, n) SELECT id, id / 3.0 FROM t;
CREATE INDEX c_t ON c (t_id);
"""


async def carry_out(folder: Path, action: str) -> int:
    """Start the job unless it is there, and see it to its end; return the exit code."""
    async with open_runtime(load(folder / "bulkops.toml", {})) as runtime:
        found = (await runtime.service.jobs(local_owner(), JobsQuery(resource="things")))["items"]
        if found:
            job = found[0]
        else:
            body = StartBody(all=True, batch_size=7, options={"format": "json"} if action == "export" else {})
            job = await runtime.service.start(local_owner(), "things", action, body)
        job = await runtime.service.job(local_owner(), job.id, wait_s=30)
        print(job.status, job.outcome, job.status_reason)
        return 0 if (job.status, job.outcome) == ("completed", "ok") else 1


if __name__ == "__main__":
    with mock.patch.object(artifacts, "new_id", return_value=FILE):
        sys.exit(asyncio.run(carry_out(Path(sys.argv[1]), sys.argv[2])))
