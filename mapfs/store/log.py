"""The intent log: what operations changed since the last commit, in a memory-mapped file.

Mapped pages outlive the process, so a daemon that is killed loses nothing that it answered, at
the price of a memory copy an operation. They do not outlive the machine: the log is replayed only
if it was written since this boot. Two halves take turns, one for each generation, so that the
running one can be logged while the committing one is still needed.
Belongs to the filesystem's thread.
"""

import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mapfs.errors import StoreError
from mapfs.format.frames import (
    FAILED_OFFSET,
    HALF_BYTES,
    HALF_HEADER_BYTES,
    Change,
    pack_frame,
    pack_half,
    pack_requests,
    requests_offset,
    unpack_frames,
    unpack_half,
    unpack_requests,
)
from mapfs.store.syscalls import fallocate

LOG_BYTES: Final = 2 * HALF_BYTES


class IntentLog:
    """An open log. It starts closed: `begin` opens it for a generation."""

    def __init__(self, path: Path, uuid: bytes, *, read_only: bool = False) -> None:
        """Open or create the log at `path`; its blocks are reserved, so writing cannot fail.

        Raises `StoreError` if it cannot be opened, or created for want of space.
        """
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        try:
            fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not read_only:
                    _reserve(fd)
                protection = mmap.PROT_READ | (0 if read_only else mmap.PROT_WRITE)
                self._mapping = mmap.mmap(fd, LOG_BYTES, prot=protection)
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: {error}") from error
        self._view = memoryview(self._mapping)
        self._uuid = uuid
        self._boot_id = _boot_id()
        self._generation = 0
        self._offset = self._end = 0
        self._kept: set[int] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether operations must be committed before they are answered: the log has a gap."""
        return self._end == 0

    @property
    def is_half_full(self) -> bool:
        """Whether it is time for a commit."""
        return 2 * (self._end - self._offset) < HALF_BYTES

    def begin(self, generation: int, durable: int) -> None:
        """Log `generation` from now on; `durable` is the last one that is committed.

        The log stays closed if the half it would use holds what is not yet durable.
        """
        start = generation % 2 * HALF_BYTES
        self._offset = self._end = 0
        if self._half_generation(start) > durable:
            return
        header = pack_half(self._boot_id, self._uuid, generation)
        self._view[start : start + HALF_HEADER_BYTES] = header
        self._generation = generation
        self._offset = start + HALF_HEADER_BYTES
        self._end = start + requests_offset(HALF_BYTES)

    def mark_failed(self, *, failed: bool = True) -> None:
        """Note that bytes that the log refers to may not be on the store's disk, or are again.

        May be called in any thread.
        """
        for start in (0, HALF_BYTES):
            self._view[start + FAILED_OFFSET] = failed

    @property
    def is_failed(self) -> bool:
        """Whether `mark_failed` was called since the halves that are to be replayed began."""
        halves = [start for start in (0, HALF_BYTES) if self._half_generation(start)]
        return any(self._view[start + FAILED_OFFSET] for start in halves)

    def append(self, changes: Sequence[Change], request: int = 0) -> None:
        """Add what one operation changed. If it does not fit the log is closed."""
        if self.is_closed:
            return
        frame = pack_frame(changes, self._generation, request)
        behind = self._offset + len(frame)
        if behind > self._end:
            self._offset = self._end = 0
            return
        self._view[self._offset : behind] = frame
        self._offset = behind

    def keep_requests(self, requests: set[int]) -> None:
        """Have `requests` still named when the frames that name them are overwritten.

        Written twice, so that one is whole whenever the process is killed.
        """
        if requests == self._kept:
            return
        frame = pack_requests(requests, HALF_BYTES)
        for start in (0, HALF_BYTES):
            at = start + requests_offset(HALF_BYTES)
            self._view[at : at + len(frame)] = frame
        self._kept = set(requests)

    def forget_requests(self) -> None:
        """Name no request any more, once everything but the generation begun is durable."""
        self.keep_requests(set())
        for start in (0, HALF_BYTES):
            if not start < self._offset < start + HALF_BYTES:
                self._view[start : start + HALF_HEADER_BYTES] = bytes(HALF_HEADER_BYTES)

    def requests(self) -> set[int]:
        """The requests that frames name, durable or not, and those of `keep_requests`."""
        found: set[int] = set()
        for start in (0, HALF_BYTES):
            generation = self._half_generation(start)
            if generation:
                found |= unpack_requests(self._view[start : start + HALF_BYTES], generation)
        return found

    def replay(self, durable: int) -> Iterator[tuple[int, list[Change]]]:
        """The operations since the commit numbered `durable`, in order, with their generation."""
        for generation in (durable + 1, durable + 2):
            start = generation % 2 * HALF_BYTES
            if self._half_generation(start) == generation:
                half = self._view[start : start + HALF_BYTES]
                for changes in unpack_frames(half, generation):
                    yield generation, changes

    def _half_generation(self, start: int) -> int:
        header = bytes(self._view[start : start + HALF_HEADER_BYTES])
        return unpack_half(header, self._boot_id, self._uuid)

    def close(self) -> None:
        """Unmap the log."""
        self._view.release()
        self._mapping.close()


def _reserve(fd: int) -> None:
    """Give every page of the log a block, by writing where the host cannot reserve."""
    try:
        fallocate(fd, 0, 0, LOG_BYTES)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        size = os.fstat(fd).st_size
        os.pwrite(fd, bytes(max(0, LOG_BYTES - size)), size)


def _boot_id() -> bytes:
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return bytes.fromhex(text.replace("-", ""))
