"""Keeping the daemon's share of memory small.

What the kernel has read through the mount it keeps, and the pages of the store file that it came
from are in its page cache as well. They are given back as soon as memory is used up: dropping them
loses nothing but the way to the disk, should the kernel drop its own.

Each page of the store file and of the catalog that the daemon has looked at stays in its page
tables, and counts as resident. They are emptied now and then: to find a page again takes a fault.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.address_space import file_bytes

_MEMINFO: Final = Path("/proc/meminfo")
_SECONDS: Final = 1.0
# Memory is used up when less than this part of it is free, and the store is worth looking at when
# its file takes more than this part: a 32nd.
_SHARE: Final = 32
# So many bytes of files may stay in the page tables.
_MOST_MAPPED_BYTES: Final = 32 << 20


class Memory:
    """Watches how much memory the store file takes. Belongs to the filesystem's thread."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._backing = filesystem.store.backing
        self._catalog = filesystem.store.catalog

    async def run(self) -> None:
        """Look now and then until cancelled."""
        while True:
            await trio.sleep(_SECONDS)
            self.look()
            if file_bytes() > _MOST_MAPPED_BYTES:
                await trio.to_thread.run_sync(self.drop_mapped)

    def look(self) -> None:
        """Give back the store file's pages if memory is used up and they take much of it."""
        total, free = _memory()
        if free < total // _SHARE and self._backing.resident() > total // _SHARE:
            self._backing.give_back()

    def drop_mapped(self) -> None:
        """Empty the page tables of what is mapped; may run in any thread."""
        for mapped in (self._backing, self._catalog):
            with suppress(OSError):  # where all memory is locked, nothing can go (madvise(2))
                mapped.drop_mapped()


def _memory() -> tuple[int, int]:
    """Bytes of memory in all, and that nothing uses (proc_meminfo(5))."""
    fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    total, free = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemFree"))
    return total, free
