"""A set of pages of the machine, which are what a page cache keeps and writes.

Offsets and lengths are bytes. Memory is proportional to the groups that the set touches: 256 pages,
1 MiB with pages of 4 KiB, are one number of 256 bits.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
# The page cache keeps files in folios, of up to a huge page, that lie at multiples of their size.
# The larger they are, the faster is a mapping of them (`docs/mmap.md`).
HUGE_PAGE_BYTES: Final = 2 << 20
# The largest that writing makes: the kernel hands over no more at a time.
FOLIO_BYTES: Final = 1 << 20
_GROUP: Final = 256

# Offset and length, whole pages.
Run: TypeAlias = tuple[int, int]


class MachinePages:
    """Pages by their place in a file. Belongs to one thread, or whoever holds a lock."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._groups: dict[int, int] = {}
        for offset, length in runs:
            self.add(offset, length)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __len__(self) -> int:
        """The number of pages."""
        return sum(bits.bit_count() for bits in self._groups.values())

    def add(self, offset: int, length: int) -> None:
        """Add every page that a range touches."""
        group, first = divmod(offset // PAGE_BYTES, _GROUP)
        count = -(-(offset + length) // PAGE_BYTES) - offset // PAGE_BYTES
        if 0 < count <= _GROUP - first:  # as nearly always
            self._groups[group] = self._groups.get(group, 0) | ((1 << count) - 1) << first
            return
        for group, bits in _masks(offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES)):
            self._groups[group] = self._groups.get(group, 0) | bits

    def discard(self, offset: int, length: int) -> None:
        """Take out every page that lies wholly within a range."""
        for group, bits in _masks(-(-offset // PAGE_BYTES), (offset + length) // PAGE_BYTES):
            left = self._groups.pop(group, 0) & ~bits
            if left:
                self._groups[group] = left

    def update(self, other: "MachinePages") -> None:
        """Add all pages of another set."""
        for run in other.runs():
            self.add(*run)

    def touches(self, offset: int, length: int) -> bool:
        """Whether a range has a byte in any of the pages."""
        end = offset + length
        if length > len(self._groups) * _GROUP * PAGE_BYTES:
            return any(offset < start + size and start < end for start, size in self.runs())
        masks = _masks(offset // PAGE_BYTES, -(-end // PAGE_BYTES))
        return any(self._groups.get(group, 0) & bits for group, bits in masks)

    def runs(self) -> Iterator[Run]:
        """The pages, ascending, as ranges within one group each."""
        for group in sorted(self._groups):
            yield from self._runs_of(group)

    def runs_near(self, offset: int, length: int) -> Iterator[Run]:
        """The runs in the groups that a range touches, and in their neighbours."""
        group_bytes = _GROUP * PAGE_BYTES
        for group in range(offset // group_bytes - 1, (offset + length) // group_bytes + 2):
            if group in self._groups:
                yield from self._runs_of(group)

    def _runs_of(self, group: int) -> Iterator[Run]:
        bits = self._groups[group]
        while bits:
            first = (bits & -bits).bit_length() - 1
            ones = bits >> first
            count = (~ones & (ones + 1)).bit_length() - 1
            yield (group * _GROUP + first) * PAGE_BYTES, count * PAGE_BYTES
            bits &= bits + (1 << first)


def _masks(first: int, end: int) -> Iterator[tuple[int, int]]:
    """Pages `first` to `end` (exclusive) as (group, bits)."""
    while first < end:
        group, within = divmod(first, _GROUP)
        count = min(end - first, _GROUP - within)
        yield group, ((1 << count) - 1) << within
        first += count
