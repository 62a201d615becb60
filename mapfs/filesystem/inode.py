"""The inode table: one live object per inode in use.

What an operation changed goes to the running transaction when it ends, directories at a commit:
their totals are brought up to date only then.

Rule for everyone above: call `edit(inode)` before changing an inode. It notes what the inode
counted for until now, so that the totals of directories can follow later (`fold`), and it
refuses on a read-only store.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from mapfs.errors import DamagedStoreError, NotFoundError, ReadOnlyError
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.slack import contribution
from mapfs.format.frames import Kind
from mapfs.format.records import NOT_COUNTED, ROOT_INODE, Counted, Inode, Table, id_key
from mapfs.format.totals import Totals
from mapfs.store.store import Store

_MOST_CACHED: Final = 32768
# What a listing shows, whoever lists asks for next, one by one: ls(1) for the ACL of each.
_MOST_PEEKED: Final = 1024


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How often an inode was found in the cache, how often not, and how many it holds."""

    hits: int
    misses: int
    inodes: int


class InodeTable:
    """The INODES table with a bounded cache, and the totals of directories."""

    def __init__(self, store: Store, extents: ExtentMap) -> None:
        self._store = store
        self._extents = extents
        self._cache: OrderedDict[int, Inode] = OrderedDict()
        # Those that left the cache and are still held: there must never be two objects for one.
        self._live: WeakValueDictionary[int, Inode] = WeakValueDictionary()
        # What was looked at once: as the catalog has it, for `get` takes it out.
        self._peeked: dict[int, Inode] = {}
        self._dirty: dict[int, Inode] = {}
        # What each inode that was changed since the last `fold` counted for before.
        self._before: dict[int, Counted] = {}
        # What the operation under way has changed; the directories whose totals it has.
        self._touched: dict[int, Inode] = {}
        self._retotalled: set[int] = set()
        self._newly_counted: list[int] = []
        self._folded = False
        self._hits = self._misses = 0

    @property
    def cache_use(self) -> CacheUse:
        """What the cache was good for so far."""
        return CacheUse(self._hits, self._misses, len(self._cache))

    def get(self, number: int) -> Inode:
        """The inode `number`. Raises `NotFoundError` if it is not in use."""
        inode = self._cache.get(number)
        if inode is not None:
            self._cache.move_to_end(number)
            self._hits += 1
            return inode
        self._misses += 1
        inode = self._live.get(number) or self._peeked.pop(number, None) or self._load(number)
        self._remember(inode)
        return inode

    def peek(self, number: int) -> Inode:
        """The inode `number` to be looked at once: a listing must not empty the cache.

        It must be neither changed nor kept. Raises `NotFoundError`.
        """
        inode = self._cache.get(number) or self._live.get(number) or self._peeked.get(number)
        if inode is None:
            if len(self._peeked) >= _MOST_PEEKED:
                self._peeked.clear()
            inode = self._peeked[number] = self._load(number)
        return inode

    def _load(self, number: int) -> Inode:
        value = self._store.transaction.get(Table.INODES, id_key(number))
        if value is None:
            raise NotFoundError(f"inode {number} is not in use")
        return self._checked(Inode.unpack(number, value))

    def _checked(self, inode: Inode) -> Inode:
        """The inode, if its counts can be true; sums of others would not fit their records."""
        within = inode.prealloc <= inode.pages <= self._store.state.store_pages
        if not within or inode.tail >= self._store.page_size:
            raise DamagedStoreError(f"inode {inode.number} has impossible counts")
        return inode

    def _remember(self, inode: Inode) -> None:
        self._cache[inode.number] = inode
        if len(self._cache) > _MOST_CACHED:
            number, evicted = self._cache.popitem(last=False)
            self._live[number] = evicted

    def is_orphan(self, number: int) -> bool:
        """Whether an inode is in use and has no name."""
        inode = self._cache.get(number)
        if inode is not None:
            return inode.nlink == 0
        return self._store.transaction.get(Table.ORPHANS, id_key(number)) is not None

    def require_writable(self) -> None:
        """Raise `ReadOnlyError` on a read-only store."""
        if self._store.read_only:
            raise ReadOnlyError("the filesystem is read-only")

    def edit(self, inode: Inode) -> None:
        """Announce a change of `inode`. Raises `ReadOnlyError` on a read-only store."""
        number = inode.number
        if number not in self._before:
            self.require_writable()
            self._before[number] = self._counted(inode)
            self._newly_counted.append(number)
        self._dirty[number] = self._touched[number] = inode

    def add(self, inode: Inode) -> None:
        """Put a new inode into the table."""
        self.require_writable()
        number = inode.number
        self._before[number] = NOT_COUNTED
        self._newly_counted.append(number)
        self._dirty[number] = self._touched[number] = inode
        if inode.is_directory:
            self._retotalled.add(number)
        self._store.state.inodes += 1
        self._remember(inode)

    def remove(self, inode: Inode) -> None:
        """Take an inode that has no name and no pages left out of the table."""
        self.edit(inode)  # `fold` will find it counted before and gone now
        self._dirty.pop(inode.number, None)
        self._touched.pop(inode.number, None)
        self._cache.pop(inode.number, None)
        self._live.pop(inode.number, None)
        self._peeked.pop(inode.number, None)
        self._store.transaction.delete(Table.INODES, id_key(inode.number))
        self._store.state.inodes -= 1

    def fold(self) -> None:
        """Bring the totals of directories, and the filesystem's slack, up to date.

        Costs the number of inodes changed since the last time, and for each directory among
        their parents its depth: a write itself pays nothing for either.
        """
        changes: dict[int, Totals] = {}
        before, self._before = self._before, {}
        self._newly_counted.clear()
        self._folded = True
        state = self._store.state
        for number, old in before.items():
            inode = self._dirty.get(number)
            new = NOT_COUNTED if inode is None else self._counted(inode)
            if new.share != old.share or new.parent != old.parent:
                changes[old.parent] = changes.get(old.parent, Totals()).minus(old.share)
                changes[new.parent] = changes.get(new.parent, Totals()).plus(new.share)
            state.tail_bytes += new.tail - old.tail
            state.prealloc_pages += new.prealloc - old.prealloc
        for number, change in changes.items():
            if change != Totals():
                directory = self.get(number)
                directory.own = directory.own.plus(change)
                self.add_to_trees(directory, change)

    def add_to_trees(self, directory: Inode, change: Totals) -> None:
        """Add a change to the tree totals of a directory and of everything above it."""
        for each in self.lineage(directory):
            number = each.number
            self._dirty[number] = self._touched[number] = each
            self._retotalled.add(number)
            each.tree = each.tree.plus(change)

    def lineage(self, directory: Inode) -> Iterator[Inode]:
        """A directory and everything above it up to the root.

        Raises `DamagedStoreError` if its parents go round in a circle.
        """
        for _ in range(self._store.state.inodes):
            yield directory
            if directory.number == ROOT_INODE:
                return
            directory = self.get(directory.parent)
        raise DamagedStoreError(f"directory {directory.number} does not hang on the root")

    def _counted(self, inode: Inode) -> Counted:
        share = contribution(
            inode, self._store.page_size, lambda: self._extents.mappings(inode.number)
        )
        return Counted(inode.parent, share, inode.tail, inode.prealloc)

    def flush(self) -> None:
        """Put every changed inode into the running transaction."""
        self.fold()
        for number, inode in self._dirty.items():
            if inode.is_directory or number in self._touched:
                self._store.transaction.put(Table.INODES, id_key(number), inode.pack())
        self._dirty.clear()
        self._touched.clear()
        self._retotalled.clear()

    def note_changes(self) -> None:
        """At the end of an operation: hand what it changed to the transaction and the log."""
        transaction = self._store.transaction
        note = transaction.note
        if self._folded:
            note(Kind.FOLDED, b"", b"")
            self._folded = False
        for number in self._newly_counted:
            note(Kind.COUNTED, id_key(number), self._before[number].pack())
        self._newly_counted.clear()
        for number, inode in self._touched.items():
            if not inode.is_directory:
                transaction.put(Table.INODES, id_key(number), inode.pack())
            elif number in self._retotalled:
                note(Table.INODES, id_key(number), inode.pack())
            else:
                note(Kind.FIXED, id_key(number), inode.pack_fixed())
        self._touched.clear()
        self._retotalled.clear()

    def touch_all(self) -> None:
        """For the log: let the next `note_changes` tell of every changed inode."""
        self._folded = True
        self._newly_counted = list(self._before)
        self._touched = dict(self._dirty)
        self._retotalled = set(self._dirty)

    def adopt(self, counted: Mapping[int, Counted]) -> None:
        """After a replay: what the inodes it changed counted for, so that `fold` can follow."""
        for number, before in counted.items():
            self._before[number] = before
            with contextlib.suppress(NotFoundError):
                self._dirty[number] = self.get(number)

    @property
    def changed(self) -> int:
        """The number of inodes changed since the last `flush`."""
        return len(self._dirty)
