"""Open a store, walk it, read all of it and check it, as the fuzzer asks for in a process.

Ends with 0, or with 1 and one line if mapfs refuses; anything else is a bug. A FUSE transport
answers an operation that fails with its errno and goes on, so here too such an error is counted.
"""

import contextlib
import os
import resource
import stat
import sys
from pathlib import Path

import click

from mapfs.errors import MapfsError
from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.opening import open_store

_ADDRESS_SPACE = 4 << 30
_MOST_ENTRIES = 20_000
_MOST_READ = 1 << 20
_ROOT = 1


def main(path: Path, *, read_only: bool) -> int:
    """Returns the exit code."""
    # LMDB's map is address space too, but a reservation of none.
    soft = _ADDRESS_SPACE + (1 << 40)
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    # A write far behind the end of the store must not fill the disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    try:
        with contextlib.closing(Filesystem(open_store(path, read_only=read_only))) as fs:
            walk(fs)
            if not read_only:
                scribble(fs)
                fs.flush()
                fs.store.allocator.settle()
            findings = sum(1 for _ in Check(fs.store).findings())
            click.echo(f"{findings} findings")
    except (MapfsError, OSError) as error:
        click.echo(error, err=True)
        return 1
    return 0


def walk(fs: Filesystem) -> None:
    """Visit each entry once and read it, a piece at its beginning and one at its end."""
    waiting, seen = [_ROOT], set[int]()
    while waiting and len(seen) < _MOST_ENTRIES:
        number = waiting.pop()
        with contextlib.suppress(MapfsError, OSError):
            for entry in fs.readdir(number):
                if entry.inode not in seen:
                    seen.add(entry.inode)
                    visit(fs, entry.inode, waiting)


def visit(fs: Filesystem, number: int, waiting: list[int]) -> None:
    with contextlib.suppress(MapfsError, OSError):
        inode = fs.inode(number)
        if inode.is_directory:
            waiting.append(number)
        if stat.S_ISLNK(inode.mode):
            fs.readlink(number)
        for name in fs.listxattr(number):
            fs.getxattr(number, name)
        fs.getxattr(number, b"user.mapfs.file" if inode.is_file else b"user.mapfs.dir")
        if inode.is_file:
            for offset in {0, max(0, inode.size - _MOST_READ)}:
                load = fs.cold_loader(number, offset, _MOST_READ)
                if load is not None:
                    load()
                sum(len(bytes(view)) for view in fs.read(number, offset, _MOST_READ))


def scribble(fs: Filesystem) -> None:
    """Change things in the store, as a mount would, and commit."""
    with contextlib.suppress(MapfsError, OSError):
        names = [(entry.name, entry.inode) for entry in fs.readdir(_ROOT)][2:]
        for name, number in names[:8]:
            with contextlib.suppress(MapfsError, OSError):
                inode = fs.inode(number)
                if inode.is_file:
                    fs.write(number, 0, b"scribbled")
                    fs.write(number, 1 << 20, b"further on")
                    fs.unlink(_ROOT, name)
                    fs.forget(number)
    fs.commit()


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), read_only="--read-only" in sys.argv)
    sys.stdout.flush()
    os._exit(code)  # a bad store must not need a clean end of the interpreter
