"""The machine that a run was made on."""

import os
import platform
import time
from pathlib import Path

from benchmark.programs import BenchmarkError, run, version_line


def describe(directory: Path, root: Path) -> dict[str, str]:
    """Facts that figures depend on; `directory` is where the data are, `root` the checkout."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "mapfs revision": _revision(root),
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20} MiB",
        "data on": _output("findmnt", "--noheadings", "--output", "FSTYPE,SOURCE", "-T", directory),
        "Python": platform.python_version(),
        "libfuse": version_line("fusermount3", "--version"),
        "fio": version_line("fio", "--version"),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def _revision(root: Path) -> str:
    return _output("git", "-C", root, "describe", "--always", "--dirty")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*words: str | Path) -> str:
    try:
        return " ".join(run(*words).split())
    except BenchmarkError:
        return "?"
