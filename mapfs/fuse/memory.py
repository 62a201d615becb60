"""Giving back what is in memory twice.

What the kernel has read through the mount it keeps, and the pages of the store file that it came
from are in its page cache as well. They are given back as soon as memory is used up: dropping them
loses nothing but the way to the disk, should the kernel drop its own.
"""

from pathlib import Path
from typing import Final

import trio

from mapfs.filesystem.filesystem import Filesystem

_MEMINFO: Final = Path("/proc/meminfo")
_SECONDS: Final = 2.0
# Memory is used up when less than this part of it is free, and the store is worth looking at when
# its file takes more than this part: a 32nd.
_SHARE: Final = 32


class Memory:
    """Watches how much memory the store file takes. Belongs to the filesystem's thread."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._backing = filesystem.store.backing

    async def run(self) -> None:
        """Look now and then until cancelled."""
        while True:
            await trio.sleep(_SECONDS)
            self.look()

    def look(self) -> None:
        """Give back the store file's pages if memory is used up and they take much of it."""
        total, free = _memory()
        if free < total // _SHARE and self._backing.resident() > total // _SHARE:
            self._backing.give_back()


def _memory() -> tuple[int, int]:
    """Bytes of memory in all, and that nothing uses (proc_meminfo(5))."""
    fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    total, free = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemFree"))
    return total, free
