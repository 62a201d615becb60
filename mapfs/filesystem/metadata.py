"""Changing what stat(2) shows: owner, mode, size and times."""

import enum
import stat
from typing import Final, NamedTuple

from mapfs.filesystem.clock import clamped, now, roughly_now
from mapfs.filesystem.content import Content, require_file
from mapfs.filesystem.inode import InodeTable
from mapfs.filesystem.xattr import XattrTable
from mapfs.format.records import Inode

_RELATIME_NS: Final = 24 * 3600 * 10**9


class AccessTimes(enum.Enum):
    """Whose access times are updated, by the rule of relatime."""

    ALL = "all"
    FILES = "files"
    NONE = "none"


class Changes(NamedTuple):
    """What `Metadata.change` is to change: None leaves a field as it is.

    `kill_setid` also clears the set-id bits of a file, as for a truncation by somebody without
    CAP_FSETID (inode(7)); the setgid bit is left with `keep_setgid`, which changing the owner
    looks at, too.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: int | None = None
    mtime: int | None = None
    ctime: int | None = None
    kill_setid: bool = False
    keep_setgid: bool = False

    @property
    def are_times(self) -> bool:
        """Whether nothing but times changes, which fdatasync(2) may leave for later."""
        return self.mode is self.uid is self.gid is self.size is None and not self.kill_setid


class Metadata:
    """Changes inodes as setattr and access do; `access_times` may be changed at any time."""

    def __init__(
        self, inodes: InodeTable, content: Content, xattrs: XattrTable, access_times: AccessTimes
    ) -> None:
        self._inodes = inodes
        self._content = content
        self._xattrs = xattrs
        self.access_times = access_times

    def change(self, inode: Inode, changes: Changes) -> Inode:
        """chmod, chown, truncate and utimens in one, as the kernel asks for them."""
        self._inodes.edit(inode)
        if changes.size is not None:
            self._content.truncate(require_file(inode), changes.size)
        if changes.kill_setid and inode.is_file:
            _clear_setid(inode, changes)
        _change_owner(inode, changes)
        if changes.mode is not None:
            inode.mode = inode.type | stat.S_IMODE(changes.mode)
            self._xattrs.mode_changed(inode)
        if changes.atime is not None:
            inode.atime = clamped(changes.atime)
        if changes.mtime is not None:
            inode.mtime = clamped(changes.mtime)
        inode.ctime = now() if changes.ctime is None else clamped(changes.ctime)
        return inode

    def accessed(self, inode: Inode) -> None:
        """Update atime by the rule of relatime (mount(8))."""
        policy = self.access_times
        if policy is AccessTimes.NONE or (policy is AccessTimes.FILES and inode.is_directory):
            return
        is_behind = inode.atime <= max(inode.mtime, inode.ctime)
        if is_behind or roughly_now() - inode.atime >= _RELATIME_NS:
            self._inodes.edit(inode)
            inode.atime = now()


def _change_owner(inode: Inode, changes: Changes) -> None:
    if changes.uid is None and changes.gid is None:
        return
    inode.uid = inode.uid if changes.uid is None else changes.uid
    inode.gid = inode.gid if changes.gid is None else changes.gid
    if not inode.is_directory:
        _clear_setid(inode, changes)  # `chown_common` in fs/open.c


def _clear_setid(inode: Inode, changes: Changes) -> None:
    inode.mode &= ~(stat.S_ISUID | (0 if changes.keep_setgid else stat.S_ISGID))
