"""FUSE_INIT: what kernel and daemon agree on before the first request."""

import os
from typing import Final

from mapfs.errors import MountError
from mapfs.fuse.options import Cache, MountOptions
from mapfs.fuse.wire.protocol import (
    IN_HEADER,
    INIT_IN,
    INIT_IN_FLAGS2,
    INIT_OUT,
    LEAST_MINOR,
    MAJOR,
    MINOR,
    OUT_HEADER,
    Init,
    Opcode,
)

# The most bytes of one WRITE, and of one READ.
MAX_WRITE_BYTES: Final = 1 << 20
_PAGE_BYTES: Final = 4096
# `fuse_dev_do_read` in fs/fuse/dev.c wants room for the largest request.
BUFFER_BYTES: Final = MAX_WRITE_BYTES + _PAGE_BYTES
_MAX_READAHEAD: Final = 16 << 20
# Requests that nobody waits for (readahead, writeback) and that may be under way at a time.
_MAX_BACKGROUND: Final = 64
_CONGESTION: Final = 48
_NANOSECOND: Final = 1

# Taken wherever the kernel offers it.
_WANTED: Final = (
    Init.ASYNC_READ  # several READs for one file at a time: readahead
    | Init.EXPORT_SUPPORT  # LOOKUP of `.` and `..`, for NFS
    | Init.BIG_WRITES
    | Init.DONT_MASK  # the umask is ours: a default ACL takes its place (acl(5))
    | Init.HAS_IOCTL_DIR
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.NO_OPEN_SUPPORT  # no message at open and close: requests carry the inode
    | Init.PARALLEL_DIROPS
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.NO_OPENDIR_SUPPORT
    | Init.HANDLE_KILLPRIV_V2  # or every write(2) would ask for security.capability
    | Init.SETXATTR_EXT
    | Init.INIT_EXT
    | Init.HAS_RESEND  # another daemon may take over what this one leaves unanswered
)


def negotiate(fd: int, options: MountOptions) -> Init:
    """Answer the connection's first request; returns the flags that hold from now on.

    Waits for it. Raises `MountError` if the kernel is too old, `OSError` if the connection ended.
    """
    while True:
        request = os.read(fd, BUFFER_BYTES)
        _, opcode, unique, *_ = IN_HEADER.unpack_from(request)
        if opcode != Opcode.INIT:
            raise MountError(f"the kernel began with request {opcode}, not with FUSE_INIT")
        major, minor, readahead, low = INIT_IN.unpack_from(request, IN_HEADER.size)
        if major < MAJOR or (major == MAJOR and minor < LEAST_MINOR):
            raise MountError(f"the kernel speaks FUSE {major}.{minor}: Linux 5.4 is needed")
        offered = Init(low)
        if Init.INIT_EXT in offered:
            (high,) = INIT_IN_FLAGS2.unpack_from(request, IN_HEADER.size + INIT_IN.size)
            offered |= high << 32
        flags = offered & _wanted(options)
        answer = _init_out(flags, min(minor, MINOR), min(readahead, _MAX_READAHEAD))
        os.write(fd, OUT_HEADER.pack(OUT_HEADER.size + len(answer), 0, unique) + answer)
        if major == MAJOR:
            return flags
        # A later kernel now begins again with our major version (fuse(4)).


def _wanted(options: MountOptions) -> Init:
    wanted = _WANTED
    if options.cache is Cache.WRITEBACK:
        wanted |= Init.WRITEBACK_CACHE
    if options.acl:
        wanted |= Init.POSIX_ACL
    return wanted


def _init_out(flags: Init, minor: int, readahead: int) -> bytes:
    return INIT_OUT.pack(
        MAJOR,
        minor,
        readahead,
        flags & 0xFFFFFFFF,
        _MAX_BACKGROUND,
        _CONGESTION,
        MAX_WRITE_BYTES,
        _NANOSECOND,
        MAX_WRITE_BYTES // _PAGE_BYTES,
        flags >> 32,
    )
