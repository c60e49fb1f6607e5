"""A zip file written from front to back, whose directory can be read back out of what is already written.

What comes in: entries one after the other, of any size; what goes out: local entries at once, and the central
directory at the end. Sizes stand in the local headers, and there too, in a field of our own, the mode, so that
a writer who lost its memory in a crash finds the directory again. Every entry is ZIP64, names are bytes.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3, 4.4 and 4.5; Info-ZIP's extra field 0x5455 for times.
"""

from __future__ import annotations

import stat
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_SIZES: Final = struct.Struct("<2H2Q")
_ZIP64: Final = 0x0001
_TIMES: Final = 0x5455
#: Of our own, in local headers only: the mode, which they have no other place for.
_MODE: Final = 0x4F42
_VERSION: Final = 45
_UNIX: Final = 3 << 8
_UTF8: Final = 0x800
_STORED, _DEFLATED = 0, 8
_MAX16: Final = 0xFFFF
_MAX32: Final = 0xFFFFFFFF
#: Pictures do not get smaller however hard one tries.
_LEVEL: Final = 1


class Piece(msgspec.Struct, frozen=True):
    """One entry: its name with slashes between folders and none at the end, its mode, when it was written to."""

    name: bytes
    mode: int
    mtime_s: int


class Directory:
    """The central directory so far, as the bytes it will be."""

    def __init__(self) -> None:
        self.records = bytearray()
        self.count = 0
        #: Where the entries end that it knows of.
        self.end = 0

    def mark(self) -> tuple[int, int, int]:
        """Return where it stands, for `cut`."""
        return len(self.records), self.count, self.end

    def cut(self, mark: tuple[int, int, int]) -> None:
        """Forget what came after a mark."""
        del self.records[mark[0] :]
        _, self.count, self.end = mark


def add(file: BinaryIO, directory: Directory, piece: Piece, blocks: Iterable[bytes]) -> None:
    """Append an entry to a file that is at its end; ``blocks`` are its content, none for a folder.

    Raises:
        OSError: the disk refuses; what was written is to be cut off.
        ValueError: the name is longer than a zip can say.
    """
    if len(piece.name) >= _MAX16:
        raise ValueError("the path inside is longer than a zip can say")
    at = file.tell()
    file.write(_local(piece, 0, 0, 0))
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15) if _method(piece) == _DEFLATED else None
    crc = size = packed = 0
    for block in blocks:
        crc = zlib.crc32(block, crc)
        size += len(block)
        data = packer.compress(block) if packer else block
        packed += file.write(data)
    if packer:
        packed += file.write(packer.flush())
    end = file.tell()
    file.seek(at)
    file.write(_local(piece, crc, size, packed))
    file.seek(end)
    _note(directory, piece, crc, size, packed, at, end)


def close(file: BinaryIO, directory: Directory) -> None:
    """Append the central directory and what ends a zip."""
    at = file.tell()
    file.write(directory.records)
    size = file.tell() - at
    count = directory.count
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, _UNIX | _VERSION, _VERSION, 0, 0, count, count, size, at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    few, small, near = min(count, _MAX16), min(size, _MAX32), min(at, _MAX32)
    file.write(end64 + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, few, few, small, near, 0))


def read_back(file: BinaryIO) -> Directory:
    """Find the directory of what is written, entry by entry; leaves the file at its end.

    Raises:
        ValueError: it is not as `add` writes it.
    """
    directory = Directory()
    end = file.seek(0, 2)
    at = 0
    while at < end:
        file.seek(at)
        head = file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
            raise ValueError("the file is not as it was written")
        crc = int.from_bytes(head[14:18], "little")
        name_size, extra_size = _LOCAL.unpack(head)[-2:]
        name, extra = file.read(name_size), dict(_fields(file.read(extra_size)))
        size, packed = struct.unpack("<2Q", extra[_ZIP64])
        (mode,) = struct.unpack("<I", extra[_MODE])
        (mtime_s,) = struct.unpack("<xi", extra[_TIMES])
        after = at + _LOCAL.size + name_size + extra_size + packed
        _note(directory, Piece(name.rstrip(b"/"), mode, mtime_s), crc, size, packed, at, after)
        at = after
    file.seek(end)
    return directory


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        yield kind, extra[4 : 4 + size]
        extra = extra[4 + size :]


def _local(piece: Piece, crc: int, size: int, packed: int) -> bytes:
    name, flags = _name(piece)
    extra = _SIZES.pack(_ZIP64, 16, size, packed) + _time(piece) + struct.pack("<2HI", _MODE, 4, piece.mode)
    dos_time, dos_date = _dos(piece.mtime_s)
    head = _LOCAL.pack(
        b"PK\3\4",
        _VERSION,
        flags,
        _method(piece),
        dos_time,
        dos_date,
        crc,
        _MAX32,
        _MAX32,
        len(name),
        len(extra),
    )
    return head + name + extra


def _note(
    directory: Directory,
    piece: Piece,
    crc: int,
    size: int,
    packed: int,
    at: int,
    end: int,
) -> None:
    name, flags = _name(piece)
    method = _method(piece)
    extra = struct.pack("<2H3Q", _ZIP64, 24, size, packed, at) + _time(piece)
    dos_time, dos_date = _dos(piece.mtime_s)
    attributes = (piece.mode & _MAX16) << 16 | (0x10 if stat.S_ISDIR(piece.mode) else 0)
    directory.records += _CENTRAL.pack(
        b"PK\1\2", _UNIX | _VERSION, _VERSION, flags, method, dos_time, dos_date,
        crc, _MAX32, _MAX32, len(name), len(extra), 0, 0, 0, attributes, _MAX32,
    )  # fmt: skip
    directory.records += name + extra
    directory.count += 1
    directory.end = end


def _method(piece: Piece) -> int:
    return _DEFLATED if stat.S_ISREG(piece.mode) else _STORED


def _name(piece: Piece) -> tuple[bytes, int]:
    name = piece.name + (b"/" if stat.S_ISDIR(piece.mode) else b"")
    try:
        return name, 0 if name.decode().isascii() else _UTF8
    except UnicodeDecodeError:
        return name, 0


def _time(piece: Piece) -> bytes:
    return struct.pack("<2HBi", _TIMES, 5, 1, max(-(2**31), min(2**31 - 1, piece.mtime_s)))


def _dos(mtime_s: int) -> tuple[int, int]:
    """Write a time as MS-DOS did, in UTC and steps of two seconds; what is outside of 1980 to 2107 is clipped."""
    at = time.gmtime(max(315_532_800, min(mtime_s, 4_354_819_198)))
    return (
        at.tm_hour << 11 | at.tm_min << 5 | at.tm_sec // 2,
        (at.tm_year - 1980) << 9 | at.tm_mon << 5 | at.tm_mday,
    )
