"""Where the bytes of files are: in the store file, and in memory. Offsets and sizes are bytes."""

import errno
from collections.abc import Iterator
from itertools import islice
from typing import Final

from mapfs.filesystem.advice import Advisor
from mapfs.filesystem.cold_loader import ColdLoader
from mapfs.filesystem.extents import ExtentMap
from mapfs.format.extent import pages_for
from mapfs.format.layout import Layout, Piece
from mapfs.format.records import Advice, Inode
from mapfs.store.machine_pages import PAGE_BYTES, Run
from mapfs.store.store import Store

# What is brought in ahead of who reads in order and said so.
_BEHIND_BYTES: Final = 16 << 20
# Three numbers below 2^63 each, as JSON, in the 64 KiB that an attribute can have (xattr(7)).
_MOST_PIECES: Final = 900


class Placement:
    """Where each byte of a regular file is, and how it gets into memory. Changes no file.

    Belongs to the filesystem's thread.
    """

    def __init__(self, store: Store, extents: ExtentMap, advisor: Advisor) -> None:
        self._backing = store.backing
        self._page_size = store.page_size
        self._extents = extents
        self._advisor = advisor

    def runs(self, inode: Inode, offset: int, end: int) -> list[tuple[int | None, int]]:
        """The bytes from `offset` to `end` as (store offset or None for a hole, length)."""
        size = self._page_size
        first, last = offset // size, pages_for(end, size)
        found = self._extents.find(inode.number, first)
        if found is not None and found.page + found.count >= last:
            return [((found.start - found.page) * size + offset, end - offset)]
        runs: list[tuple[int | None, int]] = []
        for page, count, start in self._extents.pieces(inode.number, first, last):
            low, high = max(offset, page * size), min(end, (page + count) * size)
            where = None if start is None else start * size + low - page * size
            runs.append((where, high - low))
        return runs

    def store_runs(self, inode: Inode, offset: int, size: int) -> list[Run]:
        """The bytes of a range that are in the store, as (store offset, length)."""
        end = min(offset + size, inode.size)
        if offset >= end:
            return []
        runs = self.runs(inode, offset, end)
        return [(where, length) for where, length in runs if where is not None]

    def stored(self, number: int) -> Iterator[Run]:
        """All that a file has in the store, also behind its end, as (store offset, length)."""
        for mapping in self._extents.mappings(number):
            yield mapping.start * self._page_size, mapping.count * self._page_size

    def cached_bytes(self, inode: Inode) -> tuple[int, int | None]:
        """The bytes of a file that are in memory, and that are dirty there (None: unknown)."""
        resident, dirty = 0, 0
        known = True
        for where, length in self.stored(inode.number):
            found = self._backing.cached(where, length)
            resident += found.resident * PAGE_BYTES
            known = known and found.dirty is not None
            dirty += (found.dirty or 0) * PAGE_BYTES
        return resident, dirty if known else None

    def mapped(self, inode: Inode) -> dict[int, int]:
        """The windows that have mapped parts of a file, and how many bytes of it each has."""
        found: dict[int, int] = {}
        for run in self.stored(inode.number):
            for window, length in self._backing.windows_of(*run).items():
                found[window] = found.get(window, 0) + length
        return found

    def layout(self, inode: Inode, offset: int = 0) -> Layout:
        """Where a file's bytes are in the store file, from the page with `offset` on.

        At most 900 extents, so that it fits into an extended attribute. Raises `OSError` (EIO) if
        bytes of the file are lost: who reads them by himself would not hear of it.
        """
        self.require_written(inode.number)
        size = self._page_size
        end = pages_for(inode.size, size)
        mappings = self._extents.mappings(inode.number, offset // size, end)
        found = [
            Piece(each.page * size, each.start * size, each.count * size)
            for each in islice(mappings, _MOST_PIECES + 1)
        ]
        more = found[_MOST_PIECES].offset if len(found) > _MOST_PIECES else None
        pieces = tuple(found[:_MOST_PIECES])
        return Layout(inode.size, size, self._backing.identity(), pieces, more)

    def require_written(self, number: int) -> None:
        """Raise `OSError` (EIO) if the disk refused bytes of a file."""
        lost = self._backing.lost
        if lost and any(lost.touches(*run) for run in self.stored(number)):
            raise OSError(errno.EIO, f"inode {number} has bytes that could not be written")

    def cold_loader(self, inode: Inode, offset: int, size: int) -> ColdLoader | None:
        """What brings a range into memory, or None if all of it is there."""
        end = min(offset + size, inode.size)
        if offset >= end:
            return None
        runs = self.runs(inode, offset, end)
        cold = [
            (where, length)
            for where, length in runs
            if where is not None and not self._backing.is_loaded(where, length)
        ]
        if inode.advice is not Advice.NORMAL:
            return self._advised_loader(inode, end, cold, is_whole=len(runs) == 1)
        return ColdLoader(self._backing, cold, is_whole=len(runs) == 1) if cold else None

    def _advised_loader(
        self, inode: Inode, end: int, cold: list[Run], *, is_whole: bool
    ) -> ColdLoader | None:
        """What `cold_loader` gives for a file that has an advice."""
        must_take_up = self._advisor.must_take_up(inode)
        if not cold and not must_take_up:
            return None
        ahead = inode.advice is not Advice.RANDOM
        has_more = must_take_up or inode.advice is Advice.PIN
        loader = ColdLoader(self._backing, cold, is_whole=is_whole and not has_more, ahead=ahead)
        if must_take_up:
            loader.first = self._advisor.take_up(inode)
        if inode.advice is Advice.SEQUENTIAL:
            loader.behind = self.store_runs(inode, end, _BEHIND_BYTES)
        return loader
