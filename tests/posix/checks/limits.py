"""The edges: lengths of names and paths, depths, sizes, counts, and other filesystems."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from pathlib import Path

from tests.posix import libc
from tests.posix.child import in_child, signal_that_kills
from tests.posix.expect import exists, fails, make_file, opened, pattern
from tests.posix.needs import slow

LONGEST = "n" * 255
TOO_LONG = "n" * 256
RDWR_CREATE = os.O_RDWR | os.O_CREAT
TIB = 1 << 40


def check_names_of_255_bytes_work_everywhere(root: Path) -> None:
    os.mkdir(root / "directory")
    make_file(root / LONGEST)
    os.link(root / LONGEST, root / "directory" / LONGEST)
    os.unlink(root / LONGEST)
    os.mkdir(root / LONGEST)
    os.rmdir(root / LONGEST)
    os.symlink(LONGEST, root / LONGEST)
    assert os.readlink(root / LONGEST) == LONGEST
    os.rename(root / "directory" / LONGEST, root / LONGEST)
    assert (root / LONGEST).read_bytes() == b"content"
    assert sorted(os.listdir(root)) == ["directory", LONGEST]


def check_names_of_256_bytes_fail_everywhere(root: Path) -> None:
    make_file(root / "file")
    long = root / TOO_LONG
    for action in (
        lambda: os.stat(long),
        lambda: os.open(long, RDWR_CREATE),
        lambda: os.mkdir(long),
        lambda: os.mkfifo(long),
        lambda: os.symlink("target", long),
        lambda: os.link(root / "file", long),
        lambda: os.link(long, root / "new"),
        lambda: os.rename(root / "file", long),
        lambda: os.rename(long, root / "new"),
        lambda: os.unlink(long),
        lambda: os.rmdir(long),
        lambda: os.readlink(long),
        lambda: os.truncate(long, 0),
        lambda: os.stat(long / "below"),
    ):
        with fails(errno.ENAMETOOLONG):
            action()
    assert os.listdir(root) == ["file"]


def check_long_names_of_many_byte_characters_are_counted_in_bytes(root: Path) -> None:
    make_file(root / ("\u00fc" * 127))
    with fails(errno.ENAMETOOLONG):
        make_file(root / ("\u00fc" * 128))


def check_names_of_any_byte(root: Path) -> None:
    names = [bytes([b]) for b in range(1, 256) if bytes([b]) not in {b"/", b"."}]
    names += [bytes([b]) * 200 for b in (1, 10, 92, 128, 255)]
    here = os.fsencode(root)
    for name in names:
        with opened(here + b"/" + name, RDWR_CREATE) as fd:
            os.write(fd, name)
    assert sorted(os.listdir(here)) == sorted(names)
    for name in names:
        with opened(here + b"/" + name) as fd:
            assert os.read(fd, 300) == name


def check_names_of_dots_and_blanks(root: Path) -> None:
    names = ["...", "..a", ".hidden", " ", "a ", "-rf", "~", "*", "\\", '"', "a\nb", "%s", "#a#"]
    for name in names:
        make_file(root / name, name.encode())
    assert sorted(os.listdir(root)) == sorted(names)
    for name in names:
        assert (root / name).read_bytes() == name.encode()
        os.unlink(root / name)


def check_names_that_are_not_utf_8(root: Path) -> None:
    name = os.fsdecode(b"\xff\xfe\x80latin-\xe9")
    os.mkdir(root / name)
    os.rename(root / name, root / f"{name}2")
    os.symlink(name, root / "link")
    assert sorted(os.listdir(root)) == sorted(["link", f"{name}2"])
    assert os.readlink(root / "link") == name


def check_empty_paths_fail(root: Path) -> None:
    os.chdir(root)
    for action in (os.stat, os.mkdir, os.rmdir, os.unlink, os.listdir, os.readlink):
        with fails(errno.ENOENT):
            action("")
    with fails(errno.ENOENT):
        os.open("", RDWR_CREATE)


def check_paths_beyond_4095_bytes_fail(root: Path) -> None:
    for path in (f"{root}/" + "./" * 2048, f"{root}/" + "d/" * 2048 + "file"):
        with fails(errno.ENAMETOOLONG):
            os.stat(path)
        with fails(errno.ENAMETOOLONG):
            os.open(path, RDWR_CREATE)
    room = 4095 - len(os.fsencode(root))
    assert os.stat(f"{root}" + "/" * room).st_ino == os.stat(root).st_ino


def check_trees_deeper_than_any_path(root: Path) -> None:
    descriptors = [os.open(root, os.O_RDONLY)]
    for _ in range(25):
        os.mkdir(LONGEST, dir_fd=descriptors[-1])
        descriptors.append(os.open(LONGEST, os.O_RDONLY, dir_fd=descriptors[-1]))
    os.close(os.open("bottom", RDWR_CREATE, dir_fd=descriptors[-1]))
    assert os.listdir(descriptors[-1]) == ["bottom"]
    os.unlink("bottom", dir_fd=descriptors[-1])
    os.close(descriptors.pop())
    for fd in reversed(descriptors):
        os.rmdir(LONGEST, dir_fd=fd)
        os.close(fd)
    assert os.listdir(root) == []


def check_repeated_slashes_count_as_one(root: Path) -> None:
    os.mkdir(root / "directory")
    make_file(root / "directory" / "file")
    assert os.stat(f"{root}//directory///file").st_size == 7
    assert os.stat(f"{root}/directory//.//./").st_ino == os.stat(root / "directory").st_ino


def check_offsets_beyond_a_tebibyte(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        for offset in (TIB + 5, 3 * TIB - 2):
            os.pwrite(fd, b"far out", offset)
            assert os.fstat(fd).st_size == offset + 7
            assert os.pread(fd, 20, offset - 3) == b"\0\0\0far out"
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 7, TIB + 5) == b"far out"
        assert os.lseek(fd, 0, os.SEEK_END) == 3 * TIB + 5
        assert os.fstat(fd).st_blocks * 512 < 1 << 20


def check_sizes_beyond_a_tebibyte(root: Path) -> None:
    make_file(root / "file", b"head")
    os.truncate(root / "file", 5 * TIB + 1)
    assert os.stat(root / "file").st_size == 5 * TIB + 1
    with opened(root / "file") as fd:
        assert os.pread(fd, 10, 0) == b"head" + bytes(6)
        assert os.pread(fd, 10, 5 * TIB - 5) == bytes(6)
    os.truncate(root / "file", 2)
    assert (root / "file").read_bytes() == b"he"


def check_sizes_around_two_and_four_gibibytes(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        for edge in (1 << 31, 1 << 32):
            os.pwrite(fd, pattern(100), edge - 50)
            assert os.pread(fd, 100, edge - 50) == pattern(100)
            assert os.fstat(fd).st_size == edge + 50


def check_the_largest_offset_works_or_is_too_big(root: Path) -> None:
    largest = (1 << 63) - 1
    with opened(root / "file", RDWR_CREATE) as fd:
        with fails(errno.EFBIG, errno.EINVAL):
            os.pwrite(fd, b"xx", largest)
        try:
            os.ftruncate(fd, largest)
        except OSError as error:
            assert error.errno == errno.EFBIG
            assert os.fstat(fd).st_size == 0
        else:
            assert os.fstat(fd).st_size == largest
            os.ftruncate(fd, 0)
        with fails(errno.EINVAL):
            os.lseek(fd, 1, os.SEEK_SET)
            os.lseek(fd, largest, os.SEEK_CUR)


def check_the_size_limit_of_a_process_is_kept(root: Path) -> None:
    make_file(root / "file", b"")

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with opened(root / "file", os.O_RDWR) as fd:
            assert os.pwrite(fd, bytes(5000), 7000) == 3000
            with fails(errno.EFBIG):
                os.pwrite(fd, b"x", 10_000)
            with fails(errno.EFBIG):
                os.ftruncate(fd, 10_001)
            os.ftruncate(fd, 10_000)

    in_child(act)
    assert os.stat(root / "file").st_size == 10_000


def check_the_size_limit_of_a_process_is_a_signal(root: Path) -> None:
    make_file(root / "file", b"")

    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        os.truncate(root / "file", 101)

    assert signal_that_kills(act) == signal.SIGXFSZ


def check_other_filesystems_are_out_of_reach_of_rename_and_link(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.EXDEV):
        os.rename(root / "file", "/proc/mapfs-check")
    with fails(errno.EXDEV):
        os.rename("/proc/version", root / "version")
    with fails(errno.EXDEV):
        os.link("/proc/version", root / "version")
    for flags in (libc.RENAME_NOREPLACE, libc.RENAME_EXCHANGE):
        with fails(errno.EXDEV):
            libc.rename(root / "file", Path("/proc/version"), flags)
    assert os.listdir(root) == ["file"]


def check_moving_across_filesystems_copies(root: Path) -> None:
    make_file(root / "file", pattern(100_000))
    with Path("/proc/self/status").open("rb") as source:
        assert os.fstat(source.fileno()).st_dev != os.stat(root).st_dev
    shutil.copyfile("/proc/version", root / "version")
    assert (root / "version").read_bytes() == Path("/proc/version").read_bytes()
    shutil.copyfile(root / "file", "/dev/null")


@slow
def check_five_thousand_files_are_found_again(root: Path) -> None:
    for number in range(5000):
        (root / f"{number:x}").write_bytes(b"%d" % number)
    for number in range(0, 5000, 13):
        assert (root / f"{number:x}").read_bytes() == b"%d" % number
    for number in range(5000):
        os.unlink(root / f"{number:x}")
    assert os.listdir(root) == []


def check_a_large_write_in_one_call(root: Path) -> None:
    data = pattern(48 << 20)
    with opened(root / "file", RDWR_CREATE) as fd:
        assert os.write(fd, data) == len(data)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(data), 0) == data


def check_a_long_vector_of_buffers(root: Path) -> None:
    parts = [pattern(61, number) for number in range(1024)]
    with opened(root / "file", RDWR_CREATE) as fd:
        assert os.writev(fd, parts) == 61 * 1024
        with fails(errno.EINVAL):
            os.writev(fd, [*parts, b"one too many"])
    assert (root / "file").read_bytes() == b"".join(parts)


def check_closed_descriptors_fail(root: Path) -> None:
    fd = os.open(root / "file", RDWR_CREATE)
    os.close(fd)
    for action in (os.fstat, os.fsync, os.close):
        with fails(errno.EBADF):
            action(fd)
    with fails(errno.EBADF):
        os.write(fd, b"x")
    assert exists(root / "file")
