"""Where a file of any filesystem has data: FIEMAP, or lseek(2) where the filesystem has none."""

import errno
import fcntl
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mapfs.holes import data_ranges

# linux/fiemap.h: the request, each extent of the answer, and the number of the ioctl.
_REQUEST: Final = struct.Struct("=QQIIII")  # start length flags mapped_extents extent_count -
_EXTENT: Final = struct.Struct("=QQQQQIIII")  # logical physical length - - flags - - -
_FS_IOC_FIEMAP: Final = 0xC020660B
_EXTENT_LAST: Final = 0x01
_NO_PLACE: Final = 0x02 | 0x04  # UNKNOWN, DELALLOC: where it is on the disk is not settled
_AT_ONCE: Final = 32
_MAX_OFFSET: Final = (1 << 64) - 1
_NO_FIEMAP: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


class Run(NamedTuple):
    """Bytes of a file that are in one piece on the disk; `physical` is None if not known yet."""

    start: int
    end: int
    physical: int | None


class Layout(NamedTuple):
    """The byte ranges of a file that hold data, and its contiguous runs (None: unknown)."""

    ranges: list[tuple[int, int]]
    extents: int | None

    @property
    def stored(self) -> int:
        """The bytes that are not in holes."""
        return sum(end - start for start, end in self.ranges)


def layout_of(fd: int, size: int) -> Layout:
    """The layout of an open regular file of `size` bytes, without what lies behind its end.

    What was not written to the disk yet is not waited for. Raises `OSError`.
    """
    ranges: list[tuple[int, int]] = []
    try:
        extents = _gather(runs(fd), size, ranges)
    except OSError as error:
        if error.errno not in _NO_FIEMAP:
            raise
        return Layout(list(data_ranges(fd, size)), None)
    return Layout(ranges, extents)


def _gather(found: Iterable[Run], size: int, ranges: list[tuple[int, int]]) -> int:
    """Put the ranges, joined, into `ranges`; returns the number of contiguous runs."""
    count = 0
    end, physical_end = -1, None
    for run in found:
        joins = run.start == end and run.physical == physical_end
        count += not joins
        end = run.end
        physical_end = None if run.physical is None else run.physical + run.end - run.start
        if ranges and run.start == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], min(end, size))
        elif run.start < size:
            ranges.append((run.start, min(end, size)))
    return count


def runs(fd: int) -> Iterator[Run]:
    """What FS_IOC_FIEMAP says of a file. Raises `OSError`, EOPNOTSUPP where there is no FIEMAP."""
    start = 0
    while True:
        answer = bytearray(_REQUEST.size + _AT_ONCE * _EXTENT.size)
        _REQUEST.pack_into(answer, 0, start, _MAX_OFFSET - start, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, answer)
        count = _REQUEST.unpack_from(answer)[3]
        flags = _EXTENT_LAST  # for a file without extents
        for number in range(count):
            fields = _EXTENT.unpack_from(answer, _REQUEST.size + number * _EXTENT.size)
            logical, physical, length, flags = fields[0], fields[1], fields[2], fields[5]
            start = logical + length
            yield Run(logical, start, None if flags & _NO_PLACE else physical)
        if flags & _EXTENT_LAST:
            return
