"""A supervisor that goes on with a mount in a program that was executed anew.

Run as `python -m mapfs.cli.resume STORE MNT OPTIONS LOG FOREGROUND FD FLAGS TAKEOVERS DEVICE`, by
itself only; earlier versions left out the last words.
"""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mapfs.cli.logs import log_handler, log_to
from mapfs.errors import MountError
from mapfs.fuse.device import default_flags
from mapfs.fuse.options import MountOptions
from mapfs.fuse.session import Connection, Job
from mapfs.fuse.supervisor import Supervisor
from mapfs.mounts import device_at


@dataclass(frozen=True, slots=True)
class Supervision:
    """All that a supervisor must know to go on with a mount, as words that any version can read."""

    store: Path
    mountpoint: Path
    options: str
    log: Path | None
    is_foreground: bool

    def supervisor(self, connection: Connection | None = None) -> Supervisor:
        """A supervisor, of a connection if there is one."""
        options = MountOptions(flags=default_flags()).with_text(self.options)
        return Supervisor(Job(self.store, self.mountpoint, options), self._execute, connection)

    def _execute(self, connection: Connection) -> None:
        """Execute the program anew; the process and its descriptor of the connection stay."""
        os.set_inheritable(connection.fd, True)  # noqa: FBT003 (takes it so only)
        words = [os.fspath(self.store), os.fspath(self.mountpoint), self.options]
        words += [os.fspath(self.log or ""), "1" if self.is_foreground else ""]
        words += [str(connection.fd), str(int(connection.flags)), str(connection.takeovers)]
        words += [str(connection.device)]
        command = [sys.executable, "-P", "-m", "mapfs.cli.resume", *words]
        os.execv(sys.executable, command)  # noqa: S606 (this process is to go on)


def main() -> None:
    store, mountpoint, options, log, is_foreground, fd, flags, *more = sys.argv[1:]
    takeovers = int(more[0]) if more else 1
    device = int(more[1]) if len(more) > 1 else device_at(Path(mountpoint)) or 0
    path = Path(log) if log else None
    supervision = Supervision(
        Path(store), Path(mountpoint), options, path, is_foreground=bool(is_foreground)
    )
    log_to(None if is_foreground else log_handler(path))
    os.set_inheritable(int(fd), False)  # noqa: FBT003 (takes it so only)
    Path("/proc/self/comm").write_text("mapfs")
    supervisor = supervision.supervisor(Connection(int(fd), int(flags), takeovers, device))
    try:
        sys.exit(supervisor.run(lambda: None, lambda: None))
    except MountError as error:
        logging.getLogger(__name__).log(logging.ERROR, "%s", error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
