"""`mapfs slack` says the same of a mount, of its store at rest, and of the files elsewhere."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.mount.tree import make_tree
from tests.mount.volume import Volume, mapfs, run

pytestmark = pytest.mark.mount

# Exact on every filesystem; where files lie, and what of them is in memory, is not.
EXACT = "size,stored,mapfs,at.4k,at.16k,at.64k,at.2m,files,name"
ALL = "size,stored,allocated,slack,slack%,at.4k,at.16k,at.64k,at.2m,files,extents,name"


def report(*words: str | Path | int) -> dict[str, Any]:
    """What `mapfs slack --json` says."""
    found: dict[str, Any] = json.loads(mapfs("slack", "--json", *words).stdout)
    return found


def by_path(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its entries by their path below the top."""
    top = found["path"]
    return {
        os.path.relpath(each["path"], top): {
            key: value for key, value in each.items() if key != "path"
        }
        for each in [*found["entries"], found["total"]]
    }


@pytest.fixture
def filled(volume: Volume, tmp_path: Path) -> Volume:
    """A mounted store with the files that are also in `tree`."""
    make_tree(tmp_path / "tree")
    run("cp", "-a", f"{tmp_path / 'tree'}/.", volume.mount())
    os.sync()
    return volume


def test_a_mount_its_store_and_the_files_elsewhere_say_the_same(
    filled: Volume, tmp_path: Path
) -> None:
    on_mount = report(filled.mnt, "-d", 9, "-o", ALL)
    assert report(filled.store, "-d", 9, "-o", ALL)["kind"] == "mount"
    exact_on_mount = report(filled.mnt, "-d", 9, "-o", EXACT)
    attributes = json.loads(os.getxattr(filled.mnt, "user.mapfs.dir.json"))
    fs = json.loads(os.getxattr(filled.mnt, "user.mapfs.fs.json"))
    filled.umount()
    at_rest = report(filled.store, "-d", 9, "-o", ALL)
    elsewhere = report(tmp_path / "tree", "-d", 9, "-o", EXACT)

    assert (on_mount["kind"], at_rest["kind"]) == ("mount", "store")
    assert elsewhere["kind"] == "directory"
    assert by_path(on_mount) == by_path(at_rest)
    assert len(by_path(on_mount)) > 200
    assert by_path(elsewhere) == by_path(exact_on_mount)

    total = on_mount["total"]
    for key, name in (("size", "rbytes"), ("allocated", "rallocated"), ("slack", "rslack")):
        assert total[key] == attributes[name], key
    for label in ("4k", "16k", "64k", "2m"):
        assert total[f"at.{label}"] == attributes[f"rslack.at.{label}"]
    assert total["files"] == attributes["rfiles"]
    assert total["slack"] == fs["slack_bytes"]
    assert total["allocated"] == fs["allocated_bytes"]


def test_every_form_has_the_numbers_of_the_attributes(filled: Volume, tmp_path: Path) -> None:
    columns = "slack,files,at.64k,allocated,name"
    total = report(filled.mnt, "-s", "-o", columns)["total"]
    quick = report(filled.mnt, "-o", columns)  # from totals
    walked = report(filled.mnt, "-o", f"extents,{columns}")
    assert quick["total"]["slack"] == walked["total"]["slack"] == total["slack"]
    assert quick["total"]["files"] == walked["total"]["files"] == total["files"]

    found = report(filled.mnt, "--by-type", "--histogram", "--what-if", "4k,64k")
    assert "entries" not in found
    for group in ("types", "histogram"):
        for key in ("slack", "files", "allocated"):
            assert sum(each[key] for each in found[group]) == total[key]
    sizes = {each["page_size"]: each["slack"] for each in found["what_if"]}
    assert sizes == {4096: total["slack"], 65536: total["at.64k"]}

    page = tmp_path / "page.html"
    assert mapfs("slack", filled.mnt, "--html", page).stdout == ""
    stored = total["allocated"] - total["slack"]
    assert f",{stored},{total['allocated']},{total['slack']}," in page.read_text()


def test_raw_output_is_for_scripts(mnt: Path) -> None:
    (mnt / os.fsdecode(b"tab\there \xff")).write_bytes(b"x" * 5120)
    (mnt / "dir").mkdir()
    (mnt / "dir" / "file").write_bytes(b"x" * 7)
    raw = ("--raw", "-o", "slack,name", "--sort", "name")
    done = mapfs("slack", mnt, "-d", 2, *raw)
    assert done.stdout.splitlines() == [
        f"4089\t{mnt}/dir",
        f"4089\t{mnt}/dir/file",
        f"3072\t{mnt}/tab\\x09here \\xff",
        f"7161\t{mnt}",
    ]
    assert mapfs("slack", *raw, cwd=mnt / "dir").stdout == "4089\t./file\n4089\t.\n"
    file = mnt / "dir" / "file"
    assert mapfs("slack", *raw, file).stdout == f"4089\t{file}\n"


def test_where_something_else_is_mounted(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"x" * 5120)
    both = by_path(report(mnt.parent, "-d", 2, "-o", "slack,extents,name"))
    assert both[f"{mnt.name}/file"] == {"type": "file", "slack": 3072, "extents": 1}
    alone = by_path(report(mnt.parent, "-d", 2, "-x"))
    assert mnt.name not in alone
    assert "data.mapfs" in alone
