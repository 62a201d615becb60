"""Windows: mappings of parts of the store file, kept for reading it."""

import mmap
import resource
import time
from collections import OrderedDict
from typing import Final

from mapfs.store.address_space import MappingStatistics
from mapfs.store.syscalls import address_of, advise_memory

DEFAULT_WINDOW_BYTES: Final = 1 << 30
# At least this many windows fit in the address space allowed, so that two busy files do not
# evict each other's window at every request.
_MIN_WINDOWS: Final = 4
_MIN_WINDOW_BYTES: Final = 2 << 20


class Windows:
    """Windows of a fixed size, mapped when first asked for.

    They are unmapped least recently used first, once more than `address_space` bytes are mapped.
    A window is dropped, not closed: the last view into it unmaps it. Belongs to one thread, but
    for `advise`.
    """

    def __init__(self, fd: int, size: int, address_space: int | None = None) -> None:
        """Over the first `size` bytes of a file; the descriptor stays the caller's."""
        self._fd = fd
        self.size = size
        self.window_bytes = window_size(address_space)
        self._most = max(1, min((address_space or 1 << 46) // self.window_bytes, _most_mappings()))
        self._cached: OrderedDict[int, memoryview] = OrderedDict()
        self._mapped = self._unmapped = 0
        self._mapping_seconds = self._unmapping_seconds = 0.0

    def resize(self, size: int) -> None:
        """The file has grown. Drops the last window if it ended at the old size."""
        last = self.size // self.window_bytes
        if last in self._cached:
            self._drop(last)
        self.size = size

    def view(self, number: int) -> memoryview:
        """The window with this number, counted from the beginning of the file."""
        window = self._cached.get(number)
        if window is None:
            return self._map(number)
        self._cached.move_to_end(number)
        return window

    def _map(self, number: int) -> memoryview:
        while len(self._cached) >= self._most:
            self._drop(next(iter(self._cached)))
        begin = time.perf_counter()
        offset = number * self.window_bytes
        length = min(self.window_bytes, self.size - offset)
        mapping = mmap.mmap(self._fd, length, prot=mmap.PROT_READ, offset=offset)
        window = self._cached[number] = memoryview(mapping)
        self._mapped += 1
        self._mapping_seconds += time.perf_counter() - begin
        return window

    def _drop(self, number: int) -> None:
        begin = time.perf_counter()
        del self._cached[number]
        self._unmapped += 1
        self._unmapping_seconds += time.perf_counter() - begin

    def drop_all(self) -> None:
        """Keep no window any more."""
        for number in list(self._cached):
            self._drop(number)

    def advise(self, offset: int, length: int, advice: int) -> None:
        """madvise(2) for what is mapped of a range. May run in any thread. Raises `OSError`."""
        for number, window in list(self._cached.items()):
            begin = number * self.window_bytes
            low, high = max(offset, begin), min(offset + length, begin + window.nbytes)
            if low < high:
                advise_memory(address_of(window) + low - begin, high - low, advice)

    def holding(self, offset: int, length: int) -> dict[int, int]:
        """The windows that have mapped parts of a range, and how many bytes of it each has."""
        found: dict[int, int] = {}
        first, last = offset // self.window_bytes, (offset + length - 1) // self.window_bytes
        for number in range(first, last + 1):
            if number in self._cached:
                begin = number * self.window_bytes
                end = begin + self._cached[number].nbytes
                found[number] = max(0, min(offset + length, end) - max(offset, begin))
        return found

    def statistics(self, pinned_bytes: int = 0) -> MappingStatistics:
        """What is mapped, and what that has cost, beside `pinned_bytes` that others have mapped."""
        kept = sum(window.nbytes for window in self._cached.values())
        return MappingStatistics(
            windows=len(self._cached),
            address_space_bytes=kept + pinned_bytes,
            pinned_bytes=pinned_bytes,
            mapped=self._mapped,
            unmapped=self._unmapped,
            mapping_seconds=self._mapping_seconds,
            unmapping_seconds=self._unmapping_seconds,
        )


def _most_mappings() -> int:
    """Half of the descriptors that the process may have: each mapping of Python's keeps one."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if most == resource.RLIM_INFINITY else most // 2


def window_size(address_space: int | None) -> int:
    """The window that suits a bound on address space (bytes): a power of two, 2 MiB to 1 GiB."""
    size = DEFAULT_WINDOW_BYTES
    while address_space and size * _MIN_WINDOWS > address_space and size > _MIN_WINDOW_BYTES:
        size //= 2
    return size
