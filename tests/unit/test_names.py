"""Names: the rules of POSIX that the kernel mostly checks first, held at the library."""

import errno
import stat

import pytest

from mapfs.errors import TooManyLinksError
from mapfs.filesystem import namespace
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.records import Inode
from mapfs.format.totals import Totals
from tests.unit.support import ME, ROOT, code_of, content, make, names, value, values

NOREPLACE, EXCHANGE = 1, 2
KINDS = [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]


def mkdir(fs: Filesystem, name: bytes, parent: int = ROOT) -> int:
    return fs.mkdir(parent, name, 0o755, ME).number


@pytest.fixture
def d(fs: Filesystem) -> int:
    """A directory `d`."""
    return mkdir(fs, b"d")


# Creating


@pytest.mark.parametrize("kind", KINDS)
def test_create(fs: Filesystem, kind: int) -> None:
    inode = fs.create(ROOT, b"f", kind | 0o640, ME, rdev=0x0803)
    assert (inode.type, inode.mode & 0o7777, inode.nlink) == (kind, 0o640, 1)
    assert (inode.uid, inode.gid, inode.rdev, inode.size) == (1000, 1000, 0x0803, 0)
    assert inode.atime == inode.mtime == inode.ctime == inode.btime > 0
    assert fs.lookup(ROOT, b"f") is inode
    assert [entry.type for entry in fs.readdir(ROOT)][2:] == [kind]


def test_create_makes_files_by_default(fs: Filesystem) -> None:
    assert fs.create(ROOT, b"f", 0o600, ME).is_file


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFLNK])
def test_create_makes_no_directories_or_links(fs: Filesystem, kind: int) -> None:
    assert code_of(lambda: fs.create(ROOT, b"f", kind, ME)) == errno.EINVAL


def test_symlink(fs: Filesystem) -> None:
    inode = fs.symlink(ROOT, b"l", b"some/where", ME)
    assert (inode.mode, inode.size) == (stat.S_IFLNK | 0o777, 10)
    assert fs.readlink(inode.number) == b"some/where"
    assert code_of(lambda: fs.readlink(make(fs, b"f"))) == errno.EINVAL
    fs.symlink(ROOT, b"long", b"t" * 4095, ME)
    assert code_of(lambda: fs.symlink(ROOT, b"m", b"t" * 4096, ME)) == errno.ENAMETOOLONG


def test_directories_count_their_links(fs: Filesystem, d: int) -> None:
    assert fs.inode(ROOT).nlink == 3
    assert fs.inode(d).nlink == 2
    e = mkdir(fs, b"e", d)
    make(fs, b"f", parent=d)
    assert fs.inode(d).nlink == 3
    fs.rename(d, b"e", ROOT, b"e")
    assert (fs.inode(d).nlink, fs.inode(ROOT).nlink, fs.inode(e).nlink) == (2, 4, 2)
    fs.rmdir(ROOT, b"e")
    assert (fs.inode(ROOT).nlink, fs.inode(e).nlink) == (3, 0)
    fs.forget(e)


def test_a_setgid_directory_hands_down_its_group(fs: Filesystem, d: int) -> None:
    fs.setattr(d, Changes(mode=0o2755, gid=42))
    fs.setattr(d, Changes(mode=0o2755))
    file = fs.create(d, b"f", 0o644, ME)
    below = fs.mkdir(d, b"e", 0o755, ME)
    link = fs.symlink(d, b"l", b"t", ME)
    assert {file.gid, below.gid, link.gid} == {42}
    assert below.mode & 0o7777 == 0o2755
    assert file.mode & 0o7777 == 0o644


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0b"])
def test_strange_names(fs: Filesystem, d: int, name: bytes) -> None:
    number = make(fs, b"f")
    for call in (
        lambda: fs.create(ROOT, name, 0o644, ME),
        lambda: fs.mkdir(ROOT, name, 0o755, ME),
        lambda: fs.symlink(ROOT, name, b"t", ME),
        lambda: fs.link(number, ROOT, name),
        lambda: fs.rename(ROOT, b"f", d, name),
    ):
        assert code_of(call) == errno.EINVAL


def test_names_of_255_bytes(fs: Filesystem) -> None:
    longest = bytes(byte for byte in range(1, 256) if byte != ord("/")) + b"x"
    assert len(longest) == 255
    number = make(fs, longest)
    assert fs.lookup(ROOT, longest).number == number
    assert names(fs) == [longest]
    fs.rename(ROOT, longest, ROOT, b"y" * 255)
    for call in (
        lambda: make(fs, b"x" * 256),
        lambda: fs.lookup(ROOT, b"x" * 256),
        lambda: fs.unlink(ROOT, b"x" * 256),
        lambda: fs.rmdir(ROOT, b"x" * 256),
        lambda: fs.link(number, ROOT, b"x" * 256),
        lambda: fs.rename(ROOT, b"y" * 255, ROOT, b"x" * 256),
        lambda: fs.rename(ROOT, b"x" * 256, ROOT, b"y"),
    ):
        assert code_of(call) == errno.ENAMETOOLONG


def test_a_file_is_no_directory(fs: Filesystem) -> None:
    number = make(fs, b"f")
    for call in (
        lambda: fs.lookup(number, b"x"),
        lambda: make(fs, b"x", parent=number),
        lambda: fs.create_unnamed(number, 0o600, ME),
        lambda: list(fs.readdir(number)),
        lambda: fs.unlink(number, b"x"),
        lambda: fs.rmdir(number, b"x"),
        lambda: fs.rename(number, b"x", ROOT, b"x"),
        lambda: fs.rename(ROOT, b"f", number, b"x"),
        lambda: fs.rmdir(ROOT, b"f"),
    ):
        assert code_of(call) == errno.ENOTDIR


def test_a_taken_name(fs: Filesystem, d: int) -> None:
    number = make(fs, b"f")
    for call in (
        lambda: make(fs, b"d"),
        lambda: mkdir(fs, b"f"),
        lambda: fs.symlink(ROOT, b"f", b"t", ME),
        lambda: fs.link(number, ROOT, b"d"),
        lambda: fs.rename(ROOT, b"f", ROOT, b"d", NOREPLACE),
    ):
        assert code_of(call) == errno.EEXIST


def test_a_missing_name(fs: Filesystem) -> None:
    for call in (
        lambda: fs.lookup(ROOT, b"x"),
        lambda: fs.unlink(ROOT, b"x"),
        lambda: fs.rmdir(ROOT, b"x"),
        lambda: fs.rename(ROOT, b"x", ROOT, b"y"),
        lambda: fs.inode(999),
        lambda: fs.link(999, ROOT, b"y"),
        lambda: fs.resolve(b"/a/b"),
        lambda: make(fs, b"f", parent=999),
    ):
        assert code_of(call) == errno.ENOENT


def test_nothing_is_made_in_a_deleted_directory(fs: Filesystem, d: int) -> None:
    number = make(fs, b"f")
    fs.rmdir(ROOT, b"d")
    for call in (
        lambda: make(fs, b"x", parent=d),
        lambda: mkdir(fs, b"x", d),
        lambda: fs.link(number, d, b"x"),
        lambda: fs.rename(ROOT, b"f", d, b"x"),
    ):
        assert code_of(call) == errno.ENOENT
    fs.forget(d)


def test_lookup_and_resolve(fs: Filesystem, d: int) -> None:
    e = mkdir(fs, b"e", d)
    number = make(fs, b"f", parent=e)
    assert fs.lookup(d, b".").number == d
    assert fs.lookup(e, b"..").number == d
    assert fs.lookup(ROOT, b"..").number == ROOT
    for path in (b"d/e/f", b"/d/e/f", b"//d//e/f/", b"d/../d/./e/f"):
        assert fs.resolve(path).number == number
    assert fs.resolve(b"/").number == ROOT


def test_numbers_are_not_used_again(fs: Filesystem) -> None:
    first = make(fs, b"f")
    fs.unlink(ROOT, b"f")
    fs.forget(first)
    assert make(fs, b"f") > first


# Links


def test_links_are_one_file(fs: Filesystem, d: int) -> None:
    number = make(fs, b"f", b"data")
    assert fs.link(number, d, b"g").nlink == 2
    fs.unlink(ROOT, b"f")
    assert fs.inode(number).nlink == 1
    assert content(fs, fs.lookup(d, b"g").number) == b"data"


def test_directories_have_one_name(fs: Filesystem, d: int) -> None:
    assert code_of(lambda: fs.link(d, ROOT, b"e")) == errno.EPERM


def test_links_to_links(fs: Filesystem) -> None:
    number = fs.symlink(ROOT, b"l", b"t", ME).number
    assert fs.link(number, ROOT, b"m").nlink == 2


def test_too_many_links(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    assert namespace.MAX_LINKS == 65_000
    monkeypatch.setattr(namespace, "MAX_LINKS", 5)
    number = make(fs, b"f")
    for name in range(4):
        fs.link(number, ROOT, b"%d" % name)
    with pytest.raises(TooManyLinksError):
        fs.link(number, ROOT, b"one more")
    assert TooManyLinksError.errno == errno.EMLINK
    fs.unlink(ROOT, b"f")
    fs.link(number, ROOT, b"now")


# The home entry: where a file with several names counts


def rfiles(fs: Filesystem, *directories: int) -> list[int]:
    return [value(fs, directory, b"dir.rfiles") for directory in directories]


def test_a_file_counts_where_its_oldest_name_is(fs: Filesystem, d: int) -> None:
    a, b = mkdir(fs, b"a"), mkdir(fs, b"b")
    number = make(fs, b"f", b"x" * 7, parent=d)
    fs.link(number, a, b"f")
    fs.link(number, b, b"f")
    assert rfiles(fs, d, a, b, ROOT) == [1, 0, 0, 1]
    assert value(fs, ROOT, b"dir.rslack") == 4089
    fs.unlink(d, b"f")
    assert rfiles(fs, d, a, b, ROOT) == [0, 1, 0, 1]
    assert values(fs, a, b"dir")["slack"] == 4089
    fs.unlink(a, b"f")
    assert rfiles(fs, d, a, b, ROOT) == [0, 0, 1, 1]
    fs.unlink(b, b"f")
    assert rfiles(fs, d, a, b, ROOT) == [0, 0, 0, 0]
    fs.forget(number)


def test_a_renamed_home_stays_home(fs: Filesystem, d: int) -> None:
    a = mkdir(fs, b"a")
    number = make(fs, b"f", parent=d)
    fs.link(number, ROOT, b"g")
    fs.rename(d, b"f", a, b"f")
    assert rfiles(fs, d, a) == [0, 1]
    assert values(fs, ROOT, b"dir")["files"] == 0


def test_an_exchanged_home_stays_home(fs: Filesystem, d: int) -> None:
    a = mkdir(fs, b"a")
    number = make(fs, b"f", b"x", parent=d)
    fs.link(number, ROOT, b"g")
    make(fs, b"h", b"y" * 5000, parent=a)
    fs.rename(d, b"f", a, b"h", EXCHANGE)
    assert values(fs, a, b"dir")["bytes"] == 1
    assert values(fs, d, b"dir")["bytes"] == 5000


# Unlinking


def test_unlink_is_not_for_directories(fs: Filesystem, d: int) -> None:
    assert code_of(lambda: fs.unlink(ROOT, b"d")) == errno.EISDIR


def test_rmdir(fs: Filesystem, d: int) -> None:
    make(fs, b"f", parent=d)
    assert code_of(lambda: fs.rmdir(ROOT, b"d")) == errno.ENOTEMPTY
    fs.unlink(d, b"f")
    fs.rmdir(ROOT, b"d")
    assert names(fs) == []


@pytest.mark.parametrize("name", [b".", b".."])
def test_dots_stay(fs: Filesystem, d: int, name: bytes) -> None:
    assert code_of(lambda: fs.rmdir(d, name)) == errno.EINVAL
    assert code_of(lambda: fs.unlink(d, name)) != 0
    assert code_of(lambda: fs.rename(d, name, ROOT, b"x")) != 0
    assert code_of(lambda: fs.rename(ROOT, b"d", d, name)) == errno.EINVAL


# Renaming


def test_rename(fs: Filesystem, d: int) -> None:
    number = make(fs, b"f", b"data")
    fs.rename(ROOT, b"f", d, b"g")
    assert fs.lookup(d, b"g").number == number
    assert (names(fs), names(fs, d)) == ([b"d"], [b"g"])
    assert rfiles(fs, ROOT, d) == [1, 1]


def test_rename_replaces(fs: Filesystem) -> None:
    one, other = make(fs, b"f", b"one"), make(fs, b"g", b"other")
    fs.rename(ROOT, b"f", ROOT, b"g")
    assert content(fs, fs.lookup(ROOT, b"g").number) == b"one"
    assert (fs.inode(one).nlink, fs.inode(other).nlink) == (1, 0)
    assert content(fs, other) == b"other"
    fs.forget(other)


def test_a_replaced_name_keeps_its_place_in_the_listing(fs: Filesystem) -> None:
    for name in (b"a", b"b", b"c"):
        make(fs, name)
    fs.rename(ROOT, b"c", ROOT, b"a")
    assert names(fs) == [b"a", b"b"]


def test_rename_of_two_names_of_one_file_does_nothing(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.link(number, ROOT, b"g")
    fs.rename(ROOT, b"f", ROOT, b"g")
    assert names(fs) == [b"f", b"g"]
    fs.rename(ROOT, b"f", ROOT, b"f")
    assert fs.inode(number).nlink == 2


def test_rename_of_types(fs: Filesystem, d: int) -> None:
    make(fs, b"f")
    assert code_of(lambda: fs.rename(ROOT, b"f", ROOT, b"d")) == errno.EISDIR
    assert code_of(lambda: fs.rename(ROOT, b"d", ROOT, b"f")) == errno.ENOTDIR
    e = mkdir(fs, b"e")
    make(fs, b"x", parent=e)
    assert code_of(lambda: fs.rename(ROOT, b"d", ROOT, b"e")) == errno.ENOTEMPTY
    fs.rename(ROOT, b"e", ROOT, b"d")
    assert names(fs) == [b"d", b"f"]
    assert names(fs, e) == [b"x"]
    fs.forget(d)


@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE])
def test_no_directory_goes_below_itself(fs: Filesystem, d: int, flags: int) -> None:
    e = mkdir(fs, b"e", d)
    below = mkdir(fs, b"g", e)
    name = b"x" if flags != EXCHANGE else b"g"
    assert code_of(lambda: fs.rename(ROOT, b"d", e, name, flags)) == errno.EINVAL
    target = {0: below, NOREPLACE: below, EXCHANGE: e}[flags]
    assert code_of(lambda: fs.rename(ROOT, b"d", target, name, flags)) == errno.EINVAL
    assert fs.resolve(b"d/e/g").number == below


def test_no_directory_replaces_one_above_it(fs: Filesystem, d: int) -> None:
    e = mkdir(fs, b"e", d)
    mkdir(fs, b"g", e)
    assert code_of(lambda: fs.rename(e, b"g", ROOT, b"d")) == errno.ENOTEMPTY
    assert code_of(lambda: fs.rename(e, b"g", ROOT, b"d", EXCHANGE)) == errno.EINVAL


def test_noreplace(fs: Filesystem, d: int) -> None:
    make(fs, b"f")
    assert code_of(lambda: fs.rename(ROOT, b"f", ROOT, b"f", NOREPLACE)) == errno.EEXIST
    fs.rename(ROOT, b"f", d, b"f", NOREPLACE)
    assert names(fs, d) == [b"f"]


@pytest.mark.parametrize("flags", [3, 4, 5, 8, -1])
def test_other_flags(fs: Filesystem, flags: int) -> None:
    make(fs, b"f")
    assert code_of(lambda: fs.rename(ROOT, b"f", ROOT, b"g", flags)) == errno.EINVAL


def test_exchange(fs: Filesystem, d: int) -> None:
    number = make(fs, b"f", b"data")
    fs.rename(ROOT, b"f", ROOT, b"d", EXCHANGE)
    assert fs.lookup(ROOT, b"d").number == number
    assert fs.lookup(ROOT, b"f").number == d
    assert names(fs) == [b"d", b"f"]
    assert code_of(lambda: fs.rename(ROOT, b"f", ROOT, b"x", EXCHANGE)) == errno.ENOENT
    fs.rename(ROOT, b"f", ROOT, b"f", EXCHANGE)


def test_exchange_of_directories_takes_totals_and_parents_along(fs: Filesystem, d: int) -> None:
    a = mkdir(fs, b"a")
    one, other = mkdir(fs, b"one", d), mkdir(fs, b"other", a)
    make(fs, b"f", b"x" * 7, parent=one)
    make(fs, b"g", b"x" * 5000, parent=other)
    mkdir(fs, b"deep", other)
    fs.rename(d, b"one", a, b"other", EXCHANGE)
    assert fs.lookup(one, b"..").number == a
    assert fs.lookup(other, b"..").number == d
    assert values(fs, d, b"dir") | {"rfiles": 1, "rbytes": 5000, "rsubdirs": 2} == (
        values(fs, d, b"dir")
    )
    assert values(fs, a, b"dir") | {"rfiles": 1, "rbytes": 7, "rsubdirs": 1} == (
        values(fs, a, b"dir")
    )
    assert value(fs, ROOT, b"dir.rbytes") == 5007


def test_exchange_of_a_file_and_a_directory_moves_links(fs: Filesystem, d: int) -> None:
    a = mkdir(fs, b"a")
    mkdir(fs, b"e", d)
    make(fs, b"f", b"x", parent=a)
    fs.rename(d, b"e", a, b"f", EXCHANGE)
    assert (fs.inode(d).nlink, fs.inode(a).nlink) == (2, 3)
    assert rfiles(fs, d, a) == [1, 0]


def test_a_moved_tree_takes_its_totals_along(fs: Filesystem, d: int) -> None:
    e = mkdir(fs, b"e", d)
    for number in range(5):
        make(fs, b"%d" % number, b"x" * 100, parent=e)
    a = mkdir(fs, b"a")
    fs.rename(d, b"e", a, b"e")
    make(fs, b"late", b"x" * 100, parent=e)
    assert [value(fs, at, b"dir.rbytes") for at in (d, a, e, ROOT)] == [0, 600, 600, 600]
    assert [value(fs, at, b"dir.rsubdirs") for at in (d, a, e, ROOT)] == [0, 1, 0, 3]


def test_totals_follow_files_before_they_are_folded(fs: Filesystem, d: int) -> None:
    a = mkdir(fs, b"a")
    number = make(fs, b"f", b"x" * 7, parent=d)
    fs.rename(d, b"f", a, b"f")
    fs.write(number, 7, b"x" * 4089)
    assert values(fs, a, b"dir")["slack"] == 0
    assert value(fs, d, b"dir.rfiles") == 0


def test_a_write_does_not_pay_for_its_depth(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ROOT
    for _ in range(50):
        directory = mkdir(fs, b"d", directory)
    number = make(fs, b"f", parent=directory)
    value(fs, ROOT, b"dir.rbytes")
    folded: list[int] = []
    add = fs._inodes.add_to_trees

    def counted(directory: Inode, change: Totals) -> None:
        folded.append(directory.number)
        add(directory, change)

    monkeypatch.setattr(fs._inodes, "add_to_trees", counted)
    for at in range(100):
        fs.write(number, at * 10, b"x" * 10)
    assert folded == []
    assert value(fs, ROOT, b"dir.rbytes") == 1000
    assert len(folded) == 1


def test_times_of_directories(fs: Filesystem, d: int) -> None:
    make(fs, b"f", parent=d)
    for call in (
        lambda: make(fs, b"g", parent=d),
        lambda: fs.link(fs.lookup(d, b"g").number, d, b"h"),
        lambda: fs.unlink(d, b"h"),
        lambda: fs.rename(d, b"f", d, b"i"),
    ):
        inode = fs.inode(d)
        inode.mtime = inode.ctime = 1
        call()
        assert inode.mtime == inode.ctime > 1


def test_many_directories_changed_at_once_keep_their_totals(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the inodes in memory: none may be there twice."""
    monkeypatch.setattr("mapfs.filesystem.inode._MOST_CACHED", 4)
    directories = [mkdir(fs, b"%d" % number) for number in range(20)]
    files = [make(fs, b"f", parent=directory) for directory in directories]
    mkdir(fs, b"e", directories[-1])
    mkdir(fs, b"e", directories[0])
    fs.commit()
    for file in files:
        fs.write(file, 0, b"x")
    fs.rmdir(directories[-1], b"e")
    fs.rename(directories[0], b"e", directories[-1], b"e")


def test_callers_are_remembered(fs: Filesystem) -> None:
    inode = fs.create(ROOT, b"f", 0o644, Caller(1234, 5678))
    assert (inode.uid, inode.gid) == (1234, 5678)
