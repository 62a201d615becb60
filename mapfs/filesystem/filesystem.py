"""`Filesystem`: the synchronous facade over a store that everything above uses.

It runs without FUSE, as a library, in tests and in the commands. Inodes go in and out by number,
names and attribute names are bytes, times are nanoseconds. One thread owns it; only what
`begin_commit` and `cold_loader` return may run in another. Errors are `MapfsError`s that carry the
errno of the call's man page, or `OSError`s of the host (EIO, ENOSPC).
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from mapfs.errors import (
    InvalidArgumentError,
    NotADirectoryFileError,
    NotSupportedError,
)
from mapfs.filesystem.advice import Advisor
from mapfs.filesystem.attributes import Attributes, Listing
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.cold_loader import ColdLoader
from mapfs.filesystem.content import Content, require_file
from mapfs.filesystem.directory import DirectoryTable, Place
from mapfs.filesystem.durability import logged
from mapfs.filesystem.extended_attributes import ExtendedAttributes
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.inode import CacheUse, InodeTable
from mapfs.filesystem.metadata import AccessTimes, Changes, Metadata
from mapfs.filesystem.namespace import Namespace
from mapfs.filesystem.placement import Placement
from mapfs.filesystem.xattr import XattrTable
from mapfs.format.layout import Layout, joined_layouts
from mapfs.format.records import ROOT_INODE, Inode, Listed, Table, id_key, id_of
from mapfs.store.backing import Data
from mapfs.store.store import Store
from mapfs.store.syscalls import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
)

__all__ = ["AccessTimes", "Caller", "Changes", "Filesystem", "Listing", "Statistics"]

# What mknod(2) makes; no type stands for a regular file.
_NODES: Final = {0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
# Directory cookies of the two entries that every listing starts with.
_DOT, _DOT_DOT = 1, 2


@dataclass(frozen=True, slots=True)
class Statistics:
    """statfs(2), in pages of `page_size` bytes, and counts of inodes."""

    page_size: int
    total_pages: int
    free_pages: int
    inodes: int
    free_inodes: int


class Filesystem(ExtendedAttributes):
    """One mounted or opened filesystem. Takes over the store and closes it."""

    def __init__(
        self,
        store: Store,
        *,
        listing: Listing = Listing.HIDDEN,
        access_times: AccessTimes = AccessTimes.ALL,
        keep_orphans: bool = False,
        acl: bool = True,
    ) -> None:
        """Replay what the store's log holds, and free what nobody owns.

        `keep_orphans` is for a mount that goes on: files without a name may be open there. Without
        `acl` those that are stored have no effect and are not listed.
        """
        self.store = store
        self.read_only = store.read_only
        self._listing = listing
        self._extents = ExtentMap(store.transaction, store.allocator.holds)
        self._inodes = InodeTable(store, self._extents)
        self._advisor = Advisor(store, self._inodes, self._extents)
        self._placement = Placement(store, self._extents, self._advisor)
        self._content = Content(store, self._inodes, self._extents, self._placement, self._advisor)
        self._directories = DirectoryTable(store, self._inodes)
        self._xattrs = XattrTable(store, self._inodes, has_acl=acl)
        times = AccessTimes.NONE if store.read_only else access_times
        self._metadata = Metadata(self._inodes, self._content, self._xattrs, times)
        self._attributes = Attributes(store, self._inodes, self._extents, self._placement)
        self._names = Namespace(store, self._inodes, self._directories, self._xattrs, self._content)
        self._inodes.adopt(store.replayed.counted)
        if store.read_only:
            self._inodes.flush()
        else:
            self._recover(keep_orphans=keep_orphans)

    def _recover(self, *, keep_orphans: bool) -> None:
        """After opening: free what nobody owns, and make durable what was replayed.

        The log of this life must not be read as if it went on from the one before.
        """
        self.store.allocator.recover()
        if not keep_orphans:
            self._forget_orphans()
        if self.store.replayed.is_needed:
            self.commit()
        while self.must_commit:
            self.commit()

    def _forget_orphans(self) -> None:
        orphans = self.store.transaction.scan(Table.ORPHANS, id_key(0), b"\xff" * 9)
        for number in [id_of(key) for key, _ in orphans]:
            self._names.forget(number)

    # Inodes

    def inode(self, number: int) -> Inode:
        """The inode `number`, to be read and not changed. Raises `NotFoundError`."""
        return self._inodes.get(number)

    def lookup(self, parent: int, name: bytes) -> Inode:
        """The inode that `name` stands for in directory `parent`. Raises `NotFoundError`."""
        return self._names.lookup(self._inodes.get(parent), name)

    def resolve(self, path: bytes) -> Inode:
        """The inode at a path from the root; symbolic links are not followed."""
        inode = self._inodes.get(ROOT_INODE)
        for name in filter(None, path.split(b"/")):
            inode = self._names.lookup(inode, name)
        return inode

    def path_of(self, number: int) -> bytes | None:
        """A path of an inode from the root, without a slash before it; None if it has none.

        Of a file with several names it is the oldest. Raises `NotFoundError`.
        """
        return self._names.path(self._inodes.peek(number))

    def numbers(self, after: int, most: int) -> list[int]:
        """Up to so many numbers of inodes above `after`, ascending; new directories may lack."""
        records = self.store.transaction.scan(Table.INODES, id_key(after + 1), b"\xff" * 9)
        return [id_of(key) for key, _ in islice(records, most)]

    def cached_bytes(self, number: int) -> tuple[int, int | None]:
        """The bytes of a file that are in memory, and that are dirty there (None: unknown)."""
        return self._placement.cached_bytes(require_file(self._inodes.get(number)))

    @property
    def cache_use(self) -> CacheUse:
        """What the cache of inodes was good for so far."""
        return self._inodes.cache_use

    @logged
    def setattr(self, number: int, changes: Changes) -> Inode:
        """chmod, chown, truncate and utimens in one, as the kernel asks for them."""
        self.is_time_change = changes.are_times and self.logs_calls
        return self._metadata.change(self._inodes.get(number), changes)

    def is_orphan(self, number: int) -> bool:
        """Whether an inode has no name and waits for its last user to `forget` it."""
        return self._inodes.is_orphan(number)

    def forget(self, number: int) -> None:
        """Free an orphan whose last user is gone; any other inode is left alone."""
        if not self.is_failed:
            self._forget(number)

    @logged
    def _forget(self, number: int) -> None:
        self._names.forget(number)

    # Names

    @logged
    def create(
        self, parent: int, name: bytes, mode: int, caller: Caller, *, rdev: int = 0
    ) -> Inode:
        """A new regular file, FIFO, socket or device node, by the type bits of `mode`."""
        if stat.S_IFMT(mode) not in _NODES:
            raise InvalidArgumentError("not a type that mknod makes")
        self.store.require_room()
        mode = mode if stat.S_IFMT(mode) else mode | stat.S_IFREG
        return self._names.create(self._place(parent, name), mode, caller, rdev=rdev)

    @logged
    def create_unnamed(self, parent: int, mode: int, caller: Caller) -> Inode:
        """O_TMPFILE: a regular file without a name."""
        self.store.require_room()
        return self._names.create_unnamed(self._directory(parent), mode, caller)

    @logged
    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Inode:
        """A new directory."""
        self.store.require_room()
        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return self._names.create(self._place(parent, name), mode, caller)

    @logged
    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Inode:
        """A new symbolic link to `target`."""
        self.store.require_room(len(target))
        mode = stat.S_IFLNK | 0o777
        return self._names.create(self._place(parent, name), mode, caller, target=target)

    @logged
    def link(self, number: int, parent: int, name: bytes) -> Inode:
        """A further name for an inode."""
        self.store.require_room()
        inode = self._inodes.get(number)
        self._names.link(inode, self._place(parent, name))
        return inode

    @logged
    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name of anything but a directory; `forget` frees the inode."""
        self._names.unlink(self._place(parent, name))

    @logged
    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        self._names.rmdir(self._place(parent, name))

    @logged
    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
        self._names.rename(self._place(parent, name), self._place(new_parent, new_name), flags)

    def readlink(self, number: int) -> bytes:
        """The target of a symbolic link."""
        inode = self._inodes.get(number)
        if not inode.is_symlink:
            raise InvalidArgumentError("not a symbolic link")
        self._metadata.accessed(inode)
        return inode.target

    def readdir(self, number: int, after: int = 0, *, stamp: bool = True) -> Iterator[Listed]:
        """The entries of a directory, `.` and `..` first, behind the one with cookie `after`.

        Cookies grow and stay with their entries, so a listing can be taken up again whatever
        changed in between. Drop the iterator before the directory changes. `stamp` False leaves
        the access time as it is.
        """
        directory = self._directory(number)
        if stamp:
            self._metadata.accessed(directory)
        if after < _DOT:
            yield Listed(_DOT, number, stat.S_IFDIR, b".")
        if after < _DOT_DOT:
            yield Listed(_DOT_DOT, directory.parent, stat.S_IFDIR, b"..")
        yield from self._directories.listing(directory, max(after, _DOT_DOT))

    def readdirplus(
        self, number: int, after: int = 0, *, stamp: bool = True
    ) -> Iterator[tuple[Listed, Inode]]:
        """As `readdir`, each entry with its inode, which must be neither changed nor kept."""
        peek = self._inodes.peek
        return ((entry, peek(entry.inode)) for entry in self.readdir(number, after, stamp=stamp))

    def _directory(self, number: int) -> Inode:
        inode = self._inodes.get(number)
        if not inode.is_directory:
            raise NotADirectoryFileError(f"inode {number} is not a directory")
        return inode

    def _place(self, parent: int, name: bytes) -> Place:
        return Place(self._directory(parent), name)

    # Content

    def read(self, number: int, offset: int, size: int, *, stamp: bool = True) -> list[memoryview]:
        """Up to `size` bytes as views of the mapping; use them before the next commit ends.

        `stamp` False leaves the access time as it is.
        """
        inode = require_file(self._inodes.get(number))
        if stamp:
            self._metadata.accessed(inode)
        return self._content.read(inode, offset, size)

    def cold_loader(
        self, number: int, offset: int, size: int, *, stamp: bool = True
    ) -> ColdLoader | None:
        """What a worker thread should call before `read`, or None if all of it is in memory.

        If it names a `run`, the thread may as well fetch these bytes of the store: they are the
        file's as long as `recycled` is what it was. `stamp` is that of `read`.
        """
        inode = require_file(self._inodes.get(number))
        loader = self._placement.cold_loader(inode, offset, size)
        if loader is not None and stamp:
            self._metadata.accessed(inode)
        return loader

    def store_runs(self, number: int, offset: int, size: int) -> list[tuple[int, int]]:
        """The bytes of a range that are in the store, as (store offset, length): for readahead."""
        return self._placement.store_runs(self._inodes.get(number), offset, size)

    def layout(self, number: int) -> Layout:
        """Where a regular file is in the store file. Raises `OSError` (EIO) if bytes are lost."""
        inode = require_file(self._inodes.get(number))
        parts = [self._placement.layout(inode)]
        while (behind := parts[-1].next) is not None:
            parts.append(self._placement.layout(inode, behind))
        return joined_layouts(parts)

    @property
    def recycled(self) -> int:
        """How often pages of files became free to be used again. May be read in any thread."""
        return self.store.allocator.releases

    def write(self, number: int, offset: int, data: Data, *, stamp: bool = True) -> int:
        """Write all of `data`; returns its length. `stamp` False leaves the times as they are."""
        inode = require_file(self._inodes.get(number))
        if not stamp and not self.is_failed and self._content.overwrite(inode, offset, data):
            return len(data)  # there is nothing to log
        return self._write(inode, offset, data, stamp=stamp)

    @logged
    def _write(self, inode: Inode, offset: int, data: Data, *, stamp: bool) -> int:
        return self._content.write(inode, offset, data, stamp=stamp)

    @logged
    def fallocate(self, number: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2): allocate, KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE."""
        inode = require_file(self._inodes.get(number))
        keep_size = bool(mode & FALLOC_FL_KEEP_SIZE)
        if mode & ~FALLOC_FL_KEEP_SIZE == 0:
            self._content.allocate(inode, offset, length, keep_size=keep_size)
        elif mode == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
            self._content.punch(inode, offset, length)
        elif mode & ~FALLOC_FL_KEEP_SIZE == FALLOC_FL_ZERO_RANGE:
            self._content.zero(inode, offset, length, keep_size=keep_size)
        else:
            raise NotSupportedError("fallocate mode")

    def seek(self, number: int, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE."""
        return self._content.seek(require_file(self._inodes.get(number)), offset, whence)

    @logged
    def copy_range(self, number: int, offset: int, target: int, to: int, length: int) -> int:
        """copy_file_range(2); returns the bytes copied."""
        source = require_file(self._inodes.get(number))
        return self._content.copy(
            source, offset, require_file(self._inodes.get(target)), to, length
        )

    # The whole

    def statfs(self) -> Statistics:
        """How full the filesystem is: never more free than the host can back."""
        store = self.store
        free = store.allocator.available_pages
        used = store.state.allocated_pages
        return Statistics(store.page_size, used + free, free, store.state.inodes, free)

    def hand_over(self) -> None:
        """Commit, and close the store for another process that goes on with the mount."""
        try:
            if self.is_dirty:
                self.commit()
        finally:
            self.store.close()

    def close(self) -> None:
        """Free what has no name, commit, and close the store."""
        try:
            if self.is_failed:
                self.commit(closing=True)
            elif not self.read_only:
                self._forget_orphans()
                # Twice if anything was freed: opening a store need not make free what is free.
                while self.is_dirty or self.store.allocator.reserved_pages:
                    self.commit(closing=True)
        finally:
            self.store.close()
