"""The loop of the wire transport: what waits, what does not, and how it ends."""

import errno
import threading
from struct import pack

import pytest
import trio

from mapfs.errors import DamagedStoreError, NoSpaceError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse.commits import Committer
from mapfs.fuse.options import MS_DIRSYNC, MS_SYNCHRONOUS, MountOptions
from mapfs.fuse.wire.notifications import Notifications
from mapfs.fuse.wire.protocol import Opcode
from mapfs.fuse.wire.write_back import WriteBack
from tests.unit.support import ME, PAGE, ROOT, content, make, names
from tests.unit.wire_kernel import Kernel, play, transport_of

MKDIR = pack("=II", 0o755, 0) + b"name\0"


def write(offset: int, data: bytes) -> bytes:
    return pack("=QQIIQII", 0, offset, len(data), 0, 0, 0, 0) + data


class SlowCommits:
    """Holds every commit of a filesystem until `let_go` is set."""

    def __init__(self, fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = trio.Event()
        self.let_go = threading.Event()
        begin = fs.begin_commit

        def begin_slowly(*, closing: bool = False) -> "SlowCommits":
            self._commit = begin(closing=closing)
            self.begun.set()
            return self

        monkeypatch.setattr(fs, "begin_commit", begin_slowly)

    def write(self) -> None:
        assert self.let_go.wait(60)
        self._commit.write()


def test_requests_are_served_while_one_waits(fs, monkeypatch):
    make(fs, b"name", b"data")
    commits = SlowCommits(fs, monkeypatch)

    async def scenario(kernel: Kernel) -> None:
        waiting = kernel.send(Opcode.FSYNC, bytes(16))
        await commits.begun.wait()
        for _ in range(200):
            await kernel.get(Opcode.LOOKUP, b"name\0")
        await kernel.get(Opcode.MKDIR, pack("=II", 0o755, 0) + b"meanwhile\0")
        assert waiting not in kernel.replies
        commits.let_go.set()
        assert await kernel.answer(waiting) == (0, b"")

    play(fs, scenario)


def test_what_waits_is_answered_after_the_connection_ended(fs, monkeypatch):
    make(fs, b"name", b"data")
    commits = SlowCommits(fs, monkeypatch)
    ended = []

    async def main() -> None:
        kernel = Kernel()
        transport = transport_of(fs, kernel)
        answered: list[int] = []
        monkeypatch.setattr(
            transport, "_answer", lambda request, _: answered.append(request.unique)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.run)
            waiting = kernel.send(Opcode.FSYNC, bytes(16))
            await commits.begun.wait()
            kernel.hang_up()
            commits.let_go.set()
        assert answered == [waiting]
        kernel.device.close()
        ended.append(True)

    trio.run(main)
    assert ended


def test_stop_ends_it_at_once(fs):
    async def main() -> None:
        kernel = Kernel()
        transport = transport_of(fs, kernel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.run)
            await kernel.get(Opcode.STATFS)
            transport.stop()
        kernel.hang_up()
        kernel.device.close()

    trio.run(main)


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ECONNABORTED])
def test_the_end_of_a_device(fs, monkeypatch, code):
    reads = iter([errno.EINTR, errno.ENOENT, code])

    def readv(fd: int, buffers: object) -> int:
        raise OSError(next(reads), "as the device says it")

    async def main() -> None:
        kernel = Kernel()
        transport = transport_of(fs, kernel)
        with monkeypatch.context() as patch:
            patch.setattr("os.readv", readv)
            await transport.run()
        kernel.hang_up()
        kernel.device.close()

    trio.run(main)
    assert next(reads, None) is None


def test_everything_else_gets_its_turn_under_a_flood(fs):
    requests = 200
    served: list[int] = []

    async def scenario(kernel: Kernel) -> None:
        for _ in range(requests):
            kernel.send(Opcode.GETATTR, bytes(16))
        while len(kernel.replies) < requests:
            await trio.lowlevel.checkpoint()
            while kernel.receive():
                pass
            served.append(len(kernel.replies))

    play(fs, scenario)
    assert [count for count in served if 0 < count < requests]


def test_forgetting_is_not_answered(fs, monkeypatch):
    monkeypatch.setattr(Notifications, "invalidate_attributes", lambda *_: False)
    numbers = [fs.create_unnamed(ROOT, 0o600, ME).number for _ in range(5)]
    kept = make(fs, b"kept")

    async def scenario(kernel: Kernel) -> None:
        kernel.send(Opcode.FORGET, pack("=Q", 1), numbers[0])
        for number in (kept, 999, 0, ROOT):
            kernel.send(Opcode.FORGET, pack("=Q", 1), number)
        ones = b"".join(pack("=QQ", number, 1) for number in [*numbers[1:4], 999, kept])
        kernel.send(Opcode.BATCH_FORGET, pack("=II", 5, 0) + ones, 0)
        kernel.send(Opcode.INTERRUPT, pack("=Q", 2))
        await kernel.get(Opcode.STATFS)
        assert len(kernel.replies) == 1

    play(fs, scenario)
    assert [fs.is_orphan(number) for number in numbers] == [False] * 4 + [True]
    assert names(fs) == [b"kept"]


def test_an_orphan_that_the_kernel_still_knows_is_kept(fs, monkeypatch):
    monkeypatch.setattr(Notifications, "invalidate_attributes", lambda *_: True)
    number = fs.create_unnamed(ROOT, 0o600, ME).number

    async def scenario(kernel: Kernel) -> None:
        kernel.send(Opcode.FORGET, pack("=Q", 1), number)

    play(fs, scenario)
    assert fs.is_orphan(number)


def test_no_space_is_tried_again_after_a_commit(sized):
    fs = sized(64)
    old, number = make(fs, b"old", b"x" * 60 * PAGE), make(fs, b"new")
    fs.commit()
    fs.unlink(ROOT, b"old")
    fs.forget(old)
    data = b"y" * 30 * PAGE
    with pytest.raises(NoSpaceError):
        fs.write(number, 0, data)
    assert fs.reclaimable

    async def scenario(kernel: Kernel) -> None:
        waiting = kernel.send(Opcode.WRITE, write(0, data), number)
        kernel.send(Opcode.GETATTR, bytes(16), number)  # another one takes the buffer
        assert await kernel.answer(waiting) == (0, pack("=II", len(data), 0))

    play(fs, scenario)
    assert content(fs, number) == data


def test_a_copy_that_finds_no_space_is_tried_again_as_it_was(fs, monkeypatch):
    """The copy waits for cold pages; meanwhile another request is read into the buffer."""
    source, target = make(fs, b"source", b"x" * 5000), make(fs, b"target")
    copy, asked = fs.copy_range, []

    def copy_range(*arguments):
        asked.append(arguments)
        if len(asked) == 1:
            raise NoSpaceError("full")
        return copy(*arguments)

    monkeypatch.setattr(fs, "copy_range", copy_range)
    monkeypatch.setattr(fs, "cold_loader", lambda *_: lambda: None)
    monkeypatch.setattr(Filesystem, "reclaimable", property(lambda _: len(asked) == 1))
    body = pack("=QQQQQQQ", 0, 1, target, 0, 2, 4000, 0)

    async def scenario(kernel: Kernel) -> None:
        waiting = kernel.send(Opcode.COPY_FILE_RANGE, body, source)
        await kernel.get(Opcode.LOOKUP, b"\xff" * 255 + b"\0")
        assert await kernel.answer(waiting) == (0, pack("=II", 4000, 0))

    play(fs, scenario)
    assert asked == [(source, 1, target, 2, 4000)] * 2


def test_a_change_whose_commit_finds_no_space_is_not_made_twice(fs, monkeypatch):
    synced = []

    async def sync(_: Committer, inode: int | None = None) -> None:
        synced.append(inode)
        if len(synced) == 1:
            raise NoSpaceError("full")

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Committer, "sync", sync)
            patch.setattr(Filesystem, "reclaimable", property(lambda _: True))
            assert (await kernel.ask(Opcode.MKDIR, MKDIR)).error == errno.ENOSPC

    play(fs, scenario, MountOptions(flags=MS_DIRSYNC))
    assert names(fs) == [b"name"]
    assert len(synced) == 1


def test_what_cannot_be_committed_is_refused_and_not_made(fs, monkeypatch):
    """The kernel goes by what it was told, for as long as the name or inode is cached."""

    async def sync(_: Committer, inode: int | None = None) -> None:
        raise NoSpaceError("full")

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Filesystem, "must_commit", property(lambda _: True))
            patch.setattr(Committer, "sync", sync)
            assert (await kernel.ask(Opcode.MKDIR, MKDIR)).error == errno.ENOSPC
        assert names(fs) == []
        await kernel.get(Opcode.MKDIR, MKDIR)

    play(fs, scenario)


def test_an_inode_that_cannot_be_logged_fails_its_fsync_and_holds_up_no_other(fs, monkeypatch):
    make(fs, b"name")

    def fail(_: Filesystem, *, data_only: bool = False) -> None:
        raise DamagedStoreError("a count is out of range")

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Filesystem, "begin_log_sync", fail)
            assert (await kernel.ask(Opcode.FSYNC, bytes(16))).error == errno.EUCLEAN
        assert await kernel.get(Opcode.FSYNC, bytes(16)) == b""
        assert not fs.is_dirty or fs.is_synced

    play(fs, scenario)


def test_any_number_of_seeks_that_wait_leave_a_commit_its_turn(fs, monkeypatch):
    """What they wait for are WRITEs, and those may have to be committed."""
    number = make(fs, b"sparse")
    fs.write(number, 1 << 20, b"x")
    let_go = trio.Event()

    async def wait(*_: object) -> None:
        await let_go.wait()

    monkeypatch.setattr(WriteBack, "write_back", wait)

    async def scenario(kernel: Kernel) -> None:
        body = pack("=QQII", 0, 0, 3, 0)
        waiting = [kernel.send(Opcode.LSEEK, body, number) for _ in range(100)]
        await kernel.get(Opcode.FSYNC, bytes(16), number)
        assert not fs.is_dirty
        assert not kernel.replies.keys() & set(waiting)
        let_go.set()
        for unique in waiting:
            assert await kernel.answer(unique) == (0, pack("=Q", 1 << 20))

    play(fs, scenario)


def test_a_seek_that_waits_is_left_to_the_next_process(fs, monkeypatch):
    """The WRITEs that it waits for are read by nobody else."""
    number = make(fs, b"sparse")
    fs.write(number, 1 << 20, b"x")
    begun = trio.Event()

    async def wait(*_: object) -> None:
        begun.set()
        await trio.sleep_forever()

    monkeypatch.setattr(WriteBack, "write_back", wait)

    async def main() -> None:
        kernel = Kernel()
        transport = transport_of(fs, kernel)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run)
                waiting = kernel.send(Opcode.LSEEK, pack("=QQII", 0, 0, 3, 0), number)
                await begun.wait()
                transport.hand_over()
        while kernel.receive():
            pass
        assert waiting not in kernel.replies
        kernel.hang_up()
        kernel.device.close()

    trio.run(main)


def test_a_copy_that_had_to_wait_is_committed_before_it_is_answered_if_the_log_is_full(
    fs, monkeypatch
):
    source, target = make(fs, b"s", b"0123456789" * 1000), make(fs, b"t")
    body = pack("=QQQQQQQ", 0, 0, target, 0, 0, 10_000, 0)
    dirty: list[bool] = []

    def load() -> None:
        """The log is filled up while the source is brought in."""
        monkeypatch.setattr(Committer, "must_wait", lambda _: True)

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Filesystem, "cold_loader", lambda *_: load)
            await kernel.get(Opcode.COPY_FILE_RANGE, body, source)
        dirty.append(fs.is_dirty)

    play(fs, scenario)
    assert dirty == [False]


def test_no_space_is_an_error_if_nothing_can_be_freed(sized):
    fs = sized(16)
    number = make(fs, b"f")

    async def scenario(kernel: Kernel) -> None:
        assert (await kernel.ask(Opcode.WRITE, write(0, bytes(17 * PAGE)), number)).error == (
            errno.ENOSPC
        )

    play(fs, scenario)


@pytest.mark.parametrize(
    ("flags", "opcode", "waits"),
    [
        (0, Opcode.MKDIR, False),
        (0, Opcode.WRITE, False),
        (MS_DIRSYNC, Opcode.MKDIR, True),
        (MS_DIRSYNC, Opcode.WRITE, False),
        (MS_SYNCHRONOUS, Opcode.MKDIR, True),
    ],
)
def test_what_is_committed_before_it_is_answered(fs, flags, opcode, waits):
    number = make(fs, b"f")
    fs.commit()
    body, nodeid = (MKDIR, ROOT) if opcode == Opcode.MKDIR else (write(0, b"x"), number)

    async def scenario(kernel: Kernel) -> None:
        await kernel.get(opcode, body, nodeid)
        assert fs.is_dirty is not waits

    play(fs, scenario, MountOptions(flags=flags))


@pytest.mark.parametrize("opcode", [Opcode.MKDIR, Opcode.WRITE, Opcode.SETXATTR])
def test_changes_wait_for_a_commit_while_the_log_is_full(fs, monkeypatch, opcode):
    number = make(fs, b"f")
    fs.commit()
    monkeypatch.setattr(Committer, "must_wait", lambda _: True)
    body, nodeid = {
        Opcode.MKDIR: (MKDIR, ROOT),
        Opcode.WRITE: (write(0, b"x"), number),
        Opcode.SETXATTR: (pack("=IIII", 1, 0, 0, 0) + b"user.a\0x", number),
    }[opcode]

    async def scenario(kernel: Kernel) -> None:
        await kernel.get(opcode, body, nodeid)
        assert not fs.is_dirty

    play(fs, scenario)


def test_a_commit_that_fails_is_an_error_of_who_waits(fs, monkeypatch, caplog):
    make(fs, b"f", b"x")
    begin = fs.begin_commit

    class Failing:
        def write(self) -> None:
            raise OSError(errno.EIO, "the disk is gone")

    def begin_to_fail(*, closing: bool = False) -> Failing:
        begin(closing=closing)
        return Failing()

    async def scenario(kernel: Kernel) -> None:
        monkeypatch.setattr(fs, "begin_commit", begin_to_fail)
        assert (await kernel.ask(Opcode.FSYNC, bytes(16))).error == errno.EIO
        monkeypatch.setattr(fs, "begin_commit", begin)
        await kernel.get(Opcode.LOOKUP, b"f\0")

    play(fs, scenario)
    assert "FSYNC: [Errno 5] the disk is gone" in caplog.text


@pytest.mark.parametrize(
    ("opcode", "body", "code"),
    [
        (Opcode.LOOKUP, b"f\0", errno.ENOTDIR),
        (Opcode.UNLINK, b"f\0", errno.ENOTDIR),
        (Opcode.READLINK, b"", errno.EINVAL),
        (Opcode.READDIR, bytes(40), errno.ENOTDIR),
        (Opcode.SETXATTR, pack("=IIII", 0, 2, 0, 0) + b"user.a\0", errno.ENODATA),
        (Opcode.SETXATTR, pack("=IIII", 0, 0, 0, 0) + b"user.mapfs.file\0", errno.EROFS),
        (Opcode.FALLOCATE, pack("=QQQII", 0, 1 << 63, 10, 0, 0), errno.EFBIG),
        (Opcode.WRITE, write((1 << 63) - 1, b"xx"), errno.EFBIG),
    ],
)
def test_errors_are_answered_with_their_errno(fs, caplog, opcode, body, code):
    number = make(fs, b"f")

    async def scenario(kernel: Kernel) -> None:
        assert (await kernel.ask(opcode, body, number)).error == code

    play(fs, scenario)
    assert not caplog.records


def test_a_name_that_is_too_long_or_taken(fs):
    make(fs, b"name")

    async def scenario(kernel: Kernel) -> None:
        long = pack("=II", 0o755, 0) + b"x" * 256 + b"\0"
        assert (await kernel.ask(Opcode.MKDIR, long)).error == errno.ENAMETOOLONG
        assert (await kernel.ask(Opcode.MKDIR, MKDIR)).error == errno.EEXIST

    play(fs, scenario)


def test_a_bug_is_logged_and_answered(fs, monkeypatch, caplog):
    def broken(number: int) -> None:
        raise AttributeError("a bug")

    async def scenario(kernel: Kernel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(fs, "inode", broken)
            assert (await kernel.ask(Opcode.GETATTR, bytes(16))).error == errno.EIO
        await kernel.get(Opcode.GETATTR, bytes(16))

    play(fs, scenario)
    assert "GETATTR failed" in caplog.text
    assert "a bug" in caplog.text


def test_answers_that_nobody_waits_for_are_dropped(fs, monkeypatch):
    codes = [errno.ENOENT, errno.ENODEV]

    async def scenario(kernel: Kernel) -> None:
        def writev(fd: int, parts: object) -> int:
            raise OSError(codes.pop(), "as the device says it")

        with monkeypatch.context() as patch:
            patch.setattr("os.writev", writev)
            for _ in range(2):
                kernel.send(Opcode.STATFS)
            while codes:
                await trio.lowlevel.checkpoint()

    play(fs, scenario)
