"""The forms of a report: tables, JSON, lines for programs, and the page."""

import io
import json
import os
import re
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mapfs.errors import UsageError
from mapfs.names import field_of, printable
from mapfs.report import html
from mapfs.report.html import page, write_page
from mapfs.report.plain import as_json, raw_lines
from mapfs.report.report import Report
from mapfs.report.sections import entries, histogram, what_if
from mapfs.report.table import print_section, verdict
from mapfs.report.tree import Keep
from tests.unit.report_source import TreeOfDicts, file_of, report_on, sum_of

TREE = {"dir": {"one": 5120, "two": 7}, "file": 4096}
COLUMNS = ("size", "slack", "slack%", "extents", "name")
HOSTILE = [
    "</script><script>document.title='x'</script>",
    "<img src=https://example.org/x onerror=alert(1)>",
    "${data} $script %s {0}",
    os.fsdecode(b"not utf-8 \xff\xfe"),
    "new\nline\ttab\\backslash",
    "\u202eright to left\u2028",
    "[bold]markup[/bold]",
    "\x1b[31mred\x07",
]


@pytest.fixture
def report() -> Report:
    return report_on(TREE, Keep(depth=2))[0]


# Names


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_names_are_shown_in_one_line_of_text(name):
    assert printable(os.fsdecode(name)).isprintable()
    printable(os.fsdecode(name)).encode()


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_fields_can_be_read_back(name):
    text = field_of(os.fsdecode(name))
    assert text.isprintable()
    back = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())
    assert back == name


def test_names_that_are_shown_as_they_are():
    assert printable("naïve ünd 日本.py") == "naïve ünd 日本.py"
    assert printable(os.fsdecode(b"a\xff\n")) == "a\\xff\\n"
    assert field_of(os.fsdecode(b"a\xff\t\\")) == "a\\xff\\x09\\x5c"


# For programs


def test_raw_lines_have_whole_paths_and_exact_numbers(report):
    section = entries(report, COLUMNS, "slack", None)
    assert list(raw_lines(section, human=False)) == [
        "5127\t7161\t58.28\t2\ttop/dir",
        "7\t4089\t99.83\t1\ttop/dir/two",
        "5120\t3072\t37.50\t1\ttop/dir/one",
        "4096\t0\t0.00\t1\ttop/file",
        "9223\t7161\t43.71\t3\ttop",
    ]
    assert next(raw_lines(section, human=True)).startswith("5.0K\t7.0K\t58.3\t")
    assert [line.split("\t")[-1] for line in raw_lines(what_if(report, (65536,)), human=False)] == [
        "4096",
        "65536",
    ]


def test_json_has_the_numbers_of_the_report(report):
    sections = [entries(report, COLUMNS, "slack", None), histogram(report, None)]
    found = json.loads(as_json(report, sections))
    assert found["kind"] == "mount"
    assert found["page_size"] == 4096
    assert found["total"]["slack"] == sum_of(TREE).slack
    assert found["entries"][0] == {
        "path": "top/dir",
        "type": "directory",
        "size": 5127,
        "slack": 7161,
        "slack%": 58.28,
        "extents": 2,
    }
    assert [bucket["files"] for bucket in found["histogram"]] == [1, 1, 1]


def test_what_is_not_known_is_null(report):
    report.root.usage = report.root.usage._replace(extents=0, no_extents=3)
    found = json.loads(as_json(report, [entries(report, COLUMNS, "slack", None)]))
    assert found["total"]["extents"] is None


# For people


def printed(report: Report, *, terminal: bool, width: int = 100) -> str:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=width, highlight=False)
    print_section(console, entries(report, COLUMNS, "slack", None), human=True)
    return shown.getvalue()


def test_a_table_in_a_file_is_plain_text(report):
    assert printed(report, terminal=False, width=1000).splitlines() == [
        "Size  Slack  Slack %  Extents  Name",
        "5.0K   7.0K     58.3        2  dir/",
        "   7   4.0K     99.8        1    two",
        "5.0K   3.0K     37.5        1    one",
        "4.0K      0      0.0        1  file",
        "9.0K   7.0K     43.7        3  top",
    ]


def test_a_table_on_a_terminal_has_bars_and_fits(report):
    text = printed(report, terminal=True, width=60)
    assert "█" in text
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(len(line) for line in plain.splitlines()) <= 60


def test_numbers_keep_their_width_and_long_names_do_not():
    report, _ = report_on({"x" * 200: 5120})
    first, row, total = re.sub(
        r"\x1b\[[0-9;]*m", "", printed(report, terminal=True, width=70)
    ).split("\n")[:3]
    assert first.split() == ["Size", "Slack", "Slack", "%", "Extents", "Name"]
    assert row.startswith("5.0K   3.0K     37.5        1")
    assert row.rstrip().endswith("xx…")
    assert total.rstrip().endswith("top")


def test_names_cannot_write_to_the_terminal():
    shown = printed(report_on(dict.fromkeys(HOSTILE, 7))[0], terminal=False, width=1000)
    assert len(shown.splitlines()) == len(HOSTILE) + 2
    assert shown.replace("\n", "").isprintable()
    assert "[bold]markup[/bold]" in shown


def test_the_verdict_has_the_numbers(report):
    assert "7.0K of 16.0K allocated (43.7 %) is slack" in verdict(report)
    other = TreeOfDicts(TREE)
    other.filesystem = "ext4"
    assert verdict(report_on(other)[0]).startswith("On ext4, 7.0K of 16.0K")


# The page


def data_in(text: str) -> dict:
    (found,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL
    )
    loaded: dict = json.loads(found)
    return loaded


def test_the_page_has_every_node_with_its_parent(report):
    nodes = data_in(page(report))["nodes"]
    named = {node[1]: node for node in nodes}
    assert set(named) == {"top", "dir", "one", "two", "file"}
    assert nodes[named["one"][0]][1] == "dir"
    assert nodes[0][0] == -1
    one = file_of(5120)
    assert named["one"][3:10] == [1, 5120, 5120, one.allocated, one.slack, 1, one.resident]
    assert named["one"][10:] == [one.at_4k, one.at_16k, one.at_64k, one.at_2m]


def test_small_files_are_one_node_in_the_page():
    sizes = {str(number): 4096 for number in range(50)} | {"big": 1 << 20}
    nodes = data_in(page(report_on(sizes, Keep(nodes=5))[0]))["nodes"]
    assert sorted(node[1] for node in nodes) == ["50 smaller files", "big", "top"]
    assert sum(node[5] for node in nodes[1:]) == nodes[0][5] == (1 << 20) + 50 * 4096


def test_names_in_the_page_are_data_only():
    text = page(report_on(dict.fromkeys(HOSTILE, 7))[0])
    assert re.findall(r"<(?:/?script|img)[^>]*>", text) == [
        '<script type="application/json" id="data">',
        "</script>",
        "<script>",
        "</script>",
    ]
    assert {node[1] for node in data_in(text)["nodes"]} == {"top", *map(printable, HOSTILE)}
    text.encode()


def test_a_hostile_root_is_escaped():
    report, _ = report_on({"file": 7})
    report.root.name = HOSTILE[0]
    assert "<title>&lt;/script&gt;" in page(report)


def test_the_page_asks_nobody_for_anything(report):
    text = page(report)
    policy = re.search(r'content="(default-src[^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[\w/:.]+", text) == []
    known = {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) == known


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_the_page_is_written_in_one_step(report, tmp_path, umask):
    target = tmp_path / "page.html"
    target.write_text("old")
    opened = target.open()
    write_page(report, target)
    assert opened.read() == "old"
    assert target.read_text() == page(report)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["page.html"]
    opened.close()


def test_a_page_that_cannot_be_written_leaves_what_was_there(report, tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    target.write_text("old")

    def interrupted(_report):
        raise KeyboardInterrupt

    monkeypatch.setattr(html, "page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_page(report, target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_page_does_not_replace_what_is_no_file(report, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(UsageError):
            write_page(report, path)
    (tmp_path / "link").symlink_to("target")
    write_page(report, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == page(report)
