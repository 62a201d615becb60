"""Repair of inodes by themselves: records that do not decode, the root, numbers, orphans."""

import os
import stat
from collections.abc import Iterator

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.clock import now
from mapfs.filesystem.content import MAX_FILE_BYTES
from mapfs.filesystem.repair.agreement import as_type, likely_type, mapped_pages
from mapfs.filesystem.repair.tables import RepairTables
from mapfs.filesystem.survey import (
    FILE_TYPES,
    ID_BYTES,
    INODE_BYTES,
    inode_of,
    is_id,
)
from mapfs.format.records import (
    FIRST_ID,
    HAS_ATTRIBUTES,
    ROOT_INODE,
    Entry,
    Inode,
    Table,
    id_key,
    id_of,
)


def repair_inodes(tables: RepairTables) -> Iterator[str]:
    """Afterwards every inode decodes, there is a root, and new numbers are above all old ones."""
    highest = FIRST_ID
    for key, value in tables.records(Table.INODES):
        inode, wrong = _judged(tables, key, value)
        if inode is None:
            yield f"drop the record of an inode: {wrong}"
            tables.delete(Table.INODES, key)
            continue
        if wrong:
            yield f"mend the record of inode {inode.number}: {wrong}"
            tables.put_inode(inode)
        highest = max(highest, inode.number)
    yield from _repair_root(tables)
    yield from _repair_next_id(tables, highest)


def _judged(tables: RepairTables, key: bytes, value: bytes) -> tuple[Inode | None, str]:
    """What can be kept of a record of INODES, and what is wrong with it."""
    inode, wrong = None, "other records say that it is of another type"
    try:
        inode = inode_of(key, value)
        number = inode.number
    except DamagedStoreError as error:
        wrong = str(error)
        number = id_of(key) if len(key) == ID_BYTES else 0
    if len(value) < INODE_BYTES or not (is_id(number) or number == ROOT_INODE):
        return None, wrong
    kind = likely_type(tables, number, value)
    if inode is not None and kind == inode.type:
        return inode, ""
    kind = kind if kind in FILE_TYPES else stat.S_IFREG
    return _mended(tables, as_type(number, value, kind)), wrong


def _mended(tables: RepairTables, inode: Inode) -> Inode:
    """An inode of the right type, with a size that is possible."""
    if inode.is_symlink:
        inode.size = len(inode.target)
    elif inode.is_file and inode.size > MAX_FILE_BYTES:
        end = mapped_pages(tables, inode.number) * tables.store.page_size
        inode.size = min(end, MAX_FILE_BYTES)
    return inode


def _repair_root(tables: RepairTables) -> Iterator[str]:
    root = tables.inode(ROOT_INODE)
    if root is None or not root.is_directory:
        yield "make a new root directory"
        root = Inode(ROOT_INODE, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), nlink=2)
        root.atime = root.mtime = root.ctime = root.btime = now()
    elif (root.parent, root.cookie, root.nlink > 0) != (ROOT_INODE, 0, True):
        yield "make the root directory its own parent"
    else:
        return
    root.parent, root.cookie = ROOT_INODE, 0
    root.nlink = max(2, root.nlink)
    tables.put_inode(root)


def _repair_next_id(tables: RepairTables, highest: int) -> Iterator[str]:
    for _, value in tables.records(Table.ENTRIES):
        try:
            cookie = Entry.unpack(value).cookie
        except DamagedStoreError:
            continue
        if is_id(cookie):
            highest = max(highest, cookie)
    state = tables.store.state
    if not highest < state.next_id or not is_id(state.next_id):
        yield f"number new inodes and names from {highest + 1} on"
        state.next_id = highest + 1


def repair_orphans(tables: RepairTables) -> Iterator[str]:
    """Afterwards the inodes without a name are the orphans; names are right by now."""
    for inode in tables.inodes():
        key = id_key(inode.number)
        if not inode.nlink and tables.get(Table.ORPHANS, key) is None:
            yield f"list inode {inode.number}, which has no name, as an orphan"
            tables.put(Table.ORPHANS, key, b"")
    for key, _ in tables.records(Table.ORPHANS):
        owner = tables.inode(id_of(key)) if len(key) == ID_BYTES else None
        if owner is None or owner.nlink:
            yield f"take {int.from_bytes(key, 'big')} off the list of orphans"
            tables.delete(Table.ORPHANS, key)


def repair_attributes(tables: RepairTables) -> Iterator[str]:
    """Afterwards every attribute has a name and an owner that knows of it."""
    for key, _ in tables.records(Table.XATTRS):
        inode = tables.inode(id_of(key)) if len(key) > ID_BYTES else None
        if inode is None:
            yield f"drop an attribute of inode {int.from_bytes(key[:ID_BYTES], 'big')}"
            tables.delete(Table.XATTRS, key)
        elif not inode.flags & HAS_ATTRIBUTES:
            yield f"note that inode {inode.number} has attributes"
            inode.flags |= HAS_ATTRIBUTES
            tables.put_inode(inode)
