"""man(1) shows docs/man as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hatch_build import as_roff
from mapfs import __version__

SOURCES = sorted((Path(__file__).parents[2] / "docs/man").glob("*.md"))
# Images of Ubuntu have, in place of man, a script that says that there are no manual pages.
MAN = shutil.which("man.REAL") or "man"

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def roff(source: Path) -> str:
    return as_roff(source.read_text(), __version__)


def shown(page: str) -> str:
    """What a terminal shows, without bold and underlining. Fails if groff finds a fault."""
    command = ["groff", "-man", "-ww", "-Tutf8", "-P-c", "-P-bou", "-rLL=200n"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def words(text: str) -> str:
    return " ".join(text.split())


@each_source
def test_page_is_installed_where_man_looks(source):
    name = source.name.removesuffix(".md").rpartition(".")[0]
    environment = {**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    environment.pop("MANPATH", None)
    command = [MAN, "--where", name]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    page = Path(found.stdout.strip())
    assert page == Path(sys.prefix, "share/man", f"man{page.suffix[1:]}", source.stem)
    assert page.read_text() == roff(source), "made of another docs/man: run scripts/setup"


@each_source
def test_page_can_be_searched(source, tmp_path):
    page = tmp_path / source.stem
    page.write_text(roff(source))
    found = subprocess.run(["lexgrog", page], stdout=subprocess.PIPE, text=True, check=True).stdout
    heading, description = source.read_text().split("## NAME\n\n")[1].splitlines()[0].split(" - ")
    assert f'"{heading} - {description}"' in found


@each_source
def test_page_shows_every_option_and_example(source):
    text = shown(roff(source))
    for item in re.findall(r"^- (`--?\w.*?): ", source.read_text(), re.MULTILINE):
        term = re.escape(re.sub("[`*]", "", item))
        assert re.search(rf"^ +{term}(\n| +\S)", text, re.MULTILINE), item
    for block in re.findall(r"^```\w+\n(.*?)^```", source.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert re.search(rf"^ +{re.escape(line)}$", text, re.MULTILINE), line


@each_source
def test_every_hyphen_can_be_copied(source):
    assert not re.search(r"(?<!\\)-", roff(source))


def page_of(markdown: str) -> str:
    return shown(as_roff(f"# mapfs-x(1)\n\n## DESCRIPTION\n\n{markdown}", "1"))


@pytest.mark.parametrize(
    "line",
    [
        ".so /etc/passwd",
        "'s a line that roff would take for a request",
        r"bytes as in \x09, and \n \fB \& \\",
        "--json -r ~/x ^y `z` \"quoted\" 'logs/*'",
    ],
)
def test_what_roff_would_take_for_its_own_is_shown(line):
    assert f" {line}\n" in page_of(f"```sh\n{line}\n```\n")
    if "`" not in line:
        assert words(line) in words(page_of(f"word `{line}`\n"))
    assert f" {line} " in words(page_of(re.sub(r"([\\`*])", r"\\\1", f"A line.\n{line}\n"))) + " "


def test_lists_and_tables():
    shown_list = words(page_of("- `-d`, `--depth` *N*: how deep: 1 or more\n- 0: *none*\n"))
    assert "-d, --depth N how deep: 1 or more 0 none" in shown_list
    assert "• a file: this • another" in words(page_of("- a file: this\n- another\n"))
    table = "| metric | labels | meaning |\n|---|---|---|\n| `a_b` | `c` | d |\n| `e` | | f |\n"
    assert "a_b, labels: c d e f" in words(page_of(table))


def test_links_say_where_they_lead():
    text = page_of("[mapfs-df(1)](mapfs-df.1.md), [a](../control.md#events), [b](../../README.md)")
    assert "mapfs-df(1), a (docs/control.md), b (README.md)" in text
    with pytest.raises(ValueError, match="not the name and section"):
        page_of("[`df`](mapfs-df.1.md)")
