"""The arithmetic of slack, for real pages and for what-if pages."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.filesystem.slack import contribution, slack_bytes, stored_bytes, what_if
from mapfs.format.extent import Mapping, pages_for
from mapfs.format.records import Inode
from mapfs.format.totals import WHAT_IF_SIZES, Totals
from tests.unit.support import ROOT, make, value, values

K, M, G = 1 << 10, 1 << 20, 1 << 30
KEEP_SIZE = 1


def never() -> "list[Mapping]":
    raise AssertionError("an ordinary file's extents need not be read")


def sparse(size: int, pages: "set[int]", page_size: int = 4096) -> tuple[Inode, list[Mapping]]:
    """A file of `size` bytes with these pages allocated."""
    inode = Inode(1, stat.S_IFREG, 0, 0)
    behind = pages_for(size, page_size)
    inode.size, inode.pages = size, len(pages)
    inode.prealloc = sum(page >= behind for page in pages)
    inode.tail = -size % page_size if behind - 1 in pages else 0
    return inode, [Mapping(page, 1000 - page, 1) for page in sorted(pages)]


@pytest.mark.parametrize(
    ("size", "allocated", "slack"),
    [
        (0, 0, 0),
        (1, 4096, 4095),
        (7, 4096, 4089),
        (4096, 4096, 0),
        (4097, 8192, 4095),
        (5 * K, 8192, 3072),
        (M, M, 0),
    ],
)
def test_ordinary_files(fs: Filesystem, size: int, allocated: int, slack: int) -> None:
    said = values(fs, make(fs, b"f", b"x" * size))
    assert (said["bytes"], said["allocated"], said["slack"]) == (size, allocated, slack)
    assert (said["slack.tail"], said["slack.prealloc"]) == (slack, 0)
    assert said["pages"] * 4096 == allocated
    assert value(fs, ROOT, b"fs.slack_bytes") == slack
    assert value(fs, ROOT, b"dir.rslack") == slack


def test_one_byte_far_out(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.write(number, G, b"x")
    said = values(fs, number)
    assert (said["bytes"], said["pages"], said["slack"]) == (G + 1, 1, 4095)
    assert said["slack.at.2m"] == 2 * M - 1
    assert said["slack.at.64k"] == 64 * K - 1


def test_a_hole_at_the_end_has_no_tail(fs: Filesystem) -> None:
    number = make(fs, b"f", b"x" * 100)
    fs.setattr(number, Changes(size=10_000))
    assert values(fs, number)["slack"] == 0
    fs.setattr(number, Changes(size=50))
    assert values(fs, number)["slack"] == 4046


def test_preallocated_pages_are_slack(fs: Filesystem) -> None:
    number = make(fs, b"f", b"x" * 5 * K)
    fs.fallocate(number, KEEP_SIZE, 0, 64 * K)
    said = values(fs, number)
    assert said["slack.tail"] == 3 * K
    assert said["slack.prealloc"] == 56 * K
    assert said["slack"] == 59 * K
    assert said["slack.at.64k"] == 59 * K
    assert said["slack.at.2m"] == 2 * M - 5 * K
    assert value(fs, ROOT, b"fs.slack_prealloc_bytes") == 56 * K
    assert value(fs, ROOT, b"fs.slack_tail_bytes") == 3 * K


def test_preallocation_of_a_sparse_file_is_slack(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.setattr(number, Changes(size=M))
    fs.fallocate(number, KEEP_SIZE, 2 * M, 4096)
    assert values(fs, number)["slack.prealloc"] == 4096
    fs.setattr(number, Changes(size=M - 1))
    assert values(fs, number)["pages"] == 0


@pytest.mark.parametrize("size", [0, 1, 7, 4096, 5 * K, 70_000, 3 * M + 5])
@pytest.mark.parametrize(("label", "other"), WHAT_IF_SIZES.items())
def test_what_if_of_ordinary_files(size: int, label: str, other: int) -> None:
    del label
    inode, _ = sparse(size, set(range(pages_for(size, 4096))))
    assert what_if(inode, 4096, other, never) == -size % other


@given(
    st.integers(0, 70 * 4096),
    st.sets(st.integers(0, 80), max_size=30),
    st.sampled_from([4096, 16384, 65536]),
    st.sampled_from([4096, 16384, 65536, 2 << 20]),
)
def test_what_if_counts_the_pages_that_are_needed(
    size: int, pages: "set[int]", page_size: int, other: int
) -> None:
    inode, mappings = sparse(size, pages, page_size)
    behind = pages_for(size, page_size)
    needed = set[int]()
    for page in pages:
        end = (page + 1) * page_size
        if page < behind:
            end = min(end, size)
        needed.update(range(page * page_size // other, pages_for(end, other)))
    found = what_if(inode, page_size, other, lambda: mappings)
    assert found == len(needed) * other - stored_bytes(inode, page_size)
    if other == page_size:
        assert found == slack_bytes(inode, page_size)


@given(st.integers(0, 70 * 4096), st.sets(st.integers(0, 80), max_size=30))
def test_stored_and_slack_make_up_the_pages(size: int, pages: "set[int]") -> None:
    inode, _ = sparse(size, pages)
    stored = sum(max(0, min(size, (page + 1) * 4096) - page * 4096) for page in pages)
    assert stored_bytes(inode, 4096) == stored
    assert slack_bytes(inode, 4096) == len(pages) * 4096 - stored


def test_a_run_across_the_end_is_data_and_preallocation() -> None:
    inode, _ = sparse(5000, {0, 1, 2, 3})
    assert what_if(inode, 4096, 16384, lambda: [Mapping(0, 9, 4)]) == 16384 - 5000


def test_contributions() -> None:
    directory = Inode(1, stat.S_IFDIR, 0, 0, nlink=2)
    assert contribution(directory, 4096, never) == Totals(subdirs=1)
    assert contribution(Inode(1, stat.S_IFIFO, 0, 0), 4096, never) == Totals(files=1)
    link = Inode(1, stat.S_IFLNK, 0, 0, size=5, target=b"there")
    assert contribution(link, 4096, never) == Totals(files=1)
    file, _ = sparse(5000, {0, 1})
    expected = Totals(1, 0, 5000, 2, 3192, 3192, 16384 - 5000, 65536 - 5000, 2 * M - 5000)
    assert contribution(file, 4096, never) == expected
    file.nlink = 0
    assert contribution(file, 4096, never) == Totals()
