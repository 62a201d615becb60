"""A client of a mount's control socket, which `docs/control.md` specifies.

Another process may be about to take the mount over. So a client that finds no socket, or loses its
own, waits until the mount is served again and tries anew.
"""

import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mapfs.errors import MapfsError, MountError, MountGoneError, UsageError
from mapfs.fuse.control import SOCKET_NAME, abstract_name
from mapfs.fuse.statistics import Snapshot
from mapfs.mounts import Mount, mount_at

_PATIENCE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05
_MOST_ATTEMPTS: Final = 5
_CREDENTIALS: Final = struct.Struct("=iII")  # pid, uid, gid (unix(7))
_ABSENT: Final = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class ControlClient:
    """Asks the daemon of one mount. Each question has a connection of its own."""

    def __init__(self, mountpoint: Path) -> None:
        """Raises `MountError` if no mapfs is mounted on `mountpoint`."""
        mount = mount_at(mountpoint)
        if mount is None:
            raise MountError(f"{mountpoint}: no mapfs is mounted there")
        self.mount: Final = mount
        self.mountpoint: Final = mountpoint

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """The answer to a command, which may be executed twice if its process dies meanwhile.

        Raises `MapfsError` if it is refused, and `MountError` if nobody answers.
        """
        for _ in range(_MOST_ATTEMPTS):
            with contextlib.suppress(ConnectionError), self._connect() as connection:
                answer = _exchange(connection, {"command": command, **arguments})
                if answer is not None:
                    return answer
        raise MountError(f"{self.mountpoint}: the control socket does not answer")

    def snapshot(self, files: int = 0) -> Snapshot:
        """The mount's statistics, with up to so many of its files.

        Raises `MountGoneError` if it ended, and what `ask` does.
        """
        answer = self.ask("statistics", files=files)
        try:
            return Snapshot.from_json(answer["statistics"])
        except (KeyError, TypeError):
            raise MapfsError(
                f"{self.mountpoint}: it is served by another version of mapfs"
                f" (mapfs restart {self.mountpoint})"
            ) from None

    def trace(self, **arguments: object) -> Iterator[dict[str, Any]]:
        """The operations of the mount as they are answered.

        Raises `MountGoneError` when it ends. An empty one says that the mount was taken over, so
        that some may lack.
        """
        is_first = True
        while True:
            with contextlib.suppress(ConnectionError), self._connect() as connection:
                answer = _exchange(connection, {"command": "trace", **arguments})
                if answer is not None:
                    if not is_first:
                        yield {}
                    is_first = False
                    with connection.makefile("rb") as lines:
                        yield from map(json.loads, _whole(lines))
            time.sleep(_PAUSE_SECONDS)

    def _connect(self) -> socket.socket:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._try_to_connect()
            except PermissionError:
                raise MountError(
                    f"{self.mountpoint}: only root and the user who mounted it may do that"
                ) from None
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
            self._require_daemon()
            if time.monotonic() > end:
                raise MountError(f"{self.mountpoint}: it has no control socket (its log says why)")
            time.sleep(_PAUSE_SECONDS)

    def _require_daemon(self) -> None:
        """Return when the mount is served, or raise `MountGoneError`."""
        if mount_at(self.mountpoint) != self.mount:
            raise MountGoneError(f"{self.mountpoint}: the mount is gone")
        try:
            os.statvfs(self.mount.mountpoint)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise MountGoneError(f"{self.mountpoint}: its daemon is gone") from None

    def _try_to_connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            try:
                _connect_in(connection, self.mount.source)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                connection.connect(abstract_name(self.mount.device))
            _require_owner(connection, self.mount)
        except BaseException:
            connection.close()
            raise
        return connection


def _connect_in(connection: socket.socket, bundle: Path) -> None:
    """Connect by way of a descriptor: the path may be too long for a socket's address."""
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
    finally:
        os.close(directory)


def _require_owner(connection: socket.socket, mount: Mount) -> None:
    """Raise `MountError` if the other end is neither the owner's of the mount nor root's."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid not in (0, mount.owner, os.geteuid()):
        raise MountError(f"{mount.mountpoint}: its control socket belongs to another user")


def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a request; None if the other end died before it. Raises `MapfsError`."""
    connection.sendall(json.dumps(request).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        # No more than the line: what comes behind it is read as a stream.
        peeked = connection.recv(1 << 16, socket.MSG_PEEK)
        if not peeked:
            return None
        end = peeked.find(b"\n") + 1 or len(peeked)
        line += connection.recv(end)
    answer: dict[str, Any] = json.loads(line)
    if not answer["ok"]:
        is_mistaken = answer["errno"] == errno.errorcode[UsageError.errno]
        raise (UsageError if is_mistaken else MapfsError)(answer["error"])
    return answer


def _whole(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines that end; a process that dies may leave a part of one."""
    return (line for line in lines if line.endswith(b"\n"))
