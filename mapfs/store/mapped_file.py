"""A store file behind memory-mapped windows.

Reads come from the mappings. Writes go through pwrite(2) on the same page cache, which the
mappings see at once: through a mapping every fresh page costs a fault and an I/O error is a
SIGBUS, which ends the daemon (`docs/performance.md` has the figures).
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from mapfs.format.extent import pages_for, split_at
from mapfs.format.layout import StoreIdentity
from mapfs.store.address_space import MappingStatistics, mappings_of
from mapfs.store.backing import Data
from mapfs.store.leases import leased
from mapfs.store.machine_pages import FOLIO_BYTES, HUGE_PAGE_BYTES, PAGE_BYTES, MachinePages, Run
from mapfs.store.pins import Pins
from mapfs.store.synced_file import SyncedFile
from mapfs.store.syscalls import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    CacheStatistics,
    PageCache,
    fallocate,
)
from mapfs.store.windows import Windows
from mapfs.store.writeback import LEAST_BYTES, MOST_AT_ONCE_BYTES, Writeback

_LOAD_BYTES: Final = 1 << 20
_ADVISED_BYTES: Final = 128 << 10
_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class MappedFile:
    """A `Backing` over anything a file descriptor can map.

    `Windows` bounds what is mapped for reading by `address_space`, in bytes.
    """

    def __init__(self, fd: int, size: int, address_space: int | None = None) -> None:
        """Take over `fd`, of which the first `size` bytes are the store."""
        self._fd = fd
        self._page_cache = PageCache(fd)
        self._byte = bytearray(1)
        self._nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
        self._windows = Windows(fd, size, address_space)
        self._file = SyncedFile(fd)
        self._writeback = Writeback(fd)
        self.is_eager = False
        self._pins = Pins(fd)
        self._ways: list[Callable[[int, int], None]] = [
            self._zero_range,
            self._punch_and_allocate,
            self._write_zeros,
        ]

    def statistics(self) -> MappingStatistics:
        """See `Backing.statistics`."""
        return self._windows.statistics(self._pins.mapped_bytes)

    def windows_of(self, offset: int, length: int) -> dict[int, int]:
        """See `Backing.windows_of`."""
        return self._windows.holding(offset, length)

    def mappings(self) -> int:
        """See `Backing.mappings`."""
        return len(mappings_of(os.fstat(self._fd)))

    def resize(self, size: int) -> None:
        """See `Backing.resize`."""
        if size <= self._windows.size:
            return
        if not self._is_device:
            os.ftruncate(self._fd, size)
        self._windows.resize(size)

    def read(self, offset: int, length: int) -> Iterable[memoryview]:
        """See `Backing.read`."""
        self._refuse_lost(offset, length)
        windows = self._windows
        within = offset % windows.window_bytes
        if within + length <= windows.window_bytes:
            return (windows.view(offset // windows.window_bytes)[within : within + length],)
        return [
            windows.view(start // windows.window_bytes)[
                start % windows.window_bytes : start % windows.window_bytes + count
            ]
            for start, count in split_at(offset, length, windows.window_bytes)
        ]

    def write(self, offset: int, data: Data, spare: int = 0) -> None:
        """See `Backing.write`."""
        length = memoryview(data).nbytes
        if length >= LEAST_BYTES:
            self._write_folios(offset, data, spare)
            return
        self._file.write(offset, data)
        if self.is_eager and self.unsynced <= MOST_AT_ONCE_BYTES:
            self._writeback.begin_at_once(offset, length)

    def _write_folios(self, offset: int, data: Data, spare: int) -> None:
        """Write much, so that the page cache keeps it in large folios.

        One is as large as what is written at a time leaves room for, at a multiple of its size. The
        kernel's pieces begin anywhere: so the last folio is filled up with zeros, and begun to be
        written to the disk when the next piece has written over them.
        """
        end = offset + memoryview(data).nbytes
        zeros = min(-end % FOLIO_BYTES, spare)
        self._file.write(offset, data, zeros)
        first = offset - offset % FOLIO_BYTES
        last = end - end % FOLIO_BYTES if zeros else end
        if last > first:
            self._writeback.begin(first, last - first)

    def prepare(self, offset: int, length: int) -> None:
        """See `Backing.prepare`. What the host cannot do is not tried again."""
        while True:
            try:
                self._ways[0](offset, length)
                break
            except OSError as error:
                if error.errno not in _CANNOT or len(self._ways) == 1:
                    raise
                self._ways.pop(0)
        self._file.emptied(offset, length)

    def _zero_range(self, offset: int, length: int) -> None:
        fallocate(self._fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length)

    def _punch_and_allocate(self, offset: int, length: int) -> None:
        fallocate(self._fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)
        fallocate(self._fd, 0, offset, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        zeros = bytes(_LOAD_BYTES)
        for start, count in split_at(offset, length, _LOAD_BYTES):
            self.write(start, memoryview(zeros)[:count])

    def punch(self, offset: int, length: int) -> None:
        """See `Backing.punch`."""
        try:
            fallocate(self._fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        self._file.emptied(offset, length)

    def leased(self, offset: int, length: int) -> list[Run]:
        """See `Backing.leased`. Where the host cannot lock, nobody could lease anything."""
        try:
            return leased(self._fd, offset, length)
        except OSError:
            return []

    def identity(self) -> StoreIdentity:
        """See `Backing.identity`."""
        return identity_of(self._fd)

    def inherit(self) -> None:
        """See `Backing.inherit`."""
        self._file.inherit()

    def sync(self) -> None:
        """See `Backing.sync`."""
        self._file.sync()

    @property
    def unsynced(self) -> int:
        """See `Backing.unsynced`."""
        return self._file.unsynced

    @property
    def lost(self) -> MachinePages:
        """See `Backing.lost`."""
        return self._file.lost

    @lost.setter
    def lost(self, pages: MachinePages) -> None:
        self._file.lost = pages

    def on_error(self, call: Callable[[], None]) -> None:
        """See `Backing.on_error`."""
        self._file.on_error = call

    def load(self, offset: int, length: int, *, ahead: bool = True) -> None:
        """See `Backing.load`."""
        scratch = memoryview(bytearray(min(length, _LOAD_BYTES)))
        for start, count in split_at(offset, length, _LOAD_BYTES):
            self.fetch(start, scratch[:count], ahead=ahead)

    def read_ahead(self, offset: int, length: int) -> None:
        """See `Backing.read_ahead`.

        Nothing is copied. As for any reading in order the pages come in large folios, which
        posix_fadvise(2) does not give.
        """
        self._refuse_lost(offset, length)
        self._file.before_load(offset, length)
        end = offset + length
        with self._opened_anew() as fd:
            while offset < end:
                read = os.sendfile(self._nothing, fd, offset, min(end - offset, _LOAD_BYTES))
                if read == 0:
                    raise _too_short()
                offset += read

    def fetch(self, offset: int, target: memoryview, *, ahead: bool = True) -> None:
        """See `Backing.fetch`."""
        self._refuse_lost(offset, target.nbytes)
        self._file.before_load(offset, target.nbytes)
        if ahead:
            count = os.preadv(self._fd, [target], offset)
        else:
            with self._opened_anew() as fd:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
                count = os.preadv(fd, [target], offset)
        if count < target.nbytes:
            raise _too_short()

    @contextmanager
    def _opened_anew(self) -> Iterator[int]:
        """A descriptor of its own: what the kernel knows of readahead it knows of one."""
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def advise(self, offset: int, length: int) -> None:
        """See `Backing.advise`."""
        self._file.before_load(offset, length)
        # The kernel brings in no more at a time than a disk's readahead.
        for start, count in split_at(offset, length, _ADVISED_BYTES):
            os.posix_fadvise(self._fd, start, count, os.POSIX_FADV_WILLNEED)

    def drop(self, offset: int, length: int) -> None:
        """See `Backing.drop`. Pages of the cache that reach beyond the range go as a whole."""
        for start, count in (offset, length), _widened(offset, length, HUGE_PAGE_BYTES):
            # The kernel drops no page that is mapped (fadvise64(2)).
            self._windows.advise(start, count, MADV_DONTNEED)
            os.posix_fadvise(self._fd, start, count, os.POSIX_FADV_DONTNEED)
            if not PageCache(self._fd).statistics(offset, length).resident:
                break

    def drop_mapped(self) -> None:
        """See `Backing.drop_mapped`."""
        self._windows.advise(0, self._windows.size, MADV_DONTNEED)

    def pin(self, offset: int, length: int) -> None:
        """See `Backing.pin`."""
        self._pins.pin(offset, length)

    def unpin(self, offset: int, length: int) -> None:
        """See `Backing.unpin`."""
        self._pins.unpin(offset, length)

    def hold(self, offset: int, length: int) -> None:
        """See `Backing.hold`."""
        self._file.before_load(offset, length)
        self._pins.hold(offset, length)

    def prefer_huge_pages(self, offset: int, length: int) -> None:
        """See `Backing.prefer_huge_pages`. A window forgets it when it is unmapped."""
        for start, _ in split_at(offset, length, self._windows.window_bytes):
            self._windows.view(start // self._windows.window_bytes)
        self._windows.advise(offset, length, MADV_HUGEPAGE)

    def _refuse_lost(self, offset: int, length: int) -> None:
        if self.lost and self.lost.touches(offset, length):
            raise OSError(errno.EIO, "bytes of the store that could not be written")

    def is_loaded(self, offset: int, length: int) -> bool:
        """See `Backing.is_loaded`."""
        start = offset - offset % PAGE_BYTES
        pages = pages_for(offset + length - start, PAGE_BYTES)
        if self.cached(start, pages * PAGE_BYTES).resident < pages:
            return False
        # Pages on their way from the disk count as cached; the last one comes last.
        try:
            os.preadv(self._fd, (self._byte,), offset + length - 1, os.RWF_NOWAIT)
        except OSError as error:
            return error.errno != errno.EAGAIN  # EOPNOTSUPP: this host cannot tell
        return True

    def cached(self, offset: int, length: int) -> CacheStatistics:
        """See `Backing.cached`."""
        return self._page_cache.statistics(offset, length)

    def resident(self) -> int:
        """See `Backing.resident`."""
        return self.cached(0, self._windows.size).resident * PAGE_BYTES

    def give_back(self) -> None:
        """See `Backing.give_back`. Dirty pages stay, and pages of a window that a view is in."""
        self._windows.drop_all()  # the kernel drops no page that is mapped (fadvise64(2))
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def host_free(self) -> int | None:
        """See `Backing.host_free`."""
        if self._is_device:
            return None
        host = os.fstatvfs(self._fd)
        # A memfd's filesystem has no size: all it says is zero.
        return host.f_bavail * host.f_frsize if host.f_blocks else None

    def close(self) -> None:
        """See `Backing.close`."""
        self._windows.drop_all()
        self._pins.close()
        self._writeback.close()
        os.close(self._nothing)
        os.close(self._fd)


def _too_short() -> OSError:
    return OSError(errno.EIO, "the store file is shorter than it was")


def _widened(offset: int, length: int, boundary: int) -> Run:
    """The range of whole multiples of `boundary` that a range touches."""
    start = offset // boundary * boundary
    return start, -(-(offset + length - start) // boundary) * boundary


def identity_of(fd: int) -> StoreIdentity:
    """Which store file is open as `fd`."""
    found = os.fstat(fd)
    if stat.S_ISBLK(found.st_mode):
        return StoreIdentity(found.st_rdev, 0)
    return StoreIdentity(found.st_dev, found.st_ino)
