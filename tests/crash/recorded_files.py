"""A filesystem of a few files in memory that journals every write, truncation and fsync.

Run it as a program: `recorded_files.py MOUNTPOINT JOURNAL`. LMDB on such a file does all that it
does on a disk: it maps the file, writes pages with pwrite(2), and syncs; without the kernel's
writeback cache each of these calls arrives here before it returns.
"""

# ruff: noqa: ARG002 (handlers take what the protocol passes)
import errno
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pyfuse3
import trio

from tests.crash.journal import Journal, Kind

_CACHE_SECONDS = 3600.0


class RecordedFiles(pyfuse3.Operations):
    """One flat directory."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self._names: dict[bytes, int] = {}
        self._files: dict[int, bytearray] = {}
        self._next = pyfuse3.ROOT_INODE + 1

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        found = pyfuse3.EntryAttributes()
        found.st_ino = pyfuse3.InodeT(inode)
        found.attr_timeout = found.entry_timeout = _CACHE_SECONDS
        found.st_uid, found.st_gid = os.getuid(), os.getgid()
        is_root = inode == pyfuse3.ROOT_INODE
        found.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700 if is_root else stat.S_IFREG | 0o600)
        found.st_nlink = 1
        found.st_size = 0 if is_root else len(self._files[inode])
        return found

    async def lookup(self, parent_inode, name, ctx):
        if name not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(self._names[name])

    async def getattr(self, inode, ctx):
        return self._attributes(inode)

    async def create(self, parent_inode, name, mode, flags, ctx):
        inode, self._next = self._next, self._next + 1
        self._names[name] = inode
        self._files[inode] = bytearray()
        return await self.open(inode, flags, ctx), self._attributes(inode)

    async def unlink(self, parent_inode, name, ctx):
        del self._files[self._names.pop(name)]

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh, off, size):
        return bytes(self._files[fh][off : off + size])

    async def write(self, fh, off, buf):
        data = bytes(buf)
        self._journal.append(Kind.WRITE, fh, off, data=data)
        file = self._files[fh]
        file.extend(bytes(max(0, off - len(file))))
        file[off : off + len(data)] = data
        return len(data)

    async def setattr(self, inode, attr, fields, fh, ctx):
        if fields.update_size:
            self._journal.append(Kind.RESIZE, inode, attr.st_size)
            file = self._files[inode]
            del file[attr.st_size :]
            file.extend(bytes(attr.st_size - len(file)))
        return self._attributes(inode)

    async def fsync(self, fh, datasync):
        self._journal.append(Kind.SYNC, fh)

    async def flush(self, fh):
        pass

    async def release(self, fh):
        pass


def main() -> None:
    mountpoint, journal = sys.argv[1:]
    pyfuse3.init(RecordedFiles(Journal(Path(journal))), mountpoint, {"fsname=recorded"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
