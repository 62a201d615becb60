"""No space left: on the host, in the store, in the catalog."""

import errno
import hashlib
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mapfs.errors import NoSpaceError
from mapfs.format.records import Table
from mapfs.store import catalog as catalog_module
from mapfs.store.catalog import Catalog
from tests.conftest import MakeVolume
from tests.faults.host import fill_up, small_ext4
from tests.mount.volume import Volume, mapfs, run

MIB = 1 << 20


@pytest.fixture
def host(open_directory: Path) -> Iterator[Path]:
    with small_ext4(open_directory, 64 * MIB) as mnt:
        yield mnt


@pytest.fixture
def on_host(host: Path, make_volume: MakeVolume) -> Iterator[Volume]:
    """A store on the small host, which it may outgrow; mount point and log lie elsewhere."""
    volume = make_volume()
    volume.store = host / "data.mapfs"
    yield volume
    if volume.mounted:
        volume.umount()
    volume.wait_for_end()
    if volume.store.exists():
        volume.fsck()
    assert "Traceback" not in volume.log.read_text()
    volume.log.unlink()  # it does tell of the full disk
    volume.ephemeral = True  # the host is gone when the fixture of the volume would check it


def code_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def synced(path: Path, data: bytes) -> int:
    """Write a file and fsync it; the errno of what failed, or 0."""

    def write() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    return code_of(write)


def fill(mnt: Path, size: int, most: int = 4000) -> dict[str, str]:
    """Write files until there is no space; returns the digests of those that were synced."""
    written: dict[str, str] = {}
    for number in range(most):
        data = number.to_bytes(4, "little") * (size // 4)
        code = synced(mnt / f"{number}", data)
        if code:
            assert code == errno.ENOSPC
            return written
        written[f"{number}"] = hashlib.sha256(data).hexdigest()
    raise AssertionError("the filesystem never filled up")


def assert_there(mnt: Path, written: dict[str, str]) -> None:
    for name, digest in written.items():
        assert hashlib.sha256((mnt / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.mount
@pytest.mark.parametrize(("cache", "size"), [("writeback", 4 * MIB), ("writethrough", 60_000)])
def test_a_store_at_its_limit(volume: Volume, cache: str, size: int) -> None:
    mapfs("mkfs", volume.store, "--size", "40M", "--force")
    mnt = volume.mount("--cache", cache)
    kept = fill(mnt, size)
    assert len(kept) * size > 20 * MIB
    assert_there(mnt, kept)
    assert_deleting_wins_space(mnt, kept, size)
    mnt = volume.remount()
    assert_there(mnt, kept)


def assert_deleting_wins_space(mnt: Path, kept: dict[str, str], size: int) -> None:
    """Delete half of what is there, and use the space again."""
    names = list(kept)
    last = mnt / f"{len(names)}"  # the file that did not fit
    if last.exists():
        last.unlink()
    for name in names[::2]:
        (mnt / name).unlink()
        del kept[name]
    for name in names[::2][: len(names) // 3]:
        data = b"again" * (size // 5)
        assert synced(mnt / name, data) == 0, name
        kept[name] = hashlib.sha256(data).hexdigest()
    assert_there(mnt, kept)


@pytest.mark.mount
@pytest.mark.root
@pytest.mark.parametrize(("cache", "size"), [("writethrough", MIB), ("writeback", 40_000)])
def test_a_host_that_fills_up(on_host: Volume, cache: str, size: int) -> None:
    mapfs("mkfs", on_host.store, "--size", "1G")
    mnt = on_host.mount("--cache", cache)
    kept = fill(mnt, size)
    assert len(kept) * size > 10 * MIB
    assert_there(mnt, kept)
    assert_deleting_wins_space(mnt, kept, size)
    mnt = on_host.remount()
    assert_there(mnt, kept)


@pytest.mark.mount
@pytest.mark.root
def test_deleting_works_when_the_host_has_not_one_block(on_host: Volume) -> None:
    mapfs("mkfs", on_host.store, "--size", "1G")
    mnt = on_host.mount("--commit", "3600")
    digests = {}
    for number in range(300):
        (mnt / f"{number}").write_bytes(b"%d" % number * 5000)
        digests[f"{number}"] = hashlib.sha256(b"%d" % number * 5000).hexdigest()
    run("sync", "-f", mnt)
    filler = fill_up(on_host.store.parent)
    for number in range(0, 300, 2):
        (mnt / f"{number}").unlink()
        del digests[f"{number}"]
    directory = os.open(mnt, os.O_RDONLY)
    try:
        assert code_of(lambda: os.fsync(directory)) == 0, "deletions cannot be committed"
    finally:
        os.close(directory)
    assert_there(mnt, digests)
    assert synced(mnt / "new", b"in the space that was won" * 1000) == 0
    filler.unlink()
    mnt = on_host.remount()
    assert_there(mnt, digests)
    assert sorted(os.listdir(mnt)) == sorted([*digests, "new"])


def make_name(file: Path, path: Path) -> None:
    """An empty file, a symbolic link or a further name of a file."""
    kind = int(path.name) % 3
    if kind == 0:
        path.touch()
    elif kind == 1:
        path.symlink_to("target" * 100)
    else:
        path.hardlink_to(file)


def fsync_directory(mnt: Path) -> int:
    fd = os.open(mnt, os.O_RDONLY)
    try:
        return code_of(lambda: os.fsync(fd))
    finally:
        os.close(fd)


@pytest.mark.mount
@pytest.mark.root
def test_names_that_could_not_be_committed_are_refused(on_host: Volume) -> None:
    """ENOSPC at the call, and never at the fsync of what was answered."""
    mapfs("mkfs", on_host.store, "--size", "1G")
    mnt = on_host.mount("--commit", "3600")
    (mnt / "file").touch()
    run("sync", "-f", mnt)
    filler = fill_up(on_host.store.parent)
    names = ["file"]
    for number in range(1, 20_000):
        code = code_of(lambda: make_name(mnt / "file", mnt / f"{len(names)}"))
        if code:
            break
        names.append(f"{number}")
        if number % 1000 == 0:
            assert fsync_directory(mnt) == 0
    assert code == errno.ENOSPC, f"{len(names)} names were taken on a full host"
    assert fsync_directory(mnt) == 0
    assert sorted(os.listdir(mnt)) == sorted(names)
    for name in names[1::2]:
        (mnt / name).unlink()
    assert fsync_directory(mnt) == 0
    mnt = on_host.remount()
    assert sorted(os.listdir(mnt)) == sorted(names[::2])
    filler.unlink()
    (mnt / "new").touch()
    assert fsync_directory(mnt) == 0


@pytest.mark.mount
@pytest.mark.root
@pytest.mark.parametrize("kind", ["attributes", "links"])
def test_large_values_that_could_not_be_committed_are_refused(on_host: Volume, kind: str) -> None:
    mapfs("mkfs", on_host.store, "--size", "1G")
    mnt = on_host.mount("--commit", "3600")
    for number in range(3):
        (mnt / f"{number}").write_bytes(bytes(MIB))
    run("sync", "-f", mnt)
    filler = fill_up(on_host.store.parent)
    made = []

    def make(name: str) -> None:
        if kind == "links":
            (mnt / f"link{name}").symlink_to("t" * 4095)
        else:
            (mnt / name).touch()
            os.setxattr(mnt / name, "user.large", bytes(60_000))

    for number in range(3, 3000):
        if code := code_of(partial(make, f"{number}")):
            break
        made.append(number)
    assert code == errno.ENOSPC, f"{len(made)} were taken on a full host"
    assert fsync_directory(mnt) == 0
    (mnt / "0").unlink()
    assert fsync_directory(mnt) == 0, "what makes space cannot be committed"
    filler.unlink()
    mnt = on_host.remount()
    for number in made:
        if kind == "links":
            assert os.readlink(mnt / f"link{number}") == "t" * 4095
        else:
            assert os.getxattr(mnt / f"{number}", "user.large") == bytes(60_000)


@pytest.mark.mount
@pytest.mark.root
def test_mkfs_and_mount_on_a_full_host(on_host: Volume) -> None:
    mapfs("mkfs", on_host.store, "--size", "1G")
    filler = fill_up(on_host.store.parent)
    refused = mapfs("mkfs", on_host.store.with_name("more.mapfs"), "--size", "1G", status=1)
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert "space" in refused.stderr
    assert not on_host.store.with_name("more.mapfs").exists()
    mnt = on_host.mount()
    assert synced(mnt / "file", bytes(8 * MIB)) == errno.ENOSPC
    filler.unlink()
    assert synced(mnt / "file", b"x" * MIB) == 0


_MAPPER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
    for page in range(0, len(mapping), 4096):
        mapping[page] = 7
    mapping.flush()
"""


@pytest.mark.mount
@pytest.mark.root
def test_writing_through_a_mapping_to_a_full_host(on_host: Volume) -> None:
    """A hole that cannot be filled is an error of msync or fsync; the daemon lives."""
    mapfs("mkfs", on_host.store, "--size", "1G")
    mnt = on_host.mount()
    (mnt / "good").write_bytes(b"good" * 1000)
    run("sync", "-f", mnt)
    with (mnt / "hole").open("wb") as file:
        file.truncate(8 * MIB)
    filler = fill_up(on_host.store.parent)
    done = subprocess.run(
        [sys.executable, "-c", _MAPPER, mnt / "hole"], check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert on_host.daemons
    assert (mnt / "good").read_bytes() == b"good" * 1000
    filler.unlink()
    (mnt / "hole").unlink()
    assert synced(mnt / "again", b"x" * MIB) == 0


@pytest.mark.mount
def test_mapped_pages_that_are_allocated_never_lack_space(volume: Volume) -> None:
    mapfs("mkfs", volume.store, "--size", "20M", "--force")
    mnt = volume.mount()
    (mnt / "mapped").write_bytes(bytes(4 * MIB))
    run("sync", "-f", mnt)
    fill(mnt, MIB)
    with (mnt / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:] = b"m" * len(mapping)
        mapping.flush()
    volume.remount()
    assert (mnt / "mapped").read_bytes() == b"m" * (4 * MIB)


def test_a_full_catalog_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "_MAP_BYTES", 2 * MIB)
    with Catalog(tmp_path / "catalog") as catalog:
        kept = fill_catalog(catalog)
        catalog.renew()
        assert catalog.count(Table.INODES) == 20 * kept
        for number in range(kept):
            apply(catalog, {key(number, each): None for each in range(20)})
        catalog.renew()
        assert catalog.count(Table.INODES) == 0
        for number in range(kept // 2):
            apply(catalog, {key(number, each): bytes(500) for each in range(20)})


def fill_catalog(catalog: Catalog) -> int:
    """Commit until there is no more space; returns the commits."""
    for number in range(10_000):
        try:
            apply(catalog, {key(number, each): bytes(500) for each in range(20)})
        except NoSpaceError:
            return number
    raise AssertionError("the catalog never filled up")


def key(number: int, each: int) -> bytes:
    return b"%08d-%08d" % (number, each)


def apply(catalog: Catalog, changes: dict[bytes, bytes | None]) -> None:
    catalog.apply([changes if table is Table.INODES else {} for table in Table])
    catalog.renew()
