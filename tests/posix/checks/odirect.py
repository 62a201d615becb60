"""O_DIRECT with aligned buffers, alone and beside the page cache."""

from __future__ import annotations

import errno
import mmap
import os
import random
from pathlib import Path

from tests.posix.expect import make_file, opened, pattern

BLOCK = 4096
DIRECT = os.O_RDWR | os.O_CREAT | os.O_DIRECT


def aligned(data: bytes) -> mmap.mmap:
    """The bytes in memory that begins at a page."""
    memory = mmap.mmap(-1, max(len(data), 1))
    memory[: len(data)] = data
    return memory


def read_directly(path: Path, size: int, offset: int = 0) -> bytes:
    """What is in the file below the cache."""
    memory = mmap.mmap(-1, size)
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd:
        return memory[: os.preadv(fd, [memory], offset)]


def check_direct_writes_are_read_directly(root: Path) -> None:
    for blocks in (1, 2, 16, 300):
        data = pattern(blocks * BLOCK, blocks)
        with opened(root / "file", DIRECT | os.O_TRUNC) as fd:
            assert os.pwrite(fd, aligned(data), 0) == len(data)
            assert os.fstat(fd).st_size == len(data)
        assert read_directly(root / "file", len(data) + BLOCK) == data


def check_direct_writes_are_read_through_the_cache(root: Path) -> None:
    make_file(root / "file", bytes(8 * BLOCK))
    assert (root / "file").read_bytes() == bytes(8 * BLOCK)
    with opened(root / "file", DIRECT) as fd:
        os.pwrite(fd, aligned(pattern(2 * BLOCK)), 3 * BLOCK)
    data = (root / "file").read_bytes()
    assert data == bytes(3 * BLOCK) + pattern(2 * BLOCK) + bytes(3 * BLOCK)


def check_cached_writes_are_read_directly(root: Path) -> None:
    make_file(root / "file", bytes(8 * BLOCK))
    with opened(root / "file", os.O_RDWR) as fd:
        os.pwrite(fd, pattern(1000), 2 * BLOCK + 5)
        assert read_directly(root / "file", BLOCK, 2 * BLOCK)[5:1005] == pattern(1000)


def check_direct_reads_end_at_the_end_of_the_file(root: Path) -> None:
    make_file(root / "file", pattern(BLOCK + 100))
    assert read_directly(root / "file", 4 * BLOCK) == pattern(BLOCK + 100)
    assert read_directly(root / "file", BLOCK, BLOCK) == pattern(BLOCK + 100)[BLOCK:]
    assert read_directly(root / "file", BLOCK, 4 * BLOCK) == b""


def check_direct_writes_leave_holes(root: Path) -> None:
    with opened(root / "file", DIRECT) as fd:
        os.pwrite(fd, aligned(pattern(BLOCK)), 50 * BLOCK)
    assert read_directly(root / "file", 51 * BLOCK) == bytes(50 * BLOCK) + pattern(BLOCK)


def check_direct_append(root: Path) -> None:
    with opened(root / "file", DIRECT | os.O_APPEND) as fd:
        for number in range(5):
            os.write(fd, aligned(pattern(BLOCK, number)))
    data = b"".join(pattern(BLOCK, number) for number in range(5))
    assert (root / "file").read_bytes() == data


def check_direct_writes_after_truncation(root: Path) -> None:
    with opened(root / "file", DIRECT) as fd:
        os.pwrite(fd, aligned(pattern(4 * BLOCK)), 0)
        os.ftruncate(fd, 100)
        os.pwrite(fd, aligned(pattern(BLOCK, 2)), 2 * BLOCK)
    wanted = pattern(100) + bytes(2 * BLOCK - 100) + pattern(BLOCK, 2)
    assert (root / "file").read_bytes() == wanted


def check_direct_writes_show_in_mappings(root: Path) -> None:
    make_file(root / "file", bytes(4 * BLOCK))
    with opened(root / "file", DIRECT) as fd, mmap.mmap(fd, 0) as mapping:
        assert mapping[:] == bytes(4 * BLOCK)
        os.pwrite(fd, aligned(pattern(BLOCK)), BLOCK)
        assert mapping[BLOCK : 2 * BLOCK] == pattern(BLOCK)


def check_unaligned_direct_calls_work_or_are_refused(root: Path) -> None:
    make_file(root / "file", pattern(4 * BLOCK))
    with opened(root / "file", DIRECT) as fd:
        try:
            assert os.pwrite(fd, aligned(b"odd"), 77) == 3
        except OSError as error:
            assert error.errno == errno.EINVAL
            assert (root / "file").read_bytes() == pattern(4 * BLOCK)
        else:
            assert (root / "file").read_bytes()[77:80] == b"odd"


def check_direct_and_cached_calls_match_a_model(root: Path) -> None:
    blocks = 64
    generator, model = random.Random(6), bytearray(blocks * BLOCK)
    make_file(root / "file", bytes(model))
    with opened(root / "file", DIRECT) as direct, opened(root / "file", os.O_RDWR) as cached:
        for step in range(300):
            start = generator.randrange(blocks) * BLOCK
            data = pattern(min(generator.randrange(1, 9) * BLOCK, len(model) - start), step)
            if step % 3 == 0:
                model[start : start + len(data)] = data
                os.pwrite(direct, aligned(data), start)
            elif step % 3 == 1:
                model[start + 1 : start + len(data)] = data[1:]
                os.pwrite(cached, data[1:], start + 1)
            else:
                wanted = model[start : start + len(data)]
                assert read_directly(root / "file", len(data), start) == wanted
                assert os.pread(cached, len(data), start) == wanted
