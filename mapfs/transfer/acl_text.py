"""POSIX ACLs as text, the form that they have in tar archives (acl_to_text(3))."""

import grp
import pwd
from typing import Final

from mapfs.errors import InvalidArgumentError
from mapfs.filesystem.acl import AclEntry, pack, parse

_TAGS: Final = {
    0x01: "user",
    0x02: "user",
    0x04: "group",
    0x08: "group",
    0x10: "mask",
    0x20: "other",
}
_NAMED: Final = {"user": 0x02, "group": 0x08}
_UNNAMED: Final = {"user": 0x01, "group": 0x04, "mask": 0x10, "other": 0x20}
_PERMISSIONS: Final = "rwx"


def to_text(value: bytes) -> str:
    """The ACL in an attribute's value, with numbers for users and groups.

    Raises `InvalidArgumentError` if it is none.
    """
    return ",".join(_entry_text(entry) for entry in parse(value))


def _entry_text(entry: AclEntry) -> str:
    who = str(entry.id) if entry.tag in _NAMED.values() else ""
    what = "".join(
        letter if entry.permissions & (4 >> place) else "-"
        for place, letter in enumerate(_PERMISSIONS)
    )
    return f"{_TAGS[entry.tag]}:{who}:{what}"


def from_text(text: str) -> bytes:
    """The attribute's value for an ACL as text. Raises `InvalidArgumentError`."""
    words = text.replace("\n", ",").split(",")
    entries = [_entry(word.strip()) for word in words if word.strip()]
    value = pack(tuple(sorted(entries, key=lambda entry: (entry.tag, entry.id))))
    parse(value)
    return value


def _entry(word: str) -> AclEntry:
    """`user:1000:rw-`; star(1) and GNU tar put the number behind that if there is a name."""
    parts = [part.strip() for part in word.partition("#")[0].split(":")]
    if len(parts) < 3 or parts[0] not in _UNNAMED or not set(parts[2]) <= set("rwx-"):
        raise InvalidArgumentError("not an ACL")
    kind, who, what, *number = parts
    permissions = sum(4 >> place for place, letter in enumerate(_PERMISSIONS) if letter in what)
    if not who:
        return AclEntry(_UNNAMED[kind], permissions)
    return AclEntry(_NAMED[kind], permissions, _id(kind, number[0] if number else who))


def _id(kind: str, who: str) -> int:
    if who.isdecimal():
        return int(who)
    try:
        return pwd.getpwnam(who).pw_uid if kind == "user" else grp.getgrnam(who).gr_gid
    except KeyError:
        raise InvalidArgumentError(f"an ACL for {who}, who is unknown here") from None
