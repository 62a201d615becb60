"""Advice: how a file will be used, in the words of madvise(2), and doing something about it.

`user.mapfs.advice` sets it. It stays with the file, and what is created in a directory inherits the
directory's. NORMAL, SEQUENTIAL and RANDOM say how much is read ahead of what is asked for; WILLNEED
and DONTNEED bring the file into memory or drop it, once; HUGEPAGE and PIN hold while a process
serves the store: the next one takes them up again when it is first asked for bytes of the file.
"""

import errno
import os
from collections.abc import Callable
from typing import Final

from mapfs.errors import (
    ExistsError,
    InvalidArgumentError,
    NotPermittedError,
    PinLimitError,
)
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.clock import now
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.inode import InodeTable
from mapfs.format.extent import Extent
from mapfs.format.records import Advice, Inode
from mapfs.store.machine_pages import Run
from mapfs.store.store import Store

ADVICE: Final = b"user.mapfs.advice"
_WORDS: Final = {advice.name.lower().encode(): advice for advice in Advice}
_HELD: Final = (Advice.HUGEPAGE, Advice.PIN)
_ROOT: Final = 0
_MOST_TAKEN_UP: Final = 1 << 16


class Advisor:
    """What is advised, and done about it. Belongs to the filesystem's thread."""

    def __init__(self, store: Store, inodes: InodeTable, extents: ExtentMap) -> None:
        self._backing = store.backing
        self._page_size = store.page_size
        self._inodes = inodes
        self._extents = extents
        # Files whose advice this process has taken up, as far as it can.
        self._taken_up: set[int] = set()

    def get(self, inode: Inode) -> bytes:
        """The word for an inode's advice."""
        return inode.advice.name.lower().encode()

    def set(self, inode: Inode, value: bytes, flags: int, caller: Caller | None) -> None:
        """Set the advice, and do what need not wait for the disk; `work` is the rest.

        `flags` are those of setxattr(2). Only root and the user that this process runs as may pin,
        as the memory is the process's; None is nobody but the process itself.
        """
        advice = _WORDS.get(value)
        if advice is None:
            raise InvalidArgumentError(f"advice must be one of {b', '.join(_WORDS).decode()}")
        if flags & os.XATTR_CREATE:
            raise ExistsError("every file has an advice")
        if advice is Advice.PIN and caller and caller.uid not in (_ROOT, os.geteuid()):
            raise NotPermittedError("only root and the daemon's user may pin")
        self._inodes.require_writable()
        if inode.is_file:
            self._take_up(inode, advice)
        self._inodes.edit(inode)
        inode.advice = advice
        inode.ctime = now()

    def _runs(self, number: int) -> list[Run]:
        size = self._page_size
        mappings = self._extents.mappings(number)
        return [(each.start * size, each.count * size) for each in mappings]

    def _take_up(self, inode: Inode, advice: Advice) -> None:
        runs = self._runs(inode.number)
        if inode.advice is Advice.PIN and advice is not Advice.PIN:
            self._unpin(runs)
        try:
            for run in runs:
                if advice is Advice.PIN:
                    self._backing.pin(*run)
                elif advice is Advice.HUGEPAGE:
                    self._backing.prefer_huge_pages(*run)
        except OSError as error:
            if inode.advice is not Advice.PIN:
                self._unpin(runs)
            raise _refusal(error) from error
        self._note(inode.number)

    def _unpin(self, runs: list[Run]) -> None:
        for run in runs:
            self._backing.unpin(*run)

    def _note(self, number: int) -> None:
        if len(self._taken_up) >= _MOST_TAKEN_UP:
            self._taken_up.clear()
        self._taken_up.add(number)

    def work(self, inode: Inode) -> Callable[[], None] | None:
        """What a worker thread should call after `set`, or None."""
        if not inode.is_file:
            return None
        calls: dict[Advice, Callable[[int, int], None]] = {
            Advice.WILLNEED: self._backing.advise,
            Advice.DONTNEED: self._backing.drop,
            Advice.PIN: self._backing.hold,
        }
        call, runs = calls.get(inode.advice), self._runs(inode.number)
        return (lambda: _each(call, runs)) if call and runs else None

    def must_take_up(self, inode: Inode) -> bool:
        """Whether `take_up` has anything to do before bytes of the file are read."""
        return inode.advice in _HELD and inode.number not in self._taken_up

    def take_up(self, inode: Inode) -> Callable[[], None] | None:
        """Do for a file what an earlier process did when its advice was set, or as it has grown.

        What is refused is left: reading goes on. Returns what a worker thread should call.
        """
        try:
            self._take_up(inode, inode.advice)
        except (InvalidArgumentError, NotPermittedError, PinLimitError):
            self._note(inode.number)
            return None
        return self.work(inode)

    def grown(self, inode: Inode) -> None:
        """Pages were added to a file."""
        self._taken_up.discard(inode.number)

    def shrunk(self, inode: Inode, extent: Extent) -> None:
        """Pages of the store that were a file's no longer are."""
        if inode.advice is Advice.PIN:
            self._backing.unpin(extent.start * self._page_size, extent.count * self._page_size)


def is_advisable(inode: Inode) -> bool:
    """Whether an inode has an advice: files have, and directories to hand it down."""
    return inode.is_file or inode.is_directory


def _refusal(error: OSError) -> Exception:
    """An error that is the caller's affair, not the disk's."""
    if error.errno == errno.EINVAL:
        return InvalidArgumentError("the kernel has no huge pages for this file")
    if error.errno == errno.EPERM:
        return NotPermittedError("the daemon may not pin any memory (RLIMIT_MEMLOCK)")
    if error.errno in (errno.ENOMEM, errno.EAGAIN):
        return PinLimitError("more than the daemon may pin (RLIMIT_MEMLOCK)")
    return error


def _each(call: Callable[[int, int], None], runs: list[Run]) -> None:
    for run in runs:
        call(*run)
