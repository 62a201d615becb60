"""Who hears of which operation."""

from collections.abc import Callable
from struct import pack

import pytest

from mapfs.fuse.libfuse.calls import describe as describe_call
from mapfs.fuse.tracing import Event, Filter, Tracer
from mapfs.fuse.wire.describing import describe
from mapfs.fuse.wire.protocol import Opcode
from mapfs.fuse.wire.request import Request

PATHS = {1: b"", 17: b"dir", 18: b"dir/file", 19: b"\xff\xfe"}


class Traced:
    trace: Callable[[Event], None] | None = None

    def tell(self, *events: Event) -> None:
        for each in events:
            assert self.trace is not None
            self.trace(each)


def event(operation: str = "read", inode: int = 18, name: bytes | None = None) -> Event:
    return Event(0, operation, inode, name, None, None, 0, 1000)


def heard(wanted: Filter, *events: Event) -> list[tuple[str, str | None]]:
    traced = Traced()
    listener = Tracer(traced, PATHS.get).listen(wanted)
    traced.tell(*events)
    return [(each.operation, path) for each, path in listener.take(1000)]


def test_all_operations_with_their_paths() -> None:
    events = event(), event("mkdir", 17, b"new"), event("lookup", 1, b"dir"), event("getattr", 99)
    assert heard(Filter(), *events) == [
        ("read", "dir/file"),
        ("mkdir", "dir/new"),
        ("lookup", "dir"),
        ("getattr", None),
    ]


def test_a_path_that_is_no_text() -> None:
    assert heard(Filter(), event("read", 19)) == [("read", "\udcff\udcfe")]


def test_some_operations() -> None:
    wanted = Filter(frozenset({"write", "mkdir"}))
    assert heard(wanted, event(), event("write"), event("mkdir")) == [
        ("write", "dir/file"),
        ("mkdir", "dir/file"),
    ]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [("dir/*", True), ("*", True), ("dir/fil?", True), ("*.txt", False), ("file", False)],
)
def test_some_paths(pattern, wanted):
    assert bool(heard(Filter(pattern=pattern), event())) is wanted


def test_what_has_no_path_matches_no_pattern() -> None:
    assert heard(Filter(pattern="*"), event("read", 99)) == []


def test_nothing_is_done_while_nobody_listens() -> None:
    traced = Traced()
    tracer = Tracer(traced, PATHS.get)
    one, other = tracer.listen(Filter()), tracer.listen(Filter())
    tracer.leave(one)
    assert traced.trace is not None
    tracer.leave(other)
    tracer.leave(other)
    assert traced.trace is None


def test_who_does_not_keep_up_is_told_what_it_missed() -> None:
    traced = Traced()
    listener = Tracer(traced, PATHS.get).listen(Filter())
    traced.tell(*[event()] * 5000)
    assert len(listener.take(10_000)) == 4096
    assert listener.take_dropped() == 5000 - 4096
    assert listener.take_dropped() == 0
    traced.tell(event())
    assert len(listener.take(10_000)) == 1


def request(opcode: int, body: bytes) -> Request:
    return Request(opcode, 2, 17, 0, 0, 0, memoryview(body))


@pytest.mark.parametrize(
    ("opcode", "body", "expected"),
    [
        (Opcode.LOOKUP, b"name\0", (b"name", None, None)),
        (Opcode.MKNOD, bytes(16) + b"name\0", (b"name", None, None)),
        (Opcode.MKDIR, bytes(8) + b"name\0", (b"name", None, None)),
        (Opcode.SYMLINK, b"name\0target\0", (b"name", None, None)),
        (Opcode.LINK, bytes(8) + b"name\0", (b"name", None, None)),
        (Opcode.CREATE, bytes(16) + b"name\0", (b"name", None, None)),
        (Opcode.RENAME2, bytes(16) + b"old\0new\0", (b"old", None, None)),
        (Opcode.READ, pack("=QQIIQII", 0, 4096, 512, 0, 0, 0, 0), (None, 4096, 512)),
        (Opcode.WRITE, pack("=QQIIQII", 0, 5, 3, 0, 0, 0, 0) + b"abc", (None, 5, 3)),
        (Opcode.FALLOCATE, pack("=QQQII", 0, 7, 9, 0, 0), (None, 7, 9)),
        (Opcode.LSEEK, pack("=QQII", 0, 7, 3, 0), (None, 7, None)),
        (Opcode.COPY_FILE_RANGE, pack("=7Q", 0, 1, 18, 0, 2, 300, 0), (None, 1, 300)),
        (Opcode.GETATTR, bytes(16), (None, None, None)),
        (Opcode.LOOKUP, b"no end", (None, None, None)),
        (Opcode.READ, b"short", (None, None, None)),
        (12345, b"", (None, None, None)),
    ],
)
def test_what_a_request_is_about(opcode: int, body: bytes, expected: object) -> None:
    found = describe(request(opcode, body), 2, 1500)
    assert (found.name, found.offset, found.size) == expected
    assert (found.inode, found.errno, found.nanoseconds) == (17, 2, 1500)


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("lookup", (17, b"name", None), (17, b"name", None, None)),
        ("link", (18, 17, b"name", None), (17, b"name", None, None)),
        ("rename", (17, b"old", 1, b"new", 0, None), (17, b"old", None, None)),
        ("read", (18, 4096, 512), (18, None, 4096, 512)),
        ("write", (18, 5, b"abc"), (18, None, 5, 3)),
        ("getattr", (17, None), (17, None, None, None)),
        ("statfs", (None,), (1, None, None, None)),
        ("forget", ([(17, 1)],), (1, None, None, None)),
    ],
)
def test_what_a_call_is_about(operation: str, arguments: tuple, expected: object) -> None:
    found = describe_call(operation, arguments, 0, 1)
    assert (found.inode, found.name, found.offset, found.size) == expected
