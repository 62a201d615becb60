"""The command `mapfs slack` on an ordinary directory: options, errors, terminals, interrupts."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mapfs.cli import mapfs, run


class Said(NamedTuple):
    status: int
    out: str
    err: str


Slack = Callable[..., Said]


@pytest.fixture
def slack(capsys: pytest.CaptureFixture[str]) -> Slack:
    """Runs `mapfs slack` in this process."""

    def call(*words: str | Path) -> Said:
        status = run(mapfs, ["slack", *map(str, words)])
        return Said(status, *capsys.readouterr())

    return call


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name, sizes in {"a": (5000, 7), "b": (100_000,)}.items():
        (top / name).mkdir(parents=True)
        for size in sizes:
            (top / name / f"{size}.bin").write_bytes(b"x" * size)
    return top


def test_a_table_of_the_current_directory(slack: Slack, tree: Path, monkeypatch) -> None:
    monkeypatch.chdir(tree)
    said = slack("-o", "size,mapfs,files,name", "--sort", "mapfs")
    assert said.out.splitlines()[:4] == [
        "  Size  In mapfs  Files  Name",
        "  4.9K      7.1K      2  a/",
        " 97.7K      2.3K      1  b/",
        "102.5K      9.5K      3  .",
    ]
    assert "is slack. In mapfs, with pages of 4K, it would be 9.5K" in said.out
    assert slack("-b", "-s", "-o", "size,name").out.splitlines()[1] == "105007  ."


def test_depth_and_top(slack: Slack, tree: Path) -> None:
    def names(*words: str) -> list[str]:
        lines = slack(tree, "--raw", "-o", "name", "--sort", "name", *words).out.splitlines()
        return [os.path.relpath(line, tree) for line in lines]

    assert names("-d", "2") == ["a", "a/5000.bin", "a/7.bin", "b", "b/100000.bin", "."]
    assert names("-d", "0") == names("-s") == ["."]
    assert names("-n", "1") == ["a", "."]
    assert "… 1 more" in slack(tree, "-n", "1").out


def test_sizes_for_scripts_are_bytes_unless_asked(slack: Slack, tree: Path) -> None:
    assert slack(tree, "--raw", "-s", "-o", "size").out == "105007\n"
    assert slack(tree, "--raw", "-s", "-o", "size", "-h").out == "102.5K\n"
    assert json.loads(slack(tree, "--json", "-s").out)["total"]["size"] == 105_007


def test_tables_of_groups(slack: Slack, tree: Path) -> None:
    out = slack(tree, "--by-type", "--histogram", "--what-if", "64k").out
    titles = [line.split("  ")[-1] for line in out.splitlines() if "Slack %" in line]
    assert titles == ["Type", "File size", "Page size"]
    assert re.search(r"^ +3 .*\.bin$", out, re.MULTILINE)
    assert re.search(r"^ +1 .*64K to 256K$", out, re.MULTILINE)
    assert slack(tree, "--raw", "--what-if", "64k").out.splitlines()[1].endswith("\t65536")


@pytest.mark.parametrize(
    "words",
    [
        ["-s", "-d", "1"],
        ["-b", "-h"],
        ["--json", "--raw"],
        ["--raw", "--by-type", "--histogram"],
        ["-o", "size,nothing"],
        ["-o", ","],
        ["--sort", "nothing"],
        ["--what-if", "5k"],
        ["--html", "."],
        ["--html", "/no/such/directory/page.html"],
        ["--html", "page.html", "--by-type"],
        ["--html", "page.html", "--depth", "0"],
        ["--html", "page.html", "-s"],
    ],
)
def test_words_that_make_no_sense(slack: Slack, tree: Path, words: list[str]) -> None:
    said = slack(tree, *words)
    assert said.status == 2
    assert re.fullmatch(r"mapfs: .+\n", said.err)
    assert said.out == ""


def test_a_page_that_cannot_be_made_is_named_and_not_what_would_become_it(
    slack: Slack, tree: Path
) -> None:
    said = slack(tree, "--html", "/proc/page.html")
    assert said == (1, "", "mapfs: /proc/page.html: No such file or directory\n")


def test_the_table_and_the_sentence_below_round_alike(slack: Slack, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 39_504)  # 3.555 % of ten pages of 4 KiB
    lines = slack(tmp_path, "-s", "-o", "slack%").out.splitlines()
    assert f"({lines[1].strip()} %)" in lines[-1]
    assert slack(tmp_path, "-s", "--raw", "-o", "slack%").out == "3.55\n"


def test_help_has_an_example_and_leaves_h_to_human_readable(slack: Slack, tree: Path) -> None:
    said = slack("--help")
    assert said.status == 0
    assert "mapfs slack mnt --html slack.html" in said.out
    assert slack("-h", tree, "-s", "-o", "size").out.startswith("  Size\n102.5K\n")


def test_a_path_that_is_not_there(slack: Slack, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    assert slack(path) == (1, "", f"mapfs: {path}: No such file or directory\n")


def scandir_that(act: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        act(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_what_may_not_be_read_is_named_and_left_out(slack: Slack, tree: Path, monkeypatch) -> None:
    def refuse(path: str) -> None:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied", path)

    scandir_that(refuse, monkeypatch)
    said = slack(tree, "--raw", "-o", "size,name")
    assert said.status == 1
    assert said.err == f"mapfs: {tree}/a: Permission denied\n"
    assert said.out.splitlines()[-1] == f"100000\t{tree}"


def test_an_interrupt_ends_it_quietly(
    slack: Slack, tree: Path, tmp_path: Path, monkeypatch
) -> None:
    def interrupt(path: str) -> None:
        if path.endswith("/b"):
            raise KeyboardInterrupt

    scandir_that(interrupt, monkeypatch)
    said = slack(tree, "--html", tmp_path / "page.html")
    assert (said.status, said.out) == (130, "")
    assert os.listdir(tmp_path) == ["tree"]


def test_the_page_is_written(slack: Slack, tree: Path, tmp_path: Path) -> None:
    assert slack(tree, "--html", tmp_path / "page.html") == (0, "", "")
    assert "5000.bin" in (tmp_path / "page.html").read_text()


# On a terminal


@pytest.fixture
def on_terminal(tree: Path) -> Callable[..., str]:
    """Runs the command on a terminal of 24 lines; returns all that it prints."""

    def call(*words: str, **environment: str) -> str:
        leader, follower = pty.openpty()
        size = {"COLUMNS": "100", "LINES": "24", "TERM": "xterm-256color"}
        unset = ("NO_COLOR", "FORCE_COLOR")
        inherited = {key: value for key, value in os.environ.items() if key not in unset}
        command = [sys.executable, "-m", "mapfs", "slack", str(tree), *words]
        with subprocess.Popen(
            command, stdout=follower, stderr=follower, env=inherited | size | environment
        ) as started:
            os.close(follower)
            shown = b"".join(iter(lambda: _read(leader), b""))
            os.close(leader)
            assert started.wait() == 0
        return shown.decode()

    return call


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # EIO: nobody has the other end any more
        return b""


def test_a_terminal_gets_bars_and_what_fits(on_terminal: Callable[..., str], tree: Path) -> None:
    for number in range(60):
        (tree / f"file{number:02}").write_bytes(b"x" * 100 * number)
    shown = on_terminal()
    assert "█" in shown
    assert re.search(r"\x1b\[[0-9;]*3[48]", shown)
    assert re.search(r"… \d+ more", shown)
    table = shown.split("\x1b[2K")[-1]  # behind the progress, which is wiped out
    assert len(table.splitlines()) <= 24


def test_without_colours_where_they_are_not_wanted(on_terminal: Callable[..., str]) -> None:
    shown = on_terminal("-n", "1", NO_COLOR="1")
    assert "█" in shown
    assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", shown)
