"""The time that the kernel stamps files with.

With the writeback cache the kernel sets the times of files it has open and the daemon those of
the rest. Both must read one clock, or a file would seem modified before it was created: the
kernel reads the coarse one (`ktime_get_coarse_real_ts64` in fs/inode.c).
"""

import time as _time
from typing import Final

_CLOCK_REALTIME_COARSE: Final = 5  # linux/time.h; Python has no name for it
_LATEST: Final = (1 << 63) - 1


def now() -> int:
    """Nanoseconds since the epoch."""
    return _time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def clamped(time: int) -> int:
    """A time as near to `time` as a record can hold: the years 1677 to 2262."""
    return max(-_LATEST, min(time, _LATEST))
