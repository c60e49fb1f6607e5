"""The three weights of a finding, as values that inspections make: severity, place, sentence.

An ``error`` makes jobs fail or act on the wrong rows; a ``warning`` is likely to surprise; a ``note`` is
good to know.
"""

from __future__ import annotations

from typing import Literal

from bulkops.places import KeyPath

Severity = Literal["error", "warning", "note"]
Remark = tuple[Severity, KeyPath, str]


def error(path: KeyPath, message: str) -> Remark:
    return "error", path, message


def warning(path: KeyPath, message: str) -> Remark:
    return "warning", path, message


def note(path: KeyPath, message: str) -> Remark:
    return "note", path, message
