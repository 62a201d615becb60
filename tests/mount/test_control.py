"""Asking a live mount over its control socket."""

import contextlib
import json
import mmap
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapfs.cli.client import ControlClient
from mapfs.errors import MapfsError
from tests.conftest import MakeVolume
from tests.mount.volume import Volume, both_transports, mapfs, refusal, run

pytestmark = pytest.mark.mount

NOBODY = 65534


def ask(volume: Volume, command: str, **arguments: object) -> dict[str, Any]:
    """What `mapfs control` does, without a process for it."""
    return ControlClient(volume.mnt).ask(command, **arguments)


def statistics(volume: Volume) -> dict[str, Any]:
    found: dict[str, Any] = ask(volume, "statistics", files=10)["statistics"]
    return found


def counts(volume: Volume) -> dict[str, int]:
    """How often each operation was done."""
    operations = ControlClient(volume.mnt).snapshot().operations
    return {name: timings.count for name, timings in operations.items()}


@both_transports
def test_statistics_count_what_was_done(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    (mnt / "d").mkdir()
    path = mnt / "d" / "file"
    with path.open("wb") as file:
        file.write(b"x" * 1_000_000)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(OSError):
        os.getxattr(path, "user.none")
    assert statistics(volume)["bytes"] == {"read": 0, "cold": 0, "written": 1_000_000}
    ask(volume, "invalidate", inode=path.stat().st_ino)
    assert path.read_bytes() == b"x" * 1_000_000
    found = statistics(volume)
    assert found["bytes"]["read"] == 1_000_000
    operations = found["operations"]
    assert operations["mkdir"]["count"] == 1
    assert operations["fsync"]["count"] == 1
    assert operations["getxattr"]["errors"] >= 1
    assert operations["read"]["count"] >= 1
    assert operations["read"]["errors"] == 0
    for each in operations.values():
        assert sum(each["buckets"]) == each["count"]
        assert each["nanoseconds"] > 0


def test_statistics_of_what_the_mount_holds(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "d").mkdir()
    (mnt / "d" / "file").write_bytes(b"x" * 1_000_000)
    assert "d/file" in mapfs("control", mnt, "statistics").stdout
    found = json.loads(mapfs("control", mnt, "statistics", "--json").stdout)
    assert found["inode_cache"]["hits"] > 0
    assert found["filesystem"]["slack_bytes"] == -1_000_000 % 4096
    assert found["process"]["pid"] == volume.daemon
    assert found["process"]["page_table_bytes"] > 0
    (used,) = found["files"]
    assert (used["path"], used["bytes"]) == ("d/file", 1_000_000)
    assert used["resident_bytes"] >= 1_000_000


def test_cold_bytes_are_those_that_were_fetched_from_the_disk(volume: Volume) -> None:
    (volume.mount() / "file").write_bytes(b"x" * 1_000_000)
    volume.umount()
    mnt = volume.mount()
    with (volume.store / "store").open("rb") as store:
        os.fsync(store.fileno())
        os.posix_fadvise(store.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (mnt / "file").read_bytes()
    counted = ControlClient(mnt).snapshot().bytes
    assert counted.read == 1_000_000
    assert 0 < counted.cold <= 1_000_000


@both_transports
def test_sync_commits_what_the_kernel_still_holds(volume: Volume) -> None:
    mnt = volume.mount("--commit", "3600")
    with (mnt / "file").open("wb", buffering=0) as file:
        file.write(b"dirty")
        before = statistics(volume)
        assert before["commits"]["count"] == 0
        ask(volume, "sync")
        after = statistics(volume)
        assert after["commits"]["count"] == 1
        assert after["bytes"]["written"] == 5


@both_transports
def test_punch_frees_pages_and_leaves_nothing_cached(volume: Volume) -> None:
    mnt = volume.mount()
    path = mnt / "file"
    path.write_bytes(b"x" * 40_960)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 40_960) as mapping:
        mapping[8192:8196] = b"dirt"
        assert mapping[4096:4097] == b"x"
        said = mapfs("control", mnt, "punch", path, 4096, 10_000).stdout
        assert said == "freed 8192 bytes\n"
        assert mapping[:] == b"x" * 4096 + bytes(10_000) + b"x" * (40_960 - 14_096)
    assert path.stat().st_blocks == 8 * 8
    assert path.stat().st_size == 40_960
    assert mapfs("control", mnt, "punch", "file", 0, 4096).stdout == "freed 4096 bytes\n"
    volume.remount()
    assert path.read_bytes() == bytes(14_096) + b"x" * (40_960 - 14_096)


@both_transports
def test_invalidate_lets_the_kernel_ask_again(volume: Volume) -> None:
    mnt = volume.mount()
    for name in ("one", "other"):
        (mnt / name).write_bytes(name.encode() * 10_000)

    def reads_of(*names: str) -> int:
        before = counts(volume).get("read", 0)
        for name in names:
            assert (mnt / name).read_bytes() == name.encode() * 10_000
        return counts(volume).get("read", 0) - before

    reads_of("one", "other")
    assert reads_of("one", "other") == 0
    ask(volume, "invalidate", inode=(mnt / "one").stat().st_ino)
    assert reads_of("other") == 0
    assert reads_of("one") > 0
    ask(volume, "invalidate")
    assert reads_of("one") > 0
    assert reads_of("other") > 0


def test_the_socket_survives_takeovers_and_a_restart(volume: Volume) -> None:
    mnt = volume.mount()
    first = volume.daemon
    os.kill(first, signal.SIGKILL)
    found = statistics(volume)
    assert found["takeovers"] == 1
    assert found["process"]["pid"] not in (first, 0)
    os.kill(volume.daemon, signal.SIGKILL)
    ask(volume, "sync")
    mapfs("restart", mnt)
    assert statistics(volume)["takeovers"] == 3
    assert stat.S_IMODE((volume.store / "control").lstat().st_mode) == 0o600


def test_a_socket_that_a_killed_daemon_left_is_in_nobody_s_way(volume: Volume) -> None:
    mnt = volume.mount()
    (mnt / "file").write_text("kept")
    volume.kill_daemon()
    assert stat.S_ISSOCK((volume.store / "control").lstat().st_mode)
    assert "daemon is gone" in refusal(mapfs("control", mnt, "sync", status=1))
    mapfs("umount", mnt)
    copy = volume.store.with_name("copy.mapfs")
    run("cp", "-a", volume.store, copy)
    mapfs("fsck", copy)
    shutil.rmtree(copy)
    mapfs("df", volume.store)
    volume.mount()
    ask(volume, "sync")
    volume.umount()
    assert sorted(os.listdir(volume.store)) == [
        "catalog",
        "catalog-lock",
        "lock",
        "log",
        "store",
    ]


def test_a_bundle_at_a_path_of_any_length(make_volume: MakeVolume, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 150) / ("y" * 150)
    deep.mkdir(parents=True)
    volume = make_volume(directory=deep)
    volume.mkfs()
    volume.mount()
    assert (volume.store / "control").is_socket()
    assert statistics(volume)["store"] == str(volume.store)


def test_read_only_and_in_memory(volume: Volume, make_volume: MakeVolume) -> None:
    (volume.mount() / "file").write_bytes(b"x" * 8192)
    volume.umount()
    mnt = volume.mount("--read-only")
    assert not (volume.store / "control").exists()
    assert statistics(volume)["store"] == str(volume.store)
    ask(volume, "sync")
    ask(volume, "invalidate")
    assert "read-only" in refusal(mapfs("control", mnt, "punch", "file", 0, 4096, status=1))
    memory = make_volume("memory", ephemeral=True)
    mapfs("mount", "--ephemeral", "64M", memory.mnt, "--log", memory.log)
    (memory.mnt / "file").write_bytes(b"x" * 8192)
    assert statistics(memory)["store"] is None
    inode = (memory.mnt / "file").stat().st_ino
    assert ask(memory, "punch", inode=inode, offset=0, length=4096)["freed_bytes"] == 4096


def test_what_cannot_be_asked_is_refused_in_one_line(volume: Volume, tmp_path: Path) -> None:
    message = refusal(mapfs("control", tmp_path, "sync", status=1))
    assert "no mapfs is mounted there" in message
    mnt = volume.mount()
    (mnt / "d").mkdir()
    assert "no such file" in refusal(mapfs("control", mnt, "punch", "none", 0, 1, status=1))
    assert "no such file" in refusal(mapfs("control", mnt, "punch", "/etc", 0, 1, status=1))
    assert "directory" in refusal(mapfs("control", mnt, "punch", "d", 0, 1, status=1))
    for words in (["punch", "d", "-1", "1"], ["punch", "d", "0", "0"], ["nonsense"], []):
        assert "Traceback" not in mapfs("control", mnt, *words, status=2).stderr


def as_nobody(call: Callable[[], object]) -> int:
    """The exit code of a process of another user that makes a call: 0 if that succeeded."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            call()
            code = 0
        except MapfsError:
            code = 77
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.root
@pytest.mark.parametrize("option", [[], ["--read-only"]])
def test_other_users_are_refused(
    open_directory: Path, make_volume: MakeVolume, option: list[str]
) -> None:
    volume = make_volume(directory=open_directory)
    volume.mkfs()
    volume.store.chmod(0o755)
    volume.mount("--allow-other", *option)
    client = ControlClient(volume.mnt)
    assert as_nobody(lambda: os.statvfs(volume.mnt)) == 0
    assert as_nobody(lambda: client.ask("sync")) == 77
    assert client.ask("sync")["ok"]


@both_transports
def test_a_client_that_does_nothing_stops_neither_the_mount_nor_its_end(volume: Volume) -> None:
    mnt = volume.mount()
    client = ControlClient(mnt)
    with client._connect() as idle, client._connect() as half:
        half.sendall(b'{"command"')
        (mnt / "file").write_text("written")
        assert statistics(volume)["operations"]
        volume.umount()
        while idle.recv(4096):
            pass  # that it was slow, if this took long
    assert not (volume.store / "control").exists()
