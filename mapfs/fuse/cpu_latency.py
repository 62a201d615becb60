"""How long idle processors may take to wake up while requests come: a bound by PM QoS.

A program that waits for an answer leaves its processor idle. One of a virtual machine is then given
back to the host, and to get it again can take longer than the request (`docs/performance.md`).
The bound holds for all processors of the machine. Hence it is set only while one request follows
the other, and without being asked for only where that is worth most and costs least.
See Documentation/power/pm_qos_interface.rst and Documentation/virt/guest-halt-polling.rst in the
kernel's sources.
"""

import logging
import os
import struct
from pathlib import Path
from typing import Final

from mapfs.errors import MountError

_log = logging.getLogger(__name__)

_DEVICE: Final = Path("/dev/cpu_dma_latency")
_MICROSECONDS: Final = struct.Struct("=i")
# PM_QOS_CPU_LATENCY_DEFAULT_VALUE (linux/pm_qos.h), microseconds: as good as none.
NO_BOUND: Final = 2_000_000_000
_LIFTED: Final = _MICROSECONDS.pack(NO_BOUND)

# How processors of this machine idle. "haltpoll" is the driver of virtual machines, in which one
# that halts is given back to the host, and one that polls takes no deeper sleep from another.
_DRIVER: Final = Path("/sys/devices/system/cpu/cpuidle/current_driver")
# One processor is the daemon's, one the program's: no more than these may poll for nothing.
_FEW_PROCESSORS: Final = 4


def check() -> None:
    """Raise `MountError` if this process may not bound the latency of processors."""
    if not os.access(_DEVICE, os.W_OK):
        raise MountError(f"{_DEVICE} cannot be written: leave cpu_latency out, or mount as root")


class CpuLatency:
    """A bound in microseconds that is set and lifted as requests come; `NO_BOUND` is none, ever.

    None is what suits the machine. The kernel lifts the bound when the process ends.
    """

    def __init__(self, microseconds: int | None) -> None:
        """Do not set it yet. What cannot be had is logged: a mount goes on without."""
        bound = _default() if microseconds is None else microseconds
        self._fd = None if bound == NO_BOUND else _opened()
        self._bound = _MICROSECONDS.pack(bound)
        self.is_set = False

    def set(self) -> None:
        """Set the bound: 20 µs, as the kernel has every idle processor hear of it."""
        if self._fd is not None and not self.is_set:
            os.write(self._fd, self._bound)
            self.is_set = True

    def lift(self) -> None:
        """Let processors take their time again."""
        if self._fd is not None and self.is_set:
            os.write(self._fd, _LIFTED)
            self.is_set = False

    def close(self) -> None:
        """Lift it for good."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd, self.is_set = None, False


def _opened() -> int | None:
    try:
        return os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        _log.warning("%s: %s", _DEVICE, error.strerror)
        return None


def _default() -> int:
    """0 in a small virtual machine, if this process may set it; otherwise `NO_BOUND`."""
    try:
        driver = _DRIVER.read_text().strip()
    except OSError:
        return NO_BOUND
    is_small = (os.cpu_count() or 1) <= _FEW_PROCESSORS
    return 0 if driver == "haltpoll" and is_small and os.access(_DEVICE, os.W_OK) else NO_BOUND
