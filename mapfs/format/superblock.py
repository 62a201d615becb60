"""The superblock: what the store file says of itself, in two checksummed copies.

Bytes read from a disk are an `UnverifiedSuperblock`, which can do nothing but `verify()`.
"""

import struct
from dataclasses import dataclass
from typing import Final

from xxhash import xxh3_64_intdigest

from mapfs.errors import DamagedStoreError, NewerFormatError, NotAStoreError
from mapfs.format.extent import Extent, is_page_size, pages_for

MAGIC: Final = b"mapfs\r\n\x1a"
FORMAT_VERSION: Final = 1
BLOCK_BYTES: Final = 4096
COPY_OFFSETS: Final = (0, BLOCK_BYTES)
HEADER_BYTES: Final = BLOCK_BYTES * len(COPY_OFFSETS)

# magic, version, page size, uuid, limit in pages, created (ns)
FIELDS: Final = struct.Struct("<8sII16sQq")
CHECKSUM: Final = struct.Struct("<Q")
CHECKSUM_OFFSET: Final = BLOCK_BYTES - CHECKSUM.size


@dataclass(frozen=True, slots=True)
class Superblock:
    """A verified superblock. It never changes after mkfs."""

    uuid: bytes
    page_size: int
    limit_pages: int
    created_ns: int

    @property
    def metadata_pages(self) -> int:
        """The pages at the start of the store that hold the superblock's copies."""
        return pages_for(HEADER_BYTES, self.page_size)

    def holds(self, extent: Extent) -> bool:
        """Whether `extent` lies among the data pages of a store of this size limit."""
        return (
            self.metadata_pages <= extent.start
            and extent.count > 0
            and extent.end <= self.limit_pages
        )

    def pack(self) -> bytes:
        """One copy, `BLOCK_BYTES` long."""
        fields = FIELDS.pack(
            MAGIC, FORMAT_VERSION, self.page_size, self.uuid, self.limit_pages, self.created_ns
        )
        body = fields.ljust(CHECKSUM_OFFSET, b"\0")
        return body + CHECKSUM.pack(xxh3_64_intdigest(body))


@dataclass(frozen=True, slots=True)
class UnverifiedSuperblock:
    """Bytes that may be a superblock."""

    block: bytes

    def verify(self) -> Superblock:
        """The superblock these bytes are.

        Raises `NotAStoreError` without the magic, `NewerFormatError` for a later version and
        `DamagedStoreError` when the checksum or a field does not hold.
        """
        if len(self.block) != BLOCK_BYTES or not self.block.startswith(MAGIC):
            raise NotAStoreError("no mapfs superblock")
        _, version, page_size, uuid, limit, created = FIELDS.unpack_from(self.block)
        body, checksum = self.block[:CHECKSUM_OFFSET], self.block[CHECKSUM_OFFSET:]
        if CHECKSUM.unpack(checksum)[0] != xxh3_64_intdigest(body):
            raise DamagedStoreError("superblock checksum does not match")
        if version > FORMAT_VERSION:
            raise NewerFormatError(
                f"store format {version}; this mapfs reads up to {FORMAT_VERSION}: upgrade mapfs"
            )
        superblock = Superblock(uuid, page_size, limit, created)
        if not is_page_size(page_size) or limit <= superblock.metadata_pages:
            raise DamagedStoreError("superblock fields are out of range")
        return superblock


def read_superblock(header: bytes) -> Superblock:
    """The first copy in `header` that verifies; raises what the first copy raised if none does."""
    first_error: Exception | None = None
    for offset in COPY_OFFSETS:
        try:
            return UnverifiedSuperblock(header[offset : offset + BLOCK_BYTES]).verify()
        except (NotAStoreError, DamagedStoreError) as error:
            first_error = first_error or error
    assert first_error is not None  # COPY_OFFSETS is not empty
    raise first_error
