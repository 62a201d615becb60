"""Metrics over HTTP, for Prometheus to scrape: GET /metrics, and nothing else.

One request for each connection, bounded in size and in time; the mount is served meanwhile.
"""

import logging
import os
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import trio

from mapfs.errors import MountError
from mapfs.fuse.options import Address
from mapfs.fuse.statistics import Snapshot

_log = logging.getLogger(__name__)

_BACKLOG: Final = 16
_MOST_CLIENTS: Final = 16
_MOST_REQUEST_BYTES: Final = 8192
PATIENCE_SECONDS: Final = 10.0
_END: Final = b"\r\n\r\n"


def listen(address: Address) -> socket.socket:
    """A socket that listens on an address. Raises `MountError` if that cannot be."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise MountError(f"metrics cannot be served on {address}: {error.strerror}") from error
    host, port, *_ = listener.getsockname()
    _log.info("metrics are at http://%s/metrics", Address(host, port))
    return listener


class MetricsServer:
    """Serves the metrics of one mount. Its tasks run in the filesystem's thread."""

    def __init__(self, snapshot: Callable[[], Snapshot], mountpoint: Path) -> None:
        from mapfs.fuse.metrics import CONTENT_TYPE, exposition

        self._snapshot = snapshot
        self._exposition = exposition
        self._content_type = CONTENT_TYPE
        self._mountpoint = os.fspath(mountpoint)
        self._clients = 0

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled; then the address is free again."""
        with trio.socket.from_stdlib_socket(listener) as bound:
            try:
                await trio.serve_listeners(self._attend, [trio.SocketListener(bound)])
            except Exception:  # noqa: BLE001 (whatever it is, the mount must go on)
                _log.exception("metrics cannot be served any longer")

    async def _attend(self, stream: trio.SocketStream) -> None:
        """Serve one client, whatever it does."""
        self._clients += 1
        try:
            with trio.move_on_after(PATIENCE_SECONDS):
                await stream.send_all(await self._answer(stream))
                await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went away
        except Exception:  # noqa: BLE001 (whatever it is, the mount must go on)
            _log.exception("metrics could not be served")
        finally:
            self._clients -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> bytes:
        if self._clients > _MOST_CLIENTS:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE)
        status, method = _status_of(await _head_of(stream))
        if status is not HTTPStatus.OK:
            return _response(status)
        # Only the numbers are gathered here; the text is written in a thread.
        return await trio.to_thread.run_sync(
            self._page, self._snapshot(), method, abandon_on_cancel=True
        )

    def _page(self, snapshot: Snapshot, method: str) -> bytes:
        body = self._exposition(snapshot, self._mountpoint)
        return _response(HTTPStatus.OK, body, self._content_type, is_head=method == "HEAD")


async def _head_of(stream: trio.SocketStream) -> bytes:
    """The request up to the empty line, or what came of it."""
    head = b""
    while _END not in head and len(head) <= _MOST_REQUEST_BYTES:
        received = await stream.receive_some(_MOST_REQUEST_BYTES)
        if not received:
            break
        head += received
    return head


def _status_of(head: bytes) -> tuple[HTTPStatus, str]:
    """What to answer to a request, and its method."""
    if _END not in head:
        too_large = len(head) > _MOST_REQUEST_BYTES
        return (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST,
            "",
        )
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        return HTTPStatus.BAD_REQUEST, method
    if method not in ("GET", "HEAD"):
        return HTTPStatus.METHOD_NOT_ALLOWED, method
    if target.partition("?")[0] != "/metrics":
        return HTTPStatus.NOT_FOUND, method
    return HTTPStatus.OK, method


def _response(
    status: HTTPStatus,
    body: bytes = b"",
    content_type: str = "text/plain; charset=utf-8",
    *,
    is_head: bool = False,
) -> bytes:
    body = body or f"{status.value} {status.phrase}\n".encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    head = "\r\n".join(lines).encode() + _END
    return head if is_head else head + body
