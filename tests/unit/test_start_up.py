"""What starting a command must not load: it would double the time that `mapfs stat` takes."""

import subprocess
import sys

import pytest

HEAVY = {"lmdb", "pyfuse3", "rich", "sortedcontainers", "trio", "xxhash"}


@pytest.mark.parametrize("verb", ["stat", "advise", "slack", "umount"])
def test_commands_that_open_no_store_load_nothing_of_it(verb: str) -> None:
    program = f"import sys, mapfs.cli, mapfs.cli.{verb}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert HEAVY.isdisjoint(done.stdout.decode().split())


def test_the_package_loads_nothing_before_a_file_is_mapped() -> None:
    program = "import sys, mapfs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    loaded = set(done.stdout.decode().split())
    assert HEAVY.isdisjoint(loaded)
    assert "mapfs.mapping" not in loaded
