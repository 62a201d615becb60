"""Messages that the daemon sends by itself, and that nobody answers."""

import contextlib
import errno
import os

from mapfs.fuse.wire.protocol import NOTIFY_INVAL_INODE_OUT, OUT_HEADER, Notify


class Notifications:
    """Sends notifications on a FUSE connection. Any thread may."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def invalidate_attributes(self, nodeid: int) -> bool:
        """Let the kernel ask for an inode's attributes anew; False if it knows no such inode."""
        try:
            os.write(self._fd, inval_inode(nodeid, -1, 0))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def resend(self) -> None:
        """Have every request that was read and not answered sent again, to whoever reads next."""
        with contextlib.suppress(OSError):  # the connection ended: the next read tells
            os.write(self._fd, OUT_HEADER.pack(OUT_HEADER.size, Notify.RESEND, 0))


def inval_inode(nodeid: int, offset: int, length: int) -> bytes:
    """The message that lets the kernel drop an inode's attributes, and of its pages a range.

    An `offset` below 0 spares the pages. Else the kernel writes back what is dirty, and waits for
    that: nobody who serves requests may send it (see `write_back`). `length` 0 is to the end.
    """
    body = NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, length)
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), Notify.INVAL_INODE, 0) + body
