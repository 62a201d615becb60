"""The client of the control socket, against servers that behave in every way."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapfs.cli import client as module
from mapfs.cli.client import ControlClient
from mapfs.errors import MapfsError, MountError, MountGoneError
from mapfs.fuse.control import abstract_name
from mapfs.mounts import Mount

Serve = Callable[[socket.socket], None]
DEVICE = os.makedev(240, os.getpid() & 0xFFFFF)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """A mount of a bundle, as far as a client can see."""
    (tmp_path / "bundle").mkdir()
    made = Mount(tmp_path / "bundle", tmp_path, DEVICE, os.geteuid())
    monkeypatch.setattr(module, "mount_at", lambda _: made)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.2)
    return made


@pytest.fixture
def serve(mount: Mount) -> Iterator[Callable[..., None]]:
    """Serves one connection after the other, each in its way."""
    threads: list[threading.Thread] = []

    def start(*ways: Serve, address: str | None = None) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address or str(mount.source / "control"))
        listener.listen()

        def run() -> None:
            with listener:
                for way in ways:
                    connection, _ = listener.accept()
                    with connection:
                        way(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def saying(*lines: object) -> Serve:
    """Take a request, and say lines in small pieces."""

    def way(connection: socket.socket) -> None:
        assert connection.recv(10_000).endswith(b"\n")
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        for start in range(0, len(data), 7):
            connection.sendall(data[start : start + 7])

    return way


def dying(connection: socket.socket) -> None:
    """End without an answer."""
    connection.recv(10_000)


def test_an_answer_in_pieces(mount, serve):
    serve(saying({"ok": True, "text": "x" * 1000}))
    assert ControlClient(mount.mountpoint).ask("sync")["text"] == "x" * 1000


def test_a_refusal(mount, serve):
    serve(saying({"ok": False, "error": "no such thing", "errno": "ENOENT"}))
    with pytest.raises(MapfsError, match="no such thing"):
        ControlClient(mount.mountpoint).ask("punch")


def test_a_process_that_dies_is_asked_again_when_another_has_taken_over(mount, serve):
    serve(dying, dying, saying({"ok": True}))
    assert ControlClient(mount.mountpoint).ask("sync") == {"ok": True}


def test_one_that_never_answers_is_given_up_on(mount, serve):
    serve(*[dying] * 5)
    with pytest.raises(MountError, match="does not answer"):
        ControlClient(mount.mountpoint).ask("sync")


def test_the_statistics_of_another_version(mount, serve):
    serve(saying({"ok": True, "statistics": {"operations": {}}}))
    with pytest.raises(MapfsError, match="another version of mapfs"):
        ControlClient(mount.mountpoint).snapshot()


def test_a_trace_over_two_processes_until_the_mount_is_gone(mount, serve, monkeypatch):
    serve(
        saying({"ok": True}, {"operation": "read"}),
        dying,
        saying({"ok": True}, {"operation": "write"}, {"dropped": 3}),
    )
    found = ControlClient(mount.mountpoint).trace()
    events = [next(found) for _ in range(4)]
    assert events == [{"operation": "read"}, {}, {"operation": "write"}, {"dropped": 3}]
    monkeypatch.setattr(module, "mount_at", lambda _: None)
    with pytest.raises(MountGoneError, match="the mount is gone"):
        next(found)


def test_a_mount_without_a_socket(mount):
    with pytest.raises(MountError, match="no control socket"):
        ControlClient(mount.mountpoint).ask("sync")


def test_an_abstract_name(mount, serve):
    serve(saying({"ok": True}), address=abstract_name(DEVICE))
    assert ControlClient(mount.mountpoint).ask("sync") == {"ok": True}


def test_a_socket_of_another_user_is_not_believed(mount, serve, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.setattr(module, "_CREDENTIALS", FakeCredentials())
    serve(lambda _: None)
    with pytest.raises(MountError, match="belongs to another user"):
        ControlClient(mount.mountpoint).ask("sync")


class FakeCredentials:
    """As if the other end were process 1 of user 54321."""

    size = module._CREDENTIALS.size

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return 1, 54321, 54321


def test_who_may_not_connect(mount, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(module, "_connect_in", refuse)
    with pytest.raises(MountError, match="only root and the user who mounted it"):
        ControlClient(mount.mountpoint).ask("sync")


def test_nothing_is_mounted_there(tmp_path):
    with pytest.raises(MountError, match="no mapfs is mounted there"):
        ControlClient(tmp_path)
