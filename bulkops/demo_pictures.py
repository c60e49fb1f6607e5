"""Small pictures and documents for the demo: real JPEG and PDF bytes, made without any library.

What comes in: numbers and a line of text; what goes out: bytes that viewers open. Each block of 8 by 8
pixels has one colour, so that only the DC coefficients of ITU-T T.81 (baseline JPEG) are ever coded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

#: ITU-T T.81 table K.3: how many DC codes have 1, 2, … 16 bits; their values are 0 … 11.
_DC_LENGTHS: Final = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
_QUANTUM: Final = 8

Colour = tuple[int, int, int]


#: Blocks line by line, as they are shown.
Grid = Sequence[Sequence[Colour]]


def jpeg(columns: int, rows: int, seed: int) -> bytes:
    """Draw a soft pattern of ``columns`` by ``rows`` blocks; the same seed is the same picture."""
    return _encode(_pattern(columns, rows, seed), b"")


def photo(columns: int, rows: int, scene: int, orientation: int = 1) -> bytes:
    """Draw a landscape of ``columns`` by ``rows`` blocks, as a camera that was held otherwise stores it.

    ``orientation`` is the tag of that name, 1 to 8 (Exif 2.32, 4.6.5.1.6): who respects it shows the sky above.
    """
    turned = _stored(_landscape(columns, rows, scene), orientation)
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return _encode(turned, _segment(0xE1, b"Exif\0\0" + tiff))


def _encode(grid: Grid, metadata: bytes) -> bytes:
    scan = _scan(block for line in grid for block in line)
    frame = struct.pack(">BHHB", 8, len(grid) * 8, len(grid[0]) * 8, 3) + bytes(
        value for component in (1, 2, 3) for value in (component, 0x11, 0)
    )
    dc = bytes((0x00, *_DC_LENGTHS, *range(12)))
    # The AC table knows one code of one bit: end of block.
    ac = bytes((0x10, 1, *([0] * 15), 0x00))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0101, 0, 1, 1, 0, 0)),
            metadata,
            _segment(0xDB, bytes((0, *([_QUANTUM] * 64)))),
            _segment(0xC0, frame),
            _segment(0xC4, dc + ac),
            _segment(0xDA, bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0))),
            scan,
            b"\xff\xd9",
        )
    )


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _pattern(columns: int, rows: int, seed: int) -> Grid:
    """Colour blocks as (Y, Cb, Cr), each from -128 to 127."""
    turn = seed * 0.7
    return [
        [
            (
                round(45 * (math.sin(column / columns * 5 + turn) + math.cos(row / rows * 4 - turn))),
                round(60 * math.sin(turn + row / rows)),
                round(60 * math.cos(turn + column / columns)),
            )
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def _landscape(columns: int, rows: int, scene: int) -> Grid:
    return [[_place(column / columns, row / rows, scene) for column in range(columns)] for row in range(rows)]


def _place(x: float, y: float, scene: int) -> Colour:
    """Colour a place of a landscape: hills before hills, above them a sky with the sun in it."""
    near = 0.78 + 0.06 * math.sin(7 * x + scene)
    far = 0.58 + 0.10 * math.sin(4 * x - 2 * scene)
    if y > near:
        return (round(-70 * y), -25, -20 + 6 * scene)
    if y > far:
        return (round(40 - 60 * y), -15, -30 + 4 * scene)
    if math.hypot(x - 0.2 - 0.12 * scene, (y - 0.24) * 0.7) < 0.07:
        return (110, -60, 25)
    return (round(30 + 60 * y), round(50 - 60 * y), round(-25 + 8 * scene * y))


def _stored(grid: Grid, orientation: int) -> Grid:
    """Turn what shall be seen into what is stored under an orientation: its inverse."""
    if orientation in (5, 6, 7, 8):
        grid = list(zip(*grid, strict=True))
    if orientation in (2, 3, 7, 8):
        grid = [line[::-1] for line in grid]
    return grid[::-1] if orientation in (3, 4, 6, 7) else grid


def _scan(blocks: Iterable[Colour]) -> bytes:
    codes = _dc_codes()
    bits = "".join(_block_bits(blocks, codes))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data.replace(b"\xff", b"\xff\x00")


def _block_bits(blocks: Iterable[Colour], codes: list[str]) -> Iterator[str]:
    before = [0, 0, 0]
    for block in blocks:
        for component, level in enumerate(block):
            # The DC coefficient of a flat block is eight times its level, divided by the quantum.
            value = level * 8 // _QUANTUM
            yield _difference(value - before[component], codes)
            yield "0"
            before[component] = value


def _difference(difference: int, codes: list[str]) -> str:
    size = abs(difference).bit_length()
    if size == 0:
        return codes[0]
    magnitude = difference if difference > 0 else difference + (1 << size) - 1
    return codes[size] + format(magnitude, f"0{size}b")


def _dc_codes() -> list[str]:
    """Build the canonical Huffman codes of the DC table (ITU-T T.81, annex C)."""
    codes: list[str] = []
    code = 0
    for length, count in enumerate(_DC_LENGTHS, 1):
        for _ in range(count):
            codes.append(format(code, f"0{length}b"))
            code += 1
        code <<= 1
    return codes


def pdf(lines: list[str]) -> bytes:
    """Write a page of text as a PDF (ISO 32000-1, the least a viewer needs); ASCII only."""
    safe = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in lines]
    text = "BT /F1 12 Tf 40 360 Td 18 TL " + " ".join(f"({line}) Tj T*" for line in safe) + " ET"
    objects = (
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(text)}>>\nstream\n{text}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Courier>>",
    )
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode(
        "ascii", "replace"
    )
