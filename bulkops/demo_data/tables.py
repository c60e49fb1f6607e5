"""The demo's tables: receipts of small companies, sessions with exports, images of clients; rows and files.

What comes in: an empty folder, or one made here earlier; what goes out: rows and files that look like those
of small companies, the same every time, from fixed seeds. It only ever adds: nothing that exists is replaced
or removed.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from bulkops.demo_data.writing import dice_of, moment, new_database, small_pictures, write
from bulkops.demo_pictures import pdf


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
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  client_id  TEXT NOT NULL,
  path       TEXT NOT NULL,
  width      INTEGER NOT NULL,
  height     INTEGER NOT NULL,
  created_at TEXT NOT NULL
);
CREATE INDEX images_client ON images (client_id);
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
#: The first is the one whose images the demo deletes.
CLIENTS: Final = (
    ("aurora", 1000),
    ("borealis", 150),
    ("cirrus", 120),
    ("delta", 100),
    ("ember", 80),
    ("fjord", 50),
)
_SESSIONS: Final = 240
#: Below this many open sessions, closing them is nothing to look at.
_MIN_OPEN: Final = 40
_TITLES: Final = (
    "Portrait sitting",
    "Product shoot",
    "Interview",
    "Colour review",
    "Workshop",
    "Stocktaking",
)


def make_tables(folder: Path) -> None:
    """Make the database and the files that its rows name."""
    pictures = small_pictures()
    with closing(new_database(folder / "app.db", _APP_SCHEMA)) as app, app:
        app.executemany(
            "INSERT INTO businesses (id, name) VALUES (?, ?)", [(b.id, b.name) for b in BUSINESSES]
        )
        for business in BUSINESSES:
            _add_receipts(app, folder, business, business.receipts, pictures)
        _add_sessions(app, 1, _SESSIONS)
        _add_images(app, folder, pictures)


def top_up_receipts(folder: Path, business: Business) -> int:
    """Add receipts until the business has as many as at first; returns how many were added."""
    with closing(sqlite3.connect(folder / "app.db")) as app, app:
        missing = business.receipts - count_receipts(app, business)
        if missing > 0:
            _add_receipts(app, folder, business, missing, small_pictures())
    return max(missing, 0)


def top_up_sessions(folder: Path) -> int:
    """Add sessions while too few are open to be closed; returns how many were added."""
    with closing(sqlite3.connect(folder / "app.db")) as app, app:
        query = "SELECT count(*) FROM sessions WHERE status = 'open' AND deleted_at IS NULL"
        if app.execute(query).fetchone()[0] >= _MIN_OPEN:
            return 0
        first: int = app.execute("SELECT coalesce(max(rowid), 0) + 1 FROM sessions").fetchone()[0]
        _add_sessions(app, first, _SESSIONS // 2)
    return _SESSIONS // 2


def top_up_images(folder: Path) -> int:
    """Add images until the largest client has as many as at first; returns how many were added."""
    client, count = CLIENTS[0]
    with closing(sqlite3.connect(folder / "app.db")) as app, app:
        query = "SELECT count(*) FROM images WHERE client_id = ?"
        missing = max(count - int(app.execute(query, (client,)).fetchone()[0]), 0)
        # A number is never used twice: the files and rows of those that went may still come back.
        query = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'images'"
        last: int = app.execute(query).fetchone()[0] or 0
        dice, pictures = dice_of(f"images {last}"), small_pictures()
        for number in range(last + 1, last + 1 + missing):
            _add_image(app, folder, client, number, pictures, dice)
    return missing


def count_receipts(app: sqlite3.Connection, business: Business) -> int:
    """Count the receipts of a business that are in sight."""
    statement = "SELECT count(*) FROM receipts WHERE business_id = ? AND is_deleted = 0"
    count: int = app.execute(statement, (business.id,)).fetchone()[0]
    return count


def _add_receipts(
    app: sqlite3.Connection, folder: Path, business: Business, count: int, pictures: list[bytes]
) -> None:
    first: int = app.execute("SELECT coalesce(max(id), 0) + 1 FROM receipts").fetchone()[0]
    dice = dice_of(f"{business.id} {first}")
    for receipt in range(first, first + count):
        number = f"{business.id[:3].upper()}-{receipt:06}"
        at, vendor, cents = _receipt(app, dice, business, receipt, number)
        place = f"{business.id}/{at[:7]}"
        lines = [business.name, f"Receipt {number}", at[:10], vendor, "", f"Total EUR {cents / 100:,.2f}"]
        files = [(f"{place}/{number}.pdf", "application/pdf", pdf(lines))]
        if dice.random() < 0.15:
            files.append((f"{place}/{number}.jpg", "image/jpeg", dice.choice(pictures)))
        for path, media_type, content in files:
            write(folder / "storage" / path, content)
            app.execute(
                "INSERT INTO attachments (receipt_id, path, media_type, bytes) VALUES (?, ?, ?, ?)",
                (receipt, path, media_type, len(content)),
            )


def _receipt(
    app: sqlite3.Connection, dice: random.Random, business: Business, receipt: int, number: str
) -> tuple[str, str, int]:
    vendor, category = dice.choice(_VENDORS)
    at, cents = moment(dice), int(dice.lognormvariate(8.2, 1.1)) + 95
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


def _add_sessions(app: sqlite3.Connection, first: int, count: int) -> None:
    dice = dice_of("sessions" if first == 1 else f"sessions {first}")
    for number in range(first, first + count):
        session, at = f"ses_{number:04}_{dice.randrange(16**8):08x}", moment(dice)
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
    dice = dice_of("images")
    for client, count in CLIENTS:
        for number in range(1, count + 1):
            _add_image(app, folder, client, number, pictures, dice)


def _add_image(
    app: sqlite3.Connection,
    folder: Path,
    client: str,
    number: int,
    pictures: list[bytes],
    dice: random.Random,
) -> None:
    path = f"{client}/{number:05}.jpg"
    write(folder / "images" / path, pictures[number % len(pictures)])
    app.execute(
        "INSERT INTO images (client_id, path, width, height, created_at) VALUES (?, ?, 192, 128, ?)",
        (client, path, moment(dice)),
    )
