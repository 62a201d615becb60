"""A process that changes files through a mount and notes what was answered, and the comparison.

Run as a program, `acknowledged.py DIRECTORY NOTES SEED [--fsync]`, it works in its own directory
until a call fails because the daemon is gone. Each operation is noted outside before it is begun
and again when it was answered, so of all that is noted at most one is open.
"""

import copy
import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

_LONGEST = 60_000
_NAMES = 12
# What a call through a mount without a daemon is answered; EIO is for what could not be written.
_GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)


@dataclass(eq=False)
class Node:
    """What a name stands for; names of one file share the node."""

    type: int
    mode: int = 0
    content: bytes = b""  # a symbolic link's target
    xattrs: dict[str, bytes] = field(default_factory=dict)


Names = dict[str, Node]
Operation = list[Any]


def pattern(seed: object, length: int) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(length)


def apply(names: Names, operation: Operation) -> None:
    """What an operation does, on a model."""
    kind, *arguments = operation
    _ON_THE_MODEL[kind](names, *arguments)


def _put(names: Names, name: str, seed: str, length: int) -> None:
    names.setdefault(name, Node(stat.S_IFREG, 0o600)).content = pattern(seed, length)


def _overwrite(names: Names, name: str, seed: str, offset: int, length: int) -> None:
    old, data = names[name].content, pattern(seed, length)
    names[name].content = old[:offset].ljust(offset, b"\0") + data + old[offset + length :]


def _truncate(names: Names, name: str, size: int) -> None:
    names[name].content = names[name].content[:size].ljust(size, b"\0")


def _link(names: Names, name: str, target: str) -> None:
    names[target] = names[name]


def _remove(names: Names, name: str) -> None:
    del names[name]


def _mkdir(names: Names, name: str) -> None:
    names[name] = Node(stat.S_IFDIR, 0o700)


def _symlink(names: Names, name: str, target: str) -> None:
    names[name] = Node(stat.S_IFLNK, 0o777, target.encode())


def _setxattr(names: Names, name: str, key: str, seed: str) -> None:
    names[name].xattrs[key] = pattern(seed, 90)


def _chmod(names: Names, name: str, mode: int) -> None:
    names[name].mode = mode


def _rename(names: Names, name: str, target: str) -> None:
    if names.get(target) is names[name]:
        return  # rename(2): two names of one file are left alone
    moved = {target: names.pop(name)}
    below = [each for each in names if each.startswith(name + "/")]
    moved |= {target + each[len(name) :]: names.pop(each) for each in below}
    names.update(moved)


_ON_THE_MODEL: dict[str, Callable[..., None]] = {
    "put": _put,
    "write": _overwrite,
    "truncate": _truncate,
    "rename": _rename,
    "link": _link,
    "unlink": _remove,
    "rmdir": _remove,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "setxattr": _setxattr,
    "chmod": _chmod,
}


def perform(operation: Operation, *, fsync: bool) -> None:
    """The same in the current directory, through the mount; returns when it was answered."""
    kind, name, *rest = operation
    if kind == "put":
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        _write(name, flags, 0, pattern(*rest), fsync=fsync)
    elif kind == "write":
        seed, offset, length = rest
        _write(name, os.O_WRONLY, offset, pattern(seed, length), fsync=fsync)
    elif kind == "mkdir":
        os.mkdir(name, 0o700)
    elif kind == "symlink":
        os.symlink(rest[0], name)
    elif kind == "setxattr":
        os.setxattr(name, f"user.{rest[0]}", pattern(rest[1], 90))
    else:  # truncate, rename, link, unlink, rmdir, chmod
        getattr(os, kind)(name, *rest)


def _write(path: str, flags: int, offset: int, data: bytes, *, fsync: bool) -> None:
    fd = os.open(path, flags, 0o600)
    try:
        if os.pwrite(fd, data, offset) != len(data):
            raise OSError(errno.ENOTCONN, "the daemon ended within the write")
        if fsync:
            os.fsync(fd)
    finally:
        os.close(fd)
    # With the writeback cache, and without a FLUSH message, close(2) was seen to succeed while the
    # daemon was being killed, and the bytes were gone. Whoever answers this had them before.
    os.statvfs(".")


class Chooser:
    """Draws operations that will succeed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._seed = seed
        self._drawn = 0

    def draw(self, names: Names) -> Operation:
        self._drawn += 1
        while True:
            operation = self._try(names)
            if operation is not None:
                return operation

    def _try(self, names: Names) -> Operation | None:
        random = self._random
        kind = random.choices(
            tuple(_ON_THE_MODEL),
            (8, 6, 2, 4, 2, 4, 1, 2, 1, 2, 1),
        )[0]
        if kind in ("put", "mkdir", "symlink"):
            return self._new(kind, self._place(names), names)
        types = {"write": stat.S_IFREG, "truncate": stat.S_IFREG, "rmdir": stat.S_IFDIR}
        wanted = [
            name
            for name, node in names.items()
            if node.type == types.get(kind, node.type) and _suits(kind, name, names)
        ]
        return self._change(kind, random.choice(wanted), names) if wanted else None

    def _new(self, kind: str, name: str, names: Names) -> Operation | None:
        random, unique = self._random, f"{self._seed}-{self._drawn}"
        old = names.get(name)
        if kind == "put":
            fits = old is None or old.type == stat.S_IFREG
            return ["put", name, unique, random.randrange(_LONGEST)] if fits else None
        if old is not None:
            return None
        return [kind, name] if kind == "mkdir" else [kind, name, f"target-{unique}"]

    def _change(self, kind: str, name: str, names: Names) -> Operation | None:
        random, unique = self._random, f"{self._seed}-{self._drawn}"
        match kind:
            case "write":
                offset = random.choice((0, 4096, random.randrange(_LONGEST)))
                return [kind, name, unique, offset, random.randrange(1, 20_000)]
            case "truncate":
                return [kind, name, random.choice((0, 4096, random.randrange(_LONGEST)))]
            case "rename" | "link":
                return self._renamed(kind, name, names)
            case "setxattr":
                return [kind, name, f"a{random.randrange(3)}", unique]
            case "chmod":
                return [kind, name, 0o600 | random.randrange(0o100)]
        return [kind, name]

    def _renamed(self, kind: str, name: str, names: Names) -> Operation | None:
        target = self._place(names)
        old = names.get(target)
        below = target.startswith(name + "/")
        is_directory = names[name].type == stat.S_IFDIR
        if below or (old is not None and (kind == "link" or is_directory)):
            return None
        if old is not None and old.type == stat.S_IFDIR:
            return None
        return [kind, name, target]

    def _place(self, names: Names) -> str:
        parents = [name for name, node in names.items() if node.type == stat.S_IFDIR]
        shallow = [parent for parent in parents if parent.count("/") < 2]
        name = f"n{self._random.randrange(_NAMES)}"
        parent = self._random.choice(["", *shallow])
        return f"{parent}/{name}" if parent else name


def _suits(kind: str, name: str, names: Names) -> bool:
    node = names[name]
    match kind:
        case "rmdir":
            return not any(other.startswith(name + "/") for other in names)
        case "unlink" | "link":
            return node.type != stat.S_IFDIR
        case "setxattr" | "chmod":
            return node.type != stat.S_IFLNK
    return True


# The comparison


@dataclass(frozen=True)
class Notes:
    """The names as all that was answered left them, and the operation that was under way."""

    names: Names
    under_way: Operation | None
    answered: int


def read_notes(path: Path) -> Notes:
    names: Names = {}
    under_way: Operation | None = None
    answered = 0
    for line in path.read_text().splitlines():
        if line == "answered":
            assert under_way is not None
            apply(names, under_way)
            under_way = None
            answered += 1
        else:
            under_way = json.loads(line)
    return Notes(names, under_way, answered)


def assert_answered_is_there(directory: Path, notes: Notes) -> None:
    """The directory is as answered; the operation under way was done, or not."""
    found = look(directory)
    before, after = notes.names, notes.names
    if notes.under_way is not None:
        after = copy.deepcopy(notes.names)
        apply(after, notes.under_way)
        if _describe(found) == _describe(after):
            return
        if notes.under_way[0] in ("put", "write"):
            _adopt_half_written(found, before, after, notes.under_way[1])
    assert _describe(found) == _describe(before), notes.under_way


def _adopt_half_written(found: Names, before: Names, after: Names, name: str) -> None:
    """Several requests make up a write: some may be done. Every byte must be old, new or zero."""
    if name not in found:
        return
    old = before[name].content if name in before else b""
    new = after[name].content
    content = found[name].content
    assert len(content) <= max(len(old), len(new))
    for offset, byte in enumerate(content):
        assert byte in (0, *old[offset : offset + 1], *new[offset : offset + 1]), offset
    for each in {id(node): node for node in (found[name], after[name])}.values():
        each.content = new
    if name in before:
        before[name].content = new
    else:
        before[name] = after[name]


def look(directory: Path) -> Names:
    """What is there."""
    names: Names = {}
    by_inode: dict[int, Node] = {}
    for parent, directories, files in os.walk(directory):
        for each in (*directories, *files):
            path = os.path.join(parent, each)
            found = os.lstat(path)
            if found.st_ino not in by_inode:
                by_inode[found.st_ino] = _node(path, found)
            names[os.path.relpath(path, directory)] = by_inode[found.st_ino]
    return names


def _node(path: str, found: os.stat_result) -> Node:
    type_ = stat.S_IFMT(found.st_mode)
    node = Node(type_, stat.S_IMODE(found.st_mode))
    if type_ == stat.S_IFLNK:
        node.content = os.readlink(path).encode()
        return node
    if type_ == stat.S_IFREG:
        node.content = Path(path).read_bytes()
        assert len(node.content) == found.st_size
    for name in os.listxattr(path):
        node.xattrs[name.removeprefix("user.")] = os.getxattr(path, name)
    return node


def _describe(names: Names) -> dict[str, tuple[object, ...]]:
    """Names with what they stand for; of two names of one file, that they are."""
    nodes: dict[int, list[str]] = {}
    for name, node in names.items():
        nodes.setdefault(id(node), []).append(name)
    return {
        name: (
            *(node.type, node.mode, len(node.content), hashlib.sha1(node.content).hexdigest()),
            *(sorted(node.xattrs.items()), sorted(nodes[id(node)])),
        )
        for name, node in sorted(names.items())
    }


def main() -> None:
    directory, path, seed, *options = sys.argv[1:]
    os.umask(0)
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    known = read_notes(Path(path))
    assert known.under_way is None
    os.chdir(directory)
    chooser = Chooser(int(seed))
    while True:
        operation = chooser.draw(known.names)
        os.write(notes, json.dumps(operation).encode() + b"\n")
        try:
            perform(operation, fsync="--fsync" in options)
        except OSError as error:
            sys.exit(0 if error.errno in _GONE else f"{operation}: {error}")
        os.write(notes, b"answered\n")
        apply(known.names, operation)


if __name__ == "__main__":
    main()
