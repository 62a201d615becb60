"""`mapfs bench`: a run through the command, on mounts of its own."""

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapfs.claims import thrashing
from mapfs.claims.catalogue import CLAIMS
from mapfs.claims.claim import CannotMeasureError
from mapfs.claims.ground import Ground, Settings
from mapfs.cli import mapfs as group
from mapfs.cli import run
from tests.mount.volume import MAPFS, Volume, mapfs, process, refusal, wait_until

pytestmark = pytest.mark.mount


def leftovers(directory: Path) -> list[Path]:
    return list(directory.glob(".mapfs-bench-*"))


def test_claims_are_measured_and_the_store_is_not_touched(volume: Volume, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in volume.store.iterdir() if path.name != "lock"}
    page, picture = tmp_path / "page.html", tmp_path / "picture.svg"
    done = mapfs(
        *("bench", "claims", volume.store, "--only", "calls,slack", "--size", "16M"),
        *("--repeat", 5, "--json", "--html", page, "--svg", picture),
    )
    said = json.loads(done.stdout)
    assert said["machine"]["repetitions"] == "5"
    calls, slack = said["claims"]
    assert slack["verdict"] == "holds"
    counts = Counter(each["file"] for each in calls["findings"])
    assert counts == {"plain file": 1, "file on a mount": 1, "direct mapping": 1}
    for finding in calls["findings"]:
        assert finding["verdict"] == "holds", finding
        assert {figure["count"] for figure in finding["figures"]} == {5}
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert picture.read_text().startswith("<svg")
    assert {path: path.read_bytes() for path in before} == before
    assert not leftovers(tmp_path)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Two repetitions with small files; the store is checked at the end."""
    directory = tmp_path / "ground"
    directory.mkdir()
    made = Ground(directory, Settings(8 << 20, 2, 4096))
    try:
        yield made
        made.unmount()
        assert "clean" in mapfs("fsck", directory / "mounted" / "data.mapfs").stdout
    finally:
        made.close()


def test_every_claim_can_be_measured_on_a_mount(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrashing, "_SECONDS", 0.02)
    for claim in CLAIMS.values():
        for label in claim.subjects[1:]:
            try:
                found = claim.measure(ground, ground.subject(label))
            except CannotMeasureError as error:
                assert re.search("cgroup|cannot be dropped", str(error)), (claim.name, label)
                continue
            assert found.subject == label
            assert found.figures, (claim.name, label)
            assert (found.factor is None) == (claim.factor == "")


def test_claims_are_removed_by_ctrl_c(tmp_path: Path) -> None:
    words: list[str | Path] = [MAPFS, "bench", "claims", tmp_path / "data.mapfs"]
    words += ["--only", "calls", "--size", "16M", "--repeat", "500"]
    with process(words, stderr=subprocess.PIPE, start_new_session=True) as run:
        wait_until(
            lambda: any((each / "mounted" / "mnt").is_mount() for each in leftovers(tmp_path)),
            "the mount of the run",
        )
        os.killpg(run.pid, signal.SIGINT)  # as the terminal does it
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert not said.strip()
    assert not leftovers(tmp_path)


def test_claims_are_listed_without_a_store() -> None:
    listed = mapfs("bench", "claims", "--list").stdout.splitlines()
    assert len(listed) == 9
    assert listed[0].startswith("copy")


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "data.mapfs"
    (tmp_path / "file").touch()
    for words in (
        ("--only", "copy,nonsense"),
        ("--size", "1M"),
        ("--repeat", "2"),
        ("--html", tmp_path / "missing" / "page.html"),
    ):
        arguments = ["bench", "claims", str(store), *map(str, words)]
        assert run(group, arguments) == 2
    assert "no such directory" in refusal(mapfs("bench", "claims", store / "missing", status=1))
    assert "not a mapfs store" in refusal(mapfs("bench", "claims", tmp_path / "file", status=1))
    assert "are needed" in refusal(mapfs("bench", "claims", store, "--size", "1P", status=1))
    assert not leftovers(tmp_path)
