"""The time that the kernel stamps files with.

With the writeback cache the kernel sets the times of files it has open and the daemon those of
the rest. Both must read one clock, or a file would seem modified before it was created. The
kernel's is the coarse one, but since Linux 6.13 never behind the last fine time that any file was
given (`ktime_get_coarse_real_ts64_mg` in kernel/time/timekeeping.c): up to two ticks ahead of
CLOCK_REALTIME_COARSE, and no clock of clock_gettime(2).
"""

import functools
import os
import time
from typing import Final

_LATEST: Final = (1 << 63) - 1


def now() -> int:
    """Nanoseconds since the epoch, as the kernel would stamp a file that changes now.

    It is asked to stamp a pipe, whose filesystem never has fine times. Any thread may call this.
    """
    pipe = _pipe()
    os.utime(pipe)
    return os.fstat(pipe).st_mtime_ns


def roughly_now() -> int:
    """The same to within some milliseconds, at a tenth of its cost: to tell days, not to stamp."""
    return time.time_ns()


@functools.cache
def _pipe() -> int:
    """A descriptor of a pipe that nobody uses, for as long as the process lives."""
    reader, writer = os.pipe()
    os.close(writer)
    os.fchmod(reader, 0o666)  # so that a process which then changes its user may still stamp it
    return reader


def clamped(moment: int) -> int:
    """A time as near to `moment` as a record can hold: the years 1677 to 2262."""
    return max(-_LATEST, min(moment, _LATEST))
