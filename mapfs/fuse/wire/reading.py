"""Cold reads, by threads that wait for the disk and answer the kernel themselves.

So a cold read does not hold up warm ones, and the disk has several to do at a time. Of a file that
is read in order others bring in the pages to come. Only for a single program that reads little at
a time, from a disk that was quick the last few times, the loop itself waits.
"""

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import Advice
from mapfs.fuse.wire.negotiation import MAX_WRITE_BYTES
from mapfs.fuse.wire.request import Request
from mapfs.fuse.wire.short_waits import ShortWaits

_THREADS: Final = 8
# They wait for much at a time: whoever waits for a page must not wait for them.
_AHEAD_THREADS: Final = 2
# Reads of this size come from the kernel's own readahead: somebody reads in order.
_STREAM_BYTES: Final = 128 << 10
# How far: so many times as much as was read in order so far, whoever wants the beginning alone.
_AHEAD_TIMES: Final = 4
_AHEAD_BYTES: Final = 32 << 20
_MOST_STREAMS: Final = 1024
# The most that the loop itself reads from the disk: less than readahead asks for.
_SMALL_BYTES: Final = 64 << 10

_Job = Callable[[memoryview], None]

_log = logging.getLogger(__name__)


class ReadThreads:
    """Serves cold reads. Its methods are for the filesystem's thread."""

    def __init__(
        self,
        filesystem: Filesystem,
        answer: Callable[[Request, memoryview], None],
        fail: Callable[[Request, Exception], None],
        give_up: Callable[[Request], None],
        is_idle: Callable[[], bool],
    ) -> None:
        """`answer` and `fail` are called in any thread.

        `give_up` is called in the filesystem's for a request that must be served in another way.
        `is_idle` tells whether no request waits to be read.
        """
        self._filesystem = filesystem
        self._answer = answer
        self._fail = fail
        self._give_up = give_up
        self._waits = ShortWaits(is_idle)
        self._buffer = memoryview(bytearray(_SMALL_BYTES))
        self._readers = _Threads("mapfs-read", _THREADS)
        self._ahead = _Threads("mapfs-ahead", _AHEAD_THREADS)
        # For each file that is read in order: where that began, the byte expected next, and where
        # readahead ends.
        self._streams: dict[int, tuple[int, int, int]] = {}
        self._under_way: set[int] = set()
        self._stale: deque[Request] = deque()

    def read(self, request: Request, offset: int, length: int, *, ahead: bool = True) -> None:
        """Answer `request` with bytes of the store, which are all that it asks for.

        `ahead` False keeps the host from bringing in more.
        """
        recycled = self._filesystem.recycled
        serve = partial(self._serve, request, (offset, length), recycled, ahead=ahead)
        if self._under_way:
            self._waits.forget()
        self._under_way.add(request.unique)
        if length <= _SMALL_BYTES and self._waits.are_likely:
            serve(self._buffer)
            self._waits.check()
            return
        self._token = trio.lowlevel.current_trio_token()
        try:
            self._readers.put(serve)
        except RuntimeError:
            serve(memoryview(bytearray(length)))

    @property
    def is_busy(self) -> bool:
        """Whether a request waits for the disk."""
        return bool(self._under_way)

    def note(self, nodeid: int, offset: int, size: int) -> None:
        """Learn of a read, to bring in what comes behind it if the file is read in order."""
        advice = self._filesystem.advice(nodeid)
        is_sequential = advice is Advice.SEQUENTIAL
        if advice is Advice.RANDOM or (size < _STREAM_BYTES and not is_sequential):
            return
        begun, expected, ahead = self._streams.get(nodeid, (0, 0, 0))
        end = offset + size
        if offset != expected:
            begun, ahead = offset, 0
        most = (
            2 * _AHEAD_BYTES if is_sequential else min(_AHEAD_BYTES, _AHEAD_TIMES * (end - begun))
        )
        if (offset == expected or is_sequential) and end + most // 2 > ahead:
            start = max(end, ahead)
            ahead = end + most
            runs = self._filesystem.store_runs(nodeid, start, ahead - start)
            if runs:
                with contextlib.suppress(RuntimeError):  # without, it is only slower
                    self._ahead.put(partial(self._read_ahead, runs))
        if len(self._streams) >= _MOST_STREAMS:
            self._streams.clear()
        self._streams[nodeid] = (begun, end, ahead)

    def _serve(
        self,
        request: Request,
        run: tuple[int, int],
        recycled: int,
        buffer: memoryview,
        *,
        ahead: bool,
    ) -> None:
        offset, length = run
        begun = time.perf_counter()
        try:
            self._filesystem.store.backing.fetch(offset, buffer[:length], ahead=ahead)
        except Exception as error:  # noqa: BLE001 (whatever it is, the thread must go on)
            self._fail(request, error)
            return
        finally:
            self._under_way.discard(request.unique)
            self._waits.add(begun)
        # The file may have been cut meanwhile, and its pages may be another's by now.
        if self._filesystem.recycled == recycled:
            try:
                self._answer(request, buffer[:length])
            except OSError as error:
                self._fail(request, error)
        else:
            self._stale.append(request)
            self._token.run_sync_soon(self._collect)

    def _collect(self) -> None:
        while self._stale:
            self._give_up(self._stale.popleft())

    def _read_ahead(self, runs: list[tuple[int, int]], buffer: memoryview) -> None:
        del buffer
        with contextlib.suppress(OSError):  # whoever reads hears of it
            for offset, length in runs:
                self._filesystem.store.backing.read_ahead(offset, length)

    def close(self) -> None:
        """Wait for what the threads are doing, and end them."""
        self._ahead.drop()
        for threads in (self._ahead, self._readers):
            threads.close()
        self._collect()


class _Threads:
    """Threads that do jobs in the order in which they are put; each has a buffer to lend."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def put(self, job: _Job) -> None:
        """Have a job done; the first starts the threads, as many as there may be.

        Raises `RuntimeError` if there may be none, as where processes are limited (setrlimit(2)).
        """
        if not self._threads:
            self._start()
        self._queue.put(job)

    def _start(self) -> None:
        for number in range(self._count):
            thread = threading.Thread(target=self._run, name=f"{self._name}-{number}")
            try:
                thread.start()
            except RuntimeError as error:
                if not self._threads:
                    raise
                _log.warning("%s: %d of %d threads: %s", self._name, number, self._count, error)
                return
            self._threads.append(thread)

    def _run(self) -> None:
        buffer = memoryview(bytearray(MAX_WRITE_BYTES))
        while (job := self._queue.get()) is not None:
            job(buffer)

    def drop(self) -> None:
        """Forget the jobs that have not begun."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def close(self) -> None:
        """Wait until all jobs are done, and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
