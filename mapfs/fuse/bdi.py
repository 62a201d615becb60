"""The kernel's backing device info (bdi) of a mount: how much it may hold back, and read ahead.

By default the dirty pages of a FUSE mount are bounded strictly, by 1 % of what all may have
(`fuse_bdi_init` in fs/fuse/inode.c), because a daemon that hangs would keep them. That slows large
writes down. Without a bound the kernel would begin to write back only when memory fills up or with
fsync, and program and daemon would work one after the other. So the bound is a size, large enough
for the one and small enough for the other; `docs/performance.md` has the figures.
See Documentation/ABI/testing/sysfs-class-bdi in the kernel's sources (Linux 6.2).
"""

import logging
import os
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_BDI: Final = Path("/sys/class/bdi")
_SETTINGS: Final = {"strict_limit": 1, "max_bytes": 96 << 20, "read_ahead_kb": 1024}


def tune(device: int) -> None:
    """Set the bdi of the mount with this `st_dev` for speed, where that is allowed: root may."""
    directory = _BDI / f"{os.major(device)}:{os.minor(device)}"
    for name, value in _SETTINGS.items():
        try:
            (directory / name).write_text(f"{value}\n")
        except OSError as error:
            _log.info("%s: %s: %s", directory / name, value, error.strerror)
