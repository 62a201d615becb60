"""Mounts under load: layout, signals, and what goes on beside it."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from mapfs.cli.client import ControlClient
from tests.mount.volume import Volume, wait_until

pytestmark = pytest.mark.mount

MIB = 1 << 20


def extents(path: Path) -> int:
    return int(os.getxattr(path, "user.mapfs.file.extents"))


def test_files_written_side_by_side_end_in_a_handful_of_extents(mnt: Path) -> None:
    block = os.urandom(MIB)

    def write(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(128):
                file.write(block)
            os.fsync(file.fileno())

    paths = [mnt / f"{number}" for number in range(3)]
    threads = [threading.Thread(target=write, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path in paths:
        assert path.stat().st_size == 128 * MIB
        assert extents(path) <= 12


@pytest.mark.parametrize("transport", ["wire", "pyfuse3"])
def test_a_signal_ends_a_mount_under_load(volume: Volume, transport: str) -> None:
    """Whatever keeps the daemon busy, it hears of the signal, commits, and ends."""
    volume.mount("--transport", transport)
    work = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "while True:\n"
        "    for number in range(100):\n"
        "        with open(f'{number}', 'wb') as file: file.write(b'x' * 5000)\n"
        "        os.stat(f'{number}'), os.listdir()\n"
    )
    busy = [
        subprocess.Popen(["python3", "-c", work, volume.mnt], stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    try:
        wait_until((volume.mnt / "99").exists, "the work to begin")
        os.kill(volume.daemon, signal.SIGTERM)
        volume.wait_for_end()
        assert not volume.mounted
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_small_files_are_made_while_a_large_one_is_synced(
    volume: Volume,
) -> None:
    """Commits, large writes and fsyncs go on beside small requests, and all end well."""
    mnt = volume.mount("--commit", "0.1")
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        with (mnt / "large").open("wb", buffering=0) as file:
            while not stop.is_set():
                file.write(bytes(MIB))
                os.fsync(file.fileno())
                written += MIB

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(300):
            (mnt / f"{number}").write_bytes(b"%d" % number)
            assert (mnt / f"{number}").read_bytes() == b"%d" % number
    finally:
        stop.set()
        thread.join()
    mnt = volume.remount()
    assert (mnt / "large").stat().st_size == written
    assert all((mnt / f"{number}").read_bytes() == b"%d" % number for number in range(300))


def test_what_was_read_does_not_stay_in_the_daemon(volume: Volume) -> None:
    """Nor what was looked at of the store and the catalog: its page tables are emptied."""
    mnt = volume.mount()
    block = os.urandom(MIB)
    path = mnt / "large"
    with path.open("wb") as file:
        for _ in range(256):
            file.write(block)

    def is_small() -> bool:
        return ControlClient(mnt).snapshot().process.resident_bytes < 150 * MIB

    ControlClient(mnt).ask("invalidate")
    assert path.read_bytes() == block * 256
    wait_until(is_small, "the daemon to let go of what it has mapped")
    ControlClient(mnt).ask("invalidate")
    assert path.read_bytes() == block * 256
