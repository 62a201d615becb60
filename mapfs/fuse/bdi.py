"""The kernel's backing device info (bdi) of a mount: how much it may hold back, and read ahead.

By default the dirty pages of a FUSE mount are bounded strictly, by 1 % of what all may have
(`fuse_bdi_init` in fs/fuse/inode.c), because a daemon that hangs would keep them. That halves the
speed of large writes. See Documentation/ABI/testing/sysfs-class-bdi in the kernel's sources.
"""

import logging
import os
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_BDI: Final = Path("/sys/class/bdi")
_SETTINGS: Final = {"strict_limit": 0, "max_ratio": 100, "read_ahead_kb": 1024}


def tune(mountpoint: Path) -> None:
    """Set the bdi of a mount for speed, where that is allowed: root may.

    Asks the mount for its device number, so it must be served by another thread.
    """
    try:
        device = mountpoint.stat().st_dev
    except OSError as error:
        _log.warning("%s: %s", mountpoint, error.strerror)
        return
    directory = _BDI / f"{os.major(device)}:{os.minor(device)}"
    for name, value in _SETTINGS.items():
        try:
            (directory / name).write_text(f"{value}\n")
        except OSError as error:
            _log.info("%s: %s: %s", directory / name, value, error.strerror)
