"""Requests that threads answer: cold reads, and fsyncs by the log."""

import errno
import threading
from pathlib import Path
from struct import pack

import pytest
import trio

from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.fuse.wire import reading, short_waits
from mapfs.fuse.wire.protocol import Opcode
from mapfs.store.mapped_file import MappedFile
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store
from mapfs.store.transaction import LogSync
from tests.unit.support import PAGE, make
from tests.unit.wire_kernel import Kernel, play

FSYNC = bytes(16)
FDATASYNC = pack("=QII", 0, 1, 0)
TIMES = Changes(mtime=1)


def read(offset: int, size: int) -> bytes:
    return pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0)


@pytest.fixture
def cold(fs, monkeypatch):
    """A file that is never in memory, and its content."""
    content = b"".join(b"%08d" % number for number in range(PAGE))
    number = make(fs, b"cold", content)
    loader = type(fs._placement).cold_loader

    def cold_loader(self, inode, offset, size):
        with monkeypatch.context() as patch:
            patch.setattr(type(self._backing), "is_loaded", lambda *_: False)
            return loader(self, inode, offset, size)

    monkeypatch.setattr(type(fs._placement), "cold_loader", cold_loader)
    return number, content


def test_a_cold_read_gets_its_bytes(fs, cold):
    number, content = cold

    async def scenario(kernel: Kernel) -> None:
        for offset, size in ((0, 4096), (5, 100), (3 * PAGE + 1, 1 << 20), (len(content), 1)):
            assert (
                await kernel.get(Opcode.READ, read(offset, size), number)
                == (content[offset : offset + size])
            )

    play(fs, scenario)


def test_a_cold_read_holds_up_nothing(fs, cold, monkeypatch):
    number, content = cold
    let_go = threading.Event()
    fetch = MappedFile.fetch

    def slow(self, offset, target, *, ahead):
        assert let_go.wait(60)
        fetch(self, offset, target, ahead=ahead)

    monkeypatch.setattr(MappedFile, "fetch", slow)

    async def scenario(kernel: Kernel) -> None:
        waiting = [kernel.send(Opcode.READ, read(0, 100), number) for _ in range(20)]
        await kernel.get(Opcode.GETATTR, bytes(16), number)
        assert not kernel.replies.keys() & set(waiting)
        let_go.set()
        for unique in waiting:
            assert await kernel.answer(unique) == (0, content[:100])

    play(fs, scenario)


@pytest.mark.parametrize("by_loop", [False, True], ids=["in a thread", "in the loop"])
def test_a_cold_read_that_fails_is_an_error_for_its_caller_alone(fs, cold, monkeypatch, by_loop):
    number, content = cold
    errors = [OSError(errno.EIO, "bad sector"), ValueError("a bug")]
    threads = []
    if by_loop:
        monkeypatch.setattr(short_waits, "_SHORT_SECONDS", 60)
        monkeypatch.setattr(short_waits, "_ENOUGH", 0)

    def failing(self, offset, target, *, ahead):
        threads.append(threading.get_ident())
        raise errors.pop()

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(MappedFile, "fetch", failing)
            assert (await kernel.ask(Opcode.READ, read(0, 10), number)).error == errno.EINVAL
            assert (await kernel.ask(Opcode.READ, read(0, 10), number)).error == errno.EIO
        assert await kernel.get(Opcode.READ, read(0, 10), number) == content[:10]

    play(fs, scenario)
    assert [thread == threading.get_ident() for thread in threads] == [by_loop, by_loop]


@pytest.mark.parametrize("most", [0, 2])
def test_where_processes_are_limited_it_goes_on_with_fewer_threads(fs, cold, monkeypatch, most):
    number, content = cold
    started: list[str] = []
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("mapfs-"):
            if len(started) >= most:
                raise RuntimeError("can't start new thread")
            started.append(thread.name)
        start(thread)

    async def scenario(kernel: Kernel) -> None:
        monkeypatch.setattr(threading.Thread, "start", limited)
        for _ in range(3):
            assert await kernel.get(Opcode.READ, read(0, 100), number) == content[:100]
        fs.setattr(number, Changes(mode=0o600))
        await kernel.get(Opcode.FSYNC, bytes(16), number)
        assert not fs.is_dirty or fs.is_synced

    play(fs, scenario)
    assert len(started) == most


def test_what_a_thread_fetched_is_dropped_if_the_pages_may_be_of_another_file(
    fs, cold, monkeypatch
):
    """The file is cut and its pages are used again while a read of them waits for the disk."""
    number, _ = cold
    fetching, let_go = threading.Event(), threading.Event()
    fetch = MappedFile.fetch

    def slow(self, offset, target, *, ahead):
        fetching.set()
        assert let_go.wait(60)
        fetch(self, offset, target, ahead=ahead)

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(MappedFile, "fetch", slow)
            waiting = kernel.send(Opcode.READ, read(0, 4096), number)
            await kernel.get(Opcode.STATFS)
            assert fetching.wait(60)
            fs.fallocate(number, 3, 0, 2 * PAGE)
            fs.commit()
            fs.write(make(fs, b"other"), 0, b"secret" * PAGE)
            let_go.set()
            assert await kernel.answer(waiting) == (0, bytes(4096))

    play(fs, scenario)


@pytest.mark.parametrize(
    ("short_seconds", "length", "alone", "by_loop"),
    [
        (60, 4096, True, True),
        (0, 4096, True, False),
        (60, 4097, True, False),
        (60, 4096, False, False),
    ],
    ids=["short", "long the last time", "much", "while others wait"],
)
def test_the_loop_does_a_short_cold_read_by_itself(
    fs, cold, monkeypatch, short_seconds, length, alone, by_loop
):
    number, content = cold
    threads = []
    fetch = MappedFile.fetch

    def noting(self, offset, target, *, ahead):
        threads.append(threading.get_ident())
        fetch(self, offset, target, ahead=ahead)

    monkeypatch.setattr(MappedFile, "fetch", noting)
    monkeypatch.setattr(reading, "_SMALL_BYTES", 4096)
    monkeypatch.setattr(short_waits, "_SHORT_SECONDS", short_seconds)

    async def scenario(kernel: Kernel) -> None:
        for _ in range(short_waits._ENOUGH):
            await kernel.get(Opcode.READ, read(0, 4096), number)
        cold_read = kernel.send(Opcode.READ, read(4096, length), number)
        if not alone:
            kernel.send(Opcode.STATFS)
        assert await kernel.answer(cold_read) == (0, content[4096 : 4096 + length])

    play(fs, scenario)
    assert threading.get_ident() not in threads[:-1]
    assert (threads[-1] == threading.get_ident()) == by_loop


def test_what_comes_behind_a_file_read_in_order_is_brought_in(fs, monkeypatch):
    number = make(fs, b"f", bytes(4 << 20))
    rest = (4 << 20) - (1 << 18)
    loaded = []
    monkeypatch.setattr(MappedFile, "read_ahead", lambda _, *run: loaded.append(run))

    def brought_in() -> int:
        return sum(length for _, length in loaded)

    async def scenario(kernel: Kernel) -> None:
        for offset in range(0, 1 << 20, 1 << 18):
            await kernel.get(Opcode.READ, read(offset, 1 << 18), number)
        for offset in (0, 3 << 20, 0):
            await kernel.get(Opcode.READ, read(offset, 4096), number)
        for _ in range(1000):
            if brought_in() < rest:
                await trio.sleep(0.01)

    play(fs, scenario)
    assert brought_in() == rest
    assert max(length for _, length in loaded) < rest, "not all at once"


@pytest.fixture
def bundle(tmp_path: Path):
    """A filesystem with a log."""
    create_store(tmp_path / "t.mapfs", StoreOptions(64 << 20, PAGE))
    with_log = Filesystem(open_store(tmp_path / "t.mapfs"))
    yield with_log
    with_log.close()


def test_fsyncs_that_come_together_share_the_work(bundle, monkeypatch):
    number = make(bundle, b"f")
    syncing, let_go, synced = threading.Event(), threading.Event(), []
    write = LogSync.write

    def slow(self):
        syncing.set()
        assert let_go.wait(60)
        synced.append(1)
        return write(self)

    monkeypatch.setattr(LogSync, "write", slow)

    async def scenario(kernel: Kernel) -> None:
        waiting = []
        for turn in range(16):
            bundle.write(number, turn * PAGE, b"x" * PAGE)
            waiting.append(kernel.send(Opcode.FSYNC, FSYNC, number))
            await kernel.get(Opcode.STATFS)
        assert syncing.wait(60)
        let_go.set()
        for unique in waiting:
            assert await kernel.answer(unique) == (0, b"")

    play(bundle, scenario)
    assert len(synced) == 2
    assert bundle.store.state.commits == 0


@pytest.mark.parametrize(
    ("short_seconds", "length", "alone", "by_loop"),
    [
        (60, PAGE, True, True),
        (0, PAGE, True, False),
        (60, 1 << 20, True, False),
        (60, PAGE, False, False),
    ],
    ids=["short", "long the last time", "much", "while others wait"],
)
def test_the_loop_does_a_short_sync_by_itself(
    bundle, monkeypatch, short_seconds, length, alone, by_loop
):
    number = make(bundle, b"f")
    threads = []
    write = LogSync.write

    def noting(self):
        threads.append(threading.get_ident())
        return write(self)

    monkeypatch.setattr(LogSync, "write", noting)
    monkeypatch.setattr(short_waits, "_SHORT_SECONDS", short_seconds)

    async def scenario(kernel: Kernel) -> None:
        bundle.write(number, 0, b"x" * PAGE)
        for _ in range(short_waits._ENOUGH):
            await kernel.get(Opcode.FSYNC, FSYNC, number)
        bundle.write(number, 0, b"y" * length)
        fsync = kernel.send(Opcode.FSYNC, FSYNC, number)
        if not alone:
            kernel.send(Opcode.STATFS)
        assert await kernel.answer(fsync) == (0, b"")

    play(bundle, scenario)
    assert threading.get_ident() not in threads[:-1]
    assert (threads[-1] == threading.get_ident()) == by_loop
    assert bundle.store.backing.is_eager == by_loop


@pytest.mark.parametrize(
    ("change", "body", "syncs_log"),
    [
        (TIMES, FDATASYNC, False),
        (TIMES, FSYNC, True),
        (Changes(mtime=1, size=1), FDATASYNC, True),
        (Changes(mode=0o600), FDATASYNC, True),
    ],
)
def test_fdatasync_leaves_times_for_later(bundle, change, body, syncs_log):
    number = make(bundle, b"f")
    log = bundle.store.log

    async def scenario(kernel: Kernel) -> None:
        await kernel.get(Opcode.FSYNC, FSYNC, number)
        assert log.synced == log.position
        bundle.setattr(number, change)
        bundle.write(number, 0, b"data", stamp=False)
        assert bundle.store.transaction.has_unsynced_data
        await kernel.get(Opcode.FSYNC, body, number)
        assert not bundle.store.transaction.has_unsynced_data
        assert (log.synced == log.position) == syncs_log
        await kernel.get(Opcode.FSYNC, FSYNC, number)
        assert log.synced == log.position

    bundle.write(number, 0, bytes(PAGE))
    play(bundle, scenario)


def test_an_fsync_that_waits_with_an_fdatasync_is_whole(bundle, monkeypatch):
    number = make(bundle, b"f")
    syncing, let_go, whole = threading.Event(), threading.Event(), []
    write = LogSync.write

    def slow(self):
        syncing.set()
        assert let_go.wait(60)
        whole.append(self.is_whole)
        return write(self)

    async def scenario(kernel: Kernel) -> None:
        await kernel.get(Opcode.FSYNC, FSYNC, number)
        monkeypatch.setattr(LogSync, "write", slow)
        waiting = []
        for body in (FDATASYNC, FDATASYNC, FSYNC, FDATASYNC):
            bundle.setattr(number, TIMES)
            waiting.append(kernel.send(Opcode.FSYNC, body, number))
            await kernel.get(Opcode.STATFS)
        assert syncing.wait(60)
        let_go.set()
        for unique in waiting:
            assert await kernel.answer(unique) == (0, b"")

    monkeypatch.setattr(short_waits, "_SHORT_SECONDS", 0)
    play(bundle, scenario)
    assert whole == [False, True]


@pytest.mark.parametrize("by_loop", [False, True])
@pytest.mark.parametrize("outcome", [False, OSError(errno.EIO, "disk"), RuntimeError("a bug")])
def test_an_fsync_that_the_log_cannot_serve_takes_a_commit(bundle, monkeypatch, outcome, by_loop):
    number = make(bundle, b"f", b"data")
    monkeypatch.setattr(short_waits, "_SHORT_SECONDS", 60 if by_loop else 0)

    def write(_):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def scenario(kernel: Kernel) -> None:
        for _ in range(short_waits._ENOUGH):
            await kernel.get(Opcode.FSYNC, FSYNC, number)
        bundle.write(number, 0, b"more")
        monkeypatch.setattr(LogSync, "write", write)
        if isinstance(outcome, Exception):
            assert (await kernel.ask(Opcode.FSYNC, FSYNC, number)).error == errno.EIO
        else:
            await kernel.get(Opcode.FSYNC, FSYNC, number)
            assert not bundle.is_dirty

    play(bundle, scenario)
