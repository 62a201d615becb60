"""How many blocks a file has, as stat(2) shows it, while the kernel gathers writes.

With the writeback cache the kernel takes sizes and times to be its own, and asks for the blocks
anew only at close(2) (`fuse_flush` in fs/fuse/file.c). Of a file that stays open it would show none
for ever, and `tar -S` take all of it for a hole. So it is told to ask: at fsync(2), and for files
that grew some time ago. Most are closed by then, and it costs an attribute's request to tell.
"""

import logging
from itertools import islice, takewhile
from typing import Final

import trio

from mapfs.fuse.wire.notifications import Notifications
from mapfs.fuse.wire.write_back import WriteBack

_log = logging.getLogger(__name__)

# As long as the kernel itself may hold dirty pages back (vm.dirty_expire_centisecs).
_DELAY_SECONDS: Final = 30.0
_BETWEEN_SECONDS: Final = 5.0
# Files beyond that have to wait until they are closed.
_MOST_FILES: Final = 1 << 16
_AT_A_TIME: Final = 512


class BlockCounts:
    """The files that the kernel has old numbers of. Belongs to the filesystem's thread."""

    def __init__(self, notifications: Notifications, outside: WriteBack) -> None:
        self._notifications = notifications
        self._outside = outside
        # When each is due, in order.
        self._due: dict[int, float] = {}
        self._end = trio.CancelScope()

    def changed(self, nodeid: int) -> None:
        """Note that the pages of a file have become more or fewer by a WRITE."""
        if nodeid not in self._due and len(self._due) < _MOST_FILES:
            self._due[nodeid] = trio.current_time() + _DELAY_SECONDS

    def synced(self, nodeid: int) -> None:
        """Before an fsync is answered: it is for a file that is open, so the kernel has it."""
        if self._due.pop(nodeid, None) is not None:
            self._notifications.invalidate_attributes(nodeid)

    async def run(self) -> None:
        """Tell of those that are due, until closed.

        What asks for an inode may wait for its eviction, and that for a WRITE: hence by another
        process.
        """
        with self._end:
            while True:
                await trio.sleep(_BETWEEN_SECONDS)
                while nodeids := self._take_due():
                    await self._tell(nodeids)

    async def _tell(self, nodeids: list[int]) -> None:
        try:
            await self._outside.forget_attributes(nodeids)
        except OSError as error:
            _log.warning("the kernel was not told how many blocks files have: %s", error)

    def close(self) -> None:
        """End `run`."""
        self._end.cancel()

    def _take_due(self) -> list[int]:
        now = trio.current_time()
        due = takewhile(lambda each: each[1] <= now, self._due.items())
        nodeids = [nodeid for nodeid, _ in islice(due, _AT_A_TIME)]
        for nodeid in nodeids:
            del self._due[nodeid]
        return nodeids
