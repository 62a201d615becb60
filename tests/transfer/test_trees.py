"""Copying trees into a store and out of it: everything is kept, and can be taken up again."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapfs.errors import NoSpaceError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.transfer.copying import copy
from mapfs.transfer.directory import DirectorySource, bytes_in
from mapfs.transfer.from_store import StoreSource
from mapfs.transfer.into_directory import DirectoryTree
from mapfs.transfer.into_store import StoreTree
from mapfs.transfer.outcome import Outcome
from tests.mount.tree import describe, make_tree
from tests.transfer.conftest import Vault
from tests.unit.support import assert_sound, memory_store, new_bundle


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything that a copy has to keep; not to be changed."""
    top = tmp_path_factory.mktemp("tree") / "top"
    make_tree(top)
    return top


def allocated(top: Path) -> int:
    return sum(path.lstat().st_blocks for path in top.rglob("*"))


def test_a_tree_comes_out_as_it_went_in(vault: Vault, tree: Path, tmp_path: Path) -> None:
    assert not vault.take(f"{tree}/").failures
    out = tmp_path / "out"
    assert not vault.give(out).failures
    assert describe(out) == describe(tree)
    assert (out / "sparse").stat().st_blocks * 512 < 1 << 20
    assert allocated(out) == allocated(tree)
    top, copied = tree.stat(), out.stat()
    assert (copied.st_mode, copied.st_mtime_ns) == (top.st_mode, top.st_mtime_ns)


def test_what_is_there_and_equal_is_skipped(vault: Vault, tree: Path, tmp_path: Path) -> None:
    first = vault.take(tree)
    again = vault.take(tree)
    assert (again.copied, again.copied_bytes, again.skipped) == (0, 0, first.copied)
    out = tmp_path / "out"
    first = vault.give(out)
    again = vault.give(out)
    assert (again.copied, again.copied_bytes, again.skipped) == (0, 0, first.copied)


def test_skipping_changes_nothing_in_the_store(vault: Vault, tree: Path) -> None:
    vault.take(tree)
    outcome = Outcome()
    with vault.opened() as filesystem:
        copy(DirectorySource(str(tree), outcome), StoreTree(filesystem), outcome)
        assert not filesystem.is_dirty


def test_a_directory_goes_by_its_name_unless_a_slash_or_dot_ends_it(
    vault: Vault, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    for number, spelling in enumerate(["", "/", "/.", "//"]):
        vault.take(f"{source}{spelling}", b"%d" % number)
    vault.take(source / "file", b"deep/er")
    with vault.opened() as filesystem:
        for path in (b"0/source/file", b"1/file", b"2/file", b"3/file", b"deep/er/file"):
            assert filesystem.resolve(path).size == 1


@pytest.mark.parametrize("change", ["size", "time", "mode", "type", "target"])
def test_what_differs_is_replaced(vault: Vault, tmp_path: Path, change: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    file, link = source / "file", source / "link"
    file.write_text("before")
    link.symlink_to("before")
    os.utime(file, ns=(1, 1))
    vault.take(f"{source}/")
    vault.give(out)
    if change == "size":
        file.write_text("longer than before")
        os.utime(file, ns=(1, 1))
    elif change == "time":
        file.write_text("behind")
    elif change == "mode":
        file.chmod(0o711)
    elif change == "type":
        file.unlink()
        os.mkfifo(file)
    else:
        link.unlink()
        link.symlink_to("behind")
    assert vault.take(f"{source}/").copied == 1
    assert vault.give(out).copied == 1
    assert describe(out) == describe(source)
    assert sorted(os.listdir(out)) == ["file", "link"]  # and no temporary name


def test_a_hard_link_is_made_again_where_it_is_missing(vault: Vault, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "below").mkdir(parents=True)
    (source / "first").write_text("x")
    os.link(source / "first", source / "below" / "second")
    vault.take(f"{source}/")
    with vault.opened() as filesystem:
        first = filesystem.resolve(b"first")
        assert first.nlink == 2
        filesystem.unlink(1, b"first")
    assert vault.take(f"{source}/").copied == 1
    vault.give(out)
    (out / "below" / "second").unlink()
    (out / "below" / "second").write_text("x")
    vault.give(out)
    assert os.path.samefile(out / "first", out / "below" / "second")


def test_neither_replaces_a_directory_a_file_nor_a_file_a_directory(
    vault: Vault, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "a").mkdir(parents=True)
    (one / "b").write_text("b")
    other.mkdir()
    (other / "a").write_text("a")
    (other / "b" / "c").mkdir(parents=True)
    vault.take(f"{one}/")
    failures = vault.take(f"{other}/").failures
    assert [failure.path for failure in failures] == ["a", "b", "b/c"]
    with vault.opened() as filesystem:
        assert filesystem.resolve(b"a").is_directory
        assert filesystem.resolve(b"b").is_file


def test_links_in_the_target_are_not_followed(vault: Vault, tmp_path: Path) -> None:
    source, out, outside = tmp_path / "source", tmp_path / "out", tmp_path / "outside"
    (source / "way").mkdir(parents=True)
    (source / "way" / "file").write_text("x")
    vault.take(f"{source}/")
    outside.mkdir()
    out.mkdir()
    (out / "way").symlink_to(outside)
    failures = vault.give(out).failures
    assert [failure.path for failure in failures] == ["way", "way/file"]
    assert os.listdir(outside) == []
    assert (out / "way").is_symlink()


def test_a_file_that_changes_is_told_and_copied_by_the_next_run(
    vault: Vault, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = source / "file"
    file.write_bytes(b"x" * (3 << 20))
    steps = 0

    def append_once() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:  # the first piece of the file is read
            os.truncate(file, 2 << 20)

    outcome = vault.take(f"{source}/", outcome=Outcome(on_step=append_once))
    assert [failure.path for failure in outcome.failures] == ["file"]
    assert "changed" in outcome.failures[0].reason
    again = vault.take(f"{source}/")
    assert (again.copied, again.failures) == (1, [])
    with vault.opened() as filesystem:
        assert filesystem.resolve(b"file").size == 2 << 20


def test_a_file_that_vanishes_is_told_and_the_rest_goes_on(vault: Vault, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_text(name)
    outcome = Outcome()
    outcome.on_step = lambda: (source / "b").unlink(missing_ok=True) if outcome.copied else None
    vault.take(f"{source}/", outcome=outcome)
    assert [tuple(failure) for failure in outcome.failures] == [("b", "No such file or directory")]
    assert outcome.copied == 2


def test_an_unreadable_file_is_told_and_the_rest_goes_on(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(b"x" * 5000)
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/b"):
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    outcome = vault.take(f"{source}/")
    assert [tuple(failure) for failure in outcome.failures] == [("b", "Input/output error")]
    monkeypatch.undo()
    with vault.opened() as filesystem:
        assert filesystem.lookup(1, b"a").size == filesystem.lookup(1, b"c").size == 5000
    assert vault.take(f"{source}/").copied == 1


def test_the_target_is_not_copied_into_itself(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "target").mkdir(parents=True)
    (source / "file").write_text("x")
    outcome = Outcome()
    tree = DirectoryTree(str(source / "target"))
    copy(DirectorySource(str(source), outcome, {tree.identity}), tree, outcome)
    tree.close()
    assert [failure.path for failure in outcome.failures] == ["source/target"]
    assert sorted(os.listdir(source / "target" / "source")) == ["file"]


def test_a_copy_that_ends_in_the_middle_goes_on_from_there(
    vault: Vault, tree: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    out = tmp_path / "out"
    for number in (1, 17, 100, 151):
        steps = iter(range(number))

        def end(steps: Iterator[int] = steps) -> None:
            if next(steps, None) is None:
                raise Stop

        with pytest.raises(Stop):
            vault.take(f"{tree}/", outcome=Outcome(on_step=end))
        with vault.opened() as filesystem:
            assert_sound(filesystem)
    assert not vault.take(f"{tree}/").failures
    vault.give(out)
    assert describe(out) == describe(tree)


def test_a_full_store_keeps_what_is_complete(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for number in range(20):
        (source / f"{number:02}").write_bytes(bytes([number]) * (1 << 20))
    vault = Vault(new_bundle(tmp_path / "small.mapfs", 2300))
    with pytest.raises(NoSpaceError):
        vault.take(f"{source}/")
    vault.give(out)
    kept = sorted(os.listdir(out))
    assert kept == [f"{number:02}" for number in range(len(kept))]
    assert 0 < len(kept) < 20
    for name in kept:
        assert (out / name).read_bytes() == (source / name).read_bytes()
    with vault.opened() as filesystem:
        assert_sound(filesystem)
        filesystem.unlink(1, b"00")
    (source / "00").unlink()
    with pytest.raises(NoSpaceError):  # there is room for one more
        vault.take(f"{source}/")
    with vault.opened() as filesystem:
        assert filesystem.resolve(f"{len(kept):02}".encode()).size == 1 << 20


def test_an_attribute_that_cannot_be_kept_is_told_and_the_file_is_copied(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.setxattr(source / "file", "user.name", b"value")
    vault.take(f"{source}/")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    failures = vault.give(tmp_path / "out").failures
    assert [tuple(failure) for failure in failures] == [
        ("file", "copied without attribute user.name: Operation not supported")
    ]
    assert (tmp_path / "out" / "file").read_text() == "x"


@pytest.mark.root
def test_only_root_gives_files_away(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    program = source / "program"
    program.write_text("x")
    os.chown(program, 1234, 5678)
    program.chmod(0o4755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    for _ in range(2):
        assert not vault.take(f"{source}/").failures
        assert not vault.give(out).failures
    with vault.opened() as filesystem:
        found = filesystem.resolve(b"program")
        assert (found.uid, found.gid, stat.S_IMODE(found.mode)) == (1000, 1000, 0o755)
    assert stat.S_IMODE((out / "program").stat().st_mode) == 0o755
    assert vault.take(f"{source}/").skipped == 1


def test_a_default_acl_of_the_target_is_not_handed_down(vault: Vault, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "below").mkdir(parents=True)
    (source / "below" / "file").write_text("x")
    out.mkdir()
    subprocess.run(["setfacl", "-m", "d:u:1234:rwx", out], check=True)
    vault.take(source)
    vault.give(out, b"source", b"source")
    assert describe(out)["source/below/file"]["attributes"] == {}
    assert describe(out)["source/below"]["attributes"] == {}


def test_a_failed_write_leaves_no_file(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "file").write_text("x")
    (source / "other").write_text("x")
    vault.take(f"{source}/")
    vault.give(out)
    (out / "file").write_text("to be replaced")
    (out / "other").unlink()

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        failures = vault.give(out).failures
    assert [failure.path for failure in failures] == ["file", "other"]
    assert os.listdir(out) == ["file"]
    assert (out / "file").read_text() == "to be replaced"
    vault.give(out)
    assert describe(out) == describe(source)


def test_how_far_a_copy_is_ends_at_its_total(vault: Vault, tree: Path, tmp_path: Path) -> None:
    assert vault.take(f"{tree}/").done == bytes_in(tree, Outcome())
    outcome = Outcome()
    with vault.opened(read_only=True) as filesystem:
        source = StoreSource(filesystem, filesystem.resolve(b""), b"", outcome)
        total = source.total()
        target = DirectoryTree(str(tmp_path / "out"))
        copy(source, target, outcome)
        target.close()
    assert outcome.done == total


def test_deep_directories(vault: Vault, tmp_path: Path) -> None:
    """More levels than descriptors that the target keeps open."""
    source, out = tmp_path / "source", tmp_path / "out"
    deep = source.joinpath(*["d"] * 80)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    vault.take(source)
    assert not vault.give(out).failures
    assert describe(out / "source") == describe(source)


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)
files = st.tuples(
    st.lists(st.tuples(st.integers(0, 40_000), st.binary(max_size=3000)), max_size=3),
    st.integers(0, 60_000),
)
trees = st.recursive(
    files, lambda children: st.dictionaries(names, children, max_size=4), max_leaves=8
).filter(lambda made: isinstance(made, dict))


def build(top: bytes, made: object) -> None:
    if isinstance(made, dict):
        os.mkdir(top)
        for name, child in made.items():
            build(top + b"/" + name, child)
    else:
        assert isinstance(made, tuple)
        writes, size = made
        fd = os.open(top, os.O_WRONLY | os.O_CREAT, 0o640)
        os.truncate(fd, size)
        for offset, data in writes:
            os.pwrite(fd, data, offset)
        os.close(fd)
    os.utime(top, ns=(len(top), 10**18 + len(top)))


@settings(max_examples=25)
@given(made=trees)
def test_any_tree_comes_out_as_it_went_in(
    made: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("any")
    build(os.fsencode(work / "source"), made)
    filesystem = Filesystem(memory_store())
    outcome = Outcome()
    copy(DirectorySource(f"{work}/source/", outcome), StoreTree(filesystem), outcome)
    tree = DirectoryTree(f"{work}/out")
    copy(StoreSource(filesystem, filesystem.resolve(b""), b"", outcome), tree, outcome)
    tree.close()
    assert outcome.failures == []
    assert describe(work / "out") == describe(work / "source")
    assert_sound(filesystem)
    filesystem.close()
    shutil.rmtree(work)


def test_special_files_are_kept_and_never_read(vault: Vault, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo", 0o600)
    os.mknod(source / "socket", 0o600 | stat.S_IFSOCK)
    assert vault.take(f"{source}/").copied == 2
    with vault.opened() as filesystem:
        assert stat.S_ISFIFO(filesystem.resolve(b"fifo").mode)
        assert stat.S_ISSOCK(filesystem.resolve(b"socket").mode)
