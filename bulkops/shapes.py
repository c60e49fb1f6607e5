"""Completes what msgspec knows of our structs while one thread runs.

msgspec fills a struct's type information on first use; two threads that decode the same struct for the
first time at once can meet it half filled, and the process ends with SIGSEGV (seen with msgspec 0.22.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec


def complete_shapes() -> int:
    """Build the type information of every struct of this package; return how many can be decoded."""
    complete = 0
    for shape in _shapes(msgspec.Struct):
        if shape.__module__.startswith("bulkops"):
            # Structs that never cross a wire may hold what cannot be decoded.
            with suppress(TypeError, NameError):
                msgspec.json.Decoder(shape)
                complete += 1
    return complete


def _shapes(root: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for shape in root.__subclasses__():
        yield shape
        yield from _shapes(shape)
