"""What is said of mmap: how it is judged, by made-up numbers, and that it can be measured."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from mapfs.claims import (
    calling,
    copying,
    crossover,
    editing,
    loading,
    seeking,
    sharing,
    slack,
    thrashing,
)
from mapfs.claims.catalogue import CLAIMS
from mapfs.claims.claim import CannotMeasureError, Finding, Result, Side, Verdict, explained, judged
from mapfs.claims.ground import Ground, Settings, ground_beside
from mapfs.claims.interrupts import uninterrupted
from mapfs.claims.measuring import measured
from mapfs.claims.memory_limit import DataLimit, MemoryLimit, cgroup_limit
from mapfs.claims.page import as_html
from mapfs.claims.plot import overview, panels, standalone
from mapfs.claims.processes import Effort, Memory, children, effort_of, in_child
from mapfs.claims.report import as_json
from mapfs.claims.samples import Interval, Spread, ratio, rounded
from mapfs.claims.subject import Subject
from mapfs.cli import mapfs, run
from mapfs.errors import NoSpaceError
from mapfs.sizes import bytes_label
from mapfs.store.machine_pages import PAGE_BYTES

HOLDS, FAILS, UNKNOWN = Verdict
MIB = 1 << 20


def effort(seconds: float = 0, calls: int = 0, read: int = 0, faults: int = 0) -> Effort:
    return Effort(seconds, calls, read, 0, faults, 0)


# The arithmetic


def test_a_ratio_pairs_what_was_measured_in_one_repetition() -> None:
    assert ratio([2, 20, 4], [1, 10, 2]) == Interval(2, 2, 2)
    assert ratio([1, 2, 3, 4, 5], [1] * 5) == Interval(3, 1, 5)
    assert ratio([100, *[2] * 7], [1] * 8) == Interval(2, 2, 2)  # one of eight may be disturbed


@pytest.mark.parametrize(
    ("low", "high", "also", "verdict"),
    [
        (1.05, 2, True, HOLDS),
        (1.05, 2, False, FAILS),
        (1.04, 2, True, UNKNOWN),
        (1.04, 2, False, FAILS),
        (0.5, 1.04, True, FAILS),
    ],
)
def test_a_ratio_counts_if_the_whole_interval_says_so(
    low: float,
    high: float,
    also: bool,  # noqa: FBT001 (pytest passes it)
    verdict: Verdict,
) -> None:
    assert judged(Interval(1, low, high), also=also) is verdict


def test_a_reason_says_that_repetitions_differ_too_much() -> None:
    assert explained(HOLDS, "figures") == explained(FAILS, "figures") == "figures"
    assert explained(UNKNOWN, "figures").startswith("the repetitions differ")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (5.0, "5"), (1234.5, "1,234"), (0.01234, "0.0123"), (99.94, "99.9")],
)
def test_rounded(value: float, text: str) -> None:
    assert rounded(value) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 * MIB, "64 MiB")],
)
def test_bytes_label(size: int, text: str) -> None:
    assert bytes_label(size) == text


def test_a_claim_holds_if_it_does_for_every_kind_of_file_that_was_measured() -> None:
    def of(*verdicts: Verdict) -> Verdict:
        return Result(copying.CLAIM, [Finding("", each, "") for each in verdicts]).verdict

    assert of(HOLDS, UNKNOWN) is HOLDS
    assert of(HOLDS, FAILS) is FAILS
    assert of(UNKNOWN) is of() is UNKNOWN


# Each claim, by made-up numbers


def copies(mapped: float, copied: int = 0) -> Finding:
    seconds = {copying.BUFFERED: 0.2, copying.WHOLE: 0.3, copying.FIRST: 0.25}
    found = {name: [effort(each, read=MIB)] * 5 for name, each in seconds.items()}
    found[copying.PRESENT] = [effort(mapped, read=copied)] * 5
    return copying.judge("file", found, MIB)


def test_copy() -> None:
    assert copies(0.1).verdict is HOLDS
    assert copies(0.1).factor == Interval(2, 2, 2)
    assert copies(0.1, copied=1).verdict is FAILS
    assert copies(0.199).verdict is FAILS
    assert copies(0.1).figures[0].spread == Spread(204_800, 204_800, 204_800, 5)
    assert "2 times as fast once pages are present, 0.800 times" in copies(0.1).reason


def calls(first: int, again: int, calls_again: int = 0) -> Finding:
    found = {
        calling.READ: [effort(calls=1000)] * 5,
        calling.FIRST: [effort(faults=first)] * 5,
        calling.AGAIN: [effort(calls=calls_again, faults=again)] * 5,
    }
    return calling.judge("file", found, 1000)


def test_calls() -> None:
    assert calls(100, 0).verdict is HOLDS
    assert calls(100, 0).factor == Interval(10, 10, 10)
    assert calls(100, 10).verdict is HOLDS
    assert calls(100, 11).verdict is FAILS
    assert calls(100, 0, calls_again=1).verdict is FAILS
    assert calls(1000, 0).verdict is FAILS


def shares(shared: int, written: int) -> Finding:
    found = {
        sharing.SHARED: [Memory(shared, 4 * MIB)] * 5,
        sharing.READ: [Memory(16 * MIB, 16 * MIB)] * 5,
        sharing.WRITTEN: [Memory(written, 4 * MIB)] * 5,
    }
    return sharing.judge("file", found, 4 * MIB)


def test_sharing() -> None:
    copied = sharing.PROCESSES * sharing.WRITTEN_PAGES * PAGE_BYTES
    assert shares(4 * MIB, 4 * MIB + copied).verdict is HOLDS
    assert shares(4 * MIB, 4 * MIB + copied).factor == Interval(4, 4, 4)
    assert shares(5 * MIB, 4 * MIB).verdict is FAILS
    assert shares(4 * MIB, 5 * MIB + copied).verdict is FAILS
    found = {name: [Memory(4 * MIB, 0)] for name in (sharing.SHARED, sharing.READ)}
    assert "written" not in sharing.judge("file", found, 4 * MIB).reason


def test_seek() -> None:
    def seeks(mapped: float) -> Finding:
        times = {seeking.MAP: mapped, seeking.PREAD: 600.0, seeking.LSEEK: 900.0, seeking.LOOP: 9.0}
        return seeking.judge("file", {name: [each] * 5 for name, each in times.items()})

    assert seeks(300).verdict is HOLDS
    assert seeks(600).verdict is FAILS
    assert "2 times as fast as pread(2), 3 times as lseek(2)" in seeks(300).reason


def test_loading() -> None:
    touched = loading.STEPS[-1] * PAGE_BYTES

    def loads(most: int) -> Finding:
        runs = {loading.DEFAULT: [[1, 2, 3, most]] * 5, loading.RANDOM: [[1, 2, 3, touched]] * 5}
        return loading.judge("file", runs, 16 * MIB, "a cgroup")

    assert loads(2 * touched).verdict is HOLDS
    assert loads(2 * touched + 1).verdict is FAILS
    assert loads(MIB).factor == Interval(16, 16, 16)
    assert loads(MIB).series[0].points[-1] == (loading.STEPS[-1], 1)
    assert "where a cgroup allows 8 MiB" in loads(MIB).reason


def test_edit() -> None:
    def edits(mapped: float, dirtied: int) -> Finding:
        costs = {
            editing.MAP: editing.Cost(mapped, dirtied),
            editing.WRITE: editing.Cost(0.5, 4096),
            editing.REWRITE: editing.Cost(8.0, 4 * MIB),
        }
        small = {name: [cost] * 5 for name, cost in costs.items()}
        return editing.judge("file", {MIB: small, 4 * MIB: small})

    assert edits(1, 4096).verdict is HOLDS
    assert edits(1, 4096).factor == Interval(8, 8, 8)
    assert edits(1, 4 * MIB).verdict is FAILS
    assert edits(8, 4096).verdict is FAILS
    uncounted = {
        name: [editing.Cost(1, 0)] for name in (editing.MAP, editing.WRITE, editing.REWRITE)
    }
    with pytest.raises(CannotMeasureError, match="counts no bytes"):
        editing.judge("file", {MIB: uncounted})
    assert [x for x, _ in edits(1, 4096).series[0].points] == [MIB, 4 * MIB]


def test_slack() -> None:
    def slacks(page: int) -> Finding:
        pages = (4096, 65536)
        found = {each: {size: -size % each for size in slack.SIZES} for each in pages}
        return slack.judge("store", found | {page: found.get(page) or {}}, page)

    assert slacks(4096).verdict is HOLDS
    assert "loses 75 %" in slacks(4096).reason
    assert "up to 1 KiB in pages of 4 KiB, 24 KiB in pages of 64 KiB" in slacks(4096).reason
    assert {series.label for series in slacks(4096).series} == {
        "pages of 4 KiB",
        "pages of 64 KiB",
    }
    small = {1024: {size: -size % 1024 for size in slack.SIZES}}
    assert slack.judge("store", small, 1024).verdict is FAILS


def files(factors: dict[int, float]) -> Finding:
    """Sizes, and how many times as fast the mapping is."""
    found = {
        size: {crossover.MAP: [1.0] * 5, crossover.NEW: [each] * 5, crossover.KEPT: [each / 2] * 5}
        for size, each in factors.items()
    }
    return crossover.judge("file", found)


def test_crossover() -> None:
    found = files({1024: 0.25, 2048: 2, 4096: 0.5, 8192: 1.5, 16384: 3})
    assert found.verdict is HOLDS
    assert "takes 4 times as long" in found.reason
    assert "from 8 KiB on against a new buffer, from 16 KiB on against a kept one" in found.reason
    assert files({1024: 1, 2048: 1}).verdict is FAILS
    assert "at none of these sizes" in files({1024: 1, 2048: 1}).reason


def test_thrashing() -> None:
    def thrashes(mapped: float, read: float) -> Finding:
        rates = {
            (thrashing.MAP, True): 1000.0,
            (thrashing.MAP, False): mapped,
            (thrashing.ADVISED, True): 1000.0,
            (thrashing.ADVISED, False): read,
            (thrashing.READ, True): 1000.0,
            (thrashing.READ, False): read,
        }
        return thrashing.judge(
            "file", {way: [thrashing.Speed(rate, 0)] * 5 for way, rate in rates.items()}
        )

    assert thrashes(100, 500).verdict is HOLDS
    assert thrashes(100, 100).verdict is FAILS
    assert thrashes(600, 900).verdict is FAILS
    assert "10 times slower than with, pread(2) 2 times" in thrashes(100, 500).reason
    assert "5 times as fast as the mapping, 1 times as with MADV_RANDOM" in (
        thrashes(100, 500).reason
    )


def test_repetitions_that_differ_too_much_tell_nothing() -> None:
    times = {
        seeking.MAP: [1, 3],
        seeking.PREAD: [2, 2],
        seeking.LSEEK: [2, 2],
        seeking.LOOP: [1, 1],
    }
    found = seeking.judge("file", {name: [*map(float, each)] for name, each in times.items()})
    assert found.verdict is UNKNOWN
    assert found.figures


# Measuring


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Two repetitions with small files."""
    return Ground(tmp_path, Settings(8 * MIB, 2, 4096))


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_can_be_measured(
    ground: Ground, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrashing, "_SECONDS", 0.02)
    claim = CLAIMS[name]
    label = claim.subjects[0]
    try:
        found = claim.measure(ground, ground.subject(label))
    except CannotMeasureError as error:
        pytest.skip(str(error))
    assert found.subject == label
    assert found.reason
    assert {figure.spread.count for figure in found.figures} <= {1, 2}
    assert bool(found.series) == (claim.axes is not None)
    assert claim.axes is not None or claim.unit in {figure.unit for figure in found.figures}
    assert (found.factor is None) == (claim.factor == "")
    assert not list(ground.directory.glob("slack-*"))


def test_what_cannot_be_measured_says_why(ground: Ground) -> None:
    def fails(error: Exception) -> Callable[[Ground, Subject], Finding]:
        def measure(_ground: Ground, _subject: Subject) -> Finding:
            raise error

        return measure

    errors = {
        "no cgroup": CannotMeasureError("no cgroup"),
        "here: No such file or directory": FileNotFoundError(2, os.strerror(2), "here"),
        "full": NoSpaceError("full"),
        "MemoryError": MemoryError(),
    }
    begun: list[str] = []
    for reason, error in errors.items():
        claim = replace(slack.CLAIM, measure=fails(error))
        (result,) = measured([claim], ground, lambda _claim, label: begun.append(label))
        assert result.verdict is UNKNOWN
        assert result.findings[0].reason == reason
    assert begun == list(slack.CLAIM.subjects) * len(errors)


def test_ways_are_measured_in_turns(ground: Ground) -> None:
    order: list[str] = []
    steps: list[int] = []
    ground.on_step = lambda: steps.append(len(order))

    def way(name: str) -> int:
        order.append(name)
        return len(order)

    found = ground.interleaved({name: partial(way, name) for name in "abc"})
    assert sorted(order[:3]) == sorted(order[3:]) == ["a", "b", "c"]
    assert sorted(chain(*found.values())) == [1, 2, 3, 4, 5, 6]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_ground_is_removed_whatever_happens(tmp_path: Path) -> None:
    store = tmp_path / "data.mapfs"
    settings = Settings(MIB, 5, 4096)
    before = signal.getsignal(signal.SIGTERM)

    def end_within() -> None:
        with ground_beside(store, settings, lambda: None) as ground:
            assert ground.directory.parent == tmp_path
            ground.subject("plain file").file(4096)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        end_within()
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_too_little_room_is_refused(tmp_path: Path) -> None:
    settings = Settings(1 << 60, 5, 4096)
    with (
        pytest.raises(NoSpaceError, match="are needed"),
        ground_beside(tmp_path / "data.mapfs", settings, lambda: None),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_ctrl_c_waits_for_what_must_not_be_interrupted() -> None:
    done = []

    def interrupted_within() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        interrupted_within()
    assert done == ["all"]


# Processes


def test_efforts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            for _ in range(100):
                file.read(4096)

    found = effort_of(read)
    assert 100 <= found.read_calls < 200  # a thread of the test runner may read, too
    assert found.read_bytes >= 100 * 4096


def test_a_child_answers_or_says_why_not() -> None:
    assert in_child(os.getpid) != os.getpid()
    with pytest.raises(CannotMeasureError, match="exit code 3"):
        in_child(lambda: os._exit(3))
    with pytest.raises(FileNotFoundError):
        in_child(Path("/missing").read_bytes)


def test_children_wait_for_each_other() -> None:
    with children([lambda say: say(say("begun"))] * 2) as both:
        assert [child.hear() for child in both] == ["begun", "begun"]
        for child in both:
            child.go_on()
        assert [child.hear() for child in both] == [None, None]


def test_a_limit_on_data_refuses_what_reading_takes_and_not_what_mapping_takes(
    tmp_path: Path,
) -> None:
    subject = Subject(tmp_path)
    path = subject.file(64 * MIB)
    limit: MemoryLimit = DataLimit(16 * MIB)
    with pytest.raises(MemoryError):
        in_child(lambda: len(path.read_bytes()), limit)

    def sum_of_pages() -> int:
        with subject.map(path) as mapping:
            return len(bytes(mapping.view[::PAGE_BYTES]))

    assert in_child(sum_of_pages, limit) == 64 * MIB // PAGE_BYTES


def test_a_cgroup_bounds_what_a_process_keeps_in_memory(tmp_path: Path) -> None:
    subject = Subject(tmp_path)
    path = subject.file(64 * MIB)
    try:
        subject.drop(path)
        with cgroup_limit(16 * MIB) as limit:
            in_child(lambda: sum(map(len, iter_read(path))), limit)
    except CannotMeasureError as error:
        pytest.skip(str(error))
    assert 0 < subject.resident(path) <= 16 * MIB


def iter_read(path: Path) -> list[bytes]:
    """The pieces of a file, none kept."""
    with path.open("rb") as file:
        while file.read(MIB):
            pass
    return []


# Reports


@pytest.fixture
def results() -> list[Result]:
    """One of each side, with and without axes, and one that could not be measured."""
    found = files({1024: 0.25, 2048: 2})
    return [
        Result(copying.CLAIM, [copies(0.1), Finding("mount", UNKNOWN, "no <fuse> & so on")]),
        Result(crossover.CLAIM, [found]),
    ]


class _Page(HTMLParser):
    """What a page refers to, and the tags that are open at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "link", "br"):
            self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag


def test_the_page_needs_nothing_from_elsewhere(results: list[Result]) -> None:
    text = as_html(results, {"kernel": "<Linux>"})
    page = _Page()
    page.feed(text)
    assert not page.tags
    assert all(each.startswith(("#", "data:")) for each in page.references)
    assert "http" not in text
    assert "url(" not in text
    assert not {"script", "img", "iframe", "object"} & set(page.seen)
    assert page.seen.count("figure") == 2
    assert "no &lt;fuse&gt; &amp; so on" in text
    for result in results:
        assert f'href="#{result.claim.name}"' in text
        assert f'id="{result.claim.name}"' in text


def test_a_picture_for_a_file_is_xml(results: list[Result]) -> None:
    picture = ET.fromstring(standalone(overview(results)))
    titles = [each.text for each in picture.iter() if each.tag.endswith("title")]
    assert titles == ["file: 2", "file: 0.250"]
    for result in results:
        for _, each in panels(result):
            ET.fromstring(standalone(each))
    assert standalone(overview([])) == ""


def test_the_json_has_everything(results: list[Result]) -> None:
    said = json.loads(as_json(results, {"kernel": "Linux"}))
    assert said["machine"] == {"kernel": "Linux"}
    first, second = said["claims"]
    assert (first["name"], first["side"], first["verdict"]) == ("copy", "for", "holds")
    assert second["side"] == Side.AGAINST
    assert first["findings"][0]["factor"] == {"median": 2, "low": 2, "high": 2}
    assert first["findings"][1]["factor"] is None
    figure = first["findings"][0]["figures"][0]
    assert {"label", "unit", "median", "least", "most", "count"} == figure.keys()
    assert second["findings"][0]["series"][0]["points"] == [[1024, 1e6], [2048, 1e6]]


def test_the_command_prints_what_was_found_and_fails_if_something_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_ground: Ground, _subject: Subject) -> Finding:
        raise CannotMeasureError("no [cgroup] here")

    arguments = [
        "bench",
        "claims",
        str(tmp_path / "data.mapfs"),
        "--size",
        "16M",
        "--only",
        "slack",
    ]
    assert run(mapfs, arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("slack, against mmap: holds\n")
    assert "temporary store  holds" in out
    monkeypatch.setitem(CLAIMS, "slack", replace(slack.CLAIM, measure=refuse))
    assert run(mapfs, arguments) == 1
    assert "cannot be measured here  no [cgroup] here" in capsys.readouterr().out
    assert not err
    assert not list(tmp_path.iterdir())
