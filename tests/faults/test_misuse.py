"""What people do to a mounted store, and what one user must not get from another."""

import errno
import mmap
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeVolume
from tests.mount.volume import MAPFS, Volume, mapfs, refusal, run, wait_until

pytestmark = pytest.mark.mount

MIB = 1 << 20
NOBODY = 65534


def code_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def put(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


@pytest.fixture
def ruined(volume: Volume) -> Iterator[Volume]:
    """A store that will not be good again: nothing is checked at the end."""
    yield volume
    if volume.mounted:
        subprocess.run(["umount", volume.mnt], check=False, capture_output=True)
    if volume.mounted:
        subprocess.run(["umount", "-l", volume.mnt], check=False, capture_output=True)
    volume.wait_for_end()
    assert "Traceback" not in volume.log.read_text()
    volume.log.unlink()
    volume.ephemeral = True


# The store while it is mounted


def test_a_store_file_truncated_below_a_mount(ruined: Volume) -> None:
    """Reads are errors, not the end of the daemon; the next mount says what is wrong."""
    mnt = ruined.mount()
    put(mnt / "file", b"f" * 4 * MIB)
    put(mnt / "in pieces", b"p" * MIB)
    with (mnt / "in pieces").open("r+b") as file:
        for page in range(200, 600, 2):
            file.seek(page * 4096)
            file.write(b"a piece behind a hole")
    ruined.remount()
    with (mnt / "file").open("rb", buffering=0) as file:
        assert file.read(1) == b"f"  # the daemon has mapped the store now
    os.truncate(ruined.store / "store", 8192)
    assert code_of((mnt / "file").read_bytes) == errno.EIO
    with (mnt / "in pieces").open("rb", buffering=0) as file:
        assert code_of(lambda: os.pread(file.fileno(), 1 << 16, 300 * 4096)) == errno.EIO
    assert sorted(os.listdir(mnt)) == ["file", "in pieces"]
    assert ruined.daemons
    run("umount", mnt)
    ruined.wait_for_end()
    message = refusal(mapfs("mount", ruined.store, mnt, "--log", ruined.log, status=1))
    assert "truncated" in message


def test_a_store_deleted_below_a_mount(ruined: Volume) -> None:
    mnt = ruined.mount()
    put(mnt / "before", b"before")
    for file in ruined.store.iterdir():
        file.unlink()
    ruined.store.rmdir()
    put(mnt / "after", b"after")
    assert (mnt / "before").read_bytes() == b"before"
    run("umount", mnt)
    wait_until(lambda: not ruined.mounted, "the mount to end")
    assert str(ruined.store) in refusal(mapfs("df", ruined.store, status=1))


def test_a_bundle_renamed_while_mounted(volume: Volume) -> None:
    mnt = volume.mount()
    put(mnt / "file", b"content")
    moved = volume.store.with_name("moved.mapfs")
    volume.store.rename(moved)
    put(mnt / "more", b"more")
    message = refusal(mapfs("mount", moved, mnt.parent, "--log", volume.log, status=1))
    assert "not empty" in message or "in use" in message
    volume.store = moved
    run("umount", mnt)
    volume.wait_for_end()
    volume.mount()
    assert (mnt / "more").read_bytes() == b"more"


def test_a_bundle_copied_while_mounted(volume: Volume) -> None:
    """The copy opens, or says in one line why not; the store itself is not harmed."""
    mnt = volume.mount()
    put(mnt / "file", b"content")
    copy = volume.store.with_name("copy.mapfs")
    run("cp", "-a", volume.store, copy)
    for verb in ("fsck", "df"):
        done = subprocess.run([MAPFS, verb, copy], check=False, capture_output=True, text=True)
        assert done.returncode in (0, 1, 4, 8)
        assert "Traceback" not in done.stderr
    assert (mnt / "file").read_bytes() == b"content"


def test_a_second_mount_of_one_store(volume: Volume, tmp_path: Path) -> None:
    volume.mount()
    (tmp_path / "second").mkdir()
    log = ("--log", volume.log)
    for option in ("rw", "ro"):
        done = mapfs("mount", volume.store, tmp_path / "second", "-o", option, *log, status=1)
        assert f"in use by process {volume.daemon}" in refusal(done)
    assert "in use" in refusal(mapfs("mkfs", volume.store, "--force", "--size", "1G", status=1))
    assert "in use" in refusal(mapfs("fsck", volume.store, status=8))


def test_the_mount_point_cannot_go(volume: Volume) -> None:
    mnt = volume.mount()
    assert code_of(mnt.rmdir) == errno.EBUSY
    assert code_of(lambda: mnt.rename(mnt.with_name("other"))) in (0, errno.EBUSY)
    assert volume.daemons


def test_a_stopped_daemon_goes_on(volume: Volume) -> None:
    mnt = volume.mount()
    put(mnt / "file", b"before")
    daemon = volume.daemon
    os.kill(daemon, signal.SIGSTOP)
    try:
        waiting = subprocess.Popen([sys.executable, "-c", _WRITER, mnt / "waited"])
        time.sleep(0.5)
        assert waiting.poll() is None
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert waiting.wait(20) == 0
    volume.remount()
    assert (mnt / "waited").read_bytes() == b"patience"


_WRITER = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"patience")
    os.fsync(file.fileno())
"""


def test_few_descriptors_are_enough(volume: Volume) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

    mnt = volume.mount(preexec_fn=limit)
    for number in range(80):
        put(mnt / f"{number}", b"%d" % number)
    opened = [(mnt / f"{number}").open("rb") for number in range(80)]
    assert [file.read() for file in opened] == [b"%d" % number for number in range(80)]
    for file in opened:
        file.close()


# Other users


def test_nobody_else_can_look_into_a_bundle(volume: Volume) -> None:
    mnt = volume.mount()
    put(mnt / "secret", b"secret")
    assert stat.S_IMODE(volume.store.stat().st_mode) == 0o700
    for file in volume.store.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_modes_do_not_follow_the_umask(make_volume: MakeVolume) -> None:
    volume = make_volume()
    before = os.umask(0)
    try:
        volume.mkfs()
        volume.mount()
    finally:
        os.umask(before)
    assert stat.S_IMODE(volume.store.stat().st_mode) == 0o700
    for file in volume.store.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def as_nobody(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
    )


@pytest.mark.root
def test_another_user_cannot_read_a_bundle(open_directory: Path, make_volume: MakeVolume) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    put(volume.mount() / "secret", b"secret")
    for name in ("", "store", "catalog", "log", "lock"):
        for flag in ("-r", "-w", "-x") if not name else ("-e",):
            assert as_nobody("test", flag, volume.store / name).returncode != 0
    # Without allow_other, root's mount is for root alone.
    assert as_nobody("cat", volume.mnt / "secret").returncode != 0


def test_a_lock_that_leads_elsewhere_is_not_followed(volume: Volume, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (volume.store / "lock").unlink()
    (volume.store / "lock").symlink_to(victim)
    refusal(mapfs("mount", volume.store, volume.mnt, "--log", volume.log, status=1))
    assert victim.read_bytes() == b"precious"
    (volume.store / "lock").unlink()
    (volume.store / "lock").touch(mode=0o600)


@pytest.mark.parametrize("cache", ["writeback", "writethrough"])
def test_fresh_pages_never_show_what_was_freed(volume: Volume, cache: str) -> None:
    """Through read and through a mapping, in whole pages and behind the end of a file."""
    secret = b"SECRET.." * 512
    mapfs("mkfs", volume.store, "--size", "24M", "--force")
    mnt = volume.mount("--cache", cache)
    for _ in range(2):
        for number in range(16):
            put(mnt / f"secret {number}", secret * 256)
        for number in range(16):
            (mnt / f"secret {number}").unlink()
        run("sync", "-f", mnt)
        for number in range(64):
            assert_fresh(mnt / f"fresh {number}", 5000 * (number + 1) + number)
        for path in mnt.iterdir():
            path.unlink()


def assert_fresh(path: Path, size: int) -> None:
    with path.open("w+b", buffering=0) as file:
        file.write(b"x")
        os.posix_fallocate(file.fileno(), 0, size) if size % 2 else file.truncate(size)
        file.seek(size - 1)
        file.write(b"y")
        with mmap.mmap(file.fileno(), 0) as mapping:
            assert mapping[:] == b"x" + bytes(size - 2) + b"y"
            # What lies behind the end in the last page is mapped as well.
            end = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            file.truncate(end)
        with mmap.mmap(file.fileno(), 0) as mapping:
            assert mapping[size:] == bytes(end - size)
            assert b"SECRET" not in mapping[:]
    data = path.read_bytes()
    assert data == b"x" + bytes(size - 2) + b"y" + bytes(end - size)


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "cache"),
    [
        ("write", "writeback"),
        ("write", "writethrough"),
        ("truncate", "writeback"),
        ("chown", "writethrough"),
    ],
)
def test_set_id_bits_do_not_survive_others_changes(
    open_directory: Path, make_volume: MakeVolume, cache: str, change: str
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    mnt = volume.mount("--allow-other", "--cache", cache)
    mnt.chmod(0o777)
    path = mnt / "tool"
    path.write_bytes(b"#!/bin/sh\n")
    os.chown(path, 1000 if change != "chown" else NOBODY, NOBODY)
    path.chmod(0o6777)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6777
    words = {
        "write": ["sh", "-c", f"echo more >> {path}"],
        "truncate": ["truncate", "-s", "3", str(path)],
        "chown": ["chgrp", str(NOBODY), str(path)],
    }[change]
    done = as_nobody(*words)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    volume.remount("--allow-other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
