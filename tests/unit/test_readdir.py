"""Listings: cursors stay good while entries come and go."""

import stat
from itertools import count, islice

from hypothesis import given
from hypothesis import strategies as st

from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.records import Listed
from tests.unit.support import ME, ROOT, make, memory_store, names


def listed(fs: Filesystem, after: int = 0) -> list[Listed]:
    return list(fs.readdir(ROOT, after))


def test_an_empty_directory(fs: Filesystem) -> None:
    assert [(entry.name, entry.inode, entry.type) for entry in listed(fs)] == [
        (b".", ROOT, stat.S_IFDIR),
        (b"..", ROOT, stat.S_IFDIR),
    ]


def test_dots_of_a_subdirectory(fs: Filesystem) -> None:
    one = fs.mkdir(ROOT, b"one", 0o755, ME).number
    other = fs.mkdir(one, b"other", 0o755, ME).number
    assert [entry.inode for entry in fs.readdir(other)] == [other, one]


def test_entries_come_in_the_order_they_were_made(fs: Filesystem) -> None:
    for name in (b"z", b"a", b"m"):
        make(fs, name)
    assert names(fs) == [b"z", b"a", b"m"]


def test_a_listing_goes_on_behind_any_cookie(fs: Filesystem) -> None:
    for number in range(20):
        make(fs, b"%d" % number)
    whole = listed(fs)
    for position, entry in enumerate(whole):
        assert listed(fs, entry.cookie) == whole[position + 1 :]
    cookies = [entry.cookie for entry in whole]
    assert cookies == sorted(set(cookies))
    assert listed(fs, whole[-1].cookie + 1000) == []


def test_a_cursor_outlives_its_entry(fs: Filesystem) -> None:
    for number in range(10):
        make(fs, b"%d" % number)
    cursor = listed(fs)[5].cookie
    for number in range(5):
        fs.unlink(ROOT, b"%d" % number)
    make(fs, b"new")
    rest = [entry.name for entry in listed(fs, cursor)]
    assert rest == [b"5", b"6", b"7", b"8", b"9", b"new"]
    for number in range(4):
        fs.forget(16 + 2 * number)


def test_a_cursor_outlives_commits_and_layers(fs: Filesystem) -> None:
    for number in range(6):
        make(fs, b"%d" % number)
    fs.commit()
    commit = fs.begin_commit()
    fs.rename(ROOT, b"0", ROOT, b"late")
    first = list(islice(fs.readdir(ROOT), 4))
    commit.write()
    fs.end_commit(succeeded=True)
    rest = [entry.name for entry in listed(fs, first[-1].cookie)]
    assert [entry.name for entry in first[2:]] + rest == [b"1", b"2", b"3", b"4", b"5", b"late"]


class Reader:
    """Reads a directory piece by piece while its entries change."""

    def __init__(self, entries: int) -> None:
        self.fs = Filesystem(memory_store())
        self.there = {b"%d" % number for number in range(entries)}
        for name in self.there:
            make(self.fs, name)
        self.stayed = set(self.there)
        self.fresh = (b"new %d" % number for number in count())
        self.seen: list[bytes] = []
        self.cursor = 0

    def step(self, what: str, number: int) -> None:
        if what == "read":
            self.read(number % 7)
        elif what == "commit":
            self.fs.commit()
        elif what == "create" or not self.there:
            name = next(self.fresh)
            make(self.fs, name)
            self.there.add(name)
        else:
            self.take_away(what, sorted(self.there)[number % len(self.there)])

    def take_away(self, what: str, name: bytes) -> None:
        if what == "unlink":
            self.fs.unlink(ROOT, name)
        else:
            renamed = next(self.fresh)
            self.fs.rename(ROOT, name, ROOT, renamed)
            self.there.add(renamed)
        self.there.remove(name)
        self.stayed.discard(name)

    def read(self, most: int) -> None:
        for entry in list(islice(self.fs.readdir(ROOT, self.cursor), most)):
            self.seen.append(entry.name)
            self.cursor = entry.cookie


STEP = st.tuples(
    st.sampled_from(["create", "unlink", "rename", "read", "commit"]), st.integers(0, 40)
)


@given(st.integers(0, 30), st.lists(STEP, max_size=30))
def test_what_stays_is_listed_once(entries: int, steps: list[tuple[str, int]]) -> None:
    """POSIX: what is there from the first to the last readdir is returned exactly once."""
    reader = Reader(entries)
    for step in steps:
        reader.step(*step)
    reader.read(1000)
    assert len(reader.seen) == len(set(reader.seen))
    assert reader.stayed <= set(reader.seen)
    assert reader.seen[:2] == [b".", b".."]
    reader.fs.close()


def test_entries_come_with_their_inodes(fs: Filesystem) -> None:
    number = make(fs, b"f", b"x")
    found = [(entry.name, inode.number, inode.size) for entry, inode in fs.readdirplus(ROOT, 2)]
    assert found == [(b"f", number, 1)]
    assert [inode.number for _, inode in fs.readdirplus(ROOT)] == [ROOT, ROOT, number]
    assert next(inode for _, inode in fs.readdirplus(ROOT, 2)) is fs.inode(number)


def test_a_listing_with_inodes_leaves_the_cache_alone(fs: Filesystem) -> None:
    make(fs, b"f")
    fs.commit()
    fs._inodes._cache.clear()
    assert len(list(fs.readdirplus(ROOT))) == 3
    assert list(fs._inodes._cache) == [ROOT]


def test_a_listing_shows_what_changed_since_the_last_one(fs: Filesystem) -> None:
    """What it showed before is kept for a while, but only as long as it is true."""
    numbers = [make(fs, b"%d" % number) for number in range(1100)]
    fs.commit()
    fs._inodes._cache.clear()

    def sizes() -> dict[int, int]:
        return {inode.number: inode.size for _, inode in fs.readdirplus(ROOT, 2)}

    assert sizes() == dict.fromkeys(numbers, 0)
    fs.write(numbers[0], 0, b"abc")
    fs.setattr(numbers[-1], Changes(size=7))
    fs.unlink(ROOT, b"1")
    fs.forget(numbers.pop(1))
    expected = dict.fromkeys(numbers, 0) | {numbers[0]: 3, numbers[-1]: 7}
    assert sizes() == expected
    fs.commit()
    fs._inodes._cache.clear()
    assert sizes() == expected
    assert fs.inode(numbers[-1]).size == 7
