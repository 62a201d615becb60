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

from mapfs.store.syscalls import PageCache
from tests.conftest import MakeVolume
from tests.faults.host import small_ext4
from tests.mount.volume import Volume, mapfs, process, run, wait_until

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

    def forget(self, name: str, start: int = 0, end: int | None = None) -> None:
        """Drop what the kernel has in memory of a file, or of whole pages of it."""
        fd = os.open(self.mnt / name, os.O_RDONLY)
        length = (end or os.fstat(fd).st_size) - start

        def is_gone() -> bool:
            # The kernel passes over pages that something else looks at just now.
            os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)
            return not PageCache(fd).statistics(start, length).resident

        try:
            wait_until(is_gone, f"{name} to leave memory")
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
    host.forget("store", start, end)
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


def state(mnt: Path) -> str:
    return os.getxattr(mnt, "user.mapfs.fs.state").decode()


def bad_disk(volume: Volume, host: Host, *options: str) -> Path:
    """Three files, the disk below one of which refuses what is written from now on."""
    mnt = volume.mount("--commit", "3600", *options)
    for name in ("before", "bad", "after"):
        assert put(mnt / name, name.encode() * 30_000) == 0
    first, _ = extent_of(host, b"bad" * 30_000)
    host.fail(f"fsync store EIO {first + 4096} {first + 8192}")
    return mnt


def overwrite(path: Path, data: bytes) -> int:
    """Write in place and fsync; the errno."""

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    return code_of(write)


@pytest.mark.parametrize("transport", ["wire", "pyfuse3"])
def test_a_file_whose_bytes_the_disk_refuses(volume: Volume, host: Host, transport: str) -> None:
    """Its fsync fails until the bytes are written; other files go on."""
    mnt = bad_disk(volume, host, "--transport", transport)
    with (mnt / "before").open("r+b", buffering=0) as file:
        file.write(b"BEFORE" * 100)
        assert overwrite(mnt / "bad", b"BAD" * 30_000) == errno.EIO
        assert code_of(lambda: os.fsync(file.fileno())) == 0
    assert fsync(mnt / "bad") == errno.EIO
    assert fsync(mnt / "before") == fsync(mnt / "after") == fsync(mnt) == 0
    assert put(mnt / "new", b"new" * 10_000) == 0
    assert overwrite(mnt / "after", b"AFTER" * 10_000) == 0
    assert (mnt / "before").read_bytes()[:606] == b"BEFORE" * 100 + b"before"
    assert state(mnt) == "degraded"
    wait_until(
        lambda: " 1 pages of the store cannot be written" in volume.log.read_text(), "a line"
    )
    host.heal()
    assert fsync(mnt / "bad") == errno.EIO  # nothing has written them meanwhile
    assert overwrite(mnt / "bad", b"Bad" * 30_000) == 0
    assert state(mnt) == "ok"
    mnt = volume.remount()
    assert (mnt / "bad").read_bytes() == b"Bad" * 30_000
    assert (mnt / "new").read_bytes() == b"new" * 10_000


def write_page_by_page(mnt: Path) -> None:
    """A loop device takes a write that stops before its end for a whole one."""
    device = Path(run("findmnt", "-n", "-o", "SOURCE", mnt).stdout.strip())
    try:
        Path(f"/sys/block/{device.name}/queue/max_sectors_kb").write_text("4")
    except OSError as error:
        pytest.skip(f"cannot tell the loop device so: {error}")


@pytest.fixture
def on_bad_disk(host: Host, tmp_path: Path, make_volume: MakeVolume) -> Iterator[Volume]:
    """A store on an ext4 whose disk, `disk`, is on the faulty host."""
    with small_ext4(tmp_path, 96 * MIB, host.mnt / "disk") as mnt:
        write_page_by_page(mnt)
        volume = make_volume(directory=mnt)
        volume.mkfs("--size", "48M")
        yield volume
        host.heal()
        if volume.mounted:
            subprocess.run(["umount", volume.mnt], check=False)
        volume.wait_for_end()
        volume.fsck()
        volume.ephemeral = True  # its host is gone when the fixture of the volume would check it


def test_a_bad_sector_below_ext4(on_bad_disk: Volume, host: Host) -> None:
    """A real page cache: it reports the sector once, and takes its page for clean."""
    volume = on_bad_disk
    mnt = volume.mount("--commit", "3600")
    for name in ("before", "bad", "after"):
        assert put(mnt / name, name.encode() * 30_000) == 0
    first = (host.source / "disk").read_bytes().find(b"bad" * 1000) + 8192
    host.fail(f"write disk EIO {first} {first + 4096}")
    for name in ("before", "after"):
        with (mnt / name).open("r+b", buffering=0) as file:
            file.write(name.upper().encode() * 30_000)
    assert overwrite(mnt / "bad", b"BAD" * 30_000) == errno.EIO
    assert fsync(mnt / "bad") == errno.EIO
    assert fsync(mnt / "before") == fsync(mnt / "after") == 0
    for name in ("before", "after"):
        assert name.upper().encode() * 5000 in (host.source / "disk").read_bytes()
    assert state(mnt) == "degraded"
    wait_until(
        lambda: " 1 pages of the store cannot be written" in volume.log.read_text(), "a line"
    )
    host.heal()
    assert overwrite(mnt / "bad", b"Bad" * 30_000) == 0
    assert state(mnt) == "ok"
    volume.log.unlink()


def test_a_mount_knows_what_the_disk_refused_before(volume: Volume, host: Host) -> None:
    mnt = bad_disk(volume, host)
    assert overwrite(mnt / "bad", b"BAD" * 30_000) == errno.EIO
    assert put(mnt / "new", b"new") == 0
    volume.umount()
    host.heal()
    found = mapfs("fsck", volume.store, status=4).stdout
    assert "bytes-written: inode" in found
    assert "'/bad'" in found
    mapfs("fsck", "--repair", volume.store, status=4)
    volume.mount()
    assert state(mnt) == "degraded"
    assert fsync(mnt / "bad") == errno.EIO
    with (mnt / "bad").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 4096, 0) == (b"BAD" * 30_000)[:4096]
        assert code_of(lambda: os.pread(file.fileno(), 4096, 4096)) == errno.EIO
    assert (mnt / "after").read_bytes() == b"after" * 30_000
    assert (mnt / "new").read_bytes() == b"new"
    (mnt / "bad").unlink()
    assert fsync(mnt) == 0
    assert put(mnt / "in its place", b"p" * 200_000) == 0
    volume.remount()
    assert state(mnt) == "ok"


def test_a_killed_daemon_leaves_what_the_disk_refused_on_record(volume: Volume, host: Host) -> None:
    mnt = bad_disk(volume, host)
    assert overwrite(mnt / "bad", b"BAD" * 30_000) == errno.EIO
    (mnt / "answered").mkdir()
    volume.kill()
    volume.mount()
    assert (mnt / "answered").is_dir()
    assert fsync(mnt / "bad") == errno.EIO
    host.heal()
    assert put(mnt / "bad", b"anew") == 0


def test_a_store_that_cannot_be_synced_at_all(volume: Volume, host: Host) -> None:
    """Nothing is said to be safe before it is; then all of it is written again."""
    mnt = volume.mount("--commit", "3600")
    assert put(mnt / "before", b"before") == 0
    host.fail(f"fsync store EIO {_ALL}")
    for name in ("one", "two"):
        assert put(mnt / name, name.encode() * 10_000) == errno.EIO
    assert fsync(mnt / "one") == errno.EIO
    assert state(mnt) == "degraded"
    assert (mnt / "before").read_bytes() == b"before"
    host.heal()
    assert fsync(mnt / "one") == 0
    assert state(mnt) == "ok"
    assert put(mnt / "later", b"later") == 0
    mnt = volume.remount()
    assert (mnt / "one").read_bytes() == b"one" * 10_000
    assert (mnt / "two").read_bytes() == b"two" * 10_000


def test_a_store_that_cannot_be_synced_until_the_end(volume: Volume, host: Host) -> None:
    """The next mount has what was answered, and says that it may not be whole."""
    mnt = volume.mount("--commit", "3600")
    assert put(mnt / "before", b"before") == 0
    host.fail(f"fsync store EIO {_ALL}")
    assert put(mnt / "lost", b"l" * 10_000) == errno.EIO
    subprocess.run(["umount", mnt], check=True)
    volume.wait_for_end()
    host.heal()
    mapfs("mount", volume.store, volume.mnt, "--log", volume.log)
    assert "may have lost data" in volume.log.read_text()
    assert (volume.mnt / "before").read_bytes() == b"before"
    assert put(volume.mnt / "again", b"again") == 0


def test_a_catalog_that_cannot_be_written(faulty_catalog: Volume, host: Host) -> None:
    """From then on the filesystem can be read only; the next mount has what was answered."""
    volume = faulty_catalog
    mnt = volume.mount("--commit", "0.5")
    assert put(mnt / "before", b"before") == 0
    assert put(mnt / "deleted", b"while it was open") == 0
    (mnt / "answered").mkdir()
    names = ["answered", "before"]
    with (mnt / "deleted").open("rb"):
        (mnt / "deleted").unlink()
        host.fail(f"write catalog EIO {_ALL}", f"fsync catalog EIO {_ALL}")
        # The timer may come before it; the log can take an fsync without the catalog.
        if put(mnt / "synced", b"synced") == 0:
            names.append("synced")
        wait_until(lambda: state(mnt) == "read-only", "the state to change")
    for change in (
        (mnt / "new").mkdir,
        (mnt / "before").unlink,
        lambda: (mnt / "before").rename(mnt / "behind"),
        lambda: (mnt / "before").chmod(0o600),
        lambda: os.setxattr(mnt / "before", "user.a", b"1"),
        lambda: os.truncate(mnt / "before", 0),
    ):
        assert code_of(change) == errno.EROFS
    assert (mnt / "before").read_bytes() == b"before"
    assert sorted(os.listdir(mnt)) == names
    assert volume.log.read_text().count("the filesystem is read-only from now on") == 1
    assert "commit failed" not in volume.log.read_text()
    table = mapfs("df", mnt).stdout
    assert "read-only" in table
    host.heal()
    assert code_of((mnt / "new").mkdir) == errno.EROFS
    mnt = volume.remount()
    assert state(mnt) == "ok"
    assert sorted(os.listdir(mnt)) == names
    assert put(mnt / "after", b"after") == 0


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
