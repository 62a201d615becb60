"""What the virtual attributes answer on a mount, against what was written there."""

import contextlib
import errno
import json
import os
import re
import stat
from pathlib import Path

import pytest

from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.opening import open_store
from tests.mount.tree import make_tree
from tests.mount.volume import Volume, both_transports, run, wait_until

pytestmark = pytest.mark.mount

PAGE = 4096
WHAT_IF = {"4k": 4 << 10, "16k": 16 << 10, "64k": 64 << 10, "2m": 2 << 20}


def ask(path: Path, name: str) -> int:
    """One attribute, as getfattr(1) prints it."""
    shown = run("getfattr", "--only-values", "--absolute-names", "-n", f"user.mapfs.{name}", path)
    assert re.fullmatch(r"0|[1-9]\d*", shown.stdout), f"{name} of {path}: {shown.stdout!r}"
    return int(shown.stdout)


def ask_all(path: Path, group: str) -> dict[str, int]:
    """A whole group of attributes."""
    values: dict[str, int] = json.loads(os.getxattr(path, f"user.mapfs.{group}.json"))
    return values


def walked(top: Path) -> dict[str, int]:
    """The recursive totals of a tree that has no holes, from sizes alone."""
    totals = dict.fromkeys(("rfiles", "rsubdirs", "rbytes", "rallocated", "rslack"), 0)
    seen = set()
    for path in top.rglob("*"):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            totals["rsubdirs"] += 1
            continue
        if found.st_ino in seen:
            continue
        seen.add(found.st_ino)
        totals["rfiles"] += 1
        if stat.S_ISREG(found.st_mode):
            totals["rbytes"] += found.st_size
            totals["rallocated"] += found.st_size + -found.st_size % PAGE
            totals["rslack"] += -found.st_size % PAGE
    return totals


def recursive(top: Path) -> dict[str, int]:
    """The recursive totals that the filesystem answers."""
    answered = ask_all(top, "dir")
    return {
        name: answered[name] for name in ("rfiles", "rsubdirs", "rbytes", "rallocated", "rslack")
    }


def assert_identity(volume: Volume) -> None:
    """Stored + slack + free + metadata is the size of the store, which is that of its file."""
    fs = ask_all(volume.mnt, "fs")
    parts = ("stored_bytes", "slack_bytes", "free_bytes", "metadata_bytes")
    assert sum(fs[part] for part in parts) == fs["store_bytes"]
    assert fs["store_bytes"] == (volume.store / "store").stat().st_size
    assert fs["allocated_bytes"] == fs["stored_bytes"] + fs["slack_bytes"]
    assert fs["slack_bytes"] == fs["slack_tail_bytes"] + fs["slack_prealloc_bytes"]


# One file


@both_transports
def test_a_file_wastes_the_rest_of_its_last_page(mnt: Path) -> None:
    examples = [
        (0, 0, 0),
        (1, 4096, 4095),
        (7, 4096, 4089),
        (4095, 4096, 1),
        (4096, 4096, 0),
        (4097, 8192, 4095),
        (5 << 10, 8192, 3072),
        (1 << 20, 1 << 20, 0),
    ]
    for size, allocated, slack in examples:
        path = mnt / f"of {size} bytes"
        path.write_bytes(b"x" * size)
        assert ask(path, "file.bytes") == size
        assert ask(path, "file.allocated") == allocated
        assert ask(path, "file.pages") == allocated // PAGE
        assert ask(path, "file.slack") == slack
        assert ask(path, "file.slack.tail") == slack
        assert ask(path, "file.slack.prealloc") == 0
        assert ask(path, "file.extents") == (1 if size else 0)
        assert path.stat().st_blocks * 512 == allocated
    total = sum(slack for _, _, slack in examples)
    assert ask(mnt, "fs.slack_bytes") == ask(mnt, "dir.slack") == total


def test_one_byte_behind_a_hole_of_1_gib_takes_one_page(mnt: Path) -> None:
    path = mnt / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"x")
    assert ask(path, "file.bytes") == (1 << 30) + 1
    assert ask(path, "file.allocated") == PAGE
    assert ask(path, "file.pages") == 1
    assert ask(path, "file.slack") == 4095
    assert ask(mnt, "fs.stored_bytes") == 1


def test_a_file_that_ends_in_a_hole_has_no_slack(mnt: Path) -> None:
    path = mnt / "file"
    path.write_bytes(b"x" * PAGE)
    os.truncate(path, PAGE + 100)
    assert ask(path, "file.slack") == 0
    assert ask(path, "file.allocated") == PAGE


@both_transports
def test_slack_follows_appends_and_truncations(mnt: Path) -> None:
    path = mnt / "file"
    with path.open("wb", buffering=0) as file:
        for size in (1, 100, 4096, 5000, 20_000):
            file.write(b"x" * (size - file.tell()))
            os.fsync(file.fileno())
            assert ask(path, "file.slack") == -size % PAGE
    for size in (10_000, 4097, 4096, 10, 0):
        os.truncate(path, size)
        assert ask(path, "file.slack") == -size % PAGE
        assert ask(path, "file.allocated") == size + -size % PAGE


@both_transports
def test_slack_is_exact_for_what_a_mapping_wrote(mnt: Path) -> None:
    path = mnt / "file"
    run("fio", "--name=map", "--ioengine=mmap", "--rw=write", "--size=64k", f"--filename={path}")
    os.truncate(path, 60_000)
    assert ask(path, "file.allocated") == 61_440
    assert ask(path, "file.slack") == 1440


def test_preallocated_pages_are_slack_of_their_own_kind(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "file").write_bytes(b"x" * 5000)
    volume.umount()
    with contextlib.closing(Filesystem(open_store(volume.store))) as filesystem:
        file = filesystem.resolve(b"/file").number
        filesystem.fallocate(file, 1, 0, 40_000)  # FALLOC_FL_KEEP_SIZE
    volume.mount()
    path = mnt / "file"
    assert ask(path, "file.bytes") == 5000
    assert ask(path, "file.allocated") == 40_960
    assert ask(path, "file.slack.tail") == 3192
    assert ask(path, "file.slack.prealloc") == 40_960 - 8192
    assert ask(path, "file.slack") == 40_960 - 5000
    assert path.stat().st_blocks * 512 == 40_960
    assert ask(mnt, "dir.rslack") == 40_960 - 5000
    assert ask(mnt, "fs.slack_prealloc_bytes") == 40_960 - 8192
    assert_identity(volume)


def test_resident_and_dirty_never_exceed_allocated_and_a_commit_cleans(mnt: Path) -> None:
    path = mnt / "file"
    with path.open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
    values = ask_all(path, "file")
    assert values["resident"] == values["allocated"]
    assert values["dirty"] == 0


# What if pages were of another size?


@pytest.mark.parametrize("page_size", ["4K", "16K", "64K"])
def test_what_if_slack_is_the_slack_at_that_page_size(volume: Volume, page_size: str) -> None:
    volume.mkfs("--force", "--page-size", page_size)
    mnt = volume.mount()
    directory = mnt / "directory"
    directory.mkdir()
    sizes = (0, 1, 7, 4096, 5000, 16_384, 70_000, 3_000_000)
    for size in sizes:
        (directory / str(size)).write_bytes(b"x" * size)
    for label, page in WHAT_IF.items():
        for size in sizes:
            assert ask(directory / str(size), f"file.slack.at.{label}") == -size % page
        assert ask(directory, f"dir.rslack.at.{label}") == sum(-size % page for size in sizes)
        assert ask(directory, f"dir.slack.at.{label}") == sum(-size % page for size in sizes)
    assert ask(mnt, f"dir.rslack.at.{page_size.lower()}") == ask(mnt, "dir.rslack")


def test_a_page_size_that_was_not_asked_for_is_no_attribute(mnt: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(mnt, "user.mapfs.dir.rslack.at.3k")


# Directories


def test_a_directory_counts_itself_and_its_tree_apart(mnt: Path) -> None:
    (mnt / "a" / "b").mkdir(parents=True)
    (mnt / "a" / "seven").write_bytes(b"x" * 7)
    (mnt / "a" / "b" / "five").write_bytes(b"x" * 5120)
    assert (
        ask_all(mnt / "a" / "b", "dir").items() >= {"files": 1, "rfiles": 1, "slack": 3072}.items()
    )
    a = ask_all(mnt / "a", "dir")
    assert (a["files"], a["subdirs"], a["bytes"], a["allocated"], a["slack"]) == (
        1,
        1,
        7,
        4096,
        4089,
    )
    tree = tuple(a[name] for name in ("rfiles", "rsubdirs", "rbytes", "rallocated", "rslack"))
    assert tree == (2, 1, 5127, 12_288, 7161)
    top = ask_all(mnt, "dir")
    assert (top["files"], top["subdirs"], top["rfiles"], top["rsubdirs"]) == (0, 1, 2, 2)


def test_totals_stay_right_through_cp_mv_and_rm_of_trees(volume: Volume, tmp_path: Path) -> None:
    mnt = volume.mount()
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "sparse").unlink()
    run("cp", "-a", tmp_path / "tree", mnt / "one")
    assert recursive(mnt / "one") == walked(mnt / "one") == walked(tmp_path / "tree")
    run("cp", "-a", mnt / "one", mnt / "two")
    run("mv", mnt / "two" / "directory 1", mnt / "one" / "moved")
    run("mv", mnt / "one" / "directory 0", mnt / "one" / "moved" / "a")
    run("rm", "-r", mnt / "one" / "directory 2")
    os.rename(mnt / "two" / "of-7-bytes", mnt / "one" / "of-70000-bytes")  # replaces it
    for top in (mnt, mnt / "one", mnt / "two", mnt / "one" / "moved" / "a"):
        assert recursive(top) == walked(top)
    before = recursive(mnt)
    volume.remount()
    assert recursive(mnt) == before
    run("rm", "-r", mnt / "one", mnt / "two")
    assert set(ask_all(mnt, "dir").values()) == {0}


def test_totals_reach_the_top_of_a_deep_tree(mnt: Path) -> None:
    deep = mnt.joinpath(*["d"] * 60)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x" * 7)
    for _ in range(2):
        assert (ask(mnt, "dir.rfiles"), ask(mnt, "dir.rslack")) == (1, 4089)
        assert ask(mnt, "dir.rsubdirs") == 60
        assert ask(mnt / "d" / "d", "dir.rsubdirs") == 58
    (deep / "file").unlink()
    assert (ask(mnt, "dir.rfiles"), ask(mnt, "dir.rslack")) == (0, 0)


def test_symbolic_links_and_special_files_are_files_without_bytes(mnt: Path) -> None:
    (mnt / "link").symlink_to("somewhere")
    os.mkfifo(mnt / "fifo")
    assert recursive(mnt) == dict.fromkeys(recursive(mnt), 0) | {"rfiles": 2}
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(mnt / "link", "user.mapfs.file.slack", follow_symlinks=False)


# Hard links


def files_in(*directories: Path) -> list[int]:
    """For each directory how many files it counts as its own."""
    return [ask(directory, "dir.files") for directory in directories]


def test_a_file_with_many_names_counts_once_where_it_was_created(mnt: Path) -> None:
    a, b = mnt / "a", mnt / "b"
    a.mkdir()
    b.mkdir()
    (a / "file").write_bytes(b"x" * 7)
    os.link(a / "file", b / "second")
    os.link(a / "file", a / "third")
    assert files_in(a, b) == [1, 0]
    assert (ask(a, "dir.slack"), ask(b, "dir.slack"), ask(mnt, "dir.rslack")) == (4089, 0, 4089)
    assert ask(mnt, "dir.rfiles") == 1
    (b / "second").write_bytes(b"x" * 5120)
    assert (ask(a, "dir.slack"), ask(b, "dir.slack")) == (3072, 0)


def test_the_home_name_takes_the_count_along_when_it_is_renamed(mnt: Path) -> None:
    a, b, c = (mnt / name for name in "abc")
    for directory in (a, b, c):
        directory.mkdir()
    (a / "file").write_bytes(b"x" * 7)
    os.link(a / "file", b / "second")
    (b / "second").rename(c / "second")
    assert files_in(a, b, c) == [1, 0, 0]
    (a / "file").rename(b / "file")
    assert files_in(a, b, c) == [0, 1, 0]
    assert ask(b, "dir.slack") == 4089


def test_when_the_home_name_goes_the_oldest_name_left_counts(volume: Volume) -> None:
    mnt = volume.mount()
    a, b, c = (mnt / name for name in "abc")
    for directory in (a, b, c):
        directory.mkdir()
    (a / "file").write_bytes(b"x" * 7)
    os.link(a / "file", c / "older")
    os.link(a / "file", b / "younger")
    (a / "file").unlink()
    assert files_in(a, b, c) == [0, 0, 1]
    volume.remount()
    assert files_in(a, b, c) == [0, 0, 1]
    (c / "older").unlink()
    assert files_in(a, b, c) == [0, 1, 0]
    (b / "younger").unlink()
    assert files_in(a, b, c) == [0, 0, 0]
    assert ask(mnt, "dir.rslack") == 0


def test_an_unlinked_open_file_leaves_its_directory_but_not_the_filesystem(mnt: Path) -> None:
    path = mnt / "file"
    with path.open("wb") as file:
        file.write(b"x" * 7)
        file.flush()
        os.fsync(file.fileno())
        path.unlink()
        assert (ask(mnt, "dir.files"), ask(mnt, "dir.slack")) == (0, 0)
        assert (ask(mnt, "fs.stored_bytes"), ask(mnt, "fs.slack_bytes")) == (7, 4089)
        assert os.getxattr(file.fileno(), "user.mapfs.file.slack") == b"4089"


# Aggregates


@pytest.mark.parametrize("group", ["file", "dir", "fs"])
def test_an_aggregate_says_what_each_attribute_says(mnt: Path, group: str) -> None:
    (mnt / "file").write_bytes(b"x" * 5120)
    path = mnt / "file" if group == "file" else mnt
    line = run("getfattr", "--only-values", "-n", f"user.mapfs.{group}", path.name, cwd=path.parent)
    pairs = dict(pair.split("=") for pair in line.stdout.split(" "))
    values = ask_all(path, group)
    assert pairs == {key: str(value) for key, value in values.items()}
    for key, value in values.items():
        assert os.getxattr(path, f"user.mapfs.{group}.{key}") == str(value).encode()


def test_the_names_of_the_design_are_there(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"x")
    what_if = [f"slack.at.{label}" for label in WHAT_IF]
    file = ["bytes", "allocated", "pages", "slack", "slack.tail", "slack.prealloc"]
    file += ["extents", "resident", "dirty"]
    assert ask_all(mnt / "file", "file").keys() >= {*file, *what_if}
    own = ["files", "subdirs", "bytes", "allocated", "slack"]
    tree = [f"r{name}" for name in own]
    assert ask_all(mnt, "dir").keys() >= {*own, *tree, *(f"r{name}" for name in what_if)}
    fs = "stored_bytes allocated_bytes slack_bytes metadata_bytes free_bytes store_bytes page_size"
    assert ask_all(mnt, "fs").keys() >= set(fs.split())


# The whole


def test_du_less_its_apparent_size_is_the_slack(mnt: Path, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "sparse").unlink()
    for link in ("to a file", "to nowhere", "directory 1/a/up"):
        (tmp_path / "tree" / link).unlink()
    run("cp", "-a", tmp_path / "tree", mnt)
    for top in (mnt, mnt / "tree", mnt / "tree" / "directory 0"):
        disk, apparent = (
            int(run("du", "-s", "--block-size=1", *flags, top).stdout.split()[0])
            for flags in ([], ["--apparent-size"])
        )
        assert disk - apparent == ask(top, "dir.rslack")
        assert disk == ask(top, "dir.rallocated")
        assert apparent == ask(top, "dir.rbytes")


def test_the_parts_always_add_up_to_the_size_of_the_store(volume: Volume, tmp_path: Path) -> None:
    mnt = volume.mount()
    assert_identity(volume)
    make_tree(tmp_path / "tree")
    run("cp", "-a", tmp_path / "tree", mnt / "one")
    assert_identity(volume)
    with (mnt / "big").open("wb") as file:  # makes the store grow
        for _ in range(100):
            file.write(bytes(range(256)) * 4096)
    assert_identity(volume)
    assert ask(mnt, "fs.stored_bytes") >= 100 << 20
    run("rm", "-r", mnt / "one")
    assert_identity(volume)
    volume.remount()
    assert_identity(volume)
    (mnt / "big").unlink()
    wait_until(lambda: ask(mnt, "fs.stored_bytes") == 0, "the kernel to forget the file")
    assert ask(mnt, "fs.slack_bytes") == 0
    assert_identity(volume)


def test_what_df_shows_is_what_the_attributes_say(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"x" * 10_000_000)
    shown = run("df", "--block-size=1", "--output=used,avail", mnt).stdout.split()
    assert int(shown[2]) == ask(mnt, "fs.allocated_bytes")
    assert os.statvfs(mnt).f_bsize == os.statvfs(mnt).f_frsize == ask(mnt, "fs.page_size")


def test_deleted_bytes_go_back_to_the_host(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "file").write_bytes(os.urandom(32 << 20))
    volume.remount()
    held = (volume.store / "store").stat().st_blocks * 512
    assert held >= 32 << 20
    (mnt / "file").unlink()
    volume.umount()
    assert (volume.store / "store").stat().st_blocks * 512 <= held - (32 << 20)


# Listing and changing


@pytest.mark.parametrize("listing", ["hidden", "rootonly", "always"])
def test_listxattr_shows_virtual_attributes_only_where_asked_to(
    volume: Volume, listing: str
) -> None:
    mnt = volume.mount("--xattrs", listing)
    (mnt / "file").write_bytes(b"x" * 7)
    (mnt / "directory").mkdir()
    for name in ("file", "directory", "."):
        os.setxattr(mnt / name, "user.mine", b"kept")
        names = set(os.listxattr(mnt / name))
        assert "user.mine" in names
        virtual = {name for name in names if name.startswith("user.mapfs.")}
        assert bool(virtual) == (listing == "always" or (listing == "rootonly" and name == "."))
        for each in virtual:
            assert os.getxattr(mnt / name, each)
    if listing == "always":
        shown = run("getfattr", "-d", "file", cwd=mnt).stdout
        assert 'user.mapfs.file.slack="4089"' in shown
        assert {"user.mapfs.fs", "user.mapfs.dir.json"} <= set(os.listxattr(mnt))


def test_hidden_attributes_do_not_get_into_the_way_of_copying(mnt: Path, tmp_path: Path) -> None:
    (mnt / "file").write_bytes(b"x" * 7)
    run("cp", "-a", mnt / "file", tmp_path / "copy")
    run("cp", "-a", mnt / "file", mnt / "copy")
    assert os.listxattr(tmp_path / "copy") == os.listxattr(mnt / "copy") == []


def error_of(path: Path, action: str, name: str) -> int | None:
    """The errno that setting or removing an attribute gives."""
    try:
        if action == "set":
            os.setxattr(path, name, b"1")
        else:
            os.removexattr(path, name)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("action", ["set", "remove"])
def test_virtual_attributes_cannot_be_changed(mnt: Path, action: str) -> None:
    (mnt / "file").write_bytes(b"x" * 7)
    for name in ("file.slack", "file.slack.at.64k", "file", "file.json"):
        assert error_of(mnt / "file", action, f"user.mapfs.{name}") == errno.EROFS
    for name in ("dir.rslack", "fs.store_bytes", "fs"):
        assert error_of(mnt, action, f"user.mapfs.{name}") == errno.EROFS
    for name in ("file.nonsense", "nonsense", "dir.slack", "fs.store_bytes", "file.json.more"):
        assert error_of(mnt / "file", action, f"user.mapfs.{name}") == errno.ENODATA
    assert ask(mnt / "file", "file.slack") == 4089


def test_an_unknown_attribute_is_no_data_and_never_ends_the_call(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"x" * 7)
    (mnt / "directory").mkdir()
    absent = {
        "file": ["user.mapfs.dir.files", "user.mapfs.fs.page_size", "user.mapfs.file.", "user.no"],
        "directory": ["user.mapfs.file.slack", "user.mapfs.fs.page_size", "user.mapfs.nonsense"],
    }
    for name, attributes in absent.items():
        for attribute in attributes:
            shown = run("getfattr", "-n", attribute, mnt / name, status=1)
            assert "No such attribute" in shown.stderr
    assert ask(mnt / "file", "file.slack") == 4089
