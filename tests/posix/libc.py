"""System calls that the os module does not have, with OSError for their errors."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_long, _int, _off, _pointer = ctypes.c_long, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
FALLOC_FL_ZERO_RANGE = 16

UTIME_NOW = (0, (1 << 30) - 1)
UTIME_OMIT = (0, (1 << 30) - 2)

F_OFD_SETLK = 37
_STATX_BTIME = 0x800


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def rename(old: Path, new: Path, flags: int) -> None:
    """renameat2(2)."""
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def link(old: Path | str, new: Path, flags: int) -> None:
    """linkat(2)."""
    _checked(_libc.linkat(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), without glibc's emulation."""
    _checked(_libc.fallocate(fd, mode, _off(offset), _off(length)))


def copy_file_range(source: int, start: int, target: int, to: int, length: int) -> int:
    """copy_file_range(2); what it returns."""
    offsets = (ctypes.byref(_off(start)), ctypes.byref(_off(to)))
    arguments = (source, offsets[0], target, offsets[1], ctypes.c_size_t(length), 0)
    return _checked(_libc.copy_file_range(*arguments))


def birth_time(path: Path) -> int | None:
    """The time of birth that statx(2) tells, in nanoseconds; None if it tells none."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer))
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer)
    return seconds * 10**9 + nanoseconds if mask & _STATX_BTIME else None


def syncfs(fd: int) -> None:
    """syncfs(2)."""
    _checked(_libc.syncfs(fd))


def sync_file_range(fd: int, offset: int, length: int) -> None:
    """sync_file_range(2) that waits before, writes, and waits after."""
    _checked(_libc.sync_file_range(fd, _off(offset), _off(length), 7))


def utimens(path: Path, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> None:
    """utimensat(2): times as (seconds, nanoseconds), UTIME_NOW or UTIME_OMIT."""
    times = (_long * 4)(*atime, *mtime)
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags))


def getxattr(path: Path, name: str, size: int) -> int:
    """getxattr(2) into a buffer of this size; what it returns."""
    return _checked(_libc.getxattr(os.fsencode(path), name.encode(), bytes(size) or None, size))


def listxattr(path: Path, size: int) -> int:
    """listxattr(2) into a buffer of this size; what it returns."""
    return _checked(_libc.listxattr(os.fsencode(path), bytes(size) or None, size))


def getdents(fd: int, size: int) -> int:
    """getdents64(2) into a buffer of this size; the number of bytes it filled."""
    return _checked(_libc.getdents64(fd, ctypes.create_string_buffer(size), size))


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


class Entry(NamedTuple):
    """One directory entry."""

    name: bytes
    ino: int
    type: int


_libc.opendir.restype = _pointer
_libc.opendir.argtypes = (ctypes.c_char_p,)
_libc.readdir64.restype = ctypes.POINTER(_Dirent)
_libc.readdir64.argtypes = _libc.rewinddir.argtypes = _libc.closedir.argtypes = (_pointer,)
_libc.telldir.argtypes = (_pointer,)
_libc.telldir.restype = _long
_libc.seekdir.argtypes = (_pointer, _long)


class Directory:
    """A directory stream: opendir, readdir, telldir, seekdir, rewinddir."""

    def __init__(self, path: Path) -> None:
        self._stream = _libc.opendir(os.fsencode(path))
        _checked(0 if self._stream else -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _libc.closedir(self._stream)

    def read(self) -> Entry | None:
        """The next entry; None at the end."""
        ctypes.set_errno(0)
        entry = _libc.readdir64(self._stream)
        if not entry:
            _checked(-1 if ctypes.get_errno() else 0)
            return None
        # The name may be longer than this record's own memory: read it where it ends.
        name = ctypes.string_at(ctypes.addressof(entry.contents) + _Dirent.d_name.offset)
        return Entry(name, entry.contents.d_ino, entry.contents.d_type)

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.read()) is not None:
            yield entry

    def names(self) -> list[str]:
        """The names from here to the end, without the two dots."""
        return [os.fsdecode(e.name) for e in self if e.name not in {b".", b".."}]

    def tell(self) -> int:
        """The cursor of the next entry."""
        return int(_libc.telldir(self._stream))

    def seek(self, cursor: int) -> None:
        """Go on from a cursor that tell gave."""
        _libc.seekdir(self._stream, cursor)

    def rewind(self) -> None:
        """Start again."""
        _libc.rewinddir(self._stream)


class SharedMapping:
    """A mapping by mmap(2) that may reach beyond the end of its file, which Python's may not."""

    def __init__(self, fd: int, length: int) -> None:
        _libc.mmap.restype = _pointer
        _libc.mmap.argtypes = (_pointer, ctypes.c_size_t, _int, _int, _int, _off)
        address = _libc.mmap(None, length, 3, 1, fd, 0)
        _checked(-1 if address in (None, ctypes.c_size_t(-1).value) else 0)
        self._address, self._length = int(address or 0), length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _checked(_libc.munmap(_pointer(self._address), ctypes.c_size_t(self._length)))

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the mapping; a page beyond the end of the file is a SIGBUS."""
        return ctypes.string_at(self._address + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes into the mapping."""
        ctypes.memmove(self._address + offset, data, len(data))
