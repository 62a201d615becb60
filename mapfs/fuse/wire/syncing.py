"""fsync without the scheduler.

Most of what an fsync takes is waiting for the disk. What is left is mostly the way to a worker
thread through the scheduler and back, so it goes neither way: the loop hands the work to a thread
that is always there, and that answers when the disk has. Every fsync that comes meanwhile shares
the next turn; then the loop answers, so that the disk need not wait for that.
Even that thread is a fifth of an fsync of little. Where the disk was quick the last few times and
nobody else asked for anything meanwhile, the loop syncs by itself.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from mapfs.fuse.commits import Committer
from mapfs.fuse.wire.request import Request
from mapfs.fuse.wire.short_waits import ShortWaits
from mapfs.store.transaction import LogSync

_log = logging.getLogger(__name__)

_END: Final = None


class _Done(NamedTuple):
    """What the thread has finished, and for whom."""

    sync: LogSync
    requests: list[Request]
    succeeded: bool
    is_answered: bool


class SyncThread:
    """Makes everything durable by the log. Its methods are for the filesystem's thread.

    `event` is readable when something is finished that waits for `collect`.
    """

    def __init__(
        self,
        committer: Committer,
        answer: Callable[[Request], None],
        give_up: Callable[[Request], None],
        is_idle: Callable[[], bool],
    ) -> None:
        """`answer` is called in any thread for each request that is done.

        `give_up` is called in the filesystem's for each that takes a commit, or failed. `is_idle`
        tells whether no request waits to be read.
        """
        self._committer = committer
        self._answer = answer
        self._give_up = give_up
        self._waits = ShortWaits(is_idle)
        self._queue: queue.SimpleQueue[tuple[LogSync, list[Request]] | None] = queue.SimpleQueue()
        self._done: _Done | None = None
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.is_busy = False
        self._waiting: list[Request] = []
        self._waiting_for_all = False
        self._must_tell = False
        self._thread: threading.Thread | None = None

    def request(self, request: Request, *, data_only: bool) -> bool:
        """Take over an fsync; False if that takes a commit. `data_only` is fdatasync(2)."""
        self.collect()
        if self.is_busy:
            self._waiting.append(request)
            self._waiting_for_all |= not data_only
            return True
        return self._begin([request], data_only=data_only)

    def _begin(self, requests: list[Request], *, data_only: bool) -> bool:
        if self._thread is None and not self._start():
            return False
        sync = self._committer.begin_log_sync(data_only=data_only)
        if sync is None:
            return False
        if sync.is_small and self._waits.are_likely:
            return self._sync_here(sync, requests)
        self.is_busy = True
        self._queue.put((sync, requests))
        return True

    def _start(self) -> bool:
        """Start the thread; False if there may be no more (setrlimit(2))."""
        self._token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=self._run, name="mapfs-sync")
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("fsync without a thread of its own: %s", error)
            return False
        self._thread = thread
        return True

    def _sync_here(self, sync: LogSync, requests: list[Request]) -> bool:
        sync.is_eager = True
        succeeded = self._sync(sync)
        self._waits.check()
        if succeeded:
            self._answer_all(requests)
        self._committer.end_log_sync(sync, succeeded=succeeded)
        return succeeded

    def collect(self) -> None:
        """Take note of what the thread has finished, and let it go on with what waits.

        To be called now and then: until then nothing else can be made durable.
        """
        if self._done is None:
            return
        done, self._done = self._done, None
        self.is_busy = False
        self._committer.end_log_sync(done.sync, succeeded=done.succeeded)
        waiting, self._waiting = self._waiting, []
        if waiting or len(done.requests) > 1:
            self._waits.forget()
        data_only, self._waiting_for_all = not self._waiting_for_all, False
        if not done.succeeded:
            waiting = done.requests + waiting
        elif not waiting or self._begin(waiting, data_only=data_only):
            waiting = []
        for request in waiting:
            self._give_up(request)
        if not done.is_answered:
            os.eventfd_read(self.event)
            if done.succeeded:
                self._answer_all(done.requests)

    def expect_sleep(self) -> None:
        """Collect; what is not done now will be collected by the scheduler when it is."""
        self._must_tell = True
        self.collect()

    def expect_work(self) -> None:
        """From now on whoever asks for the next fsync collects: that is quicker."""
        self._must_tell = False

    def _run(self) -> None:
        while (work := self._queue.get()) is not _END:
            sync, requests = work
            succeeded = self._sync(sync)
            is_answered = succeeded and not self._waiting
            if not is_answered:
                os.eventfd_write(self.event, 1)
            self._done = _Done(sync, requests, succeeded, is_answered)
            if is_answered:  # `_done` goes before: whoever is answered may ask again
                self._answer_all(requests)
            if self._must_tell:
                self._token.run_sync_soon(self.collect)

    def _answer_all(self, requests: list[Request]) -> None:
        for request in requests:
            try:
                self._answer(request)
            except OSError as error:
                _log.error("fsync could not be answered: %s", error)

    def _sync(self, sync: LogSync) -> bool:
        begun = time.perf_counter()
        try:
            return sync.write()
        except Exception as error:  # noqa: BLE001 (whatever it is, the thread must go on)
            # The commit that follows fails too, and tells the caller why.
            _log.error("fsync: %s", error, exc_info=not isinstance(error, OSError))
            return False
        finally:
            self._waits.add(begun)

    def close(self) -> None:
        """Wait for what the thread is doing, and end it; what waits for its turn is given up."""
        if self._thread is not None:
            self._queue.put(_END)
            self._thread.join()
            waiting, self._waiting = self._waiting, []
            self.collect()
            for request in waiting:
                self._give_up(request)
        os.close(self.event)
