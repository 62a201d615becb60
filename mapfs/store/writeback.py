"""Starting to write to the disk what a sync will wait for.

Left alone the kernel would begin when memory fills up, or with the sync at the end, which would
then wait for all of it. Large ranges are begun while more is being written. Small ones are begun
where one program syncs after every few of them: while it asks for that the disk is at work.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mapfs.store.syscalls import sync_file_range

# Smaller writes are likely to be followed by others to the same place.
LEAST_BYTES: Final = 256 << 10
# Of what was written since a sync: the kernel does better with many pages at a time.
MOST_AT_ONCE_BYTES: Final = 16 << 10


class Writeback:
    """Does so in a thread of its own, which waits where the disk's queue is full, or at once.

    Its methods are for one thread.
    """

    def __init__(self, fd: int) -> None:
        """The descriptor stays the caller's, until after `close`."""
        self._fd = fd
        self._thread = ThreadPoolExecutor(1, "mapfs-writeback")

    def begin(self, offset: int, length: int) -> None:
        """Have bytes that were just written go to the disk."""
        self._thread.submit(self._start, offset, length)

    def begin_at_once(self, offset: int, length: int) -> None:
        """The same without the thread: for a few pages, as the call waits if the queue is full."""
        self._start(offset, length)

    def _start(self, offset: int, length: int) -> None:
        # Whoever syncs hears of an error, or of a file that cannot do it.
        with contextlib.suppress(OSError):
            sync_file_range(self._fd, offset, length)

    def close(self) -> None:
        """Drop what was not begun yet, and wait for what was."""
        self._thread.shutdown(cancel_futures=True)
