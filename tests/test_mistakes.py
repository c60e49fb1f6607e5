"""What settings must not say; how each mistake is told, and where, is in test_configuration.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkops.mistakes import explain_segment


@given(st.text(max_size=5))
def test_a_url_segment_comes_back_from_a_url(name: str) -> None:
    if explain_segment(name) is None:
        assert name == name.strip() != ""
        assert not set(name) & set("/\\\0\n")
