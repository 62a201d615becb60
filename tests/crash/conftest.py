"""Fixtures of the crash tests."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.journal import Journal
from tests.property import profiles

profiles.load()

_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Recorder:
    """A directory whose files are recorded, and the journal that they are recorded in."""

    directory: Path
    journal: Journal


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    base = tmp_path_factory.mktemp("recorder")
    directory = base / "recorded"
    directory.mkdir()
    journal = Journal(base / "journal")
    program = [sys.executable, "-m", "tests.crash.recorded_files"]
    with subprocess.Popen([*program, directory, journal.path], cwd=_REPOSITORY) as server:
        try:
            _wait_for_mount(directory, server)
            yield Recorder(directory, journal)
        finally:
            subprocess.run(["fusermount3", "-u", directory], check=False)
            if server.poll() is None:
                try:
                    server.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    server.kill()
            journal.close()


def _wait_for_mount(directory: Path, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while not directory.is_mount():
        assert server.poll() is None, "the recorder ended"
        assert time.monotonic() < deadline, "the recorder did not mount"
        time.sleep(0.02)
