"""The layout of a file: where its bytes are in the store file, as `user.mapfs.file.layout` says."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mapfs.errors import DamagedStoreError
from mapfs.format.extent import is_page_size


class Piece(NamedTuple):
    """`length` bytes at `offset` of a file, and where they begin in the store file."""

    offset: int
    store_offset: int
    length: int


class StoreIdentity(NamedTuple):
    """Which file a store file is, as long as it exists: stat(2); `inode` is 0 for a device."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a file is, in bytes. Pieces are whole pages of the store, ascending; gaps are holes.

    `next` is the offset at which the pieces that did not fit begin, or None.
    """

    size: int
    page_size: int
    store: StoreIdentity
    pieces: tuple[Piece, ...]
    next: int | None = None

    def pack(self) -> bytes:
        """The layout as JSON."""
        fields = {
            "size": self.size,
            "page_size": self.page_size,
            "store": self.store,
            "extents": self.pieces,
            "next": self.next,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, value: bytes) -> "Layout":
        """The inverse of `pack`. Raises `DamagedStoreError` if `value` cannot be a layout."""
        try:
            fields = json.loads(value)
            pieces = tuple(Piece(*each) for each in fields["extents"])
            store = StoreIdentity(*fields["store"])
            found = cls(fields["size"], fields["page_size"], store, pieces, fields["next"])
            found.check()
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedStoreError(f"no layout of a file: {error}") from error
        return found

    def check(self) -> None:
        """Raise `ValueError` unless the pieces are what `Layout` says of them.

        Whoever maps them puts them at addresses that follow from their offsets.
        """
        numbers = [self.size, self.page_size, *(part for piece in self.pieces for part in piece)]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a number is out of range")
        if not is_page_size(self.page_size):
            raise ValueError(f"pages of {self.page_size} bytes")
        behind = 0
        for piece in self.pieces:
            if not behind <= piece.offset < self.size or piece.length == 0:
                raise ValueError("pieces are not in order")
            if any(part % self.page_size for part in piece):
                raise ValueError("a piece is not whole pages")
            behind = piece.offset + piece.length
        if self.next is not None and not (type(self.next) is int and self.next >= behind > 0):
            raise ValueError("the next part does not lie behind this one")


def joined_layouts(parts: Iterable[Layout]) -> Layout:
    """The layout of a file that was told in parts; there must be one at least.

    Raises `ValueError` if they do not go together: the file has changed in between.
    """
    all_parts = list(parts)
    pieces = tuple(piece for part in all_parts for piece in part.pieces)
    last = all_parts[-1]
    joined = Layout(last.size, last.page_size, last.store, pieces)
    joined.check()
    return joined
