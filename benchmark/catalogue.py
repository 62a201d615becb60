"""Which systems there are to measure, by name."""

import sys
from pathlib import Path
from typing import Final

from benchmark.limits import Ext4, Host, Tmpfs
from benchmark.mapfs_system import Mapfs
from benchmark.peers import Bindfs, Fuse2fs, JuiceFS, Mergerfs, Ntfs3g
from benchmark.system import System

MAPFS_PROGRAM: Final = Path(sys.executable).with_name("mapfs")
_OTHERS: Final = {
    system.name: system
    for system in (Host, Ext4, Tmpfs, Fuse2fs, Ntfs3g, Bindfs, Mergerfs, JuiceFS)
}
_MAPFS_OPTIONS: Final[dict[str, list[str]]] = {
    "mapfs": [],
    "mapfs-pyfuse3": ["--transport=pyfuse3"],
    "mapfs-writethrough": ["--cache=writethrough"],
    "mapfs-halting": ["--cpu-latency=off"],
}
SYSTEM_NAMES: Final = [*_OTHERS, *_MAPFS_OPTIONS]


def make_system(name: str, place: Path, image_bytes: int) -> System:
    """The system of that name in a directory of its own, `place`."""
    if name in _MAPFS_OPTIONS:
        return Mapfs(place, image_bytes, name, MAPFS_PROGRAM, *_MAPFS_OPTIONS[name])
    return _OTHERS[name](place, image_bytes)
