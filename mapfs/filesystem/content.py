"""What is in files: reading, writing, holes. Offsets and sizes are bytes.

Invariant: pages are zero when they are allocated. What lies behind the end of a file, in its last
page or in preallocated ones, may be anything that was once in this file: a crash can take a size
back and leave the bytes. So whatever makes a file longer with a gap zeroes the gap (`_expose`).
"""

import os
from collections.abc import Iterator
from typing import Final

from mapfs.errors import (
    FileTooBigError,
    InvalidArgumentError,
    IsADirectoryFileError,
    MapfsError,
    NoSuchOffsetError,
)
from mapfs.filesystem.advice import Advisor
from mapfs.filesystem.clock import now
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.inode import InodeTable
from mapfs.filesystem.placement import Placement
from mapfs.format.extent import Extent, pages_for
from mapfs.format.records import MAX_U64, Inode
from mapfs.store.backing import Data
from mapfs.store.store import Store
from mapfs.store.writeback import LEAST_BYTES

MAX_FILE_BYTES: Final = (1 << 63) - 1
_COPY_BYTES: Final = 1 << 20
# Of more than this it is asked first whether there can be so much.
_MANY_BYTES: Final = 64 << 20


class Content:
    """The bytes of regular files."""

    def __init__(
        self,
        store: Store,
        inodes: InodeTable,
        extents: ExtentMap,
        placement: Placement,
        advisor: Advisor,
    ) -> None:
        self._store = store
        self._advisor = advisor
        self._backing = store.backing
        self._page_size = store.page_size
        self._many_pages = _MANY_BYTES // store.page_size
        self._inodes = inodes
        self._extents = extents
        self._runs = placement.runs

    def read(self, inode: Inode, offset: int, size: int) -> list[memoryview]:
        """Up to `size` bytes as views of the mapping, less at the end of the file.

        Use them before control returns to the loop that runs commits.
        """
        end = min(offset + size, inode.size)
        if offset >= end:
            return []
        views: list[memoryview] = []
        for where, length in self._runs(inode, offset, end):
            if where is None:
                views.append(memoryview(bytes(length)))
            else:
                views.extend(self._backing.read(where, length))
        return views

    def overwrite(self, inode: Inode, offset: int, data: Data) -> bool:
        """Write over bytes that the file has, and change nothing else, not even the times.

        False, and nothing is written, if it takes more. Raises `OSError` for an I/O error.
        """
        view = memoryview(data)
        end = offset + view.nbytes
        first, last = offset // self._page_size, pages_for(end, self._page_size)
        if end > inode.size or self._holes(inode, first, last):
            return False
        self._inodes.require_writable()
        self._put(inode, offset, view)
        return True

    def write(self, inode: Inode, offset: int, data: Data, *, stamp: bool = True) -> int:
        """Write all of `data`, allocating pages for holes first; returns its length.

        `stamp` False leaves mtime and ctime to the caller.

        Raises `NoSpaceError` (or `OSError` ENOSPC, EDQUOT) with the file unchanged,
        `FileTooBigError`, or `OSError` for an I/O error.
        """
        view = memoryview(data)
        end = offset + view.nbytes
        if end > MAX_FILE_BYTES:
            raise FileTooBigError("beyond the largest file size")
        if not view.nbytes:
            return 0
        first, last = offset // self._page_size, pages_for(end, self._page_size)
        self._inodes.edit(inode)
        self._expose(inode, offset)
        allocated = self._fill(inode, first, last)
        try:
            self._put(inode, offset, view)
        except OSError:
            self._resized(inode, inode.size)  # pages may have been added behind the end
            raise
        if allocated or end > inode.size:
            self._resized(inode, max(inode.size, end), recount=inode.prealloc > 0)
        if stamp:
            inode.mtime = inode.ctime = now()
        return view.nbytes

    def _put(self, inode: Inode, offset: int, view: memoryview) -> None:
        """Write bytes of a file whose pages are allocated."""
        self._store.transaction.data_written()
        done = 0
        runs = self._runs(inode, offset, offset + view.nbytes)
        for where, length in runs:
            assert where is not None  # `_fill` left no hole
            piece = view if len(runs) == 1 else view[done : done + length]
            is_large = length >= LEAST_BYTES
            spare = self._store.allocator.prepared_bytes(where + length) if is_large else 0
            self._backing.write(where, piece, spare)
            done += length

    def _fill(self, inode: Inode, first: int, end: int) -> int:
        """Allocate every hole in pages `first` to `end`: all or nothing; returns the extents.

        `_resized` must follow: how many pages are behind the end is not counted here.
        """
        holes = self._holes(inode, first, end)
        if holes:
            self._store.require_room()
            if end - first > self._many_pages:
                self._store.allocator.require_pages(sum(count for _, count in holes))
        taken: list[tuple[int, Extent]] = []
        try:
            for page, count in holes:
                goal = self._extents.page_after(inode.number, page)
                taken.extend(self._allocate(page, count, goal))
        except (MapfsError, OSError):
            for _, extent in taken:
                self._store.allocator.free(extent)
            raise
        for page, extent in taken:
            inode.what_ifs = None
            inode.extents += self._extents.insert(inode.number, page, extent)
            inode.pages += extent.count
        self._advisor.grown(inode)
        return len(taken)

    def _holes(self, inode: Inode, first: int, end: int) -> list[tuple[int, int]]:
        """The runs of pages between `first` and `end` that are not allocated: (page, count)."""
        if not inode.pages or (
            first >= pages_for(inode.size, self._page_size) and not inode.prealloc
        ):
            return [(first, end - first)]
        found = self._extents.find(inode.number, first)
        if found is not None and found.end >= end:
            return []
        pieces = self._extents.pieces(inode.number, first, end)
        return [(page, count) for page, count, start in pieces if start is None]

    def _allocate(self, page: int, count: int, goal: int) -> Iterator[tuple[int, Extent]]:
        end = page + count
        while page < end:
            extent = self._store.allocator.allocate(end - page, goal, page)
            yield page, extent
            page += extent.count
            goal = extent.end

    def _resized(self, inode: Inode, size: int, *, recount: bool = True) -> None:
        """Set the size and count anew what depends on it.

        Without `recount` the caller knows that there is no page behind the end.
        """
        inode.size = size
        inode.what_ifs = None
        page_size = self._page_size
        pages = pages_for(size, page_size)
        if recount:
            beyond = self._extents.mappings(inode.number, pages)
            inode.prealloc = sum(mapping.clip(pages, MAX_U64).count for mapping in beyond)
        has_tail = size % page_size and self._extents.find(inode.number, pages - 1) is not None
        inode.tail = -size % page_size if has_tail else 0

    def _expose(self, inode: Inode, end: int) -> None:
        """Before the size grows: zero what is allocated between the end of file and `end`."""
        if inode.size < end and inode.pages:
            self._zero_runs(inode, inode.size, end)

    def _zero_runs(self, inode: Inode, offset: int, end: int) -> None:
        """Zero the bytes of a range that are allocated."""
        for where, length in self._runs(inode, offset, end):
            if where is not None:
                self._zero_stored(where, length)

    def _zero_stored(self, where: int, length: int) -> None:
        """Zero bytes of the store: whole pages without writing them."""
        head = min(length, -where % self._page_size)
        pages = (length - head) // self._page_size * self._page_size
        if head:
            self._backing.write(where, bytes(head))
        if pages:
            self._backing.prepare(where + head, pages)
        if head + pages < length:
            self._backing.write(where + head + pages, bytes(length - head - pages))
        self._store.transaction.data_written()

    def truncate(self, inode: Inode, size: int) -> None:
        """Make a file `size` bytes long; what is cut off is freed, what is added is a hole."""
        if size > MAX_FILE_BYTES:
            raise FileTooBigError("beyond the largest file size")
        self._inodes.edit(inode)
        self._expose(inode, size)
        if size < inode.size or inode.prealloc:
            self._free(inode, pages_for(size, self._page_size), MAX_U64)
        self._resized(inode, size, recount=False)
        inode.prealloc = 0
        inode.mtime = inode.ctime = now()

    def release(self, inode: Inode) -> None:
        """Free every page of a file that is going away."""
        self._inodes.edit(inode)
        self._free(inode, 0, MAX_U64)
        self._resized(inode, 0, recount=False)
        inode.prealloc = 0

    def _free(self, inode: Inode, first: int, end: int) -> None:
        if not inode.pages:
            return
        removed, fewer = self._extents.remove(inode.number, first, end, inode.extents)
        inode.extents -= fewer
        for extent in removed:
            inode.pages -= extent.count
            self._advisor.shrunk(inode, extent)
            self._store.allocator.free(extent)

    def allocate(self, inode: Inode, offset: int, length: int, *, keep_size: bool) -> None:
        """fallocate(2), mode 0 or KEEP_SIZE: back a range with pages."""
        end = self._checked_range(offset, length)
        self._inodes.edit(inode)
        if not keep_size:
            self._expose(inode, end)
        self._fill(inode, offset // self._page_size, pages_for(end, self._page_size))
        self._resized(inode, inode.size if keep_size else max(inode.size, end))
        inode.ctime = now()
        if not keep_size:
            inode.mtime = inode.ctime

    def punch(self, inode: Inode, offset: int, length: int) -> None:
        """fallocate(2), PUNCH_HOLE: zeros from here on; whole pages are freed."""
        end = self._checked_range(offset, length)
        self._inodes.edit(inode)
        page_size = self._page_size
        first, last = pages_for(offset, page_size), end // page_size
        if first > last:
            self._zero_runs(inode, offset, end)
        else:
            self._zero_runs(inode, offset, first * page_size)
            self._zero_runs(inode, last * page_size, end)
            self._free(inode, first, last)
        self._resized(inode, inode.size)
        inode.mtime = inode.ctime = now()

    def zero(self, inode: Inode, offset: int, length: int, *, keep_size: bool) -> None:
        """fallocate(2), ZERO_RANGE: zeros that are allocated; what is already stays where it is."""
        end = self._checked_range(offset, length)
        self._inodes.edit(inode)
        self._fill(inode, offset // self._page_size, pages_for(end, self._page_size))
        self._resized(inode, inode.size)  # pages may have been added behind the end
        self._zero_runs(inode, offset, end)
        self.allocate(inode, offset, length, keep_size=keep_size)
        inode.mtime = inode.ctime

    def _checked_range(self, offset: int, length: int) -> int:
        if offset < 0 or length <= 0:
            raise InvalidArgumentError("an empty or negative range")
        if offset + length > MAX_FILE_BYTES:
            raise FileTooBigError("beyond the largest file size")
        return offset + length

    def seek(self, inode: Inode, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE. Raises `NoSuchOffsetError` (ENXIO)."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise InvalidArgumentError("neither SEEK_DATA nor SEEK_HOLE")
        if not 0 <= offset < inode.size:
            raise NoSuchOffsetError("at or beyond the end of the file")
        page_size = self._page_size
        first, end = offset // page_size, pages_for(inode.size, page_size)
        for page, _, start in self._extents.pieces(inode.number, first, end):
            if (start is not None) == (whence == os.SEEK_DATA):
                return max(offset, page * page_size)
        if whence == os.SEEK_DATA:
            raise NoSuchOffsetError("no data up to the end of the file")
        return inode.size

    def copy(self, source: Inode, offset: int, target: Inode, to: int, length: int) -> int:
        """copy_file_range(2) within the filesystem; returns the bytes copied, holes included."""
        length = min(length, max(0, source.size - offset))
        if source is target and offset < to + length and to < offset + length:
            raise InvalidArgumentError("the ranges overlap")
        done = 0
        while done < length:
            step = min(_COPY_BYTES, length - done)
            try:
                for view in self.read(source, offset + done, step):
                    done += self.write(target, to + done, view)
            except (MapfsError, OSError):
                if done:
                    return done
                raise
        return done


def require_file(inode: Inode) -> Inode:
    """The inode, if it is a regular file: only these have content."""
    if inode.is_directory:
        raise IsADirectoryFileError("a directory has no content")
    if not inode.is_file:
        raise InvalidArgumentError("only regular files have content")
    return inode
