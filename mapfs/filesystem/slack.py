"""The arithmetic of slack: what mapping whole pages costs a file. Pure; sizes are in bytes.

A file of S bytes with A pages of size P allocated has `tail`, the unused rest of the page that
holds its last byte if that page is allocated, and `prealloc`, its pages behind that one.
Its slack is both. Holes are not allocated and so are no slack.
"""

from collections.abc import Callable, Iterable
from typing import Final

from mapfs.format.extent import Mapping, pages_for
from mapfs.format.records import Inode
from mapfs.format.totals import WHAT_IF_SIZES, Totals

Mappings = Callable[[], Iterable[Mapping]]
_SIZES: Final = tuple(WHAT_IF_SIZES.values())


def slack_bytes(inode: Inode, page_size: int) -> int:
    """The slack of one file."""
    return inode.tail + inode.prealloc * page_size


def stored_bytes(inode: Inode, page_size: int) -> int:
    """The bytes of the file that lie in allocated pages."""
    return inode.pages * page_size - slack_bytes(inode, page_size)


def what_if(inode: Inode, page_size: int, other: int, mappings: Mappings) -> int:
    """The slack of one file if the store had pages of `other` bytes.

    `mappings` is called only for a file with holes or preallocated pages. For pages smaller than
    the store's, every byte of an allocated page that lies in the file counts as data.
    """
    if other == page_size:
        return slack_bytes(inode, page_size)
    if _is_plain(inode, page_size):
        return -inode.size % other
    units = pages_touched(_data_ranges(inode, page_size, mappings()), other)
    return units * other - stored_bytes(inode, page_size)


def pages_touched(ranges: Iterable[tuple[int, int]], page_size: int) -> int:
    """The pages that byte ranges (start, end) lie in; the ranges ascend and do not overlap."""
    pages, behind = 0, 0  # `behind`: the first page that is not counted yet
    for start, end in ranges:
        last = pages_for(end, page_size)
        pages += max(0, last - max(behind, start // page_size))
        behind = max(behind, last)
    return pages


def _is_plain(inode: Inode, page_size: int) -> bool:
    """Whether a file has neither holes nor preallocated pages."""
    return not inode.prealloc and inode.pages == pages_for(inode.size, page_size)


def _data_ranges(
    inode: Inode, page_size: int, mappings: Iterable[Mapping]
) -> Iterable[tuple[int, int]]:
    """The byte ranges that need pages: data up to the end of file, and preallocated pages."""
    beyond = pages_for(inode.size, page_size) * page_size
    for mapping in mappings:
        start, end = mapping.page * page_size, mapping.end * page_size
        if start < inode.size:
            yield start, min(end, inode.size)
        if end > beyond:
            yield max(start, beyond), end


def contribution(inode: Inode, page_size: int, mappings: Mappings) -> Totals:
    """What an inode adds to the totals of the directory that holds its home entry."""
    if inode.nlink == 0:
        return Totals()
    if inode.is_directory:
        return Totals(subdirs=1)
    if not inode.is_file:
        return Totals(files=1)
    if inode.what_ifs is None:
        inode.what_ifs = _what_ifs(inode, page_size, mappings)
    slack = slack_bytes(inode, page_size)
    return Totals(1, 0, inode.size, inode.pages, slack, *inode.what_ifs)


def _what_ifs(inode: Inode, page_size: int, mappings: Mappings) -> tuple[int, ...]:
    """`what_if` for every size of `WHAT_IF_SIZES`, reading the extents once at most."""
    if _is_plain(inode, page_size):
        return tuple([-inode.size % size for size in _SIZES])
    read: list[Mapping] = []

    def once() -> list[Mapping]:
        if not read:
            read.extend(mappings())
        return read

    return tuple(what_if(inode, page_size, size, once) for size in _SIZES)
