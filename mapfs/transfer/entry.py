"""What is copied: one file, directory, link or node, wherever it comes from.

Paths are bytes, relative to the directory that the copy is to be under; `b""` is that directory
itself. Times are nanoseconds since the epoch. The same attributes are carried everywhere.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from mapfs.errors import ArchiveError, EscapeError

# Where in a file, and bytes that are there, to be used before the next piece is asked for.
Piece: TypeAlias = tuple[int, memoryview | bytes]
# Offset and length of bytes that are not a hole.
Segment: TypeAlias = tuple[int, int]
# What tells a file of the operating system from all others: a device, and an inode there.
FileId: TypeAlias = tuple[int, int]

# More than any path that can be opened; an archive may have anything.
_MAX_PATH_BYTES: Final = 65_535
PIECE_BYTES: Final = 1 << 20
_VIRTUAL: Final = b"user.mapfs."
_CAPABILITY: Final = b"security.capability"
_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")


class Content(Protocol):
    """The bytes of an open file. What no segment covers is a hole."""

    segments: Sequence[Segment]

    def pieces(self) -> Iterator[Piece]:
        """The bytes of all segments, in order; fewer if the file became shorter meanwhile.

        Raises `OSError` or `MapfsError` if they cannot be read.
        """


@dataclass(slots=True)
class Entry:
    """One member of a tree.

    `mode` has the type bits, `target` is a symbolic link's. `link` is the path of an earlier entry
    that this one is another name of. What the functions give is good until the source is asked for
    its next entry. `open` is for regular files; a link in an archive has no content of its own.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    size: int = 0
    rdev: int = 0
    target: bytes = b""
    link: bytes | None = None
    attributes: Callable[[], Mapping[bytes, bytes]] = dict
    open: Callable[[], AbstractContextManager[Content]] | None = None

    @property
    def type(self) -> int:
        """The file type bits of the mode."""
        return stat.S_IFMT(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


def inside(name: bytes) -> bytes:
    """A member's name as a path of an `Entry`. Raises `EscapeError` if it leads elsewhere."""
    if b"\0" in name:
        raise EscapeError("refused: a NUL in its path")
    if len(name) > _MAX_PATH_BYTES:
        raise EscapeError("refused: its path is too long")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/"):
        raise EscapeError("refused: an absolute path")
    if b".." in parts:
        raise EscapeError("refused: its path leads out of the directory")
    return b"/".join(parts)


def link_target(target: bytes) -> bytes:
    """The target of a symbolic link as an archive has it. Raises `ArchiveError` if it cannot be."""
    if not target or b"\0" in target:
        raise ArchiveError("not copied: a link to nothing that can be")
    return target


def is_carried(name: bytes) -> bool:
    """Whether a copy has this extended attribute: the virtual ones and labels belong to a mount.

    Only root may set `trusted.*` and capabilities (xattr(7)).
    """
    if b"\0" in name:
        return False
    if name.startswith(b"user."):
        return not name.startswith(_VIRTUAL)
    if name in _ACLS:
        return True
    return (name == _CAPABILITY or name.startswith(b"trusted.")) and os.geteuid() == 0


def split(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Segments cut into parts of at most `PIECE_BYTES`."""
    for start, length in segments:
        for offset in range(start, start + length, PIECE_BYTES):
            yield offset, min(PIECE_BYTES, start + length - offset)
