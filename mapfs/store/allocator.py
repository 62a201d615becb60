"""The allocator: which pages of the store are free, and who gets them.

A page is, besides the superblock's, in exactly one of four places:
- an extent of a file (table EXTENTS);
- free (tables FREE, by position, and FREE_BY_SIZE);
- in a *run*: taken off the free tables ahead of need, zeroed and backed by the host, so that one
  system call serves many small allocations and files that grow side by side stay contiguous;
- just freed, until the commit that frees it is durable.
Pages of the last two kinds are in table PENDING at every commit; opening a store makes them free.
Freed pages that some process has mapped (`store/leases.py`) stay there until it lets go of them.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mapfs.errors import FULL, DamagedStoreError, NoSpaceError
from mapfs.format.extent import Extent, joined, without
from mapfs.format.frames import Kind
from mapfs.format.records import (
    MAX_U64,
    State,
    Table,
    id_key,
    id_of,
    pack_count,
    pack_extent,
    pair_key,
    pair_of,
    unpack_count,
)
from mapfs.format.superblock import Superblock
from mapfs.store.backing import Backing
from mapfs.store.machine_pages import FOLIO_BYTES, HUGE_PAGE_BYTES
from mapfs.store.transaction import Transaction, leased_pages

_FIRST_RUN_BYTES: Final = 4 << 20
_LARGEST_RUN_BYTES: Final = 128 << 20
_LEAST_GROWTH_BYTES: Final = 64 << 20
_MOST_RUNS: Final = 16
_ALL: Final = (id_key(0), id_key(MAX_U64))
_ALL_SIZES: Final = (pair_key(0, 0), pair_key(MAX_U64, MAX_U64))


@dataclass(slots=True, eq=False)
class _Run:
    """Prepared pages `start` to `start + count`; `grant` pages were taken the last time."""

    number: int
    start: int
    count: int
    grant: int
    used: bool = True
    recorded: int | None = None


class Allocator:
    """Hands out extents of zeroed pages. Belongs to the filesystem's thread."""

    def __init__(
        self, transaction: Transaction, backing: Backing, superblock: Superblock, state: State
    ) -> None:
        self._transaction = transaction
        self._backing = backing
        self._superblock = superblock
        self._state = state
        self._page_size = superblock.page_size
        self._largest_run = max(1, _LARGEST_RUN_BYTES // self._page_size)
        self._huge_page = max(1, HUGE_PAGE_BYTES // self._page_size)
        self._many = max(1, FOLIO_BYTES // self._page_size)
        self._shared = _Run(0, 0, 0, max(1, _FIRST_RUN_BYTES // self._page_size // 2))
        self._runs: dict[int, _Run] = {}
        self._moved: dict[int, _Run] = {}
        self._next_run = 1
        self._leased: list[Extent] = []
        self.pending_pages = 0
        self.releases = 0

    @property
    def free_pages(self) -> int:
        """Pages of the store as it is now that belong to no file."""
        state = self._state
        return state.store_pages - self._superblock.metadata_pages - state.allocated_pages

    @property
    def growth_pages(self) -> int:
        """Pages by which the store may still grow."""
        return self._superblock.limit_pages - self._state.store_pages

    @property
    def reserved_pages(self) -> int:
        """Free pages that the host has set blocks aside for already."""
        return sum(run.count for run in self._runs.values())

    @property
    def available_pages(self) -> int:
        """Pages that may still be allocated: never more than the host can back."""
        free = self.free_pages + self.growth_pages
        host = self._backing.host_free()
        return free if host is None else min(free, self.reserved_pages + host // self._page_size)

    def require_pages(self, count: int) -> None:
        """Raise `NoSpaceError` if there cannot be so many, before any work is done for them."""
        if count > self.available_pages:
            raise NoSpaceError(f"{count} pages are more than the store or its host has")

    def prepared_bytes(self, offset: int) -> int:
        """How many bytes from `offset` on, in the store file, are zeros that nobody has yet."""
        page, within = divmod(offset, self._page_size)
        run = None if within else self._runs.get(page)
        return 0 if run is None else run.count * self._page_size

    def holds(self, extent: Extent) -> bool:
        """Whether an extent lies among the data pages of the store as it is now."""
        return self._superblock.holds(extent) and extent.end <= self._state.store_pages

    def _require(self, extent: Extent) -> Extent:
        """The extent; a damaged record must not lead outside the data pages."""
        if not self.holds(extent):
            raise DamagedStoreError(f"free pages {tuple(extent)} lie outside the store")
        return extent

    def allocate(self, count: int, goal: int = 0, page: int = 0) -> Extent:
        """Between 1 and `count` pages that read as zeros, if possible from page `goal` on.

        A file passes the page behind its last extent as the goal, and which of its own pages comes
        first: many lie in huge pages of the store as they do in those of the file. Raises
        `NoSpaceError` when the store is full, and `OSError` (ENOSPC, EDQUOT) when the host is.
        """
        run = self._runs.get(goal)
        if run is None:
            is_shared = goal == 0 and count < self._many
            run = self._shared if is_shared else self._new_run(goal, count)
        if run.count == 0:
            self._refill(run, count, page)
        self._unregister(run)
        self._forget_record(run)  # its page is about to have an owner
        self._moved[run.number] = run
        extent = Extent(run.start, min(count, run.count))
        run.start, run.count, run.used = extent.end, run.count - extent.count, True
        self._state.allocated_pages += extent.count
        if run.count:
            self._runs[run.start] = run
        else:
            # Kept so that its writer gets a larger one, unless a run with pages starts here.
            self._runs.setdefault(run.start, run)
        return extent

    def free(self, extent: Extent) -> None:
        """Take back pages of a file; they are given out again once this is durable."""
        self._state.allocated_pages -= extent.count
        self._set_aside(extent)

    def release(self, extents: list[Extent], leased: Sequence[Extent] = ()) -> None:
        """Make extents free that were set aside; the commit that did so is durable.

        The pages among them that are `leased` stay pending until they no longer are.
        """
        self.releases += bool(extents)
        for extent in extents:
            self._transaction.delete(Table.PENDING, id_key(extent.start))
            self.pending_pages -= extent.count
        for extent in leased:
            self._transaction.put(Table.PENDING, id_key(extent.start), pack_count(extent.count))
        self._leased.extend(leased)
        for extent in without(joined(extents), leased):
            self._insert(extent)

    @property
    def leased_pages(self) -> int:
        """Free pages that stay as they are because somebody has mapped them."""
        return sum(extent.count for extent in self._leased)

    @property
    def has_ended_leases(self) -> bool:
        """Whether a commit would make pages free that were leased."""
        return any(map(self._is_ended, self._leased))

    def _is_ended(self, extent: Extent) -> bool:
        """Whether not all of an extent is leased any more."""
        leased = leased_pages(self._backing, [extent], self._page_size)
        return sum(part.count for part in leased) < extent.count

    def _retry_leased(self) -> None:
        """Let the next commit look again at pages whose lease has ended."""
        leased, self._leased = self._leased, []
        for extent in leased:
            if self._is_ended(extent):
                self._transaction.freed(extent)
                self.pending_pages += extent.count
            else:
                self._leased.append(extent)

    def recover(self) -> None:
        """After opening: whatever a crash left pending becomes free with the next commit."""
        behind = 0
        for key, value in self._transaction.scan(Table.PENDING, *_ALL):
            extent = self._require(Extent(id_of(key), unpack_count(value)))
            if extent.start < behind:
                raise DamagedStoreError("free pages overlap (mend it with: mapfs fsck --repair)")
            behind = extent.end
            self._transaction.freed(extent)
            self.pending_pages += extent.count

    def note_runs(self) -> None:
        """For the log: where the runs stand that moved since the last time."""
        for run in self._moved.values():
            place = Extent(run.start, run.count)
            self._transaction.note(Kind.RUN, id_key(run.number), pack_extent(place))
        self._moved.clear()

    def move_all(self) -> None:
        """For the log: let the next `note_runs` tell of every run."""
        self._moved = {run.number: run for run in self._runs.values()}

    def adopt_runs(self, runs: Iterable[Extent]) -> None:
        """After a replay: the pages of runs that nobody will use are pending."""
        for run in runs:
            if run.count:
                self._transaction.put(Table.PENDING, id_key(run.start), pack_count(run.count))

    def settle(self, *, closing: bool = False) -> None:
        """Before a commit is frozen: record the runs, and give up those that nobody used.

        With `closing` all are given up. Pages whose lease has ended become free with the commit.
        """
        self._retry_leased()
        for run in list(self._runs.values()):
            if closing or not run.used:
                self._give_up(run)
            elif run.recorded != run.start:
                self._record(run)
            run.used = False

    def _unregister(self, run: _Run) -> None:
        """Take a run off the list; where it stands another one may be listed."""
        if self._runs.get(run.start) is run:
            del self._runs[run.start]

    def _new_run(self, goal: int, count: int) -> _Run:
        """A run for one growing file: small at first, twice as large every time it is used up."""
        if len(self._runs) >= _MOST_RUNS:
            self._give_up(next(iter(self._runs.values())))
        self._next_run += 1
        return _Run(self._next_run, goal, 0, count)

    def _refill(self, run: _Run, count: int, page: int) -> None:
        self._forget_record(run)
        self._unregister(run)
        grant = max(count, min(2 * run.grant, self._largest_run))
        try:
            extent = self._take(run.start, grant, page)
        except OSError as error:
            # The host may be too full for the pages ahead and still have room for those needed.
            if error.errno not in FULL or grant == count:
                raise
            extent = self._take(run.start, count, page)
        run.start, run.count, run.grant = extent.start, extent.count, grant

    def _take(self, goal: int, count: int, page: int) -> Extent:
        """Up to `count` pages off the free tables, prepared."""
        free = self._find(goal, count)
        # What goes on where the file ends stays in one piece.
        extent = self._part(free, goal if free.start == goal else page, count)
        self._remove(free, extent)
        self._transaction.backing_changed()
        try:
            self._backing.prepare(extent.start * self._page_size, extent.count * self._page_size)
        except BaseException:
            # fallocate(2) may have reserved part of it: a full host must not stay full by that.
            with contextlib.suppress(OSError):
                self._backing.punch(extent.start * self._page_size, extent.count * self._page_size)
            self._insert(extent)
            raise
        return extent

    def _find(self, goal: int, count: int) -> Extent:
        """The free extent to take up to `count` pages of."""
        here = self._transaction.get(Table.FREE, id_key(goal)) if goal else None
        if here is not None:
            return self._require(Extent(goal, unpack_count(here)))
        found = self._best_fit(count)
        if found is None and self.growth_pages:
            self._grow(count)
            found = self._best_fit(count)
        found = found or self._largest()
        if found is None and self._runs:
            for run in list(self._runs.values()):
                self._dissolve(run)
            found = self._largest()
        if found is None:
            raise NoSpaceError("no free page in the store")
        return self._require(found)

    def _part(self, free: Extent, page: int, count: int) -> Extent:
        """Up to `count` pages of a free extent; many lie in huge pages as `page` does."""
        head = (page - free.start) % self._huge_page if count >= self._many else 0
        if head + count <= free.count:
            return Extent(free.start + head, count)
        return Extent(free.start, min(count, free.count))

    def _best_fit(self, count: int) -> Extent | None:
        keys = self._transaction.scan(Table.FREE_BY_SIZE, pair_key(count, 0), _ALL_SIZES[1])
        return next((_by_size(key) for key, _ in keys), None)

    def _largest(self) -> Extent | None:
        keys = self._transaction.descend(Table.FREE_BY_SIZE, _ALL_SIZES[1], _ALL_SIZES[0])
        return next((_by_size(key) for key, _ in keys), None)

    def _grow(self, count: int) -> None:
        """Make the store an eighth larger, at least by `count` pages, at most to its limit."""
        state = self._state
        step = max(count, state.store_pages // 8, _LEAST_GROWTH_BYTES // self._page_size)
        grown = Extent(state.store_pages, min(step, self.growth_pages))
        self._transaction.backing_changed()
        self._backing.resize(grown.end * self._page_size)
        state.store_pages = grown.end
        self._insert(grown)

    def _insert(self, extent: Extent) -> None:
        """Put an extent on the free tables, joined with the free extents it touches."""
        start, end = extent.start, extent.end
        below = next(self._transaction.descend(Table.FREE, id_key(start), _ALL[0]), None)
        if below is not None:
            before = Extent(id_of(below[0]), unpack_count(below[1]))
            if before.end == start:
                self._drop(before)
                start = before.start
        behind = self._transaction.get(Table.FREE, id_key(end))
        if behind is not None:
            after = Extent(end, unpack_count(behind))
            self._drop(after)
            end = after.end
        self._add(Extent(start, end - start))

    def _remove(self, free: Extent, part: Extent) -> None:
        """Take a part of a free extent off the free tables."""
        if self._transaction.get(Table.FREE, id_key(free.start)) != pack_count(free.count):
            raise DamagedStoreError(f"free pages {tuple(free)} are indexed but not free")
        self._drop(free)
        if part.start > free.start:
            self._add(Extent(free.start, part.start - free.start))
        if part.end < free.end:
            self._add(Extent(part.end, free.end - part.end))

    def _add(self, extent: Extent) -> None:
        self._transaction.put(Table.FREE, id_key(extent.start), pack_count(extent.count))
        self._transaction.put(Table.FREE_BY_SIZE, pair_key(extent.count, extent.start), b"")

    def _drop(self, extent: Extent) -> None:
        self._transaction.delete(Table.FREE, id_key(extent.start))
        self._transaction.delete(Table.FREE_BY_SIZE, pair_key(extent.count, extent.start))

    def _set_aside(self, extent: Extent) -> None:
        self._transaction.put(Table.PENDING, id_key(extent.start), pack_count(extent.count))
        self._transaction.freed(extent)
        self.pending_pages += extent.count

    def _record(self, run: _Run) -> None:
        self._forget_record(run)
        if run.count:
            self._transaction.put(Table.PENDING, id_key(run.start), pack_count(run.count))
            run.recorded = run.start

    def _forget_record(self, run: _Run) -> None:
        if run.recorded is not None:
            self._transaction.delete(Table.PENDING, id_key(run.recorded))
            run.recorded = None

    def _give_up(self, run: _Run) -> None:
        """Set a run's pages aside as if freed, so that the host gets their blocks back."""
        for extent in self._emptied(run):
            self._set_aside(extent)

    def _dissolve(self, run: _Run) -> None:
        """Make a run's pages free at once: no record on the disk refers to them."""
        for extent in self._emptied(run):
            self._insert(extent)

    def _emptied(self, run: _Run) -> list[Extent]:
        """End a run; its pages, if it had any left, are the caller's to place."""
        self._forget_record(run)
        self._unregister(run)
        if run.count == 0:
            return []
        pages = Extent(run.start, run.count)
        run.count = 0
        self._moved[run.number] = run
        return [pages]


def _by_size(key: bytes) -> Extent:
    count, start = pair_of(key)
    return Extent(start, count)
