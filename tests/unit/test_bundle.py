"""The bundle's files and its lock."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapfs.errors import NotAStoreError, StoreError, StoreInUseError
from mapfs.store.bundle import Bundle

HOLDER = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    """A bundle of empty files."""
    bundle = Bundle(tmp_path / "t.mapfs")
    bundle.path.mkdir()
    for file in (bundle.store, bundle.catalog, bundle.lock):
        file.touch()
    return bundle


def test_a_complete_bundle(made: Bundle) -> None:
    made.require()
    assert made.is_complete


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotAStoreError, match=r"no such store .*mapfs mkfs"):
        Bundle(tmp_path / "nothing.mapfs").require()


def test_a_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotAStoreError, match="not a directory"):
        Bundle(tmp_path / "file").require()


@pytest.mark.parametrize("name", ["store", "catalog", "lock"])
def test_what_is_missing_is_named(made: Bundle, name: str) -> None:
    (made.path / name).unlink()
    assert not made.is_complete
    with pytest.raises(NotAStoreError, match=f"{name} is missing"):
        made.require()


def test_a_dangling_store_is_missing(made: Bundle) -> None:
    made.store.unlink()
    made.store.symlink_to("nowhere")
    with pytest.raises(NotAStoreError, match="store is missing"):
        made.require()


def test_writers_exclude_each_other(made: Bundle) -> None:
    first = made.take_lock(exclusive=True)
    with pytest.raises(StoreInUseError, match=r"in use by process \d+ \("):
        made.take_lock(exclusive=True)
    with pytest.raises(StoreInUseError, match=f"process {os.getpid()}"):
        made.take_lock(exclusive=False)
    os.close(first)
    os.close(made.take_lock(exclusive=True))


def test_readers_share_and_keep_writers_out(made: Bundle) -> None:
    readers = [made.take_lock(exclusive=False) for _ in range(2)]
    with pytest.raises(StoreInUseError):
        made.take_lock(exclusive=True)
    for reader in readers:
        os.close(reader)
    os.close(made.take_lock(exclusive=True))


def test_another_process_is_named(made: Bundle) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, made.lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(StoreInUseError, match=rf"process {holder.pid} \(python"):
            made.take_lock(exclusive=True)
        holder.communicate()
    os.close(made.take_lock(exclusive=True))


def test_a_holder_that_cannot_be_seen(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made.take_lock(exclusive=True)
    monkeypatch.setattr(Path, "read_text", lambda _: "1: FLOCK nonsense\n")
    with pytest.raises(StoreInUseError, match="in use by another process"):
        made.take_lock(exclusive=True)
    os.close(first)


def test_locking_leaks_no_descriptor(made: Bundle) -> None:
    first = made.take_lock(exclusive=True)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StoreInUseError):
        made.take_lock(exclusive=True)
    assert os.listdir("/proc/self/fd") == before
    os.close(first)


def test_a_lock_that_is_a_link_is_refused(made: Bundle, tmp_path: Path) -> None:
    made.lock.rename(tmp_path / "elsewhere")
    made.lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="lock"):
        made.take_lock(exclusive=True)


def test_waiting_for_the_lock(made: Bundle) -> None:
    made.wait_for_lock()
    os.close(made.take_lock(exclusive=True))
    made.wait_for_lock()


def test_a_lock_that_the_host_cannot_take(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="No locks available"):
        made.take_lock(exclusive=True)
