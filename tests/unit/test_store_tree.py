"""The tree in a store at rest, read as a library."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mapfs.errors import DamagedStoreError, StoreInUseError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.report.at_rest import StoreTree
from mapfs.report.tree import Keep
from mapfs.report.usage import usage_of_file, usage_of_tree
from tests.unit.report_source import report_on
from tests.unit.support import ME, ROOT, make, open_fs, values


@pytest.fixture
def filled(bundle: Path) -> Path:
    """A closed store: sparse, preallocated and ordinary files, and one with two names."""
    with closing(open_fs(bundle)) as fs:
        directory = fs.mkdir(ROOT, b"dir", 0o755, ME).number
        make(fs, b"one", b"x" * 5120, directory)
        make(fs, b"not utf-8 \xff", b"x" * 7, directory)
        sparse = make(fs, b"sparse", b"x")
        fs.write(sparse, 1 << 20, b"x" * 5000)
        fs.fallocate(make(fs, b"prealloc", b"x" * 100), 1, 0, 50_000)
        fs.link(sparse, directory, b"again")
        fs.symlink(ROOT, b"link", b"nowhere", ME)
    return bundle


@pytest.fixture
def tree(filled: Path) -> Iterator[StoreTree]:
    with closing(StoreTree(filled)) as tree:
        yield tree


def test_the_numbers_are_those_of_the_attributes(filled: Path) -> None:
    with closing(StoreTree(filled)) as tree:
        report, failed = report_on(tree)
    assert not failed
    found = {node.path.removeprefix(f"{filled}/"): node.usage for node in report.root.walk()}
    with closing(open_fs(filled, read_only=True)) as fs:
        said = usage_of_tree(values(fs, ROOT, b"dir"))
        for path in ("dir/one", "prealloc", "dir/again"):
            number = fs.resolve(path.encode()).number
            assert found[path] == usage_of_file(values(fs, number)), path
    for key in ("files", "size", "stored", "allocated", "slack", "at_4k", "at_64k", "at_2m"):
        assert getattr(report.root.usage, key) == getattr(said, key), key


def test_a_file_with_two_names_counts_where_it_is_met_first(tree: StoreTree) -> None:
    names = [node.name for node in report_on(tree)[0].root.walk()]
    assert names[1:] == ["dir", "again", "not utf-8 \udcff", "one", "link", "prealloc"]


def test_totals_need_no_walk(tree: StoreTree, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = report_on(tree, Keep(depth=1))[0].root.usage
    monkeypatch.setattr(Filesystem, "readdir", None)
    quick = report_on(tree, Keep(depth=0), totals_suffice=True)[0].root.usage
    assert (quick.files, quick.slack, quick.allocated) == (
        walked.files,
        walked.slack,
        walked.allocated,
    )


def test_damage_to_one_file_does_not_hide_the_others(
    tree: StoreTree, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Filesystem.getxattr

    def damaged(fs: Filesystem, number: int, name: bytes) -> bytes:
        value = read(fs, number, name)
        if json.loads(value).get("bytes") == 5120:
            raise DamagedStoreError("an extent lies outside the store")
        return value

    monkeypatch.setattr(Filesystem, "getxattr", damaged)
    report, failed = report_on(tree)
    assert failed == [f"{filled}/dir/one"]
    assert report.root.usage.files == 4


def test_a_store_that_is_being_written_is_refused(filled: Path) -> None:
    with closing(open_fs(filled)), pytest.raises(StoreInUseError):
        StoreTree(filled)
