"""mapfs restart: go on with the code that is installed now, without unmounting."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mapfs.cli.completion import mounts
from mapfs.errors import MountError

if TYPE_CHECKING:
    from mapfs.store.bundle import Bundle

_PATIENCE_SECONDS: Final = 60
_PAUSE_SECONDS: Final = 0.02


@click.command("restart", short_help="Move a live mount to the version that is installed now.")
@click.argument("mountpoint", type=click.Path(path_type=Path), shell_complete=mounts)
def command(*, mountpoint: Path) -> None:
    """Move the live mount MOUNTPOINT to the version of mapfs that is installed now.

    Nothing that uses it fails; what comes meanwhile waits.

    \b
    mapfs restart mnt
    """
    from mapfs.fuse.supervisor import RESTART, reason_against
    from mapfs.mounts import mount_at
    from mapfs.store.bundle import Bundle

    mount = mount_at(mountpoint)
    if mount is None:
        raise MountError(f"{mountpoint}: no mapfs is mounted there")
    bundle = Bundle(mount.source)
    worker = bundle.holder if bundle.is_complete else None
    supervisor = _supervisor_of(worker)
    if supervisor is None:
        raise MountError(f"{mountpoint}: it has no supervisor, which a restart needs")
    reason = reason_against(_python_of(supervisor))
    if reason is not None:
        raise MountError(f"{mountpoint}: what is installed now cannot be used: {reason}")
    os.kill(supervisor, RESTART)
    if not _is_taken_over(bundle, worker):
        raise MountError(f"{mountpoint}: no other process took over; the log may say why")
    os.statvfs(mount.mountpoint)  # returns when it is served


def _is_taken_over(bundle: "Bundle", worker: int | None) -> bool:
    """Whether another process than `worker` has the store, before patience ends."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        if bundle.holder not in (worker, None):
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def _supervisor_of(worker: int | None) -> int | None:
    """The parent of the process that serves a mount, if it holds the mount's connection as well."""
    try:
        status = Path(f"/proc/{worker}/status").read_text()
        parent = int(status.partition("PPid:")[2].split()[0])
        files = [os.fspath(each.readlink()) for each in Path(f"/proc/{parent}/fd").iterdir()]
    except OSError:
        return None
    return parent if "/dev/fuse" in files else None


def _python_of(process: int) -> str:
    """The interpreter that a process runs, by the name it was called: that of its environment."""
    return os.fsdecode(Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0])
