"""The tables as a repair sees them: read in pieces, changed meanwhile, committed in batches."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from mapfs.filesystem.survey import BEHIND, Record
from mapfs.format.records import (
    MAX_U64,
    Entry,
    Inode,
    Listed,
    Table,
    id_key,
    name_key,
    pack_count,
    pair_key,
)
from mapfs.store.store import Store

_PIECE_RECORDS: Final = 256
_BATCH_CHANGES: Final = 20_000


class RepairTables:
    """Reads and changes of a repair. Every change goes through the running transaction."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._transaction = store.transaction
        self.get = store.transaction.get
        self.put = store.transaction.put
        self.delete = store.transaction.delete
        state = store.state
        for counter in ("allocated_pages", "inodes", "tail_bytes", "prealloc_pages"):
            # Counted anew at the end; until then a commit must be able to write them.
            setattr(state, counter, max(0, min(getattr(state, counter), MAX_U64)))

    def records(self, table: Table, start: bytes = b"", stop: bytes = BEHIND) -> Iterator[Record]:
        """The records of a table in order; it may be changed meanwhile, and batches committed."""
        last = None
        while True:
            piece = list(islice(self._transaction.scan(table, start, stop), _PIECE_RECORDS))
            yield from (record for record in piece if record[0] != last)
            if len(piece) < _PIECE_RECORDS:
                return
            start = last = piece[-1][0]
            self.end_batch()

    def inodes(self) -> Iterator[Inode]:
        """Every inode; all of them decode by now."""
        for key, value in self.records(Table.INODES):
            yield Inode.unpack(int.from_bytes(key, "big"), value)

    def inode(self, number: int) -> Inode | None:
        """One inode, or None if there is none."""
        value = self.get(Table.INODES, id_key(number))
        return None if value is None else Inode.unpack(number, value)

    def put_inode(self, inode: Inode) -> None:
        """Write an inode's record."""
        self.put(Table.INODES, id_key(inode.number), inode.pack())

    def put_entry(self, parent: int, name: bytes, entry: Entry) -> None:
        """Write an entry and its place in the listing."""
        listed = Listed(entry.cookie, entry.inode, entry.type, name)
        self.put(Table.ENTRIES, name_key(parent, name), entry.pack())
        self.put(Table.COOKIES, pair_key(parent, entry.cookie), listed.pack())

    def remove_listed(self, parent: int, cookie: int) -> bytes:
        """Remove the entry that is listed at `cookie`, and say its name."""
        key = pair_key(parent, cookie)
        value = self.get(Table.COOKIES, key)
        assert value is not None  # listings are right by now
        name = Listed.unpack(key, value).name
        self.delete(Table.COOKIES, key)
        self.delete(Table.ENTRIES, name_key(parent, name))
        return name

    def put_link(self, inode: int, cookie: int, parent: int) -> None:
        """Write a further name of an inode."""
        self.put(Table.LINKS, pair_key(inode, cookie), pack_count(parent))

    def has_entries(self, directory: int) -> bool:
        """Whether there are names in a directory."""
        entries = self.records(Table.ENTRIES, id_key(directory), id_key(directory + 1))
        return next(entries, None) is not None

    def end_batch(self) -> None:
        """Commit if much has changed: it bounds the memory that changes take."""
        if self._transaction.changes >= _BATCH_CHANGES:
            self.commit()

    def commit(self) -> None:
        """Make the changes durable, waiting for it."""
        commit = self.store.freeze()
        succeeded = False
        try:
            commit.write()
            succeeded = True
        finally:
            if succeeded:
                self.store.finish()
            else:
                self.store.abort()
