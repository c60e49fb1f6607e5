"""Thumbnails and previews of a photo: upright whatever way the camera was held, without its metadata.

A file comes in, JPEGs come out. Pillow is imported when the first picture is made. A file that is no picture,
damaged or far too large is a `PictureError` with the reason, and costs nobody else anything.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

from bulkops.resources.photos.damage import find_damage

#: Pixels beyond which a file is a bomb, or nothing that a thumbnail is worth the memory of.
MAX_PIXELS: Final = 170_000_000
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_ORIENTATION: Final = 0x0112
_QUALITY: Final = 85


class PictureError(Exception):
    """No derivatives can be made of the file, and why."""


class PillowMissing(Exception):
    """Pillow is not installed."""

    def __init__(self) -> None:
        super().__init__("Pillow is not installed; pip install 'bulkops[photos]' brings it")


def make(file: BinaryIO, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Make a JPEG for each name, its longer side at most so many pixels; never larger than the photo.

    Raises:
        PictureError: the file is no whole picture, or too large.
        PillowMissing: as it says.
    """
    try:
        from PIL import Image  # slow to load, and an extra
    except ImportError as error:
        raise PillowMissing from error
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise PictureError(f"larger than {MAX_FILE_BYTES // 1024 // 1024} MiB")
    damage = find_damage(data)
    if damage is not None:
        raise PictureError(damage)
    largest = max(sizes.values())
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            upright = _upright(opened, largest)
        return {name: _encoded(upright, size) for name, size in sizes.items()}
    except PictureError:
        raise
    except Exception as error:  # a decoder raises whatever it stumbles over
        raise PictureError(_reason(error)) from error


def _upright(opened: Any, largest: int) -> Any:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{width:,} by {height:,} pixels are too many")
    turn = _turn(opened)
    # A JPEG is decoded at the size that is needed, which spares most of the work and memory.
    opened.draft("RGB", (largest, largest))
    opened.load()
    opened.thumbnail((largest, largest))
    upright = opened if turn is None else opened.transpose(turn)
    if upright.mode in ("RGBA", "LA", "PA", "P"):
        return _on_white(upright.convert("RGBA"))
    return upright if upright.mode in ("RGB", "L") else upright.convert("RGB")


def _turn(opened: Any) -> Any:
    """Read how to turn the picture; metadata that cannot be read leave it as it is."""
    from PIL import Image  # as above

    try:
        orientation = opened.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001  broken metadata are no broken picture
        return None
    method = Image.Transpose
    return {
        2: method.FLIP_LEFT_RIGHT,
        3: method.ROTATE_180,
        4: method.FLIP_TOP_BOTTOM,
        5: method.TRANSPOSE,
        6: method.ROTATE_270,
        7: method.TRANSVERSE,
        8: method.ROTATE_90,
    }.get(orientation)


def _on_white(picture: Any) -> Any:
    from PIL import Image  # as above

    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def _encoded(upright: Any, size: int) -> bytes:
    picture = upright.copy()
    picture.thumbnail((size, size))
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=_QUALITY, icc_profile=upright.info.get("icc_profile"))
    return made.getvalue()


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if name == "UnidentifiedImageError":
        return "it is no picture that can be read"
    if name == "DecompressionBombError":
        return "its pixels are too many"
    return f"it cannot be decoded: {error}" if str(error) else f"it cannot be decoded: {name}"
