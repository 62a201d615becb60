"""Having the kernel write back what it holds of a file, which waits for WRITEs of this very mount.

The kernel cannot be interrupted in that (`invalidate_inode_pages2_range` in mm/truncate.c). A
thread of the daemon that made the call could not be killed before the WRITEs are answered, and
when the daemon is killed nobody answers them: it would never end, and no other take over. So a
process of its own makes the call (`write_back_process`). It is started when it is first needed.
"""

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable
from typing import Final

import trio

from mapfs.fuse import device
from mapfs.fuse.wire import write_back_process
from mapfs.fuse.wire.notifications import inval_inode

_ANSWER_BYTES: Final = 4


class WriteBack:
    """Writes ranges back, one after the other. Belongs to the filesystem's thread."""

    def __init__(self, fd: int, mounted: int, keepers: Collection[int]) -> None:
        """`fd` is the connection of the mount with the `st_dev` `mounted`.

        `keepers` are the processes without which nobody would serve it any more: when they have
        ended, the connection does.
        """
        self._fd = fd
        self._mounted = mounted
        self._keepers = keepers
        self._turn = trio.Lock()
        self._channel: trio.socket.SocketType | None = None

    async def write_back(self, nodeid: int, offset: int, length: int) -> None:
        """Have the kernel write what it holds of a range, and drop it; `length` 0 is to the end.

        Raises `OSError` if that fails. Who is cancelled may leave the kernel at it.
        """
        await self._call(inval_inode(nodeid, offset, length))

    async def forget_attributes(self, nodeids: Iterable[int]) -> None:
        """Let the kernel ask for the attributes of inodes anew: no more than go into a message."""
        await self._call(b"".join(inval_inode(nodeid, -1, 0) for nodeid in nodeids))

    async def _call(self, messages: bytes) -> None:
        async with self._turn:
            try:
                code = await self._ask(messages)
            except BaseException:
                self.close()  # its answer, should it still come, is not for the next who asks
                raise
        if code:
            raise OSError(code, os.strerror(code))

    async def _ask(self, messages: bytes) -> int:
        if self._channel is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._channel = trio.socket.from_stdlib_socket(ours)
                await trio.to_thread.run_sync(self._start, theirs.fileno())
        await self._channel.send(messages)
        answer = await self._channel.recv(_ANSWER_BYTES)
        if not answer:
            raise OSError(errno.EIO, "the process that writes back has ended")
        return int.from_bytes(answer, "little")

    def _start(self, channel: int) -> None:
        """Start the process; returns when it has left this one, which need not wait for it."""
        abort_file = device.abort_file(self._mounted)
        keepers = []
        for pid in self._keepers:
            with contextlib.suppress(ProcessLookupError):  # a mount may lose its supervisor
                keepers.append(os.pidfd_open(pid))
        descriptors = (self._fd, channel, *keepers)
        program = [sys.executable, "-I", "-S", write_back_process.__file__]
        words = [str(abort_file), *map(str, descriptors)]
        try:
            subprocess.run(
                [*program, *words],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
            )
        finally:
            for keeper in keepers:
                os.close(keeper)

    def close(self) -> None:
        """Let the process end, when it is done with what it is at."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
