"""What every test has: the asyncio backend of anyio, and a clock that tests move by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, at_ms: int = 1_767_225_600_000) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000

    def advance(self, seconds: float) -> None:
        self.at_ms += int(seconds * 1000)


class LeapingClock(HandClock):
    """A clock whose wall time can be set without any time passing."""

    def __init__(self) -> None:
        super().__init__()
        self.off_ms = 0

    def now_ms(self) -> int:
        return self.at_ms + self.off_ms

    def set_by(self, seconds: float) -> None:
        self.off_ms += int(seconds * 1000)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def chinook(tmp_path: Path) -> Path:
    """A copy of the Chinook sample database, a schema that nobody here wrote."""
    source = Path(__file__).parent / "data" / "chinook.sqlite"
    return Path(shutil.copy(source, tmp_path / "chinook.sqlite"))
