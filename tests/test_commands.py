"""What a client may say over the WebSocket."""

from __future__ import annotations

from bulkops.feed import Topic
from bulkops.web.live.commands import choose_subprotocol, parse_topic


def test_subprotocols_are_chosen_so_that_a_browser_learns_the_code() -> None:
    assert choose_subprotocol(["x", "bulkops.v1"]) == ("bulkops.v1", True)
    assert choose_subprotocol([]) == (None, True)
    assert choose_subprotocol(["bulkops.ticket.t", "x"]) == ("x", False)
    assert choose_subprotocol(["bulkops.ticket.t"]) == (None, False)


def test_topics_are_read_strictly() -> None:
    assert parse_topic({"kind": "job", "job": "J"}) == Topic("job", "J")
    assert parse_topic({"kind": "task", "task_id": "T"}) == Topic("task", "T")
    assert parse_topic({"kind": "tenant"}) == Topic("tenant")
