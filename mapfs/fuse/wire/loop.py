"""The loop that serves a FUSE connection: read a request, handle it, answer it.

A request that need not wait is served without the scheduler having a part in it. The loop sleeps
when there is nothing to read, and lets trio run everything else (commits, signals, requests that
wait) after a bounded number of requests.
"""

import errno
import logging
import os
import select
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Final

import trio

from mapfs.errors import FULL
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.commits import Committer
from mapfs.fuse.cpu_latency import CpuLatency
from mapfs.fuse.options import MS_DIRSYNC, MS_SYNCHRONOUS, MountOptions
from mapfs.fuse.tracing import Event
from mapfs.fuse.wire.answers import Answers, errno_of, operation_name
from mapfs.fuse.wire.block_counts import BlockCounts
from mapfs.fuse.wire.content_handlers import ContentHandlers, Helpers
from mapfs.fuse.wire.describing import describe
from mapfs.fuse.wire.forgetting import Forgotten
from mapfs.fuse.wire.handlers import Handlers
from mapfs.fuse.wire.negotiation import BUFFER_BYTES
from mapfs.fuse.wire.notifications import Notifications
from mapfs.fuse.wire.protocol import (
    IN_HEADER,
    OPERATIONS,
    UNANSWERED,
    Init,
    Opcode,
)
from mapfs.fuse.wire.reading import ReadThreads
from mapfs.fuse.wire.request import CHANGES, NAME_CHANGES, Answer, Content, Request
from mapfs.fuse.wire.resent import ONCE, answers_of_executed, is_resent, request_id
from mapfs.fuse.wire.sleeping import Sleep
from mapfs.fuse.wire.syncing import SyncThread
from mapfs.fuse.wire.write_back import WriteBack

_log = logging.getLogger(__name__)

# Requests served in a row before everything else gets a turn.
_TURN: Final = 64
# How long to wait for a request outside the scheduler while a thread is to answer one.
_POLL_MILLISECONDS: Final = 1


class WireTransport:
    """Serves one filesystem on one FUSE connection. Belongs to the filesystem's thread."""

    name = "wire"
    operations = OPERATIONS

    def __init__(
        self,
        filesystem: Filesystem,
        committer: Committer,
        options: MountOptions,
        fd: int,
        flags: Init,
        outside: WriteBack,
        *,
        is_taken_over: bool = False,
    ) -> None:
        """`fd` is a connection on which FUSE_INIT was answered, agreeing on `flags`.

        `is_taken_over` says that another process served it and may have left requests unanswered.
        """
        self._filesystem = filesystem
        self._committer = committer
        self._fd = fd
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._notifications = Notifications(fd)
        answers = self._answers = Answers(fd)
        self._answer, self._refuse = answers.send, answers.refuse
        self._reads = ReadThreads(
            filesystem,
            answers.send_in_thread,
            answers.refuse_in_thread,
            self._read_later,
            self._is_idle,
        )
        self._syncs = SyncThread(committer, answers.send_in_thread, self._sync_later, self._is_idle)
        self._outside = outside
        self._blocks = BlockCounts(self._notifications, outside)
        helpers = Helpers(self._notifications, outside, self._blocks, self._reads, self._syncs)
        self.counters = answers.counters
        self._trace: Callable[[Event], None] | None = None
        handlers = Handlers(filesystem, options, flags)
        self._contents = ContentHandlers(filesystem, committer, helpers, self.counters, options)
        # What is in neither table is answered ENOSYS, and the kernel does not ask again. That is
        # how it learns to open, flush and close without a message, and to make files by MKNOD,
        # which needs no message at close.
        self._table = handlers.table() | self._contents.table()
        self._is_taken_over = is_taken_over
        self._has_resend = Init.HAS_RESEND in flags
        self.is_handed_over = False
        self._executed = answers_of_executed(handlers)
        self._sync_names = bool(options.flags & (MS_SYNCHRONOUS | MS_DIRSYNC))
        self._sleep = Sleep(fd, CpuLatency(options.cpu_latency))
        self._forgotten = Forgotten(filesystem, self._notifications)
        self._poll = _polling(fd)
        self._poll_all = _polling(fd, self._syncs.event)
        self._stop = trio.CancelScope()
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        """Serve until the filesystem is unmounted or `stop` is called.

        Requests that are being waited for are answered before it returns, unless stopped.
        """
        os.set_blocking(self._fd, False)
        with self._stop:
            async with trio.open_nursery() as nursery, trio.open_nursery() as seeks:
                self._nursery, self._seeks = nursery, seeks
                nursery.start_soon(self._blocks.run)
                try:
                    if self._is_taken_over:
                        self._serve_resent()
                    with self._reading:
                        await self._serve()
                    if self.is_handed_over and self._has_resend:
                        # They wait for WRITEs that the next process reads, as it will them.
                        seeks.cancel_scope.cancel()
                finally:
                    self._blocks.close()
                    self._syncs.close()
                    self._reads.close()
                    self._sleep.close()
                    self._forgotten.free_all()
            self._outside.close()

    @property
    def trace(self) -> Callable[[Event], None] | None:
        """Who is told of each request that is answered."""
        return self._trace

    @trace.setter
    def trace(self, listener: Callable[[Event], None] | None) -> None:
        self._trace = listener
        self._answers.trace = None if listener is None else self._tell

    def _tell(self, request: Request, code: int, nanoseconds: int) -> None:
        assert self._trace is not None
        try:
            self._trace(describe(request, code, nanoseconds))
        except Exception:  # noqa: BLE001 (whatever it is, the mount must go on)
            _log.exception("%s could not be traced", operation_name(request.opcode))

    def collect(self) -> None:
        """Count and trace what threads have answered by now."""
        self._answers.collect()

    async def drop_cached(self, inode: int, offset: int = 0, length: int = 0) -> None:
        """Have the kernel write back what it holds of a range, and drop it; 0 is to the end.

        Waits for requests. Raises `OSError`.
        """
        await self._outside.write_back(inode, offset, length)

    def stop(self) -> None:
        """Let `run` return without serving what is still to come."""
        self._stop.cancel()

    def hand_over(self) -> None:
        """Let `run` return when what it has read is answered; another process reads the rest."""
        self.is_handed_over = True
        self._reading.cancel()

    def _serve_resent(self) -> None:
        """Have everything sent again that another process left unanswered, and serve that.

        It comes before what is new (`fuse_resend` in fs/fuse/dev.c).
        """
        self._notifications.resend()
        executed = self._filesystem.store.replayed.requests
        is_new = False
        while not is_new:
            try:
                size = os.readv(self._fd, (self._buffer,))
            except OSError:
                break  # there is none, or the next read tells
            _, opcode, unique, *_ = IN_HEADER.unpack_from(self._buffer)
            is_new = not is_resent(unique) and opcode not in UNANSWERED
            if opcode in self._executed and request_id(unique) in executed:
                self._answer_executed(self._request(size))
            else:
                self._serve_one(size)
        # Whatever else the log names was answered.
        self._filesystem.unanswered.difference_update(executed)

    def _answer_executed(self, request: Request) -> None:
        try:
            self._answer(request, self._executed[request.opcode](request))
        except Exception as error:  # noqa: BLE001 (whatever it is, the mount must go on)
            self._refuse(request, errno_of(request, error))

    async def _serve(self) -> None:
        """Serve requests until the connection ends."""
        buffers = (self._buffer,)
        while True:
            for _ in range(_TURN):
                try:
                    size = os.readv(self._fd, buffers)
                except BlockingIOError:
                    size = self._look_again()
                    if not size:
                        await self._wait()
                        break
                except OSError as error:
                    if _is_end(error):
                        return
                    continue
                if not size:
                    return  # the other end of a socket is closed; a device says ENODEV
                self._serve_one(size)
            else:
                self._sleep.was_spared()
                self._syncs.collect()
                self._answers.collect()
                self._forgotten.free(_TURN)
                await trio.lowlevel.checkpoint()

    def _look_again(self) -> int:
        """Look a few times for a request that comes soon; 0 if none does."""
        if self._syncs.is_busy or self._reads.is_busy:
            # Looking would keep the interpreter's lock from the thread that is to answer.
            self._poll_all.poll(_POLL_MILLISECONDS)
            self._syncs.collect()
        readv, fd, buffers = os.readv, self._fd, (self._buffer,)
        looks = self._sleep.looks
        while looks > 0 or self._forgotten.waiting:
            # Whoever removed a file need not wait until its pages are free.
            self._forgotten.free(1)
            looks -= 1
            try:
                return readv(fd, buffers)
            except BlockingIOError:
                continue
            except OSError:
                break  # the next read tells
        return 0

    async def _wait(self) -> None:
        self._syncs.expect_sleep()
        self._answers.collect()
        await self._sleep.until_readable()
        self._syncs.expect_work()

    def _request(self, size: int) -> Request:
        """The request of `size` bytes in the buffer."""
        _, opcode, unique, nodeid, uid, gid, pid = IN_HEADER.unpack_from(self._buffer)
        body = self._view[IN_HEADER.size : size]
        values = (opcode, unique, nodeid, uid, gid, pid, body, perf_counter_ns())
        return tuple.__new__(Request, values)  # what Request(*values) does, without its call

    def _serve_one(self, size: int) -> None:
        request = self._request(size)
        if request.opcode not in self._table:
            self._without_handler(request)
            return
        try:
            self._handle(request)
        except Exception as error:  # noqa: BLE001 (whatever it is, the mount must go on)
            self._fail(request, error)

    def _handle(self, request: Request, *, can_be_logged: bool = False) -> None:
        """Answer a request now, or have it answered when what it waits for is done."""
        opcode = request.opcode
        is_change = opcode in CHANGES
        if is_change and not can_be_logged and self._filesystem.must_commit:
            self._nursery.start_soon(self._handle_behind_commit, request.kept())
            return
        answer = self._execute(request)
        if answer is None:
            return  # a thread answers
        if is_change and self._must_wait(opcode):
            self._filesystem.unanswered.add(request_id(request.unique))
            self._nursery.start_soon(self._answer_when_safe, request.kept(), answer)
        elif isinstance(answer, (bytes, list)):  # quicker than to ask for a Coroutine
            self._answer(request, answer)
        else:
            nursery = self._seeks if opcode == Opcode.LSEEK else self._nursery
            nursery.start_soon(self._answer_later, request.kept(), answer)

    async def _handle_behind_commit(self, request: Request) -> None:
        """Serve a change once the log can take it: what cannot be committed is not to be made."""
        try:
            await self._committer.sync()
            self._handle(request, can_be_logged=True)
        except Exception as error:  # noqa: BLE001 (whatever it is, the mount must go on)
            self._refuse(request, errno_of(request, error))

    def _execute(self, request: Request) -> Answer:
        """Call the handler; the log notes what must not be executed twice."""
        handler = self._table[request.opcode]
        if request.opcode not in ONCE:
            return handler(request)
        self._filesystem.request = request_id(request.unique)
        try:
            return handler(request)
        finally:
            self._filesystem.request = 0

    def _without_handler(self, request: Request) -> None:
        if request.opcode == Opcode.FORGET:
            self._forgotten.waiting.append(request.nodeid)
        elif request.opcode == Opcode.BATCH_FORGET:
            self._forgotten.add_many(request.body)
        elif request.opcode != Opcode.INTERRUPT:
            self._refuse(request, errno.ENOSYS)
        # Calls on regular files are not interrupted on Linux: INTERRUPT is not answered, the
        # request that it is about is, in its time.

    def _must_wait(self, opcode: int) -> bool:
        """Whether a change must be committed before it is answered."""
        return self._committer.must_wait() or (self._sync_names and opcode in NAME_CHANGES)

    async def _answer_when_safe(
        self, request: Request, answer: Content | Coroutine[object, object, Content]
    ) -> None:
        """Answer a change once it is committed.

        If that fails it is not tried again: the change is made.
        """
        try:
            content = await answer if isinstance(answer, Coroutine) else answer
            await self._committer.sync()
            self._answer(request, content)
        except Exception as error:  # noqa: BLE001 (whatever it is, the mount must go on)
            self._refuse(request, errno_of(request, error))
        finally:
            self._filesystem.unanswered.discard(request_id(request.unique))

    async def _answer_later(
        self, request: Request, answer: Coroutine[object, object, Content]
    ) -> None:
        """Answer a request that had to wait."""
        try:
            content = await answer
            if request.opcode in CHANGES and self._must_wait(request.opcode):
                self._filesystem.unanswered.add(request_id(request.unique))
                await self._answer_when_safe(request, content)
            else:
                self._answer(request, content)
        except Exception as error:  # noqa: BLE001 (whatever it is, the mount must go on)
            self._fail(request, error)

    async def _try_again(self, request: Request) -> None:
        """Serve a request again that found no space, once a commit has made some free."""
        try:
            await self._committer.reclaim()
            self._handle(request)
        except Exception as error:  # noqa: BLE001 (whatever it is, the mount must go on)
            self._refuse(request, errno_of(request, error))

    def _fail(self, request: Request, error: Exception) -> None:
        """Answer a request with what went wrong, unless making space may help."""
        code = errno_of(request, error)
        if code in FULL:
            self._forgotten.free_all()
        if code in FULL and self._filesystem.reclaimable:
            self._nursery.start_soon(self._try_again, request.kept())
        else:
            self._refuse(request, code)

    # What threads have called for requests that they give back

    def _is_idle(self) -> bool:
        return not self._poll.poll(0)

    def _sync_later(self, request: Request) -> None:
        answer = self._contents.commit(request.nodeid)
        self._nursery.start_soon(self._answer_later, request, answer)

    def _read_later(self, request: Request) -> None:
        answer = self._contents.read_cold(request)
        self._nursery.start_soon(self._answer_later, request, answer)


def _polling(*fds: int) -> select.poll:
    """What tells whether one of them is readable."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return poll


def _is_end(error: OSError) -> bool:
    """Whether a read failed because the connection ended, not for one request's sake."""
    if error.errno in (errno.ENODEV, errno.ECONNABORTED):
        return True
    if error.errno in (errno.EINTR, errno.ENOENT):  # interrupted; aborted by who waited
        return False
    raise error
