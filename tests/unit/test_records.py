"""Codecs of the catalog: what is packed is unpacked, and what cannot be a record is refused."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import DamagedStoreError
from mapfs.format import records
from mapfs.format.extent import Extent, Mapping
from mapfs.format.records import Entry, Inode, Listed, State, Table
from mapfs.format.totals import TOTALS_BYTES, WHAT_IF_SIZES, Totals

U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
NAME = st.binary(min_size=1, max_size=255)
TOTALS = st.builds(Totals, *[I64] * 9)
LONG_NAMES = st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])


def fields(inode: Inode) -> list[object]:
    return [getattr(inode, name) for name in Inode.__dataclass_fields__]


@st.composite
def inodes(draw: st.DrawFn) -> Inode:
    inode = Inode(draw(U64), draw(st.integers(0, 0o7777)), draw(U32), draw(U32))
    inode.nlink, inode.rdev, inode.flags = draw(U32), draw(U32), draw(U32)
    inode.size, inode.pages, inode.extents = draw(U64), draw(U64), draw(U64)
    inode.prealloc, inode.tail = draw(U64), draw(U64)
    inode.atime, inode.mtime, inode.ctime, inode.btime = (draw(I64) for _ in range(4))
    inode.parent, inode.cookie = draw(U64), draw(U64)
    if draw(st.booleans()):
        inode.mode |= stat.S_IFDIR
        inode.own, inode.tree = draw(TOTALS), draw(TOTALS)
    else:
        inode.mode |= draw(LONG_NAMES)
        inode.target = draw(st.binary(max_size=4095))
    return inode


@given(inodes())
def test_inode(inode: Inode) -> None:
    assert fields(Inode.unpack(inode.number, inode.pack())) == fields(inode)


@given(inodes())
def test_a_cut_inode_is_damage(inode: Inode) -> None:
    packed = inode.pack()
    fixed = len(Inode(1, stat.S_IFREG, 0, 0).pack())
    for length in {0, 1, fixed - 1, *({len(packed) - 1} if inode.is_directory else ())}:
        with pytest.raises(DamagedStoreError):
            Inode.unpack(inode.number, packed[:length])


def test_a_directory_with_a_byte_too_many_is_damage() -> None:
    packed = Inode(9, stat.S_IFDIR, 0, 0).pack()
    with pytest.raises(DamagedStoreError, match="directory 9"):
        Inode.unpack(9, packed + b"\0")


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        (stat.S_IFDIR, (True, False, False)),
        (stat.S_IFREG, (False, True, False)),
        (stat.S_IFLNK, (False, False, True)),
        (stat.S_IFSOCK, (False, False, False)),
    ],
)
def test_types(kind: int, answers: tuple[bool, bool, bool]) -> None:
    inode = Inode(1, kind | 0o4711, 0, 0)
    assert inode.type == kind
    assert (inode.is_directory, inode.is_file, inode.is_symlink) == answers


@given(TOTALS)
def test_totals(totals: Totals) -> None:
    assert len(totals.pack()) == TOTALS_BYTES
    assert Totals.unpack(totals.pack()) == totals


@given(TOTALS, TOTALS)
def test_totals_add_and_take_away(first: Totals, second: Totals) -> None:
    total = first.plus(second)
    assert total.files == first.files + second.files
    assert total.at_2m == first.at_2m + second.at_2m
    assert total.minus(first) == second
    assert total.minus(first).minus(second) == Totals()


def test_totals_hold_the_bytes_of_many_huge_files() -> None:
    totals = Totals()
    for _ in range(1000):
        totals = totals.plus(Totals(files=1, bytes=(1 << 63) - 1))
    assert Totals.unpack(totals.pack()) == totals


def test_totals_have_a_field_for_every_what_if_size() -> None:
    assert {f"at_{label}" for label in WHAT_IF_SIZES} <= set(Totals._fields)


@given(st.builds(State, *[U64] * 7))
def test_state(state: State) -> None:
    assert State.unpack(state.pack()) == state


@given(st.builds(Entry, U64, U64, U32))
def test_entry(entry: Entry) -> None:
    assert Entry.unpack(entry.pack()) == entry


@given(st.builds(Listed, U64, U64, U32, NAME), U64)
def test_listed(listed: Listed, directory: int) -> None:
    assert Listed.unpack(records.pair_key(directory, listed.cookie), listed.pack()) == listed


@given(U64, U64, U64, U64)
def test_mapping(inode: int, page: int, start: int, count: int) -> None:
    key, value = records.pair_key(inode, page), records.pack_extent(Extent(start, count))
    assert records.unpack_mapping(key, value) == Mapping(page, start, count)
    assert records.id_of(key) == inode
    assert records.pair_of(key) == (inode, page)


@given(U64)
def test_count(count: int) -> None:
    assert records.unpack_count(records.pack_count(count)) == count


@given(U64, st.binary(max_size=255))
def test_name_key(inode: int, name: bytes) -> None:
    key = records.name_key(inode, name)
    assert (records.id_of(key), records.name_of(key)) == (inode, name)


@given(U64, U64)
def test_keys_sort_as_numbers(one: int, other: int) -> None:
    assert (records.id_key(one) < records.id_key(other)) == (one < other)
    assert (records.pair_key(0, one) < records.pair_key(0, other)) == (one < other)
    assert (records.pair_key(one, 9) < records.pair_key(other, 1)) == ((one, 9) < (other, 1))


@pytest.mark.parametrize("length", [0, 1, 15, 17, 19, 21, 23, 25, 55, 57])
def test_values_of_a_wrong_length_are_damage(length: int) -> None:
    value, key = bytes(length), records.pair_key(1, 2)
    for unpack in (
        records.unpack_count,
        State.unpack,
        Entry.unpack,
        lambda value: records.unpack_mapping(key, value),
    ):
        with pytest.raises(DamagedStoreError):
            unpack(value)


@pytest.mark.parametrize("length", [0, 1, 11, 12])
def test_a_listing_without_a_name_is_damage(length: int) -> None:
    with pytest.raises(DamagedStoreError):
        Listed.unpack(records.pair_key(1, 2), bytes(length))


@pytest.mark.parametrize("key", [b"", bytes(7), bytes(8), bytes(15), bytes(17)])
def test_keys_of_a_wrong_length_are_damage(key: bytes) -> None:
    with pytest.raises(DamagedStoreError):
        records.pair_of(key)
    with pytest.raises(DamagedStoreError):
        records.unpack_mapping(key, bytes(16))
    with pytest.raises(DamagedStoreError):
        Listed.unpack(key, bytes(20))
    if len(key) < 8:
        with pytest.raises(DamagedStoreError):
            records.id_of(key)


def test_tables_are_numbered_from_zero() -> None:
    assert [table.value for table in Table] == list(range(len(Table)))
