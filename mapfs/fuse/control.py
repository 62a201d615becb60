"""The control socket: clients ask, in lines of JSON, for what FUSE does not carry.

`docs/control.md` specifies the protocol. Whatever a client does, the mount is served meanwhile.
"""

import errno
import json
import logging
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trio

from mapfs.errors import MapfsError, NotPermittedError, UsageError
from mapfs.fuse.commands import Commands, filter_of
from mapfs.fuse.tracing import Event, Listener, Tracer
from mapfs.fuse.transport import ServingTransport

_log = logging.getLogger(__name__)

SOCKET_NAME: Final = "control"
_MOST_CLIENTS: Final = 16
MOST_LINE_BYTES: Final = 8192
# How long a client may take for its next line, and to take what is sent to it.
PATIENCE_SECONDS: Final = 10.0
_TRACE_SECONDS: Final = 0.05
_TRACE_LINES: Final = 64
_CREDENTIALS: Final = struct.Struct("=iII")  # pid, uid, gid (unix(7))
_LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


def abstract_name(device: int) -> str:
    """The name of the socket of a mount with this `st_dev` that has none in its bundle."""
    return f"\0mapfs/{os.major(device)}:{os.minor(device)}"


class ControlSocket:
    """A socket that listens: `control` in the bundle, or else one in the abstract namespace.

    A bundle may lie too deep for the 108 bytes of a socket's address, so it is bound by way of a
    descriptor of the directory.
    """

    def __init__(self, bundle: Path | None, device: int) -> None:
        """Without a bundle, or where it cannot be written, `device` gives the name.

        The bundle must be locked for writing: a socket that is there is a dead one then. Raises
        `OSError`.
        """
        self._directory: int | None = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(self.socket.fileno(), 0o600)  # bind(2) makes the file with this mode
            if bundle is None or not self._bind_in(bundle):
                self.socket.bind(abstract_name(device))
            self.socket.listen(_MOST_CLIENTS)
        except BaseException:
            self.close()
            raise

    def _bind_in(self, bundle: Path) -> bool:
        try:
            directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _remove_socket(directory)
                self.socket.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            except OSError:
                os.close(directory)
                raise
        except OSError as error:
            _log.info("%s: %s", bundle / SOCKET_NAME, error.strerror)
            return False
        self._directory = directory
        return True

    def close(self) -> None:
        """Take the socket away; where that cannot be, whoever is next replaces it."""
        self.socket.close()
        if self._directory is not None:
            with suppress(OSError):
                _remove_socket(self._directory)
            os.close(self._directory)
            self._directory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _remove_socket(directory: int) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(SOCKET_NAME, dir_fd=directory).st_mode):
            os.unlink(SOCKET_NAME, dir_fd=directory)
    except FileNotFoundError:
        pass


class ControlServer:
    """Answers the clients of one mount. Its tasks run in the filesystem's thread."""

    def __init__(self, commands: Commands, tracer: Tracer, transport: ServingTransport) -> None:
        self._commands = commands
        self._tracer = tracer
        self._transport = transport
        self._clients = 0

    async def run(
        self, bound: ControlSocket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; then the socket is taken away."""
        with bound:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound.socket))
            task_status.started()
            try:
                await trio.serve_listeners(self._attend, [listener])
            except Exception:  # noqa: BLE001 (whatever it is, the mount must go on)
                _log.exception("the control socket cannot be served any longer")

    async def _attend(self, stream: trio.SocketStream) -> None:
        """Serve one client, whatever it does."""
        self._clients += 1
        try:
            await self._converse(stream)
        except _LOST:
            pass  # it went away, or does not take its answer
        except Exception:  # noqa: BLE001 (whatever it is, the mount must go on)
            _log.exception("a client of the control socket could not be served")
        finally:
            self._clients -= 1
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        """Answer line after line, until the client ends or makes a mistake in the form."""
        lines = _Lines(stream)
        try:
            self._require_welcome(stream)
            while (line := await lines.next()) is not None:
                request = _parse(line)
                if request.get("command") == "trace":
                    await self._trace(stream, request)
                    return
                await _send(stream, await self._answer(request))
        except MapfsError as error:
            await _send(stream, _refusal(error))

    def _require_welcome(self, stream: trio.SocketStream) -> None:
        """Raise for another user than the daemon's and root, and if there are too many clients."""
        credentials = stream.socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in (0, os.geteuid()):
            raise NotPermittedError("only root and the user who mounted may use this socket")
        if self._clients > _MOST_CLIENTS:
            raise UsageError(f"{_MOST_CLIENTS} clients are connected already")

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": True, **await self._commands.execute(request)}
        except (MapfsError, OSError) as error:
            return _refusal(error)

    async def _trace(self, stream: trio.SocketStream, request: dict[str, Any]) -> None:
        """Send a line for each operation, until the client says or closes anything."""
        listener = self._tracer.listen(filter_of(request, self._transport.operations))
        try:
            await _send(stream, {"ok": True})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_end, stream, nursery.cancel_scope)
                with suppress(*_LOST):
                    await self._tell(stream, listener)
                nursery.cancel_scope.cancel()
        finally:
            self._tracer.leave(listener)

    async def _tell(self, stream: trio.SocketStream, listener: Listener) -> None:
        """Send what a listener hears, until cancelled."""
        while True:
            self._transport.collect()
            while events := listener.take(_TRACE_LINES):
                await stream.send_all(b"".join(_line(_described(*each)) for each in events))
            if dropped := listener.take_dropped():
                await stream.send_all(_line({"dropped": dropped}))
            await trio.sleep(_TRACE_SECONDS)


class _Lines:
    """The lines that a client sends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next line, None at the end. Raises `UsageError`: too long, too slow, cut off."""
        with trio.move_on_after(PATIENCE_SECONDS):
            while b"\n" not in self._buffer and len(self._buffer) <= MOST_LINE_BYTES:
                received = await self._stream.receive_some(MOST_LINE_BYTES)
                if not received:
                    self._require_end()
                    return None
                self._buffer += received
            return self._take()
        raise UsageError(f"no whole line came within {PATIENCE_SECONDS:g} seconds")

    def _require_end(self) -> None:
        if self._buffer:
            raise UsageError("the last line does not end")

    def _take(self) -> bytes:
        line, _, rest = self._buffer.partition(b"\n")
        if len(line) > MOST_LINE_BYTES:
            raise UsageError(f"a line has at most {MOST_LINE_BYTES} bytes")
        self._buffer = rest
        return bytes(line)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("not a line of JSON") from None
    if not isinstance(request, dict):
        raise UsageError("a request is a JSON object")
    return request


def _refusal(error: MapfsError | OSError) -> dict[str, Any]:
    code = error.errno
    message = error.strerror if isinstance(error, OSError) else None
    return {"ok": False, "error": message or str(error), "errno": errno.errorcode.get(code or 0)}


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


async def _send(stream: trio.SocketStream, answer: dict[str, Any]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        await stream.send_all(_line(answer))


async def _cancel_at_end(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(*_LOST):
        await stream.receive_some(1)
    scope.cancel()


def _described(event: Event, path: str | None) -> dict[str, Any]:
    return {
        "time": event.time_ns / 1e9,
        "operation": event.operation,
        "inode": event.inode,
        "path": path,
        "offset": event.offset,
        "size": event.size,
        "error": errno.errorcode.get(event.errno, str(event.errno)) if event.errno else None,
        "duration_seconds": event.nanoseconds / 1e9,
    }
