"""The life of a mount: mount, serve, commit, leave on unmount or signal.

`serve` runs until the filesystem is unmounted by anyone, or SIGTERM, SIGINT or SIGHUP asks for
it; it commits before it returns. The filesystem stays the caller's to close.
"""

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import trio

from mapfs.errors import MapfsError, MountError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse import bdi, device
from mapfs.fuse.commits import Committer
from mapfs.fuse.options import MountOptions, Transport
from mapfs.store.syscalls import syncfs

_log = logging.getLogger(__name__)

# With the defaults every request pays two microseconds, and one in many 30 milliseconds
# (`docs/performance.md`).
_GC_THRESHOLDS: Final = (50_000, 20, 100)


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
    fd = device.mount(source, mountpoint, options)
    # What is there now stays; of what comes hardly anything is garbage that refers to itself.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        trio.run(_serve, filesystem, fd, mountpoint, options, on_ready)
    except BaseException:
        # A mount without a daemon would answer every access with an error.
        with contextlib.suppress(MountError):
            device.unmount(mountpoint, lazy=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


async def _serve(
    filesystem: Filesystem,
    fd: int,
    mountpoint: Path,
    options: MountOptions,
    on_ready: Callable[[], None],
) -> None:
    committer = Committer(filesystem)
    transport = _transport(filesystem, committer, options, fd)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run, options.commit)
        await nursery.start(_leave_on_signal, mountpoint, committer, transport)
        nursery.start_soon(_get_ready, mountpoint, on_ready)
        await transport.run()
        nursery.cancel_scope.cancel()


async def _get_ready(mountpoint: Path, on_ready: Callable[[], None]) -> None:
    """What needs a mount that is served already."""
    await trio.to_thread.run_sync(bdi.tune, mountpoint, abandon_on_cancel=True)
    on_ready()


def _transport(
    filesystem: Filesystem, committer: Committer, options: MountOptions, fd: int
) -> _Server:
    """The transport asked for; what another one needs is not imported."""
    if options.transport is Transport.PYFUSE3:
        from mapfs.fuse.pyfuse3_transport import Pyfuse3Transport

        return Pyfuse3Transport(filesystem, committer, options, fd)
    from mapfs.fuse.wire.loop import WireTransport
    from mapfs.fuse.wire.negotiation import negotiate

    return WireTransport(filesystem, committer, options, fd, negotiate(fd, options))


async def _leave_on_signal(
    mountpoint: Path,
    committer: Committer,
    transport: _Server,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Unmount when asked to end; the requests that this causes are served meanwhile."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            _log.info("%s: unmounting %s", signal.Signals(number).name, mountpoint)
            try:
                await trio.to_thread.run_sync(device.unmount, mountpoint)
            except MountError as error:
                _log.warning("%s: detaching it", error)
                await _detach(mountpoint, committer)
                transport.stop()
            return


async def _detach(mountpoint: Path, committer: Committer) -> None:
    """Leave a mount that is in use: first fetch and commit what the kernel still holds."""
    with contextlib.suppress(MapfsError, OSError):
        await trio.to_thread.run_sync(_sync_mount, mountpoint)
        await committer.sync()
    with contextlib.suppress(MountError):
        await trio.to_thread.run_sync(lambda: device.unmount(mountpoint, lazy=True))


def _sync_mount(mountpoint: Path) -> None:
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
