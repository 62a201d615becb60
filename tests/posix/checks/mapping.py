"""Memory mappings through the mount: shared, private, two processes, and the end of the file."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.posix import libc
from tests.posix.child import beside, holding, in_child, signal_that_kills
from tests.posix.expect import changes, fails, make_file, opened, pattern
from tests.posix.needs import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = mmap.PAGESIZE
RDWR_CREATE = os.O_RDWR | os.O_CREAT


@contextmanager
def mapped(path: Path, flags: int = mmap.MAP_SHARED, length: int = 0) -> Iterator[mmap.mmap]:
    """The file mapped for reading and writing."""
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, length, flags) as mapping:
        yield mapping


def drop_cache(path: Path) -> None:
    """Write the file's pages out and ask the kernel to forget those that nobody maps."""
    with opened(path, os.O_RDWR) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def check_a_mapping_shows_the_file(root: Path) -> None:
    for size in (1, PAGE - 1, PAGE, PAGE + 1, 700_001):
        make_file(root / "file", pattern(size))
        drop_cache(root / "file")
        with mapped(root / "file") as mapping:
            assert mapping[:] == pattern(size)


def check_stores_are_read_by_read(root: Path) -> None:
    make_file(root / "file", pattern(3 * PAGE))
    with mapped(root / "file") as mapping:
        mapping[PAGE - 2 : PAGE + 2] = b"MAPS"
        data = (root / "file").read_bytes()
    assert data == pattern(PAGE - 2) + b"MAPS" + pattern(3 * PAGE)[PAGE + 2 :]


def check_writes_are_seen_in_the_mapping(root: Path) -> None:
    make_file(root / "file", pattern(3 * PAGE))
    with mapped(root / "file") as mapping, opened(root / "file", os.O_RDWR) as fd:
        for offset in (0, PAGE - 2, 2 * PAGE + 5):
            os.pwrite(fd, b"%04d" % offset, offset)
            assert mapping[offset : offset + 4] == b"%04d" % offset


def check_stores_are_seen_in_other_mappings(root: Path) -> None:
    make_file(root / "file", bytes(2 * PAGE))
    with mapped(root / "file") as one, mapped(root / "file") as two:
        one[7] = 1
        two[PAGE + 7] = 2
        assert (two[7], one[PAGE + 7]) == (1, 2)


def check_stores_survive_unmapping_and_dropped_caches(root: Path) -> None:
    make_file(root / "file", bytes(50 * PAGE))
    with mapped(root / "file") as mapping:
        mapping[:] = pattern(50 * PAGE)
    drop_cache(root / "file")
    assert (root / "file").read_bytes() == pattern(50 * PAGE)


def check_private_stores_stay_private(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    with mapped(root / "file", mmap.MAP_PRIVATE) as mapping:
        mapping[0:7] = b"private"
        assert mapping[0:7] == b"private"
        assert mapping[7:] == pattern(2 * PAGE)[7:]
        assert (root / "file").read_bytes() == pattern(2 * PAGE)


def check_a_private_copy_no_longer_follows_the_file(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    with mapped(root / "file", mmap.MAP_PRIVATE) as mapping, opened(root / "file", 2) as fd:
        mapping[0] = 1
        os.pwrite(fd, b"shared", 10)
        assert mapping[10:16] == pattern(16)[10:16]


def check_a_read_only_descriptor_can_be_mapped_privately_for_writing(root: Path) -> None:
    make_file(root / "file", b"content", 0o444)
    with opened(root / "file") as fd, mmap.mmap(fd, 0, mmap.MAP_PRIVATE) as mapping:
        mapping[0:1] = b"C"
        assert mapping[:] == b"Content"
    assert (root / "file").read_bytes() == b"content"


def check_a_read_only_descriptor_can_not_be_mapped_for_writing(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        with fails(errno.EACCES):
            mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ).close()


def check_a_write_only_descriptor_can_not_be_mapped(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_WRONLY) as fd:
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            with fails(errno.EACCES):
                mmap.mmap(fd, 0, flags, mmap.PROT_READ)


def check_a_directory_can_not_be_mapped(root: Path) -> None:
    with opened(root) as fd, fails(errno.ENODEV, errno.EACCES):
        mmap.mmap(fd, PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ)


def check_msync_reaches_the_file_below_the_cache(root: Path) -> None:
    make_file(root / "file", bytes(4 * PAGE))
    with mapped(root / "file") as mapping:
        mapping[2 * PAGE : 2 * PAGE + 6] = b"synced"
        mapping.flush()
        direct = mmap.mmap(-1, 4 * PAGE)
        with opened(root / "file", os.O_RDONLY | os.O_DIRECT) as fd:
            assert os.preadv(fd, [direct], 0) == 4 * PAGE
        assert direct[2 * PAGE : 2 * PAGE + 6] == b"synced"


def check_msync_of_a_part(root: Path) -> None:
    make_file(root / "file", bytes(8 * PAGE))
    with mapped(root / "file") as mapping:
        for page in range(8):
            mapping[page * PAGE] = page + 1
            mapping.flush(page * PAGE, PAGE)
    drop_cache(root / "file")
    assert (root / "file").read_bytes()[::PAGE] == bytes(range(1, 9))


def check_a_mapping_outlives_its_descriptor(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    fd = os.open(root / "file", os.O_RDWR)
    with libc.SharedMapping(fd, 2 * PAGE) as mapping:
        os.close(fd)
        assert mapping.read(PAGE, 20) == pattern(2 * PAGE)[PAGE : PAGE + 20]
        mapping.write(PAGE, b"after close")
    assert (root / "file").read_bytes()[PAGE : PAGE + 11] == b"after close"


def check_a_mapping_outlives_its_name(root: Path) -> None:
    make_file(root / "file", pattern(64 * PAGE))
    drop_cache(root / "file")
    fd = os.open(root / "file", os.O_RDWR)
    with libc.SharedMapping(fd, 64 * PAGE) as mapping:
        os.close(fd)
        os.unlink(root / "file")
        assert mapping.read(0, 64 * PAGE) == pattern(64 * PAGE)
        mapping.write(33 * PAGE, b"nameless")
        assert mapping.read(33 * PAGE, 8) == b"nameless"
    assert os.listdir(root) == []


def check_a_mapping_outlives_replacement(root: Path) -> None:
    make_file(root / "file", pattern(4 * PAGE))
    drop_cache(root / "file")
    with mapped(root / "file") as mapping:
        make_file(root / "new", bytes(4 * PAGE))
        os.rename(root / "new", root / "file")
        assert mapping[:] == pattern(4 * PAGE)
        mapping[0:3] = b"old"
    assert (root / "file").read_bytes() == bytes(4 * PAGE)


def check_a_forked_process_shares_the_mapping(root: Path) -> None:
    make_file(root / "file", bytes(2 * PAGE))
    with mapped(root / "file") as mapping:

        def act() -> None:
            mapping[5:10] = b"child"

        in_child(act)
        assert mapping[5:10] == b"child"
    assert (root / "file").read_bytes()[5:10] == b"child"


def check_a_forked_process_has_its_own_private_copy(root: Path) -> None:
    make_file(root / "file", pattern(PAGE))
    with mapped(root / "file", mmap.MAP_PRIVATE) as mapping:

        def act() -> None:
            mapping[0:5] = b"child"

        in_child(act)
        assert mapping[:] == pattern(PAGE)


def check_two_processes_mapping_one_file_see_each_other(root: Path) -> None:
    make_file(root / "file", bytes(2 * PAGE))

    def store() -> None:
        with mapped(root / "file") as mapping:
            mapping[PAGE : PAGE + 5] = b"there"

    with mapped(root / "file") as mapping, holding(store):
        assert mapping[PAGE : PAGE + 5] == b"there"


def check_two_processes_count_in_one_mapping(root: Path) -> None:
    make_file(root / "file", bytes(PAGE))

    def count() -> None:
        with opened(root / "file", os.O_RDWR) as fd, mmap.mmap(fd, 0) as mapping:
            for _ in range(500):
                fcntl.lockf(fd, fcntl.LOCK_EX)
                struct.pack_into("<Q", mapping, 8, struct.unpack_from("<Q", mapping, 8)[0] + 1)
                fcntl.lockf(fd, fcntl.LOCK_UN)

    with beside(count):
        count()
    assert struct.unpack_from("<Q", (root / "file").read_bytes(), 8) == (1000,)


def check_a_mapping_may_start_at_any_page(root: Path) -> None:
    make_file(root / "file", pattern(10 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        for page in (1, 7, 9):
            with mmap.mmap(fd, PAGE, offset=page * PAGE) as mapping:
                assert mapping[:] == pattern(10 * PAGE)[page * PAGE :][:PAGE]


def check_the_tail_of_the_last_page_is_zeros(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    os.truncate(root / "file", PAGE + 100)
    drop_cache(root / "file")
    with opened(root / "file", os.O_RDWR) as fd, libc.SharedMapping(fd, 2 * PAGE) as mapping:
        assert mapping.read(PAGE, PAGE) == pattern(PAGE + 100)[PAGE:] + bytes(PAGE - 100)


def check_truncating_zeros_the_tail_of_a_mapped_page(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    with mapped(root / "file") as mapping:
        assert mapping[PAGE + 100 : PAGE + 200] == pattern(2 * PAGE)[PAGE + 100 : PAGE + 200]
        os.truncate(root / "file", PAGE + 100)
        assert mapping[PAGE + 100 :] == bytes(PAGE - 100)


def check_stores_into_the_tail_are_never_part_of_the_file(root: Path) -> None:
    make_file(root / "file", b"short")
    with opened(root / "file", os.O_RDWR) as fd:
        with libc.SharedMapping(fd, PAGE) as mapping:
            mapping.write(0, b"S")
            mapping.write(100, b"beyond the end")
        os.fsync(fd)
        assert os.fstat(fd).st_size == 5
        assert os.pread(fd, PAGE, 0) == b"Short"


def check_touching_pages_beyond_the_end_is_sigbus(root: Path) -> None:
    make_file(root / "file", b"x" * (PAGE + 1))
    with opened(root / "file", os.O_RDWR) as fd, libc.SharedMapping(fd, 4 * PAGE) as mapping:
        assert mapping.read(2 * PAGE - 1, 1) == b"\0"
        for offset in (2 * PAGE, 4 * PAGE - 1):
            assert signal_that_kills(partial(mapping.read, offset, 1)) == signal.SIGBUS
            assert signal_that_kills(partial(mapping.write, offset, b"x")) == signal.SIGBUS


def check_touching_pages_cut_off_is_sigbus(root: Path) -> None:
    make_file(root / "file", pattern(4 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd, libc.SharedMapping(fd, 4 * PAGE) as mapping:
        assert mapping.read(3 * PAGE, 10) == pattern(4 * PAGE)[3 * PAGE :][:10]
        os.ftruncate(fd, PAGE)
        assert signal_that_kills(lambda: mapping.read(3 * PAGE, 10)) == signal.SIGBUS
        assert signal_that_kills(lambda: mapping.read(0, 10)) == 0
        os.ftruncate(fd, 0)
        assert signal_that_kills(lambda: mapping.read(0, 10)) == signal.SIGBUS


def check_private_pages_beyond_the_end_are_sigbus_too(root: Path) -> None:
    make_file(root / "file", pattern(2 * PAGE))
    with mapped(root / "file", mmap.MAP_PRIVATE) as mapping:
        os.truncate(root / "file", PAGE)
        assert signal_that_kills(lambda: mapping[PAGE]) == signal.SIGBUS
        assert signal_that_kills(lambda: mapping[0]) == 0


def check_growing_the_file_makes_its_mapped_pages_usable(root: Path) -> None:
    make_file(root / "file", b"x")
    with opened(root / "file", os.O_RDWR) as fd, libc.SharedMapping(fd, 4 * PAGE) as mapping:
        os.ftruncate(fd, 4 * PAGE)
        assert mapping.read(3 * PAGE, 10) == bytes(10)
        mapping.write(3 * PAGE, b"reached")
        os.pwrite(fd, b"written", 2 * PAGE)
        assert mapping.read(2 * PAGE, 7) == b"written"
    assert (root / "file").read_bytes()[3 * PAGE :][:7] == b"reached"


def check_cut_off_pages_come_back_as_zeros_in_the_mapping(root: Path) -> None:
    make_file(root / "file", pattern(4 * PAGE))
    with mapped(root / "file") as mapping:
        mapping[2 * PAGE] = 1
        os.truncate(root / "file", PAGE)
        os.truncate(root / "file", 4 * PAGE)
        assert mapping[PAGE:] == bytes(3 * PAGE)
        assert mapping[:PAGE] == pattern(PAGE)


def check_storing_into_a_hole_fills_it(root: Path) -> None:
    make_file(root / "file", b"")
    os.truncate(root / "file", 100 * PAGE)
    with mapped(root / "file") as mapping:
        assert mapping[50 * PAGE : 60 * PAGE] == bytes(10 * PAGE)
        mapping[77 * PAGE + 5] = 9
    drop_cache(root / "file")
    with opened(root / "file") as fd:
        assert os.pread(fd, 3, 77 * PAGE + 4) == b"\0\x09\0"
        assert os.fstat(fd).st_blocks * 512 <= 40 * PAGE


def check_a_mapping_of_a_tebibyte(root: Path) -> None:
    size = 1 << 40
    make_file(root / "file", b"")
    os.truncate(root / "file", size)
    with mapped(root / "file") as mapping:
        for offset in (0, size // 3, size - 4):
            mapping[offset : offset + 4] = b"here"
    with opened(root / "file") as fd:
        assert all(os.pread(fd, 4, at) == b"here" for at in (0, size // 3, size - 4))
        assert os.fstat(fd).st_blocks * 512 <= 100 * PAGE


def check_storing_moves_mtime_and_ctime(root: Path) -> None:
    make_file(root / "file", bytes(PAGE))
    drop_cache(root / "file")
    with mapped(root / "file") as mapping, changes(root / "file", "mtime", "ctime"):
        mapping[0] = 1
        mapping.flush()


def check_mapping_and_loading_moves_neither(root: Path) -> None:
    make_file(root / "file", pattern(4 * PAGE))
    drop_cache(root / "file")
    with changes(root / "file"), mapped(root / "file") as mapping:
        assert mapping[:] == pattern(4 * PAGE)


def check_writing_a_file_from_its_own_mapping(root: Path) -> None:
    make_file(root / "file", pattern(8 * PAGE))
    drop_cache(root / "file")
    with mapped(root / "file") as mapping, opened(root / "file", os.O_RDWR) as fd:
        with memoryview(mapping) as view:
            assert os.pwrite(fd, view[2 * PAGE : 4 * PAGE], 5 * PAGE) == 2 * PAGE
        assert mapping[5 * PAGE : 7 * PAGE] == pattern(8 * PAGE)[2 * PAGE : 4 * PAGE]


def check_reading_a_file_into_its_own_mapping(root: Path) -> None:
    make_file(root / "file", pattern(8 * PAGE))
    drop_cache(root / "file")
    with mapped(root / "file") as mapping, opened(root / "file") as fd:
        with memoryview(mapping) as view:
            assert os.preadv(fd, [view[5 * PAGE : 7 * PAGE]], 2 * PAGE) == 2 * PAGE
        assert mapping[5 * PAGE : 7 * PAGE] == pattern(8 * PAGE)[2 * PAGE : 4 * PAGE]


def check_copying_between_two_mapped_files(root: Path) -> None:
    make_file(root / "from", pattern(300_000))
    make_file(root / "to", bytes(300_000))
    drop_cache(root / "from")
    with mapped(root / "from") as source, mapped(root / "to") as target:
        target[:] = source[:]
    drop_cache(root / "to")
    assert (root / "to").read_bytes() == pattern(300_000)


def check_advice_changes_no_byte(root: Path) -> None:
    make_file(root / "file", pattern(20 * PAGE))
    with mapped(root / "file") as mapping:
        mapping[3 * PAGE : 3 * PAGE + 5] = b"dirty"
        for advice in (mmap.MADV_WILLNEED, mmap.MADV_RANDOM, mmap.MADV_SEQUENTIAL):
            mapping.madvise(advice)
        mapping.madvise(mmap.MADV_DONTNEED)
        assert mapping[3 * PAGE : 3 * PAGE + 5] == b"dirty"
        assert mapping[19 * PAGE :] == pattern(20 * PAGE)[19 * PAGE :]


def check_populated_mappings_hold_the_file(root: Path) -> None:
    make_file(root / "file", pattern(100 * PAGE))
    drop_cache(root / "file")
    with mapped(root / "file", mmap.MAP_SHARED | mmap.MAP_POPULATE) as mapping:
        assert mapping[:] == pattern(100 * PAGE)


def check_random_stores_and_calls_match_a_model(root: Path) -> None:
    size = 60 * PAGE
    generator, model = random.Random(5), bytearray(size)
    make_file(root / "file", bytes(size))
    with mapped(root / "file") as mapping, opened(root / "file", os.O_RDWR) as fd:
        for step in range(800):
            start = generator.randrange(size - 1)
            end = min(size, start + generator.randrange(1, 3 * PAGE))
            data = pattern(end - start, step)
            if step % 4 == 0:
                model[start:end] = mapping[start:end] = data
            elif step % 4 == 1:
                model[start:end] = data
                os.pwrite(fd, data, start)
            elif step % 4 == 2:
                assert os.pread(fd, end - start, start) == model[start:end]
            else:
                assert mapping[start:end] == model[start:end]
            if step % 100 == 50:
                os.fsync(fd)
    drop_cache(root / "file")
    assert (root / "file").read_bytes() == model


@needs("exec")
def check_a_program_runs_from_here(root: Path) -> None:
    shutil.copyfile("/bin/echo", root / "program")
    os.chmod(root / "program", 0o755)
    drop_cache(root / "program")
    answer = subprocess.run([root / "program", "ran"], check=True, capture_output=True)
    assert answer.stdout == b"ran\n"


@needs("exec")
def check_a_script_runs_from_here(root: Path) -> None:
    make_file(root / "script", b"#!/bin/sh\necho script $1\n", 0o755)
    answer = subprocess.run([root / "script", "ran"], check=True, capture_output=True)
    assert answer.stdout == b"script ran\n"


@needs("exec")
def check_a_running_program_outlives_its_name(root: Path) -> None:
    shutil.copyfile("/bin/cat", root / "program")
    os.chmod(root / "program", 0o755)
    command = [root / "program"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        os.unlink(root / "program")
        assert process.communicate(b"still running")[0] == b"still running"
    assert process.returncode == 0


@needs("exec")
def check_a_shared_library_loads_from_here(root: Path) -> None:
    mappings = Path("/proc/self/maps").read_text().splitlines()
    library = next(line.split()[-1] for line in mappings if "/libc" in line)
    shutil.copyfile(library, root / "library.so")
    drop_cache(root / "library.so")
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).abs(-7))"
    command = [sys.executable, "-S", "-c", code, str(root / "library.so")]
    answer = subprocess.run(command, check=True, capture_output=True)
    assert answer.stdout == b"7\n"


@needs("fallocate")
def check_punching_shows_in_the_mapping(root: Path) -> None:
    make_file(root / "file", pattern(4 * PAGE))
    with mapped(root / "file") as mapping, opened(root / "file", os.O_RDWR) as fd:
        flags = libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE
        libc.fallocate(fd, flags, PAGE, 2 * PAGE)
        assert mapping[PAGE : 3 * PAGE] == bytes(2 * PAGE)
        mapping[PAGE] = 7
        assert os.pread(fd, 2, PAGE) == b"\7\0"


def check_mapping_a_file_of_mode_zero_through_its_descriptor(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE, 0) as fd:
        os.ftruncate(fd, PAGE)
        with mmap.mmap(fd, 0) as mapping:
            mapping[0:4] = b"mine"
        assert os.pread(fd, 4, 0) == b"mine"
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0
