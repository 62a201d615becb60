"""The part of fsck that is about names: entries, listings, and what inodes say of them."""

import stat
from collections.abc import Callable, Iterator

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.directory import MAX_NAME_BYTES
from mapfs.filesystem.finding import Finding
from mapfs.filesystem.survey import (
    ID_BYTES,
    DirectoryCounts,
    Record,
    entry_of,
    home_of,
    is_id,
    names,
    type_of,
)
from mapfs.format.records import (
    ROOT_INODE,
    Entry,
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
from mapfs.store.store import Store


def stray_link(key: bytes) -> Finding:
    """What is wrong with a record of LINKS that no entry bears out."""
    return Finding("link-entry", f"inode {id_of(key)} is said to have a name it has not")


class NamesCheck:
    """Holds every entry against its listing and its inode, and the other way round."""

    def __init__(
        self,
        store: Store,
        records: Callable[[Table], Iterator[Record]],
        directories: dict[int, DirectoryCounts],
    ) -> None:
        """`records` reads a table; the entries of `directories` are counted in them."""
        self._store = store
        self._transaction = store.transaction
        self._records = records
        self._directories = directories
        self._is_home = False

    def findings(self, homes: int, links: int) -> Iterator[Finding]:
        """Every entry is listed, stands for an inode, and that inode knows it.

        No two entries can be served by one record, so equal counts leave none over. `homes` is how
        many inodes say that they have a home entry, `links` how many further names are recorded.
        """
        entries = homes_found = links_found = wrong = 0
        for key, value in self._records(Table.ENTRIES):
            entries += 1
            try:
                entry = entry_of(key, value)
            except DamagedStoreError as error:
                wrong += 1
                yield Finding("record-decodes", f"a directory entry: {error}")
                continue
            for finding in self._entry(id_of(key), name_of(key), entry):
                wrong += 1
                yield finding
            homes_found += self._is_home
            links_found += not self._is_home
        if wrong or entries != sum(1 for _ in self._records(Table.COOKIES)):
            yield from self._listings()
        if wrong or homes_found != homes:
            yield from self._home_entries()
        if wrong or links_found != links:
            yield from self._further_names()

    def _entry(self, parent: int, name: bytes, entry: Entry) -> Iterator[Finding]:
        target = self._transaction.get(Table.INODES, id_key(entry.inode))
        home = (0, 0) if target is None else home_of(target)
        self._is_home = home == (parent, entry.cookie)
        directory = self._directories.get(parent)
        if directory is None:
            yield Finding("entry-parent", f"{name!r} is in {parent}, which is no directory")
            return
        directory.entries += 1
        directory.subdirs += entry.type == stat.S_IFDIR
        if target is None or type_of(target) != entry.type or entry.inode == ROOT_INODE:
            yield Finding("entry-target", f"{name!r} in {parent} names no inode of its type")
        elif not self._is_home and not self._is_link(parent, entry, home[1]):
            yield Finding("entry-link", f"{name!r} in {parent} is unknown to its inode")
        if not is_id(entry.cookie) or entry.cookie >= self._store.state.next_id:
            yield Finding("inode-number", f"cookie {entry.cookie} was never handed out")
        found = self._transaction.get(Table.COOKIES, pair_key(parent, entry.cookie))
        if found != Listed(entry.cookie, entry.inode, entry.type, name).pack():
            yield Finding("entry-listed", f"{name!r} in {parent} is not listed as it is named")

    def _is_link(self, parent: int, entry: Entry, home_cookie: int) -> bool:
        link = self._transaction.get(Table.LINKS, pair_key(entry.inode, entry.cookie))
        return link == pack_count(parent) and entry.cookie != home_cookie

    def _listings(self) -> Iterator[Finding]:
        for key, value in self._records(Table.COOKIES):
            try:
                parent, cookie = pair_of(key)
                listed = Listed.unpack(key, value)
            except DamagedStoreError as error:
                yield Finding("record-decodes", f"a listing: {error}")
                continue
            name = listed.name[: MAX_NAME_BYTES + 1]  # LMDB refuses to look for long keys
            found = self._transaction.get(Table.ENTRIES, name_key(parent, name))
            if found != Entry(listed.inode, cookie, listed.type).pack():
                yield Finding("listed-entry", f"{listed.name!r} in {parent} is listed, not named")

    def _home_entries(self) -> Iterator[Finding]:
        for key, value in self._records(Table.INODES):
            parent, cookie = home_of(value)
            number = id_of(key.rjust(ID_BYTES, b"\0"))
            listing = self._transaction.get(Table.COOKIES, pair_key(parent, cookie))
            if cookie and number != ROOT_INODE and not names(listing, number):
                yield Finding("home-entry", f"inode {number} has no home entry")

    def _further_names(self) -> Iterator[Finding]:
        for key, value in self._records(Table.LINKS):
            try:
                number, cookie = pair_of(key)
                listing = self._transaction.get(
                    Table.COOKIES, pair_key(unpack_count(value), cookie)
                )
            except DamagedStoreError:
                continue  # found when its inode was checked
            if not names(listing, number):
                yield stray_link(key)
