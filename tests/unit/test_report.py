"""Reports: the walk over a tree, its sums, groups, columns and sections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import MapfsError, UsageError
from mapfs.report.columns import COLUMNS, chosen, default_columns, need_walk, written
from mapfs.report.groups import bound_of, bucket_of, label_of, suffix_of
from mapfs.report.sections import Section, entries, histogram, types, what_if
from mapfs.report.shades import SHADES, shade
from mapfs.report.tree import Keep, Node
from mapfs.report.usage import Usage
from tests.unit.report_source import PAGE, TreeOfDicts, Unreadable, file_of, report_on, sum_of

TREE = {
    "a": {"big": 1_000_000, "deep": {"small": 7, "other": 5120}},
    "b": {"one.py": 1, "two.PY": 4097, "none": 0},
    "c.txt": 4095,
}
SIZES = st.integers(0, 100_000)
TREES = st.recursive(
    SIZES, lambda below: st.dictionaries(st.sampled_from("abcdef"), below), max_leaves=40
).filter(lambda tree: isinstance(tree, dict))
FLAT = ("size", "slack", "name")


def names(section: Section) -> list[str]:
    return [row.name for row in section.rows]


# The walk


@given(TREES)
def test_every_directory_is_the_sum_of_what_is_in_it(tree):
    report, failed = report_on(tree)
    assert not failed
    assert report.root.usage == sum_of(tree)
    for node in report.root.walk():
        if node.is_directory:
            below = [child.usage for child in node.children]
            assert node.usage == sum_usages(below)


def sum_usages(usages: list[Usage]) -> Usage:
    total = Usage()
    for each in usages:
        total = total.plus(each)
    return total


@given(TREES, st.integers(1, 10))
def test_what_is_too_small_to_keep_is_counted_where_it_was(tree, most):
    report, _ = report_on(tree, Keep(nodes=most))
    kept = list(report.root.walk())
    assert len(kept) - 1 <= most
    assert report.root.usage == sum_of(tree)
    for node in kept:
        if node.is_directory:
            assert node.usage == sum_usages([node.rest, *(child.usage for child in node.children)])
    merged = [node for node in report_on(tree)[0].root.walk() if node.path not in paths(kept)]
    least = min((node.usage.allocated for node in kept), default=0)
    assert all(node.usage.allocated <= least for node in merged)


def paths(nodes: list[Node]) -> set[str]:
    return {node.path for node in nodes}


def test_levels_below_the_depth_are_added_up_and_not_kept():
    for depth, kept in ((0, 0), (1, 3), (2, 8), (3, 10)):
        report, _ = report_on(TREE, Keep(depth=depth))
        assert len(list(report.root.walk())) == kept + 1
        assert report.root.usage == sum_of(TREE)


def test_totals_save_the_walk_below_the_depth():
    source = TreeOfDicts(TREE)
    report, _ = report_on(source, Keep(depth=1), totals_suffice=True)
    assert source.entered == ["top"]
    assert report.root.usage == sum_of(TREE)
    source = TreeOfDicts(TREE)
    report, _ = report_on(source, Keep(depth=0), totals_suffice=True)
    assert source.entered == []
    assert report.root.usage == sum_of(TREE)


def test_a_file_with_several_names_counts_once_where_it_is_met_first():
    links = {"top/a/big": 1, "top/b/big": 1, "top/c": 2}
    source = TreeOfDicts({"a": {"big": 5000}, "b": {"big": 5000}, "c": 7}, links)
    report, _ = report_on(source)
    found = {node.path: node.usage.size for node in report.root.walk()}
    assert found == {"top": 5007, "top/a": 5000, "top/a/big": 5000, "top/b": 0, "top/c": 7}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MapfsError("bad")])
def test_what_cannot_be_read_is_told_and_the_walk_goes_on(error):
    report, failed = report_on({"a": Unreadable(error), "b": {"file": 7}})
    assert failed == ["top/a"]
    assert report.root.usage == file_of(7)


def test_one_file_that_cannot_be_looked_at_does_not_hide_the_others():
    error = OSError(5, "Input/output error")
    report, failed = report_on({"a": 7, "b": {"bad": error, "good": 5120}, "c": 1})
    assert failed == ["top/b/bad"]
    assert report.root.usage == sum_of({"a": 7, "good": 5120, "c": 1})


def test_a_tree_may_be_deeper_than_python_recurses():
    tree: dict = {"file": 7}
    for _ in range(3000):
        tree = {"below": tree}
    report, _ = report_on(tree)
    assert len(list(report.root.walk())) == 3002
    assert len(entries(report, FLAT, "slack", None).rows) == 3001


def test_the_path_may_be_a_file():
    report, _ = report_on(TreeOfDicts(5120))
    assert report.root.usage == file_of(5120)
    assert not report.root.is_directory


# Groups


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.py", ".py"),
        ("A.PY", ".py"),
        ("x.tar.gz", ".gz"),
        ("none", ""),
        (".bashrc", ""),
        ("..x", ""),
        ("ends.", ""),
        ("Mr. Smith", ""),
        ("a.thirteen-long", ""),
        ("libm.so.6", ".so"),
        ("ld-2.36.so.1.2", ".so"),
        ("file.1", ""),
        ("12345", ""),
        ("1.2.3", ""),
    ],
)
def test_suffixes(name, suffix):
    assert suffix_of(name) == suffix


@given(st.integers(0, 1 << 63))
def test_a_bucket_holds_sizes_above_the_bound_before_it_up_to_its_own(size):
    bucket = bucket_of(size)
    assert size <= bound_of(bucket)
    assert bucket == 0 or size > bound_of(bucket - 1)


def test_buckets_in_words():
    assert [label_of(each) for each in (0, 1, 2, 3, 6)] == [
        "empty",
        "up to 1K",
        "1K to 4K",
        "4K to 16K",
        "256K to 1M",
    ]


def test_histogram_has_no_gaps_and_counts_every_file():
    report, _ = report_on(TREE)
    section = histogram(report, None)
    assert names(section)[:4] == ["empty", "up to 1K", "1K to 4K", "4K to 16K"]
    assert [row.usage.files for row in section.rows] == [1, 2, 1, 2, 0, 0, 1]
    assert sum_usages([row.usage for row in section.rows]) == sum_of(TREE)
    assert [row.facts["up_to"] for row in section.rows[:3]] == [0, 1024, 4096]


def test_types_are_sorted_and_count_every_file():
    report, _ = report_on(TREE)
    section = types(report, None, "slack", None)
    assert names(section) == ["(none)", ".py", ".txt"]
    assert section.rows[1].usage == file_of(1).plus(file_of(4097))
    assert sum_usages([row.usage for row in section.rows]) == sum_of(TREE)
    assert names(types(report, None, "files", None)) == ["(none)", ".py", ".txt"]
    assert types(report, None, "slack", 1).hidden == 2


# Other page sizes


@given(st.dictionaries(st.text("abc", min_size=1), SIZES))
def test_what_if_is_what_each_file_would_waste(sizes):
    report, _ = report_on(dict(sizes))
    section = what_if(report, (4 << 10, 64 << 10, 2 << 20))
    assert names(section) == ["4K (now)", "4K", "64K", "2M"]
    for row in section.rows:
        page = row.facts["page_size"]
        assert row.usage.slack == sum(-size % page for size in sizes.values())
        assert row.usage.allocated == sum(size + -size % page for size in sizes.values())


# Columns and sections


def test_default_columns_are_columns():
    for kind in ("mount", "store", "directory"):
        assert chosen(default_columns(kind))[-1] == "name"
    assert "mapfs" in chosen(default_columns("directory"))


def test_chosen_columns():
    assert chosen(" Size, slack%,NAME") == ["size", "slack%", "name"]
    for wrong in ("size,nothing", "", ","):
        with pytest.raises(UsageError):
            chosen(wrong)
    assert not need_walk(["size", "at.64k", "files", "name"])
    assert need_walk(["size", "extents"])


def test_values_as_text():
    usage = file_of(5120)
    assert written(COLUMNS["slack"], usage, human=True) == "3.0K"
    assert written(COLUMNS["slack"], usage, human=False) == "3072"
    assert written(COLUMNS["slack%"], usage, human=False) == "37.50"
    assert written(COLUMNS["at.64k"], usage, human=False) == str(65536 - 5120)
    assert written(COLUMNS["slack%"], Usage(), human=True) == "0.0"
    unknown = usage._replace(extents=0, no_extents=1)
    assert written(COLUMNS["extents"], unknown, human=True) == "-"
    assert written(COLUMNS["extents"], unknown.plus(usage), human=True) == "1"


def test_entries_are_sorted_within_their_directory():
    report, _ = report_on(TREE, Keep(depth=2))
    by_slack = entries(report, FLAT, "slack", None)
    assert names(by_slack) == ["a", "deep", "big", "b", "one.py", "two.PY", "none", "c.txt"]
    assert [row.depth for row in by_slack.rows] == [1, 2, 2, 1, 2, 2, 2, 1]
    by_name = entries(report, FLAT, "name", None)
    assert names(by_name) == ["a", "big", "deep", "b", "none", "one.py", "two.PY", "c.txt"]
    assert by_name.total is not None
    assert by_name.total.usage == sum_of(TREE)
    few = entries(report, FLAT, "slack", 3)
    assert (names(few), few.hidden) == (["a", "deep", "big"], 5)


def test_what_is_not_known_comes_last():
    report, _ = report_on({"a": 5000, "b": 0})
    unknown, known = report.root.children
    unknown.usage = unknown.usage._replace(resident=0, no_resident=1)
    assert names(entries(report, FLAT, "resident", None)) == [known.name, unknown.name]


def test_every_share_has_a_colour():
    assert SHADES[-1][0] == 100
    assert [shade(share) for share in (0, 0.0199, 0.02, 0.99, 1)] == [
        SHADES[0][1],
        SHADES[0][1],
        SHADES[1][1],
        SHADES[-1][1],
        SHADES[-1][1],
    ]
    assert Usage(allocated=PAGE, slack=1024).slack_share == 0.25
