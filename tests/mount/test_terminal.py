"""Colour and movement are for terminals, and colour is not for those who do not want it."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.mount.terminal import in_terminal
from tests.mount.volume import MAPFS, Volume

pytestmark = pytest.mark.mount

# Select Graphic Rendition with a colour: 30 to 37, 38;…, 90 to 97, and the same for backgrounds.
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[34][0-8]|9\d|10[0-7])(?:;\d+)*m")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Something to copy and to look at."""
    top = tmp_path / "source"
    top.mkdir()
    for number in range(50):
        (top / f"{number}").write_bytes(b"x" * 5000)
    return top


def commands(volume: Volume, source: Path) -> list[list[str]]:
    """Those that show tables, bars or progress, of a store that is not mounted."""
    store = str(volume.store)
    return [
        ["import", f"{source}/", store],
        ["slack", store],
        ["df", store],
        ["fsck", store],
        ["export", store, str(source.parent / "out.tar")],
        ["--help"],
    ]


def test_colour_is_shown_on_a_terminal_unless_no_color_is_set(volume: Volume, source: Path) -> None:
    for words in commands(volume, source):
        said = in_terminal(words, NO_COLOR="1")
        assert not COLOUR.search(said), words
    assert COLOUR.search(in_terminal(["slack", str(volume.store)]))
    (source / "more").write_bytes(b"x")
    assert COLOUR.search(in_terminal(["import", f"{source}/", str(volume.store)]))


def test_what_is_no_terminal_gets_neither_colour_nor_movement(volume: Volume, source: Path) -> None:
    for words in commands(volume, source):
        done = subprocess.run([str(MAPFS), *words], capture_output=True, check=True)
        assert b"\x1b" not in done.stdout + done.stderr, words
