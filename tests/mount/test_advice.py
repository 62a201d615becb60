"""Advice on a mount, by what it does to what is in memory."""

import errno
import json
import mmap
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import MakeVolume
from tests.mount.volume import Volume, both_transports, mapfs, refusal, wait_until
from tests.posix.as_user import ALICE, as_user

pytestmark = pytest.mark.mount

ADVICE = "user.mapfs.advice"
PAGE = 4096
MIB = 1 << 20


def resident(path: Path) -> int:
    return int(os.getxattr(path, "user.mapfs.file.resident"))


def advise(path: Path, advice: str) -> None:
    os.setxattr(path, ADVICE, advice.encode())


def make_cold(volume: Volume, path: Path) -> None:
    """Have nothing of a file in memory: neither in the kernel's cache for the mount nor below."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with (volume.store / "store").open("rb") as store:
        os.posix_fadvise(store.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_directly(path: Path, offset: int) -> None:
    """Read a page past the kernel's cache and readahead for the mount."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, PAGE) as aligned:
            assert os.preadv(fd, [aligned], offset) == PAGE
    finally:
        os.close(fd)


@pytest.fixture
def path(forgetful_host: None, volume: Volume) -> Path:
    """A file of 32 MiB on a mount."""
    path = volume.mount() / "file"
    path.write_bytes(b"0123456789abcdef" * (2 * MIB))
    return path


@both_transports
def test_what_is_needed_is_brought_in_and_what_is_not_is_dropped(
    volume: Volume, path: Path
) -> None:
    make_cold(volume, path)
    path.read_bytes()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    advise(path, "dontneed")
    assert resident(path) == 0
    advise(path, "willneed")
    wait_until(lambda: resident(path) == 32 * MIB, "all of the file to be in memory")
    os.removexattr(path, ADVICE)
    assert os.getxattr(path, ADVICE) == b"normal"


@both_transports
def test_how_much_is_read_ahead(volume: Volume, path: Path) -> None:
    brought_in = {}
    for advice in ("random", "normal", "sequential"):
        make_cold(volume, path)
        advise(path, "dontneed")  # also what the daemon has mapped
        assert resident(path) == 0
        advise(path, advice)
        for page in range(4):
            read_directly(path, 8 * MIB + page * PAGE)
        if advice == "sequential":
            wait_until(lambda: resident(path) >= 8 * MIB, "readahead")
        brought_in[advice] = resident(path)
    assert brought_in["random"] == 4 * PAGE
    assert brought_in["normal"] < brought_in["sequential"]


@pytest.mark.root
@both_transports
def test_pinned_pages_stay(volume: Volume, path: Path) -> None:
    make_cold(volume, path)
    advise(path, "pin")
    assert resident(path) == 32 * MIB
    make_cold(volume, path)
    assert resident(path) == 32 * MIB
    os.truncate(path, 16 * MIB)
    make_cold(volume, path)
    assert resident(path) == 16 * MIB
    advise(path, "normal")
    make_cold(volume, path)
    assert resident(path) == 0


@pytest.mark.root
def test_the_next_worker_pins_what_is_read(volume: Volume, path: Path) -> None:
    advise(path, "pin")
    died = volume.daemon
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: volume.lock_holders - {died}, "another worker")
    assert os.getxattr(path, ADVICE) == b"pin"
    make_cold(volume, path)
    assert resident(path) == 0
    read_directly(path, 5 * MIB)
    make_cold(volume, path)
    assert resident(path) == 32 * MIB


@pytest.mark.root
@both_transports
def test_who_may_advise(open_directory: Path, make_volume: MakeVolume) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    volume.mount("--allow-other")
    path = volume.mnt / "file"
    path.write_bytes(b"x" * PAGE)

    def refused(advice: str, code: int) -> None:
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            advise(path, advice)
        assert caught.value.errno == code

    as_user(ALICE, lambda: refused("random", errno.EACCES))
    path.chmod(0o666)
    as_user(ALICE, lambda: advise(path, "random"))
    as_user(ALICE, lambda: refused("pin", errno.EPERM))
    as_user(ALICE, lambda: refused("often", errno.EINVAL))
    assert os.getxattr(path, ADVICE) == b"random"
    os.chown(path, ALICE.uid, ALICE.gid)
    path.chmod(0o600)
    as_user(ALICE, lambda: advise(path, "sequential"))
    as_user(ALICE, lambda: os.removexattr(path, ADVICE))


@both_transports
def test_it_is_inherited_and_survives_a_remount(volume: Volume) -> None:
    top = volume.mount() / "top"
    top.mkdir()
    advise(top, "hugepage")
    (top / "below").mkdir()
    (top / "below" / "file").write_bytes(b"x" * PAGE)
    volume.remount()
    assert os.getxattr(top / "below" / "file", ADVICE) == b"hugepage"
    assert (top / "below" / "file").read_bytes() == b"x" * PAGE


def test_the_command(mnt: Path, tmp_path: Path) -> None:
    (mnt / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (mnt / name).write_bytes(b"x")
    (mnt / "d" / "link").symlink_to("b")
    os.mkfifo(mnt / "d" / "fifo")
    assert mapfs("advise", mnt / "a").stdout.split() == ["normal", str(mnt / "a")]
    mapfs("advise", "random", mnt / "a")
    mapfs("advise", "-r", "sequential", mnt / "d")
    shown = mapfs("advise", "--show", "-r", mnt / "d", mnt / "a").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in shown] == [
        ["sequential", str(mnt / "d")],
        ["sequential", str(mnt / "d/e")],
        ["sequential", str(mnt / "d/b")],
        ["sequential", str(mnt / "d/e/c")],
        ["random", str(mnt / "a")],
    ]
    assert json.loads(mapfs("advise", "--json", mnt / "a").stdout) == {str(mnt / "a"): "random"}
    for words, status in ((["random"], 2), (["random", tmp_path / "none"], 1), ([tmp_path], 1)):
        refusal(mapfs("advise", *words, status=status))
    assert "willneed" in refusal(mapfs("advise", "wilneed", mnt / "a", status=2))
    some = mapfs("advise", "normal", tmp_path, mnt / "a", status=1)
    assert len(some.stderr.splitlines()) == 1
    assert os.getxattr(mnt / "a", ADVICE) == b"normal"
