"""The intent log: what operations changed since the last commit, in a memory-mapped file.

Mapped pages outlive the process, so a daemon that is killed loses nothing that it answered, at
the price of a memory copy an operation. They do not outlive the machine: what was written before
its last start counts only as far as it is known to have been synced.
Two halves take turns, one for each generation, so that the running one can be logged while the
committing one is still needed.
Belongs to the filesystem's thread, except where a method says otherwise.
"""

import errno
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mapfs.errors import StoreError
from mapfs.format.frames import (
    FAILED_OFFSET,
    HALF_BYTES,
    HALF_HEADER_BYTES,
    SYNCED_OFFSET,
    Change,
    Half,
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
            self._fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not read_only:
                    _reserve(self._fd)
                protection = mmap.PROT_READ | (0 if read_only else mmap.PROT_WRITE)
                self._mapping = mmap.mmap(self._fd, LOG_BYTES, prot=protection)
            except BaseException:
                os.close(self._fd)
                raise
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: {error}") from error
        self._view = memoryview(self._mapping)
        self._numbers = self._view.cast("I")
        self._uuid = uuid
        self._boot_id = _boot_id()
        self._generation = 0
        self._start = self._offset = self._end = 0
        self._kept: dict[int, int] | None = None
        self._is_trusted = True

    @property
    def is_closed(self) -> bool:
        """Whether operations must be committed before they are answered: the log has a gap."""
        return self._end == 0

    @property
    def is_half_full(self) -> bool:
        """Whether it is time for a commit."""
        return 2 * (self._end - self._offset) < HALF_BYTES

    @property
    def position(self) -> int:
        """How much of the half in use is written, in bytes."""
        return self._offset - self._start

    @property
    def synced(self) -> int:
        """How much of it is on the disk, with the data that it refers to."""
        return self._numbers[(self._start + SYNCED_OFFSET) // self._numbers.itemsize]

    @property
    def can_sync(self) -> bool:
        """Whether `sync` has a meaning: a log with a gap, or one that once failed to, is no help.

        A failed fdatasync(2) leaves pages clean that are not on the disk (fsync(2), NOTES).
        """
        return self._is_trusted and not self.is_closed

    def sync(self, position: int) -> None:
        """Make what was written up to `position` count even if the machine stops.

        All data that it refers to must be on the disk. May run in another thread while more is
        appended; not while `begin` does. Raises `OSError`, and then again each time.

        The number may get to the disk before the frames: those that are not whole end the replay.
        """
        self._numbers[(self._start + SYNCED_OFFSET) // self._numbers.itemsize] = position
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._is_trusted = False
            raise

    def begin(self, generation: int, durable: int) -> None:
        """Log `generation` from now on; `durable` is the last one that is committed.

        The log stays closed if the half it would use holds what is not yet durable.
        """
        start = self._start = generation % 2 * HALF_BYTES
        self._offset = self._end = 0
        half = self._half(start)
        if half is not None and half.generation > durable and self._counting(half):
            return
        if half is None or half.boot_id != self._boot_id:
            self._erase_frames(start)
        header = pack_half(self._boot_id, self._uuid, generation)
        self._view[start : start + HALF_HEADER_BYTES] = header
        self._generation = generation
        self._offset = start + HALF_HEADER_BYTES
        self._end = start + requests_offset(HALF_BYTES)

    def _erase_frames(self, start: int) -> None:
        """Before a half gets the id of this boot: what an earlier one left may not count by it.

        Frames of the same generation may be there, whole, though the header is older on the disk.
        """
        frames = slice(start + HALF_HEADER_BYTES, start + requests_offset(HALF_BYTES))
        self._view[frames] = bytes(frames.stop - frames.start)

    def mark_failed(self, *, failed: bool = True) -> None:
        """Note that bytes that the log refers to may not be on the store's disk, or are again.

        May be called in any thread.
        """
        for start in (0, HALF_BYTES):
            if self._view[start + FAILED_OFFSET] != failed:  # leave clean pages clean
                self._view[start + FAILED_OFFSET] = failed

    @property
    def is_failed(self) -> bool:
        """Whether `mark_failed` was called since the halves that are to be replayed began."""
        halves = [start for start in (0, HALF_BYTES) if self._is_of_this_boot(start)]
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

    def keep_requests(self, requests: Mapping[int, int]) -> None:
        """Have `requests` still named when the frames that name them are overwritten.

        Each has the generation that it changed: it counts only if that is durable.
        Written twice, so that one is whole whenever the process is killed.
        """
        if requests == self._kept:
            return
        frame = pack_requests(requests, HALF_BYTES)
        for start in (0, HALF_BYTES):
            at = start + requests_offset(HALF_BYTES)
            self._view[at : at + len(frame)] = frame
        self._kept = dict(requests)

    def forget_requests(self) -> None:
        """Name no request any more, once everything but the generation begun is durable."""
        self.keep_requests({})
        for start in (0, HALF_BYTES):
            if not start < self._offset < start + HALF_BYTES:
                self._view[start : start + HALF_HEADER_BYTES] = bytes(HALF_HEADER_BYTES)

    def requests(self, durable: int) -> set[int]:
        """The requests that frames name, durable or not, and those of `keep_requests`.

        `durable` is the generation up to which all is committed.
        """
        found: set[int] = set()
        for start in (0, HALF_BYTES):
            half = self._half(start)
            if half is not None and half.boot_id == self._boot_id:
                frames = self._view[start : start + HALF_BYTES]
                found |= unpack_requests(frames, half.generation, durable)
        return found

    def replay(self, durable: int) -> Iterator[tuple[int, list[Change]]]:
        """The operations since the commit numbered `durable`, in order, with their generation.

        All of them if they were logged since this machine started; otherwise what was synced.
        """
        for generation in (durable + 1, durable + 2):
            start = generation % 2 * HALF_BYTES
            half = self._half(start)
            if half is not None and half.generation == generation:
                frames = self._view[start : start + self._counting(half)]
                for changes in unpack_frames(frames, generation):
                    yield generation, changes

    def _counting(self, half: Half) -> int:
        """How much of a half counts, in bytes; after a power cut only what is known to be whole."""
        return HALF_BYTES if half.boot_id == self._boot_id else min(half.synced, HALF_BYTES)

    def _half(self, start: int) -> Half | None:
        return unpack_half(bytes(self._view[start : start + HALF_HEADER_BYTES]), self._uuid)

    def _is_of_this_boot(self, start: int) -> bool:
        half = self._half(start)
        return half is not None and half.boot_id == self._boot_id

    def close(self) -> None:
        """Unmap the log."""
        self._numbers.release()
        self._view.release()
        self._mapping.close()
        os.close(self._fd)


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
