"""Small pictures and documents for the demo: real JPEG and PDF bytes, made without any library.

What comes in: numbers and a line of text; what goes out: bytes that viewers open. Each block of 8 by 8
pixels has one colour, so that only the DC coefficients of ITU-T T.81 (baseline JPEG) are ever coded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Final

#: ITU-T T.81 table K.3: how many DC codes have 1, 2, … 16 bits; their values are 0 … 11.
_DC_LENGTHS: Final = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)
_QUANTUM: Final = 8

Colour = tuple[int, int, int]


def jpeg(columns: int, rows: int, seed: int) -> bytes:
    """Draw a soft pattern of ``columns`` by ``rows`` blocks; the same seed is the same picture."""
    scan = _scan(_blocks(columns, rows, seed))
    frame = struct.pack(">BHHB", 8, rows * 8, columns * 8, 3) + bytes(
        value for component in (1, 2, 3) for value in (component, 0x11, 0)
    )
    dc = bytes((0x00, *_DC_LENGTHS, *range(12)))
    # The AC table knows one code of one bit: end of block.
    ac = bytes((0x10, 1, *([0] * 15), 0x00))
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0101, 0, 1, 1, 0, 0)),
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


def _blocks(columns: int, rows: int, seed: int) -> Iterator[Colour]:
    """Walk the blocks line by line as (Y, Cb, Cr), each from -128 to 127."""
    turn = seed * 0.7
    for row in range(rows):
        for column in range(columns):
            wave = math.sin(column / columns * 5 + turn) + math.cos(row / rows * 4 - turn)
            yield (
                round(45 * wave),
                round(60 * math.sin(turn + row / rows)),
                round(60 * math.cos(turn + column / columns)),
            )


def _scan(blocks: Iterator[Colour]) -> bytes:
    codes = _dc_codes()
    bits = "".join(_block_bits(blocks, codes))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data.replace(b"\xff", b"\xff\x00")


def _block_bits(blocks: Iterator[Colour], codes: list[str]) -> Iterator[str]:
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
