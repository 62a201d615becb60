"""The reference transport: pyfuse3 handlers over a `Filesystem`.

Each handler converts its arguments, calls the filesystem and converts the answer. A file handle is
the inode number: nothing is kept per open file.
"""

import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from mapfs.errors import MapfsError
from mapfs.filesystem.advice import ADVICE
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.records import Inode
from mapfs.fuse.commits import Committer
from mapfs.fuse.counters import Counters
from mapfs.fuse.groups import is_member, keeps_setgid
from mapfs.fuse.libfuse.calls import describe
from mapfs.fuse.libfuse.conversion import (
    absent,
    attributes,
    caller,
    changes,
    statistics,
)
from mapfs.fuse.libfuse.handler import handled_by, handler
from mapfs.fuse.options import MS_DIRSYNC, MS_SYNCHRONOUS, Cache, MountOptions
from mapfs.fuse.tracing import Event

_log = logging.getLogger(__name__)

_MAX_TASKS: Final = 64
_ROOT: Final = 0
_ACL_PREFIX: Final = b"system.posix_acl_"
# What `-o dirsync` and `-o sync` make durable before it is answered (mount(8)).
_NAME_CHANGES: Final = frozenset(
    {"create", "link", "mkdir", "mknod", "rename", "rmdir", "symlink", "unlink"}
)
_CHANGES: Final = _NAME_CHANGES | {"open", "removexattr", "setattr", "setxattr", "write"}


class Pyfuse3Transport(pyfuse3.Operations):
    """Serves one filesystem on one FUSE connection."""

    name = "pyfuse3"
    supports_dot_lookup = True

    def __init__(
        self, filesystem: Filesystem, committer: Committer, options: MountOptions, fd: int
    ) -> None:
        """`fd` is a connection on which nothing was read yet."""
        super().__init__()
        logging.getLogger("pyfuse3").addFilter(_is_answerable)
        self._fd = fd
        self._filesystem = filesystem
        self.committer = committer
        self.enable_writeback_cache = options.cache is Cache.WRITEBACK
        self.enable_acl = options.acl
        self._sync_names = bool(options.flags & (MS_SYNCHRONOUS | MS_DIRSYNC))
        self.counters: Counters[str] = Counters(str)
        self.trace: Callable[[Event], None] | None = None

    @property
    def operations(self) -> frozenset[str]:
        """The names of its handlers, by which they are traced."""
        return handled_by(type(self))

    async def run(self) -> None:
        """Serve the connection until it is unmounted or `stop` is called."""
        # libfuse takes a descriptor that is mounted already under this name (fuse(8)).
        pyfuse3.init(self, f"/dev/fd/{self._fd}", set())
        try:
            await pyfuse3.main(max_tasks=_MAX_TASKS)
        except BaseExceptionGroup as group:
            # A lazily unmounted filesystem ends so when its last user does.
            if group.split(_is_disconnect)[1] is not None:
                raise
        finally:
            pyfuse3.close(unmount=False)

    def stop(self) -> None:
        """Let `run` return without serving what is still to come."""
        pyfuse3.terminate()

    def collect(self) -> None:
        """Count and trace what threads have answered: here they answer nothing."""

    async def drop_cached(self, inode: int, offset: int = 0, length: int = 0) -> None:
        """Have the kernel write back what it holds of a file, and drop it: all, here.

        Waits for requests, or until it is cancelled. Raises `OSError`.
        """
        del offset, length
        try:
            await trio.to_thread.run_sync(
                pyfuse3.invalidate_inode, InodeT(inode), abandon_on_cancel=True
            )
        except OSError as error:
            if error.errno != errno.ENOENT:  # the kernel knows no such inode
                raise

    def answered(
        self, operation: str, arguments: tuple[Any, ...], code: int, nanoseconds: int
    ) -> None:
        """Count a call, and tell who listens."""
        self.counters.add(operation, nanoseconds, code)
        if self.trace is not None:
            try:
                self.trace(describe(operation, arguments, code, nanoseconds))
            except Exception:  # noqa: BLE001 (an exception would end the daemon)
                _log.exception("%s could not be traced", operation)

    async def before_answer(self, handler: str) -> None:
        """What must be done for a change to be as safe as it is said to be when it is answered."""
        must_wait = handler in _CHANGES and self.committer.must_wait()
        if must_wait or (self._sync_names and handler in _NAME_CHANGES):
            await self.committer.sync()

    def _attributes(self, inode: Inode) -> EntryAttributes:
        return attributes(inode, self._filesystem.store.page_size)

    # Inodes

    @handler
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        try:
            return self._attributes(self._filesystem.lookup(parent_inode, name))
        except MapfsError as error:
            if error.errno != errno.ENOENT:
                raise
        return absent()

    @handler
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, _ in inode_list:
            try:
                if self._filesystem.is_orphan(inode) and not _is_in_use(inode):
                    self._filesystem.forget(inode)
            except Exception:  # noqa: BLE001 (an exception would end the daemon)
                _log.exception("forget of inode %d failed", inode)

    @handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(self._filesystem.inode(inode))

    @handler
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changed = self._filesystem.setattr(inode, changes(attr, fields))
        return self._attributes(changed)

    # Names

    @handler
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        inode = self._filesystem.create(parent_inode, name, mode, caller(ctx), rdev=rdev)
        return self._attributes(inode)

    @handler
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(self._filesystem.mkdir(parent_inode, name, mode, caller(ctx)))

    @handler
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(self._filesystem.symlink(parent_inode, name, target, caller(ctx)))

    @handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(self._filesystem.readlink(inode))

    @handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(self._filesystem.link(inode, new_parent_inode, new_name))

    @handler
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._filesystem.unlink(parent_inode, name)

    @handler
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._filesystem.rmdir(parent_inode, name)

    @handler
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        self._filesystem.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    @handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        for entry in self._filesystem.readdir(fh, start_id):
            attributes = self._attributes(self._filesystem.inode(entry.inode))
            if not pyfuse3.readdir_reply(token, FileNameT(entry.name), attributes, entry.cookie):
                return

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        pass

    @handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:  # noqa: FBT001 (pyfuse3's)
        await self.committer.sync()

    # Content

    @handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:
            self._truncate(self._filesystem.inode(inode), ctx)
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    def _truncate(self, inode: Inode, ctx: RequestContext) -> None:
        keep_setgid = keeps_setgid(inode.mode, inode.gid, ctx.uid, ctx.gid, ctx.pid)
        changes = Changes(size=0, kill_setid=ctx.uid != _ROOT, keep_setgid=keep_setgid)
        self._filesystem.setattr(inode.number, changes)

    @handler
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        inode = self._filesystem.create(parent_inode, name, mode, caller(ctx))
        info = FileInfo(fh=FileHandleT(inode.number), keep_cache=True)
        return info, self._attributes(inode)

    @handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        load = self._filesystem.cold_loader(fh, off, size)
        if load is not None:
            await trio.to_thread.run_sync(load)
        views = self._filesystem.read(fh, off, size)
        self._count_read(fh, sum(view.nbytes for view in views), is_cold=load is not None)
        # pyfuse3 takes any buffer: one view goes to the kernel without a copy.
        return cast("bytes", views[0]) if len(views) == 1 else b"".join(views)

    def _count_read(self, inode: int, size: int, *, is_cold: bool) -> None:
        self.counters.recent.append(inode)
        self.counters.read_bytes += size
        self.counters.cold_bytes += size if is_cold else 0

    @handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        # With the writeback cache the kernel keeps the times, and sends them by SETATTR: a WRITE
        # that comes behind that would set them later than anybody was told.
        written = self._filesystem.write(fh, off, buf, stamp=not self.enable_writeback_cache)
        self.counters.recent.append(fh)
        self.counters.written_bytes += written
        return written

    @handler
    async def release(self, fh: FileHandleT) -> None:
        pass

    @handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:  # noqa: FBT001 (pyfuse3's)
        # With the writeback cache the kernel asks for a file's blocks at close(2) only.
        pyfuse3.invalidate_inode(InodeT(fh), attr_only=True)
        await self.committer.sync(fh)

    # Attributes and the whole

    @handler
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if not self.enable_acl and name.startswith(_ACL_PREFIX):
            raise FUSEError(errno.EOPNOTSUPP)
        return self._filesystem.getxattr(inode, name)

    @handler
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        if not self.enable_acl and name.startswith(_ACL_PREFIX):
            raise FUSEError(errno.EOPNOTSUPP)
        group = self._filesystem.inode(inode).gid
        keep_setgid = is_member(ctx.uid, ctx.gid, ctx.pid, group)
        self._filesystem.setxattr(inode, name, value, keep_setgid=keep_setgid, caller=caller(ctx))
        work = self._filesystem.advice_work(inode) if name == ADVICE else None
        if work is not None:
            await trio.to_thread.run_sync(work)

    @handler
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._filesystem.removexattr(inode, name)

    @handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [
            XAttrNameT(name)
            for name in self._filesystem.listxattr(inode, privileged=ctx.uid == _ROOT)
        ]

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statistics(self._filesystem.statfs())


def _is_disconnect(error: BaseException) -> bool:
    """Whether reading from the connection failed because it is gone (`fuse_dev_do_read`)."""
    return isinstance(error, OSError) and error.errno in (errno.ECONNABORTED, errno.ENODEV)


def _is_answerable(record: logging.LogRecord) -> bool:
    """Drop pyfuse3's complaint that a request was interrupted before its answer came (ENOENT)."""
    return os.strerror(errno.ENOENT) not in record.getMessage()


def _is_in_use(inode: InodeT) -> bool:
    """Whether the kernel still knows an orphan.

    FORGETs come from a queue of their own: one may arrive after the inode was looked up, opened
    and unlinked again (`forget_pending` in fs/fuse/dev.c). The kernel answers ENOENT when it has
    no such inode, and nothing can look an orphan up anew.
    """
    try:
        pyfuse3.invalidate_inode(inode, attr_only=True)
    except OSError as error:
        return error.errno != errno.ENOENT
    return True
