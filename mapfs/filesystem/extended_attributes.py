"""Extended attributes of any kind, by name: what users set, advice, and the virtual ones."""

import stat
from collections.abc import Callable

from mapfs.filesystem import acl
from mapfs.filesystem.advice import ADVICE, Advisor, is_advisable
from mapfs.filesystem.attributes import PREFIX, Attributes, Listing
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.durability import Durability, logged
from mapfs.filesystem.xattr import XattrTable
from mapfs.format.records import ROOT_INODE, Advice


class ExtendedAttributes(Durability):
    """The part of `Filesystem` that answers xattr(7). Errors and threads are as there."""

    _listing: Listing
    _advisor: Advisor
    _xattrs: XattrTable
    _attributes: Attributes

    def getxattr(self, number: int, name: bytes) -> bytes:
        """The value of an attribute, `user.mapfs.*` included. Raises `NoAttributeError`."""
        if not name.startswith(PREFIX):
            # Of each file in a listing somebody asks for the ACL, and for nothing else.
            return self._xattrs.get(self._inodes.peek(number), name)
        inode = self._inodes.get(number)
        if name == ADVICE and is_advisable(inode):
            return self._advisor.get(inode)
        return self._attributes.get(inode, name)

    @logged
    def setxattr(
        self,
        number: int,
        name: bytes,
        value: bytes,
        flags: int = 0,
        *,
        keep_setgid: bool = True,
        caller: Caller | None = None,
    ) -> None:
        """Set an attribute; `flags` are XATTR_CREATE or XATTR_REPLACE.

        `keep_setgid` False is for an ACL set by somebody outside the file's group. Advice depends
        on who gives it; call what `advice_work` returns behind it.
        """
        self.store.require_room(len(value))
        inode = self._inodes.get(number)
        if name == ADVICE and is_advisable(inode):
            self._advisor.set(inode, value, flags, caller)
            return
        if name.startswith(PREFIX):
            self._attributes.refuse_change(inode, name)
        self._xattrs.set(inode, name, value, flags)
        if name == acl.ACCESS and not keep_setgid:
            inode.mode &= ~stat.S_ISGID

    def advice_work(self, number: int) -> Callable[[], None] | None:
        """What a worker thread should call once an advice was set, or None. Raises `OSError`."""
        return self._advisor.work(self._inodes.get(number))

    def advice(self, number: int) -> Advice:
        """How a file will be used, for who reads ahead."""
        return self._inodes.get(number).advice

    @logged
    def removexattr(self, number: int, name: bytes) -> None:
        """Remove an attribute. Raises `NoAttributeError`. Without an advice it is `normal`."""
        inode = self._inodes.get(number)
        if name == ADVICE and is_advisable(inode):
            self._advisor.set(inode, b"normal", 0, None)
            return
        if name.startswith(PREFIX):
            self._attributes.refuse_change(inode, name)
        self._xattrs.remove(inode, name)

    def listxattr(self, number: int, *, privileged: bool = True) -> list[bytes]:
        """The names of an inode's attributes; virtual ones as `Listing` says.

        Only the privileged see `trusted.*` (xattr(7)).
        """
        inode = self._inodes.get(number)
        names = self._xattrs.names(inode)
        if not privileged:
            names = [name for name in names if not name.startswith(b"trusted.")]
        at_root = self._listing is Listing.ROOT_ONLY and number == ROOT_INODE
        if at_root or self._listing is Listing.ALWAYS:
            names.extend(self._attributes.names(inode))
            names.extend([ADVICE] if is_advisable(inode) else [])
        return names
