"""SEEK_DATA and SEEK_HOLE while the kernel holds what was written, or stored through a mapping.

It asks without writing back what is dirty (`fuse_lseek` in fs/fuse/file.c). So what the filesystem
takes for a hole, or for the end of the file, may have data by now, and cp(1) would leave it out.
Such a range is written back before the answer is believed.
"""

import os

from mapfs.errors import NoSuchOffsetError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.wire.write_back import WriteBack


async def seek(
    filesystem: Filesystem, outside: WriteBack, nodeid: int, offset: int, whence: int
) -> int:
    """lseek(2) with SEEK_DATA or SEEK_HOLE. Raises what `Filesystem.seek` does."""
    believed: tuple[int, int] | None = None
    while True:
        found = _seek(filesystem, nodeid, offset, whence)
        start = found if whence == os.SEEK_HOLE and found is not None else offset
        end = found if whence == os.SEEK_DATA else _seek(filesystem, nodeid, start, os.SEEK_DATA)
        hole = (start, 0 if end is None else end - start)
        if start == end or hole == believed:
            return filesystem.seek(nodeid, offset, whence)
        await outside.write_back(nodeid, *hole)
        believed = hole


def _seek(filesystem: Filesystem, nodeid: int, offset: int, whence: int) -> int | None:
    try:
        return filesystem.seek(nodeid, offset, whence)
    except NoSuchOffsetError:
        return None
