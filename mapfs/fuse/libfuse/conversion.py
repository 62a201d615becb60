"""Conversions between what `Filesystem` says and what pyfuse3 does."""

from typing import Final

from pyfuse3 import (
    EntryAttributes,
    InodeT,
    ModeT,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Changes, Statistics
from mapfs.format.records import Inode

# The daemon is the only one that changes anything, so what the kernel knows stays true.
_CACHE_SECONDS: Final = 24 * 3600.0
# The unit of `st_blocks` (stat(2)).
_BLOCK_BYTES: Final = 512
# For the kernel this is the block size of its page cache, whatever the store's pages are.
_BLKSIZE: Final = 4096
_NAME_BYTES: Final = 255


def caller(context: RequestContext) -> Caller:
    """Who asks."""
    return Caller(context.uid, context.gid, context.umask)


def attributes(inode: Inode, page_size: int) -> EntryAttributes:
    """What stat(2) shows of an inode; `page_size` is the store's, in bytes."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(inode.number)
    entry.entry_timeout = entry.attr_timeout = _CACHE_SECONDS
    entry.st_mode = ModeT(inode.mode)
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_rdev = inode.rdev
    # A directory's entries lie in the catalog: it takes no bytes of the store.
    entry.st_size = 0 if inode.is_directory else inode.size
    entry.st_blksize = _BLKSIZE
    entry.st_blocks = inode.pages * page_size // _BLOCK_BYTES
    entry.st_atime_ns = inode.atime
    entry.st_mtime_ns = inode.mtime
    entry.st_ctime_ns = inode.ctime
    return entry


def absent() -> EntryAttributes:
    """That there is no such name, which the kernel may remember."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = _CACHE_SECONDS
    return entry


def changes(attr: EntryAttributes, fields: SetattrFields) -> Changes:
    """What a SETATTR asks for: those of `attr` that `fields` names."""
    return Changes(
        mode=attr.st_mode if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime=attr.st_atime_ns if fields.update_atime else None,
        mtime=attr.st_mtime_ns if fields.update_mtime else None,
        ctime=attr.st_ctime_ns if fields.update_ctime else None,
        keep_setgid=True,  # the kernel clears it by the mode
    )


def statistics(found: Statistics) -> StatvfsData:
    """What STATFS answers."""
    data = StatvfsData()
    data.f_bsize = data.f_frsize = found.page_size
    data.f_blocks = found.total_pages
    data.f_bfree = data.f_bavail = found.free_pages
    data.f_files = found.inodes + found.free_inodes
    data.f_ffree = data.f_favail = found.free_inodes
    data.f_namemax = _NAME_BYTES
    return data
