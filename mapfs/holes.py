"""What of an open file is not a hole, as lseek(2) finds it."""

import errno
import os
from collections.abc import Iterator


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The byte ranges (start, end) of a file of `size` bytes that hold data, ascending.

    Without what lies behind its end. Moves the file's offset. Raises `OSError`.
    """
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole is left
                raise
            return
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end
