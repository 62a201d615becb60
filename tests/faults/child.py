"""Running a function, or the `mapfs` command, in a forked child with a time limit."""

import contextlib
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mapfs.cli
import mapfs.cli.df
import mapfs.cli.fsck
import mapfs.cli.mkfs
import mapfs.cli.mount
import mapfs.cli.stat
import mapfs.filesystem.check
import mapfs.fuse.session

BUG = 99
HUNG = 98
_POLL_SECONDS = 0.002


class Ended(NamedTuple):
    """How a child ended: its exit code, or minus the signal that killed it, and what it said."""

    code: int
    out: str
    err: str


def run_child(function: Callable[[], int], *, seconds: float = 20) -> Ended:
    """Run `function` in a child of its own session."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            _child(function, out.fileno(), err.fileno())
        code = _wait(pid, seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Ended(code, *texts)


def _child(function: Callable[[], int], out: int, err: int) -> None:
    code = BUG
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGALRM, signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with (
            open(1, "w", closefd=False) as stdout,
            open(2, "w", closefd=False) as stderr,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            code = function()
    except BaseException:  # noqa: BLE001 (the parent is told)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _wait(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HUNG


def mapfs_command(*words: str | Path) -> Ended:
    """Run `mapfs …` as a process would."""
    arguments = [os.fspath(word) for word in words]
    return run_child(lambda: mapfs.cli.run(mapfs.cli.mapfs, arguments))


def assert_plain(ended: Ended, *codes: int) -> None:
    """The command ended by itself with one of `codes`, and a failure said why in one line."""
    assert ended.code in codes, ended
    assert "Traceback" not in ended.out + ended.err, ended
    lines = ended.err.splitlines()
    if ended.code in (1, 2, 8):
        assert len(lines) == 1, ended
        assert lines[0].startswith("mapfs: "), ended
        assert len(lines[0]) > len("mapfs: "), ended
    else:
        assert not lines, ended
