"""What a process has mapped of a file, and what that costs it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class MappingStatistics:
    """What a process has mapped of the store file, and has done to that end since it opened it.

    `windows` are mapped now, and with what is pinned they take `address_space_bytes`. So many
    windows were `mapped` and `unmapped`, which took so many seconds. A page of a window costs a
    fault when it is first touched; that time is not in these.
    """

    windows: int = 0
    address_space_bytes: int = 0
    pinned_bytes: int = 0
    mapped: int = 0
    unmapped: int = 0
    mapping_seconds: float = 0.0
    unmapping_seconds: float = 0.0


def count_mappings(fd: int) -> int:
    """The mappings that this process has of a file: lines of proc_pid_maps(5).

    Neighbours that were advised or locked alike are one.
    """
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    place = [device, str(found.st_ino)]
    lines = _MAPS.read_text(errors="surrogateescape").splitlines()
    return sum(line.split(maxsplit=5)[3:5] == place for line in lines)


def page_table_bytes() -> int:
    """What the page tables of this process take (VmPTE in proc_pid_status(5))."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPTE:"))
