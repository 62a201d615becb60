"""The kernel's part of a FUSE connection, for tests of the wire transport without a kernel.

A socket pair of SOCK_SEQPACKET stands in for `/dev/fuse`: a message for each read.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from struct import pack, unpack_from
from typing import Final, NamedTuple

import trio

from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.commits import Committer
from mapfs.fuse.options import MountOptions
from mapfs.fuse.wire.loop import WireTransport
from mapfs.fuse.wire.protocol import Init
from mapfs.fuse.wire.write_back import WriteBack

FLAGS: Final = Init.SETXATTR_EXT | Init.HANDLE_KILLPRIV_V2 | Init.HAS_RESEND
# What no test's request takes, however busy the machine is.
_PATIENCE_SECONDS: Final = 60
_BUFFER_BYTES: Final = 1 << 21


class Reply(NamedTuple):
    """An answer: an errno, or 0 and the content."""

    error: int
    content: bytes


class Kernel:
    """Sends requests and gathers what comes back, in whatever order it comes."""

    def __init__(self) -> None:
        self._ours, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self._ours, self.device):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            os.set_blocking(each.fileno(), False)
        self._unique = 0
        self.replies: dict[int, Reply] = {}
        self.notifications: list[tuple[int, bytes]] = []

    def send(
        self,
        opcode: int,
        body: bytes = b"",
        nodeid: int = 1,
        *,
        uid: int = 0,
        gid: int = 0,
        length: int | None = None,
    ) -> int:
        """Send a request and do not wait; returns its `unique`.

        `length` is for a header that lies.
        """
        self._unique += 2
        size = 40 + len(body) if length is None else length
        header = pack("=IIQQIIIHH", size, opcode, self._unique, nodeid, uid, gid, 77, 0, 0)
        self._ours.send(header + body)
        return self._unique

    def receive(self) -> bool:
        """Take a message that is there; False if there is none."""
        try:
            message = self._ours.recv(_BUFFER_BYTES)
        except BlockingIOError:
            return False
        assert message, "the transport has ended"
        self._sort(message)
        return True

    def _sort(self, message: bytes) -> None:
        length, error, unique = unpack_from("=IiQ", message)
        assert length == len(message)
        if unique == 0:
            self.notifications.append((error, message[16:]))
            return
        assert -1000 < error <= 0, "fuse_dev_do_write in fs/fuse/dev.c refuses such an answer"
        assert not (error and length > 16), "an error has no content"
        assert unique <= self._unique, "an answer to nothing"
        assert unique not in self.replies, "a second answer"
        self.replies[unique] = Reply(-error, message[16:])

    async def answer(self, unique: int) -> Reply:
        """Wait for the answer to a request."""
        while unique not in self.replies:
            if not self.receive():
                await trio.lowlevel.wait_readable(self._ours)
        return self.replies[unique]

    async def ask(self, opcode: int, body: bytes = b"", nodeid: int = 1, **who: int) -> Reply:
        """Send a request and wait for its answer."""
        return await self.answer(self.send(opcode, body, nodeid, **who))

    async def get(self, opcode: int, body: bytes = b"", nodeid: int = 1, **who: int) -> bytes:
        """Send a request that must succeed; returns the content of its answer."""
        error, content = await self.ask(opcode, body, nodeid, **who)
        assert error == 0, errno.errorcode[error]
        return content

    async def end(self) -> None:
        """End the connection once everything that was sent is answered: as an unmount does."""
        await self.get(17)
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection at once."""
        self._ours.close()


def transport_of(
    filesystem: Filesystem, kernel: Kernel, options: MountOptions | None = None
) -> WireTransport:
    """The transport at the other end of the connection."""
    device = kernel.device.fileno()
    outside = WriteBack(device, 0, [os.getpid()])
    return WireTransport(
        filesystem, Committer(filesystem), options or MountOptions(), device, FLAGS, outside
    )


Scenario = Callable[[Kernel], Awaitable[None]]


def play(filesystem: Filesystem, scenario: Scenario, options: MountOptions | None = None) -> Kernel:
    """Run a scenario against the transport, and wait for its end; returns the kernel."""
    kernel = Kernel()

    async def main() -> None:
        transport = transport_of(filesystem, kernel, options)
        with trio.fail_after(_PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run)
                await scenario(kernel)
                await kernel.end()

    try:
        trio.run(main)
    finally:
        kernel.hang_up()
        kernel.device.close()
    return kernel
