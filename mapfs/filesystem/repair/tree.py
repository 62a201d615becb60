"""Repair of the tree: what does not hang on the root goes to `/lost+found`."""

import stat
from collections.abc import Generator, Iterator
from typing import Final

from mapfs.filesystem.clock import now
from mapfs.filesystem.repair.tables import RepairTables
from mapfs.filesystem.survey import loose
from mapfs.format.records import ROOT_INODE, Entry, Inode, Table, name_key

LOST_AND_FOUND: Final = b"lost+found"


def repair_tree(tables: RepairTables) -> Iterator[str]:
    """Afterwards every inode that is no orphan can be reached from the root."""
    yield from _cut_cycles(tables)
    directory = 0
    for inode in tables.inodes():
        if inode.cookie or not inode.nlink or inode.number == ROOT_INODE:
            continue
        if not directory:
            directory = yield from _lost_and_found(tables)
        yield f"put inode {inode.number} into directory {directory}, /lost+found"
        _attach(tables, directory, _free_name(tables, directory, b"#%d" % inode.number), inode)


def _cut_cycles(tables: RepairTables) -> Iterator[str]:
    """Take the name off one directory in each cycle."""
    parents = {
        inode.number: inode.parent if inode.cookie else ROOT_INODE
        for inode in tables.inodes()
        if inode.is_directory and inode.nlink
    }
    seen: dict[int, int] = {}
    for start in sorted(loose(parents)):
        number = start
        while number in parents and number != ROOT_INODE and number not in seen:
            seen[number] = start
            number = parents[number]
        if seen.get(number) != start or number not in parents:
            continue
        inode = tables.inode(number)
        assert inode is not None
        yield f"take directory {number} out of a cycle"
        tables.remove_listed(inode.parent, inode.cookie)
        inode.cookie = 0
        tables.put_inode(inode)
        parents[number] = ROOT_INODE


def _lost_and_found(tables: RepairTables) -> Generator[str, None, int]:
    """The number of the directory for what was lost, made if it is not there."""
    value = tables.get(Table.ENTRIES, name_key(ROOT_INODE, LOST_AND_FOUND))
    if value is not None and Entry.unpack(value).type == stat.S_IFDIR:
        return Entry.unpack(value).inode
    root = tables.inode(ROOT_INODE)
    assert root is not None
    name = _free_name(tables, ROOT_INODE, LOST_AND_FOUND)
    number = tables.store.next_id()
    yield f"make directory {number}, {name.decode()!r} in the root"
    inode = Inode(number, stat.S_IFDIR | 0o700, root.uid, root.gid, nlink=2)
    inode.atime = inode.mtime = inode.ctime = inode.btime = now()
    _attach(tables, ROOT_INODE, name, inode)
    return number


def _free_name(tables: RepairTables, directory: int, name: bytes) -> bytes:
    while tables.get(Table.ENTRIES, name_key(directory, name)) is not None:
        name += b"_"
    return name


def _attach(tables: RepairTables, directory: int, name: bytes, inode: Inode) -> None:
    """Give an inode without a name one. What directories count follows with their totals."""
    inode.parent, inode.cookie = directory, tables.store.next_id()
    tables.put_entry(directory, name, Entry(inode.number, inode.cookie, inode.type))
    tables.put_inode(inode)
