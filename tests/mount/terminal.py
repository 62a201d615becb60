"""Running the command on a terminal."""

import os
import pty
import subprocess
import termios

from tests.mount.volume import MAPFS


def in_terminal(words: list[str], *, status: int = 0, **environment: str) -> str:
    """What a command prints on a terminal that is its standard output and error."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    process = subprocess.Popen(
        [str(MAPFS), *words],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    )
    os.close(follower)
    said = b""
    while True:
        try:
            said += os.read(leader, 65536)
        except OSError:  # EIO: nobody has the other end any more
            break
    os.close(leader)
    assert process.wait() == status, said
    return said.decode()
