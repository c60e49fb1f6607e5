"""What a benchmark is: a name, a goal, and a function that measures; and the arithmetic they share."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Literal

Sense = Literal["<=", ">="]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured: the whole table's numbers, or a quick look at a fraction of them."""

    quick: bool
    repeats: int

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


FULL: Final = Scale(quick=False, repeats=3)
QUICK: Final = Scale(quick=True, repeats=1)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A measured number beside its goal; ``baseline`` and ``detail`` say what it was measured against."""

    what: str
    value: float
    unit: str
    goal: float
    sense: Sense
    baseline: str = ""
    detail: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.goal if self.sense == "<=" else self.value >= self.goal


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be measured here, and why."""

    what: str
    reason: str


Found = Sequence[Finding | Skipped]


@dataclass(frozen=True)
class Benchmark:
    """A row or two of the table; ``measure`` works in an empty folder that is its own."""

    name: str
    measure: Callable[[Path, Scale], Found]


@dataclass
class Stopwatch:
    """Seconds that a block took, set when it is left."""

    began: float
    seconds: float = 0.0

    def so_far(self) -> float:
        """Return the seconds since the block was entered."""
        return time.perf_counter() - self.began


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Time a block; garbage of whatever ran before is collected first."""
    gc.collect()
    watch = Stopwatch(time.perf_counter())
    try:
        yield watch
    finally:
        watch.seconds = watch.so_far()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed (nearest rank); 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> str:
    """Write the median of repeated measurements, and between which bounds they lay."""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def rate(items: int, seconds: float) -> str:
    """Write a rate, items a second."""
    return f"{items / seconds:,.0f}/s" if seconds else "none"
