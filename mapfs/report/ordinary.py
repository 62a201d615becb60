"""Files of any filesystem: what they take there, and what they would waste in mapfs."""

import os
import stat
from typing import Final

from mapfs.filesystem.slack import pages_touched
from mapfs.format.totals import WHAT_IF_SIZES
from mapfs.report.layout import Layout, layout_of
from mapfs.report.usage import NO_FILE, Usage
from mapfs.store.machine_pages import PAGE_BYTES
from mapfs.store.syscalls import PageCache

_BLOCK: Final = 512  # the unit of st_blocks, whatever the filesystem
# O_NONBLOCK: do not wait for whoever has a lease on the file.
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def usage_at(path: str, found: os.stat_result) -> Usage:
    """The usage of what lstat(2) has found at `path`.

    A file that cannot be opened is taken for one without holes; its extents, and what of it is
    in memory, are then unknown.
    """
    if not stat.S_ISREG(found.st_mode):
        return NO_FILE
    if found.st_size == found.st_blocks == 0:
        return Usage(files=1)
    layout, resident = _look_into(path, found.st_size)
    allocated = found.st_blocks * _BLOCK
    what_ifs = {f"at_{label}": _what_if(layout, size) for label, size in WHAT_IF_SIZES.items()}
    return Usage(
        files=1,
        size=found.st_size,
        stored=layout.stored,
        allocated=allocated,
        # Compressed files, and those within their inode, take less than they hold.
        slack=max(0, allocated - layout.stored),
        **what_ifs,
        extents=layout.extents or 0,
        resident=resident or 0,
        no_extents=int(layout.extents is None),
        no_resident=int(resident is None),
    )


def _what_if(layout: Layout, page_size: int) -> int:
    return pages_touched(layout.ranges, page_size) * page_size - layout.stored


def _look_into(path: str, size: int) -> tuple[Layout, int | None]:
    """Where the data of a file are, and how many bytes of it are in memory (None: unknown)."""
    unknown = Layout([(0, size)] if size else [], None)
    try:
        fd = os.open(path, _OPEN)
    except OSError:
        return unknown, None
    try:
        return layout_of(fd, size), _resident(fd, size)
    except OSError:
        return unknown, None
    finally:
        os.close(fd)


def _resident(fd: int, size: int) -> int | None:
    if size == 0:
        return 0
    try:
        return PageCache(fd).statistics(0, size).resident * PAGE_BYTES
    except OSError:  # the kernel tells only those who may write the file, or own it
        return None
