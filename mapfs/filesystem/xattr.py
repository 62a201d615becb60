"""Extended attributes as users set them, and POSIX ACLs, which are attributes too."""

import os
import stat
from typing import Final

from mapfs.errors import (
    AttributeTooBigError,
    ExistsError,
    InvalidArgumentError,
    NoAttributeError,
    NotPermittedError,
    NotSupportedError,
)
from mapfs.filesystem import acl
from mapfs.filesystem.clock import now
from mapfs.filesystem.inode import InodeTable
from mapfs.format.records import HAS_ATTRIBUTES, Inode, Table, id_key, name_key, name_of
from mapfs.store.store import Store

MAX_NAME_BYTES: Final = 255
MAX_VALUE_BYTES: Final = 64 << 10
_ACLS: Final = (acl.ACCESS, acl.DEFAULT)
_NAMESPACES: Final = (b"user", b"trusted", b"security")
# What ls(1) asks of every file, unless it hears that the filesystem has no such thing.
_ASKED_OF_EACH: Final = (b"security.selinux", b"security.capability")


class XattrTable:
    """The XATTRS table."""

    def __init__(self, store: Store, inodes: InodeTable, *, has_acl: bool = True) -> None:
        """Without `has_acl` ACLs that are stored are neither inherited nor named."""
        self._has_acl = has_acl
        self._transaction = store.transaction
        self._inodes = inodes
        everything = self._transaction.scan(Table.XATTRS, b"", b"\xff" * 9)
        self._is_used = next(everything, None) is not None

    def get(self, inode: Inode, name: bytes) -> bytes:
        """The value. Raises `NoAttributeError`.

        While no inode has an attribute, some names are said not to be supported at all:
        `NotSupportedError`.
        """
        value = self._find(inode, name)
        if value is not None:
            return value
        if name in _ASKED_OF_EACH and not self._is_used:
            raise NotSupportedError("no file has attributes")
        raise NoAttributeError("no such attribute")

    def _find(self, inode: Inode, name: bytes) -> bytes | None:
        if not inode.flags & HAS_ATTRIBUTES:
            return None
        return self._transaction.get(Table.XATTRS, name_key(inode.number, name))

    def set(self, inode: Inode, name: bytes, value: bytes, flags: int = 0) -> None:
        """setxattr(2) with XATTR_CREATE or XATTR_REPLACE; an access ACL also sets the mode."""
        self._check(inode, name, value, flags)
        if name == acl.ACCESS:
            self._set_access_acl(inode, value)
        else:
            if name == acl.DEFAULT:
                acl.parse(value)
            self._put(inode, name, value)

    def _check(self, inode: Inode, name: bytes, value: bytes, flags: int) -> None:
        if not 0 < len(name) <= MAX_NAME_BYTES or len(value) > MAX_VALUE_BYTES:
            raise AttributeTooBigError("the name or the value is too long")
        if name not in _ACLS and not _is_namespaced(name):
            raise NotSupportedError("no such namespace of attributes")
        if flags & ~(os.XATTR_CREATE | os.XATTR_REPLACE):
            raise InvalidArgumentError("unknown flags")
        exists = self._find(inode, name) is not None
        if flags & os.XATTR_CREATE and exists:
            raise ExistsError("the attribute exists")
        if flags & os.XATTR_REPLACE and not exists:
            raise NoAttributeError("no such attribute")

    def _put(self, inode: Inode, name: bytes, value: bytes) -> None:
        self._inodes.edit(inode)
        self._transaction.put(Table.XATTRS, name_key(inode.number, name), value)
        inode.flags |= HAS_ATTRIBUTES
        self._is_used = True
        inode.ctime = now()

    def _set_access_acl(self, inode: Inode, value: bytes) -> None:
        if inode.is_symlink:
            raise NotPermittedError("a symbolic link has no ACL")
        access = acl.parse(value)
        self._inodes.edit(inode)
        inode.mode = inode.mode & ~0o777 | acl.mode_of(access)
        inode.ctime = now()
        if acl.is_minimal(access):
            self._transaction.delete(Table.XATTRS, name_key(inode.number, acl.ACCESS))
        else:
            self._put(inode, acl.ACCESS, value)

    def remove(self, inode: Inode, name: bytes) -> None:
        """Remove an attribute. Raises `NoAttributeError`."""
        if self._find(inode, name) is None:
            raise NoAttributeError("no such attribute")
        self._inodes.edit(inode)
        self._transaction.delete(Table.XATTRS, name_key(inode.number, name))
        inode.ctime = now()

    def _all_names(self, inode: Inode) -> list[bytes]:
        if not inode.flags & HAS_ATTRIBUTES:
            return []
        prefix, behind = id_key(inode.number), id_key(inode.number + 1)
        return [name_of(key) for key, _ in self._transaction.scan(Table.XATTRS, prefix, behind)]

    def names(self, inode: Inode) -> list[bytes]:
        """The names of all attributes that can be read."""
        names = self._all_names(inode)
        return names if self._has_acl else [name for name in names if name not in _ACLS]

    def remove_all(self, inode: Inode) -> None:
        """Drop the attributes of an inode that is going away."""
        for name in self._all_names(inode):
            self._transaction.delete(Table.XATTRS, name_key(inode.number, name))

    def mode_changed(self, inode: Inode) -> None:
        """After chmod: bring the access ACL, if there is one, in step with the mode."""
        value = self._find(inode, acl.ACCESS)
        if value is not None:
            changed = acl.with_mode(acl.parse(value), inode.mode)
            self._put(inode, acl.ACCESS, acl.pack(changed))

    def inherit(self, directory: Inode, inode: Inode, umask: int) -> None:
        """Give a new inode the ACLs its directory's default asks for, or apply the umask."""
        default = self._find(directory, acl.DEFAULT) if self._has_acl else None
        if inode.is_symlink:
            return
        if default is None:
            inode.mode &= ~(umask & 0o777)
            return
        access, permissions = acl.inherited(acl.parse(default), inode.mode)
        inode.mode = stat.S_IFMT(inode.mode) | inode.mode & 0o7000 | permissions
        if not acl.is_minimal(access):
            self._put(inode, acl.ACCESS, acl.pack(access))
        if inode.is_directory:
            self._put(inode, acl.DEFAULT, default)


def _is_namespaced(name: bytes) -> bool:
    namespace, _, rest = name.partition(b".")
    return namespace in _NAMESPACES and bool(rest)
