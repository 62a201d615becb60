"""Extents and the arithmetic between bytes and pages."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

MIN_PAGE_SIZE = 4096
MAX_PAGE_SIZE = 2 << 20


class Extent(NamedTuple):
    """A run of store pages: `count` pages from page `start` on."""

    start: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs

    @property
    def end(self) -> int:
        """The first page behind the extent."""
        return self.start + self.count


class Mapping(NamedTuple):
    """A run of pages of one file and where they are in the store; both ends in pages."""

    page: int
    start: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs

    @property
    def end(self) -> int:
        """The first file page behind the run."""
        return self.page + self.count

    def store_page(self, page: int) -> int:
        """The store page that holds file page `page`, which must lie in the run."""
        return self.start + page - self.page

    def clip(self, first: int, end: int) -> "Mapping":
        """The part of the run within file pages `first` to `end` (exclusive)."""
        low, high = max(first, self.page), min(end, self.end)
        return Mapping(low, self.store_page(low), high - low)


def pages_for(size: int, page_size: int) -> int:
    """The pages that hold `size` bytes from the start of a page on."""
    return -(-size // page_size)


def split_at(offset: int, length: int, boundary: int) -> Iterator[tuple[int, int]]:
    """Cut `length` bytes at `offset` wherever a multiple of `boundary` falls; (offset, length)."""
    while length > 0:
        step = min(length, boundary - offset % boundary)
        yield offset, step
        offset += step
        length -= step


def joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The same pages as few extents, ascending; no two of `extents` may overlap."""
    start = end = 0
    for extent in sorted(extents):
        if extent.start != end:
            if end > start:
                yield Extent(start, end - start)
            start = extent.start
        end = extent.end
    if end > start:
        yield Extent(start, end - start)


def without(extents: Iterable[Extent], taken: Iterable[Extent]) -> Iterator[Extent]:
    """The pages of `extents` that are in none of `taken`; both ascending, without overlaps."""
    rest = iter(taken)
    hole = next(rest, None)
    for extent in extents:
        start = extent.start
        while hole is not None and hole.start < extent.end:
            if hole.start > start:
                yield Extent(start, hole.start - start)
            start = max(start, hole.end)
            if hole.end > extent.end:
                break
            hole = next(rest, None)
        if start < extent.end:
            yield Extent(start, extent.end - start)


def is_page_size(size: int) -> bool:
    """Whether a store may have pages of `size` bytes: a power of two from 4 KiB to 2 MiB."""
    return MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE and size & (size - 1) == 0
