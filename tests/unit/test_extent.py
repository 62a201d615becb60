"""The arithmetic between bytes and pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.format.extent import Extent, Mapping, is_page_size, pages_for, split_at


@pytest.mark.parametrize(
    ("size", "pages"), [(0, 0), (1, 1), (4095, 1), (4096, 1), (4097, 2), (1 << 60, 1 << 48)]
)
def test_pages_for(size: int, pages: int) -> None:
    assert pages_for(size, 4096) == pages


def test_extent_ends_behind_its_last_page() -> None:
    assert Extent(5, 3).end == 8


def test_mapping_finds_store_pages() -> None:
    mapping = Mapping(page=10, start=100, count=4)
    assert mapping.end == 14
    assert [mapping.store_page(page) for page in (10, 13)] == [100, 103]


@pytest.mark.parametrize(
    ("first", "end", "clipped"),
    [
        (0, 100, Mapping(10, 100, 4)),
        (11, 13, Mapping(11, 101, 2)),
        (12, 100, Mapping(12, 102, 2)),
        (0, 11, Mapping(10, 100, 1)),
        (12, 12, Mapping(12, 102, 0)),
    ],
)
def test_mapping_is_clipped(first: int, end: int, clipped: Mapping) -> None:
    assert Mapping(10, 100, 4).clip(first, end) == clipped


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 12), st.integers(1, 1 << 10))
def test_split_cuts_at_every_boundary(offset: int, length: int, boundary: int) -> None:
    pieces = list(split_at(offset, length, boundary))
    assert sum(count for _, count in pieces) == length
    for start, count in pieces:
        assert start == offset
        assert count > 0
        assert start // boundary == (start + count - 1) // boundary
        offset += count


@pytest.mark.parametrize("size", [4096, 8192, 16384, 65536, 2 << 20])
def test_page_sizes(size: int) -> None:
    assert is_page_size(size)


@pytest.mark.parametrize("size", [-4096, 0, 1, 2048, 4095, 5000, 12288, 4 << 20])
def test_no_page_sizes(size: int) -> None:
    assert not is_page_size(size)
