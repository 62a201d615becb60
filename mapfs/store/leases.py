"""Leases: parts of the store file that some process has mapped, and that must not change owner.

A lease is a read lock of an open file description (fcntl(2), F_OFD_SETLK) on the very bytes that
are mapped. A mapping keeps the description that it was made from, so the kernel drops the lock when
the last mapping is gone: unmapped, or with the last process that had it. So a lease survives the
daemon, is inherited by fork(2), and cannot be forgotten.
Offsets and lengths are bytes of the store file.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

from mapfs.store.machine_pages import Run

# struct flock of 64-bit Linux: l_type l_whence l_start l_len l_pid
_FLOCK: Final = struct.Struct("hhqqi4x")


def lease(fd: int, offset: int, length: int) -> None:
    """Lease a range for as long as `fd`'s open file description, or a mapping of it, exists.

    Any number may lease the same bytes. Raises `OSError` where the file cannot be locked.
    """
    _call(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, offset, length)


def end_leases(fd: int) -> None:
    """End all leases of `fd`'s open file description. Raises `OSError`."""
    _call(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, 0)


def leased(fd: int, offset: int, length: int) -> list[Run]:
    """The parts of a range that others have leased, ascending. Raises `OSError`.

    One system call if there are none, two more for each part.
    """
    return sorted(_leased(fd, offset, offset + length))


def _leased(fd: int, start: int, end: int) -> Iterator[Run]:
    ranges = [(start, end)]
    while ranges:
        start, end = ranges.pop()
        found = _call(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, start, end - start)
        kind, _, where, length, _ = _FLOCK.unpack(found)
        if kind == fcntl.F_UNLCK:
            continue
        low = max(start, where)
        high = min(end, where + length) if length else end  # 0: up to the end of the file
        yield low, high - low
        ranges.extend(part for part in ((start, low), (high, end)) if part[0] < part[1])


def _call(fd: int, command: int, kind: int, offset: int, length: int) -> bytes:
    return fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, offset, length, 0))
