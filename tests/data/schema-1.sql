-- bulkops' own database: jobs, what they froze, what became of it, and who asked.
-- Times are UTC milliseconds (`_ms`); JSON columns say their shape. `application_id` and `user_version`
-- are set by the store in the same transaction as these statements.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,             -- instance, generation, epoch, event_floor, created_ms; backup_ms, review_ms after a backup
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (                  -- one user intent that groups jobs
  id           TEXT PRIMARY KEY,
  type         TEXT NOT NULL,         -- change_commit, upload_processing, …
  label        TEXT NOT NULL,
  project      TEXT,
  tenant       TEXT,
  requested_by TEXT NOT NULL,
  source       TEXT NOT NULL CHECK (source IN ('user', 'maintenance')),
  created_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX tasks_newest ON tasks (created_ms, id);
CREATE INDEX tasks_tenant ON tasks (tenant, created_ms, id);
CREATE INDEX tasks_user ON tasks (requested_by, created_ms, id);

CREATE TABLE jobs (
  id                TEXT PRIMARY KEY, -- ULID: sorts by creation
  resource          TEXT NOT NULL,
  action            TEXT NOT NULL,
  kind              TEXT NOT NULL DEFAULT 'act' CHECK (kind IN ('act', 'undo')),
  label             TEXT,
  tenant            TEXT,             -- NULL: the whole installation
  requested_by      TEXT NOT NULL,
  reason            TEXT,
  source            TEXT NOT NULL CHECK (source IN ('user', 'maintenance')),
  task_id           TEXT REFERENCES tasks (id),
  task_type         TEXT,
  project           TEXT,
  status            TEXT NOT NULL CHECK (status IN ('scheduled', 'preparing', 'queued', 'running', 'pausing',
                      'paused', 'cancelling', 'completed', 'failed', 'cancelled')),
  outcome           TEXT CHECK (outcome IN ('ok', 'partial', 'none')),
  status_code       TEXT,             -- why it is paused: USER, RUNTIME_CAP, DISK_FULL, …
  status_message    TEXT,
  priority          INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 1000),
  exclusive         INTEGER NOT NULL CHECK (exclusive IN (0, 1)),
  selection         TEXT NOT NULL,    -- JSON {kind, ids?, filter, count, exclude_ids, selection_id, bound, stamp_ms}
  options           TEXT NOT NULL,    -- JSON object, as the action defines it
  knobs             TEXT NOT NULL,    -- JSON {batch_size, throttle_ms, max_items_per_second, max_items, …}
  identity          TEXT NOT NULL,    -- hash of the resource's kind, database, table, id, tenant, root, children
  frozen            INTEGER NOT NULL DEFAULT 0 CHECK (frozen IN (0, 1)),  -- the manifest is complete
  total             INTEGER CHECK (total >= 0),             -- NULL until frozen
  cursor            INTEGER NOT NULL DEFAULT 0,             -- manifest positions passed = items processed
  succeeded         INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
  failed            INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
  skipped           INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0),
  batch             INTEGER NOT NULL DEFAULT 0,             -- batches committed and mirrored here
  batch_failures    INTEGER NOT NULL DEFAULT 0,             -- batches that failed as a whole, in a row
  crashes           INTEGER NOT NULL DEFAULT 0,             -- unclean exits in a row while it was held by a worker
  worker            INTEGER,                                -- generation whose worker holds it, NULL: nobody
  queued_ms         INTEGER NOT NULL,                       -- place in line
  not_before_ms     INTEGER NOT NULL DEFAULT 0,             -- back-off, or auto-resume
  active_ms         INTEGER NOT NULL DEFAULT 0,             -- time under work
  stretch_ms        INTEGER NOT NULL DEFAULT 0,             -- the same since the last resume: the runtime cap
  stretch_items     INTEGER NOT NULL DEFAULT 0,             -- items since the last resume: canary, max_items
  stretch_failed    INTEGER NOT NULL DEFAULT 0,             -- failed items since the last resume: the threshold
  rate              REAL,                                   -- items a second, smoothed; NULL: not known
  last_error        TEXT,                                   -- JSON {code, message, item}
  error             TEXT,                                   -- JSON {code, message}: why the job itself failed
  retry_of          TEXT REFERENCES jobs (id),
  undo_of           TEXT REFERENCES jobs (id),
  request_hash      TEXT,                                   -- of retry's codes or undo's ids: repeating finds the job
  undo_until_ms     INTEGER,
  created_ms        INTEGER NOT NULL,
  run_at_ms         INTEGER,
  started_ms        INTEGER,
  updated_ms        INTEGER NOT NULL,
  finished_ms       INTEGER,
  CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_ms IS NOT NULL)),
  CHECK ((status = 'completed') = (outcome IS NOT NULL)),
  CHECK (succeeded + failed + skipped = cursor),
  CHECK (total IS NULL OR cursor <= total),
  CHECK (status NOT IN ('queued', 'running', 'completed') OR total IS NOT NULL),
  CHECK (status <> 'completed' OR cursor = total),
  CHECK (outcome IS NOT 'ok' OR failed = 0)
) STRICT;

-- One active job of an exclusive action per resource and tenant. NULLs are distinct in a unique index, hence coalesce.
CREATE UNIQUE INDEX jobs_exclusive ON jobs (resource, action, coalesce(tenant, ''))
  WHERE exclusive = 1 AND status IN ('preparing', 'queued', 'running', 'pausing', 'paused', 'cancelling');
-- The line: what a free worker takes next.
CREATE INDEX jobs_line ON jobs (priority DESC, queued_ms, id)
  WHERE worker IS NULL AND status IN ('preparing', 'queued', 'running', 'pausing', 'cancelling');
CREATE INDEX jobs_waiting ON jobs (status, run_at_ms) WHERE status IN ('scheduled', 'paused');
CREATE INDEX jobs_rate ON jobs (resource, action, coalesce(tenant, ''), created_ms);
CREATE INDEX jobs_tenant ON jobs (tenant, id);
CREATE INDEX jobs_user ON jobs (requested_by, id);
CREATE INDEX jobs_resource ON jobs (resource, id);
CREATE INDEX jobs_status ON jobs (status, id);
CREATE INDEX jobs_project ON jobs (project, id) WHERE project IS NOT NULL;
CREATE INDEX jobs_task ON jobs (task_id, id) WHERE task_id IS NOT NULL;
CREATE INDEX jobs_retry ON jobs (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX jobs_undo ON jobs (undo_of) WHERE undo_of IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE finished_ms IS NOT NULL;

CREATE TABLE manifest (               -- the frozen ids of a job, in chunks
  id    INTEGER PRIMARY KEY,
  job   TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  first INTEGER NOT NULL,             -- position of the chunk's first item, from 0
  count INTEGER NOT NULL CHECK (count > 0),
  low   ANY,                          -- least and greatest id of the chunk; NULL where ids have no simple order
  high  ANY,
  ids   TEXT NOT NULL,                -- JSON array of the ids' native form: integers, strings, arrays of key parts
  origins TEXT,                       -- JSON array: their positions in the job that is undone; NULL elsewhere
  UNIQUE (job, first)
) STRICT;

CREATE TABLE exceptions (             -- items that did not succeed; passed items without a row here did
  job      TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  item     TEXT NOT NULL,
  outcome  TEXT NOT NULL CHECK (outcome IN ('failed', 'skipped')),
  code     TEXT NOT NULL,
  message  TEXT NOT NULL,
  PRIMARY KEY (job, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX exceptions_outcome ON exceptions (job, outcome, position, code);

CREATE TABLE intents (                -- the batch a job has announced and not yet accounted for
  job   TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  batch INTEGER NOT NULL,
  first INTEGER NOT NULL,             -- manifest positions first … first + count - 1
  count INTEGER NOT NULL CHECK (count > 0),
  data  BLOB NOT NULL                 -- msgpack, the resource's own: what recovery needs to know
) STRICT;

CREATE TABLE trash (                  -- before-images of what jobs took: what makes undo possible
  job        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  position   INTEGER NOT NULL,
  item       TEXT NOT NULL,
  label      TEXT NOT NULL,           -- what people call it, for the list
  resource   TEXT NOT NULL,
  tenant     TEXT,
  kept       INTEGER NOT NULL CHECK (kept IN (0, 1)),  -- 0: tentative, its batch is not accounted for yet
  listed     INTEGER NOT NULL CHECK (listed IN (0, 1)),  -- 1: the thing is gone from sight; 0: only changed
  image      BLOB NOT NULL,           -- the resource's own record, compressed
  created_ms INTEGER NOT NULL,
  PRIMARY KEY (job, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX trash_list ON trash (created_ms, job, position) WHERE kept = 1 AND listed = 1;
CREATE INDEX trash_item ON trash (resource, item) WHERE kept = 1;

CREATE TABLE deletions (              -- the file deletion queue
  id            INTEGER PRIMARY KEY,
  job           TEXT NOT NULL,        -- outlives the job's row: a file must not be forgotten
  position      INTEGER NOT NULL,     -- the item it went with
  resource      TEXT NOT NULL,
  tenant        TEXT,
  storage       TEXT NOT NULL,        -- name of the storage seam: 'receipts.attachments'
  path          BLOB NOT NULL,        -- as bytes, below the storage's root
  dev           INTEGER,              -- the identity recorded when its row went; NULL: the file was missing then
  ino           INTEGER,
  size          INTEGER,
  mtime_ns      INTEGER,
  trash         TEXT NOT NULL UNIQUE, -- its name in the trash, never used twice
  final         INTEGER NOT NULL CHECK (final IN (0, 1)),  -- 1: no retention, purge at once
  state         TEXT NOT NULL CHECK (state IN ('tentative', 'queued', 'moving', 'trashed', 'restoring', 'purging',
                  'purged', 'restored', 'missing', 'superseded', 'shared', 'refused', 'dead')),
  attempts      INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  error         TEXT,                 -- code: message, of the last attempt
  created_ms    INTEGER NOT NULL,
  updated_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX deletions_due ON deletions (not_before_ms, id) WHERE state IN ('queued', 'moving', 'purging');
CREATE INDEX deletions_item ON deletions (job, position);
CREATE INDEX deletions_retention ON deletions (updated_ms) WHERE state = 'trashed';
CREATE INDEX deletions_state ON deletions (state, id);

CREATE TABLE events (                 -- the letterbox: append-only, trimmed from below
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,  -- a plain rowid would be reused after trimming
  tenant    TEXT,
  user      TEXT NOT NULL,
  job       TEXT,
  task_id   TEXT,
  task_type TEXT,
  project   TEXT,
  source    TEXT NOT NULL CHECK (source IN ('user', 'maintenance')),
  resource  TEXT,
  action    TEXT,
  kind      TEXT NOT NULL CHECK (kind IN ('queued', 'started', 'progress', 'paused', 'resumed', 'cancelled',
              'completed', 'failed', 'updated', 'task_completed', 'changed')),
  at_ms     INTEGER NOT NULL,
  data      TEXT NOT NULL             -- JSON object; shapes in the protocol's documentation
) STRICT;
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;
CREATE INDEX events_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
CREATE INDEX events_tenant ON events (tenant, seq);
CREATE INDEX events_progress ON events (job) WHERE kind = 'progress';

CREATE TABLE selections (             -- uploaded id lists
  id           TEXT PRIMARY KEY,
  tenant       TEXT,
  requested_by TEXT NOT NULL,
  count        INTEGER NOT NULL,
  created_ms   INTEGER NOT NULL,
  expires_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX selections_expiry ON selections (expires_ms);

CREATE TABLE selection_chunks (
  selection TEXT NOT NULL REFERENCES selections (id) ON DELETE CASCADE,
  first     INTEGER NOT NULL,
  count     INTEGER NOT NULL CHECK (count > 0),
  ids       TEXT NOT NULL,            -- JSON array of strings
  PRIMARY KEY (selection, first)
) STRICT;

CREATE TABLE credentials (            -- API keys and everything short-lived that stands for a caller
  id          TEXT PRIMARY KEY,       -- public part, shown in lists
  kind        TEXT NOT NULL CHECK (kind IN ('key', 'token', 'session', 'login', 'ticket')),
  secret_hash BLOB NOT NULL,          -- SHA-256 of 256 random bits; the secret itself is nowhere
  name        TEXT,
  user        TEXT NOT NULL,
  tenant      TEXT,
  roles       TEXT NOT NULL,          -- JSON array
  parent      TEXT REFERENCES credentials (id) ON DELETE CASCADE,  -- revoking the parent revokes this
  created_ms  INTEGER NOT NULL,
  expires_ms  INTEGER,
  used_ms     INTEGER,                -- last use (login, ticket: the only one)
  revoked_ms  INTEGER
) STRICT;
CREATE INDEX credentials_parent ON credentials (parent) WHERE parent IS NOT NULL;
CREATE INDEX credentials_expiry ON credentials (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE idempotency (            -- the answers to POSTs that bore an Idempotency-Key
  principal   TEXT NOT NULL,          -- tenant and user
  key_hash    BLOB NOT NULL,
  fingerprint BLOB NOT NULL,          -- SHA-256 of method, path and canonical body
  status      INTEGER,                -- NULL: the first call is still in flight
  location    TEXT,
  body        BLOB,
  created_ms  INTEGER NOT NULL,
  PRIMARY KEY (principal, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_ms);

CREATE TABLE webhooks (               -- who outside is told of a tenant's jobs
  id           TEXT PRIMARY KEY,      -- ULID
  tenant       TEXT,                  -- NULL: jobs of every tenant
  url          TEXT NOT NULL,
  secret       TEXT NOT NULL,         -- whsec_…: signing needs the secret itself, a hash of it would not do
  events       TEXT NOT NULL,         -- JSON array of kinds
  description  TEXT,
  status       TEXT NOT NULL CHECK (status IN ('active', 'disabled')),  -- disabled: its endpoint said 410
  created_by   TEXT NOT NULL,
  created_ms   INTEGER NOT NULL,
  attempted_ms INTEGER NOT NULL DEFAULT 0,  -- the last attempt: whose turn is next
  last         TEXT                   -- JSON {id, type, result, at_ms, took_ms} of the last attempt that ended
) STRICT;
CREATE INDEX webhooks_tenant ON webhooks (tenant, id);
CREATE INDEX webhooks_turn ON webhooks (attempted_ms, id) WHERE status = 'active';

CREATE TABLE webhook_deliveries (     -- the outbox: written with the event it tells of, sent afterwards
  seq           INTEGER PRIMARY KEY,
  id            TEXT NOT NULL UNIQUE, -- ULID, the `webhook-id` of every attempt
  webhook       TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  job           TEXT,                 -- NULL: a test; deliveries of one job go in order
  kind          TEXT NOT NULL CHECK (kind IN ('started', 'progress', 'paused', 'completed', 'failed', 'cancelled',
                  'test')),
  payload       TEXT NOT NULL CHECK (length(CAST(payload AS BLOB)) <= 20000),  -- JSON {type, timestamp, data}, as signed
  state         TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
  attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- counted before each is made
  not_before_ms INTEGER NOT NULL,     -- of one job none before the ones ahead of it
  result        TEXT CHECK (result IN ('2xx', '3xx', '4xx', '5xx', 'timeout', 'unreachable', 'refused', 'backlog')),
  took_ms       INTEGER,              -- of the last attempt that ended
  created_ms    INTEGER NOT NULL,
  updated_ms    INTEGER NOT NULL,
  CHECK (state <> 'delivered' OR result = '2xx')
) STRICT;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, not_before_ms, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_job ON webhook_deliveries (webhook, job, seq);
CREATE INDEX webhook_deliveries_list ON webhook_deliveries (webhook, seq);
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (state, updated_ms);

CREATE TABLE audit (                  -- who did what; append-only by trigger
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms    INTEGER NOT NULL,
  user     TEXT NOT NULL,
  tenant   TEXT,
  verb     TEXT NOT NULL,             -- start, pause, batch, denied, key_created, …
  job      TEXT,
  resource TEXT,
  detail   TEXT NOT NULL              -- JSON object: ids and counts, never row values
) STRICT;
CREATE INDEX audit_job ON audit (job, seq) WHERE job IS NOT NULL;
CREATE INDEX audit_tenant ON audit (tenant, seq);
CREATE TRIGGER audit_is_final_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_final_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
-- REPLACE deletes without delete triggers; this one sees it coming.
CREATE TRIGGER audit_is_final_replace BEFORE INSERT ON audit
  WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
