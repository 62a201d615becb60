"""I/O errors of the host below a mount: who hears of them, and what goes on."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeVolume
from tests.mount.volume import Volume, mapfs, process, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.root]

MIB = 1 << 20
_ALL = f"0 {1 << 62}"


class Host:
    """A directory on a filesystem that fails as it is told."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "source"
        self.mnt = directory / "faulty"
        self._rules = directory / "rules"
        self.source.mkdir()
        self.mnt.mkdir()
        self.heal()

    def fail(self, *rules: str) -> None:
        """Fail from now on as these rules say."""
        new = self._rules.with_suffix(".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.replace(self._rules)

    def heal(self) -> None:
        """Fail no more."""
        self.fail()

    def forget(self, name: str) -> None:
        """Drop what the kernel has in memory of a file."""
        fd = os.open(self.mnt / name, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        script = Path(__file__).with_name("faulty_host.py")
        with process([sys.executable, script, self.source, self.mnt, self._rules]) as server:
            wait_until(lambda: os.path.ismount(self.mnt), "the faulty host")
            try:
                yield
            finally:
                for _ in range(50):
                    if not self._umount():
                        break
                    time.sleep(0.1)
                else:
                    subprocess.run(["umount", "-l", self.mnt], check=False)
                server.wait(10)

    def _umount(self) -> int:
        return subprocess.run(["umount", self.mnt], check=False, capture_output=True).returncode


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    with host.served():
        yield host


@pytest.fixture
def volume(host: Host, make_volume: MakeVolume) -> Iterator[Volume]:
    """A store whose store file is on the faulty host."""
    volume = make_volume()
    volume.mkfs("--backing", host.mnt / "store", "--size", "256M")
    yield volume
    host.heal()
    if volume.mounted:
        subprocess.run(["umount", volume.mnt], check=False)
    volume.wait_for_end()
    volume.fsck()
    logged = volume.log.read_text()
    assert "Traceback" not in logged, logged
    volume.log.unlink()  # it does tell of errors


@pytest.fixture
def faulty_catalog(volume: Volume, host: Host) -> Iterator[Volume]:
    """The catalog is on the faulty host too."""
    catalog = volume.store / "catalog"
    shutil.copy(catalog, host.source / "catalog")
    subprocess.run(["mount", "--bind", host.mnt / "catalog", catalog], check=True)
    yield volume
    host.heal()
    if volume.mounted:
        subprocess.run(["umount", volume.mnt], check=False)
    volume.wait_for_end()
    subprocess.run(["umount", catalog], check=True)
    shutil.copy(host.source / "catalog", catalog)


def code_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def fsync(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return code_of(lambda: os.fsync(fd))
    finally:
        os.close(fd)


def put(path: Path, data: bytes) -> int:
    """Write and fsync; the errno."""

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    return code_of(write)


def extent_of(host: Host, data: bytes) -> tuple[int, int]:
    """Where in the store file some bytes are."""
    at = (host.source / "store").read_bytes().find(data)
    assert at > 0
    return at, at + len(data)


def test_a_page_that_cannot_be_read(volume: Volume, host: Host) -> None:
    bad, good = b"B" * 4096 * 64, b"G" * 4096 * 64
    mnt = volume.mount()
    assert put(mnt / "bad", bad) == put(mnt / "good", good) == 0
    mnt = volume.remount()
    start, end = extent_of(host, bad)
    host.forget("store")
    host.fail(f"read store EIO {start} {end}")
    assert code_of((mnt / "bad").read_bytes) == errno.EIO
    assert (mnt / "good").read_bytes() == good
    assert code_of((mnt / "bad").read_bytes) == errno.EIO
    assert put(mnt / "new", b"new") == 0
    host.heal()
    assert (mnt / "bad").read_bytes() == bad
    mnt = volume.remount()
    assert (mnt / "bad").read_bytes() == bad
    assert (mnt / "new").read_bytes() == b"new"


@pytest.mark.parametrize("cache", ["writeback", "writethrough"])
@pytest.mark.parametrize("code", ["EIO", "ENOSPC"])
def test_a_write_that_fails(volume: Volume, host: Host, cache: str, code: str) -> None:
    mnt = volume.mount("--cache", cache)
    assert put(mnt / "before", b"before" * 1000) == 0
    host.fail(f"write store {code} {_ALL}")
    assert put(mnt / "fails", b"f" * 100_000) == getattr(errno, code)
    assert (mnt / "before").read_bytes() == b"before" * 1000
    host.heal()
    assert put(mnt / "after", b"after" * 1000) == 0
    mnt = volume.remount()
    assert (mnt / "before").read_bytes() == b"before" * 1000
    assert (mnt / "after").read_bytes() == b"after" * 1000


def test_an_fsync_that_fails_is_not_forgotten(volume: Volume, host: Host) -> None:
    mnt = volume.mount("--commit", "3600")
    assert put(mnt / "before", b"before") == 0
    host.fail(f"fsync store EIO {_ALL}")
    assert put(mnt / "lost", b"l" * 10_000) == errno.EIO
    host.heal()
    # The kernel has marked the pages clean that it could not write: nobody can write them again.
    assert fsync(mnt / "lost") == errno.EIO
    assert put(mnt / "later", b"later") == errno.EIO
    assert (mnt / "before").read_bytes() == b"before"
    assert volume.daemons
    subprocess.run(["umount", mnt], check=True)
    volume.wait_for_end()
    mapfs("mount", volume.store, volume.mnt, "--log", volume.log)
    assert (volume.mnt / "before").read_bytes() == b"before"
    assert put(volume.mnt / "again", b"again") == 0


def test_a_catalog_that_cannot_be_written(faulty_catalog: Volume, host: Host) -> None:
    volume = faulty_catalog
    mnt = volume.mount("--commit", "1")
    assert put(mnt / "before", b"before") == 0
    host.fail(f"write catalog EIO {_ALL}", f"fsync catalog EIO {_ALL}")
    started = time.monotonic()
    assert put(mnt / "fails", b"fails") == errno.EIO
    assert fsync(mnt) == errno.EIO
    assert (mnt / "before").read_bytes() == b"before"
    wait_until(lambda: "commit failed" in volume.log.read_text(), "a line in the log")
    assert time.monotonic() - started < 30
    assert volume.daemons
    host.heal()
    wait_until(lambda: fsync(mnt) == 0, "the commits to go on")
    assert put(mnt / "after", b"after") == 0
    mnt = volume.remount()
    assert {path.name: path.read_bytes() for path in mnt.iterdir()} == {
        "before": b"before",
        "fails": b"fails",
        "after": b"after",
    }


def test_a_catalog_that_cannot_be_written_until_the_end(faulty_catalog: Volume, host: Host) -> None:
    """The log holds what was answered, and the next mount finds it."""
    volume = faulty_catalog
    mnt = volume.mount("--commit", "3600")
    assert put(mnt / "before", b"before") == 0
    host.fail(f"write catalog EIO {_ALL}", f"fsync catalog EIO {_ALL}")
    (mnt / "answered").mkdir()
    subprocess.run(["umount", mnt], check=True)
    volume.wait_for_end()
    host.heal()
    volume.mount()
    assert (mnt / "before").read_bytes() == b"before"
    assert (mnt / "answered").is_dir()


def test_a_catalog_that_cannot_be_read(faulty_catalog: Volume, host: Host) -> None:
    """A refusal in one line: pages are read before LMDB maps them."""
    host.forget("catalog")
    host.fail(f"read catalog EIO 8192 {1 << 40}")
    volume = faulty_catalog
    done = mapfs("mount", volume.store, volume.mnt, "--log", "/dev/null", status=1)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    done = mapfs("fsck", faulty_catalog.store, status=8)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    faulty_catalog.log.touch()


def test_a_store_file_that_cannot_be_read_at_all(volume: Volume, host: Host) -> None:
    host.forget("store")
    host.fail(f"read store EIO {_ALL}")
    done = mapfs("mount", volume.store, volume.mnt, "--log", "/dev/null", status=1)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Input/output error" in done.stderr
    volume.log.touch()
