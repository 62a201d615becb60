"""Linux system calls that Python's `os` and `mmap` lack, like fallocate(2) and cachestat(2).

Every function raises `OSError` with the call's errno, and releases the GIL while it runs.
"""

import ctypes
import errno
import os
from typing import Final, NamedTuple

FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
FALLOC_FL_ZERO_RANGE: Final = 0x10
MADV_DONTNEED: Final = 4
MADV_HUGEPAGE: Final = 14

_SYNC_FILE_RANGE_WRITE: Final = 0x02
_SYS_CACHESTAT: Final = 451  # the same on every architecture (Linux 6.5)
_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_PRIVATE: Final = 2
_MAP_FIXED: Final = 0x10
_MAP_ANONYMOUS: Final = 0x20
_MLOCK_ONFAULT: Final = 1
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_uint,
)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mlock2.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)


class CacheStatistics(NamedTuple):
    """What the page cache holds of a range, in pages of the machine.

    `dirty` includes pages under writeback, and is None where the kernel cannot tell.
    """

    resident: int
    dirty: int | None


class _CachestatRange(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Cachestat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")
    )


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2); bytes. Starts again when a signal interrupts it."""
    while _libc.fallocate(fd, mode, offset, length) < 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def sync_file_range(fd: int, offset: int, length: int) -> None:
    """sync_file_range(2) with SYNC_FILE_RANGE_WRITE: begin to write dirty pages to the disk."""
    _check(_libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE))


def map_fixed(address: int, length: int, fd: int, offset: int, *, writable: bool) -> None:
    """mmap(2) with MAP_SHARED and MAP_FIXED: put a part of a file at an address, which is yours."""
    protection = _PROT_READ | (_PROT_WRITE if writable else 0)
    placed = _libc.mmap(address, length, protection, _MAP_SHARED | _MAP_FIXED, fd, offset)
    if placed == _MAP_FAILED:
        _check(-1)


def map_shared(fd: int, length: int, offset: int) -> int:
    """mmap(2) with MAP_SHARED and PROT_READ; returns the address, for `unmap`."""
    address = _libc.mmap(None, length, _PROT_READ, _MAP_SHARED, fd, offset)
    if address == _MAP_FAILED:
        _check(-1)
    return int(address)


def unmap(address: int, length: int) -> None:
    """munmap(2)."""
    _check(_libc.munmap(address, length))


def advise_memory(address: int, length: int, advice: int) -> None:
    """madvise(2), with a `MADV_…` of those above."""
    _check(_libc.madvise(address, length, advice))


def reserve_lock(address: int, length: int) -> None:
    """mlock2(2) with MLOCK_ONFAULT: count the range as locked, and lock its pages as they come."""
    _check(_libc.mlock2(address, length, _MLOCK_ONFAULT))


def lock_memory(address: int, length: int) -> None:
    """mlock(2): bring a range into memory and keep it there."""
    _check(_libc.mlock(address, length))


def map_zeros(address: int, length: int) -> None:
    """mmap(2) with MAP_ANONYMOUS and MAP_FIXED: zeros that can only be read, at your address."""
    flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
    if _libc.mmap(address, length, _PROT_READ, flags, -1, 0) == _MAP_FAILED:
        _check(-1)


class _Buffer(ctypes.Structure):
    """`Py_buffer`, which is part of Python's stable interface."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(exporter: object) -> int:
    """Where in memory the bytes of an object are that supports the buffer protocol."""
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(exporter), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


class PageCache:
    """What the page cache holds of a file. For one thread at a time: it keeps its arguments."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._range = _CachestatRange()
        self._found = _Cachestat()
        self._pointers = ctypes.byref(self._range), ctypes.byref(self._found)

    def statistics(self, offset: int, length: int) -> CacheStatistics:
        """Of `length` bytes at `offset`, which is a multiple of the page.

        cachestat(2) from Linux 6.5; before that mincore(2), which does not know what is dirty.
        """
        self._range.off, self._range.len = offset, length
        result = _libc.syscall(_SYS_CACHESTAT, self._fd, *self._pointers, 0)
        if result == 0:
            found = self._found
            return CacheStatistics(found.cache, found.dirty + found.writeback)
        if ctypes.get_errno() != errno.ENOSYS:
            _check(result)
        return CacheStatistics(_mincore(self._fd, offset, length), None)


def _mincore(fd: int, offset: int, length: int) -> int:
    address = map_shared(fd, length, offset)
    try:
        pages = ctypes.create_string_buffer(-(-length // os.sysconf("SC_PAGE_SIZE")))
        _check(_libc.mincore(address, length, pages))
        return sum(page & 1 for page in pages.raw)
    finally:
        unmap(address, length)
