"""How many blocks a file has, as stat(2) shows it, while the kernel gathers writes.

With the writeback cache the kernel takes sizes and times to be its own, and asks for the blocks
anew only at close(2) (`fuse_flush` in fs/fuse/file.c). Of a file that stays open it would show none
for ever, and `tar -S` take all of it for a hole. So it is told to ask: at fsync(2), and for files
that grew some time ago. Most are closed by then, and it costs an attribute's request to tell.
"""

import logging
from typing import Final

import trio

from mapfs.fuse.wire.notifications import Notifications
from mapfs.fuse.wire.write_back import WriteBack

_log = logging.getLogger(__name__)

# Twice that is as long as the kernel itself may hold dirty pages back
# (vm.dirty_expire_centisecs).
_PERIOD_SECONDS: Final = 15.0
# Files beyond that have to wait until they are closed.
_MOST_FILES: Final = 1 << 16
_AT_A_TIME: Final = 512


class BlockCounts:
    """The files that the kernel has old numbers of. Belongs to the filesystem's thread."""

    def __init__(self, notifications: Notifications, outside: WriteBack) -> None:
        self._notifications = notifications
        self._outside = outside
        # Of this period, and of the one before.
        self._recent: set[int] = set()
        self._due: set[int] = set()
        self._end = trio.CancelScope()

    def changed(self, nodeid: int) -> None:
        """Note that the pages of a file have become more or fewer by a WRITE."""
        if len(self._recent) < _MOST_FILES:
            self._recent.add(nodeid)

    def synced(self, nodeid: int) -> None:
        """Before an fsync is answered: it is for a file that is open, so the kernel has it."""
        if nodeid in self._recent or nodeid in self._due:
            self._recent.discard(nodeid)
            self._due.discard(nodeid)
            self._notifications.invalidate_attributes(nodeid)

    async def run(self) -> None:
        """Tell of those that grew in the period before the last, until closed.

        What asks for an inode may wait for its eviction, and that for a WRITE: hence by another
        process.
        """
        with self._end:
            while True:
                await trio.sleep(_PERIOD_SECONDS)
                while self._due:
                    some = [self._due.pop() for _ in range(min(len(self._due), _AT_A_TIME))]
                    await self._tell(some)
                self._due, self._recent = self._recent, set()

    async def _tell(self, nodeids: list[int]) -> None:
        try:
            await self._outside.forget_attributes(nodeids)
        except OSError as error:
            _log.warning("the kernel was not told how many blocks files have: %s", error)

    def close(self) -> None:
        """End `run`."""
        self._end.cancel()
