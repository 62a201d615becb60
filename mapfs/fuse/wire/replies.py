"""Answers to the kernel: inodes, directory entries and statistics as structures of the protocol."""

from typing import Final

from mapfs.filesystem.filesystem import Statistics
from mapfs.format.records import Inode, Listed
from mapfs.fuse.wire.protocol import (
    ATTR_OUT,
    DIRENT,
    DIRENT_ALIGN,
    ENTRY_OUT,
    STATFS_OUT,
    STATX_OUT,
)

# How long the kernel may believe an answer: the daemon is the only one that changes anything.
_VALID_SECONDS: Final = 1 << 31
_BILLION: Final = 10**9
# The unit of `st_blocks` (stat(2)).
_BLOCK_BYTES: Final = 512
# For the kernel this is the block size of its page cache, whatever the store's pages are.
_BLKSIZE: Final = 4096
_NAME_BYTES: Final = 255
# STATX_BASIC_STATS and STATX_BTIME (linux/stat.h).
_STATX_MASK: Final = 0x0FFF
# An entry without an inode: there is no such name, and the kernel may remember that.
ABSENT: Final = ENTRY_OUT.pack(0, _VALID_SECONDS, 0, *[0] * 15)
# The part of a READDIRPLUS entry that says nothing of the inode: for `.` and `..`.
_NO_ENTRY: Final = bytes(ENTRY_OUT.size)


class Replies:
    """Packs what `Filesystem` answers. `page_size` is the store's, in bytes."""

    def __init__(self, page_size: int) -> None:
        self._blocks = page_size // _BLOCK_BYTES

    def _attr(self, inode: Inode) -> tuple[int, ...]:
        """The fields of `ATTR`."""
        atime, atime_ns = divmod(inode.atime, _BILLION)
        mtime, mtime_ns = divmod(inode.mtime, _BILLION)
        ctime, ctime_ns = divmod(inode.ctime, _BILLION)
        return (
            inode.number,
            # A directory's entries lie in the catalog: it takes no bytes of the store.
            0 if inode.is_directory else inode.size,
            inode.pages * self._blocks,
            atime,
            mtime,
            ctime,
            atime_ns,
            mtime_ns,
            ctime_ns,
            inode.mode,
            inode.nlink,
            inode.uid,
            inode.gid,
            inode.rdev,
            _BLKSIZE,
        )

    def entry(self, inode: Inode) -> bytes:
        """What LOOKUP and all that make a name answer."""
        return ENTRY_OUT.pack(inode.number, _VALID_SECONDS, _VALID_SECONDS, *self._attr(inode))

    def attributes(self, inode: Inode) -> bytes:
        """What GETATTR and SETATTR answer."""
        return ATTR_OUT.pack(_VALID_SECONDS, *self._attr(inode))

    def statx(self, inode: Inode) -> bytes:
        """What STATX answers: all that stat(2) has, and the time of birth."""
        major = inode.rdev >> 8 & 0xFFF
        minor = inode.rdev & 0xFF | inode.rdev >> 12 & 0xFFF00
        times = (inode.atime, inode.btime, inode.ctime, inode.mtime)
        return STATX_OUT.pack(
            _VALID_SECONDS,
            _STATX_MASK,
            _BLKSIZE,
            inode.nlink,
            inode.uid,
            inode.gid,
            inode.mode,
            inode.number,
            0 if inode.is_directory else inode.size,
            inode.pages * self._blocks,
            *(part for time in times for part in divmod(time, _BILLION)),
            major,
            minor,
        )

    def listed(self, entry: Listed, inode: Inode) -> bytes:
        """An entry of READDIRPLUS."""
        if entry.name in (b".", b".."):
            return _NO_ENTRY + dirent(entry)
        return self.entry(inode) + dirent(entry)

    def statistics(self, found: Statistics) -> bytes:
        """What STATFS answers."""
        return STATFS_OUT.pack(
            found.total_pages,
            found.free_pages,
            found.free_pages,
            found.inodes + found.free_inodes,
            found.free_inodes,
            found.page_size,
            _NAME_BYTES,
            found.page_size,
        )


def dirent(entry: Listed) -> bytes:
    """An entry of READDIR."""
    name = entry.name
    return DIRENT.pack(entry.inode, entry.cookie, len(name), entry.type >> 12) + name.ljust(
        -(-len(name) // DIRENT_ALIGN) * DIRENT_ALIGN, b"\0"
    )
