"""The process that has the kernel write back ranges of files, for `write_back`.

It is run as a program and imports nothing of mapfs: so it is there in 20 ms, and has nothing of the
daemon's but the connection. It ends when the daemon does, or, if a call is under way then, once
the next daemon has served what that waits for.
"""

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import sys
import threading
from pathlib import Path

_MOST_BYTES = 1 << 17
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 1 << 14, 1 << 18  # linux/sched.h, linux/mount.h


def main() -> None:
    """Send the notifications that come on `channel`, one or more at a time; say an errno, or 0.

    `keepers` are pidfds (pidfd_open(2)) of the processes that serve the mount, or see to it.
    """
    device, channel, *keepers = map(int, sys.argv[2:])
    if os.fork():
        os._exit(0)  # the daemon waits for this one, and need not wait for the other
    is_calling = threading.Event()
    arguments = (keepers, Path(sys.argv[1]), is_calling)
    threading.Thread(target=_abort_behind, args=arguments, daemon=True).start()
    daemon = socket.socket(fileno=channel)
    while messages := daemon.recv(_MOST_BYTES):
        is_calling.set()
        code = _send(device, messages)
        is_calling.clear()
        daemon.send(code.to_bytes(4, "little"))


def _send(device: int, messages: bytes) -> int:
    """Send them to the kernel; the last errno is told, but for what it knows no inode of."""
    code = 0
    while messages:
        (size,) = struct.unpack_from("=I", messages)  # every message begins with its length
        try:
            os.write(device, messages[:size])
        except OSError as error:
            code = code if error.errno == errno.ENOENT else error.errno or 0
        messages = messages[size:]
    return code


def _abort_behind(keepers: list[int], abort_file: Path, is_calling: threading.Event) -> None:
    """End the connection when all keepers have: a call holds it, and nobody serves it.

    Without a call this process is about to end, and the file may be that of another connection.
    """
    for keeper in keepers:
        select.select([keeper], [], [])
    if not is_calling.is_set():
        return
    if not abort_file.exists():
        _mount_fusectl(abort_file.parent.parent)
    abort_file.write_text("1")


def _mount_fusectl(directory: Path) -> None:
    """Mount it for this process alone: who has no right to has not mounted as root either."""
    libc = ctypes.CDLL(None)
    libc.unshare(_CLONE_NEWNS)
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    libc.mount(b"fusectl", os.fsencode(directory), b"fusectl", 0, None)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the daemon ended meanwhile
        main()
