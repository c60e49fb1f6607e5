"""Actions on photos keep the contract of every resource: the suite of `bulkops.testing`, over five of them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bulkops import Bulkops
from bulkops.testing import CHECKS, Check, Subject, Unsupported
from tests.photos.studio import CONFIG, Studio, samples

_SPOILT = [
    "CREATE TABLE spoilt (id INTEGER PRIMARY KEY)",
    *(
        f"CREATE TRIGGER no_{verb} BEFORE {verb} ON photos WHEN old.id IN (SELECT id FROM spoilt)"
        f" BEGIN SELECT RAISE(ABORT, 'it stays'); END"
        for verb in ("UPDATE", "DELETE")
    ),
]
#: What a photo's row and files are like before an action has something to do to it.
_BEFORE: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "file_removal": ({"keep_jpg": 0, "keep_raw": 0, "raw_available": 1}, ("JPG", "CR2")),
    "revert": ({"keep_jpg": 0}, ("JPG",)),
    "manifest_check": ({"jpg_available": 0}, ("JPG",)),
    "manifest_cleaning": ({"jpg_available": 0}, ()),
    "generate_derivatives": ({}, ("jpg",)),
}
_FINAL = {"manifest_check", "generate_derivatives"}


class PhotosSubject(Subject):
    """Photos of one project, each with something left to do."""

    resource = "photos"

    def __init__(self, folder: Path, action: str) -> None:
        self.action = action
        self.reversible = action not in _FINAL
        self._studio = Studio(folder)
        for statement in _SPOILT:
            self._studio.sql(statement)
        self._studio.put("p", "notes.txt", b"the folder is there")
        for number in range(8):
            self._put(f"IMG_{number}")

    def _put(self, base: str) -> str:
        flags, endings = _BEFORE[self.action]
        for ending in endings:
            self._studio.put("p", f"{base}.{ending}", samples("landscape_1.jpg")[0])
        return str(self._studio.add("p", base, **flags))

    def house(self) -> Bulkops:
        return Bulkops(tomllib.loads(CONFIG), base=self._studio.folder)

    def _base(self, item: str) -> str:
        return str(self._studio.sql("SELECT base FROM photos WHERE id = ?", int(item))[0][0])

    def look(self) -> dict[str, Any]:
        places = [self._studio.projects / "p"]
        if self.action == "generate_derivatives":
            # Elsewhere they are not the action's: an undo has them made again by a job of its own.
            places.append(self._studio.projects / "p" / ".thumb")
        seen = {}
        for row in self._studio.rows():
            # Looked at, not followed: a link may stand there.
            files = [path for place in places for path in place.glob(f"{row[2]}.*")]
            seen[str(row[0])] = (row[1:], sorted((str(path), path.lstat().st_size) for path in files))
        return seen

    def add(self) -> str:
        return self._put("late")

    def take_away(self, item: str) -> None:
        for path in (self._studio.projects / "p").glob(f"{self._base(item)}.*"):
            path.unlink()
        self._studio.sql("DELETE FROM photos WHERE id = ?", int(item))

    def spoil(self, item: str) -> None:
        if self.action == "generate_derivatives":
            self._studio.put("p", f"{self._base(item)}.jpg", b"no picture")
        elif self.action == "file_removal":
            path = self._studio.projects / "p" / f"{self._base(item)}.CR2"
            path.unlink()
            path.symlink_to("/etc/hostname")
        else:
            self._studio.sql("INSERT INTO spoilt VALUES (?)", int(item))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "action",
    [
        "file_removal",
        "generate_derivatives",
        # The same batches as those above, or a table's own.
        *(
            pytest.param(action, marks=pytest.mark.soak)
            for action in ("revert", "manifest_check", "manifest_cleaning")
        ),
    ],
)
async def test_an_action_on_photos_keeps_the_contract(action: str, check: Check, tmp_path: Path) -> None:
    try:
        await check(PhotosSubject(tmp_path, action))
    except Unsupported as reason:
        pytest.skip(str(reason))
