"""The demo's application: its databases, files and folders, and the config that points bulkops at them.

What comes in: an empty folder, or one made here earlier; what goes out: rows and files that look like those
of small companies, the same every time, from fixed seeds. It only ever adds: nothing that exists is replaced
or removed.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from bulkops.demo_pictures import jpeg, pdf


class Business(msgspec.Struct, frozen=True):
    """A tenant of the demo and how many receipts it has."""

    id: str
    name: str
    receipts: int
    careful: bool = True  # some of its receipts are pinned or being processed, and so are left alone


#: The first is the one whose receipts the demo deletes.
BUSINESSES: Final = (
    Business("oak", "Oak & Iron Joinery", 1200, careful=False),
    Business("nordlicht", "Nordlicht Studio", 1500),
    Business("harbor", "Harbor Street Cafe", 2300),
)

CONFIG: Final = """\
# The demo's config: three tables of app.db. Look, change, then: bulkops check

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
search = ["title", "status", "started_at"]
[[resources.sessions.children]]
table = "exports"
key = "session_id"
optional = true                # goes only with options.cascade
[resources.sessions.actions]
delete = { rate = "10/minute" }
export = { rate = "30/minute", max_items = 10000, expires_h = 24 }
close = { rate = "20/minute" }
archive = { rate = "15/minute" }

[resources.images]
kind = "table"
database = "app.db"
table = "images"
id = "id"
label = "path"
file = "path"                  # the row's own file
root = "images"
search = ["client_id", "created_at"]
"""

_APP_SCHEMA: Final = """
CREATE TABLE businesses (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE receipts (
  id           INTEGER PRIMARY KEY,
  business_id  TEXT NOT NULL REFERENCES businesses (id),
  number       TEXT NOT NULL UNIQUE,
  vendor       TEXT NOT NULL,
  category     TEXT NOT NULL,
  amount_cents INTEGER NOT NULL,
  currency     TEXT NOT NULL,
  status       TEXT NOT NULL,
  pinned       INTEGER NOT NULL DEFAULT 0,
  is_deleted   INTEGER NOT NULL DEFAULT 0,
  created_at   TEXT NOT NULL
);
CREATE INDEX receipts_business ON receipts (business_id, is_deleted, id);
CREATE TABLE attachments (
  id         INTEGER PRIMARY KEY,
  receipt_id INTEGER NOT NULL REFERENCES receipts (id),
  path       TEXT NOT NULL,
  media_type TEXT NOT NULL,
  bytes      INTEGER NOT NULL
);
CREATE INDEX attachments_receipt ON attachments (receipt_id);
CREATE TABLE sessions (
  id         TEXT PRIMARY KEY,
  title      TEXT NOT NULL,
  status     TEXT NOT NULL,
  started_at TEXT NOT NULL,
  minutes    INTEGER NOT NULL,
  deleted_at TEXT
);
CREATE TABLE exports (
  id         INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES sessions (id),
  format     TEXT NOT NULL,
  created_at TEXT NOT NULL
);
CREATE INDEX exports_session ON exports (session_id);
CREATE TABLE images (
  id         INTEGER PRIMARY KEY,
  client_id  TEXT NOT NULL,
  path       TEXT NOT NULL,
  width      INTEGER NOT NULL,
  height     INTEGER NOT NULL,
  created_at TEXT NOT NULL
);
CREATE INDEX images_client ON images (client_id);
"""

_PHOTOS_SCHEMA: Final = """
CREATE TABLE photos (
  id            INTEGER PRIMARY KEY,
  project       TEXT NOT NULL,
  base          TEXT NOT NULL,
  keep_jpg      INTEGER NOT NULL,
  jpg_available INTEGER NOT NULL,
  keep_raw      INTEGER NOT NULL,
  raw_available INTEGER NOT NULL,
  UNIQUE (project, base)
);
"""

_VENDORS: Final = (
    ("Lumen Office Supply", "office"),
    ("Marker & Sons Paper", "office"),
    ("Brightline Telecom", "utilities"),
    ("Cobalt Energy", "utilities"),
    ("Greenfield Produce", "food"),
    ("Roastery Alba", "food"),
    ("Bakkerij Vos", "food"),
    ("Ironwood Timber", "materials"),
    ("Steelyard Fasteners", "materials"),
    ("Pigment & Co", "materials"),
    ("Regio Rail", "travel"),
    ("Quayside Hotel", "travel"),
    ("Taxi Meridian", "travel"),
    ("Cloudberry Hosting", "software"),
    ("Typeface Union", "software"),
)
_STATUSES: Final = ("open", "open", "paid", "paid", "paid", "closed", "archived")
_CLIENTS: Final = (
    ("aurora", 1000),
    ("borealis", 150),
    ("cirrus", 120),
    ("delta", 100),
    ("ember", 80),
    ("fjord", 50),
)
_TITLES: Final = (
    "Portrait sitting",
    "Product shoot",
    "Interview",
    "Colour review",
    "Workshop",
    "Stocktaking",
)
_NAMES: Final = (
    "abel",
    "brandt",
    "castellan",
    "duarte",
    "eriksen",
    "fontaine",
    "gruber",
    "haddad",
    "ivanova",
    "jansen",
    "kowalski",
    "lindqvist",
)
_PROJECTS: Final = ("2024-harvest", "2024-wedding-lund", "2025-catalogue")
_FIRST_DAY: Final = datetime(2024, 1, 2, 8, tzinfo=UTC)
_DAYS: Final = 720


def make(folder: Path) -> None:
    """Fill an empty folder."""
    pictures = [jpeg(24, 16, seed) for seed in range(12)]
    with closing(_new_database(folder / "app.db", _APP_SCHEMA)) as app, app:
        app.executemany(
            "INSERT INTO businesses (id, name) VALUES (?, ?)", [(b.id, b.name) for b in BUSINESSES]
        )
        for business in BUSINESSES:
            _add_receipts(app, folder, business, business.receipts, pictures)
        _add_sessions(app)
        _add_images(app, folder, pictures)
    _make_dossiers(folder / "dossiers_data", pictures)
    with closing(_new_database(folder / "photos.db", _PHOTOS_SCHEMA)) as photos, photos:
        _add_photos(photos, folder / "projects", pictures)
    (folder / "bulkops.toml").write_text(CONFIG, encoding="utf-8")


def top_up(folder: Path, business: Business) -> int:
    """Add receipts until the business has as many as at first; returns how many were added."""
    with closing(sqlite3.connect(folder / "app.db")) as app, app:
        missing = business.receipts - count_receipts(app, business)
        if missing > 0:
            _add_receipts(app, folder, business, missing, [jpeg(24, 16, seed) for seed in range(12)])
    return max(missing, 0)


def count_receipts(app: sqlite3.Connection, business: Business) -> int:
    """Count the receipts of a business that are in sight."""
    statement = "SELECT count(*) FROM receipts WHERE business_id = ? AND is_deleted = 0"
    count: int = app.execute(statement, (business.id,)).fetchone()[0]
    return count


def _new_database(path: Path, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(schema)
    return connection


def _add_receipts(
    app: sqlite3.Connection, folder: Path, business: Business, count: int, pictures: list[bytes]
) -> None:
    first: int = app.execute("SELECT coalesce(max(id), 0) + 1 FROM receipts").fetchone()[0]
    dice = random.Random(f"{business.id} {first}")  # noqa: S311  a demo wants the same dice every time
    for receipt in range(first, first + count):
        number = f"{business.id[:3].upper()}-{receipt:06}"
        at, vendor, cents = _receipt(app, dice, business, receipt, number)
        place = f"{business.id}/{at[:7]}"
        lines = [business.name, f"Receipt {number}", at[:10], vendor, "", f"Total EUR {cents / 100:,.2f}"]
        files = [(f"{place}/{number}.pdf", "application/pdf", pdf(lines))]
        if dice.random() < 0.15:
            files.append((f"{place}/{number}.jpg", "image/jpeg", dice.choice(pictures)))
        for path, media_type, content in files:
            _write(folder / "storage" / path, content)
            app.execute(
                "INSERT INTO attachments (receipt_id, path, media_type, bytes) VALUES (?, ?, ?, ?)",
                (receipt, path, media_type, len(content)),
            )


def _receipt(
    app: sqlite3.Connection, dice: random.Random, business: Business, receipt: int, number: str
) -> tuple[str, str, int]:
    vendor, category = dice.choice(_VENDORS)
    at, cents = _moment(dice), int(dice.lognormvariate(8.2, 1.1)) + 95
    busy = business.careful and dice.random() < 0.004
    app.execute(
        "INSERT INTO receipts (id, business_id, number, vendor, category, amount_cents, currency, status,"
        " pinned, created_at) VALUES (?, ?, ?, ?, ?, ?, 'EUR', ?, ?, ?)",
        (
            receipt,
            business.id,
            number,
            vendor,
            category,
            cents,
            "processing" if busy else dice.choice(_STATUSES),
            int(business.careful and dice.random() < 0.006),
            at,
        ),
    )
    return at, vendor, cents


def _moment(dice: random.Random) -> str:
    at = _FIRST_DAY + timedelta(days=dice.randrange(_DAYS), seconds=dice.randrange(36_000))
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _add_sessions(app: sqlite3.Connection) -> None:
    dice = random.Random("sessions")  # noqa: S311
    for number in range(1, 241):
        session, at = f"ses_{number:04}_{dice.randrange(16**8):08x}", _moment(dice)
        status = "processing" if number % 60 == 0 else dice.choice(("open", "open", "closed", "archived"))
        app.execute(
            "INSERT INTO sessions (id, title, status, started_at, minutes) VALUES (?, ?, ?, ?, ?)",
            (session, f"{dice.choice(_TITLES)} {number}", status, at, dice.randrange(5, 240)),
        )
        app.executemany(
            "INSERT INTO exports (session_id, format, created_at) VALUES (?, ?, ?)",
            [(session, dice.choice(("csv", "json", "pdf")), at) for _ in range(dice.randrange(4))],
        )


def _add_images(app: sqlite3.Connection, folder: Path, pictures: list[bytes]) -> None:
    dice = random.Random("images")  # noqa: S311
    for client, count in _CLIENTS:
        for number in range(1, count + 1):
            path = f"{client}/{number:05}.jpg"
            _write(folder / "images" / path, pictures[number % len(pictures)])
            app.execute(
                "INSERT INTO images (client_id, path, width, height, created_at) VALUES (?, ?, 192, 128, ?)",
                (client, path, _moment(dice)),
            )


def _make_dossiers(root: Path, pictures: list[bytes]) -> None:
    dice = random.Random("dossiers")  # noqa: S311
    for number, name in enumerate(_NAMES, 1):
        dossier = root / f"D-{number:03}-{name}"
        pages = dice.randrange(6, 15)
        about = {"dossier": dossier.name, "opened": _moment(dice), "pages": pages}
        _write(dossier / "dossier.json", json.dumps(about, indent=2).encode())
        for page in range(pages):
            _write(dossier / "scans" / f"page-{page + 1:02}.jpg", dice.choice(pictures))


def _add_photos(photos: sqlite3.Connection, root: Path, pictures: list[bytes]) -> None:
    dice = random.Random("photos")  # noqa: S311
    for project in _PROJECTS:
        for number in range(1, 17):
            base = f"IMG_{number:04}"
            has_raw = dice.random() < 0.75
            _write(root / project / f"{base}.{dice.choice(('JPG', 'jpg'))}", dice.choice(pictures))
            if has_raw:
                _write(root / project / f"{base}.RAW", dice.randbytes(2048))
            photos.execute(
                "INSERT INTO photos (project, base, keep_jpg, jpg_available, keep_raw, raw_available)"
                " VALUES (?, ?, ?, 1, ?, ?)",
                (project, base, int(dice.random() < 0.8), int(has_raw and dice.random() < 0.5), int(has_raw)),
            )


def _write(path: Path, content: bytes) -> None:
    """Write a new file; one that is there already is left as it is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        fd = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o644)
    except FileExistsError:
        return
    with os.fdopen(fd, "wb") as file:
        file.write(content)
