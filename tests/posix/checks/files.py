"""Regular files: open, create, read, write, append, truncate, and what outlives a name."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import (
    exists,
    fails,
    links_of,
    make_directory,
    make_file,
    mode_of,
    opened,
    pattern,
)
from tests.posix.needs import needs

RDWR_CREATE = os.O_RDWR | os.O_CREAT
PAGE = os.sysconf("SC_PAGESIZE")
TMPFILE = getattr(os, "O_TMPFILE", 0o20200000)


@needs("noatime_flag")
def check_who_opens_with_o_noatime_leaves_the_access_time(root: Path) -> None:
    (root / "file").write_bytes(b"x" * 100_000)
    with opened(root / "file", os.O_RDONLY | os.O_NOATIME) as fd:
        os.fsync(fd)
        os.utime(root / "file", ns=(10**9, 2 * 10**9))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(fd, 100_000, 0)
    assert os.stat(root / "file").st_atime_ns == 10**9
    with opened(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME) as fd:
        os.utime(root, ns=(10**9, 2 * 10**9))
        os.listdir(fd)
    assert os.stat(root).st_atime_ns == 10**9


def check_open_of_missing_file_fails(root: Path) -> None:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        with fails(errno.ENOENT), opened(root / "missing", flags):
            pass


def check_open_in_missing_directory_fails(root: Path) -> None:
    with fails(errno.ENOENT), opened(root / "missing" / "file", RDWR_CREATE):
        pass


def check_create_makes_an_empty_regular_file(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        status = os.fstat(fd)
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_size, status.st_nlink, status.st_blocks) == (0, 1, 0)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def check_create_applies_the_umask(root: Path) -> None:
    for umask in (0, 0o022, 0o077, 0o777):
        os.umask(umask)
        with opened(root / f"file{umask:o}", RDWR_CREATE, 0o777):
            pass
        assert mode_of(root / f"file{umask:o}") == 0o777 & ~umask


def check_create_keeps_special_bits_of_the_mode(root: Path) -> None:
    os.umask(0)
    with opened(root / "file", RDWR_CREATE, 0o7755):
        pass
    assert mode_of(root / "file") == 0o7755


def check_create_with_mode_zero_gives_a_usable_descriptor(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE | os.O_EXCL, 0) as fd:
        os.write(fd, b"words")
        assert os.pread(fd, 9, 0) == b"words"
    assert mode_of(root / "file") == 0


def check_create_read_only_with_truncate_of_new_file(root: Path) -> None:
    with opened(root / "file", os.O_RDONLY | os.O_CREAT | os.O_EXCL) as fd:
        assert os.read(fd, 1) == b""


def check_create_of_existing_file_opens_it(root: Path) -> None:
    make_file(root / "file", b"old", 0o600)
    with opened(root / "file", RDWR_CREATE, 0o777) as fd:
        assert os.read(fd, 9) == b"old"
    assert mode_of(root / "file") == 0o600


def check_exclusive_create_of_existing_name_fails(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    for name in ("file", "directory", "dangling", "fifo"):
        with fails(errno.EEXIST), opened(root / name, RDWR_CREATE | os.O_EXCL):
            pass
    assert not exists(root / "nowhere")


def check_create_through_dangling_symlink_makes_its_target(root: Path) -> None:
    (root / "link").symlink_to("target")
    with opened(root / "link", RDWR_CREATE) as fd:
        os.write(fd, b"x")
    assert (root / "target").read_bytes() == b"x"
    assert (root / "link").is_symlink()


def check_open_of_directory_for_writing_fails(root: Path) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT, os.O_WRONLY | os.O_TRUNC):
        with fails(errno.EISDIR), opened(root, flags):
            pass


def check_open_of_symlink_with_nofollow_fails(root: Path) -> None:
    make_file(root / "file")
    (root / "link").symlink_to("file")
    with fails(errno.ELOOP), opened(root / "link", os.O_RDONLY | os.O_NOFOLLOW):
        pass


def check_open_of_file_as_directory_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOTDIR), opened(root / "file", os.O_RDONLY | os.O_DIRECTORY):
        pass
    with fails(errno.ENOTDIR), opened(f"{root}/file/"):
        pass
    with fails(errno.ENOTDIR), opened(root / "file" / "below"):
        pass
    with fails(errno.ENOTDIR), opened(root / "file" / "below", RDWR_CREATE):
        pass


def check_create_with_trailing_slash_fails(root: Path) -> None:
    with fails(errno.EISDIR), opened(f"{root}/file/", RDWR_CREATE):
        pass
    assert not exists(root / "file")


def check_open_path_only_allows_no_reading(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_PATH) as fd:
        assert os.fstat(fd).st_size == len(b"content")
        with fails(errno.EBADF):
            os.read(fd, 1)


def check_descriptor_opened_for_one_way_refuses_the_other(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_WRONLY) as fd, fails(errno.EBADF):
        os.read(fd, 1)
    with opened(root / "file", os.O_RDONLY) as fd, fails(errno.EBADF):
        os.write(fd, b"x")


def check_read_of_directory_fails(root: Path) -> None:
    with opened(root) as fd, fails(errno.EISDIR):
        os.read(fd, 1)


def check_what_was_written_is_read_at_every_size(root: Path) -> None:
    for size in (0, 1, PAGE - 1, PAGE, PAGE + 1, 65_537, 131_072, 1_048_577, 5_000_003):
        data = pattern(size)
        (root / "file").write_bytes(data)
        assert (root / "file").stat().st_size == size
        assert (root / "file").read_bytes() == data


def check_content_survives_dropped_caches(root: Path) -> None:
    data = pattern(700_001)
    with opened(root / "file", RDWR_CREATE) as fd:
        os.write(fd, data)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(data) + 1, 0) == data


def check_read_ends_at_the_end_of_the_file(root: Path) -> None:
    make_file(root / "file", b"12345")
    with opened(root / "file") as fd:
        assert os.pread(fd, 100, 3) == b"45"
        assert os.pread(fd, 100, 5) == b""
        assert os.pread(fd, 100, 1 << 40) == b""


def check_positioned_calls_leave_the_offset_alone(root: Path) -> None:
    make_file(root / "file", b"0123456789")
    with opened(root / "file", os.O_RDWR) as fd:
        os.lseek(fd, 3, os.SEEK_SET)
        os.pwrite(fd, b"x", 8)
        assert os.pread(fd, 2, 7) == b"7x"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 3


def check_overwriting_the_middle_keeps_the_rest(root: Path) -> None:
    data = bytearray(pattern(5 * PAGE + 77))
    make_file(root / "file", bytes(data))
    with opened(root / "file", os.O_WRONLY) as fd:
        for offset, size in ((10, 5), (PAGE - 3, 6), (2 * PAGE, PAGE), (3 * PAGE + 1, PAGE + 9)):
            new = pattern(size, seed=offset)
            data[offset : offset + size] = new
            assert os.pwrite(fd, new, offset) == size
    assert (root / "file").read_bytes() == data


def check_many_small_writes_make_one_content(root: Path) -> None:
    data = pattern(40_000)
    with opened(root / "file", RDWR_CREATE) as fd:
        for start in range(0, len(data), 37):
            os.write(fd, data[start : start + 37])
    assert (root / "file").read_bytes() == data


def check_writing_backwards_makes_one_content(root: Path) -> None:
    data = pattern(10 * PAGE)
    with opened(root / "file", RDWR_CREATE) as fd:
        for start in range(len(data) - 512, -1, -512):
            os.pwrite(fd, data[start : start + 512], start)
        os.fsync(fd)
    assert (root / "file").read_bytes() == data


def check_append_writes_at_the_end_wherever_the_offset_is(root: Path) -> None:
    make_file(root / "file", b"head")
    with opened(root / "file", os.O_RDWR | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"-tail")
        assert os.lseek(fd, 0, os.SEEK_CUR) == 9
    assert (root / "file").read_bytes() == b"head-tail"


def check_append_through_two_descriptors_loses_nothing(root: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with opened(root / "file", flags) as one, opened(root / "file", flags) as two:
        for _ in range(100):
            os.write(one, b"one,")
            os.write(two, b"two,")
    assert (root / "file").read_bytes() == b"one,two," * 100


def check_append_follows_a_truncation(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE | os.O_APPEND) as fd:
        os.write(fd, b"0123456789")
        os.truncate(root / "file", 3)
        os.write(fd, b"x")
    assert (root / "file").read_bytes() == b"012x"


def check_open_with_truncate_empties_the_file(root: Path) -> None:
    make_file(root / "file", pattern(3 * PAGE))
    before = (root / "file").stat().st_ino
    with opened(root / "file", os.O_WRONLY | os.O_TRUNC) as fd:
        assert os.fstat(fd).st_size == 0
        os.write(fd, b"new")
    assert (root / "file").read_bytes() == b"new"
    assert (root / "file").stat().st_ino == before


def check_truncation_is_seen_by_open_descriptors(root: Path) -> None:
    make_file(root / "file", pattern(3 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        os.pread(fd, 3 * PAGE, 0)
        os.truncate(root / "file", PAGE + 7)
        assert os.fstat(fd).st_size == PAGE + 7
        assert os.pread(fd, 3 * PAGE, 0) == pattern(PAGE + 7)
        assert os.lseek(fd, 0, os.SEEK_END) == PAGE + 7


def check_truncating_longer_reads_as_zeros(root: Path) -> None:
    for size, longer in ((0, 1), (7, PAGE - 1), (PAGE, 3 * PAGE), (PAGE + 1, 10 * PAGE + 5)):
        make_file(root / "file", pattern(size))
        os.truncate(root / "file", longer)
        assert (root / "file").read_bytes() == pattern(size) + bytes(longer - size)


def check_bytes_cut_off_never_come_back(root: Path) -> None:
    for cut in (0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 100):
        make_file(root / "file", pattern(4 * PAGE))
        os.truncate(root / "file", cut)
        os.truncate(root / "file", 4 * PAGE)
        assert (root / "file").read_bytes() == pattern(cut) + bytes(4 * PAGE - cut)


def check_bytes_cut_off_do_not_come_back_by_writing_behind_them(root: Path) -> None:
    make_file(root / "file", pattern(4 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        os.ftruncate(fd, 10)
        os.pwrite(fd, b"end", PAGE + 100)
    assert (root / "file").read_bytes() == pattern(10) + bytes(PAGE + 90) + b"end"


def check_truncating_to_the_same_size_changes_no_byte(root: Path) -> None:
    make_file(root / "file", pattern(PAGE + 9))
    os.truncate(root / "file", PAGE + 9)
    assert (root / "file").read_bytes() == pattern(PAGE + 9)


def check_truncate_of_the_wrong_things_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.EINVAL):
        os.truncate(root / "file", -1)
    with fails(errno.EISDIR):
        os.truncate(root, 0)
    with fails(errno.ENOENT):
        os.truncate(root / "missing", 0)
    with fails(errno.ENOTDIR):
        os.truncate(root / "file" / "below", 0)
    with opened(root / "file") as fd, fails(errno.EINVAL, errno.EBADF):
        os.ftruncate(fd, 0)
    assert (root / "file").read_bytes() == b"content"


def check_truncate_follows_symlinks(root: Path) -> None:
    make_file(root / "file")
    (root / "link").symlink_to("file")
    os.truncate(root / "link", 3)
    assert (root / "file").read_bytes() == b"con"


def check_truncate_through_write_only_descriptor(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_WRONLY) as fd:
        os.ftruncate(fd, 2)
    assert (root / "file").read_bytes() == b"co"


def check_writing_nothing_changes_nothing(root: Path) -> None:
    make_file(root / "file", b"abc")
    with opened(root / "file", os.O_WRONLY) as fd:
        assert os.pwrite(fd, b"", 1000) == 0
    assert (root / "file").read_bytes() == b"abc"


def check_vectored_calls_gather_and_scatter(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        assert os.writev(fd, [b"one", b"", b"two", bytes(PAGE)]) == 6 + PAGE
        assert os.pwritev(fd, [b"ONE", b"T"], 0) == 4
        parts = [bytearray(2), bytearray(4), bytearray(2 * PAGE)]
        assert os.preadv(fd, parts, 0) == 6 + PAGE
    assert parts[0] + parts[1] == b"ONETwo"


def check_seeking_from_each_origin(root: Path) -> None:
    make_file(root / "file", b"0123456789")
    with opened(root / "file") as fd:
        assert os.lseek(fd, 4, os.SEEK_SET) == 4
        assert os.lseek(fd, 2, os.SEEK_CUR) == 6
        assert os.read(fd, 1) == b"6"
        assert os.lseek(fd, -1, os.SEEK_END) == 9
        assert os.lseek(fd, 100, os.SEEK_END) == 110
        assert os.read(fd, 1) == b""


def check_seeking_to_the_wrong_places_fails(root: Path) -> None:
    make_file(root / "file", b"0123456789")
    with opened(root / "file") as fd:
        for offset, whence in ((-1, os.SEEK_SET), (-11, os.SEEK_END), (-1, os.SEEK_CUR), (0, 99)):
            with fails(errno.EINVAL):
                os.lseek(fd, offset, whence)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0


def check_seeking_behind_the_end_and_writing_leaves_zeros(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.write(fd, b"a")
        os.lseek(fd, 3 * PAGE, os.SEEK_SET)
        assert os.fstat(fd).st_size == 1
        os.write(fd, b"z")
    assert (root / "file").read_bytes() == b"a" + bytes(3 * PAGE - 1) + b"z"


def check_duplicated_descriptors_share_their_offset(root: Path) -> None:
    make_file(root / "file", b"0123456789")
    with opened(root / "file") as fd:
        other = os.dup(fd)
        os.read(fd, 4)
        assert os.read(other, 1) == b"4"
        os.close(other)
        assert os.read(fd, 1) == b"5"


def check_descriptors_of_one_file_see_each_others_writes(root: Path) -> None:
    make_file(root / "file", b"")
    with opened(root / "file", os.O_RDWR) as one, opened(root / "file", os.O_RDWR) as two:
        for offset in range(0, 3 * PAGE, 1000):
            os.pwrite(one, b"%5d" % offset, offset)
            assert os.pread(two, 5, offset) == b"%5d" % offset
            assert os.fstat(two).st_size == offset + 5


def check_unlinked_file_lives_while_it_is_open(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        os.unlink(root / "file")
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(fd, 3 * PAGE, 0) == pattern(2 * PAGE)
        os.pwrite(fd, b"more", 2 * PAGE)
        os.fsync(fd)
        os.ftruncate(fd, 2 * PAGE + 2)
        assert os.pread(fd, 9, 2 * PAGE) == b"mo"
        os.fchmod(fd, 0o600)
        os.utime(fd, ns=(5, 7))
        assert os.fstat(fd).st_mtime_ns == 7


def check_unlinked_file_can_be_opened_again_through_proc(root: Path) -> None:
    make_file(root / "file", b"kept")
    with opened(root / "file", os.O_RDONLY) as fd:
        os.unlink(root / "file")
        with opened(f"/proc/self/fd/{fd}", os.O_RDWR) as again:
            os.pwrite(again, b"K", 0)
        assert os.pread(fd, 9, 0) == b"Kept"


def check_a_name_used_again_is_a_new_file(root: Path) -> None:
    make_file(root / "file", b"old")
    with opened(root / "file", os.O_RDWR) as fd:
        os.unlink(root / "file")
        make_file(root / "file", b"newer")
        assert os.pread(fd, 9, 0) == b"old"
        os.pwrite(fd, b"O", 0)
        assert os.fstat(fd).st_ino != (root / "file").stat().st_ino
    assert (root / "file").read_bytes() == b"newer"


def check_unlink_removes_the_name(root: Path) -> None:
    make_file(root / "file")
    os.unlink(root / "file")
    assert os.listdir(root) == []
    for action in (os.stat, os.unlink, os.listxattr):
        with fails(errno.ENOENT):
            action(root / "file")


def check_unlink_of_the_wrong_things_fails(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    with fails(errno.EISDIR, errno.EPERM):
        os.unlink(root / "directory")
    with fails(errno.ENOTDIR):
        os.unlink(root / "file" / "below")
    with fails(errno.ENOTDIR):
        os.unlink(f"{root}/file/")
    assert sorted(os.listdir(root)) == ["directory", "file"]


def check_sendfile_copies(root: Path) -> None:
    data = pattern(300_001)
    make_file(root / "from", data)
    with opened(root / "from") as source, opened(root / "to", RDWR_CREATE) as target:
        while os.sendfile(target, source, None, 1 << 20):
            pass
    assert (root / "to").read_bytes() == data


def check_copy_file_range_copies(root: Path) -> None:
    data = pattern(300_001)
    make_file(root / "from", data)
    with opened(root / "from") as source, opened(root / "to", RDWR_CREATE) as target:
        done = 0
        while done < 200_000:
            done += os.copy_file_range(source, target, 200_000 - done, 50_000 + done, 10 + done)
        assert os.copy_file_range(source, target, 10, 300_001, 0) == 0
    assert (root / "to").read_bytes() == bytes(10) + data[50_000:250_000]


def check_splice_from_a_pipe_writes(root: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"through the pipe")
    with opened(root / "file", RDWR_CREATE) as fd:
        assert os.splice(reader, fd, 100, offset_dst=4) == 16
        assert os.splice(fd, writer, 7, offset_src=8) == 7
    assert os.read(reader, 99) == b"ugh the"
    os.close(reader)
    os.close(writer)
    assert (root / "file").read_bytes() == bytes(4) + b"through the pipe"


def check_posix_fallocate_extends_and_keeps_content(root: Path) -> None:
    make_file(root / "file", b"abc")
    with opened(root / "file", os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 3 * PAGE)
        assert os.fstat(fd).st_size == 3 * PAGE
        os.posix_fallocate(fd, 0, 10)
        assert os.fstat(fd).st_size == 3 * PAGE
    assert (root / "file").read_bytes() == b"abc" + bytes(3 * PAGE - 3)


def check_two_hundred_descriptors_of_one_file(root: Path) -> None:
    make_file(root / "file", b"")
    descriptors = [os.open(root / "file", os.O_RDWR | os.O_APPEND) for _ in range(200)]
    for fd in descriptors:
        os.write(fd, b"x")
    for fd in descriptors:
        os.close(fd)
    assert (root / "file").stat().st_size == 200


def check_random_operations_match_a_model(root: Path) -> None:
    generator, model = random.Random(2), bytearray()
    with opened(root / "file", RDWR_CREATE) as fd:
        for step in range(600):
            offset, size = generator.randrange(200_000), generator.randrange(1, 40_000)
            if step % 7 == 3:
                os.ftruncate(fd, offset)
                model = model[:offset].ljust(offset, b"\0")
            elif step % 2:
                model = model.ljust(offset + size, b"\0")
                model[offset : offset + size] = pattern(size, step)
                os.pwrite(fd, pattern(size, step), offset)
            else:
                assert os.pread(fd, size, offset) == model[offset : offset + size]
            assert os.fstat(fd).st_size == len(model)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(model) + 1, 0) == model


@needs("tmpfile")
def check_tmpfile_has_no_name(root: Path) -> None:
    with opened(root, os.O_RDWR | TMPFILE, 0o600) as fd:
        os.write(fd, b"nameless")
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(root) == []
        assert os.pread(fd, 99, 0) == b"nameless"


@needs("tmpfile")
def check_tmpfile_can_be_given_a_name(root: Path) -> None:
    with opened(root, os.O_RDWR | TMPFILE, 0o640) as fd:
        os.write(fd, b"named later")
        libc.link(f"/proc/self/fd/{fd}", root / "file", libc.AT_SYMLINK_FOLLOW)
    assert (root / "file").read_bytes() == b"named later"
    assert (links_of(root / "file"), mode_of(root / "file")) == (1, 0o640)


@needs("tmpfile")
def check_exclusive_tmpfile_can_not_be_given_a_name(root: Path) -> None:
    with opened(root, os.O_RDWR | TMPFILE | os.O_EXCL) as fd, fails(errno.ENOENT):
        libc.link(f"/proc/self/fd/{fd}", root / "file", libc.AT_SYMLINK_FOLLOW)
    assert os.listdir(root) == []


@needs("tmpfile")
def check_tmpfile_keeps_what_was_written_before_it_had_a_name(root: Path) -> None:
    with opened(root, TMPFILE | os.O_RDWR, 0o640) as fd:
        os.write(fd, b"dirty")
        libc.link(f"/proc/self/fd/{fd}", root / "file", libc.AT_SYMLINK_FOLLOW)
        os.write(fd, b" and later")
    assert (root / "file").read_bytes() == b"dirty and later"
    assert (mode_of(root / "file"), links_of(root / "file")) == (0o640, 1)


@needs("tmpfile")
def check_many_tmpfiles_are_files_of_their_own(root: Path) -> None:
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(opened(root, TMPFILE | os.O_RDWR)) for _ in range(100)]
        for number, fd in enumerate(fds):
            os.write(fd, b"%d" % number)
        assert len({os.fstat(fd).st_ino for fd in fds}) == 100
        assert [os.pread(fd, 9, 0) for fd in fds] == [b"%d" % number for number in range(100)]
        assert os.listdir(root) == []


def check_many_files_unlinked_while_open_keep_their_content(root: Path) -> None:
    with contextlib.ExitStack() as stack:
        for turn in range(3):
            fds = []
            for number in range(100):
                fds.append(stack.enter_context(opened(root / "file", os.O_RDWR | os.O_CREAT)))
                os.write(fds[-1], b"%d of %d" % (number, turn))
                os.unlink(root / "file")
            expected = [b"%d of %d" % (number, turn) for number in range(100)]
            assert [os.pread(fd, 99, 0) for fd in fds] == expected
            assert {os.fstat(fd).st_nlink for fd in fds} == {0}
