"""POSIX access control lists: the arithmetic between ACLs and modes, after acl(5).

The kernel checks permissions against ACLs; the filesystem stores them, keeps them in step with
modes, and lets new files inherit the default ACL of their directory.
An ACL travels as the extended attribute of linux/posix_acl_xattr.h: a version, then entries.
"""

import struct
from typing import Final, NamedTuple

from mapfs.errors import InvalidArgumentError

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_UNDEFINED_ID: Final = 0xFFFFFFFF

_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_TAGS: Final = frozenset({_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER})


class AclEntry(NamedTuple):
    """Who (tag, and id for named users and groups) may do what (rwx bits)."""

    tag: int
    permissions: int
    id: int = _UNDEFINED_ID


Acl = tuple[AclEntry, ...]


def parse(value: bytes) -> Acl:
    """The ACL in an attribute's value. Raises `InvalidArgumentError` if it is not a valid one."""
    body = value[_HEADER.size :]
    if value[: _HEADER.size] != _HEADER.pack(_VERSION) or len(body) % _ENTRY.size:
        raise InvalidArgumentError("not a POSIX ACL")
    acl = tuple(AclEntry(*fields) for fields in _ENTRY.iter_unpack(body))
    tags = [entry.tag for entry in acl]
    once = all(tags.count(tag) == 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER))
    named = _USER in tags or _GROUP in tags
    masked = tags.count(_MASK) == 1 or (not named and _MASK not in tags)
    known = all(entry.tag in _TAGS and entry.permissions <= 7 for entry in acl)
    if not (once and masked and known and tags == sorted(tags)):
        raise InvalidArgumentError("not a valid POSIX ACL")
    return acl


def pack(acl: Acl) -> bytes:
    """The attribute's value for an ACL."""
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in acl)


def is_minimal(acl: Acl) -> bool:
    """Whether the ACL says no more than a mode can."""
    return len(acl) == 3


def mode_of(acl: Acl) -> int:
    """The permission bits that stand for an ACL: the group's are the mask's if there is one."""
    by_tag = {entry.tag: entry.permissions for entry in acl if entry.tag not in (_USER, _GROUP)}
    group = by_tag.get(_MASK, by_tag[_GROUP_OBJ])
    return by_tag[_USER_OBJ] << 6 | group << 3 | by_tag[_OTHER]


def with_mode(acl: Acl, mode: int) -> Acl:
    """The ACL after chmod(2) to `mode`."""
    classes = {_USER_OBJ: mode >> 6 & 7, _OTHER: mode & 7}
    classes[_GROUP_OBJ if is_minimal(acl) or not _has_mask(acl) else _MASK] = mode >> 3 & 7
    return tuple(
        entry._replace(permissions=classes.get(entry.tag, entry.permissions)) for entry in acl
    )


def inherited(default: Acl, mode: int) -> tuple[Acl, int]:
    """The access ACL, and the permission bits, of a file created with `mode` under `default`.

    The umask plays no part (acl(5), "Object creation and default ACLs").
    """
    group_tag = _MASK if _has_mask(default) else _GROUP_OBJ
    limits = {_USER_OBJ: mode >> 6 & 7, group_tag: mode >> 3 & 7, _OTHER: mode & 7}
    acl = tuple(
        entry._replace(permissions=entry.permissions & limits.get(entry.tag, 7))
        for entry in default
    )
    return acl, mode_of(acl)


def _has_mask(acl: Acl) -> bool:
    return any(entry.tag == _MASK for entry in acl)
