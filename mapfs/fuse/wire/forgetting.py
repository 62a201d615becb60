"""FORGET: the kernel knows an inode no more, so that one without a name can be freed."""

import logging
import struct
from collections import deque

from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.wire.notifications import Notifications
from mapfs.fuse.wire.protocol import BATCH_FORGET_IN, FORGET_ONE

_log = logging.getLogger(__name__)


class Forgotten:
    """Inodes whose FORGET came and has yet to be seen to. Belongs to the filesystem's thread.

    `waiting` has their numbers.
    """

    def __init__(self, filesystem: Filesystem, notifications: Notifications) -> None:
        self._filesystem = filesystem
        self._notifications = notifications
        self.waiting: deque[int] = deque()

    def add_many(self, body: memoryview) -> None:
        """Those of a BATCH_FORGET."""
        try:
            (count,) = BATCH_FORGET_IN.unpack_from(body)
            end = BATCH_FORGET_IN.size + count * FORGET_ONE.size
            numbers = [each for each, _ in FORGET_ONE.iter_unpack(body[BATCH_FORGET_IN.size : end])]
        except struct.error as error:
            _log.error("BATCH_FORGET: malformed request: %s", error)
            return
        self.waiting.extend(numbers)

    def free(self, most: int) -> None:
        """See to up to so many."""
        while self.waiting and most > 0:
            self._free(self.waiting.popleft())
            most -= 1

    def free_all(self) -> None:
        """See to all."""
        self.free(len(self.waiting))

    def _free(self, nodeid: int) -> None:
        """Free an orphan whose last user is gone.

        FORGETs come from a queue of their own: one may arrive after the inode was looked up, opened
        and unlinked again (`forget_pending` in fs/fuse/dev.c). So the kernel is asked whether it
        still knows the inode; if not, nothing can look an orphan up anew.
        """
        try:
            if self._filesystem.is_orphan(nodeid) and not self._notifications.invalidate_attributes(
                nodeid
            ):
                self._filesystem.forget(nodeid)
        except Exception:  # noqa: BLE001 (whatever it is, the mount must go on)
            _log.exception("forget of inode %d failed", nodeid)
