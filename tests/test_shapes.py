"""Nothing decodes a struct that another thread may be about to decode for the first time."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import bulkops
from bulkops.shapes import whole

#: Calls of msgspec that take a type, and which of their arguments it is.
_TAKES = {"convert": 1, "decode": 1, "Decoder": 0}
#: Types without a field have nothing to complete; `shape` is a tuple of such (`service/pages.py`).
_PLAIN = {
    "Any",
    "bool",
    "bytes",
    "dict",
    "float",
    "Id",
    "int",
    "list",
    "None",
    "set",
    "str",
    "tuple",
    "shape",
}

# Structs of a shape that has crashed at the first attempt, every time, without `whole`.
_STORM = """
import sys, threading, msgspec
from bulkops.shapes import whole

sys.setswitchinterval(1e-6)
for turn in range(150):
    inner = [msgspec.defstruct(f"Inner{n}", [(f"a{i}", int | None, None) for i in range(12)]) for n in range(6)]
    outer = msgspec.defstruct("Outer", [(f"f{n}", list[kind] | None, None) for n, kind in enumerate(inner)])
    line = threading.Barrier(8)

    def decode():
        line.wait()
        msgspec.json.decode(b'{"f0": [{"a0": 1}]}', type=whole(outer))

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_decode_a_struct_for_the_first_time_at_once() -> None:
    assert subprocess.run([sys.executable, "-c", _STORM], check=False).returncode == 0


class Pair(msgspec.Struct):
    left: int
    right: list[Pair]


def test_what_is_completed_is_handed_through() -> None:
    assert whole(Pair) is Pair
    assert whole(list[int]) == list[int]


def test_what_cannot_be_decoded_is_refused() -> None:
    class Odd(msgspec.Struct):
        either: list[int] | set[int]

    with pytest.raises(TypeError):
        whole(Odd)


def test_every_struct_is_decoded_whole() -> None:
    unguarded = []
    for path in Path(bulkops.__file__).parent.rglob("*.py"):
        if path.name != "shapes.py":
            unguarded += [f"{path.name}: {kind}" for kind in _kinds(path) if not kind.startswith("whole(")]
    assert unguarded == []


def _kinds(path: Path) -> Iterator[str]:
    """The types that a module has msgspec decode, but for those that hold no struct."""
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if not ast.unparse(call.func).startswith("msgspec.") or call.func.attr not in _TAKES:
            continue
        named = [each.value for each in call.keywords if each.arg == "type"]
        for kind in named or call.args[_TAKES[call.func.attr] :][:1]:
            if {each.id for each in ast.walk(kind) if isinstance(each, ast.Name)} - _PLAIN:
                yield ast.unparse(kind)
