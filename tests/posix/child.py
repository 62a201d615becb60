"""Checks that need a second process: forked, told what to do, and asked how it went."""

from __future__ import annotations

import json
import os
import resource
import signal
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def in_child(action: Callable[[], object]) -> None:
    """Do action in a forked process and raise here what it raised there."""
    with _forked(action) as (_, answers):
        _raise_what_failed(answers)


@contextmanager
def beside(action: Callable[[], object]) -> Iterator[None]:
    """A second process that does action while the block runs; the end waits for it."""
    with _forked(action) as (_, answers):
        yield
        _raise_what_failed(answers)


@contextmanager
def holding(action: Callable[[], object]) -> Iterator[int]:
    """A second process that has done action and lives on, descriptors and all, for the block."""
    with _forked(action, stays=True) as (pid, answers):
        _raise_what_failed(answers)
        yield pid


def signal_that_kills(action: Callable[[], object]) -> int:
    """The number of the signal that ends a forked process doing action; 0 if it survives."""
    pid = _fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


@contextmanager
def _forked(action: Callable[[], object], *, stays: bool = False) -> Iterator[tuple[int, int]]:
    answers, answer = os.pipe()
    until, release = os.pipe()
    pid = _fork()
    if pid == 0:
        os.close(answers)
        os.close(release)
        _serve(action, answer, until if stays else None)
    os.close(answer)
    os.close(until)
    try:
        yield pid, answers
    finally:
        os.close(release)
        os.close(answers)
        os.waitpid(pid, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child only makes system calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _serve(action: Callable[[], object], answer: int, until: int | None) -> NoReturn:
    try:
        os.write(answer, json.dumps(_outcome(action)).encode() + b"\n")
        if until is not None:
            os.read(until, 1)
    finally:
        os._exit(0)


def _outcome(action: Callable[[], object]) -> tuple[int | None, str]:
    try:
        action()
    except OSError as error:
        return error.errno or 0, traceback.format_exc()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent raises it
        return None, traceback.format_exc()
    return None, ""


def _raise_what_failed(answers: int) -> None:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(answers, 65536)
        assert piece, "the forked process died"
        line += piece
    number, text = json.loads(line)
    if number is not None:
        raise OSError(number, f"{os.strerror(number)}, in a forked process\n{text}")
    assert not text, f"in a forked process\n{text}"
