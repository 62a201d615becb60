"""Pins: parts of the store file that are locked into memory (mlock(2)).

Each has a mapping of its own, apart from the windows, which come and go. How much may be locked is
up to RLIMIT_MEMLOCK, which does not bind root. Offsets and lengths are bytes, in whole pages.
"""

from collections.abc import Iterator
from threading import Lock
from typing import Final

from sortedcontainers import SortedDict

from mapfs.format.extent import Extent, joined, without
from mapfs.store.machine_pages import Run
from mapfs.store.syscalls import lock_memory, map_shared, reserve_lock, unmap

# Of what is brought in without letting others change the pins.
_PIECE_BYTES: Final = 8 << 20


class Pins:
    """What of a file is pinned. Belongs to one thread, but for `hold`."""

    def __init__(self, fd: int) -> None:
        """The descriptor stays the caller's."""
        self._fd = fd
        self._lock = Lock()
        # By offset: length and address.
        self._mappings: SortedDict[int, tuple[int, int]] = SortedDict()

    @property
    def mapped_bytes(self) -> int:
        """The address space that the pins take."""
        return sum(length for length, _ in self._mappings.values())

    def pin(self, offset: int, length: int) -> None:
        """Keep in memory what is or comes there; `hold` brings it in. What is pinned stays so.

        Raises `OSError` if that is more than the process may lock: ENOMEM, or EPERM if it may
        lock nothing. Nothing is pinned then.
        """
        done: list[Extent] = []
        try:
            for start, count in list(self._missing(offset, length)):
                self._pin(start, count)
                done.append(Extent(start, count))
        except OSError:
            for extent in done:
                self.unpin(*extent)
            raise

    def _missing(self, offset: int, length: int) -> Iterator[Run]:
        pinned = joined(Extent(start, count) for start, count, _ in self._near(offset, length))
        return without([Extent(offset, length)], pinned)

    def _near(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """What is pinned of a range: offset, length and address of the whole, ascending."""
        first = self._mappings.bisect_right(offset) - 1  # it may begin before the range
        for start in self._mappings.islice(max(first, 0)):
            if start >= offset + length:
                return
            count, address = self._mappings[start]
            if start + count > offset:
                yield start, count, address

    def _pin(self, offset: int, length: int) -> None:
        address = map_shared(self._fd, length, offset)
        try:
            reserve_lock(address, length)
        except OSError:
            unmap(address, length)
            raise
        with self._lock:
            self._mappings[offset] = (length, address)

    def unpin(self, offset: int, length: int) -> None:
        """Let go of a range, as far as it is pinned."""
        end = offset + length
        with self._lock:
            for start, count, address in list(self._near(offset, length)):
                low, high = max(offset, start), min(end, start + count)
                unmap(address + low - start, high - low)
                del self._mappings[start]
                if start < low:
                    self._mappings[start] = (low - start, address)
                if high < start + count:
                    self._mappings[high] = (start + count - high, address + high - start)

    def hold(self, offset: int, length: int) -> None:
        """Bring in what is pinned of a range. May run in any thread.

        Raises `OSError` (ENOMEM, EAGAIN) where the disk cannot read it, or memory is used up.
        """
        for place in range(offset, offset + length, _PIECE_BYTES):
            end = min(place + _PIECE_BYTES, offset + length)
            with self._lock:
                for start, count, address in self._near(place, end - place):
                    low, high = max(place, start), min(end, start + count)
                    lock_memory(address + low - start, high - low)

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            for length, address in self._mappings.values():
                unmap(address, length)
            self._mappings.clear()
