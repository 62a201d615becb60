"""The allocator: nobody gets a page that somebody has, and in the end every page comes back."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import NoSpaceError
from mapfs.format.extent import Extent
from mapfs.format.records import Table, id_key, id_of, unpack_count
from mapfs.store import allocator as allocator_module
from mapfs.store import mkfs as store_module
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store
from mapfs.store.store import Store
from mapfs.store.transaction import Commit
from tests.unit.support import HEADER_PAGES, PAGE, memory_store


def commit(store: Store) -> None:
    store.settle()
    store.freeze().write()
    store.finish()


def pages(extents: "list[Extent]") -> list[int]:
    return [page for extent in extents for page in range(extent.start, extent.end)]


def take(store: Store, count: int, goal: int = 0) -> list[Extent]:
    """Exactly `count` pages."""
    taken = []
    while count:
        extent = store.allocator.allocate(count, goal)
        taken.append(extent)
        count -= extent.count
        goal = extent.end
    return taken


def in_table(store: Store, table: Table) -> list[int]:
    records = store.transaction.scan(table, id_key(0), b"\xff" * 9)
    return pages([Extent(id_of(key), unpack_count(value)) for key, value in records])


@pytest.fixture
def small() -> Iterator[Store]:
    store = memory_store(64)
    yield store
    store.close()


def test_a_store_begins_free(small: Store) -> None:
    assert small.allocator.free_pages == 64
    assert small.allocator.growth_pages == 0
    assert small.allocator.reserved_pages == 0
    assert small.allocator.pending_pages == 0


def test_extents_lie_behind_the_superblock(small: Store) -> None:
    extent = small.allocator.allocate(1)
    assert extent == Extent(HEADER_PAGES, 1)
    assert small.allocator.free_pages == 63
    assert small.allocator.reserved_pages == 63


def test_no_page_is_handed_out_twice(small: Store) -> None:
    taken = pages([extent for _ in range(32) for extent in take(small, 2)])
    assert len(set(taken)) == len(taken) == 64
    assert set(taken) == set(range(HEADER_PAGES, HEADER_PAGES + 64))


def test_a_full_store_is_no_space(small: Store) -> None:
    take(small, 64)
    with pytest.raises(NoSpaceError):
        small.allocator.allocate(1)
    assert small.allocator.free_pages == 0


def test_freed_pages_wait_for_the_commit(small: Store) -> None:
    taken = take(small, 64)
    small.allocator.free(Extent(taken[0].start, 5))
    assert small.allocator.free_pages == 5
    assert small.allocator.pending_pages == 5
    with pytest.raises(NoSpaceError):
        small.allocator.allocate(1)
    small.settle()
    frozen = small.freeze()
    with pytest.raises(NoSpaceError):
        small.allocator.allocate(1)
    frozen.write()
    with pytest.raises(NoSpaceError):
        small.allocator.allocate(1)
    small.finish()
    assert pages(take(small, 5)) == list(range(taken[0].start, taken[0].start + 5))
    assert small.allocator.pending_pages == 0


def test_freed_pages_wait_for_a_commit_that_succeeds(small: Store) -> None:
    taken = take(small, 64)
    small.allocator.free(taken[0])
    small.freeze()
    small.abort()
    with pytest.raises(NoSpaceError):
        small.allocator.allocate(1)
    commit(small)
    assert small.allocator.allocate(1).start == taken[0].start


def test_pages_freed_during_a_commit_wait_for_the_next(small: Store) -> None:
    first, second = take(small, 32), take(small, 32)
    small.allocator.free(first[0])
    small.settle()
    frozen = small.freeze()
    small.allocator.free(second[0])
    frozen.write()
    small.finish()
    got = pages(take(small, first[0].count))
    assert set(got) == set(pages(first[:1]))
    with pytest.raises(NoSpaceError):
        small.allocator.allocate(1)


def test_neighbours_are_joined(small: Store) -> None:
    commit(small)
    taken = pages(take(small, 64))
    for page in Random(1).sample(taken, 64):
        small.allocator.free(Extent(page, 1))
    commit(small)
    assert [value for _, value in small.transaction.scan(Table.FREE, id_key(0), b"\xff" * 9)] == [
        (64).to_bytes(8, "little")
    ]
    assert len(list(small.transaction.scan(Table.FREE_BY_SIZE, b"\0", b"\xff" * 17))) == 1


@pytest.fixture
def roomy() -> Iterator[Store]:
    store = memory_store(16000)
    yield store
    store.close()


@pytest.mark.parametrize("writers", [2, 5, 16])
def test_files_that_grow_side_by_side_stay_contiguous(roomy: Store, writers: int) -> None:
    ends = [0] * writers
    extents: list[list[Extent]] = [[] for _ in range(writers)]
    for _ in range(512):
        for writer in range(writers):
            extent = roomy.allocator.allocate(1, ends[writer])
            ends[writer] = extent.end
            if extents[writer] and extents[writer][-1].end == extent.start:
                start, count = extents[writer][-1]
                extents[writer][-1] = Extent(start, count + 1)
            else:
                extents[writer].append(extent)
    taken = [page for each in extents for page in pages(each)]
    assert len(set(taken)) == len(taken) == 512 * writers
    assert max(map(len, extents)) <= 12


def test_a_large_request_is_one_extent(roomy: Store) -> None:
    roomy.allocator.allocate(1)
    assert roomy.allocator.allocate(4000, goal=9999).count == 4000


def test_the_goal_is_honoured_where_it_is_free(roomy: Store) -> None:
    extent = roomy.allocator.allocate(1)
    roomy.allocator.settle(closing=True)
    commit(roomy)
    assert roomy.allocator.allocate(3, goal=extent.end) == Extent(extent.end, 3)


def test_many_writers_need_not_many_runs(roomy: Store) -> None:
    for _ in range(100):
        extent = roomy.allocator.allocate(3)
        roomy.allocator.allocate(1, goal=extent.end + 50)
    assert len(roomy.allocator._runs) <= 17


def test_runs_nobody_uses_are_given_up(roomy: Store) -> None:
    roomy.allocator.allocate(1)
    commit(roomy)
    assert roomy.allocator.reserved_pages > 0
    commit(roomy)
    assert roomy.allocator.reserved_pages == 0
    assert roomy.allocator.pending_pages == 0
    assert roomy.allocator.free_pages == 15999


def test_a_commit_records_the_runs(roomy: Store) -> None:
    extent = roomy.allocator.allocate(1)
    roomy.allocator.settle()
    pending = in_table(roomy, Table.PENDING)
    assert pending[0] == extent.end
    assert len(pending) == roomy.allocator.reserved_pages
    assert not set(pending) & set(in_table(roomy, Table.FREE))


def test_a_page_freed_right_after_it_left_a_recorded_run_is_not_lost(roomy: Store) -> None:
    roomy.allocator.allocate(1)
    commit(roomy)
    extent = roomy.allocator.allocate(1)
    roomy.allocator.free(extent)
    roomy.allocator.settle()
    assert extent.start in in_table(roomy, Table.PENDING)


def test_pending_pages_are_free_after_opening(bundle: Path) -> None:
    store = open_store(bundle)
    taken = take(store, 100)
    commit(store)
    store.allocator.free(Extent(taken[0].start, 10))
    commit(store)  # its release of the pages never reaches the disk
    store.close()
    store = open_store(bundle)
    store.allocator.recover()
    assert store.allocator.free_pages == 1024 - 90
    commit(store)
    assert store.allocator.pending_pages == 0
    free = in_table(store, Table.FREE)
    assert len(free) == 1024 - 90
    assert in_table(store, Table.PENDING) == []
    assert not set(free) & set(pages(taken)[10:])
    store.close()


def test_the_last_pages_are_found_in_runs(small: Store) -> None:
    first = small.allocator.allocate(1)
    others = pages([extent for _ in range(9) for extent in take(small, 7, goal=1 << 20)])
    assert len({first.start, *others}) == 64


def test_pages_of_runs_that_were_given_up_come_back_with_a_commit(small: Store) -> None:
    def take_all() -> None:
        for _ in range(64):
            small.allocator.allocate(1, goal=1 << 20)

    with pytest.raises(NoSpaceError):
        take_all()
    assert small.allocator.pending_pages == small.allocator.free_pages > 0
    left = small.allocator.free_pages
    commit(small)
    take(small, left)


def test_fragments_add_up(small: Store) -> None:
    taken = pages(take(small, 64))
    for page in taken[::2]:
        small.allocator.free(Extent(page, 1))
    commit(small)
    assert sorted(pages(take(small, 32))) == taken[::2]


def test_the_best_fit_is_taken(roomy: Store) -> None:
    taken = pages(take(roomy, 16000))
    for start, count in ((0, 100), (200, 20), (400, 1000)):
        roomy.allocator.free(Extent(taken[start], count))
    commit(roomy)
    assert roomy.allocator.allocate(10, goal=1 << 30).start == taken[200]


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of 32 pages that may grow to 100, by 16 at a time."""
    monkeypatch.setattr(store_module, "_FIRST_STORE_BYTES", 32 * PAGE)
    monkeypatch.setattr(allocator_module, "_LEAST_GROWTH_BYTES", 16 * PAGE)
    store = memory_store(100 - HEADER_PAGES)
    store.allocator._largest_run = 1
    yield store
    store.close()


def test_a_store_grows_to_its_limit(growing: Store) -> None:
    assert growing.state.store_pages == 32
    assert growing.allocator.growth_pages == 68
    sizes = set()
    for _ in range(98):
        take(growing, 1)
        sizes.add(growing.state.store_pages)
    assert sizes == {32, 48, 64, 80, 96, 100}
    assert growing.allocator.growth_pages == 0
    with pytest.raises(NoSpaceError):
        growing.allocator.allocate(1)


def test_a_store_grows_by_what_is_needed(growing: Store) -> None:
    assert growing.allocator.allocate(60).count == 60
    assert growing.state.store_pages == 92


def test_a_request_beyond_the_limit_gets_what_there_is(growing: Store) -> None:
    assert sum(extent.count for extent in take(growing, 98)) == 98
    assert growing.state.store_pages == 100


def test_a_host_that_refuses_to_grow(growing: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_size: int) -> None:
        raise OSError(errno.EFBIG, "no larger")

    take(growing, 30)
    monkeypatch.setattr(growing.backing, "resize", refuse)
    with pytest.raises(OSError, match="no larger"):
        growing.allocator.allocate(1)
    assert growing.state.store_pages == 32


class Host:
    """Stands for `prepare` on a host with room for some pages."""

    def __init__(self, room: int, prepare: Callable[[int, int], None], code: int) -> None:
        self.room, self.prepare, self.code = room, prepare, code

    def __call__(self, offset: int, length: int) -> None:
        if length > self.room * PAGE:
            raise OSError(self.code, "host full")
        self.room -= length // PAGE
        self.prepare(offset, length)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_nearly_full_host_still_gives_what_is_needed(
    small: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(small.backing, "prepare", Host(3, small.backing.prepare, code))
    taken = [page for _ in range(3) for page in pages(take(small, 1))]
    assert len(set(taken)) == 3
    with pytest.raises(OSError, match="host full") as caught:
        small.allocator.allocate(1)
    assert caught.value.errno == code
    assert small.allocator.free_pages == 61
    assert sorted([*taken, *in_table(small, Table.FREE)]) == list(range(2, 66))


def test_another_error_of_the_host_is_not_tried_twice(
    small: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(0, small.backing.prepare, errno.EIO)
    monkeypatch.setattr(small.backing, "prepare", host)
    with pytest.raises(OSError, match="host full"):
        small.allocator.allocate(1)
    assert len(in_table(small, Table.FREE)) == 64


def test_prepared_pages_are_zeros_when_they_are_used_again(small: Store) -> None:
    taken = take(small, 64)
    for extent in taken:
        small.backing.write(extent.start * PAGE, b"secret!!" * (extent.count * PAGE // 8))
    for extent in taken:
        small.allocator.free(extent)
    commit(small)
    for extent in take(small, 64):
        data = b"".join(small.backing.read(extent.start * PAGE, extent.count * PAGE))
        assert data == bytes(len(data))


class Users:
    """Those who take and free pages, and know which pages nobody may get."""

    def __init__(self, run: int) -> None:
        self.store = memory_store(64)
        self.store.allocator._largest_run = run
        self.store.allocator._shared.grant = max(1, run // 2)
        self.held: set[int] = set()
        self.unsafe: set[int] = set()  # freed, and no commit has said so yet
        self.commit: tuple[Commit, set[int]] | None = None

    def step(self, what: str, count: int, goal: int) -> None:
        if what == "take":
            self.take(count, goal)
        elif what == "free":
            self.free(count)
        elif what == "settle":
            self.store.allocator.settle()
        elif self.commit is None:
            self.store.settle()
            self.commit = self.store.freeze(), set(self.unsafe)
        else:
            self.end_commit(succeeds=what == "commit")
        assert self.store.allocator.free_pages == 64 - len(self.held)

    def take(self, count: int, goal: int) -> None:
        try:
            got = set(pages([self.store.allocator.allocate(count + 1, goal)]))
        except NoSpaceError:
            assert len(self.held) + self.store.allocator.pending_pages == 64
            return
        assert not got & (self.held | self.unsafe)
        self.held |= got

    def free(self, which: int) -> None:
        if self.held:
            page = sorted(self.held)[which % len(self.held)]
            self.store.allocator.free(Extent(page, 1))
            self.held.remove(page)
            self.unsafe.add(page)

    def end_commit(self, *, succeeds: bool) -> None:
        assert self.commit is not None
        commit, said = self.commit
        self.commit = None
        if succeeds:
            commit.write()
            self.store.finish()
            self.unsafe -= said
        else:
            self.store.abort()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "free", "commit", "commit", "abort", "settle"]),
        st.integers(0, 20),
        st.integers(0, 70),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 32))
def test_every_page_is_in_one_place(steps: list[tuple[str, int, int]], run: int) -> None:
    users = Users(run)
    for step in steps:
        users.step(*step)
    users.store.allocator.settle()
    free, pending = (in_table(users.store, table) for table in (Table.FREE, Table.PENDING))
    assert sorted([*users.held, *free, *pending]) == list(range(HEADER_PAGES, HEADER_PAGES + 64))
    assert users.unsafe <= set(pending)
    users.store.close()


def test_a_fresh_bundle_has_all_pages(tmp_path: Path) -> None:
    create_store(tmp_path / "t.mapfs", StoreOptions(1 << 20, PAGE))
    store = open_store(tmp_path / "t.mapfs")
    assert len(in_table(store, Table.FREE)) == store.allocator.free_pages == 254
    store.close()


HUGE_PAGE = (2 << 20) // PAGE


@pytest.fixture
def large() -> Iterator[Store]:
    store = memory_store(16 * HUGE_PAGE)
    yield store
    store.close()


def test_a_file_that_comes_in_large_pieces_begins_at_a_huge_page(large: Store) -> None:
    small_file, large_file = (large.allocator.allocate(count) for count in (1, HUGE_PAGE // 2))
    assert small_file.count == 1
    assert large_file.start % HUGE_PAGE == 0
    assert large.allocator.allocate(HUGE_PAGE // 2, large_file.end).start == large_file.end


def test_a_file_goes_on_at_the_same_place_in_another_huge_page(large: Store) -> None:
    """Where the page behind it is taken, it still fits the large pages of the page cache."""
    file = large.allocator.allocate(HUGE_PAGE)
    further = large.allocator.allocate(HUGE_PAGE, file.end - 1, HUGE_PAGE + 7)
    assert further.start % HUGE_PAGE == 7
    assert large.allocator.allocate(HUGE_PAGE, further.end, 5).start == further.end


def test_pages_before_a_huge_page_stay_free(large: Store) -> None:
    take(large, HUGE_PAGE)
    assert in_table(large, Table.FREE)[0] == HEADER_PAGES
    rest = large.allocator.free_pages
    assert rest == 15 * HUGE_PAGE
    assert len(set(pages(take(large, rest)))) == rest
    assert not in_table(large, Table.FREE)
    assert large.state.allocated_pages == 16 * HUGE_PAGE
