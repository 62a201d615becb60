"""The handlers of requests for the bytes of files, as `handlers` has those for all else."""

import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from mapfs.filesystem.cold_loader import ColdLoader
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.fuse.commits import Committer
from mapfs.fuse.counters import Counters
from mapfs.fuse.groups import keeps_setgid
from mapfs.fuse.options import Cache, MountOptions
from mapfs.fuse.wire import protocol
from mapfs.fuse.wire.block_counts import BlockCounts
from mapfs.fuse.wire.negotiation import MAX_WRITE_BYTES
from mapfs.fuse.wire.notifications import Notifications
from mapfs.fuse.wire.protocol import Opcode
from mapfs.fuse.wire.reading import ReadThreads
from mapfs.fuse.wire.request import Answer, Content, Handler, Request
from mapfs.fuse.wire.seeking import seek
from mapfs.fuse.wire.syncing import SyncThread
from mapfs.fuse.wire.write_back import WriteBack

_ROOT_USER: Final = 0
# The most that one COPY_FILE_RANGE copies; who wants more asks again (copy_file_range(2)).
_MOST_COPIED: Final = 4 << 20


class Helpers(NamedTuple):
    """Who sends what is no answer, and who waits for the kernel or the disk."""

    notifications: Notifications
    outside: WriteBack
    blocks: BlockCounts
    reads: ReadThreads
    syncs: SyncThread


class ContentHandlers:
    """The handlers of one mount for what is in files, and for making it durable.

    Belongs to the filesystem's thread.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        committer: Committer,
        helpers: Helpers,
        counters: Counters[int],
        options: MountOptions,
    ) -> None:
        self._filesystem = filesystem
        self._committer = committer
        self._notifications = helpers.notifications
        self._outside = helpers.outside
        self._blocks = helpers.blocks
        self._reads = helpers.reads
        self._syncs = helpers.syncs
        self._counters = counters
        self._accessed = counters.recent.append
        # With the writeback cache the kernel keeps the times, and sends them by SETATTR: a WRITE
        # that comes behind that would set them later than anybody was told.
        self._stamp = options.cache is not Cache.WRITEBACK

    def table(self) -> dict[int, Handler]:
        """The handler for each opcode that is about the bytes of files."""
        return {
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
            Opcode.FSYNC: self.fsync,
            Opcode.FSYNCDIR: self.fsync,
            Opcode.SYNCFS: self.syncfs,
        }

    def read(self, request: Request) -> Answer:
        offset, size, stamp = _read_in(request)
        self._accessed(request.nodeid)
        self._reads.note(request.nodeid, offset, size)
        load = self._filesystem.cold_loader(request.nodeid, offset, size, stamp=stamp)
        if load is None:
            return self._filesystem.read(request.nodeid, offset, size, stamp=stamp)
        if load.run is not None:
            self._reads.read(request.kept(), *load.run, ahead=load.ahead)
            return None
        return self._read_loaded(request.kept(), load)

    async def read_cold(self, request: Request) -> Content:
        """What read does if the range has changed since it was looked up."""
        offset, size, stamp = _read_in(request)
        load = self._filesystem.cold_loader(request.nodeid, offset, size, stamp=stamp)
        return await self._read_loaded(request, load)

    async def _read_loaded(self, request: Request, load: ColdLoader | None) -> Content:
        """What read does if the range is in pieces."""
        offset, size, stamp = _read_in(request)
        if load is not None:
            await trio.to_thread.run_sync(load)
        views = self._filesystem.read(request.nodeid, offset, size, stamp=stamp)
        self._counters.cold_bytes += sum(view.nbytes for view in views)
        return views

    def write(self, request: Request) -> bytes:
        offset, size, flags = protocol.WRITE_IN.unpack_from(request.body)
        data = request.body[protocol.WRITE_IN.size :]
        if len(data) != size:
            raise ValueError("a write of another size than it says")
        if flags & protocol.FUSE_WRITE_KILL_SUIDGID:
            self._kill_setid(request, request.nodeid)
        inode = self._filesystem.inode(request.nodeid)
        pages = inode.pages
        written = self._filesystem.write(request.nodeid, offset, data, stamp=self._stamp)
        if inode.pages != pages and not self._stamp:
            self._blocks.changed(request.nodeid)
        self._accessed(request.nodeid)
        self._counters.written_bytes += written
        return protocol.WRITE_OUT.pack(written)

    def fallocate(self, request: Request) -> bytes:
        offset, length, mode = protocol.FALLOCATE_IN.unpack_from(request.body)
        if request.uid != _ROOT_USER:
            self._kill_setid(request, request.nodeid)
        self._filesystem.fallocate(request.nodeid, mode, offset, length)
        return b""

    def _kill_setid(self, request: Request, nodeid: int) -> None:
        """Clear the set-id bits of a file that somebody without CAP_FSETID changes.

        With HANDLE_KILLPRIV_V2 this is the daemon's work. The kernel tells for WRITE and SETATTR.
        """
        inode = self._filesystem.inode(nodeid)
        if inode.mode & (stat.S_ISUID | stat.S_ISGID):
            caller = (request.uid, request.gid, request.pid)
            keep_setgid = keeps_setgid(inode.mode, inode.gid, *caller)
            if inode.mode & stat.S_ISUID or not keep_setgid:
                self._filesystem.setattr(nodeid, Changes(kill_setid=True, keep_setgid=keep_setgid))
                self._notifications.invalidate_attributes(nodeid)

    def lseek(self, request: Request) -> Answer:
        offset, whence = protocol.LSEEK_IN.unpack_from(request.body)
        return self._seek(request.nodeid, offset, whence)

    async def _seek(self, nodeid: int, offset: int, whence: int) -> bytes:
        found = await seek(self._filesystem, self._outside, nodeid, offset, whence)
        return protocol.LSEEK_OUT.pack(found)

    def copy_file_range(self, request: Request) -> Answer:
        offset, target, to, length, _ = protocol.COPY_FILE_RANGE_IN.unpack_from(request.body)
        length = min(length, _MOST_COPIED)
        if request.uid != _ROOT_USER:
            self._kill_setid(request, target)
        load = self._filesystem.cold_loader(request.nodeid, offset, length)

        def copy() -> bytes:
            copied = self._filesystem.copy_range(request.nodeid, offset, target, to, length)
            return protocol.WRITE_OUT.pack(copied)

        async def copy_cold(load: Callable[[], None]) -> bytes:
            await trio.to_thread.run_sync(load)
            return copy()

        return copy() if load is None else copy_cold(load)

    def fsync(self, request: Request) -> Answer:
        (flags,) = protocol.FSYNC_IN.unpack_from(request.body)
        self._blocks.synced(request.nodeid)
        return self._sync(request, data_only=bool(flags & protocol.FUSE_FSYNC_FDATASYNC))

    def syncfs(self, request: Request) -> Answer:
        return self._sync(request, data_only=False)

    def _sync(self, request: Request, *, data_only: bool) -> Answer:
        is_taken = self._syncs.request(request.kept(), data_only=data_only)
        return None if is_taken else self.commit(request.nodeid)

    async def commit(self, nodeid: int) -> bytes:
        """What fsync does if the log alone cannot make it durable."""
        await self._committer.sync(nodeid)
        return b""


def _read_in(request: Request) -> tuple[int, int, bool]:
    """Offset and size of a READ, and whether it counts as an access (O_NOATIME in open(2)).

    No kernel asks for more than was agreed on.
    """
    offset, size, flags = protocol.READ_IN.unpack_from(request.body)
    return offset, min(size, MAX_WRITE_BYTES), not flags & os.O_NOATIME
