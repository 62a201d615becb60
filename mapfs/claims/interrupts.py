"""Signals that end a run: so that all is removed, and not in the middle of what must be whole."""

import contextlib
import signal
from collections.abc import Iterator

from mapfs.ending_signals import ending_signals_to


def ended_by_exception() -> contextlib.AbstractContextManager[None]:
    """Have a signal that asks for the end raise `KeyboardInterrupt`. For the main thread."""
    return ending_signals_to(signal.default_int_handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have such a signal wait for the end of the block. For the main thread.

    A fork needs this as well: what Python runs at its end drops exceptions.
    """
    came: list[int] = []
    with ending_signals_to(lambda number, _frame: came.append(number)):
        yield
    if came:
        raise KeyboardInterrupt


def ignore_interrupts() -> None:
    """For a child: Ctrl-C goes to it as well, but it is its parent that ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
