"""What a batch is to do to each photo: values made before anything is touched, durable before the first effect.

After a crash the same deeds are done again; each of their parts can be told to be done already: a row that
holds the new values, a file that is in the trash under its name there with its identity.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bulkops.effects import Id, ItemException
from bulkops.ids import wire_id
from bulkops.resources.paths import Identity
from bulkops.resources.photos.names import reference
from bulkops.resources.table.images import Record
from bulkops.resources.verdicts import Entry
from bulkops.shapes import whole


class File(msgspec.Struct, frozen=True, array_like=True):
    """A file of a project that goes to its trash, comes back from it, or is purged in it."""

    name: str
    trash: str
    mine: tuple[int, int, int, int]

    @classmethod
    def of(cls, name: str, trash: str, seen: Identity) -> File:
        return cls(name, trash, (seen.dev, seen.ino, seen.size, seen.mtime_ns))

    def entry(self, project: str) -> Entry:
        """Write it for the mover."""
        return Entry(reference(project, self.name).encode(), self.trash.encode(), Identity(*self.mine))


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """One item's.

    ``was`` and ``to``: what its row holds and is given. ``add``: the flags of a row that is inserted. ``files`` are
    moved to the trash. ``purge`` goes for good. ``drop``: its derivatives go. ``picture``: the file that
    derivatives are made of. ``record``: the whole row as it was, for an undo.
    """

    position: int
    item: Id
    project: str
    base: str = ""
    was: dict[str, Any] = {}
    to: dict[str, Any] = {}
    add: dict[str, Any] = {}
    files: list[File] = []
    purge: File | None = None
    drop: bool = False
    picture: str | None = None
    record: Record | None = None

    @property
    def writes(self) -> bool:
        """Say whether it changes the table."""
        return bool(self.to or self.add)


class Verdict(msgspec.Struct, frozen=True):
    """Why nothing is done to an item."""

    outcome: str
    code: str
    message: str

    def on(self, position: int, item: Id) -> ItemException:
        """Write it as an item's outcome."""
        return ItemException(position, wire_id(item), self.outcome, self.code, self.message)


class Decided(msgspec.Struct, frozen=True):
    """A batch: what is done, and what is not done to whom."""

    deeds: list[Deed]
    exceptions: list[ItemException]

    @property
    def projects(self) -> list[str]:
        return sorted({deed.project for deed in self.deeds})


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(whole(Decided))
_deed_decoder = msgspec.msgpack.Decoder(whole(Deed))


def encode(value: Decided | Deed) -> bytes:
    return _encoder.encode(value)


def decode(data: bytes) -> Decided:
    return _decoder.decode(data)


def decode_deed(data: bytes) -> Deed:
    return _deed_decoder.decode(data)
