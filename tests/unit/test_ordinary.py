"""Files of any filesystem: their extents and holes, and what they would waste in mapfs."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from mapfs.mounts import filesystem_type
from mapfs.report import layout
from mapfs.report.layout import Layout, Run, layout_of
from mapfs.report.live import LiveTree
from mapfs.report.ordinary import usage_at
from mapfs.report.tree import Keep
from mapfs.report.usage import NO_FILE, Usage
from mapfs.store.syscalls import FALLOC_FL_KEEP_SIZE, fallocate
from tests.unit.report_source import PAGE, file_of, report_on


def usage_of(path: Path) -> Usage:
    return usage_at(str(path), path.lstat())


def write(path: Path, size: int) -> None:
    """A file whose blocks are on the disk, not only promised."""
    with path.open("wb") as file:
        file.write(b"x" * size)
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.parametrize("size", [0, 1, 7, 4095, 4096, 4097, 5120, 70_000])
def test_a_file_wastes_in_mapfs_what_its_last_page_does_not_hold(tmp_path, size):
    path = tmp_path / "file"
    write(path, size)
    usage, expected = usage_of(path), file_of(size)
    for key in ("files", "size", "stored", "at_4k", "at_16k", "at_64k", "at_2m"):
        assert getattr(usage, key) == getattr(expected, key), key
    assert usage.allocated == path.stat().st_blocks * 512


def test_a_hole_is_neither_stored_nor_slack(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"x" * PAGE)
        file.seek(1 << 20)
        file.write(b"x")
        file.truncate(2 << 20)
        os.fsync(file.fileno())
    usage = usage_of(path)
    assert usage.size == 2 << 20
    assert usage.stored == 2 * PAGE  # a block of the disk is data as a whole
    assert usage.slack == usage.allocated - usage.stored
    assert usage.at_4k == 0
    assert usage.at_64k == 2 * (65536 - PAGE)
    assert usage.at_2m == (2 << 20) - 2 * PAGE


def test_preallocated_blocks_are_slack_there_and_not_in_mapfs(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x" * 100)
        file.flush()
        try:
            fallocate(file.fileno(), FALLOC_FL_KEEP_SIZE, 0, 100_000)
        except OSError:
            pytest.skip("the filesystem cannot preallocate")
        os.fsync(file.fileno())
    usage = usage_of(path)
    assert (usage.size, usage.stored, usage.at_4k) == (100, 100, PAGE - 100)
    assert usage.slack == usage.allocated - 100 >= 99_900


def test_a_file_in_memory_is_resident_and_has_no_extents():
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * 70_000)
        file.flush()
        usage = usage_of(Path(file.name))
    assert usage.resident == 70_000 + -70_000 % PAGE
    assert (usage.extents, usage.no_extents) == (0, 1)


def test_what_is_no_file_has_no_size(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert usage_of(tmp_path / "fifo") == usage_of(tmp_path / "link") == NO_FILE


def test_a_file_that_cannot_be_opened_still_has_its_sizes(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    write(path, 5000)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    usage = usage_of(path)
    assert (usage.size, usage.at_4k) == (5000, 2 * PAGE - 5000)
    assert (usage.no_extents, usage.no_resident) == (1, 1)


# Extents


def layout_from(monkeypatch: pytest.MonkeyPatch, runs: list[Run], size: int) -> Layout:
    monkeypatch.setattr(layout, "runs", lambda _fd: iter(runs))
    return layout_of(-1, size)


def test_neighbours_on_the_disk_are_one_extent(monkeypatch):
    runs = [Run(0, 4096, 8192), Run(4096, 8192, 12288), Run(8192, 12288, 0)]
    assert layout_from(monkeypatch, runs, 12_000) == Layout([(0, 12_000)], 2)


def test_a_gap_in_the_file_is_a_hole(monkeypatch):
    runs = [Run(0, 4096, 8192), Run(8192, 12288, 12288)]
    assert layout_from(monkeypatch, runs, 12288) == Layout([(0, 4096), (8192, 12288)], 2)


def test_what_lies_behind_the_end_holds_no_data(monkeypatch):
    runs = [Run(0, 8192, 0), Run(8192, 65536, 8192), Run(1 << 20, 2 << 20, 1 << 20)]
    found = layout_from(monkeypatch, runs, 5000)
    assert found == Layout([(0, 5000)], 2)
    assert found.stored == 5000


def test_what_is_not_on_the_disk_yet_is_one_extent(monkeypatch):
    runs = [Run(0, 4096, None), Run(4096, 8192, None)]
    assert layout_from(monkeypatch, runs, 8192).ranges == [(0, 8192)]


def test_without_fiemap_holes_are_found_by_seeking(tmp_path, monkeypatch):
    def none(_fd):
        raise OSError(errno.EOPNOTSUPP, "no FIEMAP")

    monkeypatch.setattr(layout, "runs", none)
    path = tmp_path / "sparse"
    with path.open("w+b") as file:
        file.write(b"x" * PAGE)
        file.truncate(1 << 20)
        file.seek((1 << 20) - PAGE)
        file.write(b"x" * PAGE)
        file.flush()
        os.fsync(file.fileno())
        found = layout_of(file.fileno(), 1 << 20)
    assert found == Layout([(0, PAGE), ((1 << 20) - PAGE, 1 << 20)], None)


def test_extents_of_a_file_of_many(tmp_path):
    path = tmp_path / "holes"
    with path.open("wb") as file:
        for number in range(100):
            file.seek(number * 16 * PAGE)
            file.write(b"x" * PAGE)
        file.flush()
        os.fsync(file.fileno())
        found = layout_of(file.fileno(), 99 * 16 * PAGE + PAGE)
    assert len(found.ranges) == 100
    assert found.extents in (100, None)


# Trees


def test_a_tree_of_another_filesystem(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_bytes(b"x" * 5000)
    os.link(tmp_path / "dir" / "file", tmp_path / "same")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"x" * 7)
    source = LiveTree(str(tmp_path))
    assert source.kind == "directory"
    assert source.filesystem == filesystem_type(tmp_path.stat().st_dev)
    report, failed = report_on(source, Keep())
    assert not failed
    sizes = {os.path.relpath(node.path, tmp_path): node.usage.size for node in report.root.walk()}
    assert sizes == {
        ".": 5007,
        "dir": 5000,
        "dir/file": 5000,
        "up": 0,
        os.fsdecode(b"\xff"): 7,
    }
    assert report.root.usage.files == 3


def test_a_link_to_the_path_is_followed(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_bytes(b"x" * 7)
    (tmp_path / "link").symlink_to("dir")
    report, _ = report_on(LiveTree(str(tmp_path / "link")))
    assert report.root.usage.size == 7
    assert report.root.name == str(tmp_path / "link")


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        LiveTree(str(tmp_path / "missing"))
