"""Damage in JPEGs that decoders draw over: seen where it is, and nowhere else."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from bulkops.resources.photos.damage import find_damage
from tests.photos.studio import damaged, samples


def made(**options: object) -> bytes:
    """Make a JPEG with much in it."""
    out = io.BytesIO()
    picture = Image.frombytes("RGB", (200, 200), os.urandom(200 * 200 * 3))
    picture.save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3, "progressive": True},
     {"comment": b"\xff\x9f in a comment", "quality": 30}],
    ids=["plain", "progressive", "restarts", "both", "comment"],
)  # fmt: skip
def test_a_whole_picture_has_none(options: dict[str, object]) -> None:
    assert find_damage(made(**options)) is None


def test_cameras_pictures_have_none_whatever_stands_behind_them() -> None:
    for photo in samples("*_[1-8].jpg"):
        content = photo.read_bytes()
        assert find_damage(content) is None
        assert find_damage(content + b"\xff\x9f and a second picture\xff\xd8") is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"no jpeg \xff\x9f", b"\xff\xd8" * 9]
)
def test_what_is_no_picture_at_all_is_left_to_the_decoder(content: bytes) -> None:
    assert find_damage(content) is None


def test_a_reserved_marker_within_the_picture_is_damage() -> None:
    photo = samples("landscape_1.jpg")[0]
    middle = photo.stat().st_size * 2 // 3
    assert find_damage(damaged(photo)) == f"damaged: the reserved marker 0x9F at byte {middle}"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_part_that_is_missing_between_two_restarts_is_damage(progressive: bool) -> None:
    content = made(restart_marker_rows=1, progressive=progressive)
    first, second = (content.index(marker) for marker in (b"\xff\xd2", b"\xff\xd3"))
    told = find_damage(content[:first] + content[second:])
    assert told == f"damaged: a restart marker is out of turn at byte {first}"


@pytest.mark.parametrize("cut", range(0, 3000, 61))
def test_a_file_that_just_ends_raises_nothing(cut: int) -> None:
    content = made()
    assert find_damage(content[:cut]) is None


def test_noise_raises_nothing() -> None:
    for _ in range(200):
        find_damage(b"\xff\xd8\xff\xda\x00\x02" + os.urandom(500))
