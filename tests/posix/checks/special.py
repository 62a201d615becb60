"""FIFOs, sockets and device nodes."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from pathlib import Path

from tests.posix.as_user import ALICE, as_user
from tests.posix.expect import exists, fails, make_file, mode_of, opened
from tests.posix.needs import needs


def check_mkfifo_makes_a_fifo(root: Path) -> None:
    os.umask(0o027)
    os.mkfifo(root / "fifo", 0o777)
    status = os.lstat(root / "fifo")
    assert stat.S_ISFIFO(status.st_mode)
    assert (status.st_size, status.st_nlink, mode_of(root / "fifo")) == (0, 1, 0o750)


def check_mkfifo_on_existing_or_missing_place_fails(root: Path) -> None:
    make_file(root / "file")
    os.symlink("nowhere", root / "dangling")
    for name in ("file", "dangling"):
        with fails(errno.EEXIST):
            os.mkfifo(root / name)
    with fails(errno.ENOENT):
        os.mkfifo(root / "missing" / "fifo")
    with fails(errno.ENOTDIR):
        os.mkfifo(root / "file" / "fifo")


def check_fifo_carries_data(root: Path) -> None:
    os.mkfifo(root / "fifo")
    writer = threading.Thread(target=(root / "fifo").write_bytes, args=(b"through" * 1000,))
    writer.start()
    received = (root / "fifo").read_bytes()
    writer.join()
    assert received == b"through" * 1000
    assert os.lstat(root / "fifo").st_size == 0


def check_fifo_without_reader_refuses_a_nonblocking_writer(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with fails(errno.ENXIO), opened(root / "fifo", os.O_WRONLY | os.O_NONBLOCK):
        pass
    with opened(root / "fifo", os.O_RDONLY | os.O_NONBLOCK) as reader:
        assert os.read(reader, 1) == b""
        with opened(root / "fifo", os.O_WRONLY | os.O_NONBLOCK) as writer:
            os.write(writer, b"x")
        assert os.read(reader, 9) == b"x"


def check_fifo_can_not_be_seeked_truncated_or_mapped_out(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with opened(root / "fifo", os.O_RDWR) as fd:
        with fails(errno.ESPIPE):
            os.lseek(fd, 0, os.SEEK_SET)
        with fails(errno.ESPIPE):
            os.pread(fd, 1, 0)
        with fails(errno.EINVAL):
            os.ftruncate(fd, 0)
    with fails(errno.EINVAL):
        os.truncate(root / "fifo", 0)


def check_unlinked_fifo_goes_on_for_its_descriptors(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with opened(root / "fifo", os.O_RDWR) as fd:
        os.unlink(root / "fifo")
        os.write(fd, b"still")
        assert os.read(fd, 9) == b"still"


def check_bind_makes_a_socket(root: Path) -> None:
    os.umask(0o027)
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    assert stat.S_ISSOCK(os.lstat("socket").st_mode)
    assert mode_of(Path("socket")) == 0o750
    os.unlink("socket")


def check_socket_carries_data(root: Path) -> None:
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")
        peer, _ = server.accept()
        with peer:
            client.sendall(b"hello")
            assert peer.recv(9) == b"hello"


def check_socket_follows_its_name(root: Path) -> None:
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("old")
        server.listen()
        os.rename("old", "new")
        with fails(errno.ENOENT):
            client.connect("old")
        client.connect("new")


def check_bind_to_existing_name_fails(root: Path) -> None:
    os.chdir(root)
    make_file(Path("file"))
    with socket.socket(socket.AF_UNIX) as server, fails(errno.EADDRINUSE):
        server.bind("file")


def check_abandoned_socket_refuses(root: Path) -> None:
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    with socket.socket(socket.AF_UNIX) as client, fails(errno.ECONNREFUSED):
        client.connect("socket")
    with fails(errno.ENXIO), opened("socket"):
        pass


def check_mknod_makes_fifos_sockets_and_files(root: Path) -> None:
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG):
        path = root / f"{kind}"
        os.mknod(path, kind | 0o640)
        assert os.lstat(path).st_mode == kind | 0o640
        assert os.lstat(path).st_rdev == 0
    make_file(root / f"{stat.S_IFREG}", b"usable")


def check_mknod_of_directories_fails(root: Path) -> None:
    with fails(errno.EPERM):
        os.mknod(root / "directory", stat.S_IFDIR | 0o755)
    with fails(errno.EINVAL):
        os.mknod(root / "link", stat.S_IFLNK | 0o755)
    assert not exists(root / "directory")


@needs("root")
def check_mknod_keeps_device_numbers(root: Path) -> None:
    for number, (major, minor) in enumerate(((1, 3), (0, 0), (259, 65_537), (4095, (1 << 20) - 1))):
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            path = root / f"{kind}-{number}"
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
            status = os.lstat(path)
            assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (major, minor)
            assert status.st_mode == kind | 0o600


@needs("root")
def check_device_numbers_survive_rename_link_and_chmod(root: Path) -> None:
    os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.link(root / "device", root / "link")
    os.rename(root / "device", root / "moved")
    os.chmod(root / "moved", 0o666)
    assert os.lstat(root / "link").st_rdev == os.makedev(1, 5)
    assert mode_of(root / "link") == 0o666


@needs("root", "dev")
def check_device_node_is_the_device(root: Path) -> None:
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with opened(root / "null", os.O_RDWR) as fd:
        assert os.write(fd, b"gone") == 4
        assert os.read(fd, 9) == b""
    with opened(root / "zero") as fd:
        assert os.read(fd, 9) == bytes(9)


@needs("root", "dev")
def check_device_node_without_driver_fails(root: Path) -> None:
    os.mknod(root / "none", stat.S_IFCHR | 0o666, os.makedev(4000, 77))
    with fails(errno.ENXIO), opened(root / "none"):
        pass


@needs("root")
def check_only_root_makes_device_nodes(root: Path) -> None:
    os.chmod(root, 0o777)
    with fails(errno.EPERM):
        as_user(ALICE, lambda: os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)))
    as_user(ALICE, lambda: os.mkfifo(root / "fifo"))
    assert os.listdir(root) == ["fifo"]
    assert os.lstat(root / "fifo").st_uid == ALICE.uid


@needs("root")
def check_special_files_have_owners_and_times(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.chown(root / "fifo", 11, 22)
    os.utime(root / "fifo", ns=(123, 456))
    status = os.lstat(root / "fifo")
    assert (status.st_uid, status.st_gid) == (11, 22)
    assert (status.st_atime_ns, status.st_mtime_ns) == (123, 456)
