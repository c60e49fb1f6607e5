"""The demo's dossiers: a folder each, with a cover sheet, scans and letters; one is large, some hold a link.

What comes in: a root; what goes out: the dossiers that it lacks, the same every time. What exists stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from bulkops.demo_data.writing import dice_of, moment, small_pictures, write
from bulkops.demo_pictures import pdf

_NAMES: Final = (
    *("abel", "brandt", "castellan", "duarte", "eriksen", "fontaine"),
    *("gruber", "haddad", "ivanova", "jansen", "kowalski", "lindqvist"),
)
_COUNT: Final = 36
_LARGE: Final = 13
_LARGE_PAGES: Final = 300
#: Where a link in a dossier leads: out of it, to what no purge may touch.
_LINKED: Final = Path("..", "..", "projects", "2024-harvest")

#: All dossiers, and those that the demo purges: every second one.
DOSSIERS: Final = tuple(f"D-{number:03}-{_NAMES[number % 12 - 1]}" for number in range(1, _COUNT + 1))
PURGED: Final = DOSSIERS[::2]
#: One that is listed to be purged and is not there.
MISSING: Final = "D-999-nobody"


def add_dossiers(root: Path) -> int:
    """Make the dossiers that are not there; returns how many."""
    pictures = small_pictures()
    absent = [number for number, name in enumerate(DOSSIERS, 1) if not (root / name).exists()]
    for number in absent:
        _add(root / DOSSIERS[number - 1], number, pictures)
    return len(absent)


def _add(dossier: Path, number: int, pictures: list[bytes]) -> None:
    dice = dice_of(dossier.name)
    pages = _LARGE_PAGES if number == _LARGE else dice.randrange(5, 11)
    opened = moment(dice)
    about = {"dossier": dossier.name, "opened": opened, "pages": pages}
    write(dossier / "dossier.json", json.dumps(about, indent=2).encode())
    for page in range(1, pages + 1):
        write(dossier / "scans" / f"page-{page:03}.jpg", dice.choice(pictures))
    for letter in range(1, dice.randrange(2, 4)):
        text = pdf([f"Letter {letter}", dossier.name, opened[:10]])
        write(dossier / "letters" / opened[:4] / f"letter-{letter}.pdf", text)
    if number % 6 == 1:
        (dossier / "photos").symlink_to(_LINKED)
