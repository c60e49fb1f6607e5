"""Names as ids: every name a file system holds has one id, and every id is one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.resources.folder.names import is_ours, name_of, read_id, write_id

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(NAMES)
def test_every_name_comes_back_from_its_id(name: bytes) -> None:
    item = write_id(name)
    item.encode()  # it can be stored and sent
    assert item == item.strip()
    assert "\n" not in item
    assert read_id(item) == item
    assert name_of(item) == name


@given(NAMES, NAMES)
def test_no_two_names_have_the_same_id(one: bytes, other: bytes) -> None:
    assert (write_id(one) == write_id(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "item"),
    [
        (b"case 17, new.pdf", "case 17, new.pdf"),
        (b"50%", "50%25"),
        (b"-rf", "-rf"),
        (b" x ", "%20x%20"),
        (b"a\nb", "a%0Ab"),
        (b"\xff", "%FF"),
        ("Jürgen".encode(), "Jürgen"),
        ("\u202egpj.exe".encode(), "%E2%80%AEgpj.exe"),
    ],
)
def test_only_what_a_line_cannot_hold_is_encoded(name: bytes, item: str) -> None:
    assert write_id(name) == item


@pytest.mark.parametrize("wire", ["", ".", "..", "a/b", "%2F", "a%00", "%41", "50%", "%ff", "x" * 256, "%2E"])
def test_what_no_entry_is_called_is_no_id(wire: str) -> None:
    with pytest.raises(ValueError, match="this"):
        read_id(wire)


def test_a_number_is_the_name_it_spells() -> None:
    assert read_id(17) == "17"


@pytest.mark.parametrize("name", [b".bulkops-trash", b".BULKOPS-x.part"])
def test_what_this_program_makes_is_its_own(name: bytes) -> None:
    assert is_ours(name)
    assert not is_ours(b"x" + name)
