"""What the tab key offers, in a real shell."""

import contextlib
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.volume import MAPFS, Volume, run

pytestmark = pytest.mark.mount

COMPLETIONS = Path(__file__).parents[2] / "completions"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_those_that_click_makes(shell: str) -> None:
    made = run(MAPFS, env={**os.environ, "_MAPFS_COMPLETE": f"{shell}_source"}).stdout
    assert made.strip() == (COMPLETIONS / f"mapfs.{shell}").read_text().strip()


class Shell:
    """bash on a terminal, with the completion loaded."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def line_after(self, keys: str) -> str:
        """What stands on the command line when these keys are pressed."""
        # Ctrl-T prints the line, Ctrl-U clears it.
        os.write(self._leader, f"{keys}\x14\x15".encode())
        return self.wait_for("<LINE=").removesuffix(">")

    def wait_for(self, marker: str) -> str:
        """What is printed behind a marker, up to the end of its line."""
        said = ""
        while marker not in said or "\n" not in said.rpartition(marker)[2]:
            said += os.read(self._leader, 4096).decode()
        return said.rpartition(marker)[2].splitlines()[0]


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Shell]:
    """A shell in the directory of the test's store."""
    leader, follower = pty.openpty()
    environment = {
        "PATH": f"{MAPFS.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "PS1": "",
        "LC_ALL": "C.UTF-8",
    }
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    os.close(follower)
    shell = Shell(leader)
    os.write(
        leader,
        f"""source {COMPLETIONS}/mapfs.bash
        bind -x '"\\C-t": printf "\\n<LINE=%s>\\n" "$READLINE_LINE"'
        printf '<RE%s>\\n' ADY\n""".encode(),
    )
    shell.wait_for("<READY")
    yield shell
    with contextlib.suppress(OSError):
        os.close(leader)
    process.wait(timeout=30)


def test_verbs_options_stores_and_mounts_are_completed(bash: Shell, volume: Volume) -> None:
    (volume.store.parent / "data.txt").touch()
    (volume.store.parent / "source").mkdir()
    assert bash.line_after("mapfs um\t") == "mapfs umount "
    assert bash.line_after("mapfs mkfs --page\t") == "mapfs mkfs --page-size "
    assert bash.line_after("mapfs fsck da\t") == "mapfs fsck data.mapfs "
    assert bash.line_after("mapfs import so\t") == "mapfs import source/"
    assert bash.line_after("mapfs export data.m\t") == "mapfs export data.mapfs "
    assert bash.line_after("mapfs mount data.m\t") == "mapfs mount data.mapfs "
    assert bash.line_after("mapfs mount data.mapfs data-m\t") == "mapfs mount data.mapfs data-mnt/"
    volume.mount()
    assert bash.line_after("mapfs umount da\t") == "mapfs umount data-mnt "
    assert bash.line_after(f"mapfs df {volume.mnt.parent}/data-\t") == f"mapfs df {volume.mnt} "
