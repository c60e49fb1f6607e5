"""Pictures and documents made without libraries: other programs must be able to read them."""

from __future__ import annotations

import io
import re

import pytest

from bulkops.demo_pictures import jpeg, pdf, photo


def test_a_picture_can_be_decoded_and_has_its_size_and_colours() -> None:
    image = pytest.importorskip("PIL.Image")
    with image.open(io.BytesIO(jpeg(24, 16, 3))) as picture:
        picture.load()
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (192, 128), "RGB")
        assert len({picture.getpixel((x, y)) for x in range(0, 192, 8) for y in range(0, 128, 8)}) > 50


def test_every_seed_is_another_picture_and_always_the_same() -> None:
    pictures = {jpeg(8, 8, seed) for seed in range(12)}
    assert len(pictures) == 12
    assert pictures == {jpeg(8, 8, seed) for seed in range(12)}


def test_pictures_of_any_number_of_blocks_can_be_decoded() -> None:
    image = pytest.importorskip("PIL.Image")
    for columns, rows in ((1, 1), (1, 7), (31, 2)):
        with image.open(io.BytesIO(jpeg(columns, rows, 5))) as picture:
            picture.load()
            assert picture.size == (columns * 8, rows * 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_for_whoever_respects_its_orientation(orientation: int) -> None:
    image, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")

    def upright(kept_as: int) -> tuple[tuple[int, int], bytes]:
        with image.open(io.BytesIO(photo(12, 9, 1, kept_as))) as picture:
            assert picture.getexif()[0x0112] == kept_as
            stored = picture.size
            shown = ops.exif_transpose(picture)
        assert shown.size == (96, 72)
        return stored, shown.tobytes()

    stored, shown = upright(orientation)
    assert stored == ((96, 72) if orientation < 5 else (72, 96))
    assert shown == upright(1)[1]
    top, bottom = shown[: 96 * 3], shown[-96 * 3 :]
    assert sum(top[2::3]) > sum(bottom[2::3]), "the sky is above"


def test_a_document_says_where_its_objects_are() -> None:
    document = pdf(["Receipt (1)", "back\\slash", "Zürich"])
    table = int(document.rpartition(b"startxref\n")[2].split()[0])
    assert document[table:].startswith(b"xref\n0 6\n")
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", document), 1):
        assert document[int(place) :].startswith(b"%d 0 obj" % number)
    assert rb"(Receipt \(1\)) Tj" in document
    found = re.search(rb"/Length (\d+)>>\nstream\n(.*)\nendstream", document, re.DOTALL)
    assert found is not None
    assert len(found[2]) == int(found[1])
