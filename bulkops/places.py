"""Places in a TOML text: which line a key stands on, and how keys and texts are written.

What comes in: a text that is valid TOML, and a path of keys; what goes out: a line number, or TOML. Only
messages and drafts are made from this, so a place that is not found is an answer, never an error.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

#: Where a value stands: keys, and places (from 0) in arrays of tables.
KeyPath = tuple[str | int, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
#: What a value is made of (toml.io v1.0.0): texts of four kinds, comments, brackets, line ends, the rest.
_PIECE: Final = re.compile(
    r"""\"{3}(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*'
      | \#[^\n]* | [\[\]{}] | \n | [^\[\]{}\n"'\#]+""",
    re.DOTALL | re.VERBOSE,
)
_ASSIGNMENT: Final = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")


def find_line(text: str, path: KeyPath) -> int | None:
    """Return the line (from 1) of a key, or of the nearest table around it; ``None`` when it is nowhere.

    ``text`` must be valid TOML.
    """
    return nearest_line(index_lines(text), path)


def nearest_line(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Find a path among `index_lines`: the key, else what is first inside it, else the table around it."""
    while path:
        inside = [line for found, line in lines.items() if found[: len(path)] == path]
        if inside:
            return lines.get(path, min(inside))
        path = path[:-1]
    return None


def dotted(path: KeyPath) -> str:
    """Write a path as the file would: ``resources."my table".children[0].key``."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            written += f".{quote_key(part)}"
    return written.removeprefix(".")


def quote_key(key: str) -> str:
    """Write a TOML key, bare where it may be."""
    return key if _BARE_KEY.fullmatch(key) else quote_text(key)


def quote_text(text: str) -> str:
    """Write a TOML basic string (toml.io v1.0.0, String)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    # What cannot be seen is escaped too: a name must not be able to reorder or hide the rest of its line.
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in escaped) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def index_lines(text: str) -> dict[KeyPath, int]:
    """Map every header and assignment of a valid TOML text to its line; the first mention counts."""
    found: dict[KeyPath, int] = {}
    arrays: dict[KeyPath, int] = {}
    header: KeyPath = ()
    lines = text.replace("\r\n", "\n").split("\n")
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        if line.lstrip().startswith("["):
            header = _read_header(line, arrays)
            found.setdefault(header, start + 1)
        elif assignment := _ASSIGNMENT.match(line):
            number = start + _count_lines("\n".join(lines[start:])[assignment.end() :])
            found.setdefault((*header, *_keys(f"{assignment[1]} = 0")), start + 1)
    return found


def _read_header(line: str, arrays: dict[KeyPath, int]) -> KeyPath:
    keys = _keys(line)
    path: KeyPath = ()
    for place, key in enumerate(keys):
        path = (*path, key)
        if place == len(keys) - 1 and line.lstrip().startswith("[["):
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path = (*path, arrays[path])
    return path


def _keys(line: str) -> tuple[str, ...]:
    """Read the keys of a header or an assignment, by letting tomllib read that line alone."""
    keys: list[str] = []
    value: Any = tomllib.loads(line)
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        keys.append(key)
        value = value[0] if isinstance(value, list) else value
    return tuple(keys)


def _count_lines(text: str) -> int:
    """Count the lines of the value that the text begins with."""
    depth = 0
    lines = 0
    for found in _PIECE.finditer(text):
        piece = found[0]
        depth += (piece in {"[", "{"}) - (piece in {"]", "}"})
        lines += piece.count("\n")
        if piece == "\n" and depth == 0:
            return lines
    return lines + 1
