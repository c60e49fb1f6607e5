"""What every test has: the asyncio backend of anyio, a clock that tests move by hand, a store of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkops.store.store import Store
from tests.doors import Doors, opened_doors
from tests.store_house import opened_store


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
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    """A newborn store in the test's own folder."""
    async with opened_store(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
async def doors(tmp_path: Path, clock: HandClock) -> AsyncIterator[Doors]:
    """The application's doors, before a service that only remembers what it was asked."""
    async with opened_doors(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
def chinook(tmp_path: Path) -> Path:
    """A copy of the Chinook sample database, a schema that nobody here wrote."""
    source = Path(__file__).parent / "data" / "chinook.sqlite"
    return Path(shutil.copy(source, tmp_path / "chinook.sqlite"))
