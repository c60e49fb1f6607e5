"""The type information of structs is whole before threads use it."""

from __future__ import annotations

import typing

import msgspec

import bulkops.runtime
from bulkops.shapes import _shapes, complete_shapes


def test_the_rows_and_bodies_of_the_house_are_completed() -> None:
    assert bulkops.runtime is not None
    assert complete_shapes() > 50


def test_a_struct_has_the_types_that_its_annotations_name() -> None:
    complete_shapes()
    unresolved = 0
    for shape in _shapes(msgspec.Struct):
        if not shape.__module__.startswith("bulkops"):
            continue
        for field, found in shape.__annotations__.items():
            if isinstance(found, str):
                unresolved += 1
                continue
            hint = typing.get_type_hints(shape, include_extras=True)[field]
            # A name inside an alias is looked up later, by msgspec as by typing.
            assert found == hint or "'" in repr(found), (shape, field)
    assert unresolved < 20
