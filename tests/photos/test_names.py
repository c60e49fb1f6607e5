"""What names of files say, and which names are none."""

from __future__ import annotations

import pytest

from bulkops.resources.photos import names
from bulkops.resources.photos.names import Kind


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("IMG_1.JPG", ("IMG_1", Kind.JPG)),
        ("img_1.jpeg", ("img_1", Kind.JPG)),
        ("a.b.CR2", ("a.b", Kind.RAW)),
        ("x.Raw", ("x", Kind.RAW)),
        ("x.NEF", ("x", Kind.RAW)),
        ("x.ARW", ("x", Kind.RAW)),
        ("x.dng", ("x", Kind.RAW)),
        ("ñandú 日本.jpg", ("ñandú 日本", Kind.JPG)),
        ("x.txt", None),
        ("jpg", None),
        (".jpg", None),
        (".x.jpg", None),
        ("x.", None),
        ("x.jpg.part", None),
        ("a/b.jpg", None),
        ("bad\udcff.jpg", None),
        ("", None),
    ],
)
def test_an_ending_in_any_case_says_the_kind(name: str, parts: tuple[str, Kind] | None) -> None:
    assert names.split(name) == parts


@pytest.mark.parametrize("name", ["", ".", "..", ".trash", "a/b", "a\0b", "x" * 256, "\ud800", None, 3, b"x"])
def test_what_is_no_name_is_explained(name: object) -> None:
    assert names.explain(name)


@pytest.mark.parametrize("name", ["p", "a b", "ñ", "x" * 255, "a.b", "a\\b", "-rf", "~"])
def test_whatever_else_a_folder_may_be_called_is_fine(name: str) -> None:
    assert names.explain(name) is None


def test_photos_are_named_once_and_in_order() -> None:
    assert names.bases_of(["b.jpg", "a.CR2", "b.NEF", "odd.txt"]) == ["b", "a", "odd.txt"]


@pytest.mark.parametrize("text", ["p/IMG_1", "p/.trash/IMG_1.JPG", "a b/c.d"])
def test_what_has_no_row_is_named_by_project_and_name(text: str) -> None:
    assert names.reference(*names.parse_reference(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p",
        "p/",
        "/x",
        "../x",
        "p/..",
        "p/a/b",
        ".trash/x",
        "p/.trash/",
        "p/.trash/../x",
        "p/.trash/a/b",
        "p/.x",
    ],
)
def test_nothing_else_is_such_a_name(text: str) -> None:
    with pytest.raises(ValueError, match="neither an id of a row"):
        names.parse_reference(text)
