"""Messages that the daemon sends by itself, and that nobody answers."""

import contextlib
import errno
import os

from mapfs.fuse.wire.protocol import NOTIFY_INVAL_INODE_OUT, OUT_HEADER, Notify


class Notifications:
    """Sends notifications on a FUSE connection. Any thread may, but see each method."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def invalidate_attributes(self, nodeid: int) -> bool:
        """Let the kernel ask for an inode's attributes anew; False if it knows no such inode."""
        return self._invalidate(nodeid, -1, 0)

    def write_back(self, nodeid: int, offset: int, length: int) -> None:
        """Have the kernel write what it holds of a range, and drop it; `length` 0 is to the end.

        Waits for its WRITE requests: only a thread that does not serve them may call it. Raises
        `OSError` if one fails (`invalidate_inode_pages2_range` in mm/truncate.c).
        """
        self._invalidate(nodeid, offset, length)

    def resend(self) -> None:
        """Have every request that was read and not answered sent again, to whoever reads next."""
        with contextlib.suppress(OSError):  # the connection ended: the next read tells
            os.write(self._fd, OUT_HEADER.pack(OUT_HEADER.size, Notify.RESEND, 0))

    def _invalidate(self, nodeid: int, offset: int, length: int) -> bool:
        body = NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, length)
        header = OUT_HEADER.pack(OUT_HEADER.size + len(body), Notify.INVAL_INODE, 0)
        try:
            os.write(self._fd, header + body)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True
