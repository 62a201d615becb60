"""How the loop sleeps: as little as may be while requests come, at no cost when none do."""

import time
from typing import Final

import trio

from mapfs.fuse.cpu_latency import CpuLatency

# Waking up costs more than some looks for the next request do (`docs/performance.md`). But an
# idle mount must cost nothing: only after a short sleep is it worth while.
_MOST_LOOKS: Final = 32
_SHORT_SECONDS: Final = 0.0005
# So many in a row say that a program goes on asking.
_MANY_SHORT: Final = 64


class Sleep:
    """Waits for requests, and learns from how long that takes. For the filesystem's thread.

    `looks` is how often to look for one before sleeping.
    """

    def __init__(self, fd: int, latency: CpuLatency) -> None:
        """`fd` is what requests come from; `latency` is set while they do."""
        self._fd = fd
        self._latency = latency
        self._short = 0
        self.looks = _MOST_LOOKS

    async def until_readable(self) -> None:
        """Wait for a request; a short wait means that looking longer might have spared it."""
        start = time.perf_counter()
        if not (self._latency.is_set and await self._is_soon_readable()):
            self._latency.lift()
            await trio.lowlevel.wait_readable(self._fd)
        is_short = time.perf_counter() - start < _SHORT_SECONDS
        self.looks = _MOST_LOOKS if is_short else 0
        self._short = self._short + 1 if is_short else 0
        if self._short >= _MANY_SHORT:
            self._latency.set()

    async def _is_soon_readable(self) -> bool:
        with trio.move_on_after(_SHORT_SECONDS):
            await trio.lowlevel.wait_readable(self._fd)
            return True
        return False

    def was_spared(self) -> None:
        """Note that many requests came without a sleep in between."""
        self._latency.set()

    def close(self) -> None:
        """Leave processors alone from now on."""
        self._latency.close()
