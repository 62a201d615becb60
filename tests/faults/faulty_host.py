"""A passthrough filesystem that fails on command: `python faulty_host.py SOURCE MNT RULES`.

RULES is a file of lines `OPERATION NAME ERRNO FIRST END`: reads, writes and fsyncs (operation
`read`, `write` or `fsync`) of the file NAME answer ERRNO where they touch bytes FIRST to END. An
fsync touches what was written since the one before, whether that failed or not, as when the pages
look clean that could not be written; and all of the file, if the rule says so. Rules are read again
whenever they changed. One flat directory; files can be mapped.
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import ROOT_INODE, EntryAttributes, FileInfo, FUSEError

# ruff: noqa: ARG002 (handlers take what the protocol passes)

# Only rules for all of a file reach so far.
_BEHIND = (1 << 62) - 1

# Without times: at a new one the kernel drops what it has of the file in memory.
_STAT = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")
_STATFS = (
    *("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail"),
    *("f_files", "f_ffree", "f_favail", "f_namemax"),
)


class FaultyHost(pyfuse3.Operations):
    """Inodes are those of the source; a file handle is a descriptor."""

    def __init__(self, source: Path, rules: Path) -> None:
        super().__init__()
        self._source = source
        self._rules = rules
        self._names: dict[int, str] = {}
        self._open: dict[int, str] = {}
        self._unsynced: dict[str, list[tuple[int, int]]] = {}

    def _fail(self, operation: str, name: str, first: int = 0, end: int = 1 << 62) -> None:
        for line in self._rules.read_text().splitlines():
            wanted, file, code, low, high = line.split()
            if (wanted, file) == (operation, name) and first < int(high) and int(low) < end:
                raise FUSEError(getattr(errno, code))

    def _path(self, inode: int) -> Path:
        return self._source if inode == ROOT_INODE else self._source / self._names[inode]

    def _attributes(self, name: str | None) -> EntryAttributes:
        path = self._source / name if name is not None else self._source
        try:
            found = path.lstat()
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        attributes = EntryAttributes()
        for field in _STAT:
            setattr(attributes, field, getattr(found, field))
        attributes.st_ino = found.st_ino if name is not None else ROOT_INODE
        attributes.st_blocks = found.st_blocks
        attributes.entry_timeout = attributes.attr_timeout = 0
        if name is not None:
            self._names[found.st_ino] = name
        return attributes

    async def lookup(self, parent_inode, name, ctx) -> EntryAttributes:
        return self._attributes(os.fsdecode(name))

    async def getattr(self, inode, ctx) -> EntryAttributes:
        return self._attributes(None if inode == ROOT_INODE else self._names[inode])

    async def setattr(self, inode, attr, fields, fh, ctx) -> EntryAttributes:
        path = self._path(inode)
        if fields.update_size:
            os.truncate(path, attr.st_size)
        if fields.update_mode:
            path.chmod(stat.S_IMODE(attr.st_mode))
        return await self.getattr(inode, ctx)

    async def create(self, parent_inode, name, mode, flags, ctx):
        path = self._source / os.fsdecode(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, stat.S_IMODE(mode))
        self._open[fd] = path.name
        return FileInfo(fh=fd, keep_cache=True), self._attributes(path.name)

    async def open(self, inode, flags, ctx) -> FileInfo:
        fd = os.open(self._path(inode), os.O_RDWR)
        self._open[fd] = self._names[inode]
        return FileInfo(fh=fd, keep_cache=True)

    async def read(self, fh, off, size) -> bytes:
        self._fail("read", self._open[fh], off, off + size)
        return os.pread(fh, size, off)

    async def write(self, fh, off, buf) -> int:
        name, end = self._open[fh], off + len(buf)
        self._fail("write", name, off, end)
        self._unsynced.setdefault(name, []).append((off, end))
        return os.pwrite(fh, buf, off)

    async def fsync(self, fh, datasync) -> None:
        name = self._open[fh]
        for first, end in [(_BEHIND, _BEHIND + 1), *self._unsynced.pop(name, [])]:
            self._fail("fsync", name, first, end)

    async def flush(self, fh) -> None:
        pass

    async def release(self, fh) -> None:
        self._open.pop(fh)
        os.close(fh)

    async def unlink(self, parent_inode, name, ctx) -> None:
        (self._source / os.fsdecode(name)).unlink()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def opendir(self, inode, ctx) -> int:
        return int(inode)

    async def readdir(self, fh, start_id, token) -> None:
        names = sorted(os.listdir(self._source))
        for number, name in enumerate(names[start_id:], start_id + 1):
            attributes = self._attributes(name)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), attributes, number):
                return

    async def statfs(self, ctx) -> pyfuse3.StatvfsData:
        found = os.statvfs(self._source)
        data = pyfuse3.StatvfsData()
        for field in _STATFS:
            setattr(data, field, getattr(found, field))
        return data


def main(source: Path, mnt: Path, rules: Path) -> None:
    options = set(pyfuse3.default_options) | {"fsname=faulty"}
    options.discard("default_permissions")
    pyfuse3.init(FaultyHost(source, rules), os.fspath(mnt), options)
    try:
        trio.run(pyfuse3.main)
    finally:
        with contextlib.suppress(Exception):
            pyfuse3.close()


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
