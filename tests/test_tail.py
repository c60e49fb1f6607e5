"""What a tail hands out."""

from __future__ import annotations

from bulkops.store.events import EventRow
from bulkops.tail import newest_progress


def test_only_progress_that_is_replaced_is_dropped() -> None:
    rows = [
        EventRow(seq, kind, job, "}", 1)
        for seq, (kind, job) in enumerate(
            [("progress", "a"), ("started", "a"), ("progress", "b"), ("progress", "a"), ("changed", "a")]
        )
    ]
    assert [row.seq for row in newest_progress(rows)] == [1, 2, 3, 4]
