"""What the files of a filesystem held at any time, kept apart from the filesystem itself."""

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field

from mapfs.errors import MapfsError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import ROOT_INODE

SECTOR = 512


def pattern(inode: int, generation: int, length: int) -> bytes:
    """Bytes that only this write to this file writes."""
    return hashlib.shake_128(f"{inode} {generation}".encode()).digest(length)


@dataclass
class Versions:
    """The contents of one file, each with the position in the journal before it was written."""

    positions: list[int] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)

    def add(self, position: int, content: bytes) -> None:
        self.positions.append(position)
        self.contents.append(content)

    @property
    def last(self) -> bytes:
        return self.contents[-1]

    def between(self, first: int, position: int) -> list[bytes]:
        """Version `first` and those after it that were begun before `position`."""
        return self.contents[first : max(first + 1, bisect_right(self.positions, position))]


def foreign_byte(found: bytes, versions: list[bytes]) -> int | None:
    """The offset of a byte that none of the versions holds there; behind their end they are 0."""
    padded = [version[: len(found)].ljust(len(found), b"\0") for version in versions]
    for start in range(0, len(found), SECTOR):
        piece = slice(start, start + SECTOR)
        if all(version[piece] != found[piece] for version in padded):
            for offset in range(start, min(start + SECTOR, len(found))):
                if all(version[offset] != found[offset] for version in padded):
                    return offset
    return None


Tree = dict[bytes, tuple[object, ...]]


def tree_of(fs: Filesystem) -> Tree:
    """Every name with all that is kept of its inode, but the content and the time of access."""
    tree: Tree = {}
    waiting = [(b"", ROOT_INODE)]
    while waiting:
        path, number = waiting.pop()
        inode = fs.inode(number)
        attributes = sorted((name, fs.getxattr(number, name)) for name in fs.listxattr(number))
        tree[path] = (
            *(number, inode.mode, inode.uid, inode.gid, inode.nlink, inode.rdev, inode.size),
            *(inode.pages, inode.mtime, inode.ctime, inode.btime, inode.target),
            *attributes,
        )
        if inode.is_directory:
            entries = list(fs.readdir(number))[2:]
            waiting += [(path + b"/" + entry.name, entry.inode) for entry in entries]
    return tree


def content_of(fs: Filesystem, number: int) -> bytes:
    return b"".join(bytes(view) for view in fs.read(number, 0, 1 << 40))


def lookup(fs: Filesystem, parent: int, name: bytes) -> int:
    """The number that a name stands for, or 0."""
    try:
        return fs.lookup(parent, name).number
    except MapfsError:
        return 0
