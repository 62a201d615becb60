"""When the loop may wait for the disk by itself, rather than have a thread do so.

To hand work to a thread and to be told that it is done takes as long as a quick disk does
(`docs/performance.md`). With a single program that waits, nothing is gained by it: there is nobody
else to serve.
"""

import time
from collections.abc import Callable
from typing import Final

# A wait that takes no longer holds up nobody more than reading a MiB does.
_SHORT_SECONDS: Final = 0.001
# So many in a row, with one program that waits, show that it will be so again.
_ENOUGH: Final = 8


class ShortWaits:
    """Counts waits for the disk that were short and held up nobody, one after the other."""

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        """`is_idle` tells whether no request waits to be read."""
        self._is_idle = is_idle
        self._count = 0

    @property
    def are_likely(self) -> bool:
        """Whether the next wait will be short, and nobody is there to be held up by it."""
        return self._count >= _ENOUGH and self._is_idle()

    def add(self, begun: float) -> None:
        """Count a wait that began at `time.perf_counter` and has ended; in any thread."""
        self._count = self._count + 1 if time.perf_counter() - begun < _SHORT_SECONDS else 0

    def check(self) -> None:
        """After the loop has waited: begin to count anew if somebody was held up."""
        if not self._is_idle():
            self.forget()

    def forget(self) -> None:
        """Begin to count anew: more than one program waits."""
        self._count = 0
