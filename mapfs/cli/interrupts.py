"""Ctrl-C, and being told to end, where work must not stop in the middle of a change."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Notes signals while the block of `caught` runs, and raises `KeyboardInterrupt` for them.

    That is between two steps, when `check` is called, or at once while `waiting` for another
    program. A signal in the middle of a change would leave half of it.
    """

    def __init__(self) -> None:
        self._is_noted = self._is_waiting = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP here; in the main thread only.

        What is ignored stays so: nohup(1) has it so, and a shell for what is in the background.
        """
        handled = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._note) for each in handled}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_noted = True
        if self._is_waiting:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal came."""
        if self._is_noted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end a wait at once."""
        self._is_waiting = True
        try:
            self.check()
            yield
        finally:
            self._is_waiting = False
