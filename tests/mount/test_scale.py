"""Many files, many entries, many extents: through the mount, and at modest size."""

import contextlib
import mmap
import os
import random
from pathlib import Path

import pytest

from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import ROOT_INODE
from mapfs.store.opening import open_store
from tests.conftest import MakeVolume
from tests.mount.volume import Volume, both_transports, run, wait_until

pytestmark = pytest.mark.mount

MANY_ENTRIES = 20_000
MANY_FILES = 100_000
MANY_EXTENTS = 10_000
PAGE = 4096
MIB = 1 << 20


def test_a_directory_of_20000_entries_lists_each_once(volume: Volume) -> None:
    mnt = volume.mount()
    directory = mnt / "directory"
    directory.mkdir()
    names = {f"entry number {number}" for number in range(MANY_ENTRIES)}
    for name in names:
        os.mknod(directory / name)
    assert sorted(os.listdir(directory)) == sorted(names)
    volume.remount()
    assert sorted(run("ls", "-U", directory).stdout.splitlines()) == sorted(names)
    assert run("find", directory, "-type", "f").stdout.count("\n") == MANY_ENTRIES
    assert os.getxattr(directory, "user.mapfs.dir.files") == b"%d" % MANY_ENTRIES
    for name in random.Random(3).sample(sorted(names), 500):
        assert (directory / name).stat().st_size == 0


@both_transports
def test_deleting_while_listing_misses_and_repeats_nothing(mnt: Path) -> None:
    names = {str(number) for number in range(3000)}
    for name in names:
        os.mknod(mnt / name)
    seen = []
    with os.scandir(mnt) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry)
    assert sorted(seen) == sorted(names)
    assert os.listdir(mnt) == []


def make_files(volume: Volume, number: int) -> None:
    """Make small files in 100 directories, without a mount."""
    caller = Caller(os.getuid(), os.getgid(), 0o022)
    with contextlib.closing(Filesystem(open_store(volume.store))) as filesystem:
        for directory in range(100):
            parent = filesystem.mkdir(ROOT_INODE, b"%d" % directory, 0o755, caller).number
            for file in range(number // 100):
                filesystem.create(parent, b"file %d" % file, 0o644, caller)
            filesystem.commit()


def memory_of(pid: int) -> int:
    """Bytes of memory that are the process's own; what it maps of files is the host's to drop."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(make_volume: MakeVolume) -> None:
    empty, full = make_volume("empty"), make_volume("full")
    for volume in (empty, full):
        volume.mkfs()
    make_files(full, MANY_FILES)
    for volume in (empty, full):
        volume.mount()
    assert memory_of(full.daemon) - memory_of(empty.daemon) < 10 * MIB
    assert os.statvfs(full.mnt).f_files - os.statvfs(full.mnt).f_ffree == MANY_FILES + 101
    assert os.getxattr(full.mnt, "user.mapfs.dir.rfiles") == b"%d" % MANY_FILES
    for directory in ("0", "50", "99"):
        assert len(os.listdir(full.mnt / directory)) == MANY_FILES // 100
        assert (full.mnt / directory / "file 999").stat().st_size == 0
    # What the daemon caches is bounded, however many files were looked at: by some 40 MiB.
    run("find", full.mnt, "-type", "f", "-size", "+1")
    assert memory_of(full.daemon) - memory_of(empty.daemon) < 64 * MIB


def page(number: int) -> bytes:
    """A page that differs from every other."""
    return number.to_bytes(4, "little") * (PAGE // 4)


def test_a_file_of_10000_extents_reads_right(volume: Volume) -> None:
    mnt = volume.mount()
    path = mnt / "comb"
    numbers = list(range(MANY_EXTENTS))
    random.Random(4).shuffle(numbers)
    with path.open("wb", buffering=0) as comb:
        for number in numbers:
            os.pwrite(comb.fileno(), page(number), 2 * number * PAGE)
    assert int(os.getxattr(path, "user.mapfs.file.extents")) >= MANY_EXTENTS
    assert int(os.getxattr(path, "user.mapfs.file.pages")) == MANY_EXTENTS
    volume.remount()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        for number in numbers[:1000]:
            place = 2 * number * PAGE
            assert mapping[place : place + PAGE] == page(number)
            assert os.pread(file.fileno(), 2 * PAGE, place)[:PAGE] == page(number)
        expected = bytes(PAGE).join(page(number) for number in range(MANY_EXTENTS))
        assert mapping[:] == expected
    os.truncate(path, MANY_EXTENTS * PAGE)
    assert int(os.getxattr(path, "user.mapfs.file.pages")) == MANY_EXTENTS // 2
    path.unlink()
    wait_until(
        lambda: os.getxattr(mnt, "user.mapfs.fs.allocated_bytes") == b"0",
        "the kernel to forget the file",
    )
