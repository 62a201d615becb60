"""FUSE_INIT, with a socket for `/dev/fuse`: one message for each read."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from struct import pack, unpack

import pytest

from mapfs.errors import MountError
from mapfs.fuse.options import Cache, MountOptions
from mapfs.fuse.wire.negotiation import BUFFER_BYTES, MAX_WRITE_BYTES, negotiate
from mapfs.fuse.wire.protocol import Init

ALL = (1 << 64) - 1
OPTIONS = MountOptions()
NEVER = (
    1 << 1  # FUSE_POSIX_LOCKS: the kernel keeps locks itself
    | 1 << 3  # FUSE_ATOMIC_O_TRUNC: would lose the truncation without OPEN
    | 1 << 10  # FUSE_FLOCK_LOCKS
    | 1 << 12  # FUSE_AUTO_INVAL_DATA: nobody else changes anything
    | 1 << 37  # FUSE_PASSTHROUGH
    | 1 << 41  # FUSE_OVER_IO_URING
)


class Kernel:
    """The kernel's end of a new connection."""

    def __init__(self) -> None:
        self.ours, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def init(
        self, major: int = 7, minor: int = 45, readahead: int = 1 << 17, flags: int = ALL
    ) -> None:
        """Send fuse_init_in, as kernels from 7.36 on do."""
        body = pack("=IIIII44x", major, minor, readahead, flags & 0xFFFFFFFF, flags >> 32)
        self.send(26, body)

    def send(self, opcode: int, body: bytes, unique: int = 2) -> None:
        self.ours.send(pack("=IIQQIIII", 40 + len(body), opcode, unique, 0, 0, 0, 0, 0) + body)

    def answer(self) -> tuple[int, ...]:
        """The fields of fuse_init_out up to flags2."""
        message = self.ours.recv(1 << 16)
        assert len(message) == 16 + 64
        assert unpack("=IiQ", message[:16]) == (80, 0, 2)
        assert message[16 + 36 :] == bytes(28)
        return unpack("=IIIIHHIIHHI", message[16 : 16 + 36])

    def negotiate(self, options: MountOptions = OPTIONS) -> Init:
        return negotiate(self.device.fileno(), options)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    with made.ours, made.device:
        yield made


def flags_of(answer: tuple[int, ...]) -> int:
    return answer[3] | answer[10] << 32


def test_an_answer_has_every_limit(kernel):
    kernel.init()
    kernel.negotiate()
    major, minor, readahead, _, background, congestion, write, gran, pages, align, _ = (
        kernel.answer()
    )
    assert (major, minor, readahead) == (7, 45, 1 << 17)
    assert 0 < congestion < background
    assert (write, pages, gran, align) == (1 << 20, 256, 1, 0)
    assert write == MAX_WRITE_BYTES < BUFFER_BYTES


def test_only_what_is_offered_is_taken(kernel):
    offered = Init.PARALLEL_DIROPS | Init.MAX_PAGES | NEVER
    kernel.init(flags=offered)
    flags = kernel.negotiate()
    assert flags == Init.PARALLEL_DIROPS | Init.MAX_PAGES
    assert flags_of(kernel.answer()) == flags


def test_what_would_do_harm_is_never_taken(kernel):
    kernel.init(flags=ALL)
    flags = kernel.negotiate()
    assert not flags & NEVER
    assert flags == flags_of(kernel.answer())
    assert Init.HANDLE_KILLPRIV_V2 | Init.NO_OPEN_SUPPORT | Init.HAS_RESEND in flags


@pytest.mark.parametrize("cache", Cache)
def test_the_writeback_cache_is_an_option(kernel, cache):
    kernel.init()
    flags = kernel.negotiate(replace(OPTIONS, cache=cache))
    assert (Init.WRITEBACK_CACHE in flags) == (cache is Cache.WRITEBACK)
    assert flags == flags_of(kernel.answer())


@pytest.mark.parametrize("acl", [True, False])
def test_acls_are_an_option(kernel, acl):
    kernel.init()
    flags = kernel.negotiate(replace(OPTIONS, acl=acl))
    assert (Init.POSIX_ACL in flags) == acl


def test_high_flags_count_only_if_the_kernel_says_that_it_sends_them(kernel):
    kernel.init(flags=ALL & ~Init.INIT_EXT)
    assert Init.HAS_RESEND not in kernel.negotiate()
    assert kernel.answer()[10] == 0


def test_a_short_request_of_an_older_kernel(kernel):
    kernel.send(26, pack("=IIII", 7, 31, 4096, 0xFFFFFFFF & ~Init.INIT_EXT))
    flags = kernel.negotiate()
    assert kernel.answer()[:3] == (7, 31, 4096)
    assert flags < 1 << 32


def test_a_later_minor_version_is_answered_with_ours(kernel):
    kernel.init(minor=99)
    kernel.negotiate()
    assert kernel.answer()[:2] == (7, 45)


@pytest.mark.parametrize("readahead", [0, 4096, 16 << 20, 1 << 31])
def test_readahead_is_what_the_kernel_has_up_to_a_bound(kernel, readahead):
    kernel.init(readahead=readahead)
    kernel.negotiate()
    assert kernel.answer()[2] == min(readahead, 16 << 20)


def test_a_later_major_version_begins_again(kernel):
    kernel.init(major=8)
    kernel.init()
    flags = kernel.negotiate()
    assert kernel.answer()[0] == 7
    assert flags_of(kernel.answer()) == flags


@pytest.mark.parametrize(("major", "minor"), [(6, 99), (7, 30)])
def test_a_kernel_that_is_too_old(kernel, major, minor):
    kernel.init(major=major, minor=minor)
    with pytest.raises(MountError, match=rf"^the kernel speaks FUSE {major}\.{minor}: Linux 5\.4"):
        kernel.negotiate()


def test_a_connection_that_begins_with_something_else(kernel):
    kernel.send(3, bytes(16))
    with pytest.raises(MountError, match="began with request 3"):
        kernel.negotiate()
