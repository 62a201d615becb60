"""The superblock: packing, verifying, and living without one of its copies."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from mapfs.errors import DamagedStoreError, NewerFormatError, NotAStoreError
from mapfs.format.extent import Extent
from mapfs.format.superblock import (
    BLOCK_BYTES,
    CHECKSUM,
    CHECKSUM_OFFSET,
    COPY_OFFSETS,
    FIELDS,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    Superblock,
    UnverifiedSuperblock,
    read_superblock,
)

GOOD = Superblock(bytes(range(16)), 4096, 1000, 1_700_000_000_000_000_000)


def block(
    *,
    magic: bytes = MAGIC,
    version: int = FORMAT_VERSION,
    page_size: int = 4096,
    limit: int = 1000,
) -> bytes:
    """A block with a right checksum, whatever it says."""
    body = FIELDS.pack(magic, version, page_size, bytes(16), limit, 0).ljust(CHECKSUM_OFFSET, b"\0")
    return body + CHECKSUM.pack(xxh3_64_intdigest(body))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@given(
    st.binary(min_size=16, max_size=16),
    st.sampled_from([4096, 16384, 2 << 20]),
    st.integers(3, (1 << 64) - 1),
    st.integers(-(1 << 63), (1 << 63) - 1),
)
def test_round_trip(uuid: bytes, page_size: int, limit: int, created: int) -> None:
    superblock = Superblock(uuid, page_size, limit, created)
    assert UnverifiedSuperblock(superblock.pack()).verify() == superblock


def test_a_copy_is_one_block() -> None:
    assert len(GOOD.pack()) == BLOCK_BYTES
    assert GOOD.pack().startswith(b"mapfs\r\n\x1a")


def test_every_byte_flipped_is_detected() -> None:
    packed = GOOD.pack()
    for at in range(BLOCK_BYTES):
        error = NotAStoreError if at < len(MAGIC) else DamagedStoreError
        with pytest.raises(error):
            UnverifiedSuperblock(flipped(packed, at)).verify()


def test_every_bit_of_the_fields_is_protected() -> None:
    packed = GOOD.pack()
    for bit in range(len(MAGIC) * 8, FIELDS.size * 8):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedStoreError):
            UnverifiedSuperblock(bytes(damaged)).verify()


@pytest.mark.parametrize("data", [b"", b"mapfs", bytes(BLOCK_BYTES), b"\x7fELF" * 1024])
def test_what_is_no_superblock(data: bytes) -> None:
    with pytest.raises(NotAStoreError):
        UnverifiedSuperblock(data).verify()


def test_a_short_or_long_block_is_none() -> None:
    for data in (GOOD.pack()[:-1], GOOD.pack() + b"\0"):
        with pytest.raises(NotAStoreError):
            UnverifiedSuperblock(data).verify()


def test_a_newer_version_asks_for_an_upgrade() -> None:
    with pytest.raises(NewerFormatError, match=r"store format 2; .* upgrade mapfs"):
        UnverifiedSuperblock(block(version=2)).verify()


def test_a_newer_version_is_not_hidden_by_an_older_second_copy() -> None:
    with pytest.raises(NewerFormatError):
        read_superblock(block(version=7) + GOOD.pack())


@pytest.mark.parametrize("page_size", [0, 512, 5000, 4 << 20])
def test_page_sizes_out_of_range_are_damage(page_size: int) -> None:
    with pytest.raises(DamagedStoreError, match="out of range"):
        UnverifiedSuperblock(block(page_size=page_size)).verify()


def test_a_limit_without_room_for_data_is_damage() -> None:
    with pytest.raises(DamagedStoreError, match="out of range"):
        UnverifiedSuperblock(block(limit=2)).verify()
    assert UnverifiedSuperblock(block(limit=3)).verify().limit_pages == 3


def test_the_first_good_copy_is_used() -> None:
    other = replace(GOOD, limit_pages=7)
    assert read_superblock(GOOD.pack() + other.pack()) == GOOD
    assert read_superblock(flipped(GOOD.pack(), 9) + other.pack()) == other
    assert read_superblock(bytes(BLOCK_BYTES) + other.pack()) == other


def test_the_first_copy_says_what_is_wrong() -> None:
    with pytest.raises(DamagedStoreError):
        read_superblock(flipped(GOOD.pack(), 40) + bytes(BLOCK_BYTES))
    with pytest.raises(NotAStoreError):
        read_superblock(bytes(BLOCK_BYTES) + flipped(GOOD.pack(), 40))
    with pytest.raises(NotAStoreError):
        read_superblock(b"")


@pytest.mark.parametrize(("page_size", "pages"), [(4096, 2), (8192, 1), (2 << 20, 1)])
def test_metadata_pages_hold_both_copies(page_size: int, pages: int) -> None:
    assert COPY_OFFSETS[-1] + BLOCK_BYTES == HEADER_BYTES
    assert replace(GOOD, page_size=page_size).metadata_pages == pages


@pytest.mark.parametrize(
    ("extent", "inside"),
    [
        (Extent(2, 998), True),
        (Extent(999, 1), True),
        (Extent(1, 5), False),
        (Extent(2, 999), False),
        (Extent(5, 0), False),
        (Extent(1 << 60, 1), False),
    ],
)
def test_holds(extent: Extent, *, inside: bool) -> None:
    assert GOOD.holds(extent) is inside
