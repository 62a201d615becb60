"""Malformed requests: each is answered once, the loop goes on, and the filesystem stays sound."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.options import Cache, MountOptions
from mapfs.fuse.wire.protocol import Opcode
from tests.unit.support import ME, ROOT, assert_sound, make, memory_store
from tests.unit.wire_kernel import Kernel, play

UNANSWERED = (Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET)
# The kernel sends INIT once, and never these.
OPCODES = st.sampled_from([each for each in Opcode if each != Opcode.INIT]) | st.sampled_from(
    [0, 7, 19, 31, 37, 40, 41, 48, 53, 99, 4096, (1 << 32) - 1]
)
EDGES = [0, 1, 2, 3, 4, 8, 16, 511, 4095, 4096, 4097, 1 << 20, (1 << 31) - 1, 1 << 31]
WORDS = st.sampled_from([*EDGES, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
LONG_WORDS = WORDS | st.sampled_from(
    [1 << 32, 1 << 40, (1 << 63) - 4097, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]
)
# Inodes that are there (see `filesystem`), and some that are not.
NODEIDS = st.integers(0, 9) | st.sampled_from([999, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
NAMES = st.sampled_from(
    [
        b"file", b"directory", b"link", b"new", b".", b"..", b"", b"a/b", b"/", b"x" * 255,
        b"x" * 256, b"x" * 300, b"\xff\xfe", b"user.a", b"user.mapfs.file", b"trusted.a",
        b"system.posix_acl_access", b"security.capability",
    ]
)  # fmt: skip
STRINGS = st.lists(st.tuples(NAMES, st.sampled_from([b"\0", b"\0", b"\0", b""])), max_size=3).map(
    lambda parts: b"".join(name + end for name, end in parts)
)
FIELDS = st.lists(
    LONG_WORDS.map(lambda value: pack("=Q", value)) | WORDS.map(lambda value: pack("=I", value)),
    max_size=14,
).map(b"".join)
TAILS = STRINGS | st.binary(max_size=64) | st.sampled_from([4096, 20_000]).map(bytes)


class Request(NamedTuple):
    """A request; `length` is what its header says, None for the truth."""

    opcode: int
    nodeid: int
    body: bytes
    uid: int = 0
    length: int | None = None


REQUESTS = st.builds(
    Request,
    opcode=OPCODES,
    nodeid=NODEIDS,
    body=st.builds(bytes.__add__, FIELDS, TAILS) | st.binary(max_size=200),
    uid=st.sampled_from([0, 1000, (1 << 32) - 1]),
    length=st.none() | WORDS,
)
# The size of the structure that each body begins with (linux/fuse.h).
HEADS = {
    Opcode.SETATTR: 88, Opcode.MKNOD: 16, Opcode.MKDIR: 8, Opcode.RENAME: 8, Opcode.RENAME2: 16,
    Opcode.LINK: 8, Opcode.TMPFILE: 16, Opcode.READ: 40, Opcode.WRITE: 40, Opcode.READDIR: 40,
    Opcode.READDIRPLUS: 40, Opcode.FALLOCATE: 32, Opcode.LSEEK: 24, Opcode.COPY_FILE_RANGE: 56,
    Opcode.SETXATTR: 16, Opcode.GETXATTR: 8, Opcode.LISTXATTR: 8, Opcode.IOCTL: 32,
    Opcode.STATX: 24, Opcode.FSYNC: 16, Opcode.BATCH_FORGET: 8,
}  # fmt: skip


def filesystem() -> Filesystem:
    """A filesystem with one of each kind."""
    fs = Filesystem(memory_store(256))
    make(fs, b"file", b"x" * 10_000)
    make(fs, b"inner", b"data", fs.mkdir(ROOT, b"directory", 0o755, ME).number)
    fs.symlink(ROOT, b"link", b"file", ME)
    fs.create(ROOT, b"fifo", 0o010644, ME)
    fs.create_unnamed(ROOT, 0o600, ME)
    return fs


@contextmanager
def bugs() -> Iterator[list[str]]:
    """What is logged with a traceback: an exception that nobody meant."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                found.append(logging.Formatter().format(record))

    handler = Handler()
    logger = logging.getLogger("mapfs")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def survive(requests: list[Request], options: MountOptions | None = None) -> None:
    """Each request must be answered once, the loop must go on, and the filesystem be sound."""
    fs = filesystem()

    async def scenario(kernel: Kernel) -> None:
        expected = set()
        for each in requests:
            unique = kernel.send(
                each.opcode, each.body, each.nodeid, uid=each.uid, length=each.length
            )
            if each.opcode not in UNANSWERED:
                expected.add(unique)
                await kernel.answer(unique)
        await kernel.get(Opcode.GETATTR, bytes(16))
        assert set(kernel.replies) - expected == {max(kernel.replies)}

    with bugs() as found:
        play(fs, scenario, options)
    assert not found, found[0]
    assert_sound(fs)
    fs.close()


@given(st.lists(REQUESTS, min_size=1, max_size=12), st.sampled_from(Cache))
def test_random_requests(requests, cache):
    survive(requests, MountOptions(cache=cache))


@pytest.mark.parametrize("opcode", list(Opcode))
def test_bodies_cut_short(opcode):
    body = pack("=QQQQ", 0, 1, 1, 1) * 3 + b"new\0other\0"
    survive([Request(opcode, 1 + length % 4, body[:length]) for length in range(len(body))])


@pytest.mark.parametrize("opcode", HEADS)
def test_heads_of_edges(opcode):
    words = [0, 1, 4096, (1 << 31), (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    tails = (b"", b"new", b"new\0", b"a/b\0c/d\0", b"x" * 300 + b"\0", b"\0\0")
    survive(
        [
            Request(opcode, nodeid, (pack("=Q", word) * 11)[: HEADS[opcode]] + tail, uid=1000)
            for word in words
            for tail in tails
            for nodeid in (1, 2, 3)
        ]
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, (1 << 32) - 1])
def test_a_count_of_forgets_that_lies(count):
    ones = pack("=QQ", 2, 1) + pack("=QQ", (1 << 64) - 1, 1)
    survive(
        [Request(Opcode.BATCH_FORGET, 0, pack("=II", count, 0) + ones[:length]) for length in
         (0, 8, 16, 31, 32)]
    )  # fmt: skip
