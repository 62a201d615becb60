"""Signals that ask a program to end, and handling them for a while."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ending_signals_to(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Have `handler` called for SIGINT, SIGTERM and SIGHUP; in the main thread only.

    What is ignored stays so: nohup(1) has it so, and a shell for what is in the background.
    """
    handled = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
