"""The completion report: what became of each item, as lines of CSV or JSON.

Pages of results come in, bytes go out; the CSV holds nothing that a spreadsheet would calculate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from bulkops import cells
from bulkops.models import ItemResult

COLUMNS: Final = ("id", "outcome", "code", "message")


def csv_lines(results: Sequence[ItemResult]) -> bytes:
    """Write results as CSV lines without the head."""
    text = "".join(cells.line((each.id, each.outcome, each.code, each.message)) for each in results)
    return text.encode("utf-8", "backslashreplace")


def ndjson_lines(results: Sequence[ItemResult]) -> bytes:
    """Write results as lines of JSON."""
    return _LINES.encode_lines(results)


_LINES: Final = msgspec.json.Encoder()
#: Format → how it begins, and how a page of results is written.
FORMATS: Final[dict[str, tuple[bytes, Callable[[Sequence[ItemResult]], bytes]]]] = {
    "csv": (cells.line(COLUMNS).encode(), csv_lines),
    "ndjson": (b"", ndjson_lines),
}
