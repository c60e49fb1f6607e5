"""The type information of structs is whole before threads use it."""

from __future__ import annotations

import bulkops.runtime
from bulkops.shapes import complete_shapes


def test_the_rows_and_bodies_of_the_house_are_completed() -> None:
    assert bulkops.runtime is not None
    assert complete_shapes() > 50
