"""The life of a mount in the process that serves it: serve, commit, leave on unmount or signal.

`serve` mounts and runs until the filesystem is unmounted by anyone, or SIGTERM, SIGINT or SIGHUP
asks for it. `serve_connection` does the same for a connection that a supervisor keeps. The
filesystem stays the caller's to close.
"""

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import trio

from mapfs.errors import MapfsError, MountError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse import bdi, device
from mapfs.fuse.commits import Committer
from mapfs.fuse.memory import Memory
from mapfs.fuse.options import MountOptions, Transport
from mapfs.store.syscalls import syncfs

_log = logging.getLogger(__name__)

# With the defaults every request pays two microseconds, and one in many 30 milliseconds
# (`docs/performance.md`).
_GC_THRESHOLDS: Final = (50_000, 20, 100)
LEAVE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# From the supervisor to its worker: let another one go on.
HAND_OVER: Final = signal.SIGUSR1


class Connection(NamedTuple):
    """A FUSE connection on which FUSE_INIT was answered, agreeing on the flags `Init`.

    `is_taken_over` says that another process has served it before.
    """

    fd: int
    flags: int
    is_taken_over: bool


class _Server(Protocol):
    """A transport."""

    async def run(self) -> None:
        """Serve until the filesystem is unmounted or `stop` is called."""

    def stop(self) -> None:
        """Let `run` return."""


def serve(
    filesystem: Filesystem,
    source: str,
    mountpoint: Path,
    options: MountOptions,
    on_ready: Callable[[], None],
) -> None:
    """Mount, call `on_ready`, and serve until unmounted. Raises `MountError` before that."""
    filesystem.forget_requests()
    fd = device.mount(source, mountpoint, options)
    try:
        _Session(filesystem, mountpoint, options, on_ready).run(fd)
    except BaseException:
        # A mount without a daemon would answer every access with an error.
        with contextlib.suppress(MountError):
            device.unmount(mountpoint, lazy=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def serve_connection(
    filesystem: Filesystem,
    connection: Connection,
    mountpoint: Path,
    options: MountOptions,
    on_ready: Callable[[], None],
) -> bool:
    """Serve a mount of the wire transport until it is unmounted, or another is to go on (True).

    `on_ready` is called once requests are served.
    """
    if not connection.is_taken_over:
        filesystem.forget_requests()
    return _Session(filesystem, mountpoint, options, on_ready).run_connection(connection)


class _Session:
    """Serving one mount; its tasks run in trio."""

    def __init__(
        self,
        filesystem: Filesystem,
        mountpoint: Path,
        options: MountOptions,
        on_ready: Callable[[], None],
    ) -> None:
        self._filesystem = filesystem
        self._mountpoint = mountpoint
        self._options = options
        self._on_ready = on_ready
        self._committer = Committer(filesystem)

    def run(self, fd: int) -> None:
        """Serve what was mounted just now."""
        self._transport = self._make_transport(fd)
        trio.run(self._serve, None)

    def _make_transport(self, fd: int) -> _Server:
        """The transport asked for; what another one needs is not imported."""
        if self._options.transport is Transport.PYFUSE3:
            from mapfs.fuse.pyfuse3_transport import Pyfuse3Transport

            return Pyfuse3Transport(self._filesystem, self._committer, self._options, fd)
        from mapfs.fuse.wire.loop import WireTransport
        from mapfs.fuse.wire.negotiation import negotiate

        flags = negotiate(fd, self._options)
        return WireTransport(self._filesystem, self._committer, self._options, fd, flags)

    def run_connection(self, connection: Connection) -> bool:
        """Serve a connection that is kept elsewhere; True if it was handed over."""
        from mapfs.fuse.wire.loop import WireTransport
        from mapfs.fuse.wire.protocol import Init

        transport = self._transport = WireTransport(
            self._filesystem,
            self._committer,
            self._options,
            connection.fd,
            Init(connection.flags),
            is_taken_over=connection.is_taken_over,
        )
        trio.run(self._serve, transport.hand_over)
        return transport.is_handed_over

    async def _serve(self, hand_over: Callable[[], None] | None) -> None:
        # What is there now stays; of what comes hardly anything is garbage that refers to itself.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._committer.run, self._options.commit)
            nursery.start_soon(Memory(self._filesystem).run)
            await nursery.start(self._obey, hand_over)
            nursery.start_soon(self._get_ready)
            await self._transport.run()
            nursery.cancel_scope.cancel()

    async def _get_ready(self) -> None:
        """What needs a mount that is served already."""
        await trio.to_thread.run_sync(bdi.tune, self._mountpoint, abandon_on_cancel=True)
        self._on_ready()

    async def _obey(
        self,
        hand_over: Callable[[], None] | None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do what the first signal asks for; those that come behind it change nothing."""
        signals = (*LEAVE, HAND_OVER) if hand_over else LEAVE
        with trio.open_signal_receiver(*signals) as received:
            # A supervisor blocks them, so that none is lost before they are received here.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            task_status.started()
            number = await anext(received)
            if hand_over and number == HAND_OVER:
                hand_over()
            else:
                await self._leave(signal.Signals(number).name)
            await trio.sleep_forever()

    async def _leave(self, reason: str) -> None:
        """Unmount; the requests that this causes are served meanwhile."""
        _log.info("%s: unmounting %s", reason, self._mountpoint)
        try:
            await trio.to_thread.run_sync(device.unmount, self._mountpoint)
        except MountError as error:
            _log.warning("%s: detaching it", error)
            await self._detach()
            self._transport.stop()

    async def _detach(self) -> None:
        """Leave a mount that is in use: first fetch and commit what the kernel still holds."""
        with contextlib.suppress(MapfsError, OSError):
            await trio.to_thread.run_sync(_sync_mount, self._mountpoint)
            await self._committer.sync()
        with contextlib.suppress(MountError):
            await trio.to_thread.run_sync(lambda: device.unmount(self._mountpoint, lazy=True))


def _sync_mount(mountpoint: Path) -> None:
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
