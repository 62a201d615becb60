"""Signals that end a run: so that all is removed, and not in the middle of what must be whole."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ended_by_exception() -> Iterator[None]:
    """Have a signal that asks for the end raise `KeyboardInterrupt`. For the main thread.

    What is ignored stays so: nohup(1) has it so, and a shell for what is in the background.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in _handled()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have such a signal wait for the end of the block. For the main thread.

    A fork needs this as well: what Python runs at its end drops exceptions.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in _handled()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _handled() -> list[signal.Signals]:
    return [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def ignore_interrupts() -> None:
    """For a child: Ctrl-C goes to it as well, but it is its parent that ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
