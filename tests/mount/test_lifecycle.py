"""A mount from beginning to end: how it starts, ends, fails, and who may use it."""

import errno
import hashlib
import json
import mmap
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh3_64_intdigest

from tests.conftest import MakeVolume
from tests.mount.tree import describe
from tests.mount.volume import (
    MAPFS,
    Finished,
    Volume,
    both_transports,
    mapfs,
    mount_line,
    process,
    refusal,
    run,
    wait_until,
)

pytestmark = pytest.mark.mount

NOBODY = 65534


def fill(mnt: Path) -> Callable[[], None]:
    """Put a small tree on a mount; returns a check that it is there, whole."""
    tree = mnt / "tree"
    for number in range(3):
        (tree / f"directory {number}" / "below").mkdir(parents=True)
        for size in (0, 7, 4096, 5120, 70_000 + number):
            path = tree / f"directory {number}" / "below" / f"of-{size}-bytes"
            path.write_bytes(number.to_bytes(1, "little") * size)
    (tree / "of-5120-bytes").write_bytes(os.urandom(5120))
    (tree / "of-3000000-bytes").write_bytes(os.urandom(3_000_000))
    (tree / "link").symlink_to("of-5120-bytes")
    os.link(tree / "of-5120-bytes", tree / "directory 1" / "second name")
    os.setxattr(tree / "of-5120-bytes", "user.comment", b"kept")
    expected = describe(tree)

    def check() -> None:
        assert describe(tree) == expected

    return check


# Mounting and unmounting


def test_the_mount_is_ready_when_the_command_returns(volume: Volume) -> None:
    mnt = volume.mount()
    assert os.path.ismount(mnt)
    assert os.listdir(mnt) == []
    assert mount_line(mnt).split(" - ")[1].split()[:2] == ["fuse.mapfs", str(volume.store)]


@both_transports
def test_contents_survive_many_mounts(volume: Volume) -> None:
    check = fill(volume.mount())
    for _ in range(3):
        volume.remount()
        check()


def test_umount_returns_when_the_store_is_free_to_be_copied(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    check = fill(mnt)
    mapfs("umount", mnt)
    copy = volume.store.with_name("copy.mapfs")
    run("cp", "-a", volume.store, copy)
    mapfs("fsck", copy)
    volume.wait_for_end()
    shutil.rmtree(volume.store)
    copy.rename(volume.store)
    volume.mount()
    check()


@both_transports
def test_fusermount3_commits_everything(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    check = fill(mnt)
    run("fusermount3", "-u", mnt)
    volume.wait_for_end()
    volume.mount()
    check()


def test_umount8_commits_everything(volume: Volume) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the rights of root")
    mnt = volume.mount("--commit", "3600")
    check = fill(mnt)
    run("umount", mnt)
    volume.wait_for_end()
    volume.mount()
    check()


@pytest.mark.parametrize("receiver", ["supervisor", "daemon"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_commits_and_unmounts(
    volume: Volume, number: signal.Signals, receiver: str
) -> None:
    mnt = volume.mount("--commit", "3600")
    check = fill(mnt)
    os.kill(getattr(volume, receiver), number)
    volume.wait_for_end()
    assert not volume.mounted
    assert os.listdir(mnt) == []
    volume.mount()
    check()


_HOLD = """
import mmap, os, sys
file = open(sys.argv[1], "r+b", buffering=0)
file.write(b"written")
mapping = mmap.mmap(file.fileno(), 0)
mapping[8192:8198] = b"mapped"
print("held", flush=True)
sys.stdin.readline()
os._exit(0)
"""


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    """Another process has the file open and mapped, and has changed it in both ways."""
    with process([sys.executable, "-c", _HOLD, path]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


@both_transports
def test_sigterm_keeps_what_a_process_wrote_to_a_file_it_still_has_open(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    (mnt / "open").write_bytes(bytes(12_288))
    check = fill(mnt)
    with held_open(mnt / "open"):
        os.kill(volume.daemon, signal.SIGTERM)
        volume.wait_for_end()
        assert not volume.mounted
    volume.mount()
    check()
    content = (mnt / "open").read_bytes()
    assert content == b"written".ljust(8192, b"\0") + b"mapped".ljust(4096, b"\0")


@both_transports
def test_an_unlinked_file_open_at_sigterm_leaves_nothing_behind(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "gone").write_bytes(bytes(12_288))
    with held_open(mnt / "gone"):
        (mnt / "gone").unlink()
        os.kill(volume.daemon, signal.SIGTERM)
        volume.wait_for_end()
    volume.mount()
    assert os.listdir(mnt) == []
    assert os.getxattr(mnt, "user.mapfs.fs.allocated_bytes") == b"0"


def test_a_busy_mount_is_not_unmounted(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "open").write_bytes(bytes(12_288))
    with held_open(mnt / "open"):
        message = refusal(mapfs("umount", mnt, status=1))
        assert str(mnt) in message
        assert "busy" in message
        assert volume.mounted
        assert (mnt / "open").read_bytes()[8192:8198] == b"mapped"


@both_transports
def test_a_lazy_unmount_serves_open_files_and_then_commits(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    (mnt / "open").write_bytes(bytes(12_288))
    with held_open(mnt / "open"):
        run("fusermount3", "-u", "-z", mnt)
        assert not volume.mounted
    volume.wait_for_end()
    volume.mount()
    assert (mnt / "open").read_bytes()[8192:8198] == b"mapped"


def test_umount_of_what_is_no_mapfs_mount_is_refused(volume: Volume, tmp_path: Path) -> None:
    for path in (volume.mnt, tmp_path / "missing", Path("/")):
        message = refusal(mapfs("umount", path, status=1))
        assert "no mapfs is mounted there" in message


def test_paths_may_be_relative_odd_and_symbolic_links(
    make_volume: MakeVolume, tmp_path: Path
) -> None:
    directory = tmp_path / "with space, comma\\and=é"
    directory.mkdir()
    volume = make_volume("st ore,ro", directory)
    volume.mkfs()
    volume.mount()
    (volume.mnt / "file").write_text("here")
    assert mapfs("df", volume.store).stdout
    volume.umount()
    (directory / "link").symlink_to(volume.mnt.name)
    mapfs("mount", volume.store.name, "link", "--log", volume.log, cwd=directory)
    assert (volume.mnt / "file").read_text() == "here"
    mapfs("umount", "link", cwd=directory)
    assert not volume.mounted
    volume.wait_for_end()


# A daemon that dies


def test_a_commit_comes_by_itself_after_the_time_asked_for(volume: Volume) -> None:
    mnt = volume.mount("--commit", "1")
    check = fill(mnt)
    os.sync()
    time.sleep(3)
    volume.kill()
    volume.fsck()
    volume.mount()
    check()


@both_transports
def test_what_fsync_acknowledged_survives_the_death_of_the_daemon(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    (mnt / "directory").mkdir()
    with (mnt / "directory" / "file").open("wb") as file:
        file.write(b"kept" * 10_000)
        file.flush()
        os.fsync(file.fileno())
    volume.kill()
    volume.fsck()
    volume.mount()
    assert (mnt / "directory" / "file").read_bytes() == b"kept" * 10_000


@both_transports
def test_what_the_daemon_answered_survives_its_death(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    check = fill(mnt)
    (mnt / "removed").touch()
    (mnt / "removed").unlink()
    (mnt / "tree" / "link").rename(mnt / "renamed")
    (mnt / "renamed").rename(mnt / "tree" / "link")
    volume.kill()
    volume.mount()
    check()
    assert os.listdir(mnt) == ["tree"]
    volume.remount()
    check()


def test_a_dead_mount_is_named_and_can_be_unmounted(volume: Volume) -> None:
    mnt = volume.mount()
    volume.kill_daemon()
    message = refusal(mapfs("mount", volume.store, mnt, status=1))
    assert "a mount without a daemon is there" in message
    mapfs("umount", mnt)
    volume.mount()


# Errors: one line, and the right exit code


def mount_refused(store: Path, mnt: Path, *options: str, status: int = 1) -> str:
    """What a mount that must fail says; nothing is mounted then."""
    message = refusal(mapfs("mount", store, mnt, *options, status=status))
    assert not os.path.ismount(mnt)
    return message


def test_what_is_not_a_store_is_not_mounted(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    assert "no such store" in mount_refused(tmp_path / "missing", volume.mnt)
    for name in ("empty", "file"):
        message = mount_refused(tmp_path / name, volume.mnt)
        assert "not a mapfs store" in message
        assert str(tmp_path / name) in message


@pytest.mark.parametrize("file", ["store", "catalog"])
def test_a_bundle_of_foreign_files_is_not_mounted(volume: Volume, file: str) -> None:
    good = (volume.store / file).read_bytes()
    for content in (b"", b"x" * 100, bytes(1_000_000)):
        (volume.store / file).write_bytes(content)
        assert str(volume.store) in mount_refused(volume.store, volume.mnt)
        assert str(volume.store) in refusal(mapfs("fsck", volume.store, status=8))
    (volume.store / file).write_bytes(good)


def test_a_bundle_that_lacks_a_file_is_not_mounted(volume: Volume) -> None:
    for file in ("store", "catalog", "lock"):
        (volume.store / file).rename(volume.store / "away")
        assert f"{file} is missing" in mount_refused(volume.store, volume.mnt)
        (volume.store / "away").rename(volume.store / file)


def test_a_truncated_store_is_not_mounted(volume: Volume) -> None:
    store = volume.store / "store"
    size = store.stat().st_size
    os.truncate(store, size // 2)
    assert "truncated" in mount_refused(volume.store, volume.mnt)
    os.truncate(store, size)


def patch_superblock(
    store: Path, copies: tuple[int, ...], change: Callable[[bytearray], None]
) -> None:
    """Change copies of a superblock and give them a checksum that holds."""
    with (store / "store").open("r+b") as file:
        for copy in copies:
            block = bytearray(os.pread(file.fileno(), 4096, copy * 4096))
            change(block)
            block[-8:] = struct.pack("<Q", xxh3_64_intdigest(bytes(block[:-8])))
            os.pwrite(file.fileno(), block, copy * 4096)


def test_a_store_of_a_newer_format_is_not_mounted(volume: Volume) -> None:
    def add_to_version(by: int) -> Callable[[bytearray], None]:
        def change(block: bytearray) -> None:
            (version,) = struct.unpack_from("<I", block, 8)
            struct.pack_into("<I", block, 8, version + by)

        return change

    patch_superblock(volume.store, (0, 1), add_to_version(1))
    message = mount_refused(volume.store, volume.mnt)
    assert "format" in message
    assert "upgrade mapfs" in message
    patch_superblock(volume.store, (0, 1), add_to_version(-1))
    volume.mount()


def test_either_copy_of_the_superblock_will_do(volume: Volume) -> None:
    store = volume.store / "store"
    good = store.read_bytes()[:8192]
    for copy in (0, 1):
        with store.open("r+b") as file:
            file.seek(copy * 4096 + 20)
            file.write(b"damage")
        volume.mount()
        volume.umount()
        with store.open("r+b") as file:
            file.write(good)
    with store.open("r+b") as file:
        for copy in (0, 1):
            file.seek(copy * 4096 + 20)
            file.write(b"damage")
    assert "checksum" in mount_refused(volume.store, volume.mnt)
    with store.open("r+b") as file:
        file.write(good)


def test_a_store_with_the_catalog_of_another_is_not_mounted(make_volume: MakeVolume) -> None:
    first, second = make_volume("first"), make_volume("second")
    for volume in (first, second):
        volume.mkfs()
    (first.store / "catalog").rename(first.store / "own")
    run("cp", second.store / "catalog", first.store / "catalog")
    assert "do not belong together" in mount_refused(first.store, first.mnt)
    assert "do not belong together" in refusal(mapfs("fsck", first.store, status=8))
    (first.store / "own").rename(first.store / "catalog")


def test_the_mount_point_must_be_an_empty_directory(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "no such directory" in mount_refused(volume.store, tmp_path / "missing")
    assert "not a directory" in mount_refused(volume.store, tmp_path / "file")
    assert "not empty" in mount_refused(volume.store, tmp_path / "full")


def test_a_store_in_use_is_neither_mounted_nor_made_anew(volume: Volume, tmp_path: Path) -> None:
    check = fill(volume.mount())
    (tmp_path / "second").mkdir()
    holder = f"process {volume.daemon} (mapfs)"
    for refused in (
        mount_refused(volume.store, tmp_path / "second"),
        mount_refused(volume.store, tmp_path / "second", "--read-only"),
        refusal(mapfs("mkfs", "--force", "--size", "1G", volume.store, status=1)),
        refusal(mapfs("fsck", volume.store, status=8)),
    ):
        assert "in use" in refused
        assert holder in refused
    check()
    volume.remount()
    check()


def test_a_mount_option_that_makes_no_sense_is_refused(volume: Volume) -> None:
    for option in (
        *("nonsense", "commit=soon", "commit=0", "commit", "cache=none", "address_space=1"),
        *("xattrs=some", "ro=1", "allow_other=yes", "commit=nan", "address_space=-1"),
    ):
        message = mount_refused(volume.store, volume.mnt, "-o", f"noatime,{option}", status=2)
        assert option in message


def test_a_daemon_that_fails_in_the_foreground_says_so_in_one_line(volume: Volume) -> None:
    done = mapfs("mount", "--foreground", volume.store.parent / "missing", volume.mnt, status=1)
    assert "no such store" in refusal(done)


# Reading only


def hashes(bundle: Path) -> dict[str, tuple[str, int]]:
    """Contents and times of change of every file of a bundle."""
    return {
        str(path.relative_to(bundle)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in [bundle, *bundle.rglob("*")]
    }


def assert_only_readable(mnt: Path, check: Callable[[], None]) -> None:
    """Everything can be read, and every kind of change is EROFS."""
    check()
    file = mnt / "tree" / "of-5120-bytes"
    assert os.getxattr(file, "user.mapfs.file.slack") == b"3072"
    assert os.getxattr(mnt, "user.mapfs.fs.json")
    changes: list[Callable[[], object]] = [
        lambda: file.open("r+b"),
        (mnt / "new").touch,
        file.unlink,
        (mnt / "new").mkdir,
        lambda: file.rename(mnt / "new"),
        lambda: file.chmod(0o600),
        lambda: os.utime(file),
        lambda: os.setxattr(file, "user.new", b""),
        lambda: os.truncate(file, 0),
    ]
    for change in changes:
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            change()


@both_transports
def test_a_read_only_mount_never_writes_a_byte(volume: Volume) -> None:
    check = fill(volume.mount())
    volume.umount()
    before = hashes(volume.store)
    mnt = volume.mount("--read-only", "--commit", "1")
    assert_only_readable(mnt, check)
    time.sleep(1.5)
    assert hashes(volume.store) == before
    volume.remount("-o", "ro")
    assert_only_readable(mnt, check)
    volume.umount()
    volume.fsck()
    assert hashes(volume.store) == before


@pytest.mark.root
def test_a_store_on_a_read_only_filesystem_can_be_mounted_read_only(
    volume: Volume, tmp_path: Path
) -> None:
    check = fill(volume.mount())
    volume.umount()
    run("mount", "--bind", volume.store, volume.store)
    try:
        run("mount", "-o", "remount,bind,ro", volume.store)
        assert "Read-only" in mount_refused(volume.store, volume.mnt)
        assert_only_readable(volume.mount("--read-only"), check)
        volume.umount()
        volume.fsck()
    finally:
        if volume.mounted:
            volume.umount()
        run("umount", volume.store)


def test_a_store_can_be_mounted_read_only_twice_and_then_not_written(
    volume: Volume, tmp_path: Path
) -> None:
    check = fill(volume.mount())
    volume.umount()
    volume.mount("--read-only")
    second = Volume(volume.store, tmp_path / "second", tmp_path / "second.log")
    second.mnt.mkdir()
    third = tmp_path / "third"
    third.mkdir()
    try:
        mapfs("mount", "--read-only", "--log", second.log, second.store, second.mnt)
        check()
        assert describe(second.mnt / "tree") == describe(volume.mnt / "tree")
        assert "in use" in mount_refused(volume.store, third)
        mapfs("umount", second.mnt)
    finally:
        run("umount", "-l", second.mnt) if second.mounted else None


# In memory, on devices, with other pages


def test_an_ephemeral_mount_leaves_nothing_behind(make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume(ephemeral=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != volume.mnt}
    mapfs("mount", "--ephemeral", "256M", volume.mnt, "--log", volume.log, cwd=tmp_path)
    fill(volume.mnt)()
    volume.umount()
    volume.log.unlink()
    assert os.listdir(volume.mnt) == []
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != volume.mnt}
    assert after == before


def write_until_full(path: Path, most: int) -> None:
    """Write a file that does not fit, MiB by MiB."""
    with path.open("wb", buffering=0) as file:
        for _ in range(most >> 20):
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())


@both_transports
def test_a_full_filesystem_is_enospc_and_works_again_after_rm(make_volume: MakeVolume) -> None:
    volume = make_volume(ephemeral=True)
    transport = ("--transport", volume.transport)
    mapfs("mount", "--ephemeral", "16M", volume.mnt, "--log", volume.log, *transport)
    (volume.mnt / "kept").write_bytes(b"kept" * 1000)
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            write_until_full(volume.mnt / "big", 20 << 20)
        assert (volume.mnt / "kept").read_bytes() == b"kept" * 1000
        (volume.mnt / "big").unlink()
    (volume.mnt / "fits").write_bytes(bytes(8 << 20))
    assert (volume.mnt / "fits").read_bytes() == bytes(8 << 20)


@pytest.mark.root
def test_a_store_may_lie_on_a_block_device(loop_device: Path, make_volume: MakeVolume) -> None:
    volume = make_volume()
    volume.mkfs("--backing", loop_device)
    assert (volume.store / "store").is_block_device()
    mnt = volume.mount()
    check = fill(mnt)
    usage = os.statvfs(mnt)
    assert (64 << 20) - 16_384 <= usage.f_blocks * usage.f_frsize <= 64 << 20
    volume.remount()
    check()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_until_full(mnt / "big", 66 << 20)
    (mnt / "big").unlink()
    volume.remount()
    check()
    volume.umount()
    refusal(mapfs("mkfs", volume.store.with_name("b.mapfs"), "--backing", loop_device, status=1))
    too_big = ("mkfs", volume.store.with_name("b.mapfs"), "--force", "--size", "1G")
    assert "less than --size" in refusal(mapfs(*too_big, "--backing", loop_device, status=2))
    volume.mount()
    check()
    in_use = mapfs(
        "mkfs", volume.store.with_name("b.mapfs"), "--force", "--backing", loop_device, status=1
    )
    assert "in use" in refusal(in_use)
    other = volume.store.with_name("other")
    other.mkdir()
    done = subprocess.run(["mount", loop_device, other], check=False, capture_output=True)
    assert done.returncode, "what is a store is no file system for others meanwhile"


@pytest.mark.root
def test_a_mounted_device_is_not_overwritten(loop_device: Path, tmp_path: Path) -> None:
    store, mnt = tmp_path / "t.mapfs", tmp_path / "mnt"
    mnt.mkdir()
    run("mkfs.ext4", "-q", loop_device)
    run("mount", loop_device, mnt)
    try:
        done = mapfs("mkfs", store, "--force", "--backing", loop_device, status=1)
    finally:
        run("umount", mnt)
    assert "in use: mounted" in refusal(done)
    assert not store.exists()
    run("fsck.ext4", "-fn", loop_device)


def test_a_store_may_lie_in_shared_memory(make_volume: MakeVolume) -> None:
    volume = make_volume()
    backing = Path(f"/dev/shm/mapfs-test-{os.getpid()}")
    try:
        volume.mkfs("--backing", backing, "--size", "256M")
        check = fill(volume.mount())
        volume.remount()
        check()
        volume.umount()
        volume.fsck()
        assert backing.stat().st_blocks * 512 >= 3_000_000
        volume.check()
    finally:
        volume.clean_up()
        volume.ephemeral = True
        backing.unlink(missing_ok=True)


@pytest.mark.parametrize("page_size", [16 << 10, 64 << 10, 2 << 20])
def test_pages_may_be_larger_than_the_machines(make_volume: MakeVolume, page_size: int) -> None:
    volume = make_volume()
    volume.mkfs("--page-size", page_size)
    mnt = volume.mount()
    check = fill(mnt)
    volume.remount()
    check()
    below = mnt / "tree" / "directory 0" / "below"
    slack = os.getxattr(below / "of-7-bytes", "user.mapfs.file.slack")
    assert slack == b"%d" % (page_size - 7)
    assert (below / "of-7-bytes").stat().st_blocks * 512 == page_size
    assert os.statvfs(mnt).f_frsize == os.statvfs(mnt).f_bsize == page_size
    with (below / "of-70000-bytes").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[69_995:] = b"ended"
        mapping.flush()
    volume.remount()
    assert (below / "of-70000-bytes").read_bytes()[-5:] == b"ended"


def block(number: int) -> bytes:
    """A MiB that differs from every other."""
    return number.to_bytes(8, "little") * (1 << 17)


def mapped_of(pid: int, file: Path) -> int:
    """The bytes of address space that a process uses for a file."""
    total = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(f" {file}"):
            start, _, end = line.split()[0].partition("-")
            total += int(end, 16) - int(start, 16)
    return total


@pytest.mark.slow
def test_a_store_larger_than_the_address_space_allowed(volume: Volume) -> None:
    mnt = volume.mount("--address-space", "64M")
    most, pid = 0, volume.daemon
    with (mnt / "big").open("wb", buffering=0) as file:
        for number in range(2048):
            file.write(block(number))
            most = max(most, mapped_of(pid, volume.store / "store")) if number % 64 == 0 else most
    volume.remount("--address-space", "64M")
    pid = volume.daemon
    with (mnt / "big").open("rb", buffering=0) as file:
        for number in range(2048):
            assert file.read(1 << 20) == block(number)
            most = max(most, mapped_of(pid, volume.store / "store")) if number % 16 == 0 else most
        for number in (2047, 0, 1000, 5, 1500):
            assert os.pread(file.fileno(), 1 << 20, number << 20) == block(number)
    assert (volume.store / "store").stat().st_size > 2 << 30
    # A window that a reply still refers to may outlive its place.
    assert 0 < most <= (64 << 20) + (16 << 20)


# Through mount(8)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where the daemon logs."""
    return {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


def assert_mounted_by_mount8(volume: Volume) -> None:
    """The filesystem works, and ends as any other."""
    assert mount_line(volume.mnt).split(" - ")[1].split()[0] == "fuse.mapfs"
    (volume.mnt / "file").write_text("by mount(8)")
    volume.umount()
    volume.mount()
    assert (volume.mnt / "file").read_text() == "by mount(8)"


@contextmanager
def installed(link: str) -> Iterator[None]:
    """With a command of ours where mount(8) finds it: it passes no PATH on."""
    if Path(link).is_symlink() or Path(link).exists():
        yield
        return
    Path(link).symlink_to(MAPFS.with_name(Path(link).name))
    try:
        yield
    finally:
        Path(link).unlink()


HELPER = "/sbin/mount.fuse.mapfs"
COMMAND = "/usr/local/bin/mapfs"  # what mount.fuse3(8) runs if there is no helper


@pytest.mark.root
@pytest.mark.parametrize("link", [COMMAND, HELPER])
def test_mount8_mounts(volume: Volume, environment: dict[str, str], link: str) -> None:
    options = "rw,noatime,nosuid,commit=2,x-systemd.automount,nofail,_netdev"
    with installed(link):
        run(
            *("mount", "-t", "fuse.mapfs", "-o", options, volume.store, volume.mnt),
            env=environment,
        )
    assert {"noatime", "nosuid"} <= set(mount_line(volume.mnt).split()[5].split(","))
    assert_mounted_by_mount8(volume)


@pytest.mark.root
@pytest.mark.parametrize("link", [COMMAND, HELPER])
def test_a_line_of_fstab_mounts(
    volume: Volume, environment: dict[str, str], tmp_path: Path, link: str
) -> None:
    fstab = tmp_path / "fstab"
    options = "noauto,user,exec,noatime,commit=2,allow_other"
    fstab.write_text(f"{volume.store} {volume.mnt} fuse.mapfs {options} 0 0\n")
    with installed(link):
        run("mount", "--fstab", fstab, volume.mnt, env=environment)
    assert "allow_other" in mount_line(volume.mnt)
    assert_mounted_by_mount8(volume)


@pytest.mark.root
def test_mount8_says_what_is_wrong(volume: Volume, environment: dict[str, str]) -> None:
    with installed(HELPER):
        command: list[str | Path] = [
            "mount",
            "-t",
            "fuse.mapfs",
            volume.store.with_name("none"),
            volume.mnt,
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert "no such store" in done.stderr
    assert "Traceback" not in done.stderr
    assert not volume.mounted


# Options


@both_transports
def test_mount_flags_reach_the_kernel(volume: Volume) -> None:
    options = "defaults,nosuid,nodev,noexec,noatime,user,nofail,x-anything=1,comment=text"
    mnt = volume.mount("-o", options)
    assert {"nosuid", "nodev", "noexec", "noatime"} <= set(mount_line(mnt).split()[5].split(","))
    shutil.copy(shutil.which("true") or "true", mnt / "true")
    with pytest.raises(PermissionError):
        subprocess.run([mnt / "true"], check=True)
    volume.remount("-o", "noexec,exec")
    subprocess.run([mnt / "true"], check=True)


@both_transports
def test_noatime_keeps_access_times(volume: Volume) -> None:
    mnt = volume.mount("-o", "noatime")
    (mnt / "file").write_text("text")
    os.utime(mnt / "file", ns=(10**18, 10**18))
    assert (mnt / "file").read_text() == "text"
    volume.remount("-o", "noatime")
    assert (mnt / "file").stat().st_atime_ns == 10**18
    volume.remount()
    assert (mnt / "file").read_text() == "text"
    volume.remount()
    assert (mnt / "file").stat().st_atime_ns > 10**18


@both_transports
def test_without_acls_setfacl_is_refused(volume: Volume) -> None:
    mnt = volume.mount("--no-acl")
    (mnt / "file").touch()
    assert "not supported" in run("setfacl", "-m", "u:1234:r", mnt / "file", status=1).stderr
    volume.remount("-o", "acl")
    run("setfacl", "-m", "u:1234:r", mnt / "file")


@both_transports
@pytest.mark.parametrize("cache", ["writeback", "writethrough"])
def test_either_cache_keeps_every_byte(volume: Volume, cache: str) -> None:
    mnt = volume.mount("--cache", cache)
    check = fill(mnt)
    with (mnt / "log").open("ab", buffering=0) as file:
        for number in range(1000):
            file.write(b"%04d\n" % number)
    volume.remount("-o", f"cache={cache}")
    check()
    assert (mnt / "log").read_bytes() == b"".join(b"%04d\n" % number for number in range(1000))


def test_in_the_foreground_it_logs_to_standard_error(volume: Volume) -> None:
    command: list[str | Path] = [MAPFS, "mount", "--foreground", volume.store, volume.mnt]
    with process(command, stderr=subprocess.PIPE) as daemon:
        wait_until(lambda: volume.mounted, "the mount")
        check = fill(volume.mnt)
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(timeout=60) == 0
        assert daemon.stderr is not None
        said = daemon.stderr.read()
    assert "SIGINT" in said
    assert "Traceback" not in said
    assert not volume.mounted
    volume.mount()
    check()


@both_transports
def test_in_the_foreground_an_unmount_ends_the_command(volume: Volume) -> None:
    command: list[str | Path] = [MAPFS, "mount", "--foreground", volume.store, volume.mnt]
    command += ["--transport", volume.transport]
    with process(command, stderr=subprocess.PIPE) as daemon:
        wait_until(lambda: volume.mounted, "the mount")
        mapfs("umount", volume.mnt)
        assert daemon.wait(timeout=60) == 0


# Other users


def as_nobody(
    *command: str | Path, status: int = 0, needs_python: bool = False, **options: Any
) -> Finished:
    """Run a program as a user without any rights."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if needs_python and not _reachable_for_nobody(Path(sys.executable).resolve()):
        # This Python lies in somebody's home: let the command read it, and nothing more.
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return run(*become, *command, status=status, **options)


def _reachable_for_nobody(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


@pytest.fixture
def fuse_for_all() -> Iterator[None]:
    """udev(7) gives /dev/fuse to everybody; a machine without udev may not."""
    fuse = Path("/dev/fuse")
    mode = fuse.stat().st_mode & 0o777
    fuse.chmod(0o666)
    yield
    fuse.chmod(mode)


@pytest.mark.root
def test_a_user_mounts_and_unmounts_without_being_root(
    fuse_for_all: None, open_directory: Path, make_volume: MakeVolume
) -> None:
    home = open_directory / "home, of nobody"
    home.mkdir()
    volume = make_volume(directory=home)
    os.chown(home, NOBODY, NOBODY)
    os.chown(volume.mnt, NOBODY, NOBODY)
    how: dict[str, Any] = {
        "needs_python": True,
        "cwd": home,
        "env": {**os.environ, "HOME": str(home)},
    }
    as_nobody(MAPFS, "mkfs", volume.store, "--size", "1G", **how)
    as_nobody(MAPFS, "mount", volume.store, volume.mnt, "--log", volume.log, **how)
    assert {"nosuid", "nodev"} <= set(mount_line(volume.mnt).split()[5].split(","))
    tree = Path(json.__file__).parent  # whoever runs mapfs can read it
    as_nobody("cp", "-r", tree, volume.mnt / "copy", **how)
    in_use = as_nobody(MAPFS, "mkfs", "--force", volume.store, "--size", "1G", status=1, **how)
    assert f"process {volume.daemon} " in refusal(in_use)
    as_nobody(MAPFS, "umount", volume.mnt, **how)
    volume.wait_for_end()
    as_nobody(MAPFS, "fsck", volume.store, **how)
    as_nobody(MAPFS, "mount", volume.store, volume.mnt, "--log", volume.log, **how)
    as_nobody("diff", "-r", tree, volume.mnt / "copy", **how)
    os.kill(volume.daemon, signal.SIGTERM)
    volume.wait_for_end()
    assert not volume.mounted
    assert (volume.store / "store").stat().st_uid == NOBODY


@pytest.mark.root
def test_a_user_may_not_mount_over_what_is_not_theirs(
    fuse_for_all: None, open_directory: Path, make_volume: MakeVolume
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    how: dict[str, Any] = {"needs_python": True, "cwd": "/"}
    refused = as_nobody(MAPFS, "mount", volume.store, volume.mnt, status=1, **how)
    assert "Permission denied" in refusal(refused)
    run("chown", "-R", NOBODY, volume.store)
    refused = as_nobody(
        *(MAPFS, "mount", volume.store, volume.mnt, "--log", "/dev/null"), status=1, **how
    )
    assert "cannot mount" in refusal(refused)
    assert not volume.mounted


@pytest.mark.root
def test_other_users_stay_out_unless_allowed(open_directory: Path, make_volume: MakeVolume) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    mnt = volume.mount()
    (mnt / "public").write_text("for all")
    (mnt / "public").chmod(0o644)
    assert "Permission denied" in as_nobody("cat", mnt / "public", status=1).stderr
    volume.remount("--allow-other")
    assert as_nobody("cat", mnt / "public").stdout == "for all"


@pytest.mark.root
def test_other_users_have_the_permissions_the_modes_give(
    open_directory: Path, make_volume: MakeVolume
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    mnt = volume.mount("--allow-other")
    (mnt / "private").write_text("for root")
    (mnt / "private").chmod(0o600)
    (mnt / "shared").mkdir()
    (mnt / "shared").chmod(0o1777)
    (mnt / "shared" / "of root").touch()
    commands: list[list[str | Path]] = [
        ["cat", mnt / "private"],
        ["touch", mnt / "new"],
        ["rm", "-f", mnt / "private"],
        ["rm", "-f", mnt / "shared" / "of root"],  # the directory is sticky
        ["chmod", "777", mnt / "private"],
        ["setfattr", "-n", "user.mine", mnt / "private"],
        ["getfattr", "-n", "user.mapfs.file.slack", mnt / "private"],
    ]
    for command in commands:
        as_nobody(*command, status=1)
    as_nobody("sh", "-c", f"echo mine > {shlex.quote(str(mnt / 'shared' / 'mine'))}")
    assert (mnt / "shared" / "mine").stat().st_uid == NOBODY
    assert (mnt / "shared" / "mine").stat().st_gid == NOBODY
    as_nobody("chmod", "600", mnt / "shared" / "mine")
    as_nobody("chown", "0", mnt / "shared" / "mine", status=1)
    as_nobody("rm", mnt / "shared" / "mine")
    run("setfacl", "-m", f"u:{NOBODY}:r", mnt / "private")
    assert as_nobody("cat", mnt / "private").stdout == "for root"
