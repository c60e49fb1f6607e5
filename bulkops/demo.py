"""The demo's folder: made in a breath, used again safely, never somebody else's.

What comes in: where it should be; what goes out: a folder with an application to try bulkops on. A folder
that does not bear the demo's marker is refused unless it is empty; a marked one is only ever added to.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from bulkops import demo_data
from bulkops.demo_data import BUSINESSES, Business
from bulkops.errors import BulkopsError

_MARKER: Final = ".bulkops-demo"
_LAYOUT: Final = 1


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
            f"the demo in {folder} is another version's; remove it or choose another with --dir"
        )
    return False


def refill(folder: Path, business: Business) -> int:
    """Give a business of an earlier demo its receipts again, as new ones; returns how many were added.

    Raises:
        DemoRefused: the demo's database is not what it was.

    """
    try:
        return demo_data.top_up(folder, business)
    except sqlite3.Error as error:
        raise DemoRefused(f"{folder / 'app.db'} is not the demo's any more: {error}") from error


def _read_marker(folder: Path) -> _Marker | None:
    """Return the marker, ``None`` for a folder that is absent or empty.

    Raises:
        DemoRefused: it is another's folder.

    """
    try:
        return msgspec.json.decode((folder / _MARKER).read_bytes(), type=_Marker)
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
        demo_data.make(folder)
        _write_marker(folder, ready=True)
    except BaseException as error:
        if is_new:  # all that is in it was made just now
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | sqlite3.Error):
            raise DemoRefused(f"the demo cannot be made in {folder}: {error}") from error
        raise


def _write_marker(folder: Path, *, ready: bool) -> None:
    (folder / _MARKER).write_bytes(msgspec.json.encode(_Marker(_LAYOUT, ready)))


__all__ = ["BUSINESSES", "Business", "DemoRefused", "prepare", "refill"]
