"""Finding mounts in mountinfo."""

import os
from pathlib import Path

import pytest

from mapfs.mounts import Mount, mapfs_mounts, mount_at, mount_of_device, mount_of_store

MOUNTINFO = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:50 / /mnt/a rw,nosuid,nodev shared:2 - fuse.mapfs /stores/a.mapfs rw,user_id=1000
91 22 0:51 / /mnt/other rw shared:3 master:4 - fuse.sshfs host:/ rw
92 22 0:52 / /mnt/with\\040space\\011tab\\134x ro - fuse.mapfs /stores/b\\040b.mapfs ro
93 22 0:53 / /mnt/a rw - fuse.mapfs mapfs-ephemeral rw
94 22 0:54 / /mnt/\xff\xfe rw - fuse.mapfs /stores/c.mapfs rw
"""


@pytest.fixture(autouse=True)
def _mountinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_bytes(path: Path) -> bytes:
        assert path == Path("/proc/self/mountinfo")
        return MOUNTINFO

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_mapfs_mounts() -> None:
    assert list(mapfs_mounts()) == [
        Mount(Path("/stores/a.mapfs"), Path("/mnt/a"), 50, 1000),
        Mount(Path("/stores/b b.mapfs"), Path("/mnt/with space\ttab\\x"), 52, 0),
        Mount(Path("mapfs-ephemeral"), Path("/mnt/a"), 53, 0),
        Mount(Path("/stores/c.mapfs"), Path("/mnt/\udcff\udcfe"), 54, 0),
    ]


def test_the_latest_mount_on_a_directory_counts() -> None:
    found = mount_at(Path("/mnt/a"))
    assert found is not None
    assert found.source == Path("mapfs-ephemeral")


def test_a_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert mount_at(Path("mnt/a")) is not None


def test_a_path_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/mnt")
    assert mount_at(tmp_path / "link" / "a") is not None
    (tmp_path / "direct").symlink_to("/mnt/a")
    assert mount_at(tmp_path / "direct") is not None


@pytest.mark.parametrize("path", ["/mnt", "/mnt/other", "/mnt/a/below", "/"])
def test_no_mount(path: str) -> None:
    assert mount_at(Path(path)) is None


def test_mount_of_a_store() -> None:
    found = mount_of_store(Path("/stores/a.mapfs"))
    assert found is not None
    assert found.mountpoint == Path("/mnt/a")
    assert mount_of_store(Path("/stores/x.mapfs")) is None


def test_mount_of_a_store_by_another_spelling(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/stores")
    assert mount_of_store(tmp_path / "link" / "x" / ".." / "a.mapfs") is not None


def test_mount_of_a_device() -> None:
    found = mount_of_device(os.makedev(0, 52))
    assert found is not None
    assert found.source == Path("/stores/b b.mapfs")
    assert mount_of_device(os.makedev(0, 51)) is None
