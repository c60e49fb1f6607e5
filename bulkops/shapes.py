"""Completes what msgspec knows of our structs while one thread runs.

msgspec fills a struct's type information on first use; two threads that decode the same struct for the
first time at once can meet it half filled, and the process ends with SIGSEGV (seen with msgspec 0.22.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec


def complete_shapes() -> int:
    """Build the type information of every struct of this package; return how many can be decoded."""
    complete = 0
    known: dict[tuple[str, str], Any] = {}
    for shape in _shapes(msgspec.Struct):
        if shape.__module__.startswith("bulkops"):
            _resolve(shape, known)
            # Structs that never cross a wire may hold what cannot be decoded.
            with suppress(TypeError, NameError):
                msgspec.json.Decoder(shape)
                complete += 1
    return complete


def _resolve(shape: type[msgspec.Struct], known: dict[tuple[str, str], Any]) -> None:
    """Put the types in place of their names, which msgspec looks up one by one, most of them many times over."""
    module = shape.__module__
    for field, name in shape.__annotations__.items():
        if not isinstance(name, str):
            continue
        if (module, name) not in known:
            try:
                known[module, name] = eval(name, vars(sys.modules[module]))  # noqa: S307  text of this package
            except (NameError, TypeError):
                # A name that type checkers alone can see; msgspec says so where somebody decodes it.
                known[module, name] = name
        shape.__annotations__[field] = known[module, name]


def _shapes(root: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for shape in root.__subclasses__():
        yield shape
        yield from _shapes(shape)
