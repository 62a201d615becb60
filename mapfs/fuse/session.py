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
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import trio

from mapfs.errors import MapfsError, MountError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse import bdi, device, scraping
from mapfs.fuse.commands import Commands
from mapfs.fuse.commits import Committer
from mapfs.fuse.control import ControlServer, ControlSocket
from mapfs.fuse.memory import Memory
from mapfs.fuse.options import MountOptions, Transport
from mapfs.fuse.scraping import MetricsServer
from mapfs.fuse.statistics import Statistics
from mapfs.fuse.tracing import Tracer
from mapfs.fuse.transport import ServingTransport
from mapfs.mounts import device_at

_log = logging.getLogger(__name__)

# With the defaults every request pays two microseconds, and one in many 30 milliseconds
# (`docs/performance.md`).
_GC_THRESHOLDS: Final = (50_000, 20, 100)
LEAVE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# From the supervisor to its worker: let another one go on.
HAND_OVER: Final = signal.SIGUSR1


class Connection(NamedTuple):
    """A FUSE connection on which FUSE_INIT was answered, agreeing on the flags `Init`.

    `takeovers` says how many processes have served it before; `device` is the `st_dev` of what is
    mounted, 0 if that is not known. The kernel was asked for it, and not the mount: who waits for
    that could not be killed.
    """

    fd: int
    flags: int
    takeovers: int
    device: int

    @property
    def is_taken_over(self) -> bool:
        """Whether another process has served it before."""
        return self.takeovers > 0


@dataclass(frozen=True, slots=True)
class Job:
    """What is mounted where; `store` is None for a filesystem in memory."""

    store: Path | None
    mountpoint: Path
    options: MountOptions

    @property
    def source(self) -> str:
        """What the kernel names as what is mounted."""
        return "mapfs-ephemeral" if self.store is None else str(self.store)


def serve(filesystem: Filesystem, job: Job, on_ready: Callable[[], None]) -> None:
    """Mount, call `on_ready`, and serve until unmounted. Raises `MountError` before that."""
    filesystem.forget_requests()
    metrics = listen_for_metrics(job)
    fd = device.mount(job.source, job.mountpoint, job.options)
    try:
        _Session(filesystem, job, on_ready, metrics).run(fd)
    except BaseException:
        # A mount without a daemon would answer every access with an error.
        with contextlib.suppress(MountError):
            device.unmount(job.mountpoint, lazy=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def listen_for_metrics(job: Job) -> socket.socket | None:
    """A socket for who scrapes the mount, if that is asked for. Raises `MountError`."""
    return None if job.options.metrics is None else scraping.listen(job.options.metrics)


def serve_connection(
    filesystem: Filesystem,
    connection: Connection,
    job: Job,
    on_ready: Callable[[], None],
    metrics: socket.socket | None,
) -> bool:
    """Serve a mount of the wire transport until it is unmounted, or another is to go on (True).

    `on_ready` is called once requests are served.
    """
    if not connection.is_taken_over:
        filesystem.forget_requests()
    return _Session(filesystem, job, on_ready, metrics).run_connection(connection)


class _Session:
    """Serving one mount; its tasks run in trio."""

    def __init__(
        self,
        filesystem: Filesystem,
        job: Job,
        on_ready: Callable[[], None],
        metrics: socket.socket | None,
    ) -> None:
        self._filesystem = filesystem
        self._job = job
        self._mountpoint = job.mountpoint
        self._options = job.options
        self._takeovers = self._device = 0
        self._on_ready = on_ready
        self._metrics = metrics
        self._committer = Committer(filesystem)

    def run(self, fd: int) -> None:
        """Serve what was mounted just now."""
        self._device = device_at(self._mountpoint) or 0
        self._transport = self._make_transport(fd)
        trio.run(self._serve, None)

    def _make_transport(self, fd: int) -> ServingTransport:
        """The transport asked for; what another one needs is not imported."""
        if self._options.transport is Transport.PYFUSE3:
            from mapfs.fuse.libfuse.transport import Pyfuse3Transport

            return Pyfuse3Transport(self._filesystem, self._committer, self._options, fd)
        from mapfs.fuse.wire.loop import WireTransport
        from mapfs.fuse.wire.negotiation import negotiate
        from mapfs.fuse.wire.write_back import WriteBack

        flags = negotiate(fd, self._options)
        outside = WriteBack(fd, self._device, [os.getpid()])
        return WireTransport(self._filesystem, self._committer, self._options, fd, flags, outside)

    def run_connection(self, connection: Connection) -> bool:
        """Serve a connection that is kept elsewhere; True if it was handed over."""
        from mapfs.fuse.wire.loop import WireTransport
        from mapfs.fuse.wire.protocol import Init
        from mapfs.fuse.wire.write_back import WriteBack

        transport = self._transport = WireTransport(
            self._filesystem,
            self._committer,
            self._options,
            connection.fd,
            Init(connection.flags),
            WriteBack(connection.fd, connection.device, [os.getppid(), os.getpid()]),
            is_taken_over=connection.is_taken_over,
        )
        self._takeovers, self._device = connection.takeovers, connection.device
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
            statistics = self._statistics()
            if self._metrics is not None:
                server = MetricsServer(statistics.snapshot, self._mountpoint)
                nursery.start_soon(server.run, self._metrics)
            nursery.start_soon(self._get_ready, nursery, statistics)
            await self._transport.run()
            nursery.cancel_scope.cancel()

    async def _get_ready(self, nursery: trio.Nursery, statistics: Statistics) -> None:
        """What needs a mount that is served already."""
        if self._device:
            bdi.tune(self._device)
        else:
            _log.warning("%s: the kernel names no such mount", self._mountpoint)
        try:
            bound = ControlSocket(self._bundle, self._device)
        except OSError as error:
            _log.warning("%s has no control socket: %s", self._mountpoint, error)
        else:
            await nursery.start(self._control(statistics).run, bound)
        self._on_ready()

    @property
    def _bundle(self) -> Path | None:
        """Where the control socket belongs; a mount that only reads must not write there."""
        return None if self._options.read_only else self._job.store

    def _statistics(self) -> Statistics:
        return Statistics(
            self._filesystem,
            self._committer,
            self._transport,
            store=self._job.store,
            takeovers=self._takeovers,
        )

    def _control(self, statistics: Statistics) -> ControlServer:
        filesystem, transport = self._filesystem, self._transport
        commands = Commands(filesystem, self._committer, transport, statistics, self._mountpoint)
        return ControlServer(commands, Tracer(transport, filesystem.path_of), transport)

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
            await trio.to_thread.run_sync(device.leave, self._mountpoint)
        except MountError as error:
            _log.warning("%s: detaching it", error)
            await self._detach()
            self._transport.stop()

    async def _detach(self) -> None:
        """Leave a mount that is in use: first fetch and commit what the kernel still holds."""
        with contextlib.suppress(MapfsError, OSError):
            await trio.to_thread.run_sync(device.sync, self._mountpoint)
            await self._committer.sync()
        with contextlib.suppress(MountError):
            await trio.to_thread.run_sync(lambda: device.leave(self._mountpoint, lazy=True))
