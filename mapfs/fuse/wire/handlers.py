"""One short handler for each request: take it apart, call the filesystem, pack the answer.

Those for the bytes of files are in `content_handlers`. A handler returns the answer's bytes (or
views of them), a coroutine if it must wait, or None if a thread answers. It raises `MapfsError` or
`OSError` for the errno to answer, and `struct.error` or `ValueError` for a request that cannot be
one. Nothing is kept for open files: every request names its inode.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

import trio

from mapfs.errors import (
    AttributeTooBigError,
    NotFoundError,
    NotSupportedError,
    UnknownIoctlError,
)
from mapfs.filesystem.advice import ADVICE
from mapfs.filesystem.clock import now
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.fuse.groups import keeps_setgid
from mapfs.fuse.options import MountOptions
from mapfs.fuse.wire import protocol
from mapfs.fuse.wire.protocol import Init, Opcode
from mapfs.fuse.wire.replies import ABSENT, Replies, dirent
from mapfs.fuse.wire.request import Answer, Handler, Request, string

_ROOT_USER: Final = 0
_MAY_CLEAR_SETGID: Final = protocol.FATTR_KILL_SUIDGID | protocol.FATTR_UID | protocol.FATTR_GID
_ACL_PREFIX: Final = b"system.posix_acl_"
# FS_IOC_GETFLAGS for 64 and 32 bits, and FS_IOC_FSGETXATTR (linux/fs.h).
_ATTRIBUTE_IOCTLS: Final = frozenset({0x80086601, 0x80046601, 0x801C581F})
# The longest answer to one of them: `struct fsxattr`.
_ATTRIBUTE_BYTES: Final = 28


class Handlers:
    """The handlers of one mount for inodes, names, directories and attributes.

    Belongs to the filesystem's thread.
    """

    def __init__(self, filesystem: Filesystem, options: MountOptions, flags: Init) -> None:
        self._filesystem = filesystem
        self._replies = Replies(filesystem.store.page_size)
        self._has_acl = options.acl
        self._setxattr_in = (
            protocol.SETXATTR_EXT_IN if Init.SETXATTR_EXT in flags else protocol.SETXATTR_IN
        )

    def table(self) -> dict[int, Handler]:
        """The handler for each opcode that is about no file's bytes."""
        return {
            Opcode.LOOKUP: self.lookup,
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.SYMLINK: self.symlink,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.LINK: self.link,
            Opcode.TMPFILE: self.tmpfile,
            Opcode.RELEASE: self.nothing,
            Opcode.DESTROY: self.nothing,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.STATFS: self.statfs,
            Opcode.STATX: self.statx,
            Opcode.SETXATTR: self.setxattr,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
            Opcode.IOCTL: self.ioctl,
        }

    def nothing(self, request: Request) -> bytes:
        """Say that it is done: there is nothing to do."""
        return b""

    # Inodes

    def lookup(self, request: Request) -> bytes:
        try:
            return self._replies.entry(self._filesystem.lookup(request.nodeid, request.name))
        except NotFoundError:
            self._filesystem.inode(request.nodeid)  # raises if it is the directory that is gone
            return ABSENT

    def getattr(self, request: Request) -> bytes:
        return self._replies.attributes(self._filesystem.inode(request.nodeid))

    def statx(self, request: Request) -> bytes:
        return self._replies.statx(self._filesystem.inode(request.nodeid))

    def setattr(self, request: Request) -> bytes:
        (valid, size, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, uid, gid) = (
            protocol.SETATTR_IN.unpack_from(request.body)
        )
        changes = Changes(
            mode=mode if valid & protocol.FATTR_MODE else None,
            uid=uid if valid & protocol.FATTR_UID else None,
            gid=gid if valid & protocol.FATTR_GID else None,
            size=size if valid & protocol.FATTR_SIZE else None,
            atime=_time(valid, protocol.FATTR_ATIME, protocol.FATTR_ATIME_NOW, atime, atime_ns),
            mtime=_time(valid, protocol.FATTR_MTIME, protocol.FATTR_MTIME_NOW, mtime, mtime_ns),
            ctime=_time(valid, protocol.FATTR_CTIME, 0, ctime, ctime_ns),
            kill_setid=bool(valid & protocol.FATTR_KILL_SUIDGID),
            keep_setgid=bool(valid & _MAY_CLEAR_SETGID) and self._keeps_setgid(request),
        )
        return self._replies.attributes(self._filesystem.setattr(request.nodeid, changes))

    def _keeps_setgid(self, request: Request) -> bool:
        inode = self._filesystem.inode(request.nodeid)
        return keeps_setgid(inode.mode, inode.gid, request.uid, request.gid, request.pid)

    # Names

    def readlink(self, request: Request) -> bytes:
        return self._filesystem.readlink(request.nodeid)

    def symlink(self, request: Request) -> bytes:
        name, target, _ = bytes(request.body).split(b"\0", 2)
        caller = request.caller(0)
        return self._replies.entry(self._filesystem.symlink(request.nodeid, name, target, caller))

    def mknod(self, request: Request) -> bytes:
        mode, rdev, umask = protocol.MKNOD_IN.unpack_from(request.body)
        name = string(request.body[protocol.MKNOD_IN.size :])
        caller = request.caller(umask)
        inode = self._filesystem.create(request.nodeid, name, mode, caller, rdev=rdev)
        return self._replies.entry(inode)

    def mkdir(self, request: Request) -> bytes:
        mode, umask = protocol.MKDIR_IN.unpack_from(request.body)
        name = string(request.body[protocol.MKDIR_IN.size :])
        inode = self._filesystem.mkdir(request.nodeid, name, mode, request.caller(umask))
        return self._replies.entry(inode)

    def unlink(self, request: Request) -> bytes:
        self._filesystem.unlink(request.nodeid, request.name)
        return b""

    def rmdir(self, request: Request) -> bytes:
        self._filesystem.rmdir(request.nodeid, request.name)
        return b""

    def rename(self, request: Request) -> bytes:
        (target,) = protocol.RENAME_IN.unpack_from(request.body)
        return self._rename(request, protocol.RENAME_IN.size, target, 0)

    def rename2(self, request: Request) -> bytes:
        target, flags = protocol.RENAME2_IN.unpack_from(request.body)
        return self._rename(request, protocol.RENAME2_IN.size, target, flags)

    def _rename(self, request: Request, skipped: int, target: int, flags: int) -> bytes:
        old, new, _ = bytes(request.body[skipped:]).split(b"\0", 2)
        self._filesystem.rename(request.nodeid, old, target, new, flags)
        return b""

    def link(self, request: Request) -> bytes:
        (number,) = protocol.LINK_IN.unpack_from(request.body)
        name = string(request.body[protocol.LINK_IN.size :])
        return self._replies.entry(self._filesystem.link(number, request.nodeid, name))

    def tmpfile(self, request: Request) -> bytes:
        mode, umask = protocol.CREATE_IN.unpack_from(request.body)
        inode = self._filesystem.create_unnamed(request.nodeid, mode, request.caller(umask))
        return self._replies.entry(inode) + protocol.OPEN_OUT.pack()

    # Directories

    def readdir(self, request: Request) -> bytes:
        offset, size, flags = protocol.READ_IN.unpack_from(request.body)
        stamp = not flags & os.O_NOATIME
        packed = map(dirent, self._filesystem.readdir(request.nodeid, offset, stamp=stamp))
        return _filled(packed, size)

    def readdirplus(self, request: Request) -> bytes:
        offset, size, flags = protocol.READ_IN.unpack_from(request.body)
        stamp = not flags & os.O_NOATIME
        entries = self._filesystem.readdirplus(request.nodeid, offset, stamp=stamp)
        return _filled((self._replies.listed(*each) for each in entries), size)

    # Attributes and the whole

    def getxattr(self, request: Request) -> bytes:
        (size,) = protocol.GETXATTR_IN.unpack_from(request.body)
        name = string(request.body[protocol.GETXATTR_IN.size :])
        self._refuse_acl(name)
        return _sized(self._filesystem.getxattr(request.nodeid, name), size)

    def listxattr(self, request: Request) -> bytes:
        (size,) = protocol.GETXATTR_IN.unpack_from(request.body)
        privileged = request.uid == _ROOT_USER
        names = self._filesystem.listxattr(request.nodeid, privileged=privileged)
        return _sized(b"".join(name + b"\0" for name in names), size)

    def setxattr(self, request: Request) -> Answer:
        size, flags, *more = self._setxattr_in.unpack_from(request.body)
        name, _, value = bytes(request.body[self._setxattr_in.size :]).partition(b"\0")
        if len(value) != size:
            raise ValueError("an attribute of another size than it says")
        self._refuse_acl(name)
        kill_setgid = bool(more and more[0] & protocol.FUSE_SETXATTR_ACL_KILL_SGID)
        self._filesystem.setxattr(
            request.nodeid,
            name,
            value,
            flags,
            keep_setgid=not kill_setgid,
            caller=request.caller(0),
        )
        work = self._filesystem.advice_work(request.nodeid) if name == ADVICE else None
        return b"" if work is None else self._follow(work)

    async def _follow(self, work: Callable[[], None]) -> bytes:
        """What setxattr does if an advice means waiting for the disk."""
        await trio.to_thread.run_sync(work)
        return b""

    def removexattr(self, request: Request) -> bytes:
        self._filesystem.removexattr(request.nodeid, request.name)
        return b""

    def _refuse_acl(self, name: bytes) -> None:
        if not self._has_acl and name.startswith(_ACL_PREFIX):
            raise NotSupportedError("mounted without ACLs")

    def statfs(self, request: Request) -> bytes:
        return self._replies.statistics(self._filesystem.statfs())

    def ioctl(self, request: Request) -> bytes:
        """lsattr(1) and the like learn that no flag is set; there is nothing else to ask for."""
        command, size = protocol.IOCTL_IN.unpack_from(request.body)
        if command not in _ATTRIBUTE_IOCTLS:
            raise UnknownIoctlError(f"ioctl {command:#x}")
        return protocol.IOCTL_OUT.pack(0) + bytes(min(size, _ATTRIBUTE_BYTES))


def _time(valid: int, given: int, is_now: int, seconds: int, nanoseconds: int) -> int | None:
    if valid & is_now:
        return now()
    return seconds * 10**9 + nanoseconds if valid & given else None


def _sized(value: bytes, size: int) -> bytes:
    """An attribute's value, or how long it is if `size` is 0 (getxattr(2))."""
    if size == 0:
        return protocol.GETXATTR_OUT.pack(len(value))
    if len(value) > size:
        raise AttributeTooBigError("longer than the buffer")
    return value


def _filled(packed: Iterator[bytes], size: int) -> bytes:
    """As many of the packed entries as fit into `size` bytes."""
    parts: list[bytes] = []
    for part in packed:
        size -= len(part)
        if size < 0:
            break
        parts.append(part)
    return b"".join(parts)
