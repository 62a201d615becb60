"""The process that serves a mount for its supervisor: it opens the store, and may die at any time.

What the two say to each other goes over a socket, one message in one packet. The worker says that
the store is open, gets the connection, and says that it serves; or it says why it cannot.
"""

import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from mapfs.errors import DaemonError, MapfsError, MountError, StoreInUseError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.session import Connection, Job, listen_for_metrics, serve_connection
from mapfs.store.opening import open_store
from mapfs.store.store import Store

_log = logging.getLogger(__name__)

OPENED: Final = b"opened"
READY: Final = b"ready"
MESSAGE_BYTES: Final = 4096
# The exit code that says: another worker is to go on.
HANDED_OVER: Final = 75
_CONNECTION: Final = struct.Struct("<QIQ")
# How long somebody who looks at the store may keep a worker from taking over.
_PATIENCE_SECONDS: Final = 60
_PAUSE_SECONDS: Final = 0.02


def open_filesystem(job: Job, *, keep_orphans: bool = False) -> Filesystem:
    """The filesystem of a job that has a store. Raises what `open_store` does."""
    options = job.options
    opened = _open(job, wait=keep_orphans)
    if opened.lost_data:
        _log.error(
            "%s: its disk reported an I/O error: files written last may have lost data", job.store
        )
    return Filesystem(
        opened,
        listing=options.listing,
        access_times=options.access_times,
        keep_orphans=keep_orphans,
        acl=options.acl,
    )


def _open(job: Job, *, wait: bool) -> Store:
    """Open the store; with `wait` somebody else may have it for a while."""
    options = job.options
    assert job.store is not None
    end = time.monotonic() + (_PATIENCE_SECONDS if wait else 0)
    while True:
        try:
            return open_store(
                job.store, read_only=options.read_only, address_space=options.address_space
            )
        except StoreInUseError:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE_SECONDS)


def send_connection(channel: socket.socket, connection: Connection) -> None:
    """Hand a worker the connection. Raises `OSError` if it has died."""
    message = _CONNECTION.pack(connection.flags, connection.takeovers, connection.device)
    socket.send_fds(channel, [message], [connection.fd])


def _receive_connection(channel: socket.socket) -> Connection | None:
    """The connection; None if the supervisor gave up."""
    message, fds, _, _ = socket.recv_fds(channel, _CONNECTION.size, 1)
    if not message:
        return None
    flags, takeovers, number = _CONNECTION.unpack(message)
    os.set_inheritable(fds[0], False)  # noqa: FBT003 (takes it so only)
    return Connection(fds[0], flags, takeovers, number)


def run(
    job: Job, channel: socket.socket, *, is_taken_over: bool, detach: Callable[[], None]
) -> int:
    """Be the worker; returns its exit code. `detach` is called before it says that it serves."""
    is_ready = False

    def on_ready() -> None:
        nonlocal is_ready
        is_ready = True
        detach()
        with contextlib.suppress(OSError):  # the supervisor may be dead: go on
            channel.send(READY)
        channel.close()

    try:
        return _work(job, channel, on_ready, is_taken_over=is_taken_over)
    except BaseException as error:  # noqa: BLE001 (it is told or logged)
        known = isinstance(error, MapfsError | OSError)
        exit_code = error.exit_code if isinstance(error, MapfsError) else 1
        if is_ready:
            _log.log(logging.ERROR, "%s", error, exc_info=not known)
        else:
            with contextlib.suppress(OSError):
                channel.send(DaemonError.to_message(error)[:MESSAGE_BYTES])
        return exit_code


def _listen_for_metrics(job: Job, *, is_taken_over: bool) -> socket.socket | None:
    """A socket for who scrapes; a mount that goes on does so without it if need be."""
    try:
        return listen_for_metrics(job)
    except MountError as error:
        if not is_taken_over:
            raise
        _log.error("%s", error)
        return None


def _work(
    job: Job, channel: socket.socket, on_ready: Callable[[], None], *, is_taken_over: bool
) -> int:
    # The supervisor's own: whoever handed it a signal meant the supervisor.
    os.setpgid(0, 0)
    metrics = _listen_for_metrics(job, is_taken_over=is_taken_over)
    filesystem = open_filesystem(job, keep_orphans=is_taken_over)
    channel.send(OPENED)
    connection = _receive_connection(channel)
    if connection is None:
        filesystem.close()
        return 1
    # Not closed if this raises: the mount goes on, and the log has what is to be committed.
    if serve_connection(filesystem, connection, job, on_ready, metrics):
        filesystem.hand_over()
        return HANDED_OVER
    filesystem.close()
    os.close(connection.fd)
    return 0
