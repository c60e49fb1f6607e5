"""The demo's `bulkops.toml`: how bulkops is pointed at the application beside it."""

from __future__ import annotations

from typing import Final

CONFIG: Final = """\
# The demo's config: three tables, a folder and photo projects. Look, change, then: bulkops check

[server]
database = "bulkops.db"        # ours: jobs, manifests, events, trash index
data_dir = "bulkops-data"      # ours: exports, archives, logs

[resources.receipts]
kind = "table"
database = "app.db"
table = "receipts"
id = "id"
tenant = "business_id"         # whose row it is
label = "number"               # what people call it
soft_delete = "is_deleted"
status = { column = "status", closed = "closed", archived = "archived", busy = ["processing"] }
search = ["number", "vendor", "category", "status", "amount_cents", "created_at"]
set = ["status"]
protect = { pinned = 1 }

[[resources.receipts.children]]
table = "attachments"
key = "receipt_id"
file = "path"                  # removed after the commit
root = "storage"

[resources.receipts.actions.delete]
roles = ["owner", "admin"]
confirm = "DELETE"
rate = "1/minute"
exclusive = true
batch_size = 50
throttle_ms = 200
max_runtime_s = 300

[resources.sessions]
kind = "table"
database = "app.db"
table = "sessions"
id = "id"
label = "title"
shared = true                  # no tenant column: for everybody
soft_delete = "deleted_at"
status = { column = "status", closed = "closed", archived = "archived", busy = ["processing"] }
search = ["title", "status", "started_at", "deleted_at"]
[[resources.sessions.children]]
table = "exports"
key = "session_id"
optional = true                # goes only with options.cascade
[resources.sessions.actions]
delete = { rate = "10/minute", max_runtime_s = 300 }
export = { rate = "30/minute", max_runtime_s = 300, max_items = 10000, expires_h = 24 }
close = { rate = "20/minute", max_runtime_s = 300 }
archive = { rate = "15/minute", max_runtime_s = 300 }

[resources.images]
kind = "table"
database = "app.db"
table = "images"
id = "id"
label = "path"
file = "path"                  # the row's own file
root = "images"
search = ["client_id", "created_at"]

[resources.dossiers]
kind = "folder"                # every entry of root is an item, with all that it holds
root = "dossiers_data"
shared = true
[resources.dossiers.actions]
purge = { confirm = "PURGE" }

[resources.photos]
kind = "photos"
database = "photos.db"
table = "photos"
id = "id"
label = "base"
root = "projects"              # projects/<project>/IMG_0001.JPG, IMG_0001.CR2

[schedules.forget-sessions]    # what was deleted a month ago is let go every night
cron = "0 3 * * *"
timezone = "Europe/Madrid"
resource = "sessions"
action = "purge"
filter = { deleted_at = { lt = "-30d" } }

[schedules.empty-photo-trash]
cron = "30 3 * * *"
timezone = "Europe/Madrid"
resource = "photos"
action = "trash_maintenance"
all = true
"""
