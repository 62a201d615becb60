"""Files of a mount that programs map past FUSE, with the rest of the world going on meanwhile."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mapfs as mapfs_library
from mapfs import open_mapping
from mapfs.errors import MapfsError, NotSupportedError, StoreInUseError
from tests.conftest import MakeVolume
from tests.mount.volume import Volume, both_transports, mapfs, process, wait_until
from tests.posix.as_user import ALICE, as_user
from tests.posix.child import holding, in_child

pytestmark = pytest.mark.mount

PAGE = 4096
MIB = 1 << 20
# Maps a file, says so, and lives until its input ends.
_HOLD = (
    "import sys, mapfs\nmapping = mapfs.open_mapping(sys.argv[1])\n"
    "print(len(mapping), flush=True)\nsys.stdin.read()\n"
)


def leased_bytes(mnt: Path) -> int:
    return int(os.getxattr(mnt, "user.mapfs.fs.leased_bytes"))


def commit(mnt: Path) -> None:
    """Have all that was done until now committed, and freed pages given back."""
    fd = os.open(mnt, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def write_safely(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def wait_for_leased(mnt: Path, expected: int) -> None:
    wait_until(lambda: leased_bytes(mnt) == expected, f"{expected} leased bytes")


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Another process that has mapped the file; its id."""
    with process([sys.executable, "-c", _HOLD, path]) as holder:
        assert holder.stdout is not None
        assert int(holder.stdout.readline()) == path.stat().st_size
        yield holder.pid


def churn(mnt: Path, rounds: int = 3) -> None:
    """Have every free page written by other files, again and again."""
    for number in range(rounds):
        path = mnt / "churn"
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
            for _ in range(100):
                file.write(bytes([number + 1]) * MIB)
        path.unlink()
        commit(mnt)


@pytest.fixture
def small(make_volume: MakeVolume) -> Volume:
    """A mounted store of 24 MiB, which is soon used up, with a commit every half second."""
    volume = make_volume()
    volume.mkfs("--size", "24M")
    volume.mount("--commit", "0.5")
    return volume


# What is in a mapping


@both_transports
def test_arrays_are_what_was_written(mnt: Path) -> None:
    numbers = np.random.default_rng(1).random(300_001)
    (mnt / "numbers").write_bytes(numbers.tobytes())
    with open_mapping(mnt / "numbers") as mapping:
        array = np.frombuffer(mapping)
        assert array.sum() == numbers.sum()
        assert not array.flags.writeable
        del array


@both_transports
def test_what_was_written_before_is_in_it(mnt: Path) -> None:
    path = mnt / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"not yet written back")
        with open_mapping(path) as mapping:
            assert mapping[:] == b"not yet written back"


def test_later_writes_are_seen_in_place_and_no_growth(mnt: Path) -> None:
    path = mnt / "file"
    path.write_bytes(b"a" * 2 * PAGE)
    os.truncate(path, 5 * PAGE)
    with open_mapping(path) as mapping, path.open("r+b", buffering=0) as file:
        file.write(b"bbb")
        os.pwrite(file.fileno(), b"in the hole", 3 * PAGE)
        os.pwrite(file.fileno(), b"behind", 5 * PAGE)
        os.fsync(file.fileno())
        assert mapping[:4] == b"bbba"
        assert mapping[3 * PAGE : 3 * PAGE + 2] == b"\0\0"
        assert len(mapping) == 5 * PAGE
        with open_mapping(path) as newer:
            assert newer[:] == path.read_bytes()


def test_thousands_of_extents(mnt: Path) -> None:
    path = mnt / "file"
    with path.open("wb", buffering=0) as file:
        for page in range(2001):
            os.pwrite(file.fileno(), page.to_bytes(4, "little"), 2 * page * PAGE)
    with open_mapping(path) as mapping:
        assert len(mapping.extents) == 2001
        assert mapping[:] == path.read_bytes()


def test_holes_and_tails_on_a_store_with_large_pages(make_volume: MakeVolume) -> None:
    volume = make_volume()
    volume.mkfs("--page-size", "64K")
    path = volume.mount() / "file"
    with path.open("wb") as file:
        file.seek(3 << 16)
        file.write(b"x" * 70_000)
    with open_mapping(path) as mapping:
        assert mapping[:] == path.read_bytes()


@pytest.mark.root
def test_a_store_on_a_block_device(loop_device: Path, make_volume: MakeVolume) -> None:
    volume = make_volume()
    volume.mkfs("--backing", loop_device)
    path = volume.mount("--commit", "0.5") / "file"
    path.write_bytes(b"d" * MIB)
    with open_mapping(path) as mapping:
        path.unlink()
        churn(volume.mnt, 1)
        assert mapping[:] == b"d" * MIB


def test_two_processes_share_the_pages(mnt: Path) -> None:
    path = mnt / "file"
    path.write_bytes(os.urandom(4 * MIB))

    def touch() -> None:
        mapping = open_mapping(path)
        assert sum(mapping[::PAGE]) >= 0
        kept.append(mapping)

    kept: list[mapfs_library.FileMapping] = []
    touch()
    with holding(touch):
        usage = memory_of_mapping()
        assert usage["Rss"] == 4 << 10
        assert usage["Pss"] <= 2 << 10
        assert usage["Private_Dirty"] == 0
    kept[0].close()


def memory_of_mapping() -> dict[str, int]:
    """What proc_pid_smaps(5) says, in KiB, of the mappings of a store file in this process."""
    sums: dict[str, int] = {}
    counts = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            counts = words[-1].endswith("data.mapfs/store")
        elif counts and words[-1] == "kB":
            sums[words[0].rstrip(":")] = sums.get(words[0].rstrip(":"), 0) + int(words[1])
    return sums


# Leases


@both_transports
def test_no_other_files_bytes_are_ever_seen(small: Volume) -> None:
    mnt = small.mnt
    removed, cut, replaced = (mnt / name for name in ("removed", "cut", "replaced"))
    for path in (removed, cut, replaced):
        path.write_bytes(os.urandom(2 * MIB))
    before = [path.read_bytes() for path in (removed, cut, replaced)]
    mappings = [open_mapping(path) for path in (removed, cut, replaced)]
    removed.unlink()
    os.truncate(cut, PAGE)
    replaced.write_bytes(b"new")
    churn(mnt)
    assert [mapping[:] for mapping in mappings] == before
    assert leased_bytes(mnt) == 6 * MIB - PAGE
    for mapping in mappings:
        mapping.close()
    wait_for_leased(mnt, 0)


def test_a_lease_outlives_the_worker(small: Volume) -> None:
    path = small.mnt / "file"
    path.write_bytes(b"mine" * (MIB // 2))
    mapping = open_mapping(path)
    path.unlink()
    died = small.daemon
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: small.lock_holders - {died}, "another worker")
    churn(small.mnt)
    assert mapping[:] == b"mine" * (MIB // 2)
    assert leased_bytes(small.mnt) == 2 * MIB
    small.remount("--commit", "0.5")
    churn(small.mnt, 1)
    assert mapping[:] == b"mine" * (MIB // 2)
    mapping.close()
    wait_for_leased(small.mnt, 0)


def test_a_lease_ends_with_its_process(small: Volume) -> None:
    path = small.mnt / "file"
    path.write_bytes(b"x" * 16 * MIB)
    with held(path) as pid:
        path.unlink()
        commit(small.mnt)
        wait_for_leased(small.mnt, 16 * MIB)
        other = small.mnt / "other"
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            write_safely(other, b"y" * 16 * MIB)
        os.kill(pid, signal.SIGKILL)
    # A write that finds no space looks whether the lease has ended, and does not wait for a commit.
    write_safely(other, b"y" * 16 * MIB)
    assert other.read_bytes() == b"y" * 16 * MIB
    wait_for_leased(small.mnt, 0)


def test_a_forked_process_keeps_the_lease(small: Volume) -> None:
    path = small.mnt / "file"
    path.write_bytes(b"x" * MIB)
    mapping = open_mapping(path)
    path.unlink()

    def read() -> None:
        assert mapping[:] == b"x" * MIB

    with holding(read):
        mapping.close()
        churn(small.mnt, 1)
        assert leased_bytes(small.mnt) == MIB
    wait_for_leased(small.mnt, 0)


def test_a_mapping_outlives_the_mount(small: Volume) -> None:
    path = small.mnt / "file"
    path.write_bytes(b"x" * MIB)
    with open_mapping(path) as mapping:
        small.umount()
        assert mapping[:] == b"x" * MIB
        with open_mapping("file", store=small.store) as again:
            assert again[:] == mapping[:]
        small.mount()


# Who may map what


@pytest.mark.root
def test_only_the_stores_user_and_root_may_map(
    open_directory: Path, make_volume: MakeVolume
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    path = volume.mount("--allow-other") / "file"
    path.write_bytes(b"for everybody")

    def map_it(expected: str) -> Callable[[], None]:
        def action() -> None:
            with pytest.raises(PermissionError, match=expected):
                open_mapping(path)

        return action

    as_user(ALICE, path.read_bytes)
    as_user(ALICE, map_it("only root and the user whose store it is"))
    volume.store.chmod(0o755)
    as_user(ALICE, map_it("only root and the user whose store it is"))
    path.chmod(0o600)
    as_user(ALICE, map_it("Permission denied"))
    assert open_mapping(path)[:] == b"for everybody"


def test_what_cannot_be_mapped(volume: Volume, make_volume: MakeVolume) -> None:
    mnt = volume.mount()
    path = mnt / "file"
    path.write_bytes(b"x")
    os.mkfifo(mnt / "fifo")
    (mnt / "empty").touch()
    for special in (mnt, mnt / "fifo"):
        with pytest.raises(NotSupportedError, match="not a regular file"):
            open_mapping(special)
    with pytest.raises(ValueError, match="empty"):
        open_mapping(mnt / "empty")
    with pytest.raises(NotSupportedError, match="only be mapped for reading"):
        open_mapping(path, "r+")
    for mode in ("r", "r+"):
        with pytest.raises(StoreInUseError):
            open_mapping("file", mode, store=volume.store)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        os.setxattr(path, "user.mapfs.file.layout", b"x")
    memory = make_volume("memory", ephemeral=True)
    mapfs("mount", "--ephemeral", "64M", memory.mnt, "--log", memory.log)
    (memory.mnt / "file").write_bytes(b"x")
    with pytest.raises(NotSupportedError, match="in memory"):
        open_mapping(memory.mnt / "file")


def test_a_read_only_mount(volume: Volume) -> None:
    (volume.mount() / "file").write_bytes(b"x" * 5000)
    volume.remount("--read-only")
    with open_mapping(volume.mnt / "file") as mapping:
        assert mapping[:] == b"x" * 5000


def test_another_store_at_the_path_is_noticed(volume: Volume, make_volume: MakeVolume) -> None:
    (volume.mount() / "file").write_bytes(b"x")
    other = make_volume("other")
    other.mkfs()
    aside = volume.store.with_name("aside.mapfs")
    volume.store.rename(aside)
    other.store.rename(volume.store)
    try:
        with pytest.raises(MapfsError, match="not the store that is mounted"):
            open_mapping(volume.mnt / "file")
    finally:
        volume.store.rename(other.store)
        aside.rename(volume.store)


def test_a_mapping_in_a_child_only(mnt: Path) -> None:
    """Opening works in a process that was forked from one that has mapped files before."""
    (mnt / "file").write_bytes(b"x" * PAGE)
    with open_mapping(mnt / "file"):
        in_child(lambda: open_mapping(mnt / "file").close())
