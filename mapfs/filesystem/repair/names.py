"""Repair of names: entries, their places in listings, and what inodes know of their names.

Inodes decode by now. Entries are believed if both ends exist, unless listing and inode agree on
something else; COOKIES, LINKS, home entries and link counts follow from them.
"""

import stat
from collections.abc import Iterator

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.directory import MAX_NAME_BYTES
from mapfs.filesystem.repair.agreement import agreed_entry, confirmed
from mapfs.filesystem.repair.tables import RepairTables
from mapfs.filesystem.survey import entry_of, home_of, is_id, names, type_of
from mapfs.format.records import (
    MAX_U64,
    ROOT_INODE,
    Entry,
    Inode,
    Listed,
    Table,
    id_key,
    id_of,
    name_key,
    name_of,
    pack_count,
    pair_key,
    pair_of,
    unpack_count,
)


def repair_names(tables: RepairTables) -> Iterator[str]:
    """Afterwards names and inodes agree; only inodes without a name may be left over."""
    yield from _repair_entries(tables)
    yield from _repair_listings(tables)
    yield from _repair_links(tables)
    yield from _drop_stray_links(tables)
    yield from _repair_homes(tables)


def _repair_entries(tables: RepairTables) -> Iterator[str]:
    for key, value in tables.records(Table.ENTRIES):
        try:
            entry = entry_of(key, value)
        except DamagedStoreError as error:
            yield f"drop a directory entry: {error}"
            tables.delete(Table.ENTRIES, key)
            continue
        parent, name = id_of(key), name_of(key)
        if (agreed := agreed_entry(tables, parent, name, entry)) != entry:
            yield f"let {name!r} in {parent} name inode {agreed.inode}, as it is listed"
            entry = agreed
            tables.put(Table.ENTRIES, key, entry.pack())
        target = tables.get(Table.INODES, id_key(entry.inode))
        if target is None or entry.inode == ROOT_INODE or not _is_directory(tables, parent):
            yield f"drop {name!r} in {parent}: it names nothing, or is in no directory"
            tables.delete(Table.ENTRIES, key)
            continue
        if type_of(target) != entry.type:
            yield f"give {name!r} in {parent} the type of its inode"
            entry = Entry(entry.inode, entry.cookie, type_of(target))
            tables.put(Table.ENTRIES, key, entry.pack())
        yield from _repair_place(tables, parent, name, entry)


def _is_directory(tables: RepairTables, number: int) -> bool:
    value = tables.get(Table.INODES, id_key(number))
    return value is not None and type_of(value) == stat.S_IFDIR


def _repair_place(tables: RepairTables, parent: int, name: bytes, entry: Entry) -> Iterator[str]:
    """Let an entry be listed at its cookie, or at a new one if that cannot be."""
    found = tables.get(Table.COOKIES, pair_key(parent, entry.cookie))
    if is_id(entry.cookie) and found == Listed(entry.cookie, entry.inode, entry.type, name).pack():
        return
    if is_id(entry.cookie) and not _is_taken(tables, parent, entry.cookie, name):
        yield f"list {name!r} in {parent}"
    else:
        yield f"list {name!r} in {parent} at a place of its own"
        entry = Entry(entry.inode, tables.store.next_id(), entry.type)
    tables.put_entry(parent, name, entry)


def _is_taken(tables: RepairTables, parent: int, cookie: int, name: bytes) -> bool:
    """Whether another entry of the directory is rightly listed at `cookie`."""
    key = pair_key(parent, cookie)
    try:
        other = Listed.unpack(key, tables.get(Table.COOKIES, key) or b"").name
        if other == name or len(other) > MAX_NAME_BYTES:
            return False
        entry = tables.get(Table.ENTRIES, name_key(parent, other))
        return entry is not None and Entry.unpack(entry).cookie == cookie
    except DamagedStoreError:
        return False


def _repair_listings(tables: RepairTables) -> Iterator[str]:
    for key, value in tables.records(Table.COOKIES):
        if _is_named(tables, key, value):
            continue
        listed = confirmed(tables, key)
        parent = id_of(key) if listed is not None else 0
        if listed is not None and _is_missing(tables, parent, listed.name):
            yield f"name {listed.name!r} in {parent} again, as it is listed"
            target = tables.get(Table.INODES, id_key(listed.inode)) or b""
            entry = Entry(listed.inode, listed.cookie, type_of(target))
            tables.put_entry(parent, listed.name, entry)
        else:
            yield f"drop a listing in {int.from_bytes(key[:8], 'big')} that no entry belongs to"
            tables.delete(Table.COOKIES, key)


def _is_missing(tables: RepairTables, parent: int, name: bytes) -> bool:
    """Whether a directory has no entry of a name."""
    is_free = tables.get(Table.ENTRIES, name_key(parent, name)) is None
    return is_free and _is_directory(tables, parent)


def _is_named(tables: RepairTables, key: bytes, value: bytes) -> bool:
    try:
        parent, cookie = pair_of(key)
        listed = Listed.unpack(key, value)
    except DamagedStoreError:
        return False
    if len(listed.name) > MAX_NAME_BYTES:
        return False
    entry = tables.get(Table.ENTRIES, name_key(parent, listed.name))
    return entry == Entry(listed.inode, cookie, listed.type).pack()


def _is_name(tables: RepairTables, inode: int, parent: int, cookie: int) -> bool:
    """Whether the entry at `cookie` in directory `parent` stands for `inode`."""
    return names(tables.get(Table.COOKIES, pair_key(parent, cookie)), inode)


def _repair_links(tables: RepairTables) -> Iterator[str]:
    """Let every entry be its inode's home entry or one of its further names."""
    for key, value in tables.records(Table.ENTRIES):
        parent, entry = id_of(key), Entry.unpack(value)
        home = home_of(tables.get(Table.INODES, id_key(entry.inode)) or b"")
        if home == (parent, entry.cookie):
            continue
        link = tables.get(Table.LINKS, pair_key(entry.inode, entry.cookie))
        is_homes = entry.cookie == home[1] and _is_name(tables, entry.inode, *home)
        if link == pack_count(parent) and not is_homes:
            continue
        yield f"note {name_of(key)!r} in {parent} as a name of inode {entry.inode}"
        if is_homes or _is_used(tables, entry, link):
            tables.delete(Table.COOKIES, pair_key(parent, entry.cookie))
            entry = Entry(entry.inode, tables.store.next_id(), entry.type)
            tables.put_entry(parent, name_of(key), entry)
        tables.put_link(entry.inode, entry.cookie, parent)


def _is_used(tables: RepairTables, entry: Entry, link: bytes | None) -> bool:
    """Whether the record of LINKS that an entry needs rightly belongs to another one."""
    try:
        return link is not None and _is_name(tables, entry.inode, unpack_count(link), entry.cookie)
    except DamagedStoreError:
        return False


def _drop_stray_links(tables: RepairTables) -> Iterator[str]:
    for key, value in tables.records(Table.LINKS):
        try:
            (number, cookie), parent = pair_of(key), unpack_count(value)
            home = home_of(tables.get(Table.INODES, id_key(number)) or b"")
            if _is_name(tables, number, parent, cookie) and home != (parent, cookie):
                continue
        except DamagedStoreError:
            pass
        yield f"drop a name of inode {int.from_bytes(key[:8], 'big')} that it has not"
        tables.delete(Table.LINKS, key)


def _repair_homes(tables: RepairTables) -> Iterator[str]:
    """Let every inode with a name have a home entry, directories no other, and count them."""
    for inode in tables.inodes():
        if inode.number == ROOT_INODE:
            continue
        before = inode.pack()
        if not inode.cookie or not _is_name(tables, inode.number, inode.parent, inode.cookie):
            _find_home(tables, inode)
        found = int(inode.cookie != 0)
        for cookie, parent in _further_names(tables, inode.number):
            found += 1
            if inode.is_directory:
                yield f"drop a second name of directory {inode.number}, in {parent}"
                tables.remove_listed(parent, cookie)
                tables.delete(Table.LINKS, pair_key(inode.number, cookie))
        _count_names(tables, inode, found)
        if inode.pack() != before:
            yield f"correct home and link count of inode {inode.number}"
            tables.put_inode(inode)


def _further_names(tables: RepairTables, number: int) -> Iterator[tuple[int, int]]:
    stop = pair_key(number, MAX_U64)
    for key, value in tables.records(Table.LINKS, pair_key(number, 0), stop):
        yield pair_of(key)[1], unpack_count(value)


def _find_home(tables: RepairTables, inode: Inode) -> None:
    """Make the oldest further name the home entry, if there is one."""
    inode.cookie = 0
    for cookie, parent in _further_names(tables, inode.number):
        inode.parent, inode.cookie = parent, cookie
        tables.delete(Table.LINKS, pair_key(inode.number, cookie))
        return


def _count_names(tables: RepairTables, inode: Inode, found: int) -> None:
    """Set the link count; an inode that counts names but has none keeps its count for now."""
    if not inode.is_directory:
        inode.nlink = found or min(inode.nlink, 1)
    elif found or tables.has_entries(inode.number):
        inode.nlink = max(2, inode.nlink)
