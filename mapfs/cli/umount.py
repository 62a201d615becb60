"""mapfs umount: unmount and wait until everything is safe on disk."""

import contextlib
import time
from pathlib import Path
from typing import Final

import click

from mapfs.cli.completion import mounts
from mapfs.errors import BusyMountError, MapfsError, MountError, StoreInUseError

# Whoever only looks at mounts, as df(1) and desktops do, holds one for a moment.
_TRIES: Final = 5
_BETWEEN_TRIES_SECONDS: Final = 0.1


@click.command("umount")
@click.argument("mountpoint", type=click.Path(path_type=Path), shell_complete=mounts)
def command(*, mountpoint: Path) -> None:
    """Unmount MOUNTPOINT; when it returns, all data is safe on disk.

    \b
    mapfs umount mnt
    """
    from mapfs.mounts import mount_at
    from mapfs.store.bundle import Bundle

    mount = mount_at(mountpoint)
    if mount is None:
        raise MountError(f"{mountpoint}: no mapfs is mounted there")
    bundle = Bundle(mount.source)
    was_served = bundle.is_complete and bundle.holder is not None
    _unmount(mount.mountpoint)
    if bundle.is_complete:
        bundle.wait_for_lock()
        _commit_log(mount.source, was_served=was_served)


def _unmount(mountpoint: Path) -> None:
    from mapfs.fuse.device import unmount

    for _ in range(_TRIES - 1):
        try:
            return unmount(mountpoint)
        except BusyMountError:
            time.sleep(_BETWEEN_TRIES_SECONDS)
    return unmount(mountpoint)


def _commit_log(store: Path, *, was_served: bool) -> None:
    """Commit what the daemon could not: it was killed, or there was no space for its last commit.

    The log holds what it had answered, but not bytes that were written over others: what opening
    after a death makes durable. Raises what keeps this from being written now.
    """
    from mapfs.filesystem.filesystem import Filesystem
    from mapfs.store.opening import open_store

    try:
        with contextlib.closing(open_store(store, read_only=True)) as opened:
            is_committed, lost_data = not opened.replayed.is_needed, opened.lost_data
        if not (is_committed and was_served):
            Filesystem(open_store(store)).close()
    except StoreInUseError:
        return  # Mounted again already: whoever did that has read the log.
    if not is_committed and lost_data:
        raise MapfsError(
            f"{store}: its disk reported an I/O error: files written since the last commit"
            " may have lost data"
        )
