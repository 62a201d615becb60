"""The mounts that the kernel knows, from proc_pid_mountinfo(5)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_OWNER: Final = re.compile(rb"(?:^|,)user_id=(\d+)")
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mounted mapfs: the store's path, or what stands for one, and where it is mounted.

    `device` is the `st_dev` of its files; `owner` the user who mounted it.
    """

    source: Path
    mountpoint: Path
    device: int = 0
    owner: int = 0


def mapfs_mounts() -> Iterator[Mount]:
    """Every mapfs mount that this process can see, the latest last."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        kind, source, options, *_ = after.split(b" ")
        if kind == b"fuse.mapfs":
            _, _, device, _, mountpoint, *_ = before.split(b" ")
            major, minor = map(int, device.split(b":"))
            owner = _OWNER.search(options)
            yield Mount(
                _path(source),
                _path(mountpoint),
                os.makedev(major, minor),
                int(owner[1]) if owner else 0,
            )


def _path(field: bytes) -> Path:
    plain = _ESCAPE.sub(lambda match: bytes([int(match.group(1), 8)]), field)
    return Path(os.fsdecode(plain))


def device_at(mountpoint: Path) -> int | None:
    """The `st_dev` of the mapfs on `mountpoint`, written as the kernel does. Asks no mount."""
    found = [mount.device for mount in mapfs_mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def mount_at(mountpoint: Path) -> Mount | None:
    """The mapfs mounted exactly on `mountpoint`, if any."""
    # A mount whose daemon is gone cannot be resolved, its parent can.
    paths = {_resolved(mountpoint.absolute().parent) / mountpoint.absolute().name}
    paths.add(_resolved(mountpoint))
    found = [mount for mount in mapfs_mounts() if mount.mountpoint in paths]
    return found[-1] if found else None


def mount_of_store(store: Path) -> Mount | None:
    """The mount of the store at `store`, however that is spelled, if it is mounted."""
    wanted = _resolved(store)
    return next((mount for mount in mapfs_mounts() if _resolved(mount.source) == wanted), None)


def _resolved(path: Path) -> Path:
    """The path without symbolic links, as far as they lead anywhere: this raises nothing."""
    return Path(os.path.realpath(path))


def mount_of_device(device: int) -> Mount | None:
    """The mount of which stat(2) says this `st_dev`, if it is one of mapfs."""
    return next((mount for mount in mapfs_mounts() if mount.device == device), None)


def filesystem_type(device: int) -> str:
    """The type of the filesystem whose files have this `st_dev`; empty if unknown.

    A filesystem may show its files under other numbers, as Btrfs does.
    """
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if before.split(b" ")[2] == number:
            return after.split(b" ")[0].decode(errors="replace")
    return ""
