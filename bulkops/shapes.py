"""Completes what msgspec knows of a struct before two threads can meet it half known.

msgspec fills a struct's type information when it is first decoded, and does not guard that: of two threads
that decode the same struct for the first time at once, one can find it half filled, and the process ends
with SIGSEGV (seen with msgspec 0.22.0). So whatever may run beside another thread names a struct only
through `whole`, which costs a look-up once it is known.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Final, TypeVar, overload

import msgspec

T = TypeVar("T")

_one_at_a_time: Final = threading.Lock()


@overload
def whole(kind: type[T]) -> type[T]: ...
@overload
def whole(kind: Any) -> Any: ...
def whole(kind: Any) -> Any:
    """Return ``kind``, a struct or what holds structs, once msgspec knows all of it.

    Raises:
        TypeError: it has a field that cannot be decoded.

    """
    _fill(kind)
    return kind


@cache
def _fill(kind: Any) -> None:
    # Two that ask at once both come by, one after the other; structs inside are filled in here too.
    with _one_at_a_time:
        msgspec.json.Decoder(kind)
