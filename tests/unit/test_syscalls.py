"""System calls through ctypes: their errors, and what stands in for cachestat(2)."""

import ctypes
import errno
import os
import signal
from pathlib import Path

import pytest

from mapfs.store import syscalls


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"x" * 20000)
    return tmp_path / "file"


def test_fallocate(path: Path) -> None:
    with path.open("r+b") as file:
        syscalls.fallocate(file.fileno(), 0, 0, 40000)
        assert path.stat().st_size == 40000
        mode = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
        syscalls.fallocate(file.fileno(), mode, 0, 4096)
        assert file.read(4097) == bytes(4096) + b"x"


def test_errors_carry_the_errno(path: Path) -> None:
    with path.open("rb") as file, pytest.raises(OSError, match="Bad file") as caught:
        syscalls.fallocate(file.fileno(), 0, 0, 10)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="Bad file"):
        syscalls.PageCache(-1).statistics(0, 4096)


def test_an_interrupted_fallocate_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [errno.EINTR, errno.EINTR, 0]

    def interrupted(*_: object) -> int:
        code = answers.pop(0)
        ctypes.set_errno(code)
        return -1 if code else 0

    monkeypatch.setattr(syscalls._libc, "fallocate", interrupted)
    syscalls.fallocate(3, 0, 0, 1)
    assert answers == []


def test_cache_statistics(path: Path) -> None:
    with path.open("r+b") as file:
        file.read()
        found = syscalls.PageCache(file.fileno()).statistics(0, 20000)
        assert found.resident == 5
        os.fsync(file.fileno())
        assert syscalls.PageCache(file.fileno()).statistics(0, 20000).dirty in (0, None)


def test_mincore_stands_in_for_cachestat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_SYS_CACHESTAT", 100_000)  # no such system call
    with path.open("rb") as file:
        file.read()
        assert syscalls.PageCache(file.fileno()).statistics(0, 20000) == (5, None)
    with pytest.raises(OSError, match="Bad file"):
        syscalls.PageCache(-1).statistics(0, 4096)


def test_a_hole_is_not_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(1 << 20)
        assert syscalls.PageCache(file.fileno()).statistics(0, 1 << 20).resident == 0
        monkeypatch.setattr(syscalls, "_SYS_CACHESTAT", 100_000)
        assert syscalls.PageCache(file.fileno()).statistics(0, 1 << 20).resident == 0


def test_signals_do_not_break_fallocate(path: Path) -> None:
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        with path.open("r+b") as file:
            for _ in range(50):
                syscalls.fallocate(file.fileno(), 0, 0, 1 << 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
