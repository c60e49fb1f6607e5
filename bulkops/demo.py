"""The demo's folder: made in a breath, used again safely, never somebody else's.

What comes in: where it should be; what goes out: a folder with an application to try bulkops on. A folder
that does not bear the demo's marker is refused unless it is empty; a marked one is only ever added to.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bulkops.demo_data import dossiers, photos, tables
from bulkops.demo_data.config import CONFIG
from bulkops.demo_data.tables import BUSINESSES, Business
from bulkops.errors import BulkopsError
from bulkops.shapes import whole

_MARKER: Final = ".bulkops-demo"
#: Raised whenever what is made changes; 1 had neither dossiers nor photos in its config.
_LAYOUT: Final = 2


class DemoRefused(BulkopsError):
    """The folder is not the demo's to use."""

    code = "demo"


class _Marker(msgspec.Struct, frozen=True):
    layout: int
    ready: bool


def prepare(folder: Path) -> bool:
    """Make the demo in ``folder``, or find the one that is there; returns whether it was made now.

    Raises:
        DemoRefused: something else lies there, or a demo that was left half made or is of another version.

    """
    marker = _read_marker(folder)
    if marker is None:
        _make(folder)
        return True
    if not marker.ready:
        raise DemoRefused(f"the demo in {folder} was left half made; remove the folder and try again")
    if marker.layout != _LAYOUT:
        raise DemoRefused(
            f"the demo in {folder} is of layout {marker.layout}, made by another version (this one has"
            f" {_LAYOUT}); remove the folder or choose another with --dir"
        )
    return False


def refill(folder: Path, business: Business) -> int:
    """Give a business of an earlier demo its receipts again, as new ones; returns how many were added.

    Raises:
        DemoRefused: the demo's database is not what it was.

    """
    with _telling(folder / "app.db"):
        return tables.top_up_receipts(folder, business)


def refill_sessions(folder: Path) -> int:
    """Add sessions when most are closed; returns how many; raises as `refill`."""
    with _telling(folder / "app.db"):
        return tables.top_up_sessions(folder)


def refill_images(folder: Path) -> int:
    """Give the largest client new images for those that went; returns how many; raises as `refill`."""
    with _telling(folder / "app.db"):
        return tables.top_up_images(folder)


def refill_dossiers(folder: Path) -> int:
    """Make the dossiers again that went; returns how many; raises as `refill`."""
    with _telling(folder / "dossiers_data"):
        return dossiers.add_dossiers(folder / "dossiers_data")


def decide_on_photos(folder: Path) -> int:
    """Choose photos to give up, as whoever sorts them would; returns how many more; raises as `refill`."""
    with _telling(folder / "photos.db"):
        return photos.decide(folder)


def upload_photos(folder: Path) -> list[str]:
    """Put new photos into the demo's project; returns the files' names; raises as `refill`."""
    with _telling(folder / "photos.db"):
        return photos.upload(folder)


@contextmanager
def _telling(what: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise DemoRefused(f"{what} is not the demo's any more: {error}") from error


def _read_marker(folder: Path) -> _Marker | None:
    """Return the marker, ``None`` for a folder that is absent or empty.

    Raises:
        DemoRefused: it is another's folder.

    """
    try:
        return msgspec.json.decode((folder / _MARKER).read_bytes(), type=whole(_Marker))
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError) as error:
        raise DemoRefused(f"{folder / _MARKER} cannot be read: {error}") from error
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoRefused(f"{folder} holds something that the demo did not make; choose another with --dir")
    return None


def _make(folder: Path) -> None:
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_marker(folder, ready=False)
        _fill(folder)
        _write_marker(folder, ready=True)
    except BaseException as error:
        if is_new:  # all that is in it was made just now
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | sqlite3.Error):
            raise DemoRefused(f"the demo cannot be made in {folder}: {error}") from error
        raise


def _fill(folder: Path) -> None:
    tables.make_tables(folder)
    dossiers.add_dossiers(folder / "dossiers_data")
    photos.make_photos(folder)
    (folder / "bulkops.toml").write_text(CONFIG, encoding="utf-8")


def _write_marker(folder: Path, *, ready: bool) -> None:
    (folder / _MARKER).write_bytes(msgspec.json.encode(_Marker(_LAYOUT, ready)))


__all__ = [
    "BUSINESSES",
    "Business",
    "DemoRefused",
    "decide_on_photos",
    "prepare",
    "refill",
    "refill_dossiers",
    "refill_images",
    "refill_sessions",
    "upload_photos",
]
