"""scripts/bench runs, measures what it says, and leaves nothing behind."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.floors import FLOORS
from tests.mount.volume import process, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.root]

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
TINY = ("--scale", "0.001", "--repeat", "1")


def bench(directory: Path, *words: str) -> dict[str, Any]:
    """Run it in `directory`, and return the results that it wrote."""
    output = directory.with_name("output")
    directory.mkdir()
    run(sys.executable, BENCH, *TINY, "--directory", directory, "--output", output, *words)
    assert list(directory.iterdir()) == []
    found: dict[str, Any] = json.loads((output / "results.json").read_text())
    assert found["failures"] == []
    return found


def test_mapfs_beside_the_kernels_own(tmp_path: Path) -> None:
    words = ("--systems", "ext4,mapfs", "--workloads", "stream,files")
    found = bench(tmp_path / "data", *words)
    measured = {(each["measurement"], each["system"]) for each in found["samples"]}
    assert ("sequential read, cold", "mapfs") in measured
    assert ("stat, warm", "ext4") in measured
    assert all(each["value"] > 0 for each in found["samples"])
    assert "| stat, warm | ext4 | 0.9 |" in (tmp_path / "output/results.md").read_text()
    assert (tmp_path / "output/results.svg").read_text().startswith("<svg")


def test_the_workloads_measure_everything_that_has_a_floor(tmp_path: Path) -> None:
    names = "stream,buffered,synced,mapped,files,unlink,listing,trees,clone,sqlite"
    found = bench(tmp_path / "data", "--systems", "tmpfs", "--workloads", names)
    assert set(FLOORS) <= {each["measurement"] for each in found["samples"]}


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    chosen = ("--systems", "mapfs", "--workloads", "unlink", "--scale", "0.2")
    command: list[str | Path] = [sys.executable, BENCH, "--directory", tmp_path, *chosen]
    with process(command, stderr=subprocess.PIPE) as running:
        wait_until(lambda: str(tmp_path) in _mapfs_mounts(), "mapfs to be mounted")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")


def _mapfs_mounts() -> str:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return "\n".join(line for line in lines if "fuse.mapfs" in line)
