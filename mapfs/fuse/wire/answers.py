"""Answers to the kernel: writing them, and counting them.

All but those ending in `_in_thread` are for the filesystem's thread.
"""

import errno
import logging
import os
import struct
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns

from mapfs.errors import FULL, MapfsError
from mapfs.fuse.counters import SUM, Counters
from mapfs.fuse.wire.protocol import OUT_HEADER, Opcode
from mapfs.fuse.wire.request import Content, Request

_log = logging.getLogger(__name__)

_Parts = tuple[bytes | memoryview, ...]


class Answers:
    """Answers the requests of one connection.

    `trace` is called with each request that is answered, its errno, and how long it took in
    nanoseconds; the body is still whole then.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.counters: Counters[int] = Counters(operation_name)
        self._times = self.counters.times
        self.trace: Callable[[Request, int, int], None] | None = None
        # What threads have answered: request, errno, nanoseconds, bytes that were read.
        self._late: deque[tuple[Request, int, int, int]] = deque()

    def send(self, request: Request, content: Content) -> None:
        """Answer with content."""
        unique = request.unique
        if isinstance(content, bytes):
            header = OUT_HEADER.pack(OUT_HEADER.size + len(content), 0, unique)
            self._reply(request, 0, (header + content,))
            return
        size = sum(view.nbytes for view in content)
        self.counters.read_bytes += size
        self._reply(request, 0, (OUT_HEADER.pack(OUT_HEADER.size + size, 0, unique), *content))

    def refuse(self, request: Request, code: int) -> None:
        """Answer with an errno."""
        self.counters.errors[request.opcode] += 1
        self._reply(request, code, (OUT_HEADER.pack(OUT_HEADER.size, -code, request.unique),))

    def _reply(self, request: Request, code: int, parts: _Parts) -> None:
        try:
            os.writev(self._fd, parts)
        except OSError as error:
            _raise_if_awaited(error)
        # `Counters.add`, without its call.
        nanoseconds = perf_counter_ns() - request.received
        times = self._times[request.opcode]
        times[nanoseconds.bit_length()] += 1
        times[SUM] += nanoseconds
        if self.trace is not None:
            self.trace(request, code, nanoseconds)

    def send_in_thread(self, request: Request, content: memoryview | None = None) -> None:
        """Answer with what was read from the disk, or that it is done; in any thread."""
        size = 0 if content is None else content.nbytes
        header = OUT_HEADER.pack(OUT_HEADER.size + size, 0, request.unique)
        self._reply_in_thread(request, 0, (header,) if content is None else (header, content), size)

    def refuse_in_thread(self, request: Request, error: Exception) -> None:
        """Answer with the errno of what was raised; in any thread."""
        code = errno_of(request, error)
        header = OUT_HEADER.pack(OUT_HEADER.size, -code, request.unique)
        self._reply_in_thread(request, code, (header,), 0)

    def _reply_in_thread(self, request: Request, code: int, parts: _Parts, size: int) -> None:
        try:
            os.writev(self._fd, parts)
        except OSError as error:
            _raise_if_awaited(error)
        self._late.append((request, code, perf_counter_ns() - request.received, size))

    def collect(self) -> None:
        """Count what threads have answered: to be called now and then."""
        while self._late:
            request, code, nanoseconds, size = self._late.popleft()
            self.counters.add(request.opcode, nanoseconds, code)
            self.counters.read_bytes += size
            self.counters.cold_bytes += size
            if self.trace is not None:
                self.trace(request, code, nanoseconds)


def _raise_if_awaited(error: OSError) -> None:
    """An answer that nobody waits for any more is dropped by the kernel; else raise."""
    if error.errno not in (errno.ENOENT, errno.ENODEV):
        raise error


def errno_of(request: Request, error: Exception) -> int:
    """The errno to answer; what is no fault of the caller's is logged."""
    if isinstance(error, MapfsError):
        return error.errno
    name = _name_of(request.opcode)
    if isinstance(error, OSError):
        if error.errno not in FULL:
            _log.error("%s: %s", name, error)
        # EFAULT: writev(2) met a mapped page that the disk could not give.
        return errno.EIO if error.errno in (None, errno.EFAULT) else error.errno
    if isinstance(error, struct.error | ValueError):
        _log.error("%s: malformed request: %s", name, error)
        return errno.EINVAL
    _log.error("%s failed", name, exc_info=error)
    return errno.EIO


def _name_of(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"request {opcode}"


def operation_name(opcode: int) -> str:
    """The name under which a request is counted and traced: that of its opcode."""
    return _name_of(opcode).lower().replace(" ", "_")
