"""What the figures of a run depend on: the machine, and how it was made."""

import os
import platform
import time
from pathlib import Path

from mapfs import __version__
from mapfs.claims.ground import Settings
from mapfs.mounts import filesystem_type
from mapfs.sizes import bytes_label


def facts(directory: Path, settings: Settings) -> dict[str, str]:
    """Of this machine; `directory` is where the files are."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "mapfs": __version__,
        "kernel": f"Linux {platform.release()}",
        "processors": f"{os.cpu_count()} × {_processor()}",
        "memory": bytes_label(memory),
        "files on": _file_system(directory),
        "Python": platform.python_version(),
        "page": f"{bytes_label(os.sysconf('SC_PAGE_SIZE'))}, of the store"
        f" {bytes_label(settings.page_size)}",
        "largest file": bytes_label(settings.size),
        "repetitions": str(settings.repeat),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """Type and read-ahead of what holds a directory (sysfs-class-bdi)."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = filesystem_type(device) or "?"
    try:
        read_ahead = Path(f"/sys/class/bdi/{number}/read_ahead_kb").read_text().strip()
    except OSError:
        return kind
    return f"{kind}, read-ahead of {bytes_label(int(read_ahead) << 10)}"
