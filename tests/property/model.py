"""A filesystem as plain Python objects: what the state machine holds mapfs against.

It knows pages, because slack is about pages, and nothing of extents, tables or commits. A method
raises `Refused` with the errno that mapfs must answer, before it changes anything.
"""

import errno
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 0x01, 0x02, 0x10
NOREPLACE, EXCHANGE = 1, 2
CREATE, REPLACE = 1, 2
LARGEST = (1 << 63) - 1
WHAT_IF = {"4k": 4096, "16k": 16384, "64k": 65536, "2m": 2 << 20}


class Refused(Exception):
    """The call must fail with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code


def require(condition: object, code: int) -> None:
    if not condition:
        raise Refused(code)


@dataclass(eq=False)
class Name:
    """One entry of a directory; entries are listed, and age, in the order of `cookie`."""

    directory: "Node"
    name: bytes
    node: "Node"
    cookie: int


@dataclass(eq=False)
class Node:
    """An inode. `pages` are the allocated pages of a file, zeros behind the end included."""

    type: int
    mode: int
    uid: int
    gid: int
    number: int = 0
    rdev: int = 0
    size: int = 0
    target: bytes = b""
    pages: dict[int, bytearray] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    names: list[Name] = field(default_factory=list)
    home: Name | None = None
    parent: "Node | None" = None  # of a directory that has a name
    entries: dict[bytes, Name] = field(default_factory=dict)
    is_root: bool = False

    @property
    def is_directory(self) -> bool:
        return self.type == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.type == stat.S_IFREG

    @property
    def nlink(self) -> int:
        if not self.is_directory:
            return len(self.names)
        subdirs = sum(name.node.is_directory for name in self.entries.values())
        return 2 + subdirs if self.names or self.is_root else 0


Totals = dict[str, int]
NOTHING: Totals = dict.fromkeys(
    ("files", "subdirs", "bytes", "allocated", "slack", *(f"slack.at.{at}" for at in WHAT_IF)), 0
)


class Model:
    """The whole filesystem."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.root = Node(stat.S_IFDIR, 0o755, 0, 0, number=1, is_root=True)
        self.root.parent = self.root
        self.nodes: list[Node] = [self.root]
        self._cookie = 2

    # Names

    def create(self, directory: Node, name: bytes, node: Node, available: int = 0) -> None:
        del available
        self._require_directory(directory)
        require(len(node.target) <= 4095, errno.ENAMETOOLONG)
        self._require_free(directory, name)
        node.size = len(node.target)
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
            node.mode |= stat.S_ISGID if node.is_directory else 0
        self.nodes.append(node)
        self._enter(directory, name, node, self._next_cookie())

    def create_unnamed(self, directory: Node, node: Node) -> None:
        self._require_directory(directory)
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
        self.nodes.append(node)

    def link(self, node: Node, directory: Node, name: bytes) -> None:
        self._require_directory(directory)
        require(not node.is_directory, errno.EPERM)
        self._require_free(directory, name)
        self._enter(directory, name, node, self._next_cookie())

    def unlink(self, directory: Node, name: bytes) -> None:
        node = self._find(directory, name).node
        require(not node.is_directory, errno.EISDIR)
        self._leave(directory.entries[name])

    def rmdir(self, directory: Node, name: bytes) -> None:
        self._require_directory(directory)
        require(name not in (b".", b".."), errno.EINVAL)
        node = self._find(directory, name).node
        require(node.is_directory, errno.ENOTDIR)
        require(not node.entries, errno.ENOTEMPTY)
        self._leave(directory.entries[name])

    def rename(self, source: Node, name: bytes, target: Node, new_name: bytes, flags: int) -> None:
        self._require_directory(source)
        self._require_directory(target)
        require(flags in (0, NOREPLACE, EXCHANGE), errno.EINVAL)
        moved = self._find(source, name)
        require(len(new_name) <= 255, errno.ENAMETOOLONG)
        victim = target.entries.get(new_name)
        if flags == EXCHANGE:
            require(victim, errno.ENOENT)
            assert victim is not None
            self._exchange(moved, victim)
            return
        if victim is None:
            self._require_free(target, new_name)
            self._refuse_loop(moved.node, target)
            cookie = self._next_cookie()
        else:
            require(flags != NOREPLACE, errno.EEXIST)
            if victim.node is moved.node:
                return
            self._refuse_loop(moved.node, target)
            require(not moved.node.is_directory or victim.node.is_directory, errno.ENOTDIR)
            require(moved.node.is_directory or not victim.node.is_directory, errno.EISDIR)
            require(not victim.node.entries, errno.ENOTEMPTY)
            cookie = victim.cookie
            self._leave(victim)
        del source.entries[name]
        moved.directory, moved.name, moved.cookie = target, new_name, cookie
        target.entries[new_name] = moved
        self._set_parent(moved)

    def _exchange(self, first: Name, second: Name) -> None:
        if first.node is second.node:
            return
        self._refuse_loop(first.node, second.directory)
        self._refuse_loop(second.node, first.directory)
        ours, theirs = first.node, second.node
        was_home = ours.home is first, theirs.home is second
        ours.names.remove(first)
        theirs.names.remove(second)
        ours.names.append(second)
        theirs.names.append(first)
        first.node, second.node = theirs, ours
        if was_home[0]:
            ours.home = second
        if was_home[1]:
            theirs.home = first
        self._set_parent(first)
        self._set_parent(second)

    def _set_parent(self, name: Name) -> None:
        if name.node.is_directory:
            name.node.parent = name.directory

    def _enter(self, directory: Node, name: bytes, node: Node, cookie: int) -> None:
        entry = Name(directory, name, node, cookie)
        directory.entries[name] = entry
        node.names.append(entry)
        node.home = node.home or entry
        self._set_parent(entry)

    def _leave(self, entry: Name) -> None:
        del entry.directory.entries[entry.name]
        node = entry.node
        node.names.remove(entry)
        if node.home is entry:
            # The rule of the accounting: the oldest name left is where the file counts.
            node.home = min(node.names, key=lambda name: name.cookie, default=None)

    def _next_cookie(self) -> int:
        self._cookie += 1
        return self._cookie

    def _require_directory(self, node: Node) -> None:
        require(node.is_directory, errno.ENOTDIR)

    def _find(self, directory: Node, name: bytes) -> Name:
        self._require_directory(directory)
        require(len(name) <= 255, errno.ENAMETOOLONG)
        require(name in directory.entries, errno.ENOENT)
        return directory.entries[name]

    def _require_free(self, directory: Node, name: bytes) -> None:
        strange = name in (b"", b".", b"..") or b"/" in name or b"\0" in name
        require(not strange, errno.EINVAL)
        require(len(name) <= 255, errno.ENAMETOOLONG)
        require(name not in directory.entries, errno.EEXIST)
        require(directory.nlink, errno.ENOENT)

    def _refuse_loop(self, node: Node, directory: Node) -> None:
        above: Node | None = directory
        while node.is_directory and above is not None:
            require(above is not node, errno.EINVAL)
            above = None if above.is_root else above.parent

    def listing(self, directory: Node) -> list[Name]:
        return sorted(directory.entries.values(), key=lambda name: name.cookie)

    def forget(self, node: Node) -> None:
        if node.nlink == 0:
            self.nodes.remove(node)

    def forget_orphans(self) -> None:
        self.nodes = [node for node in self.nodes if node.nlink]

    # Content

    def holes(self, node: Node, offset: int, length: int) -> int:
        """The pages that a write of `length` bytes at `offset` has to allocate."""
        return sum(page not in node.pages for page in self._touched(offset, length))

    def _touched(self, offset: int, length: int) -> range:
        return range(offset // self.page_size, -(-(offset + length) // self.page_size))

    def write(self, node: Node, offset: int, data: bytes, available: int) -> int:
        self._require_file(node)
        require(offset + len(data) <= LARGEST, errno.EFBIG)
        if data:
            self._fill(node, offset, len(data), available)
            self._put(node, offset, data)
            node.size = max(node.size, offset + len(data))
        return len(data)

    def _require_file(self, node: Node) -> None:
        require(not node.is_directory, errno.EISDIR)
        require(node.is_file, errno.EINVAL)

    def _fill(self, node: Node, offset: int, length: int, available: int) -> None:
        require(self.holes(node, offset, length) <= available, errno.ENOSPC)
        for page in self._touched(offset, length):
            node.pages.setdefault(page, bytearray(self.page_size))

    def _put(self, node: Node, offset: int, data: bytes) -> None:
        """Store bytes in pages that are allocated; bytes in holes must be zeros."""
        done = 0
        while done < len(data):
            page, within = divmod(offset + done, self.page_size)
            step = min(self.page_size - within, len(data) - done)
            if page in node.pages:
                node.pages[page][within : within + step] = data[done : done + step]
            done += step

    def read(self, node: Node, offset: int, size: int) -> bytes:
        self._require_file(node)
        end = min(offset + size, node.size)
        if end <= offset:
            return b""
        empty = bytes(self.page_size)
        data = b"".join(node.pages.get(page, empty) for page in self._touched(offset, end - offset))
        start = offset % self.page_size
        return data[start : start + end - offset]

    def truncate(self, node: Node, size: int) -> None:
        self._require_file(node)
        require(size <= LARGEST, errno.EFBIG)
        keep = -(-size // self.page_size)
        node.pages = {page: data for page, data in node.pages.items() if page < keep}
        if size < node.size:
            self._put(node, size, bytes(-size % self.page_size))
        node.size = size

    def fallocate(self, node: Node, mode: int, offset: int, length: int, available: int) -> None:
        self._require_file(node)
        modes = (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE)
        require(mode in modes, errno.EOPNOTSUPP)
        require(length > 0, errno.EINVAL)
        require(offset + length <= LARGEST, errno.EFBIG)
        if mode & PUNCH_HOLE:
            self._punch(node, offset, length)
            return
        self._fill(node, offset, length, available)
        if mode & ZERO_RANGE:
            self._zero(node, offset, length)
        if not mode & KEEP_SIZE:
            node.size = max(node.size, offset + length)

    def _zero(self, node: Node, offset: int, length: int) -> None:
        for page in self._touched(offset, length):
            if page in node.pages:
                low = max(offset - page * self.page_size, 0)
                high = min(offset + length - page * self.page_size, self.page_size)
                node.pages[page][low:high] = bytes(high - low)

    def _punch(self, node: Node, offset: int, length: int) -> None:
        self._zero(node, offset, length)
        first = -(-offset // self.page_size)
        last = (offset + length) // self.page_size
        node.pages = {page: data for page, data in node.pages.items() if not first <= page < last}

    def copy_length(self, node: Node, offset: int, target: Node, to: int, length: int) -> int:
        """The bytes that copy_file_range(2) is to copy, given room."""
        self._require_file(node)
        self._require_file(target)
        length = min(length, max(0, node.size - offset))
        if node is target and length:
            require(offset >= to + length or to >= offset + length, errno.EINVAL)
        return length

    # Attributes

    def setxattr(self, node: Node, name: bytes, value: bytes, flags: int) -> None:
        require(0 < len(name) <= 255 and len(value) <= 65536, errno.ERANGE)
        require(not (flags & CREATE and name in node.xattrs), errno.EEXIST)
        require(not (flags & REPLACE and name not in node.xattrs), errno.ENODATA)
        node.xattrs[name] = value

    def removexattr(self, node: Node, name: bytes) -> None:
        require(name in node.xattrs, errno.ENODATA)
        del node.xattrs[name]

    # Accounting

    @property
    def allocated_pages(self) -> int:
        return sum(len(node.pages) for node in self.nodes)

    def tail(self, node: Node) -> int:
        last, within = divmod(node.size, self.page_size)
        return self.page_size - within if within and last in node.pages else 0

    def preallocated(self, node: Node) -> int:
        """In pages."""
        behind = -(-node.size // self.page_size)
        return sum(page >= behind for page in node.pages)

    def slack(self, node: Node) -> int:
        return self.tail(node) + self.preallocated(node) * self.page_size

    def slack_at(self, node: Node, other: int) -> int:
        """The slack with pages of `other` bytes, by counting these pages one by one."""
        size = self.page_size
        stored = len(node.pages) * size - self.slack(node)
        behind = -(-node.size // size) * size
        units: set[int] = set()
        for page in node.pages:
            start, end = page * size, (page + 1) * size
            end = end if start >= behind else min(end, node.size)
            units.update(range(start // other, -(-end // other)))
        return len(units) * other - stored

    def contribution(self, node: Node) -> Totals:
        if node.is_directory:
            return NOTHING | {"subdirs": 1}
        if not node.is_file:
            return NOTHING | {"files": 1}
        return {
            "files": 1,
            "subdirs": 0,
            "bytes": node.size,
            "allocated": len(node.pages) * self.page_size,
            "slack": self.slack(node),
            **{f"slack.at.{at}": self.slack_at(node, other) for at, other in WHAT_IF.items()},
        }

    def own(self, directory: Node) -> Totals:
        """What a directory counts itself: the entries that are their inode's home."""
        return _sum(
            self.contribution(name.node)
            for name in directory.entries.values()
            if name.node.home is name
        )

    def tree(self, directory: Node) -> Totals:
        below = (name.node for name in directory.entries.values() if name.node.is_directory)
        return _sum([self.own(directory), *map(self.tree, below)])


def _sum(parts: "Iterator[Totals] | list[Totals]") -> Totals:
    total = dict(NOTHING)
    for part in parts:
        for key, value in part.items():
            total[key] += value
    return total
