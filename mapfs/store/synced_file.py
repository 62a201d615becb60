"""Writing a file so that a sync that fails costs only the pages that the disk refused.

Linux reports once that pages could not be written, does not say which, and takes them for clean
from then on (fsync(2), NOTES). The bytes are still in the page cache, if nothing pushed them out.
So what was written since the last good sync is remembered, page by page. After a failed one it is
written and synced again, in halves, until the pages that fail are alone: they are *lost*.
A page that was dropped from memory before that is lost too, as nobody can tell what the disk has.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from mapfs.errors import FULL
from mapfs.store.machine_pages import FOLIO_BYTES, PAGE_BYTES, MachinePages, Run
from mapfs.store.syscalls import PageCache

# Bounds the time that a disk with many bad places takes: what is still in doubt then is lost.
_MOST_SYNCS: Final = 512
_ZEROS: Final = memoryview(bytes(FOLIO_BYTES))


class _Doubt:
    """Pages `written` since a sync, and those of them that were dropped and read `again`."""

    def __init__(self) -> None:
        self.written = MachinePages()
        self.again = MachinePages()

    def update(self, other: "_Doubt") -> None:
        self.written.update(other.written)
        self.again.update(other.again)


class SyncedFile:
    """A file descriptor that is written and synced. Every method may run in any thread.

    `lost` has the pages whose bytes are not on the disk; the set is replaced and never changed.
    `unsynced` counts the bytes written since the last `sync` began.
    `on_error` is called by `sync`, in its thread, as soon as the host has reported an error.
    """

    def __init__(self, fd: int) -> None:
        """The descriptor stays the caller's."""
        self._fd = fd
        self._lock = Lock()
        self._page_cache = PageCache(fd)  # used with the lock held
        self._doubt = _Doubt()
        self._syncing = _Doubt()
        self._is_failed = self._inherited = False
        self._inherited_error: OSError | None = None
        self.lost = MachinePages()
        self.unsynced = 0
        self.on_error: Callable[[], None] = lambda: None

    def inherit(self) -> None:
        """Another process wrote to the file and did not sync: an error of the next is about that.

        Nobody knows then what was lost, and every `sync` raises it.
        """
        self._inherited = True

    def write(self, offset: int, data: bytes | bytearray | memoryview, zeros: int = 0) -> None:
        """Write all of `data`; pages that it covers are no longer lost. Raises `OSError`.

        Up to `FOLIO_BYTES` of `zeros` are written behind it; whether they were, nobody will ask.
        """
        view = memoryview(data)
        with self._lock:
            self.unsynced += view.nbytes
            self._doubt.written.add(offset, view.nbytes)
            if self.lost:
                self._forget(offset, view.nbytes)
            if self._doubt.again:
                self._doubt.again.discard(offset, view.nbytes)
            _put(self._fd, view, offset, zeros)

    def emptied(self, offset: int, length: int) -> None:
        """Whole pages were zeroed or given back: nothing of them is lost any more."""
        if self.lost:
            with self._lock:
                self._forget(offset, length)

    def _forget(self, offset: int, length: int) -> None:
        if self.lost.touches(offset, length):
            left = MachinePages(self.lost.runs())
            left.discard(offset, length)
            self.lost = left

    def before_load(self, offset: int, length: int) -> None:
        """Bytes will come from the disk, with readahead: note what had been dropped there.

        It must not be taken for what was written, if it turns out that writing had failed.
        """
        with self._lock:
            for doubt in (self._doubt, self._syncing):
                for run in self._absent(doubt.written.runs_near(offset, length)):
                    doubt.again.add(*run)

    def sync(self) -> None:
        """Return when everything written before the call is on the disk or in `lost`.

        Raises `OSError` if the host failed as a whole, or is full: the next call tries all again.
        """
        with self._lock:
            self._syncing, self._doubt = self._doubt, _Doubt()
            syncing, self.unsynced = self.unsynced, 0
        try:
            self._sync()
        except BaseException:
            with self._lock:
                self._doubt.update(self._syncing)
                self.unsynced += syncing
            raise
        finally:
            with self._lock:
                self._syncing = _Doubt()

    def _sync(self) -> None:
        if self._inherited_error is not None:
            raise self._inherited_error
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._is_failed = True
            self.on_error()
            if self._inherited:
                self._inherited_error = error
            # Full is not the pages' fault: they can be written as soon as there is space.
            if self._inherited or error.errno in FULL:
                raise
        # After a call that failed, too: the pages look clean now, and are not on the disk.
        if self._is_failed:
            self._rescue()
        self._is_failed = self._inherited = False

    def _rescue(self) -> None:
        """Find the pages that cannot be written, and write the others."""
        with self._lock:
            # The error may have been about what was written meanwhile.
            self._syncing.update(self._doubt)
            self._doubt = _Doubt()
            gone = MachinePages(self._absent(self._syncing.written.runs()))
        gone.update(self._syncing.again)
        left = MachinePages(self._syncing.written.runs())
        for run in gone.runs():
            left.discard(*run)
        with self._reopened() as fd:
            os.fdatasync(fd)  # fails if it is not some pages that are bad but all of the host
            for run in _failing(list(left.runs()), lambda runs: self._write_again(fd, runs)):
                gone.add(*run)
        with self._lock:
            gone.update(self.lost)
            self.lost = gone

    @contextmanager
    def _reopened(self) -> Iterator[int]:
        """A descriptor of its own for the errors to come: those of `self._fd` stay to be seen."""
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _write_again(self, fd: int, runs: list[Run]) -> None:
        """Make pages dirty, with the bytes they have, and sync. Raises `OSError`."""
        for offset, length in runs:
            with self._lock:  # a write between reading and writing would be undone
                if next(self._absent([(offset, length)]), None) is not None:
                    raise OSError(errno.EIO, "the page is not in memory any more")
                _put(fd, memoryview(os.pread(fd, length, offset)), offset)
        os.fdatasync(fd)

    def _absent(self, runs: Iterable[Run]) -> Iterator[Run]:
        """The pages of `runs` that are not in memory."""
        for offset, length in runs:
            resident = self._page_cache.statistics(offset, length).resident * PAGE_BYTES
            if resident == 0:
                yield offset, length
            elif resident < length:
                for half in _halves([(offset, length)]):
                    yield from self._absent(half)


def _put(fd: int, view: memoryview, offset: int, zeros: int = 0) -> None:
    written = os.pwritev(fd, (view, _ZEROS[:zeros]), offset) if zeros else 0
    while written < view.nbytes:
        written += os.pwrite(fd, view[written:], offset + written)


def _failing(runs: list[Run], write: Callable[[list[Run]], None]) -> Iterator[Run]:
    """The pages that `write` fails for, found by halving. Raises `OSError` for a full host."""
    parts = [runs] if runs else []
    for _ in range(_MOST_SYNCS):
        if not parts:
            return
        part = parts.pop()
        try:
            write(part)
        except OSError as error:
            if error.errno in FULL:
                raise
            if len(part) == 1 and part[0][1] == PAGE_BYTES:
                yield part[0]
            else:
                parts.extend(_halves(part))
    for part in parts:
        yield from part


def _halves(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Two parts of about the same size; a single run is split between two pages."""
    if len(runs) > 1:
        return runs[: len(runs) // 2], runs[len(runs) // 2 :]
    ((offset, length),) = runs
    middle = length // PAGE_BYTES // 2 * PAGE_BYTES
    return [(offset, middle)], [(offset + middle, length - middle)]
