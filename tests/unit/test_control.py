"""The control socket: whatever clients do, each gets one clear answer and nothing else stops."""

import errno
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse import control
from mapfs.fuse.commands import Commands
from mapfs.fuse.commits import Committer
from mapfs.fuse.control import ControlServer, ControlSocket, abstract_name
from mapfs.fuse.counters import Counters
from mapfs.fuse.statistics import Snapshot, Statistics
from mapfs.fuse.tracing import Event, Tracer
from tests.unit.support import ROOT, content, make

_PATIENCE_SECONDS = 60


class FakeTransport:
    """A transport without a connection: it notes what the kernel is to drop."""

    name = "fake"
    operations = frozenset({"read", "write"})

    def __init__(self) -> None:
        self.counters: Counters[str] = Counters(str)
        self.trace: Callable[[Event], None] | None = None
        self.dropped: list[tuple[int, int, int]] = []

    async def run(self) -> None: ...

    def stop(self) -> None: ...

    def collect(self) -> None: ...

    async def drop_cached(self, inode: int, offset: int = 0, length: int = 0) -> None:
        self.dropped.append((inode, offset, length))


class Client:
    """The test's end of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            received = await self.stream.receive_some(1 << 16)
            assert received, "the connection ended"
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, **request: object) -> dict[str, Any]:
        await self.send(json.dumps(request).encode() + b"\n")
        return await self.answer()

    async def require_end(self) -> None:
        assert not self._received
        assert await self.stream.receive_some(1) == b""


Connect = Callable[[], Awaitable[Client]]


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def play(
    fs: Filesystem, transport: FakeTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Runs a scenario with a function that connects to a server."""
    monkeypatch.setattr("mapfs.fuse.device.sync", lambda _: None)

    def run(scenario: Callable[[Connect], Awaitable[None]]) -> None:
        committer = Committer(fs)
        statistics = Statistics(fs, committer, transport, store=tmp_path, takeovers=3)
        commands = Commands(fs, committer, transport, statistics, tmp_path)
        server = ControlServer(commands, Tracer(transport, fs.path_of), transport)

        streams: list[trio.SocketStream] = []

        async def connect() -> Client:
            streams.append(await trio.open_unix_socket(tmp_path / "control"))
            return Client(streams[-1])

        async def main() -> None:
            with trio.fail_after(_PATIENCE_SECONDS):
                async with trio.open_nursery() as nursery:
                    await nursery.start(server.run, ControlSocket(tmp_path, 0))
                    try:
                        await scenario(connect)
                    finally:
                        for each in streams:
                            await trio.aclose_forcefully(each)
                    nursery.cancel_scope.cancel()

        trio.run(main)
        assert not (tmp_path / "control").exists()
        assert transport.trace is None

    return run


def test_statistics(fs, transport, play):
    number = make(fs, b"file", b"x" * 5000)
    transport.counters.add("read", 1000)
    others = [make(fs, b"small", b"x"), make(fs, b"large", b"x" * 9000)]
    transport.counters.recent.extend([*others, number, number, 999])

    async def scenario(connect: Connect) -> None:
        client = await connect()
        values = (await client.ask(command="statistics", files=10))["statistics"]
        assert values["operations"]["read"]["count"] == 1
        assert values["filesystem"]["slack_bytes"] == 3192 + 4095 + 3288
        used = [(each["path"], each["accesses"]) for each in values["files"]]
        assert used == [("file", 2), ("large", 1), ("small", 1)]
        snapshot = Snapshot.from_json(values)
        assert json.loads(json.dumps(snapshot.as_json())) == values
        assert snapshot.takeovers == 3
        assert snapshot.process.pid == os.getpid()
        assert snapshot.process.page_table_bytes > 0
        assert (await client.ask(command="statistics"))["statistics"]["files"] == []

    play(scenario)


def test_punch(fs, transport, play):
    number = make(fs, b"file", b"x" * 16384)

    async def scenario(connect: Connect) -> None:
        client = await connect()
        request = {"command": "punch", "inode": number, "offset": 4096, "length": 8192}
        assert await client.ask(**request) == {"ok": True, "freed_bytes": 8192}
        assert await client.ask(**request) == {"ok": True, "freed_bytes": 0}

    play(scenario)
    assert content(fs, number) == b"x" * 4096 + bytes(8192) + b"x" * 4096
    assert transport.dropped == [(number, 4096, 8192)] * 4


def test_invalidate(fs, transport, play):
    numbers = [make(fs, b"file %d" % each) for each in range(3)]

    async def scenario(connect: Connect) -> None:
        client = await connect()
        assert (await client.ask(command="invalidate", inode=numbers[1]))["ok"]
        assert transport.dropped == [(numbers[1], 0, 0)]
        assert (await client.ask(command="invalidate"))["ok"]
        assert {number for number, _, _ in transport.dropped} >= set(numbers)

    play(scenario)


def test_sync_commits(fs, play):
    async def scenario(connect: Connect) -> None:
        make(fs, b"file")
        assert fs.is_dirty
        client = await connect()
        assert await client.ask(command="sync") == {"ok": True}
        assert not fs.is_dirty
        values = (await client.ask(command="statistics"))["statistics"]
        assert values["commits"]["count"] == 1

    play(scenario)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({}, "EINVAL"),
        ({"command": "nonsense"}, "EINVAL"),
        ({"command": ["punch"]}, "EINVAL"),
        ({"command": "punch"}, "EINVAL"),
        ({"command": "punch", "inode": "17", "offset": 0, "length": 1}, "EINVAL"),
        ({"command": "punch", "inode": True, "offset": 0, "length": 1}, "EINVAL"),
        ({"command": "punch", "inode": 17, "offset": -1, "length": 1}, "EINVAL"),
        ({"command": "punch", "inode": 17, "offset": 0, "length": 0}, "EINVAL"),
        ({"command": "punch", "inode": 17, "offset": 0, "length": 1 << 63}, "EINVAL"),
        ({"command": "punch", "inode": 17, "offset": 0.5, "length": 1}, "EINVAL"),
        ({"command": "punch", "inode": 999, "offset": 0, "length": 1}, "ENOENT"),
        ({"command": "punch", "inode": ROOT, "offset": 0, "length": 1}, "EISDIR"),
        ({"command": "invalidate", "inode": 999}, "ENOENT"),
        ({"command": "statistics", "files": 101}, "EINVAL"),
        ({"command": "statistics", "files": None}, "EINVAL"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_connection_goes_on(play, request_, code):
    async def scenario(connect: Connect) -> None:
        client = await connect()
        answer = await client.ask(**request_)
        assert answer["ok"] is False
        assert answer["errno"] == code
        assert answer["error"]
        assert (await client.ask(command="statistics"))["ok"]

    play(scenario)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"17\n",
        b'{"command":\n',
        b"[" * 4000 + b"\n",
        b'{"command": "trace", "operations": "read"}\n',
        b'{"command": "trace", "operations": []}\n',
        b'{"command": "trace", "operations": ["read", 17]}\n',
        b'{"command": "trace", "operations": ["read", "reed"]}\n',
        b'{"command": "trace", "path": 17}\n',
        b"\xff\xfe\x00\n",
        b"9" * 5000 + b"\n",
        b"x" * 8193 + b"\n",
        b"x" * 20_000,
    ],
    ids=range(15),
)
def test_who_makes_a_mistake_in_the_form_is_told_and_dropped(play, line):
    async def scenario(connect: Connect) -> None:
        client, other = await connect(), await connect()
        await client.send(line)
        answer = await client.answer()
        assert (answer["ok"], answer["errno"]) == (False, "EINVAL")
        with pytest.raises((AssertionError, trio.BrokenResourceError)):
            await client.ask(command="statistics")
        assert (await other.ask(command="statistics"))["ok"]

    play(scenario)


def mutated(random: Random) -> bytes:
    """A request with some bytes changed, left out or put in."""
    line = bytearray(random.choice(_REQUESTS))
    for _ in range(random.randrange(1, 6)):
        place = random.randrange(len(line))
        line[place : place + random.randrange(3)] = random.randbytes(random.randrange(3))
    return bytes(line.replace(b"\n", b"")) + b"\n"


_REQUESTS = (
    b'{"command": "statistics", "files": 10}',
    b'{"command": "invalidate", "inode": 17}',
    b'{"command": "punch", "inode": 17, "offset": 0, "length": 4096}',
    b'{"command": "sync"}',
)


def test_lines_that_are_almost_requests(fs, play, caplog):
    random = Random(1)
    make(fs, b"file", b"x" * 8192)

    async def scenario(connect: Connect) -> None:
        client = await connect()
        for _ in range(500):
            await client.send(mutated(random))
            answer = await client.answer()
            if not answer["ok"]:
                assert answer["error"]
                await client.stream.aclose()
                client = await connect()
        assert (await client.ask(command="statistics"))["ok"]

    play(scenario)
    assert not caplog.records


def test_who_goes_away_or_sends_half_a_line_disturbs_nobody(play, caplog):
    async def scenario(connect: Connect) -> None:
        for _ in range(50):
            gone = await connect()
            await gone.send(b'{"command": "statistics"}\n' * 20)
            await gone.stream.aclose()
        half = await connect()
        await half.send(b'{"command"')
        await half.stream.send_eof()
        assert (await half.answer())["errno"] == "EINVAL"
        await half.require_end()
        assert (await (await connect()).ask(command="statistics"))["ok"]

    play(scenario)
    assert not caplog.records


def test_who_sends_its_last_request_and_closes_that_side_is_answered(play):
    async def scenario(connect: Connect) -> None:
        client = await connect()
        await client.send(b'{"command": "statistics"}\n')
        await client.stream.send_eof()
        assert (await client.answer())["ok"]
        await client.require_end()

    play(scenario)


def test_who_is_slow_is_told_and_dropped(play, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE_SECONDS", 0.05)

    async def scenario(connect: Connect) -> None:
        slow = await connect()
        with suppress(trio.BrokenResourceError):  # on a busy machine it is too late already
            await slow.send(b'{"comm')
        assert (await slow.answer())["errno"] == "EINVAL"
        with suppress(trio.BrokenResourceError):
            await slow.require_end()

    play(scenario)


def test_who_does_not_take_its_answers_is_dropped(fs, play, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE_SECONDS", 0.05)

    async def scenario(connect: Connect) -> None:
        deaf = await connect()
        with pytest.raises(trio.BrokenResourceError):
            await deaf.send(b'{"command": "statistics"}\n' * 100_000)

    play(scenario)


def test_there_are_so_many_clients_and_no_more(play):
    async def scenario(connect: Connect) -> None:
        clients = [await connect() for _ in range(16)]
        for each in clients:
            assert (await each.ask(command="statistics"))["ok"]
        late = await connect()
        answer = await late.answer()
        assert (answer["ok"], answer["errno"]) == (False, "EINVAL")
        await late.require_end()
        await clients[0].stream.aclose()
        while not (await (await connect()).ask(command="statistics"))["ok"]:
            await trio.lowlevel.checkpoint()

    play(scenario)


def test_another_user_is_refused(play, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.setattr(control, "_CREDENTIALS", FakeCredentials())

    async def scenario(connect: Connect) -> None:
        client = await connect()
        assert (await client.answer())["errno"] == "EPERM"
        await client.require_end()

    play(scenario)


class FakeCredentials:
    """As if the other end were process 1 of user 54321."""

    size = control._CREDENTIALS.size

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return 1, 54321, 54321


def test_a_bug_in_a_command_ends_one_connection_only(play, fs, monkeypatch, caplog):
    def broken(number: int) -> None:
        raise AttributeError("a bug")

    async def scenario(connect: Connect) -> None:
        client = await connect()
        with monkeypatch.context() as patch:
            patch.setattr(fs, "inode", broken)
            await client.send(b'{"command": "invalidate", "inode": 1}\n')
            await client.require_end()
        assert (await (await connect()).ask(command="statistics"))["ok"]

    play(scenario)
    assert "a bug" in caplog.text


def test_trace(transport, fs, play):
    number = make(fs, b"file")

    async def scenario(connect: Connect) -> None:
        client = await connect()
        assert (await client.ask(command="trace", operations=["read"]))["ok"]
        for operation, code in (("write", 0), ("read", 0), ("read", errno.EIO)):
            event = Event(1_500_000_000, operation, number, None, 0, 4096, code, 2000)
            assert transport.trace is not None
            transport.trace(event)
        assert await client.answer() == {
            "time": 1.5,
            "operation": "read",
            "inode": number,
            "path": "file",
            "offset": 0,
            "size": 4096,
            "error": None,
            "duration_seconds": 2e-6,
        }
        assert (await client.answer())["error"] == "EIO"
        for _ in range(5000):
            transport.trace(event)
        lines = [await client.answer() for _ in range(4097)]
        assert lines[-1] == {"dropped": 904}
        await client.stream.send_eof()
        await client.require_end()

    play(scenario)


def test_who_traces_what_there_is_not_is_told_what_there_is(play):
    async def scenario(connect: Connect) -> None:
        client = await connect()
        answer = await client.ask(command="trace", operations=["read", "reed"])
        assert answer["error"] == "no such operation: 'reed' (there are read, write)"
        await client.require_end()

    play(scenario)


def test_who_breaks_off_a_trace_disturbs_nobody(transport, play, caplog):
    async def scenario(connect: Connect) -> None:
        event = Event(0, "read", ROOT, None, 0, 4096, 0, 2000)
        for _ in range(5):
            client = await connect()
            assert (await client.ask(command="trace"))["ok"]
            for _ in range(4000):
                transport.trace(event)
            await client.stream.aclose()  # with lines that were never read
            while transport.trace is not None:
                await trio.lowlevel.checkpoint()
        assert (await (await connect()).ask(command="statistics"))["ok"]

    play(scenario)
    assert not caplog.records


# The socket


def test_the_socket_is_its_owner_s_alone(tmp_path):
    with ControlSocket(tmp_path, 0):
        mode = (tmp_path / "control").lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / "control").exists()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "control"))
    dead.close()
    with ControlSocket(tmp_path, 0), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "control"))


def test_a_socket_that_cannot_be_removed_is_left(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "as the host says it")

    bound = ControlSocket(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", refuse)
        bound.close()
    assert (tmp_path / "control").is_socket()
    ControlSocket(tmp_path, 0).close()
    assert not (tmp_path / "control").exists()


def test_a_path_of_any_length(tmp_path):
    deep = tmp_path.joinpath(*["x" * 200] * 4)
    deep.mkdir(parents=True)
    with ControlSocket(deep, 0):
        assert stat.S_ISSOCK((deep / "control").lstat().st_mode)


@pytest.mark.parametrize("kind", ["file", "directory", "missing"])
def test_where_no_socket_can_be_made_it_has_an_abstract_name(tmp_path, kind):
    bundle, device = tmp_path / "bundle", os.makedev(250, os.getpid() % 100_000)
    if kind != "missing":
        bundle.mkdir()
    if kind == "file":
        (bundle / "control").write_text("kept")
    if kind == "directory":
        (bundle / "control").mkdir()
    with ControlSocket(bundle, device):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(abstract_name(device))
        with pytest.raises(OSError, match="in use"):
            ControlSocket(None, device)
    if kind == "file":
        assert (bundle / "control").read_text() == "kept"
