"""What a process has mapped of files, and what that costs it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapfs.store.machine_pages import PAGE_BYTES

_MAPS: Final = Path("/proc/self/maps")
_STATM: Final = Path("/proc/self/statm")
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


def mappings_of(file: os.stat_result) -> list[range]:
    """The addresses at which this process has mapped a file: lines of proc_pid_maps(5).

    Neighbours that were advised or locked alike are one.
    """
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    place = [device, str(file.st_ino)]
    lines = _MAPS.read_text(errors="surrogateescape").splitlines()
    fields = (line.split(maxsplit=5) for line in lines)
    return [_addresses(each[0]) for each in fields if each[3:5] == place]


def _addresses(text: str) -> range:
    begin, end = text.split("-")
    return range(int(begin, 16), int(end, 16))


def file_bytes() -> int:
    """The pages of files that this process has in its page tables (proc_pid_statm(5))."""
    return int(_STATM.read_text().split()[2]) * PAGE_BYTES


def page_table_bytes() -> int:
    """What the page tables of this process take (VmPTE in proc_pid_status(5))."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPTE:"))
