"""Standard output that cannot be written: one line that says so, or none if nobody reads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapfs.store.mkfs import StoreOptions, create_store

MAPFS = Path(sys.executable).with_name("mapfs")
VERBS = ["--help", "df", "slack", "fsck"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("store") / "data.mapfs"
    create_store(made, StoreOptions(limit=64 << 20, page_size=4096))
    return made


def run(verb: str, store: Path, output: int) -> tuple[int, str]:
    words = [verb] if verb == "--help" else [verb, str(store)]
    done = subprocess.run(
        [MAPFS, *words], stdout=output, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_where_there_is_no_space_standard_output_is_named(verb: str, store: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    status = 8 if verb == "fsck" else 1
    assert run(verb, store, full) == (status, "mapfs: standard output: No space left on device\n")
    os.close(full)


@pytest.mark.parametrize("verb", VERBS)
def test_a_pipe_that_nobody_reads_is_not_mentioned(verb: str, store: Path) -> None:
    end, pipe = os.pipe()
    os.close(end)
    assert run(verb, store, pipe) == (1, "")
    os.close(pipe)
