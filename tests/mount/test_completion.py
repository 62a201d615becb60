"""What the tab key offers, in real shells on a terminal, with the scripts as they are installed."""

import contextlib
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.volume import MAPFS, Volume, run

pytestmark = pytest.mark.mount

SHARE = Path(sys.prefix, "share")
INSTALLED = {
    "bash": SHARE / "bash-completion/completions/mapfs",
    "zsh": SHARE / "zsh/site-functions/_mapfs",
    "fish": SHARE / "fish/vendor_completions.d/mapfs.fish",
}


@dataclass(frozen=True)
class Kind:
    """How a shell is started without what a user has set, and told to be tested.

    Ctrl-T prints what stands on the command line, and clears it.
    """

    command: tuple[str, ...]
    setting_up: str


_ZSH_SHOWS = """
        show() { zle -I; print -r -- "<LINE=$BUFFER>"; BUFFER= }
        zle -N show; bindkey '^T' show"""
KINDS = {
    "bash": Kind(
        ("bash", "--norc", "--noprofile", "-i"),
        f"""PS1=
        source {INSTALLED["bash"]}
        bind -x '"\\C-t": printf "\\n<LINE=%s>\\n" "$READLINE_LINE"; READLINE_LINE='
        """,
    ),
    "zsh": Kind(
        ("zsh", "-f", "-i"),
        f"""PS1=
        fpath=({INSTALLED["zsh"].parent} $fpath)
        autoload -U compinit; compinit -u -D
        {_ZSH_SHOWS}
        """,
    ),
    "zsh, sourced": Kind(
        ("zsh", "-f", "-i"),
        f"""PS1=
        autoload -U compinit; compinit -u -D
        eval "$(cat {INSTALLED["zsh"]})"
        {_ZSH_SHOWS}
        """,
    ),
    # It finds the script by XDG_DATA_DIRS.
    "fish": Kind(
        ("fish", "-i"),
        """function fish_prompt; end
        set -g fish_autosuggestion_enabled 0
        function show
            printf '\\n<LINE=%s>\\n' (commandline)
            commandline ''
        end
        bind \\ct show
        """,
    ),
}


class Shell:
    """A shell on a terminal, with the completion loaded."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def line_after(self, keys: str) -> str:
        """What stands on the command line when these keys are pressed."""
        os.write(self._leader, f"{keys}\x14".encode())
        return self.wait_for("<LINE=").removesuffix(">")

    def wait_for(self, marker: str) -> str:
        """What is printed behind a marker, up to the end of its line."""
        said = ""
        while marker not in said or "\n" not in said.rpartition(marker)[2]:
            said += os.read(self._leader, 4096).decode()
        return said.rpartition(marker)[2].splitlines()[0]


@contextlib.contextmanager
def started(kind: Kind, directory: Path) -> Iterator[Shell]:
    """A shell that is ready, in a directory."""
    # Without it fish begins to read every manual page of the machine, and goes on when it is left.
    (directory / ".local/share/fish/generated_completions").mkdir(parents=True, exist_ok=True)
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 200))
    environment = {
        "PATH": f"{MAPFS.parent}:{os.environ['PATH']}",
        "HOME": str(directory),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "XDG_DATA_DIRS": f"{SHARE}:/usr/share",
    }
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *kind.command],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=directory,
        env=environment,
    )
    os.close(follower)
    shell = Shell(leader)
    try:
        os.write(leader, f"{kind.setting_up}\nprintf '<RE%s>\\n' ADY\n".encode())
        shell.wait_for("<READY")
        yield shell
    finally:
        os.close(leader)
        process.wait(timeout=30)


@pytest.fixture(params=KINDS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """Each shell, in the directory of the test's store."""
    with started(KINDS[request.param], tmp_path) as begun:
        yield begun


@pytest.mark.parametrize("name", INSTALLED)
def test_mapfs_prints_the_script_that_is_installed(name: str) -> None:
    printed = run(MAPFS, env={**os.environ, "_MAPFS_COMPLETE": f"{name}_source"}).stdout
    assert printed.rstrip() == INSTALLED[name].read_text().rstrip()


def test_verbs_options_stores_and_mounts_are_completed(shell: Shell, volume: Volume) -> None:
    (volume.store.parent / "data.txt").touch()
    (volume.store.parent / "source").mkdir()
    (volume.store.parent / "with blank.mapfs").mkdir()
    assert shell.line_after("mapfs um\t") == "mapfs umount "
    assert shell.line_after("mapfs mkfs --page\t") == "mapfs mkfs --page-size "
    assert shell.line_after("mapfs fsck da\t") == "mapfs fsck data.mapfs "
    assert shell.line_after("mapfs fsck wi\t") == r"mapfs fsck with\ blank.mapfs "
    assert shell.line_after("mapfs import so\t") == "mapfs import source/"
    assert shell.line_after("mapfs export data.m\t") == "mapfs export data.mapfs "
    assert shell.line_after("mapfs mount data.m\t") == "mapfs mount data.mapfs "
    assert shell.line_after("mapfs mount data.mapfs data-m\t") == "mapfs mount data.mapfs data-mnt/"
    volume.mount()
    assert shell.line_after("mapfs umount da\t") == "mapfs umount data-mnt "
    assert shell.line_after(f"mapfs df {volume.mnt.parent}/data-\t") == f"mapfs df {volume.mnt} "


def test_words_are_completed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "random.bin").touch()
    assert shell.line_after("mapfs advise ran\t") == "mapfs advise random "
    assert shell.line_after("mapfs advise random ran\t") == "mapfs advise random random.bin "
    assert shell.line_after("mapfs mkfs --page-size 1\t") == "mapfs mkfs --page-size 16k "
    assert shell.line_after("mapfs slack --sort res\t") == "mapfs slack --sort resident "
    assert shell.line_after("mapfs slack -o size,sla\t") == "mapfs slack -o size,slack"
    assert shell.line_after("mapfs slack --what-if 4k,6\t") == "mapfs slack --what-if 4k,64k "
    assert shell.line_after("mapfs trace --op read,fal\t") == "mapfs trace --op read,fallocate "
    assert shell.line_after("mapfs bench claims --only co\t") == "mapfs bench claims --only copy "
