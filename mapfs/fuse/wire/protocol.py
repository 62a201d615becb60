"""The FUSE protocol: opcodes, flags and structures, named after those of `linux/fuse.h` (7.45).

Integers have the byte order of the machine. A structure is a `struct.Struct` with the fields of
its C namesake in order; padding and what mapfs has no use for is skipped (`x`).
"""

import enum
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 45
# The oldest that mapfs speaks: Linux 5.4.
LEAST_MINOR: Final = 31


class Opcode(enum.IntEnum):
    """`enum fuse_opcode`."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


# From queues of their own: they come between any others.
UNANSWERED: Final = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)
# The names of what can be answered; FUSE_INIT is, before anything is served.
OPERATIONS: Final = frozenset(
    opcode.name.lower() for opcode in Opcode if opcode not in (*UNANSWERED, Opcode.INIT)
)


class Notify(enum.IntEnum):
    """`enum fuse_notify_code`: messages that the daemon sends by itself."""

    INVAL_INODE = 2
    RESEND = 7


class Init(enum.IntFlag):
    """`FUSE_INIT` flags; those from bit 32 on travel in `flags2`."""

    ASYNC_READ = 1 << 0
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    HAS_IOCTL_DIR = 1 << 11
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    HAS_RESEND = 1 << 39


# The fields of `SETATTR_IN` that are meant. Numbers: looking at ten flags of an enumeration took
# half of a SETATTR.
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11


FUSE_WRITE_KILL_SUIDGID: Final = 1 << 2
FUSE_FSYNC_FDATASYNC: Final = 1 << 0
FUSE_SETXATTR_ACL_KILL_SGID: Final = 1 << 0
# Set in `unique` of a request that is sent again after `Notify.RESEND`.
FUSE_UNIQUE_RESEND: Final = 1 << 63

# len opcode unique nodeid | uid gid pid (total_extlen)
IN_HEADER: Final = Struct("=IIQQIII4x")
# len error unique
OUT_HEADER: Final = Struct("=IiQ")

# ino size blocks | atime mtime ctime | their nanoseconds | mode nlink uid gid rdev blksize (flags)
_ATTR: Final = "QQQqqqIIIIIIIII4x"
ATTR: Final = Struct(f"={_ATTR}")
# nodeid (generation) entry_valid attr_valid (their nanoseconds), then an attr
ENTRY_OUT: Final = Struct(f"=Q8xQQ8x{_ATTR}")
# attr_valid (nanoseconds), then an attr
ATTR_OUT: Final = Struct(f"=Q8x{_ATTR}")

# major minor max_readahead flags | flags2
INIT_IN: Final = Struct("=IIII")
INIT_IN_FLAGS2: Final = Struct("=I")
# major minor max_readahead flags | max_background congestion_threshold max_write time_gran |
# max_pages (map_alignment) flags2 (max_stack_depth request_timeout unused)
INIT_OUT: Final = Struct("=IIIIHHIIH2xI28x")

# nlookup
FORGET_IN: Final = Struct("=Q")
# count
BATCH_FORGET_IN: Final = Struct("=I4x")
# nodeid nlookup
FORGET_ONE: Final = Struct("=QQ")

# valid (fh) size (lock_owner) | atime mtime ctime | their nanoseconds | mode uid gid
SETATTR_IN: Final = Struct("=I4x8xQ8xqqqIIII4xII4x")

# mode rdev umask
MKNOD_IN: Final = Struct("=III4x")
# mode umask
MKDIR_IN: Final = Struct("=II")
# newdir
RENAME_IN: Final = Struct("=Q")
# newdir flags
RENAME2_IN: Final = Struct("=QI4x")
# oldnodeid
LINK_IN: Final = Struct("=Q")
# (flags) mode umask (open_flags)
CREATE_IN: Final = Struct("=4xII4x")
# (fh open_flags backing_id)
OPEN_OUT: Final = Struct("=16x")

# (fh) offset size (read_flags lock_owner flags); READDIR has it too
READ_IN: Final = Struct("=8xQI12xI4x")  # offset, size, flags of open(2)
# (fh) offset size write_flags (lock_owner flags)
WRITE_IN: Final = Struct("=8xQII16x")
# size
WRITE_OUT: Final = Struct("=I4x")
# (fh) fsync_flags
FSYNC_IN: Final = Struct("=8xI4x")
# (fh) offset length mode
FALLOCATE_IN: Final = Struct("=8xQQI4x")
# (fh) offset whence
LSEEK_IN: Final = Struct("=8xQI4x")
# offset
LSEEK_OUT: Final = Struct("=Q")
# (fh_in) off_in nodeid_out (fh_out) off_out len flags
COPY_FILE_RANGE_IN: Final = Struct("=8xQQ8xQQQ")

# size flags | setxattr_flags, with Init.SETXATTR_EXT
SETXATTR_IN: Final = Struct("=II")
SETXATTR_EXT_IN: Final = Struct("=III4x")
# size; LISTXATTR has it too
GETXATTR_IN: Final = Struct("=I4x")
# size
GETXATTR_OUT: Final = Struct("=I4x")

# blocks bfree bavail files ffree | bsize namelen frsize (padding spare)
STATFS_OUT: Final = Struct("=QQQQQIII28x")

# ino off namelen type, then the name, padded to DIRENT_ALIGN
DIRENT: Final = Struct("=QQII")
DIRENT_ALIGN: Final = 8

# attr_valid (nanoseconds flags spare), then a statx: mask blksize (attributes) | nlink uid gid mode
# ino size blocks (attributes_mask) | atime btime ctime mtime: seconds nanoseconds | rdev_major
# rdev_minor (dev_major dev_minor spare)
STATX_OUT: Final = Struct("=Q24xII8xIIIH2xQQQ8xqI4xqI4xqI4xqI4xII120x")

# (fh flags) cmd (arg in_size) out_size
IOCTL_IN: Final = Struct("=12xI12xI")
# result (flags in_iovs out_iovs)
IOCTL_OUT: Final = Struct("=i12x")

# ino off len
NOTIFY_INVAL_INODE_OUT: Final = Struct("=Qqq")
