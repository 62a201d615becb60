"""What most records say, where one of them is damaged: the type of an inode, and what a name means.

An entry, its place in the listing and the inode's home entry (or its record of LINKS) tell the same
three times over. One against two of them is wrong.
"""

import stat
from typing import Final

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.directory import MAX_NAME_BYTES, is_file_name
from mapfs.filesystem.repair.tables import RepairTables
from mapfs.filesystem.survey import FILE_TYPES, INODE_BYTES, home_of, is_id, mapping_of, type_of
from mapfs.format.records import (
    MAX_U64,
    ROOT_INODE,
    Entry,
    Inode,
    Listed,
    Table,
    id_key,
    name_key,
    pack_count,
    pair_key,
    pair_of,
)
from mapfs.format.totals import TOTALS_BYTES

_DIRECTORY_BYTES: Final = INODE_BYTES + 2 * TOTALS_BYTES


def likely_type(tables: RepairTables, number: int, value: bytes) -> int:
    """The type of an inode, given its record, of which what every inode has is there.

    Its own record may be the damaged one: its name, its extents and what is in it tell, too.
    Without either this is what the record says, which may be no type at all.
    """
    said, named = type_of(value), _named_type(tables, number, value)
    if named == stat.S_IFLNK and len(value) == INODE_BYTES:
        named = 0  # a link's target is in its record
    if said == named:
        return said
    if mapped_pages(tables, number):
        has_pages = as_type(number, value, stat.S_IFREG).pages > 0
        if stat.S_IFREG in (said, named) or (has_pages and not named):
            return stat.S_IFREG
    elif tables.has_entries(number):
        is_whole = len(value) == _DIRECTORY_BYTES and said != stat.S_IFLNK
        if stat.S_IFDIR in (said, named) or (is_whole and not named):
            return stat.S_IFDIR
    return named or said


def _named_type(tables: RepairTables, number: int, value: bytes) -> int:
    """The type that both the home entry and its listing give an inode, 0 if they do not."""
    parent, cookie = home_of(value)
    key = pair_key(parent, cookie)
    try:
        listed = Listed.unpack(key, tables.get(Table.COOKIES, key) or b"")
        entry = tables.get(Table.ENTRIES, name_key(parent, listed.name[:MAX_NAME_BYTES]))
    except DamagedStoreError:
        return 0
    if listed.inode != number or entry != Entry(number, cookie, listed.type).pack():
        return 0
    return listed.type if listed.type in FILE_TYPES else 0


def mapped_pages(tables: RepairTables, number: int) -> int:
    """Where the last extent of an inode ends, in pages, 0 if it has none."""
    end = 0
    start, stop = pair_key(number, 0), pair_key(number, MAX_U64)
    for key, value in tables.records(Table.EXTENTS, start, stop):
        try:
            end = max(end, mapping_of(key, value, tables.store.page_size).end)
        except DamagedStoreError:
            continue
    return end


def as_type(number: int, value: bytes, kind: int) -> Inode:
    """A record of INODES, of which what every inode has is there, as an inode of a type."""
    mode = kind | stat.S_IMODE(int.from_bytes(value[:4], "little"))
    rest = b""
    if kind == stat.S_IFLNK:
        rest = value[INODE_BYTES:]
    elif kind == stat.S_IFDIR:
        is_whole = len(value) == _DIRECTORY_BYTES
        rest = value[INODE_BYTES:] if is_whole else bytes(2 * TOTALS_BYTES)
    return Inode.unpack(number, mode.to_bytes(4, "little") + value[4:INODE_BYTES] + rest)


def agreed_entry(tables: RepairTables, parent: int, name: bytes, entry: Entry) -> Entry:
    """The entry, or what its listing makes of it if only of that the inode knows."""
    listed = confirmed(tables, pair_key(parent, entry.cookie))
    if listed is None or listed.name != name or listed.inode == entry.inode:
        return entry
    if _knows(tables, entry.inode, parent, entry.cookie):
        return entry
    return Entry(listed.inode, entry.cookie, listed.type)


def confirmed(tables: RepairTables, key: bytes) -> Listed | None:
    """The listing with this key if it can be right and its inode knows of it."""
    try:
        parent, cookie = pair_of(key)
        listed = Listed.unpack(key, tables.get(Table.COOKIES, key) or b"")
    except DamagedStoreError:
        return None
    if not is_file_name(listed.name) or len(listed.name) > MAX_NAME_BYTES:
        return None
    if not is_id(cookie) or cookie >= tables.store.state.next_id:
        return None
    return listed if _knows(tables, listed.inode, parent, cookie) else None


def _knows(tables: RepairTables, number: int, parent: int, cookie: int) -> bool:
    """Whether an inode has it that an entry at `cookie` in a directory names it."""
    value = tables.get(Table.INODES, id_key(number))
    if value is None or number == ROOT_INODE:
        return False
    link = tables.get(Table.LINKS, pair_key(number, cookie))
    return home_of(value) == (parent, cookie) or link == pack_count(parent)
