"""The schema's versions: `schema.sql` is the newest, the steps lead there from every older one.

Forward only; each step is one transaction with its version inside. A database of a newer version is
refused before anything here runs.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Final

from bulkops.database import roll_back

APPLICATION_ID: Final = 0x626C6B6F  # "blko"
#: From version 1 to 2: what jobs make, and jobs by the calendar.
_ARTIFACTS_AND_SCHEDULES: Final = """
CREATE TABLE artifacts (              -- files that jobs made: exports and archives
  id           TEXT PRIMARY KEY,      -- ULID
  job          TEXT NOT NULL,         -- outlives the job's row: a file must not be forgotten
  tenant       TEXT,
  requested_by TEXT NOT NULL,
  resource     TEXT NOT NULL,
  kind         TEXT NOT NULL CHECK (kind IN ('export', 'archive')),
  name         TEXT NOT NULL,         -- what a download is called
  format       TEXT NOT NULL,         -- csv, json, ndjson, ndjson.gz, zip
  status       TEXT NOT NULL CHECK (status IN ('building', 'ready', 'failed', 'expired')),
  bytes        INTEGER CHECK (bytes >= 0),  -- of the whole file; NULL until ready
  rows         INTEGER CHECK (rows >= 0),   -- records in it, while building those of accounted batches
  sha256       TEXT,                  -- of the whole file, hex; NULL until ready
  written      INTEGER NOT NULL DEFAULT 0 CHECK (written >= 0),  -- bytes that the accounted batches wrote
  created_ms   INTEGER NOT NULL,
  expires_ms   INTEGER NOT NULL,
  CHECK (status <> 'ready' OR (bytes IS NOT NULL AND sha256 IS NOT NULL))
) STRICT;
CREATE INDEX artifacts_job ON artifacts (job, id);
CREATE INDEX artifacts_expiry ON artifacts (expires_ms) WHERE status <> 'expired';
CREATE INDEX artifacts_quota ON artifacts (coalesce(tenant, ''), status);

CREATE TABLE schedules (              -- jobs that start by the calendar
  id          TEXT PRIMARY KEY,       -- ULID, or the name it has in the configuration
  name        TEXT NOT NULL,
  tenant      TEXT,
  resource    TEXT NOT NULL,
  action      TEXT NOT NULL,
  body        TEXT NOT NULL,          -- JSON, the start's body: selection, options, reason, …
  cron        TEXT,                   -- five fields; or
  every_s     INTEGER CHECK (every_s > 0),  -- an interval; exactly one of the two
  timezone    TEXT NOT NULL,          -- IANA name that the cron fields are read in
  enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  origin      TEXT NOT NULL CHECK (origin IN ('api', 'config', 'built_in')),  -- who declared it
  created_by  TEXT NOT NULL,
  roles       TEXT NOT NULL,          -- JSON array: what its jobs may do
  credential  TEXT,                   -- the key it was made with: revoking that ends it; NULL: no key's
  created_ms  INTEGER NOT NULL,
  next_ms     INTEGER,                -- when it fires next; NULL: never again
  last_ms     INTEGER,                -- when it last fired
  last_job    TEXT,                   -- the job that came of it
  last_result TEXT,                   -- started, skipped_running, nothing_due, revoked, or the code of a refusal
  CHECK ((cron IS NULL) <> (every_s IS NULL))
) STRICT;
CREATE INDEX schedules_due ON schedules (next_ms, id) WHERE enabled = 1 AND next_ms IS NOT NULL;
CREATE INDEX schedules_tenant ON schedules (tenant, id);
CREATE INDEX schedules_credential ON schedules (credential) WHERE credential IS NOT NULL;

CREATE TABLE task_ends (              -- tasks whose end was told; a job started or resumed in one takes it back
  task  TEXT PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
  at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
#: Steps from version n to n + 1, the first entry leading from version 1 to 2.
STEPS: Final[tuple[str, ...]] = (_ARTIFACTS_AND_SCHEDULES,)
VERSION: Final = len(STEPS) + 1


def schema_file() -> Path:
    """Find `schema.sql`: inside the installed package, else at the top of a checkout."""
    packaged = Path(__file__).parent.parent / "schema.sql"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "schema.sql"


def create(connection: sqlite3.Connection, values: dict[str, str]) -> None:
    """Lay the newest schema into an empty database, in one transaction."""
    statements = schema_file().read_text(encoding="utf-8")
    _in_transaction(
        connection,
        f"PRAGMA application_id = {APPLICATION_ID};\n{statements}\nPRAGMA user_version = {VERSION};",
        values,
    )


def migrate(connection: sqlite3.Connection, *, steps: tuple[str, ...] = STEPS) -> int:
    """Take the database to the newest version, a step a transaction; return how many steps that were."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    pending = steps[version - 1 :]
    for offset, step in enumerate(pending, start=version + 1):
        _in_transaction(connection, f"{step}\nPRAGMA user_version = {offset};", {})
    return len(pending)


def _in_transaction(connection: sqlite3.Connection, script: str, values: dict[str, str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in split(script):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", list(values.items()))
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def split(script: str) -> list[str]:
    """Cut a script into statements; `executescript` would commit behind our back."""
    statements, pending = [], ""
    for piece in re.split("(?<=;)", script):
        pending += piece
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    return [*statements, pending.strip()] if pending.strip() else statements
